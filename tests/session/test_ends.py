"""Unusual ends of a connection: what is logged, what the client receives, and that nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue, Tx

from amqpd.session.answers import Answers
from amqpd.broker.effort import TURN
from amqpd.session.channel_confirms import ChannelConfirms
from amqpd.session.delivering import DeliveryWriter
from amqpd.session.handshake import EARLY_COMMANDS
from amqpd.session.phases import CLOSE_OK_WAIT_MS, LINGER_MS, Phase
from amqpd.session.receiver import CLOSE_OK_FRAME
from tests.support.talk import Stage, Talk

UNKNOWN = b"\x09\x00\x01\x00\x00\x00\x00\xce"       # a frame of no known type


def fail(*_: object, **__: object) -> Any:
    raise RuntimeError("a bug")


# What is logged where a client is too late

@pytest.mark.parametrize("heartbeat", [2, 7])
def test_missed_heartbeats_are_logged_with_their_interval(
    stage: Stage, caplog: pytest.LogCaptureFixture, heartbeat: int
) -> None:
    talk = stage.client(heartbeat=heartbeat)
    talk.session.log_overdue(stage.now_ms + 2_000 * heartbeat + 51)
    assert caplog.messages == [
        f"closing AMQP connection <0.{talk.session.number}.0> ({talk.session.name}, vhost: '/', user: 'guest'): "
        f"missed heartbeats from client, timeout: {heartbeat}s"]


def test_a_handshake_that_takes_too_long_is_logged_and_a_late_answer_to_a_close_is_not(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stranger, talk = stage.stranger(), stage.client()
    late = stage.now_ms + stage.settings.handshake_timeout_ms
    assert not stranger.session.is_overdue(late - 1) and stranger.session.is_overdue(late)
    stranger.session.log_overdue(late)
    assert caplog.messages[-1] == (
        f"closing AMQP connection <0.{stranger.session.number}.0> ({stranger.session.name}): "
        "the handshake took too long")
    talk.session.force_close("bye")
    stage.end_turn()
    talk.hear(Connection.Close)
    caplog.clear()
    late = stage.now_ms + CLOSE_OK_WAIT_MS
    assert not talk.session.is_overdue(late - 1) and talk.session.is_overdue(late)
    talk.session.log_overdue(late)
    assert not caplog.messages


@pytest.mark.parametrize("error, shown", [("", ""), ("Connection reset by peer", " (Connection reset by peer)")])
def test_a_socket_that_is_lost_is_told_by_what_came_before(
    stage: Stage, caplog: pytest.LogCaptureFixture, error: str, shown: str
) -> None:
    with caplog.at_level("DEBUG", logger="amqpd"):
        stranger, talk = stage.stranger(), stage.client()
        caplog.clear()
        stranger.lose()
        assert caplog.messages == [
            f"{stranger.session.name}: client closed the TCP connection before it said anything"]
        talk.session.state.socket_error = error
        talk.lose()
    assert caplog.messages[1:] == [
        f"closing AMQP connection {talk.session.state.title}: client unexpectedly closed TCP connection{shown}"]


@pytest.mark.parametrize("code, text, why", [(200, "Goodbye", ": 200 Goodbye"), (320, "", ": 320"), (0, "", "")])
def test_an_orderly_end_is_logged_once(
    talk: Talk, caplog: pytest.LogCaptureFixture, code: int, text: str, why: str
) -> None:
    with caplog.at_level("INFO", logger="amqpd"):
        talk.session.state.client_properties["connection_name"] = "the\nshop"
        talk.client(Connection.Close(code, text, 0, 0)).broker(Connection.CloseOk())
        talk.lose()
    assert caplog.messages == [
        f"closing AMQP connection <0.{talk.session.number}.0> ({talk.session.name} - the\nshop, vhost: '/', "
        f"user: 'guest'): client closed it{why}"]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_a_close_by_the_broker_is_told_once_with_its_reason(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="amqpd"):
        talk.session.force_close("Closed by an operator")
        talk.stage.end_turn()
        talk.hear(Connection.Close)
        talk.client(Connection.CloseOk()).lose()
    assert caplog.messages == [
        f"closing AMQP connection {talk.session.state.title}: CONNECTION_FORCED - Closed by an operator"]


# Framing is lost

def test_what_follows_lost_framing_is_not_heard_but_for_close_ok(talk: Talk) -> None:
    talk.octets(UNKNOWN).hear(Connection.Close)
    assert talk.session.phases.current is Phase.CLOSING
    talk.client(Channel.Open()).octets(UNKNOWN).nothing()
    assert talk.session.phases.current is Phase.CLOSING
    talk.session.receive(b"whatever" + CLOSE_OK_FRAME, talk.stage.now_ms)
    assert talk.session.phases.current is Phase.CLOSED and talk.session.is_finished


def test_a_close_after_lost_framing_is_not_answered(talk: Talk) -> None:
    talk.octets(UNKNOWN).hear(Connection.Close)
    talk.client(Connection.Close(200, "bye", 0, 0)).nothing()
    assert talk.session.phases.current is Phase.CLOSING


def test_a_client_that_does_not_answer_lost_framing_has_a_moment(talk: Talk) -> None:
    talk.octets(UNKNOWN).hear(Connection.Close)
    assert not talk.session.is_overdue(talk.stage.now_ms + LINGER_MS - 1)
    assert talk.session.is_overdue(talk.stage.now_ms + LINGER_MS)


def test_a_handshake_that_makes_no_sense_ends_without_a_word(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    talk = stage.stranger().greet()
    talk.octets(b"\x01\x00\x00\x00\x00\x00\x06\x00\x0a\x00\x0b\xff\xff\xce").nothing()
    assert talk.session.phases.current is Phase.CLOSED
    assert caplog.messages[-1].startswith(
        f"closing AMQP connection <0.{talk.session.number}.0> ({talk.session.name}): FRAME_ERROR - cannot decode")


def test_an_error_of_ours_before_a_client_has_said_anything_ends_its_connection_without_a_word(stage: Stage) -> None:
    talk = stage.stranger()
    talk.session.fail_internally()
    stage.end_turn()
    assert talk.nothing().session.phases.current is Phase.CLOSED and talk.session.is_finished


def test_confirms_whose_commit_comes_after_our_close_are_not_sent(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="d", durable=True)).hear(Queue.DeclareOk)
    talk.client(Confirm.Select()).hear(Confirm.SelectOk)
    stage.commits_at_once = False
    talk.publish("d", b"x", persistent=True).nothing()
    stage.broker.effort.total += TURN
    talk.session.force_close("enough")
    assert talk.session.state.confirms.awaiting == {}
    stage.commit()
    talk.broker(Connection.Close(320, "CONNECTION_FORCED - enough", 0, 0)).nothing()


# Errors of ours

def test_a_delivery_that_fails_closes_its_connection_in_the_next_turn_and_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).hear(Basic.ConsumeOk)
    with monkeypatch.context() as patch:
        patch.setattr(DeliveryWriter, "write", fail)
        other.publish("q", b"a", b"b")
    talk.broker(Connection.Close(541, "INTERNAL_ERROR", 0, 0))
    other.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, True, "", "q", 1), content=b"a")


def test_an_error_of_ours_in_a_command_is_told_and_logged(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    talk.open_channel()
    monkeypatch.setattr(Answers, "on_recover", fail)
    monkeypatch.setattr(type(talk.session.channels[1]), "on_method", fail)
    talk.client(Queue.Declare(queue="q")).broker(Connection.Close(541, "INTERNAL_ERROR", 0, 0))
    assert f"{talk.session.name}: internal error" in caplog.messages
    assert talk.session.state.has_failed and talk.session.state.room == 0


def test_confirms_that_cannot_be_written_do_not_keep_the_rest_of_a_connection(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = talk.stage
    stage.commits_at_once = False
    talk.open_channel().client(Queue.Declare(queue="q", exclusive=True)).hear(Queue.DeclareOk)
    talk.client(Confirm.Select()).hear(Confirm.SelectOk)
    monkeypatch.setattr(ChannelConfirms, "write_confirms", fail)
    stage.commits_at_once = True
    talk.session.state.confirms.due[talk.session.channels[1].publishing.confirms] = None
    talk.session.lost()
    stage.end_turn()
    assert f"{talk.session.name}: internal error at the end of the connection" in caplog.messages
    assert "q" not in stage.broker.vhosts["/"].queues


# The login

def test_a_client_may_say_a_little_before_its_password_has_been_looked_at(stage: Stage) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in()
    talk.client(Connection.TuneOk(2_047, 131_072, 0), Connection.Open("/")).nothing()
    stage.looks_at_passwords = True
    stage.end_turn()
    talk.hear(Connection.Tune)
    talk.broker(Connection.OpenOk())


def test_a_client_that_says_too_much_before_it_is_let_in_is_ended(stage: Stage) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in()
    talk.client(*[Connection.TuneOk(0, 131_072, 0)] * EARLY_COMMANDS).nothing()
    assert talk.session.phases.current is Phase.AUTHENTICATING
    talk.client(Connection.TuneOk(0, 131_072, 0)).nothing()
    assert talk.session.phases.current is Phase.CLOSED


@pytest.mark.parametrize("is_right", [True, False])
def test_a_login_that_is_answered_after_the_end_is_not_told(stage: Stage, *, is_right: bool) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in()
    login = talk.session.login
    talk.session.force_close("bye")
    assert login is not None and talk.session.login is None
    if is_right:
        talk.session.logged_in(stage.broker.users["guest"])
    else:
        talk.session.handshake.login = login
        talk.session.login_failed("the password is wrong")
    stage.end_turn()
    talk.nothing()
    assert talk.session.is_finished and talk.session.state.user is None


# Transactions that go

def test_what_a_channel_held_for_a_commit_goes_with_it(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.publish("q", b"a", b"b").client(Tx.Select()).hear(Tx.SelectOk)
    for tag, body in enumerate((b"a", b"b"), 1):
        talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(tag, False, "", "q", 2 - tag), content=body)
    talk.client(Basic.Ack(1)).publish("q", b"never")
    held = talk.session.channels[1].uncommitted
    assert (held.message_count, held.answered_count, held.holds_answers, held.holds_contents) == (1, 1, True, True)
    talk.client(Tx.Rollback()).hear(Tx.RollbackOk)
    assert (held.message_count, held.answered_count, held.holds_answers, held.holds_contents) == (0, 0, False, False)
    assert held.rollback is None
    talk.client(Basic.Ack(2)).close_channel()
    queue = talk.stage.broker.vhosts["/"].queues["q"]
    assert [one.body for one in queue.ready] == [b"a", b"b"] and queue.unacked == 0


def test_only_what_was_to_be_closed_by_force_is(talk: Talk) -> None:
    talk.session.close_forced()
    talk.nothing().open_channel()
    talk.session.force_close_soon("bye")
    assert talk.session.state.room == 0
    talk.session.close_forced()
    talk.session.close_forced()
    talk.stage.end_turn()
    talk.hung_up(320, "CONNECTION_FORCED - bye", 0, 0)
    talk.session.force_close_soon("too late")
    talk.session.close_forced()
    talk.stage.end_turn()
    talk.nothing()


def test_where_a_plain_publish_goes_is_known_as_one_queue(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.publish("q", b"a").publish("nowhere", b"b")
    known = talk.session.channels[1].publishing.targets.by_arguments.known
    queue = talk.stage.broker.vhosts["/"].queues["q"]
    assert [(only, target.queues, target.by_headers) for _, only, target, _ in known.values()] == [
        (queue, [queue], False), (None, [], False)]
    talk.client(Tx.Select()).hear(Tx.SelectOk)
    talk.publish("q", b"c")
    assert [(only, target.queues) for _, only, target, _ in known.values()] == [(None, [queue])]


def test_close_ok_on_a_channel_is_no_answer_to_our_close(talk: Talk) -> None:
    talk.open_channel()
    talk.session.force_close("bye")
    talk.stage.end_turn()
    talk.hear(Connection.Close)
    talk.client(Connection.CloseOk(), channel=1).nothing()
    assert talk.session.phases.current is Phase.CLOSING
    talk.client(Connection.CloseOk())
    assert talk.session.phases.current is Phase.CLOSED
