"""A client that sends much at once: each turn handles a limited part, and the rest follows in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic, Channel, Connection, Queue

from amqpd.broker.effort import SLICE, SMALLEST_SLICE, TURN
from amqpd.broker.worklist import PIECE
from amqpd.session.connection import Session
from amqpd.session.unacked import ANSWERS_AT_ONCE
from amqpd.session.receiver import BYTES_A_STEP, LARGE_METHOD, METHOD_STEPS, TOPOLOGY_STEPS
from tests.support.samples import message
from tests.support.talk import Stage, Talk

DECLARE_STEPS = METHOD_STEPS + TOPOLOGY_STEPS
MANY = 3 * SLICE // DECLARE_STEPS       # declarations that take three slices


class Paused(Stage):
    """A stage on which clients continue only when the test says so."""

    def turn(self) -> None:
        """One turn: the clients that wait go on, as the server has it."""
        self.broker.effort.begin_turn()
        self.go_on_with_deferred()

    def say(self, talk: Talk, octets: bytes) -> None:
        """Pass a client's input to the session, and do nothing else."""
        talk.session.receive(octets, self.now_ms)


@pytest.fixture
def stage() -> Paused:
    return Paused()


@pytest.fixture
def talk(stage: Paused) -> Talk:
    return stage.client().open_channel(1)


def passive(count: int) -> bytes:
    return frame.marshal(Queue.Declare(queue="q", passive=True), 1) * count


def effort_of(stage: Paused, session: Session) -> int:
    before = stage.broker.effort.total
    stage.turn()
    return stage.broker.effort.total - before


def test_a_client_has_a_slice_of_a_turn_and_the_rest_waits_in_order(stage: Paused, talk: Talk) -> None:
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    stage.broker.effort.begin_turn()
    before = stage.broker.effort.total
    stage.say(talk, passive(MANY) + frame.marshal(Basic.Get(queue="q"), 1))
    assert talk.session.receiver.is_deferred
    assert SLICE <= stage.broker.effort.total - before < SLICE + 2 * DECLARE_STEPS
    stage.say(talk, frame.marshal(Queue.Delete(queue="q"), 1))      # comes after all that waits
    turns = 0
    while talk.session.receiver.is_deferred:
        assert effort_of(stage, talk.session) < SLICE + 2 * DECLARE_STEPS
        turns += 1
    assert turns == 3
    stage.end_turn()
    talk.broker(*[Queue.DeclareOk("q", 0, 0)] * MANY, Basic.GetEmpty(), Queue.DeleteOk(0))


@pytest.mark.parametrize("arguments", [{"a": {f"{n}": n for n in range(4_000)}}, {"a": [{"": True}] * 10_000}])
def test_a_method_with_very_many_arguments_is_a_slice_by_itself(
    stage: Paused, talk: Talk, arguments: dict[str, Any]
) -> None:
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    bind = frame.marshal(Queue.Bind(queue="q", exchange="amq.headers", arguments=arguments), 1)
    stage.broker.effort.begin_turn()
    stage.say(talk, bind * 3)
    turns = []
    while talk.session.receiver.is_deferred:
        turns.append(effort_of(stage, talk.session) >= SLICE)
    assert turns[:2] == [True, True] and True not in turns[2:]
    stage.end_turn()
    talk.broker(*[Queue.BindOk()] * 3)


def test_clients_that_wait_go_on_in_turn(stage: Paused, talk: Talk) -> None:
    other = stage.client().open_channel(1)
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    stage.broker.effort.begin_turn()
    stage.say(talk, passive(MANY))
    stage.say(other, passive(1))
    assert talk.session.receiver.is_deferred and not other.session.receiver.is_deferred
    stage.end_turn()
    talk.broker(*[Queue.DeclareOk("q", 0, 0)] * MANY)
    other.broker(Queue.DeclareOk("q", 0, 0))


def test_a_turn_that_is_spent_leaves_a_small_slice_to_everybody(stage: Paused, talk: Talk) -> None:
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    stage.broker.effort.begin_turn()
    stage.broker.effort.total += TURN
    before = stage.broker.effort.total
    stage.say(talk, passive(MANY))
    assert SMALLEST_SLICE <= stage.broker.effort.total - before < SMALLEST_SLICE + 2 * DECLARE_STEPS
    stage.end_turn()
    talk.broker(*[Queue.DeclareOk("q", 0, 0)] * MANY)


def test_what_waits_is_dropped_with_the_connection(stage: Paused, talk: Talk) -> None:
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    stage.broker.effort.begin_turn()
    stage.say(talk, passive(MANY) + frame.marshal(Queue.Declare(queue="late"), 1))
    talk.session.lost()
    stage.turn()
    assert "late" not in stage.broker.vhosts["/"].queues and not talk.session.receiver.is_deferred


def test_a_connection_that_is_closed_by_us_hears_the_answer_behind_what_waits(stage: Paused, talk: Talk) -> None:
    stage.broker.effort.begin_turn()
    declare = frame.marshal(Queue.Declare(queue="q"), 1)
    stage.say(talk, declare * MANY + frame.marshal(Queue.Declare(queue="late"), 1))
    talk.session.force_close("enough")
    stage.say(talk, frame.marshal(Connection.CloseOk(), 0))
    stage.turn()
    assert talk.session.is_finished and "late" not in stage.broker.vhosts["/"].queues
    stage.end_turn()
    talk.hear_all()


def test_an_alarm_stops_a_client_at_the_first_publish_of_what_waits(stage: Paused, talk: Talk) -> None:
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    stage.broker.effort.begin_turn()
    stage.say(talk, passive(MANY) + frame.marshal(Channel.Flow(True), 1))
    stage.say(talk, frame.marshal(Basic.Publish(routing_key="q"), 1))
    stage.alarm = "low on memory"
    while talk.session.receiver.is_deferred:
        stage.turn()
    assert talk.session.blocking.is_blocked
    stage.end_turn()
    talk.broker(*[Queue.DeclareOk("q", 0, 0)] * MANY, Channel.FlowOk(True), Connection.Blocked("low on memory"))


# Answers to very many deliveries

MESSAGES = 2 * ANSWERS_AT_ONCE + 5


@pytest.fixture
def holder(stage: Paused, talk: Talk) -> Talk:
    """A client that holds very many deliveries of `q`, tags from 1."""
    stage.broker.effort.begin_turn()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    queue = stage.broker.vhosts["/"].queues["q"]
    queue.publish([message(number, b"%d" % number) for number in range(1, MESSAGES + 1)])
    stage.end_turn()
    assert [heard.said.delivery_tag for heard in talk.hear_all()] == [*range(1, MESSAGES + 1)]
    return talk


def answer_in_turns(
    stage: Paused, talk: Talk, method: Basic.Ack | Basic.Nack | Basic.Recover | Basic.RecoverAsync
) -> list[int]:
    """How many deliveries are unacked after each turn, until the answer has been carried out."""
    stage.broker.effort.begin_turn()
    stage.say(talk, frame.marshal(method, 1))
    unacked = talk.session.channels[1].consuming.unacked
    left = [len(unacked)]
    while talk.session.receiver.is_deferred:
        stage.turn()
        left.append(len(unacked))
    return left


@pytest.mark.parametrize(
    "method", [Basic.Ack(0, True), Basic.Ack(MESSAGES, True), Basic.Nack(0, True, False)],
    ids=["ack", "ack to", "nack"])
def test_an_answer_to_very_many_deliveries_is_carried_out_in_turns(
    stage: Paused, holder: Talk, method: Basic.Ack | Basic.Nack
) -> None:
    assert answer_in_turns(stage, holder, method) == [MESSAGES - ANSWERS_AT_ONCE, MESSAGES - 2 * ANSWERS_AT_ONCE, 0]
    stage.end_turn()
    assert stage.broker.vhosts["/"].queues["q"].unacked == 0


def test_a_tag_that_is_not_outstanding_is_refused_before_anything_is_answered(stage: Paused, holder: Talk) -> None:
    stage.say(holder, frame.marshal(Basic.Nack(MESSAGES + 1, True, False), 1))
    stage.end_turn()
    assert holder.hear(Channel.Close).reply_text.endswith(f"unknown delivery tag {MESSAGES + 1}")
    assert len(stage.broker.vhosts["/"].queues["q"].ready) == MESSAGES


@pytest.mark.parametrize(
    "make_method", [Basic.Recover, Basic.RecoverAsync, partial(Basic.Nack, 0, True)],
    ids=["recover", "recover-async", "nack"])
@pytest.mark.filterwarnings("ignore:This command is deprecated")
def test_very_many_deliveries_come_back_once_and_in_order(
    stage: Paused, holder: Talk, make_method: Callable[[bool], Basic.Recover | Basic.RecoverAsync | Basic.Nack]
) -> None:
    method = make_method(True)
    answer_in_turns(stage, holder, method)
    stage.end_turn()
    heard = holder.hear_all()
    if isinstance(method, Basic.Recover):
        assert isinstance(heard.pop(0).said, Basic.RecoverOk)
    assert [one.body for one in heard] == [b"%d" % number for number in range(1, MESSAGES + 1)]
    assert all(one.said.redelivered for one in heard)


def test_a_long_run_of_acks_is_carried_out_in_turns(stage: Paused, holder: Talk) -> None:
    stage.broker.effort.begin_turn()
    stage.say(holder, b"".join(frame.marshal(Basic.Ack(tag), 1) for tag in range(1, MESSAGES + 1)))
    assert len(holder.session.channels[1].consuming.unacked) == MESSAGES - ANSWERS_AT_ONCE
    stage.end_turn()
    assert not holder.session.channels[1].consuming.unacked


def test_clients_that_waited_for_the_same_go_on_in_turn(stage: Paused, talk: Talk) -> None:
    vhost = stage.broker.vhosts["/"]
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    for n in range(PIECE):
        talk.client(Queue.Bind(queue="q", exchange="amq.topic", routing_key=f"{n}", nowait=True))
    others = [stage.client().open_channel(1) for _ in range(5)]
    stage.broker.effort.begin_turn()
    stage.say(talk, frame.marshal(Queue.Delete(queue="q"), 1))
    for other in others:
        stage.say(other, frame.marshal(Queue.Declare(queue="q"), 1) + passive(MANY))
    assert vhost.leaving.has_work and all(other.session.receiver.is_deferred for other in others)
    while vhost.leaving.has_work:
        vhost.leaving.work()
    before = stage.broker.effort.total
    stage.broker.worklist.work_off()
    assert stage.broker.effort.total == before and "q" not in vhost.queues, "not in the piece that wakes them"
    stage.turn()
    assert "q" in vhost.queues
    stage.end_turn()
    talk.broker(Queue.DeleteOk(0))
    for other in others:
        other.broker(*[Queue.DeclareOk("q", 0, 0)] * (MANY + 1))


def test_blocked_clients_go_on_in_turn_when_the_alarm_ends_and_stays_off(stage: Paused, talk: Talk) -> None:
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    stage.set_alarm("low on disk")
    talk.publish("q", b"a").broker(Connection.Blocked("low on disk"))
    ready = stage.broker.vhosts["/"].queues["q"].ready
    stage.alarm = ""
    talk.session.blocking.ask_to_unblock()
    assert talk.session.blocking.is_blocked and not ready
    stage.alarm = "low on memory"
    stage.turn()
    assert talk.session.blocking.is_blocked and not ready
    talk.nothing()
    stage.set_alarm("")
    talk.broker(Connection.Unblocked()).nothing()
    assert len(ready) == 1


def test_a_large_method_waits_for_another_turn_if_others_have_used_up_this_one() -> None:
    stage = Stage()     # of which the server's own turns go on with deferred input
    first, second, small = [stage.client().open_channel() for _ in range(3)]
    wide = {f"{number:04x}": None for number in range(8_000)}
    for talk, name, arguments in ((first, "first", wide), (second, "second", wide), (small, "small", {})):
        octets = frame.marshal(Queue.Declare(queue=name, arguments=arguments), 1)
        assert len(octets) > LARGE_METHOD or talk is small
        talk.session.receive(octets, stage.now_ms)
    assert [*stage.broker.vhosts["/"].queues] == ["first", "small"] and second.session.receiver.is_deferred
    stage.end_turn()
    for talk in (first, second, small):
        talk.hear(Queue.DeclareOk)


def test_the_input_before_the_end_of_the_handshake_counts() -> None:
    stage = Stage()
    stranger = stage.stranger().greet()
    before = stage.broker.effort.total
    stranger.log_in("guest", capabilities={f"{number:04x}": True for number in range(100)})
    assert stage.broker.effort.total - before > 100 * 6 // BYTES_A_STEP
