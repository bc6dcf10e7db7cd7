"""What a client held is freed when the client or its channel is closed, without the garbage collector."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue, Tx

from tests.support.counting import kept_by
from tests.support.talk import Stage, Talk, content_frames


@pytest.fixture(autouse=True)
def collector_off() -> Iterator[None]:
    """Switch off the garbage collector, and the log, whose records keep references."""
    logging.disable()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


@pytest.fixture
def stage() -> Stage:
    """Return a stage where all input of a client arrives at once."""
    return Stage()


def nothing(talk: Talk) -> None:
    """Send nothing more."""


def publish(talk: Talk) -> None:
    talk.client(Confirm.Select()).publish("q", b"a", b"b").publish("nobody", b"c")


def publish_half(talk: Talk) -> None:
    octets = frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, bytes(3_000_000))
    talk.octets(octets[:2_000_000])


def publish_half_of_what_is_refused(talk: Talk) -> None:
    octets = frame.marshal(Basic.Publish(exchange="nonesuch", routing_key="q"), 1) + content_frames(1, bytes(99))
    talk.octets(octets[:-1])


def consume(talk: Talk) -> None:
    talk.publish("q", b"a", b"b").client(Basic.Consume(queue="q"), Basic.Ack(1))


def consume_one(talk: Talk) -> None:
    talk.client(Basic.Qos(0, 1, False), Basic.Qos(0, 1, True)).publish("q", b"a", b"b")
    talk.client(Basic.Consume(queue="q"), Basic.Consume(queue="q"))


def get(talk: Talk) -> None:
    talk.publish("q", b"a").client(Basic.Get(queue="q"))


def reply(talk: Talk) -> None:
    talk.client(Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True))
    talk.client(Basic.Publish(routing_key="q"), content=b"", properties=Basic.Properties(
        reply_to="amq.rabbitmq.reply-to"))


def transact(talk: Talk) -> None:
    talk.client(Tx.Select()).publish("q", b"a").client(Basic.Publish(routing_key="nobody", mandatory=True), content=b"")


def own(talk: Talk) -> None:
    talk.client(Queue.Declare(queue="mine", exclusive=True), Basic.Consume(queue="mine")).publish("mine", b"a")


def fail(talk: Talk) -> None:
    talk.client(Basic.Ack(99))


def do_all(talk: Talk) -> None:
    for number, act in enumerate((publish, consume, get, own), 1):
        talk.client(Channel.Open(), channel=10 + number)
        act(talk)


ACTS: list[Callable[[Talk], None]] = [
    nothing, publish, publish_half, publish_half_of_what_is_refused, consume, consume_one, get, reply, transact, own,
    fail, do_all]


def new_client(stage: Stage) -> Talk:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q"))
    return talk


def forget(stage: Stage, talk: Talk) -> None:
    """What the server does when a socket is gone."""
    del stage.talks[talk.session]
    stage.forget(talk.session)
    stage.end_turn()


@pytest.mark.parametrize("leave", ["lost", "closed", "forced"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_a_client_that_goes_is_freed_with_its_channels(stage: Stage, act: Callable[[Talk], None], leave: str) -> None:
    talk = new_client(stage)
    act(talk)
    known = [weakref.ref(one) for one in (talk.session, talk.session._reader, *talk.session.channels.values())]
    if leave == "closed":
        talk.client(Connection.Close(200, "", 0, 0))
    elif leave == "forced":
        talk.session.force_close("bye")
        stage.end_turn()
        talk.client(Connection.CloseOk())
    talk.session.lost()
    forget(stage, talk)
    del talk
    assert [one() for one in known] == [None] * len(known)
    assert (stage.intake.octets, stage.intake.room_ahead) == (0, 0)


def test_a_client_that_goes_before_it_has_logged_in_is_freed(stage: Stage) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in()
    known = weakref.ref(talk.session)
    talk.session.lost()
    forget(stage, talk)
    del talk
    assert known() is None


def test_a_client_that_waits_for_the_end_of_an_alarm_is_freed_when_it_goes(stage: Stage) -> None:
    talk = new_client(stage)
    stage.set_alarm("low on memory")
    publish_half(talk)
    known = weakref.ref(talk.session)
    talk.session.lost()
    forget(stage, talk)
    del talk
    assert known() is None and stage.intake.octets == 0


@pytest.mark.parametrize("act", [act for act in ACTS if "half" not in act.__name__], ids=lambda act: act.__name__)
def test_a_channel_that_closes_is_freed(stage: Stage, act: Callable[[Talk], None]) -> None:
    talk = new_client(stage)
    act(talk)
    known = weakref.ref(talk.session.channels[1])
    if talk.session.channels[1].is_closing:
        talk.client(Channel.CloseOk())
    else:
        talk.client(Channel.Close(200, "", 0, 0))
    assert 1 not in talk.session.channels and known() is None
    talk.hear_all()
    talk.open_channel()


def come_and_go(stage: Stage) -> Callable[[], Any]:
    def act() -> None:
        for _ in range(20):
            talk = new_client(stage)
            do_all(talk)
            publish_half(talk)
            talk.session.lost()
            forget(stage, talk)
            stage.lines.clear()

    return act


def test_clients_that_come_and_go_leave_nothing(stage: Stage) -> None:
    other = new_client(stage)
    act = come_and_go(stage)
    act()
    other.client(Queue.Purge(queue="q"))
    objects = len(gc.get_objects())
    assert kept_by(act) < 150_000       # the messages that wait in the queue are among them
    assert len(gc.get_objects()) < objects + 200


def test_channels_that_come_and_go_leave_nothing(stage: Stage) -> None:
    talk = new_client(stage)

    def act() -> None:
        for number in range(100):
            talk.client(Channel.Open(), channel=7)
            talk.client(Exchange.Declare(exchange=f"x{number}"), channel=7)
            talk.client(Basic.Consume(queue="q", consumer_tag=f"c{number}"), channel=7)
            talk.client(Basic.Publish(exchange=f"x{number}"), content=b"", channel=7)
            talk.client(Exchange.Delete(exchange=f"x{number}"), channel=7)
            talk.client(Channel.Close(200, "", 0, 0), channel=7)
            talk.hear_all()
            talk.sent.clear()
            stage.lines.clear()

    act()
    objects = len(gc.get_objects())
    assert kept_by(act) < 60_000        # what the reader remembers of publishes is among it
    assert len(gc.get_objects()) < objects + 50


def test_a_channel_that_closes_before_its_confirms_are_due_is_freed(stage: Stage) -> None:
    talk = new_client(stage)
    talk.client(Queue.Declare(queue="d", durable=True), Confirm.Select())
    stage.commits_at_once = False
    talk.publish("d", b"a", properties=Basic.Properties(delivery_mode=2))
    known = weakref.ref(talk.session.channels[1])
    talk.client(Channel.Close(200, "", 0, 0))
    assert known() is None
    stage.commit()
    assert isinstance(talk.hear_all()[-1].said, Channel.CloseOk) and not talk.session.awaits_commit
