"""Close of channels and connections by either side, errors of both levels, and what is released."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from pamqp import frame
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue, Tx
from pamqp.heartbeat import Heartbeat

from amqpd.broker import vhost
from amqpd.broker.definitions import QueueDefinition, VhostDefinition
from amqpd.broker.departure import REMOVE_STEPS
from amqpd.broker.effort import TURN
from amqpd.broker.worklist import PIECE
from amqpd.session.closing import LOST_STEPS, RELEASE_STEPS, STOP_STEPS
from amqpd.session.phases import Phase
from amqpd.session.settings import SessionSettings
from tests.support.journals import FailingJournal
from tests.support.samples import messages
from tests.support.talk import Stage, Talk

NO_QUEUE = "NOT_FOUND - no queue 'missing' in vhost '/'"
NOT_OPEN = "CHANNEL_ERROR - expected 'channel.open'"
RUNNING = "CHANNEL_ERROR - unexpected method in connection state running"
UNIMPLEMENTED = "COMMAND_INVALID - unimplemented method"


# Channels

def test_a_channel_opens_and_closes(talk: Talk) -> None:
    talk.client(Channel.Open()).hear(Channel.OpenOk)
    talk.close_channel()
    assert not talk.session.channels


def test_a_closed_channel_can_be_opened_again(talk: Talk) -> None:
    talk.open_channel().close_channel().open_channel()


def test_a_channel_that_is_open_cannot_be_opened(talk: Talk) -> None:
    talk.open_channel().client(Channel.Open())
    talk.hung_up(504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10)


def test_a_channel_that_awaits_close_ok_cannot_be_opened(talk: Talk) -> None:
    talk.open_channel().client(Queue.Purge(queue="missing"), Channel.Open(), Channel.CloseOk())
    talk.broker(Channel.Close(404, NO_QUEUE, 50, 30))
    talk.hung_up(504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10)


def test_the_number_of_a_channel_may_be_any(talk: Talk) -> None:
    talk.open_channel(65_535).close_channel(65_535)


def test_channel_max_limits_how_many_are_open_not_their_numbers(stage: Stage) -> None:
    talk = stage.client(channel_max=1).open_channel(7)
    talk.client(Channel.Open(), channel=1)
    talk.hung_up(
        530, "NOT_ALLOWED - number of channels opened (1) has reached the negotiated channel_max (1)", 0, 0)


def test_a_closed_channel_makes_room_under_channel_max(stage: Stage) -> None:
    stage.client(channel_max=1).open_channel(7).close_channel(7).open_channel(8)


TOO_MANY_CHANNELS = (
    "NOT_ALLOWED - number of channels opened on node 'amqpd@localhost' has reached the maximum allowed limit of (3), "
    "which limits.max_channels sets")


def test_all_connections_together_have_a_limit_of_channels(piece: int, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(piece=piece, settings=SessionSettings(server_properties={}, channel_limit=3))
    first = stage.client().open_channel(1).open_channel(2)
    second = stage.client().open_channel(1)
    second.client(Channel.Open(), channel=2).hung_up(530, TOO_MANY_CHANNELS, 0, 0)
    assert sum(TOO_MANY_CHANNELS in record.getMessage() for record in caplog.records) == 1
    third = stage.client().open_channel(9)     # the others of the connection that was refused are gone
    first.close_channel(2)
    third.open_channel(8)
    assert stage.broker.channel_count == 3


def test_channels_count_until_what_they_hold_is_free(piece: int) -> None:
    stage = Stage(piece=piece, settings=SessionSettings(server_properties={}, channel_limit=3))
    lost, closed, failed = [stage.client().open_channel() for _ in range(3)]
    lost.lose()
    closed.client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())
    failed.client(Queue.Purge(queue="missing")).closed(404, NO_QUEUE, 50, 30)
    assert stage.broker.channel_count == 0


@pytest.mark.parametrize("method", [
    Queue.Declare(queue="q"), Basic.Qos(), Channel.Close(200, "", 0, 0), Channel.CloseOk(), Basic.Ack(1),
    Basic.Get(queue="q"), Tx.Select(), Connection.Open("/"),
], ids=lambda method: method.name)
def test_a_method_on_a_number_that_is_not_open_closes_the_connection(talk: Talk, method: Queue.Declare) -> None:
    talk.client(method, channel=3)
    talk.hung_up(504, NOT_OPEN, method.index >> 16, method.index & 0xFFFF)


def test_a_publish_on_a_number_that_is_not_open_closes_the_connection(talk: Talk) -> None:
    talk.publish("q", b"lost", channel=3).hung_up(504, NOT_OPEN, 60, 40)


@pytest.mark.parametrize("method", [Channel.Open(), Queue.Declare(queue="q"), Basic.Ack(1), Tx.Select()],
                         ids=lambda method: method.name)
def test_a_channel_s_method_on_channel_0_closes_the_connection(talk: Talk, method: Queue.Declare) -> None:
    talk.client(method, channel=0)
    talk.hung_up(504, RUNNING, method.index >> 16, method.index & 0xFFFF)


@pytest.mark.parametrize("method", [
    Connection.StartOk(), Connection.TuneOk(), Connection.Open("/"), Connection.Tune(), Connection.CloseOk(),
    Connection.Blocked("x"),
], ids=lambda method: method.name)
def test_a_connection_s_method_out_of_turn_closes_the_connection(talk: Talk, method: Connection.Open) -> None:
    talk.client(method).hung_up(504, RUNNING, method.index >> 16, method.index & 0xFFFF)


@pytest.mark.parametrize("method", [
    Channel.OpenOk(), Channel.CloseOk(), Queue.DeclareOk("q", 0, 0), Basic.ConsumeOk("c"), Basic.GetEmpty(),
    Confirm.SelectOk(), Connection.Blocked("x"), Connection.Close(200, "", 0, 0), Exchange.UnbindOk(),
], ids=lambda method: method.name)
def test_a_method_that_is_not_a_client_s_closes_the_connection(talk: Talk, method: Channel.OpenOk) -> None:
    talk.open_channel().client(method, channel=1)
    talk.hung_up(503, UNIMPLEMENTED, method.index >> 16, method.index & 0xFFFF)


def test_a_channel_error_names_the_method_at_fault(talk: Talk) -> None:
    talk.open_channel().client(Queue.Purge(queue="missing")).closed(404, NO_QUEUE, 50, 30)


def test_other_channels_live_on_after_a_channel_error(talk: Talk) -> None:
    talk.open_channel(1).open_channel(2)
    talk.client(Queue.Purge(queue="missing"), channel=1).closed(404, NO_QUEUE, 50, 30)
    talk.client(Tx.Select(), channel=2).broker(Tx.SelectOk(), channel=2)


def test_a_channel_can_be_opened_again_after_an_error(talk: Talk) -> None:
    talk.open_channel().client(Queue.Purge(queue="missing")).closed(404, NO_QUEUE, 50, 30)
    talk.open_channel().client(Tx.Select()).broker(Tx.SelectOk())


def test_nothing_is_heard_on_a_channel_between_its_error_and_close_ok(talk: Talk) -> None:
    talk.open_channel()
    talk.client(Queue.Purge(queue="missing"), Queue.Declare(queue="q"), Basic.Qos(), Basic.Ack(5))
    talk.publish("q", b"lost").closed(404, NO_QUEUE, 50, 30)
    assert not talk.stage.broker.vhosts["/"].queues


def test_a_number_is_not_free_before_close_ok(stage: Stage) -> None:
    talk = stage.client(channel_max=1).open_channel()
    talk.client(Queue.Purge(queue="missing")).hear(Channel.Close)
    talk.client(Channel.Open(), channel=2).hear(Connection.Close)


def test_both_sides_may_close_a_channel_at_once(talk: Talk) -> None:
    talk.open_channel().client(Queue.Purge(queue="missing"), Channel.Close(200, "bye", 0, 0))
    talk.broker(Channel.Close(404, NO_QUEUE, 50, 30), Channel.CloseOk())
    talk.client(Channel.CloseOk()).open_channel()


def test_a_long_reply_text_is_cut(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="q" * 250, passive=True))
    close = talk.hear(Channel.Close)
    assert (len(close.reply_text), close.reply_text[-4:]) == (255, "q...")
    talk.client(Channel.CloseOk())


def test_closing_a_channel_requeues_what_is_unacked_and_ends_consumers(stage: Stage) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    talk.publish("q", b"one", b"two")
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    talk.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"one")
    talk.broker(Basic.Deliver("c", 2, False, "", "q"), content=b"two")
    talk.close_channel()
    other.client(Queue.Declare(queue="q", passive=True)).broker(Queue.DeclareOk("q", 2, 0))
    other.client(Basic.Get(queue="q", no_ack=True))
    other.broker(Basic.GetOk(1, True, "", "q", 1), content=b"one")


def test_a_channel_error_requeues_before_the_close_is_sent(stage: Stage) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"one")
    talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "", "q", 0), content=b"one")
    other.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    talk.client(Queue.Purge(queue="missing")).broker(Channel.Close(404, NO_QUEUE, 50, 30))
    other.broker(Basic.Deliver("c", 1, True, "", "q"), content=b"one")


def test_an_unsent_confirm_is_not_sent_after_the_channel_was_closed(stage: Stage) -> None:
    stage.commits_at_once = False
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q", durable=True))
    stage.commit()
    talk.hear(Queue.DeclareOk)
    talk.client(Confirm.Select()).broker(Confirm.SelectOk()).publish("q", b"one", persistent=True)
    talk.client(Queue.Purge(queue="missing")).broker(Channel.Close(404, NO_QUEUE, 50, 30))
    stage.commit()
    talk.nothing().client(Channel.CloseOk())


# Connections

def test_a_client_closes_its_connection(talk: Talk) -> None:
    talk.open_channel().client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())
    assert talk.session.is_finished
    assert not talk.stage.broker.connections


def test_nothing_is_heard_after_the_end(talk: Talk) -> None:
    talk.client(Connection.Close(200, "bye", 0, 0), Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())
    talk.client(Channel.Open()).nothing()


def test_a_finished_connection_that_stays_is_dropped(talk: Talk) -> None:
    talk.client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk()).stage.pass_time(1)
    assert talk.is_dropped


def test_after_our_close_only_close_and_close_ok_are_heard(talk: Talk) -> None:
    talk.client(Channel.Open(), channel=0).hear(Connection.Close)
    talk.client(Channel.Open(), channel=1).publish("q", b"x").client(Basic.Ack(1)).client(Heartbeat()).nothing()
    talk.client(Connection.CloseOk())
    assert talk.session.is_finished


def test_both_sides_may_close_a_connection_at_once(talk: Talk) -> None:
    talk.client(Channel.Open(), channel=0).hear(Connection.Close)
    talk.client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())
    assert talk.session.is_finished


def test_a_client_that_does_not_answer_our_close_is_dropped(talk: Talk) -> None:
    talk.client(Channel.Open(), channel=0).hear(Connection.Close)
    talk.stage.pass_time(4.75)
    assert not talk.is_dropped
    talk.stage.pass_time(0.25)
    assert talk.is_dropped


def test_an_exclusive_queue_ends_with_its_connection_before_close_ok(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="mine", exclusive=True)).broker(Queue.DeclareOk("mine", 0, 0))
    talk.client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())
    assert not talk.stage.broker.vhosts["/"].queues


def test_an_exclusive_queue_ends_when_the_socket_is_lost(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="mine", exclusive=True)).hear(Queue.DeclareOk)
    talk.lose()
    assert not talk.stage.broker.vhosts["/"].queues
    assert not talk.stage.broker.connections


def declare_many_exclusive(talk: Talk) -> list[str]:
    """Declare as many exclusive queues as take some pieces to remove, each with a message and a binding."""
    names = [f"mine {number}" for number in range(3 * PIECE // REMOVE_STEPS)]
    talk.open_channel()
    for name in names:
        talk.client(
            Queue.Declare(queue=name, exclusive=True, nowait=True),
            Queue.Bind(queue=name, exchange="amq.topic", routing_key=name, nowait=True)).publish(name, b"x")
    return names


def work_on(stage: Stage) -> int:
    """Do a piece of a job; return what it cost."""
    before = stage.broker.effort.total
    stage.broker.effort.stop = 0
    stage.broker.worklist.work()
    return stage.broker.effort.total - before


def test_many_exclusive_queues_go_in_pieces_and_all_are_gone_before_close_ok(stage: Stage) -> None:
    talk = stage.client()
    names = declare_many_exclusive(talk)
    vhost, effort = stage.broker.vhosts["/"], stage.broker.effort
    before = effort.total
    talk.session.receive(frame.marshal(Connection.Close(200, "bye", 0, 0), 0), stage.now_ms)
    assert effort.total - before < 2 * PIECE
    left = len(vhost.queues)
    assert 0 < left < len(names) and not talk.session.take_output(stage.now_ms)
    assert work_on(stage) < 2 * PIECE
    assert 0 < len(vhost.queues) < left
    stage.end_turn()
    assert not vhost.queues and not [*vhost.bindings()]
    talk.broker(Connection.CloseOk())
    assert talk.session.is_finished


def test_an_exclusive_queue_that_is_not_gone_yet_is_locked_and_then_free(stage: Stage) -> None:
    talk, other = stage.client(), stage.client().open_channel(1).open_channel(2)
    names = declare_many_exclusive(talk)
    talk.session.lost()
    for channel, queue in (1, names[-1]), (2, names[0]):
        other.session.receive(frame.marshal(Queue.Declare(queue=queue), channel), stage.now_ms)
    assert {*stage.broker.vhosts["/"].queues} > {*names[-10:], names[0]}
    stage.end_turn()
    assert other.hear(Channel.Close).reply_code == 405
    other.broker(Queue.DeclareOk(names[0], 0, 0), channel=2).client(Channel.CloseOk())
    other.open_channel().client(Queue.Declare(queue=names[-1])).broker(Queue.DeclareOk(names[-1], 0, 0))
    assert {*stage.broker.vhosts["/"].queues} == {names[0], names[-1]}


@pytest.mark.parametrize("interrupt", [
    lambda stage, talk: talk.session.lost(),
    lambda stage, talk: talk.session.force_close("no more"),
    lambda stage, talk: stage.broker.delete_vhost("/"),
], ids=["lost", "forced", "vhost deleted"])
def test_the_end_of_exclusive_queues_may_be_interrupted(
        stage: Stage, interrupt: Callable[[Stage, Talk], None]) -> None:
    talk = stage.client()
    declare_many_exclusive(talk)
    vhost = stage.broker.vhosts["/"]
    talk.session.receive(frame.marshal(Connection.Close(200, "bye", 0, 0), 0), stage.now_ms)
    interrupt(stage, talk)
    stage.end_turn()
    talk.hear_all()
    assert not vhost.queues and talk.session.phases.current is Phase.CLOSED


def test_a_lost_connection_gives_its_unacked_messages_to_others(stage: Stage) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"one")
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    talk.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"one")
    other.client(Basic.Consume(queue="q", consumer_tag="d")).broker(Basic.ConsumeOk("d"))
    talk.lose()
    other.broker(Basic.Deliver("d", 1, True, "", "q"), content=b"one")


def test_a_connection_error_lets_go_of_everything_before_it_is_told(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="mine", exclusive=True)).hear(Queue.DeclareOk)
    talk.client(Channel.Open(), channel=0).hear(Connection.Close)
    assert not talk.stage.broker.vhosts["/"].queues


def test_what_a_held_answer_waits_for_is_waited_for_at_the_end_too(stage: Stage) -> None:
    stage.commits_at_once = False
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q", durable=True), channel=1).client(Connection.Close(200, "bye", 0, 0)).nothing()
    assert not talk.session.is_finished
    stage.commit()
    talk.broker(Queue.DeclareOk("q", 0, 0), Connection.CloseOk())
    assert talk.session.is_finished


def test_the_broker_closes_by_force(talk: Talk) -> None:
    talk.open_channel().session.force_close("Closed via amqpctl")
    talk.stage.end_turn()
    talk.hung_up(320, "CONNECTION_FORCED - Closed via amqpctl", 0, 0)


def test_a_talk_that_is_not_open_is_ended_by_force_without_a_word(stranger: Talk) -> None:
    stranger.greet().session.force_close("shutdown")
    assert stranger.session.is_finished


def test_a_deleted_user_s_connections_are_closed(stage: Stage) -> None:
    talk, other = stage.client("bob"), stage.client()
    stage.broker.users.delete("bob")
    stage.end_turn()
    talk.hung_up(320, "CONNECTION_FORCED - user 'bob' is deleted", 0, 0)
    other.open_channel()


def test_a_deleted_vhost_s_connections_are_closed(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q", durable=True)).broker(Queue.DeclareOk("q", 0, 0))
    stage.broker.delete_vhost("/")
    stage.end_turn()
    talk.hung_up(320, "CONNECTION_FORCED - vhost '/' is deleted", 0, 0)
    assert not stage.journal.now.messages


# Octets that are no talk

@pytest.mark.parametrize(("octets", "code", "text"), [
    (b"\x01\0\1\0\0\0\x04\0\x14\0\x0a\0", 501, "FRAME_ERROR - type 1"),
    (b"\x09\0\1\0\0\0\x03abc\xce", 501, 'FRAME_ERROR - type 9, all octets = <<"abc">>: unknown_frame'),
    (b"\x08\0\0\0\0\0\x01x\xce", 501, 'FRAME_ERROR - type 8, all octets = <<"x">>: unknown_frame'),
    (b"\x08\0\1\0\0\0\0\xce", 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    (b"\x03\0\0\0\0\0\1x\xce", 505, 'UNEXPECTED_FRAME - type 3, all octets = <<"x">>'),
    (b"\x01\0\1\0\x02\0\x01", 501, "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,131073,131064}"),
    (b"\x03\0\1\0\0\0\1x\xce", 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
])
def test_octets_out_of_frame_close_the_connection_and_nothing_more_is_understood(
    talk: Talk, octets: bytes, code: int, text: str
) -> None:
    talk.open_channel().octets(octets)
    close = talk.hear(Connection.Close)
    assert (close.reply_code, close.reply_text[: len(text)]) == (code, text)
    talk.octets(b"\x01\0\0\0\0\0\x04\0\x0a").nothing()
    talk.stage.pass_time(1)
    assert talk.is_dropped


def test_arguments_that_do_not_decode_name_their_method(talk: Talk) -> None:
    talk.open_channel().octets(b"\x01\0\1\0\0\0\x0a\0\x3c\0\x46\0\0\x20abc\xce")
    talk.hung_up(501, "FRAME_ERROR - cannot decode <<0,0,32,97,98,99>>", 60, 70)


def test_an_unknown_method_is_told_so(talk: Talk) -> None:
    talk.open_channel().octets(b"\x01\0\1\0\0\0\x04\0\x3c\x01\x00\xce")
    talk.hung_up(540, "NOT_IMPLEMENTED - unknown method 256 of class 60", 60, 256)


def test_a_bug_of_ours_ends_one_connection_and_no_other(
    stage: Stage, talk: Talk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    talk.open_channel()
    other = stage.client().open_channel()
    with monkeypatch.context() as patches, caplog.at_level(logging.ERROR):
        patches.setattr(vhost, "check_queue_arguments", fail)
        talk.client(Queue.Declare(queue="q", durable=True))
    talk.broker(Connection.Close(541, "INTERNAL_ERROR", 0, 0))
    assert "internal error" in caplog.text and "a bug" in caplog.text
    other.client(Queue.Declare(queue="other", durable=True)).broker(Queue.DeclareOk("other", 0, 0))
    assert talk.session.phases.current is not Phase.OPEN and stage.journal.failure is None


def test_a_record_that_fails_ends_the_connection_and_nothing_is_told_of_the_vhost_any_more(piece: int) -> None:
    journal = FailingJournal()
    stage = Stage(piece=piece, journal=journal)
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    journal.is_broken = True
    talk.client(Queue.Declare(queue="q", durable=True)).broker(Connection.Close(541, "INTERNAL_ERROR", 0, 0))
    journal.is_broken = False
    other.client(Queue.Declare(queue="other", durable=True)).nothing()
    assert str(journal.failure) == "the journal is broken"


class Quiet(Stage):
    """A stage that checks the invariants only when the test requests it."""

    def check(self) -> None:
        """Do nothing."""

    def look(self) -> None:
        """Assert what must hold."""
        super().check()


@pytest.fixture
def quiet() -> Quiet:
    return Quiet()


def hold_much(talk: Talk) -> list[str]:
    """Consume from many queues, and leave a message of each unacked; every other queue is auto-delete."""
    names = [f"held {number}" for number in range(2 * PIECE)]
    talk.open_channel()
    for number, name in enumerate(names):
        talk.client(
            Queue.Declare(queue=name, auto_delete=number % 2 == 1, nowait=True),
            Basic.Consume(queue=name, consumer_tag=name, nowait=True)).publish(name, b"x")
    talk.hear_all()
    return names


def lose(talk: Talk) -> None:
    talk.session.lost()


def close_connection(talk: Talk) -> None:
    talk.session.receive(frame.marshal(Connection.Close(200, "bye", 0, 0), 0), talk.stage.now_ms)
    assert not talk.session.take_output(talk.stage.now_ms)


def close_channel(talk: Talk) -> None:
    talk.session.receive(frame.marshal(Channel.Close(200, "bye", 0, 0), 1), talk.stage.now_ms)
    assert not talk.session.take_output(talk.stage.now_ms)


def fail_channel(talk: Talk) -> None:
    talk.session.receive(frame.marshal(Basic.Ack(delivery_tag=1 << 40), 1), talk.stage.now_ms)


def delete_vhost(talk: Talk) -> None:
    talk.stage.broker.delete_vhost("/")


@pytest.mark.parametrize("end", [lose, close_connection, close_channel, fail_channel])
def test_consumers_leave_and_unacked_messages_go_back_in_pieces(quiet: Quiet, end: Callable[[Talk], None]) -> None:
    talk = quiet.client()
    names = hold_much(talk)
    vhost, effort = quiet.broker.vhosts["/"], quiet.broker.effort
    before = effort.total
    end(talk)
    assert effort.total - before < 3 * PIECE
    assert sum(len(queue.consumers) for queue in vhost.queues.values()) > PIECE
    vhost.queues[names[-2]].publish(messages(1 << 40))      # nothing more comes to who is going
    while not quiet.broker.worklist.is_empty:
        assert work_on(quiet) < 2 * PIECE
    assert [*vhost.queues] == names[::2]
    assert [len(queue.ready) for queue in vhost.queues.values()] == [1] * (PIECE - 1) + [2]
    assert not any(queue.consumers or queue.unacked for queue in vhost.queues.values())
    quiet.end_turn()
    quiet.look()
    heard = [type(one.said) for one in talk.hear_all()]
    assert heard == {
        lose: [], close_connection: [Connection.CloseOk], close_channel: [Channel.CloseOk],
        fail_channel: [Channel.Close]}[end]
    if end in (close_channel, fail_channel):
        if end is fail_channel:
            talk.client(Channel.CloseOk())
        talk.open_channel().client(Basic.Get(queue=names[-2])).hear(Basic.GetOk)


@pytest.mark.parametrize("interrupt", [lose, close_connection, delete_vhost])
@pytest.mark.parametrize("end", [close_channel, fail_channel])
def test_the_end_of_a_channel_may_be_interrupted(
        quiet: Quiet, end: Callable[[Talk], None], interrupt: Callable[[Talk], None]) -> None:
    talk = quiet.client()
    names = hold_much(talk)
    vhost = quiet.broker.vhosts["/"]
    end(talk)
    talk.session.take_output(quiet.now_ms)
    interrupt(talk)
    quiet.end_turn()
    while not quiet.broker.worklist.is_empty:
        work_on(quiet)
    assert [*vhost.queues] == ([] if interrupt is delete_vhost else names[::2])
    assert not any(queue.consumers or queue.unacked for queue in vhost.queues.values())
    quiet.look()


def test_queues_that_go_while_their_consumers_leave_are_not_told_of(quiet: Quiet) -> None:
    talk, other = quiet.client(), quiet.client().open_channel()
    names = hold_much(talk)
    fail_channel(talk)
    other.client(Queue.Delete(queue=names[-2])).hear(Queue.DeleteOk)
    quiet.end_turn()
    assert [type(one.said) for one in talk.hear_all()] == [Channel.Close]
    quiet.look()


def test_a_connection_of_very_many_channels_ends_in_pieces(stage: Stage) -> None:
    talk = stage.client()
    count = 3 * PIECE // STOP_STEPS
    for number in range(1, 1 + count):
        talk.open_channel(number)
    channels = [*talk.session.channels.values()]
    stage.broker.effort.begin_turn()
    before = stage.broker.effort.total
    talk.session.lost()
    assert stage.broker.effort.total - before <= PIECE + LOST_STEPS + STOP_STEPS
    [departure] = talk.session.state.departures
    pieces = 1
    while departure.has_work:
        before = stage.broker.effort.total
        departure.work()
        assert stage.broker.effort.total - before <= PIECE + RELEASE_STEPS
        pieces += 1
    assert pieces >= 6 and not any(hasattr(channel, "consuming") for channel in channels)


def test_a_channel_that_has_not_been_stopped_yet_is_given_nothing(stage: Stage) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).hear(Basic.ConsumeOk)
    queue = stage.broker.vhosts["/"].queues["q"]
    stage.broker.effort.total += TURN
    talk.session.lost()
    assert queue.consumers, "the turn was spent"
    queue.publish(messages(*range(1_000, 1_003)))
    queue.dispatch()
    assert len(queue.ready) == 3
    stage.end_turn()
    assert not queue.consumers
    other.client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(3))


def test_nothing_is_carried_out_for_a_connection_that_is_going_to_be_closed(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).hear(Basic.ConsumeOk)
    queue = stage.broker.vhosts["/"].queues["q"]
    talk.session.force_close_soon("enough")
    queue.publish(messages(1_000))
    queue.dispatch()
    talk.nothing()
    talk.client(Queue.Declare(queue="late"))
    assert "late" not in stage.broker.vhosts["/"].queues and len(queue.ready) == 1
    talk.broker(Connection.Close(320, "CONNECTION_FORCED - enough", 0, 0))
    talk.session.close_forced()
    talk.client(Connection.CloseOk()).nothing()


def test_the_consumers_of_a_deleted_vhost_hear_of_its_end_and_not_of_their_queues(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q", exclusive=True)).hear(Queue.DeclareOk)
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).hear(Basic.ConsumeOk)
    stage.broker.delete_vhost("/")
    stage.broker.worklist._new.rotate(-1)
    stage.end_turn()
    talk.broker(Connection.Close(320, "CONNECTION_FORCED - vhost '/' is deleted", 0, 0)).nothing()
    assert not any(isinstance(one, (VhostDefinition, QueueDefinition)) for one in stage.journal.now.in_order())
