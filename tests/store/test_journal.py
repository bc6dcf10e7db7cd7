"""The journal and its batches, without a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.broker import ports
from amqpd.broker.definitions import (
    Defined,
    Deleted,
    ExchangeDefinition,
    QueueDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.store.batch import Batch, QueueChanges
from amqpd.store.journal import Journal, MemoryJournal
from tests.store.store_samples import message, queue

ORDERS, INVOICES = queue(1), queue(2)


def test_the_journals_are_what_the_broker_asks_for():
    journals: list[ports.Journal] = [Journal(), MemoryJournal()]
    assert journals


def test_a_record_answers_the_number_of_the_filling_batch():
    journal = Journal()
    assert journal.published(ORDERS, [message(1)]) == 1
    assert journal.requeued(ORDERS, {8: 1}) == 1
    assert journal.settled(ORDERS, [9]) == 1
    assert journal.take().number == 1
    assert journal.changed(Defined(ORDERS)) == 2


@pytest.mark.parametrize("step, record", [
    ("change", lambda journal: journal.changed(Defined(ORDERS))),
    ("set_unfinished", lambda journal: journal.unfinished(True)),
    ("publish", lambda journal: journal.published(ORDERS, [message(1)])),
    ("requeue", lambda journal: journal.requeued(ORDERS, {8: 1})),
    ("watermark", lambda journal: journal.watermark_raised(ORDERS, 8)),
    ("settle", lambda journal: journal.settled(ORDERS, [9])),
    ("set_clock", lambda journal: journal.clock_set(1)),
])
def test_after_an_error_in_recording_nothing_may_be_written(monkeypatch, step, record):
    """What the broker has in memory may differ from what was recorded."""
    journal, mistake = Journal(), KeyError("a mistake of ours")

    def fail(*_):
        raise mistake

    monkeypatch.setattr(Batch, step, fail)
    with pytest.raises(KeyError):
        record(journal)
    assert journal.failure is mistake


def test_a_taken_batch_is_joined_by_nothing_more():
    journal = Journal()
    journal.published(ORDERS, [message(1)])
    batch = journal.take()
    journal.published(ORDERS, [message(2)])
    assert list(batch.queues[ORDERS.number].published) == [1]


def test_a_message_settled_before_it_was_written_is_forgotten():
    journal = Journal()
    run = [message(1), message(2)]
    journal.published(ORDERS, run)
    assert journal.settled(ORDERS, [m.number for m in run]) == 1
    assert journal.filling.is_empty
    assert journal.filling.weight == 0


def test_a_message_of_an_earlier_batch_is_recorded_as_settled():
    journal = Journal()
    journal.published(ORDERS, [message(1)])
    journal.take()
    journal.settled(ORDERS, [1])
    assert journal.filling.queues[ORDERS.number].settled == [1]


def test_a_run_may_hold_written_and_unwritten_messages():
    journal = Journal()
    journal.published(ORDERS, [message(1), message(2)])
    journal.take()
    journal.published(ORDERS, [message(3), message(4)])
    journal.settled(ORDERS, [3, 1])
    batch = journal.take()
    assert list(batch.queues[ORDERS.number].published) == [4]
    assert batch.queues[ORDERS.number].settled == [1]
    batch.check()


def test_a_message_settled_in_one_queue_still_waits_in_the_other():
    journal = Journal()
    shared = message(1, holders=2)
    journal.published(ORDERS, [shared])
    journal.published(INVOICES, [shared])
    journal.settled(ORDERS, [shared.number])
    assert list(journal.filling.queues[INVOICES.number].published) == [1]
    assert not journal.filling.queues[ORDERS.number].published


def test_when_messages_expire_waits_with_them_for_each_queue():
    journal = Journal()
    run = [message(1, holders=2), message(2, holders=2)]
    journal.published(ORDERS, run, {1: 5_000})
    journal.published(INVOICES, run, {1: 7_000, 2: 8_000})
    journal.settled(INVOICES, [run[0].number])
    batch = journal.take()
    assert [batch.queues[one.number].expiries for one in (ORDERS, INVOICES)] == [{1: 5_000}, {2: 8_000}]
    batch.check()


def test_without_expiries_a_batch_has_none():
    journal = Journal()
    journal.published(ORDERS, [message(1)])
    journal.published(ORDERS, [message(2)], {})
    assert not journal.filling.queues[ORDERS.number].expiries


def test_a_delivery_count_is_something_to_write():
    journal = Journal()
    journal.requeued(ORDERS, {1: 1, 2: 1})
    assert journal.filling.queues[ORDERS.number].deliveries == {1: 1, 2: 1}
    assert journal.filling.count == 2


def test_the_last_delivery_count_is_the_one_that_counts():
    journal = Journal()
    journal.requeued(ORDERS, {1: 1})
    journal.requeued(ORDERS, {1: 2, 2: 1})
    assert journal.filling.queues[ORDERS.number].deliveries == {1: 2, 2: 1}
    journal.filling.check()


def test_a_delivery_count_is_forgotten_when_its_message_is_settled():
    journal = Journal()
    journal.published(ORDERS, [message(1)])
    journal.requeued(ORDERS, {1: 1, 8: 3, 9: 4})
    journal.settled(ORDERS, [1, 8])
    batch = journal.take()
    batch.check()
    assert batch.queues[ORDERS.number].deliveries == {9: 4}
    assert batch.queues[ORDERS.number].settled == [8]


def test_a_message_requeued_and_settled_before_it_was_written_leaves_nothing_to_write():
    journal = Journal()
    journal.published(ORDERS, [message(1)], {1: 5_000})
    journal.requeued(ORDERS, {1: 1})
    journal.settled(ORDERS, [1])
    assert journal.filling.is_empty


def test_deleting_a_queue_forgets_what_waits_in_it():
    journal = Journal()
    journal.published(ORDERS, [message(1)], {1: 5_000})
    journal.requeued(ORDERS, {1: 1, 8: 2})
    journal.settled(ORDERS, [9])
    journal.published(INVOICES, [message(2)], {2: 5_000})
    journal.changed(Deleted(ORDERS))
    batch = journal.take()
    batch.check()
    assert batch.queues.keys() == {INVOICES.number}
    assert batch.queues[INVOICES.number].expiries == {2: 5_000}


def test_deleting_a_vhost_forgets_what_waits_in_its_queues_and_no_others():
    journal = Journal()
    elsewhere = queue(3, vhost="elsewhere")
    journal.published(ORDERS, [message(1)])
    journal.published(elsewhere, [message(2)], {2: 5_000})
    journal.requeued(elsewhere, {8: 2})
    journal.settled(elsewhere, [9])
    journal.changed(Deleted(VhostDefinition("elsewhere")))
    batch = journal.take()
    batch.check()
    assert batch.queues.keys() == {ORDERS.number}


def test_a_queue_of_a_vhost_made_anew_keeps_its_messages():
    journal = Journal()
    journal.changed(Deleted(VhostDefinition("elsewhere")))
    journal.published(queue(4, vhost="elsewhere"), [message(1)])
    assert journal.filling.queues[4].published


def test_what_is_not_durable_is_not_recorded():
    journal = Journal()
    for definition in (QueueDefinition(5, "/", "transient"), ExchangeDefinition("/", "transient", "fanout")):
        assert journal.changed(Defined(definition)) == 0
        assert journal.changed(Deleted(definition)) == 0
    assert journal.filling.is_empty
    assert journal.changed(Defined(UserDefinition("ann"))) == 1


def test_the_weight_of_a_batch_is_about_the_octets_of_its_messages():
    journal = Journal()
    journal.published(ORDERS, [message(1, bytes(1000)), message(2, bytes(3000))])
    assert 4000 <= journal.filling.weight < 4200


def test_a_message_of_many_queues_weighs_about_once():
    journal = Journal()
    shared = message(1, bytes(10_000), holders=10)
    for number in range(1, 11):
        journal.published(queue(number), [shared])
    assert 9_900 <= journal.filling.weight < 10_200


def test_in_memory_there_is_nothing_to_wait_for():
    journal = MemoryJournal()
    assert journal.changed(Defined(ORDERS)) == 0
    assert journal.published(ORDERS, [message(1)], {1: 5_000}) == 0
    assert journal.requeued(ORDERS, {1: 1}) == 0
    assert journal.settled(ORDERS, [1]) == 0


# Deferred records

def deferring() -> Journal:
    """A journal whose messages 11, 12 and 13 are deferred, the first two for both queues; the store has 1 to 3."""
    journal = Journal()
    journal.published(ORDERS, [message(1), message(2), message(3)])
    journal.take()
    journal.deferral.begin()
    with journal.deferral.on():
        for definition in (ORDERS, INVOICES):
            journal.published(definition, [message(11, holders=2), message(12, holders=2)], {11: 5_000})
        journal.published(ORDERS, [message(13, holders=2)])
    return journal


def test_deferred_records_join_one_batch_at_the_end_and_none_before():
    journal = deferring()
    with journal.deferral.on():
        journal.settled(ORDERS, [1])
        journal.requeued(ORDERS, {2: 3})
    journal.published(ORDERS, [message(20)])
    journal.settled(ORDERS, [3])
    batch = journal.take()
    assert list(batch.queues) == [1] and list(batch.queues[1].published) == [20] and batch.queues[1].settled == [3]
    assert journal.filling.is_empty and journal.first_deferred == 11
    journal.published(ORDERS, [message(21)])
    journal.deferral.end()
    batch = journal.take()
    batch.check()
    assert list(batch.queues[1].published) == [11, 12, 13, 21] and list(batch.queues[2].published) == [11, 12]
    assert [batch.queues[number].expiries for number in (1, 2)] == [{11: 5_000}] * 2
    assert (batch.queues[1].settled, batch.queues[1].deliveries) == ([1], {2: 3})
    assert journal.first_deferred is None and journal.filling.is_empty
    journal.deferral.begin()
    journal.deferral.end()
    assert journal.filling.is_empty


def test_a_deferred_message_that_is_settled_meanwhile_is_forgotten():
    journal = deferring()
    journal.requeued(ORDERS, {11: 1, 2: 1})
    journal.settled(ORDERS, [11, 1])
    with journal.deferral.on():
        journal.settled(ORDERS, [12, 2])
    batch = journal.take()
    assert (batch.queues[1].settled, batch.queues[1].deliveries) == ([1], {2: 1})
    journal.deferral.end()
    batch = journal.take()
    batch.check()
    assert list(batch.queues[1].published) == [13] and batch.queues[1].settled == [2]
    assert list(batch.queues[2].published) == [11, 12] and not batch.queues[1].expiries


def test_a_deferred_message_that_is_requeued_meanwhile_has_its_delivery_count_with_it():
    journal = deferring()
    journal.requeued(ORDERS, {11: 1, 2: 4})
    assert journal.take().queues[1].deliveries == {2: 4}
    journal.deferral.end()
    assert journal.filling.queues[1].deliveries == {11: 1}


def test_what_a_deletion_makes_pointless_is_not_deferred_any_more():
    journal = deferring()
    journal.changed(Deleted(ORDERS))
    journal.deferral.end()
    assert list(journal.filling.queues) == [2]
    journal.take().check()
    journal = deferring()
    journal.changed(Deleted(VhostDefinition("/")))
    journal.deferral.end()
    assert not journal.filling.queues


def test_what_is_settled_at_the_end_and_was_published_in_the_same_batch_is_in_neither():
    journal = deferring()
    journal.published(ORDERS, [message(20), message(21)], {20: 9_000})
    journal.requeued(ORDERS, {20: 1})
    with journal.deferral.on():
        journal.settled(ORDERS, [20, 1])
    journal.deferral.end()
    batch = journal.take()
    batch.check()
    assert list(batch.queues[1].published) == [11, 12, 13, 21] and batch.queues[1].settled == [1]


def test_an_error_while_deferred_records_join_a_batch_ends_the_writing(monkeypatch):
    journal, mistake = deferring(), KeyError("a mistake of ours")

    def fail(*_):
        raise mistake

    monkeypatch.setattr(Batch, "join", fail)
    with pytest.raises(KeyError):
        journal.deferral.end()
    assert journal.failure is mistake


RUNS = st.tuples(
    st.sampled_from(["publish", "expiring", "requeue", "settle", "delete"]), st.integers(1, 3), st.integers(1, 4))


@given(st.lists(RUNS, max_size=40))
def test_a_batch_holds_what_is_left_of_its_records(steps):
    batch = Batch(1)
    expected: dict[int, dict[int, tuple[int | None, int]]] = {1: {}, 2: {}, 3: {}}      # expiry, deliveries
    next_number = 1
    for act, queue_number, size in steps:
        held = expected[queue_number]
        some = list(held)[:size]
        if act in ("publish", "expiring"):
            run = [message(number) for number in range(next_number, next_number + size)]
            next_number += size
            expiries = {m.number: 1_000 * m.number for m in run[::2]} if act == "expiring" else None
            batch.publish(queue(queue_number), run, expiries)
            held.update((m.number, ((expiries or {}).get(m.number), 0)) for m in run)
        elif act == "requeue":
            held.update((number, (held[number][0], held[number][1] + 1)) for number in some)
            batch.requeue(queue(queue_number), {number: held[number][1] for number in some})
        elif act == "settle":
            batch.settle(queue(queue_number), list(some))
            for number in some:
                del held[number]
        else:
            batch.change(Deleted(queue(queue_number)))
            held.clear()
        batch.check()
    for number, held in expected.items():
        changes = batch.queues.get(number, QueueChanges("/"))
        assert not changes.settled
        assert list(changes.published) == list(held)
        assert changes.expiries == {n: end for n, (end, _) in held.items() if end is not None}
        assert changes.deliveries == {n: count for n, (_, count) in held.items() if count}
