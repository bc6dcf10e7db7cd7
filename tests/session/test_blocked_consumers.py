"""Consumers that wait for credit or room: queues take turns, and closed channels leave nothing."""

from __future__ import annotations

import pytest

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.session.blocked_consumers import AT_A_TIME, BlockedConsumers
from tests.support.journals import RefusingJournal
from tests.support.samples import messages, queue_definition
from tests.support.subscribers import ListSubscriber, SharedRoom, subscribe


@pytest.fixture
def blocked() -> BlockedConsumers:
    return BlockedConsumers()


def queue_of(name: str, subscriber: ListSubscriber, count: int, waiting: int) -> tuple[Queue, list[Consumer]]:
    """Return a queue with ready messages and blocked consumers, which have no room."""
    queue = Queue(queue_definition(name), RefusingJournal())
    queue.publish(messages(*range(1, waiting + 1)))
    return queue, [subscribe(queue, subscriber, f"{name}{number}") for number in range(count)]


def test_a_consumer_that_is_gone_is_forgotten_and_the_others_are_not(blocked: BlockedConsumers) -> None:
    subscriber = ListSubscriber(SharedRoom(0))
    queue, (one, other) = queue_of("q", subscriber, 2, 0)
    blocked.remove(one)
    blocked.add(one)
    blocked.add(other)
    blocked.remove(one)
    blocked.remove(one)
    assert [*blocked._by_queue[queue]] == [other]
    blocked.remove(other)
    assert not blocked._by_queue


def test_one_that_was_not_blocked_leaves_the_others_where_they_are(blocked: BlockedConsumers) -> None:
    subscriber = ListSubscriber(SharedRoom(0))
    queue, (one, other) = queue_of("q", subscriber, 2, 0)
    blocked.add(one)
    blocked.remove(other)
    assert [*blocked._by_queue[queue]] == [one]


def test_queues_take_turns_and_consumers_too(blocked: BlockedConsumers) -> None:
    subscriber = ListSubscriber(SharedRoom(0))
    queues = [queue_of(name, subscriber, 2, 3) for name in "ab"]
    for _, consumers in queues:
        for consumer in consumers:
            blocked.add(consumer)
    subscriber.line.room = 1 << 20
    left = [2]

    def one_at_a_time() -> int:
        left[0] -= 1
        return left[0]

    blocked.serve(one_at_a_time)
    assert subscriber.delivered == [("a0", 1), ("a0", 2), ("a0", 3)]
    assert [queue for queue in blocked._by_queue] == [queues[1][0], queues[0][0]]
    blocked.serve(lambda: 1_000)
    assert sorted(subscriber.delivered[3:]) == [("b0", 1), ("b0", 3), ("b1", 2)]
    assert not blocked._by_queue


def test_each_queue_is_told_its_share_of_what_is_left(blocked: BlockedConsumers) -> None:
    subscriber = ListSubscriber(SharedRoom(0))
    for name in "abc":
        _, consumers = queue_of(name, subscriber, AT_A_TIME + 1, 0)
        for consumer in consumers:
            blocked.add(consumer)
    shares: list[int] = []
    left = iter([7, 7, 7, 2, 2, 2, 0])
    blocked.serve(lambda: next(left), shares.append)
    assert shares == [2, 2, 2, 1, 1, 1]
    assert [len(consumers) for consumers in blocked._by_queue.values()] == [AT_A_TIME + 1 - 7 - 2] * 3


def test_as_many_of_a_queue_are_asked_at_a_time_as_may_be_served(blocked: BlockedConsumers) -> None:
    subscriber = ListSubscriber(SharedRoom(0))
    queue, consumers = queue_of("q", subscriber, AT_A_TIME + 5, 0)
    for consumer in consumers:
        blocked.add(consumer)
    left = iter([1_000, 3, 0])
    blocked.serve(lambda: next(left))
    assert [*blocked._by_queue[queue]] == consumers[AT_A_TIME + 3 :]
