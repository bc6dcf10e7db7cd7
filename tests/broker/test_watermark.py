"""Delivery watermarks: each is on disk before messages up to it are delivered, and deliveries rarely wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from amqpd.broker.definitions import Defined
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue
from amqpd.broker.queue.watermark import BLOCK
from amqpd.broker.rules import QueueRules
from amqpd.message import MessageProperties
from tests.support.journals import RecordingJournal
from tests.support.page_stores import PageStoreInMemory, stored
from tests.support.samples import message, messages, queue_definition
from tests.support.subscribers import ListSubscriber, settle, subscribe

ORDERS = queue_definition(durable=True)


@pytest.fixture
def journal() -> RecordingJournal:
    """A journal that knows the queue `orders`."""
    journal = RecordingJournal()
    journal.changed(Defined(ORDERS))
    journal.commit()
    return journal


@pytest.fixture
def page_store(journal: RecordingJournal) -> PageStoreInMemory:
    return PageStoreInMemory(journal.read)


@pytest.fixture
def queue(journal: RecordingJournal, page_store: PageStoreInMemory) -> Iterator[Queue]:
    """A durable queue."""
    queue = Queue(ORDERS, journal, page_store=page_store)
    yield queue
    queue.check()


def commit(journal: RecordingJournal, page_store: PageStoreInMemory, number: int) -> None:
    """Commit everything up to this number, and continue what waits for it."""
    page_store.committed_batch = journal.commit()
    page_store.safe_number = page_store.taken_number = number
    page_store.serve()


def watermark(journal: RecordingJournal) -> int:
    return journal.now.watermarks.get(ORDERS.number, 0)


def test_the_watermark_of_what_is_delivered_at_once_rises_in_its_own_batch(
    queue: Queue, journal: RecordingJournal
) -> None:
    subscriber = ListSubscriber()
    subscribe(queue, subscriber)
    batch = queue.publish(messages(1, 2, persistent=True)).batch
    assert subscriber.numbers() == [1, 2]
    assert watermark(journal) >= 2 and journal.batch == batch


def test_by_priority_the_watermark_covers_the_highest_number_of_a_run_and_not_its_last(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = Queue(ORDERS, journal, page_store=page_store, rules=QueueRules(max_priority=9))
    late = 10 * BLOCK
    urgent = replace(message(late), facts=MessageProperties(persistent=True, priority=9))
    queue.publish([*messages(1, persistent=True), urgent])
    subscriber = ListSubscriber()
    subscribe(queue, subscriber)
    queue.dispatch()
    assert subscriber.numbers() == [late, 1]
    assert watermark(journal) >= late
    queue.check()


def test_what_was_committed_before_waits_for_its_watermark(
    queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue.publish(messages(1, 2, persistent=True))
    assert watermark(journal) == 0, "nobody has had anything"
    commit(journal, page_store, 2)
    subscriber = ListSubscriber()
    subscribe(queue, subscriber)
    queue.dispatch()
    assert subscriber.numbers() == [] and watermark(journal) == 2
    page_store.serve()
    assert subscriber.numbers() == []
    commit(journal, page_store, 2)
    assert subscriber.numbers() == [1, 2]


def test_a_get_waits_as_well(queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue.publish(messages(1, persistent=True))
    commit(journal, page_store, 1)
    with pytest.raises(MessageNotLoaded):
        queue.get(no_ack=True)
    commit(journal, page_store, 1)
    assert queue.get(no_ack=False) is not None


def test_a_watermark_covers_a_block_and_little_more(
    queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    many = 5 * BLOCK
    queue.publish(messages(*range(1, many + 1), persistent=True))
    commit(journal, page_store, many)
    subscribe(queue, ListSubscriber(), prefetch=1)
    queue.dispatch()
    assert BLOCK <= watermark(journal) <= BLOCK + 1


def test_a_slow_consumer_waits_once_only(
    queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    """The next block is asked for before the last one is used up."""
    many = 5 * BLOCK
    run = messages(*range(1, many + 1), persistent=True)
    queue.publish(run)
    commit(journal, page_store, many)
    subscriber = ListSubscriber()
    consumer = subscribe(queue, subscriber, prefetch=100)
    queue.dispatch()
    commit(journal, page_store, many)
    for start in range(0, many - 100, 100):
        assert len(subscriber.delivered) == start + 100, "it had to wait"
        settle(consumer, *run[start : start + 100])
        queue.dispatch()
        commit(journal, page_store, many)
    assert watermark(journal) < many + 2 * BLOCK


def test_transient_messages_need_no_watermark(
    queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue.publish(messages(1, 2))
    page_store.taken_number = 2
    subscriber = ListSubscriber()
    subscribe(queue, subscriber)
    queue.dispatch()
    assert subscriber.numbers() == [1, 2] and watermark(journal) == 0


def test_by_priority_each_message_is_covered_as_well(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = Queue(ORDERS, journal, page_store=page_store, rules=QueueRules(max_priority=5))
    queue.publish([message(1, persistent=True)])
    commit(journal, page_store, 1)
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, prefetch=1)
    queue.dispatch()
    commit(journal, page_store, 1)
    assert subscriber.numbers() == [1] and watermark(journal) >= 1


def test_after_a_restart_what_the_watermark_covers_looks_delivered(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    run = messages(1, 2, 3, persistent=True)
    journal.published(ORDERS, run)
    journal.watermark_raised(ORDERS, 2)
    queue = Queue(ORDERS, journal, page_store=page_store)
    queue.restore(stored(run), set(), 2, {})
    assert [queue.redelivery.is_redelivered(one) for one in run] == [True, True, False]
    commit(journal, page_store, 3)
    subscriber = ListSubscriber()
    subscribe(queue, subscriber)
    queue.dispatch()
    assert subscriber.numbers() == [1, 2], "the third has to wait for a watermark that covers it"
    commit(journal, page_store, 3)
    assert subscriber.numbers() == [1, 2, 3]


def test_the_watermark_of_a_quick_queue_rises_in_larger_blocks(
    queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    many = 40 * BLOCK
    queue.publish(messages(*range(1, many + 1), persistent=True))
    commit(journal, page_store, many)
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    commits = 0
    while len(subscriber.delivered) < many:
        commit(journal, page_store, many)
        commits += 1
    assert commits < 10 and watermark(journal) < 2 * many
