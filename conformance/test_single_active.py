"""§17 Single active consumer: one consumer gets all messages; if it is cancelled, the next one does.

RabbitMQ 3.10 does not look for waiting messages when the active consumer of a classic queue is cancelled, and a later
publish then crashes that queue. Tests for both brokers leave no message there; amqpd delivers it at once.
"""
from __future__ import annotations

from typing import Callable

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker, Names
from conformance.methods import BASIC_CONSUME, BASIC_GET
from conformance.queues import declare, fill, get, of_each_type, ready, shown
from conformance.texts import Texts
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("single-active-consumer", "publisher_confirms")

SINGLE = {"x-single-active-consumer": True}
GOING: dict[str, Callable[[Channel], None]] = {
    "channel closes": lambda channel: channel.close(), "connection closes": lambda channel: channel.client.close(),
    "tcp drops": lambda channel: channel.client.drop()}


def consumers(broker: Broker, queue: str, count: int = 3, *, prefetch: int = 0) -> list[Channel]:
    """Consumers on connections of their own, registered in this order."""
    channels = [broker.channel() for _ in range(count)]
    for channel in channels:
        channel.qos(prefetch)
        channel.consume(queue, "tag")
    return channels


def consumers_of_priorities(broker: Broker, queue: str, *priorities: int) -> list[Channel]:
    """The same with these priorities."""
    channels = [broker.channel() for _ in priorities]
    for channel, priority in zip(channels, priorities):
        channel.consume(queue, "tag", arguments={"x-priority": priority})
    return channels


@of_each_type
def test_the_first_consumer_gets_all(ch: Channel, names: Names, broker: Broker, type: str) -> None:
    queue = declare(ch, names, SINGLE, type)
    first, *others = consumers(broker, queue)
    fill(ch, queue, *"0123")
    assert shown(first.deliveries(4)) == ["0", "1", "2", "3"]
    assert [other.delivered(queue) for other in others] == [[], []]


def test_all_consumers_are_counted(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    consumers(broker, queue)
    assert ch.declare_queue(queue, passive=True) == (queue, 0, 3)


@of_each_type
def test_others_get_nothing_while_the_active_one_is_full(
        ch: Channel, names: Names, broker: Broker, type: str) -> None:
    queue = declare(ch, names, SINGLE, type)
    first, *others = consumers(broker, queue, prefetch=2)
    fill(ch, queue, *"0123")
    assert shown(first.deliveries(2)) == ["0", "1"]
    assert [other.delivered(queue) for other in others] == [[], []]
    first.ack(1)
    assert shown(first.deliveries(1)) == ["2"]


def test_a_queue_that_was_declared_without_serves_all(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, {"x-single-active-consumer": False})
    channels = consumers(broker, queue)
    fill(ch, queue, *"012")
    assert [shown(channel.deliveries(1)) for channel in channels] == [["0"], ["1"], ["2"]]


def test_a_get_works_beside_the_active_consumer(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    consumers(broker, queue, prefetch=1)
    fill(ch, queue, "0", "1")
    assert shown(get(ch, queue)) == ["1"]


@pytest.mark.needs("no-get-beside-single-active")
def test_a_quorum_queue_with_a_single_active_consumer_refuses_get(ch: Channel, names: Names, texts: Texts) -> None:
    queue = declare(ch, names, SINGLE, "quorum")
    ch.send_get(queue)
    ch.fails(405, f"RESOURCE_LOCKED - cannot obtain access to locked {texts.queue(queue)}. basic.get operations are "
             "not supported by quorum queues with single active consumer", *BASIC_GET)


# Take-over


@of_each_type
def test_the_next_one_takes_over_when_the_active_one_is_cancelled(
        ch: Channel, names: Names, broker: Broker, type: str) -> None:
    queue = declare(ch, names, SINGLE, type)
    channels = consumers(broker, queue)
    for number, channel in enumerate(channels):
        fill(ch, queue, str(number))
        delivery, = channel.deliveries(1)
        channel.ack(delivery.tag)
        channel.cancel("tag")
        assert delivery.body == b"%d" % number


@of_each_type
@pytest.mark.parametrize("go", GOING.values(), ids=GOING)
def test_the_next_one_takes_over_with_what_the_active_one_had(
        ch: Channel, names: Names, broker: Broker, type: str, go: Callable[[Channel], None]) -> None:
    queue = declare(ch, names, SINGLE, type)
    first, second, third = consumers(broker, queue, prefetch=2)
    fill(ch, queue, *"0123")
    first.deliveries(2)
    go(first)
    assert sorted(shown(second.deliveries(2))) == ["0!", "1!"]
    assert third.delivered(queue) == []


def test_they_take_over_in_the_order_they_came(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    channels = consumers(broker, queue, 4)
    fill(ch, queue, "0")
    for before, channel in enumerate(channels):
        assert shown(channel.deliveries(1)) == ["0" + "!" * bool(before)]
        channel.close()
    wait_until(lambda: ready(ch, queue) == 1)


def test_one_that_goes_while_it_waits_is_left_out(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    first, second, third = consumers(broker, queue)
    second.cancel("tag")
    first.close()
    fill(ch, queue, "0")
    assert shown(third.deliveries(1)) == ["0"]
    assert second.delivered(queue) == []


def test_one_that_comes_back_is_the_last(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    first, second, third = consumers(broker, queue)
    first.cancel("tag")
    first.consume(queue, "again")
    second.cancel("tag")
    fill(ch, queue, "0")
    assert shown(third.deliveries(1)) == ["0"]
    third.close()
    assert shown(first.deliveries(1)) == ["0!"]


def test_a_later_consumer_of_a_higher_priority_waits_like_any(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    first, second = consumers_of_priorities(broker, queue, 0, 10)
    fill(ch, queue, "0")
    assert shown(first.deliveries(1)) == ["0"]
    assert second.delivered(queue) == []


def test_of_those_that_wait_the_highest_priority_takes_over_first(
        ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    first, low, high, as_high = consumers_of_priorities(broker, queue, 0, 0, 5, 5)
    fill(ch, queue, "0")
    first.deliveries(1)
    for before, after in ((first, high), (high, as_high), (as_high, low)):
        before.close()
        assert shown(after.deliveries(1)) == ["0!"]


def test_two_consumers_of_one_channel_are_two(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, SINGLE)
    for tag in ("first", "second"):
        ch.consume(queue, tag)
    fill(ch, queue, "0", "1")
    assert [delivery.consumer_tag for delivery in ch.deliveries(2)] == ["first", "first"]
    ch.cancel("first")
    fill(ch, queue, "2")
    assert [delivery.consumer_tag for delivery in ch.deliveries(1)] == ["second"]


@of_each_type
def test_what_a_cancelled_consumer_had_stays_with_its_channel(
        ch: Channel, names: Names, broker: Broker, type: str) -> None:
    """Until that closes."""
    queue = declare(ch, names, SINGLE, type)
    first, second = consumers(broker, queue, 2)
    fill(ch, queue, "0")
    first.deliveries(1)
    first.cancel("tag")
    fill(ch, queue, "1")
    assert shown(second.deliveries(1)) == ["1"]
    first.close()
    assert shown(second.deliveries(1)) == ["0!"]


@pytest.mark.needs("single-active-hands-over-at-once")
def test_messages_that_wait_go_to_the_next_one_at_once(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE)
    first, second, third = consumers(broker, queue, prefetch=1)
    fill(ch, queue, "0", "1", "2")
    first.deliveries(1)
    first.cancel("tag")
    assert shown(second.deliveries(1)) == ["1"]
    second.cancel("tag")
    assert shown(third.deliveries(1)) == ["2"]


def test_a_quorum_queues_messages_that_wait_go_to_the_next_one_at_once(
        ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, SINGLE, "quorum")
    first, second = consumers(broker, queue, 2, prefetch=1)
    fill(ch, queue, "0", "1")
    first.deliveries(1)
    first.cancel("tag")
    assert shown(second.deliveries(1)) == ["1"]


# Exclusive consumers


@pytest.mark.parametrize("others", [0, 1])
def test_an_exclusive_consumer_is_refused(
        ch: Channel, names: Names, broker: Broker, texts: Texts, others: int) -> None:
    """Be there others or not."""
    queue = declare(ch, names, SINGLE)
    consumers(broker, queue, others)
    ch.send_consume(queue, exclusive=True)
    ch.fails(403, texts.in_exclusive_use(queue), *BASIC_CONSUME)
