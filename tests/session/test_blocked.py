"""A client during an alarm: it is blocked at its first publish, notified if it can be, and later continued."""

from __future__ import annotations

import pytest
from pamqp import frame
from pamqp.commands import Basic, Confirm, Connection, Queue
from pamqp.heartbeat import Heartbeat

from amqpd.session.blocking import MOST_DEFERRED_BYTES
from amqpd.session.settings import SessionSettings
from tests.support.talk import Stage, Talk, content_frames

DISK, MEMORY, BOTH = "low on disk", "low on memory", "low on disk & memory"


@pytest.fixture
def settings() -> SessionSettings:
    return SessionSettings(server_properties={}, max_body_size=200_000)


@pytest.fixture
def publisher(stage: Stage) -> Talk:
    """A client with a queue `q` and confirms, and an alarm is on."""
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    stage.set_alarm(DISK)
    return talk


def ready(stage: Stage) -> list[bytes]:
    """The bodies that wait in `q`."""
    return [bytes(message.body) for message in stage.broker.vhosts["/"].queues["q"].ready]


def state(talk: Talk) -> str:
    return str(talk.session.statistics().state)


def test_a_client_is_blocked_at_its_first_publish_and_that_is_not_taken(stage: Stage, publisher: Talk) -> None:
    publisher.nothing()
    assert state(publisher) == "blocking"
    publisher.publish("q", b"a").broker(Connection.Blocked(DISK)).nothing()
    assert (state(publisher), ready(stage)) == ("blocked", [])
    stage.set_alarm("")
    publisher.broker(Connection.Unblocked(), Basic.Ack(1)).nothing()
    assert (state(publisher), ready(stage)) == ("running", [b"a"])


def test_everything_after_the_first_publish_waits_in_its_order(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", b"a").broker(Connection.Blocked(DISK))
    publisher.client(Basic.Get(queue="q", no_ack=True)).publish("q", b"b", b"c").client(Basic.Get(queue="q"))
    publisher.nothing()
    stage.set_alarm("")
    publisher.broker(Connection.Unblocked())
    publisher.broker(Basic.GetOk(1, False, "", "q", 0), content=b"a")
    publisher.broker(Basic.GetOk(2, False, "", "q", 1), content=b"b")
    assert publisher.hear(Basic.Ack).delivery_tag == 3
    publisher.nothing()


def test_whatever_comes_before_a_publish_is_done_at_once(stage: Stage, publisher: Talk) -> None:
    publisher.octets(
        frame.marshal(Queue.Declare(queue="other"), 1) + frame.marshal(Basic.Publish(routing_key="q"), 1)
        + content_frames(1, b"a") + frame.marshal(Queue.Declare(queue="third"), 1))
    publisher.broker(Queue.DeclareOk("other", 0, 0), Connection.Blocked(DISK)).nothing()
    stage.set_alarm("")
    publisher.broker(Connection.Unblocked(), Queue.DeclareOk("third", 0, 0))
    publisher.hear(Basic.Ack)


def test_consumers_and_newcomers_go_on(stage: Stage, publisher: Talk) -> None:
    stage.set_alarm("")
    publisher.publish("q", b"a", b"b").hear(Basic.Ack)
    stage.set_alarm(MEMORY)
    consumer = stage.client().open_channel()
    consumer.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    consumer.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"a")
    consumer.broker(Basic.Deliver("c", 2, False, "", "q"), content=b"b")
    consumer.client(Basic.Ack(2, True), Queue.Declare(queue="mine")).broker(Queue.DeclareOk("mine", 0, 0))
    assert state(consumer) == "blocking" and not stage.broker.vhosts["/"].queues["q"].unacked


def test_a_client_is_told_once_and_only_when_all_alarms_have_ended(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", b"a").broker(Connection.Blocked(DISK))
    stage.set_alarm(BOTH)
    publisher.nothing()
    late = stage.client().open_channel().publish("q", b"b")
    late.broker(Connection.Blocked(BOTH))
    stage.set_alarm(MEMORY)
    publisher.nothing()
    late.nothing()
    stage.set_alarm("")
    publisher.broker(Connection.Unblocked(), Basic.Ack(1)).nothing()
    late.broker(Connection.Unblocked()).nothing()


def test_who_did_not_publish_hears_nothing_of_an_alarm(stage: Stage, publisher: Talk) -> None:
    stage.set_alarm("")
    publisher.nothing()


def test_a_client_that_does_not_know_blocking_is_blocked_without_a_word(stage: Stage, publisher: Talk) -> None:
    stranger = stage.client(capabilities={}).open_channel()
    stranger.publish("q", b"a").nothing()
    assert state(stranger) == "blocked" and ready(stage) == []
    stage.set_alarm("")
    stranger.nothing()
    assert ready(stage) == [b"a"]


def test_a_client_that_is_blocked_is_logged_with_the_reason(
    stage: Stage, publisher: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    stage.set_alarm("disk")
    with caplog.at_level("INFO", logger="amqpd"):
        publisher.publish("q", b"x").hear(Connection.Blocked)
    assert caplog.messages == [f"{publisher.session.name}: blocked: disk"]


def test_a_second_alarm_blocks_again(stage: Stage, publisher: Talk) -> None:
    for number in (1, 2):
        publisher.publish("q", b"a").broker(Connection.Blocked(DISK))
        stage.set_alarm("")
        publisher.broker(Connection.Unblocked(), Basic.Ack(number)).nothing()
        stage.set_alarm(DISK)


def test_a_large_body_is_not_taken_to_its_end_first(stage: Stage, publisher: Talk) -> None:
    stage.set_alarm("")
    publish = frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, bytes(150_000))
    publisher.octets(publish[:100_000])
    stage.set_alarm(MEMORY)
    publisher.octets(publish[100_000:100_010]).broker(Connection.Blocked(MEMORY))
    publisher.octets(publish[100_010:]).nothing()
    stage.set_alarm("")
    publisher.broker(Connection.Unblocked(), Basic.Ack(1))
    assert ready(stage) == [bytes(150_000)]


def test_a_body_over_the_limit_is_refused_when_the_alarm_has_ended(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", bytes(200_001)).broker(Connection.Blocked(DISK)).nothing()
    stage.set_alarm("")
    publisher.broker(Connection.Unblocked())
    publisher.closed(406, "PRECONDITION_FAILED - message size 200001 is larger than configured max size 200000", 60, 40)


# While it is blocked

def test_a_blocked_client_is_read_a_little_further_and_then_no_more(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", b"a").broker(Connection.Blocked(DISK))
    publisher.octets(frame.marshal(Heartbeat(), 0) * 10)
    assert not publisher.session.blocking.is_input_full
    publisher.publish("q", bytes(MOST_DEFERRED_BYTES))
    assert publisher.session.blocking.is_input_full
    stage.set_alarm("")
    assert not publisher.session.blocking.is_input_full
    publisher.broker(Connection.Unblocked())
    assert publisher.hear(Basic.Ack) and len(ready(stage)) == 2
    publisher.hear_all()


def test_heartbeats_go_both_ways(stage: Stage) -> None:
    talk = stage.client(heartbeat=10).open_channel()
    stage.set_alarm(DISK)
    talk.publish("q", b"a").broker(Connection.Blocked(DISK))
    for _ in range(5):
        stage.pass_time(15)
        talk.client(Heartbeat())
    assert not talk.is_dropped and {type(heard.said) for heard in talk.hear_all()} == {Heartbeat}
    stage.pass_time(20.25)
    assert talk.is_dropped
    talk.hear_all()


def test_a_client_that_is_not_read_any_more_lives_as_long_as_its_machine_answers(stage: Stage) -> None:
    talk = stage.client(heartbeat=10).open_channel()
    stage.set_alarm(DISK)
    talk.publish("q", bytes(MOST_DEFERRED_BYTES)).publish("q", bytes(MOST_DEFERRED_BYTES))
    talk.session.is_read = False
    for _ in range(5):
        stage.pass_time(15)
        talk.session.heartbeats.peer_is_alive(stage.now_ms - 100)
    assert not talk.is_dropped
    stage.pass_time(20.25)
    assert talk.is_dropped
    talk.hear_all()


def test_a_blocked_client_that_is_gone_leaves_nothing(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", b"a").broker(Connection.Blocked(DISK))
    publisher.lose()
    stage.set_alarm("")
    publisher.nothing()
    assert ready(stage) == []


def test_a_blocked_client_can_be_closed_and_what_it_published_is_not_taken(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", b"a", b"b").broker(Connection.Blocked(DISK))
    publisher.session.force_close("enough")
    stage.end_turn()
    publisher.hung_up(320, "CONNECTION_FORCED - enough", 0, 0)
    stage.set_alarm("")
    assert ready(stage) == []


def test_an_answer_to_our_close_is_found_behind_what_was_not_heard(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", b"a").broker(Connection.Blocked(DISK))
    publisher.publish("q", bytes(MOST_DEFERRED_BYTES)).client(Connection.Close(200, "bye", 0, 0)).nothing()
    publisher.session.force_close("enough")
    stage.end_turn()
    publisher.broker(Connection.Close(320, "CONNECTION_FORCED - enough", 0, 0), Connection.CloseOk())
    assert publisher.session.is_finished


def test_nonsense_is_answered_when_the_alarm_has_ended(stage: Stage, publisher: Talk) -> None:
    publisher.publish("q", b"a").broker(Connection.Blocked(DISK))
    publisher.octets(b"\1\0\1\0\0\0\4\0\0\0\0\0").nothing()
    stage.set_alarm("")
    publisher.broker(Connection.Unblocked())
    assert publisher.hear(Basic.Ack) and publisher.hear(Connection.Close).reply_code == 501


# When the store has failed

def test_a_failed_store_closes_with_541_and_what_waits_for_it_is_never_said(stage: Stage) -> None:
    talk = stage.client().open_channel()
    stage.commits_at_once = False
    talk.client(Queue.Declare(queue="q", durable=True), Confirm.Select())
    talk.publish("q", b"a", persistent=True).nothing()
    talk.session.fail("the store has failed")
    stage.end_turn()
    talk.hung_up(541, "INTERNAL_ERROR - the store has failed", 0, 0)


def test_a_stranger_hears_nothing_of_a_failed_store(stage: Stage, stranger: Talk) -> None:
    stranger.greet()
    stranger.session.fail("the store has failed")
    stage.end_turn()
    assert stranger.nothing().session.is_finished
