"""What waits for the disk: confirms, answers to declarations, and everything after them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.commands import Basic, Confirm, Connection, Exchange, Queue, Tx
from pamqp.heartbeat import Heartbeat

from tests.support.journals import RecordingJournal
from tests.support.talk import Stage, Talk

PERSISTENT = Basic.Properties(delivery_mode=2)


@pytest.fixture
def confirming(stage: Stage) -> Talk:
    """Return a client with a confirm channel 1, a durable queue `d`, a transient queue `t`; the test commits."""
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="d", durable=True)).broker(Queue.DeclareOk("d", 0, 0))
    talk.client(Queue.Declare(queue="t")).broker(Queue.DeclareOk("t", 0, 0))
    talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    stage.commits_at_once = False
    return talk


# Confirms

def test_a_persistent_message_is_confirmed_once_it_is_on_disk(confirming: Talk) -> None:
    confirming.publish("d", b"x", persistent=True).nothing()
    assert confirming.stage.journal.safe.bodies("d") == []
    confirming.stage.commit()
    assert confirming.stage.journal.safe.bodies("d") == [b"x"]
    confirming.broker(Basic.Ack(1))


def test_publishes_of_several_passes_that_one_batch_saves_are_confirmed_together(confirming: Talk) -> None:
    for body in (b"a", b"b", b"c"):
        confirming.publish("d", body, persistent=True).nothing()
    confirming.stage.commit()
    confirming.broker(Basic.Ack(3, True))


def test_publishes_in_a_row_that_one_batch_saves_wait_as_one_and_others_by_themselves(confirming: Talk) -> None:
    pending = confirming.session.channels[1].publishing.confirms._pending
    confirming.publish("d", b"a", persistent=True).publish("d", b"b", b"c", persistent=True)
    assert len(pending) == 1
    confirming.stage.client().open_channel().publish("d", b"of another client", persistent=True)
    confirming.publish("d", b"d", persistent=True)
    assert len(pending) == 2
    confirming.stage.commit()
    confirming.broker(Basic.Ack(4, True))


def test_each_batch_confirms_its_own(confirming: Talk) -> None:
    confirming.publish("d", b"a", b"b", persistent=True).stage.commit()
    confirming.publish("d", b"c", persistent=True).broker(Basic.Ack(2, True)).stage.commit()
    confirming.broker(Basic.Ack(3))


@pytest.mark.parametrize(("queue", "persistent"), [("d", False), ("t", False), ("t", True), ("nowhere", True)])
def test_what_needs_no_disk_is_confirmed_at_once(confirming: Talk, queue: str, persistent: bool) -> None:
    confirming.publish(queue, b"x", persistent=persistent).broker(Basic.Ack(1))


def test_a_transient_message_behind_a_persistent_one_waits_for_it(confirming: Talk) -> None:
    confirming.publish("d", b"a", persistent=True).publish("t", b"b").publish("t", b"c").nothing().stage.commit()
    confirming.broker(Basic.Ack(3, True))


def test_a_transient_message_before_a_persistent_one_does_not_wait(confirming: Talk) -> None:
    confirming.publish("t", b"a").broker(Basic.Ack(1)).publish("d", b"b", persistent=True).nothing().stage.commit()
    confirming.broker(Basic.Ack(2))


def test_a_return_does_not_wait_but_its_confirm_does(confirming: Talk) -> None:
    confirming.publish("d", b"a", persistent=True).publish("nowhere", b"b", mandatory=True)
    confirming.broker(Basic.Return(312, "NO_ROUTE", "", "nowhere"), content=b"b").nothing().stage.commit()
    confirming.broker(Basic.Ack(2, True))


def test_delivery_does_not_wait_for_the_disk(confirming: Talk) -> None:
    confirming.client(Basic.Consume(queue="d", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    confirming.publish("d", b"a", persistent=True)
    confirming.broker(Basic.Deliver("c", 1, False, "", "d"), content=b"a", properties=PERSISTENT).nothing()
    confirming.stage.commit()
    confirming.broker(Basic.Ack(1))


def test_what_was_consumed_before_it_was_written_is_confirmed_with_its_batch(confirming: Talk) -> None:
    confirming.client(Basic.Consume(queue="d", consumer_tag="c", no_ack=True)).broker(Basic.ConsumeOk("c"))
    confirming.publish("d", b"a", persistent=True)
    confirming.broker(Basic.Deliver("c", 1, False, "", "d"), content=b"a", properties=PERSISTENT).stage.commit()
    confirming.broker(Basic.Ack(1))
    assert confirming.stage.journal.safe.bodies("d") == []


def test_a_message_is_on_disk_in_all_its_durable_queues_before_its_confirm(confirming: Talk) -> None:
    stage = confirming.stage
    stage.commits_at_once = True
    confirming.client(Queue.Declare(queue="e", durable=True)).broker(Queue.DeclareOk("e", 0, 0))
    for queue in ("d", "e", "t"):
        confirming.client(Queue.Bind(queue=queue, exchange="amq.fanout")).broker(Queue.BindOk())
    stage.commits_at_once = False
    confirming.publish("", b"x", exchange="amq.fanout", persistent=True).nothing().stage.commit()
    assert [stage.journal.safe.bodies(queue) for queue in ("d", "e", "t")] == [[b"x"], [b"x"], []]
    confirming.broker(Basic.Ack(1))
    message, = stage.broker.vhosts["/"].queues["d"].ready
    assert message.holders == 2


def test_two_channels_are_confirmed_by_one_commit_in_the_order_of_their_publishes(confirming: Talk) -> None:
    confirming.open_channel(2).client(Confirm.Select(), channel=2).broker(Confirm.SelectOk(), channel=2)
    confirming.publish("d", b"a", persistent=True, channel=2).publish("d", b"b", persistent=True)
    confirming.stage.commit()
    confirming.broker(Basic.Ack(1), channel=2).broker(Basic.Ack(1), channel=1)


def test_a_message_in_a_queue_that_was_deleted_meanwhile_is_confirmed(confirming: Talk) -> None:
    confirming.publish("d", b"a", persistent=True).client(Queue.Delete(queue="d")).nothing().stage.commit()
    heard = confirming.hear_all()
    assert {type(one.said) for one in heard} == {Queue.DeleteOk, Basic.Ack} and len(heard) == 2


def test_a_connection_that_goes_before_the_commit_is_not_missed(confirming: Talk) -> None:
    confirming.publish("d", b"a", persistent=True).lose().stage.commit()
    confirming.nothing()
    assert confirming.stage.journal.safe.bodies("d") == [b"a"]


# Confirms of what was answered before it was on disk

def pending_from(first: int) -> Callable[[int], int]:
    """Return a function that returns the first pending number from a number on; none before `first` is pending."""
    return lambda number: max(number, first)


def declare_at_once(confirming: Talk, queue: str) -> None:
    confirming.stage.commits_at_once = True
    confirming.client(Queue.Declare(queue=queue, durable=True)).hear(Queue.DeclareOk)
    confirming.stage.commits_at_once = False


def test_a_message_that_was_acked_is_confirmed_though_others_wait_for_the_disk(confirming: Talk) -> None:
    declare_at_once(confirming, "e")
    other = confirming.stage.client().open_channel()
    other.client(Confirm.Select()).hear(Confirm.SelectOk)
    other.publish("e", *100 * [b"flood"], persistent=True).nothing()
    confirming.client(Basic.Consume(queue="d", consumer_tag="c")).hear(Basic.ConsumeOk)
    confirming.publish("d", b"a", persistent=True).hear(Basic.Deliver)
    confirming.client(Basic.Ack(1)).hear(Basic.Ack)
    other.nothing().stage.commit()
    other.broker(Basic.Ack(100, True))


def test_a_run_is_confirmed_up_to_the_first_message_that_was_not_acked(confirming: Talk) -> None:
    declare_at_once(confirming, "e")
    other = confirming.stage.client().open_channel()
    other.client(Basic.Consume(queue="d", consumer_tag="c")).hear(Basic.ConsumeOk)
    confirming.publish("e", b"in the way", persistent=True).stage.commit()
    confirming.broker(Basic.Ack(1))
    confirming.publish("d", *5 * [b"a"], persistent=True).nothing()
    assert len(other.hear_all()) == 5
    for tag, confirmed in ((3, []), (1, [Basic.Ack(2)]), (2, [Basic.Ack(4, True)]), (5, []), (4, [Basic.Ack(6, True)])):
        other.client(Basic.Ack(tag))
        confirming.broker(*confirmed).nothing()
    confirming.stage.commit()
    confirming.nothing()


def test_what_nobody_is_owed_any_more_is_confirmed_before_it_is_on_disk(confirming: Talk) -> None:
    first = confirming.stage.broker.next_message_number
    confirming.publish("d", b"a", b"b", b"c", persistent=True).nothing()
    confirming.session.on_answered(pending_from(first + 2))
    confirming.stage.end_turn()
    confirming.broker(Basic.Ack(2, True)).nothing().stage.commit()
    confirming.broker(Basic.Ack(3))


def test_an_answer_confirms_nothing_twice_and_nothing_that_came_later(confirming: Talk) -> None:
    first = confirming.stage.broker.next_message_number
    confirming.publish("d", b"a", persistent=True).publish("d", b"b", persistent=True).stage.commit()
    confirming.broker(Basic.Ack(2, True))
    confirming.publish("d", b"c", persistent=True)
    for number in (first, first + 1, first + 2):
        confirming.session.on_answered(pending_from(number))
        confirming.stage.end_turn()
    confirming.nothing().session.on_answered(pending_from(first + 3))
    confirming.stage.end_turn()
    confirming.broker(Basic.Ack(3)).stage.commit()
    confirming.nothing()


def test_runs_of_two_channels_are_confirmed_each_as_far_as_nobody_is_owed_them(confirming: Talk) -> None:
    confirming.open_channel(2).client(Confirm.Select(), channel=2).broker(Confirm.SelectOk(), channel=2)
    first = confirming.stage.broker.next_message_number
    for channel in (1, 2, 1):
        confirming.publish("d", b"a", b"b", persistent=True, channel=channel)
    confirming.nothing().session.on_answered(pending_from(first + 5))
    confirming.stage.end_turn()
    confirming.broker(Basic.Ack(3, True), channel=1).broker(Basic.Ack(2, True), channel=2).nothing().stage.commit()
    confirming.broker(Basic.Ack(4))


def test_a_transient_message_is_confirmed_with_the_persistent_one_before_it(confirming: Talk) -> None:
    first = confirming.stage.broker.next_message_number
    confirming.publish("d", b"a", persistent=True).publish("t", b"b").nothing()
    confirming.session.on_answered(pending_from(first + 1))
    confirming.stage.end_turn()
    confirming.broker(Basic.Ack(1)).nothing().session.on_answered(pending_from(first + 2))
    confirming.stage.end_turn()
    confirming.broker(Basic.Ack(2))


@pytest.mark.parametrize(("no_ack", "answer", "is_taken_over"), [
    (False, Basic.Ack(1), True), (True, None, False), (False, Basic.Nack(1, requeue=False), False),
    (False, Basic.Reject(1, requeue=False), False), (False, Basic.Reject(1, requeue=True), False)])
def test_a_message_is_taken_over_by_whoever_acks_it_and_nobody_else(
    confirming: Talk, no_ack: bool, answer: Basic.Ack | None, is_taken_over: bool
) -> None:
    confirming.client(Basic.Consume(queue="d", consumer_tag="c", no_ack=no_ack)).publish("d", b"a", persistent=True)
    if answer is not None:
        confirming.client(answer)
    confirming.hear_all()
    assert bool(confirming.stage.journal.answered) == is_taken_over


def test_an_ack_in_a_transaction_takes_nothing_over_before_it_is_on_disk(confirming: Talk) -> None:
    confirming.open_channel(2).client(Tx.Select(), channel=2)
    confirming.client(Basic.Consume(queue="d", consumer_tag="c"), channel=2).publish("d", b"a", persistent=True)
    confirming.client(Basic.Ack(1), channel=2).client(Tx.Commit(), channel=2)
    confirming.hear_all()
    assert confirming.stage.journal.answered == []


def test_purged_messages_are_taken_over_by_nobody(confirming: Talk) -> None:
    confirming.publish("d", b"a", persistent=True).client(Queue.Purge(queue="d"))
    assert confirming.stage.journal.answered == []


# Declarations

DECLARATIONS = [
    (Queue.Declare(queue="new", durable=True), Queue.DeclareOk("new", 0, 0)),
    (Exchange.Declare(exchange="new", durable=True), Exchange.DeclareOk()),
    (Queue.Bind(queue="d", exchange="amq.direct", routing_key="k"), Queue.BindOk()),
    (Exchange.Bind(destination="amq.fanout", source="amq.direct"), Exchange.BindOk()),
    (Queue.Unbind(queue="d", exchange="amq.topic", routing_key="old"), Queue.UnbindOk()),
    (Exchange.Unbind(destination="amq.headers", source="amq.topic"), Exchange.UnbindOk()),
    (Queue.Delete(queue="d"), Queue.DeleteOk(0)),
    (Exchange.Delete(exchange="old"), Exchange.DeleteOk()),
]


@pytest.fixture
def declaring(confirming: Talk) -> Talk:
    """As `confirming`, with bindings and an exchange to take away again."""
    confirming.stage.commits_at_once = True
    confirming.client(Queue.Bind(queue="d", exchange="amq.topic", routing_key="old")).broker(Queue.BindOk())
    confirming.client(Exchange.Bind(destination="amq.headers", source="amq.topic")).broker(Exchange.BindOk())
    confirming.client(Exchange.Declare(exchange="old", durable=True)).broker(Exchange.DeclareOk())
    confirming.stage.commits_at_once = False
    return confirming


@pytest.mark.parametrize(("method", "answer"), DECLARATIONS, ids=lambda method: method.name)
def test_a_durable_declaration_is_answered_once_it_is_on_disk(
    declaring: Talk, method: Queue.Declare, answer: Queue.DeclareOk
) -> None:
    before = declaring.stage.journal.safe.definitions
    declaring.client(method).nothing().stage.commit()
    assert declaring.stage.journal.safe.definitions != before
    declaring.broker(answer)


@pytest.mark.parametrize("method", [
    Queue.Declare(queue="new"), Queue.Declare(queue="new", durable=True, exclusive=True),
    Queue.Declare(queue="d", durable=True), Queue.Declare(queue="d", passive=True), Queue.Delete(queue="t"),
    Exchange.Declare(exchange="new"), Exchange.Declare(exchange="old", durable=True), Exchange.Delete(exchange="no"),
    Queue.Bind(queue="t", exchange="amq.direct"), Queue.Bind(queue="d", exchange="amq.topic", routing_key="old"),
    Queue.Unbind(queue="d", exchange="amq.topic", routing_key="other"), Queue.Purge(queue="t"), Basic.Qos(),
    Basic.Get(queue="d"), Tx.Select(),
], ids=lambda method: method.name)
def test_what_changes_nothing_durable_is_answered_at_once(declaring: Talk, method: Queue.Declare) -> None:
    declaring.open_channel(2).client(method, channel=2)
    answer, = declaring.hear_all()
    assert answer.channel == 2 and declaring.stage.journal.is_empty


def test_what_is_said_after_a_held_answer_waits_behind_it(declaring: Talk) -> None:
    declaring.client(Queue.Declare(queue="new", durable=True)).client(Basic.Qos()).publish("t", b"x").nothing()
    declaring.stage.commit()
    declaring.broker(Queue.DeclareOk("new", 0, 0), Basic.QosOk(), Basic.Ack(1))


def test_a_declaration_without_an_answer_holds_nothing(declaring: Talk) -> None:
    declaring.client(Queue.Declare(queue="new", durable=True, nowait=True)).client(Basic.Qos()).broker(Basic.QosOk())


def test_answers_of_two_batches_come_out_batch_by_batch(declaring: Talk) -> None:
    stage = declaring.stage
    declaring.client(Queue.Declare(queue="one", durable=True))
    first = stage.journal.commit()
    declaring.client(Queue.Declare(queue="two", durable=True))
    declaring.session.on_commit(first)
    stage.end_turn()
    declaring.broker(Queue.DeclareOk("one", 0, 0)).nothing().stage.commit()
    declaring.broker(Queue.DeclareOk("two", 0, 0))


def test_one_client_s_wait_does_not_hold_up_another(declaring: Talk) -> None:
    other = declaring.stage.client().open_channel()
    declaring.client(Queue.Declare(queue="new", durable=True)).nothing()
    other.client(Basic.Qos()).broker(Basic.QosOk())
    declaring.stage.commit()
    declaring.broker(Queue.DeclareOk("new", 0, 0))


def test_a_queue_may_be_used_while_its_declaration_waits(declaring: Talk) -> None:
    other = declaring.stage.client().open_channel()
    declaring.client(Queue.Declare(queue="new", durable=True)).nothing()
    other.publish("new", b"x").client(Basic.Get(queue="new", no_ack=True))
    other.broker(Basic.GetOk(1, False, "", "new", 0), content=b"x")
    declaring.stage.commit()
    declaring.broker(Queue.DeclareOk("new", 0, 0))


def test_heartbeats_go_on_behind_what_is_held(stage: Stage) -> None:
    talk = stage.client(heartbeat=10).open_channel()
    stage.commits_at_once = False
    talk.client(Queue.Declare(queue="new", durable=True))
    stage.pass_time(5)
    stage.commit()
    talk.broker(Queue.DeclareOk("new", 0, 0), Heartbeat())


def test_an_answer_waits_for_what_somebody_else_declared_just_before(declaring: Talk) -> None:
    other = declaring.stage.client().open_channel()
    declaring.client(Queue.Declare(queue="new", durable=True))
    other.client(Queue.Declare(queue="new", durable=True)).nothing()
    declaring.stage.commit()
    declaring.broker(Queue.DeclareOk("new", 0, 0))
    other.broker(Queue.DeclareOk("new", 0, 0))


def test_a_purge_is_answered_once_it_is_on_disk(declaring: Talk) -> None:
    declaring.publish("d", b"x", persistent=True).stage.commit()
    declaring.broker(Basic.Ack(1)).client(Queue.Purge(queue="d")).nothing().stage.commit()
    assert declaring.stage.journal.safe.bodies("d") == []
    declaring.broker(Queue.PurgeOk(1))


# Afterwards

def test_a_new_broker_finds_what_was_answered_and_confirmed(confirming: Talk) -> None:
    stage = confirming.stage
    confirming.publish("d", b"safe", persistent=True).stage.commit()
    confirming.broker(Basic.Ack(1)).publish("d", b"too late", persistent=True).publish("d", b"transient")
    reborn = Stage(piece=stage.piece, journal=RecordingJournal(stage.journal.safe.copy()))
    talk = reborn.client().open_channel()
    talk.client(Queue.Declare(queue="d", passive=True)).broker(Queue.DeclareOk("d", 1, 0))
    talk.client(Basic.Get(queue="d", no_ack=True))
    talk.broker(Basic.GetOk(1, False, "", "d", 0), content=b"safe", properties=PERSISTENT)
    confirming.client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())


def test_each_return_of_a_run_is_followed_by_its_confirm(confirming: Talk) -> None:
    confirming.publish("nowhere", b"a", b"b", mandatory=True)
    for sequence, body in enumerate((b"a", b"b"), 1):
        confirming.broker(Basic.Return(312, "NO_ROUTE", "", "nowhere"), content=body).broker(Basic.Ack(sequence))
