"""§22 Message priorities: the highest first, in each priority the oldest first, also after a requeue.

Priorities with limits are in `test_length_limits`, with TTL in `test_ttl`.
"""
from __future__ import annotations

from typing import Callable

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker, Names
from conformance.fields import Properties
from conformance.queues import declare, drained, fill, get, of_each_type, ready, shown
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("message-priorities", "publisher_confirms")


@pytest.fixture
def queue(ch: Channel, names: Names) -> str:
    """A queue of the priorities 0 to 5."""
    return declare(ch, names, {"x-max-priority": 5})


def publish(ch: Channel, queue: str, *priorities: int | None) -> None:
    """A message of each priority, its number as body."""
    for number, priority in enumerate(priorities):
        ch.publish("", queue, b"%d" % number, properties=Properties(priority=priority))


def fill_in_order(ch: Channel, queue: str, *messages: str) -> None:
    """Publish messages named like `5a`: the priority, then a letter to distinguish them."""
    for message in messages:
        fill(ch, queue, message, priority=int(message[0]))


def got(ch: Channel, queue: str, count: int) -> list[int | None]:
    """The priorities of the next messages."""
    return [message.properties.priority for message in get(ch, queue, count)]


def test_the_highest_priority_comes_first(ch: Channel, queue: str) -> None:
    """None counts as 0, more than the queue has as its highest."""
    publish(ch, queue, None, 1, 9, 5, 0, 255, 5, 3, 1)
    assert got(ch, queue, 9) == [9, 5, 255, 5, 3, 1, 1, None, 0]


def test_within_a_priority_the_oldest_comes_first(ch: Channel, queue: str) -> None:
    publish(ch, queue, *([1, 2, 3] * 10))
    bodies = [int(message.body) for message in get(ch, queue, 30)]
    assert bodies == [*range(2, 30, 3), *range(1, 30, 3), *range(0, 30, 3)]


def test_consumers_get_the_highest_first_too(ch: Channel, queue: str) -> None:
    fill_in_order(ch, queue, "0a", "3a", "5a", "3b", "5b")
    ch.consume(queue)
    assert shown(ch.deliveries(5)) == ["5a", "5b", "3a", "3b", "0a"]


def test_what_has_been_delivered_is_not_called_back(ch: Channel, queue: str) -> None:
    """A prefetch count keeps it small."""
    ch.qos(2)
    ch.consume(queue)
    fill_in_order(ch, queue, "1a", "1b", "1c", "5a")
    assert shown(ch.deliveries(2)) == ["1a", "1b"]
    ch.ack(1)
    assert shown(ch.deliveries(1)) == ["5a"]
    ch.ack(2)
    assert shown(ch.deliveries(1)) == ["1c"]


@pytest.mark.parametrize("highest, expected", [
    (0, [0, 200, 255, 1]), (1, [200, 255, 1, 0]), (255, [255, 200, 1, 0])])
def test_a_queue_has_as_many_priorities_as_it_was_declared_with(
        ch: Channel, names: Names, highest: int, expected: list[int]) -> None:
    queue = declare(ch, names, {"x-max-priority": highest})
    publish(ch, queue, 0, 200, 255, 1)
    assert got(ch, queue, 4) == expected


def test_each_of_255_priorities_is_apart(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-max-priority": 255})
    publish(ch, queue, *range(256))
    assert got(ch, queue, 256) == list(range(255, -1, -1))


@of_each_type
def test_other_queues_do_not_look_at_the_priority(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, type=type)
    fill_in_order(ch, queue, "0a", "5a", "3a")
    assert drained(ch, queue) == ["0a", "5a", "3a"]


def test_the_priority_is_delivered_as_it_was_published(ch: Channel, queue: str) -> None:
    publish(ch, queue, 200)
    assert got(ch, queue, 1) == [200]


def test_messages_of_all_priorities_are_counted(ch: Channel, queue: str) -> None:
    fill_in_order(ch, queue, "0a", "5a", "3a")
    assert ready(ch, queue) == 3
    assert [message.messages for message in get(ch, queue, 3)] == [2, 1, 0]


def test_messages_of_all_priorities_are_purged(ch: Channel, queue: str) -> None:
    fill_in_order(ch, queue, "0a", "5a", "3a")
    assert ch.purge(queue) == 3
    assert ch.get(queue) is None


# Requeueing


@pytest.mark.parametrize("requeue", [
    lambda ch: ch.nack(0, multiple=True), lambda ch: ch.recover(), lambda ch: ch.close()],
    ids=["nack", "recover", "close"])
def test_requeued_messages_go_back_to_their_priority_and_place(
        ch: Channel, queue: str, requeue: Callable[[Channel], None]) -> None:
    taker = ch.client.channel()
    fill_in_order(ch, queue, "3a", "3b", "1a")
    get(taker, queue, 2)
    fill_in_order(ch, queue, "5a", "3c", "1b")
    requeue(taker)
    wait_until(lambda: ready(ch, queue) == 6)
    assert drained(ch, queue) == ["5a", "3a!", "3b!", "3c", "1a", "1b"]


def test_a_requeued_message_waits_behind_higher_priorities(ch: Channel, queue: str) -> None:
    ch.qos(1)
    fill_in_order(ch, queue, "1a")
    ch.consume(queue)
    tag = ch.deliveries(1)[0].tag
    fill_in_order(ch, queue, "5a")
    ch.nack(tag)
    delivery, = ch.deliveries(1)
    assert shown([delivery]) == ["5a"]
    ch.ack(delivery.tag)
    assert shown(ch.deliveries(1)) == ["1a!"]


def test_a_requeued_message_comes_before_lower_priorities(ch: Channel, queue: str) -> None:
    fill_in_order(ch, queue, "5a", "1a")
    ch.nack(get(ch, queue)[0].tag)
    assert shown(get(ch, queue, 2)) == ["5a!", "1a"]


# With consumers


def test_consumers_take_turns_and_each_gets_the_highest_there_is(ch: Channel, broker: Broker, queue: str) -> None:
    fill_in_order(ch, queue, "1a", "2a", "3a", "4a")
    consumers = [broker.channel() for _ in range(2)]
    for consumer in consumers:
        consumer.qos(1)
        consumer.consume(queue)
    first, second = (consumer.deliveries(1)[0] for consumer in consumers)
    assert shown([first, second]) == ["4a", "3a"]
    consumers[1].ack(second.tag)
    assert shown(consumers[1].deliveries(1)) == ["2a"]


def test_a_message_in_a_transaction_has_its_priority(ch: Channel, queue: str) -> None:
    ch.tx_select()
    publish(ch, queue, 1, 5, 3)
    ch.tx_commit()
    assert got(ch, queue, 3) == [5, 3, 1]
