"""§19 Time to live: of queues, of messages, the smaller of both; expired messages are dead-lettered.

Times are short; a message may expire much later, but never earlier. Classic queues of RabbitMQ expire messages at the
head only; amqpd expires each message at its own time. Tests of this difference need one of these capabilities, all
others are valid for both.
"""
from __future__ import annotations

from typing import Any, Callable

import pytest

from conformance.channel import Channel
from conformance.conftest import Names
from conformance.fields import Properties
from conformance.letters import Letters, deaths
from conformance.queues import (
    Stopwatch, becomes_empty, declare, drained, fill, get, let_pass, of_each_type, ready, shown)

pytestmark = pytest.mark.needs("message-ttl", "dead-letters", "publisher_confirms")

SHORT_MS = 100
LONG_MS = 60_000


# Which time counts


@of_each_type
def test_a_queues_ttl_holds_for_all_its_messages(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    queue = declare(ch, names, {"x-message-ttl": SHORT_MS, **letters.arguments}, type)
    watch = Stopwatch()
    fill(ch, queue, "0", "1", "2")
    dead = letters.take(3)
    assert watch.ms >= SHORT_MS
    assert shown(dead) == ["0", "1", "2"]
    assert {deaths(letter)[0]["reason"] for letter in dead} == {"expired"}
    assert drained(ch, queue) == []


@of_each_type
def test_a_message_may_have_an_expiration_of_its_own(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    queue = declare(ch, names, letters.arguments, type)
    watch = Stopwatch()
    fill(ch, queue, "0", expiration=str(SHORT_MS))
    letters.take(1)
    assert watch.ms >= SHORT_MS


@of_each_type
@pytest.mark.parametrize("ttl, expiration", [(SHORT_MS, LONG_MS), (LONG_MS, SHORT_MS), (SHORT_MS, SHORT_MS)])
def test_the_smaller_of_both_counts(
        ch: Channel, names: Names, letters: Letters, type: str, ttl: int, expiration: int) -> None:
    queue = declare(ch, names, {"x-message-ttl": ttl, **letters.arguments}, type)
    watch = Stopwatch()
    fill(ch, queue, "0", expiration=str(expiration))
    letters.take(1)
    assert watch.ms >= SHORT_MS


@of_each_type
@pytest.mark.parametrize("arguments, properties", [
    ({}, {}), ({"x-message-ttl": LONG_MS}, {}), ({}, {"expiration": str(LONG_MS)}),
    ({"x-message-ttl": 315_360_000_000}, {"expiration": "315360000000"})], ids=["none", "queue", "message", "years"])
def test_what_is_not_due_stays(
        ch: Channel, names: Names, letters: Letters, type: str, arguments: dict[str, Any],
        properties: dict[str, Any]) -> None:
    queue = declare(ch, names, {**arguments, **letters.arguments}, type)
    fill(ch, queue, "0", **properties)
    let_pass(2 * SHORT_MS)
    assert drained(ch, queue) == ["0"]
    assert letters.come() == []


def test_each_queue_counts_its_own_ttl(ch: Channel, names: Names, exchange_name: str) -> None:
    """One message in two queues: it dies in one and lives in the other."""
    short, long = declare(ch, names, {"x-message-ttl": SHORT_MS}), declare(ch, names, {"x-message-ttl": LONG_MS})
    ch.declare_exchange(exchange_name, "fanout")
    for queue in (short, long):
        ch.bind_queue(queue, exchange_name)
    ch.publish(exchange_name, "", b"0")
    becomes_empty(ch, short)
    assert drained(ch, long) == ["0"]


@of_each_type
def test_without_a_dead_letter_exchange_what_expires_is_dropped(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, {"x-message-ttl": SHORT_MS}, type)
    fill(ch, queue, "0", "1")
    becomes_empty(ch, queue)
    assert ch.get(queue) is None


@of_each_type
def test_an_expiration_stays_on_the_message_when_it_is_delivered(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, {"x-message-ttl": LONG_MS}, type)
    fill(ch, queue, "0", expiration="45000")
    assert get(ch, queue)[0].properties.expiration == "45000"


def test_a_messages_clock_starts_when_it_is_enqueued(ch: Channel, names: Names, letters: Letters) -> None:
    """Within a transaction that is the commit."""
    queue = declare(ch, names, letters.arguments)
    tx = ch.client.channel()
    tx.tx_select()
    tx.publish("", queue, b"0", properties=Properties(expiration=str(SHORT_MS)))
    let_pass(2 * SHORT_MS)
    watch = Stopwatch()
    tx.tx_commit()
    letters.take(1)
    assert watch.ms >= SHORT_MS


# Nobody gets what is past its time


@of_each_type
def test_a_late_get_finds_nothing(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, {"x-message-ttl": 20}, type)
    fill(ch, queue, "0")
    let_pass(30)
    assert ch.get(queue) is None


@of_each_type
def test_a_late_consumer_gets_what_is_not_due_alone(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, type=type)
    fill(ch, queue, "short", expiration="20")
    fill(ch, queue, "long", expiration=str(LONG_MS))
    fill(ch, queue, "short", expiration="20")
    fill(ch, queue, "no limit")
    let_pass(30)
    ch.consume(queue)
    assert shown(ch.deliveries(2)) == ["long", "no limit"]
    assert ch.delivered(queue) == []


def test_a_consumer_that_is_full_gets_nothing_past_its_time(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    ch.qos(1)
    ch.consume(queue)
    fill(ch, queue, "0", "1", expiration=str(SHORT_MS))
    assert shown(ch.deliveries(1)) == ["0"]
    assert shown(letters.take(1)) == ["1"]
    ch.ack(1)
    assert ch.delivered(queue) == []


@of_each_type
def test_what_has_been_delivered_in_time_does_not_expire(
        ch: Channel, names: Names, letters: Letters, type: str) -> None:
    """Its consumer may take as long as it likes."""
    queue = declare(ch, names, {"x-message-ttl": SHORT_MS, **letters.arguments}, type)
    ch.qos(1)
    ch.consume(queue)
    fill(ch, queue, "0", "1")
    assert shown(ch.deliveries(1)) == ["0"]
    assert shown(letters.take(1)) == ["1"]
    ch.ack(1)
    assert ch.delivered(queue) == []
    assert letters.come() == []


@pytest.mark.parametrize("requeue", [
    lambda ch: ch.nack(1), lambda ch: ch.reject(1), lambda ch: ch.recover(), lambda ch: ch.close()],
    ids=["nack", "reject", "recover", "close"])
def test_a_message_requeued_past_its_time_expires_at_once(
        ch: Channel, names: Names, letters: Letters, requeue: Callable[[Channel], None]) -> None:
    """Though a consumer waits for it."""
    queue = declare(ch, names, letters.arguments)
    taker, waiting = ch.client.channel(), ch.client.channel()
    take_in_time(taker, queue)
    waiting.consume(queue)
    let_pass(SHORT_MS + 10)
    requeue(taker)
    assert deaths(letters.take(1)[0])[0]["reason"] == "expired"
    assert waiting.delivered(queue) == []


def take_in_time(ch: Channel, queue: str) -> None:
    """A message of a short time is published and delivered at once, and its consumer takes no more."""
    ch.consume(queue, "tag")
    fill(ch, queue, "0", expiration=str(SHORT_MS))
    ch.deliveries(1)
    ch.cancel("tag")


def test_a_quorum_queue_expires_what_is_requeued_past_its_time_too(
        ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments, "quorum")
    take_in_time(ch, queue)
    let_pass(SHORT_MS + 10)
    ch.nack(1)
    assert deaths(letters.take(1)[0])[0]["reason"] == "expired"
    assert ch.get(queue) is None


def test_a_message_requeued_in_time_may_be_delivered_again(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-message-ttl": LONG_MS, **letters.arguments})
    fill(ch, queue, "0")
    ch.nack(get(ch, queue)[0].tag)
    assert shown(get(ch, queue)) == ["0!"]


# Zero


@pytest.mark.parametrize("arguments, expiration", [
    ({"x-message-ttl": 0}, None), ({}, "0"), ({"x-message-ttl": LONG_MS}, "0")], ids=["queue", "message", "both"])
class TestZero:
    """Messages with a time to live of 0."""

    def test_it_is_delivered_to_a_consumer_that_waits(
            self, ch: Channel, names: Names, letters: Letters, arguments: dict, expiration: str | None) -> None:
        queue = declare(ch, names, {**arguments, **letters.arguments})
        ch.consume(queue)
        fill(ch, queue, "0", "1", expiration=expiration)
        assert shown(ch.deliveries(2)) == ["0", "1"]
        ch.ack(2, multiple=True)
        assert ch.get(queue) is None
        assert letters.come() == []

    def test_it_expires_when_nobody_waits(
            self, ch: Channel, names: Names, letters: Letters, arguments: dict, expiration: str | None) -> None:
        queue = declare(ch, names, {**arguments, **letters.arguments})
        fill(ch, queue, "0", "1", expiration=expiration)
        assert ch.get(queue) is None
        assert [deaths(letter)[0]["reason"] for letter in letters.take(2)] == ["expired", "expired"]

    def test_it_expires_when_all_consumers_are_full(
            self, ch: Channel, names: Names, letters: Letters, arguments: dict, expiration: str | None) -> None:
        queue = declare(ch, names, {**arguments, **letters.arguments})
        ch.qos(1)
        ch.consume(queue)
        fill(ch, queue, "0", "1", expiration=expiration)
        assert shown(ch.deliveries(1)) == ["0"]
        assert shown(letters.take(1)) == ["1"]
        ch.ack(1)
        assert ch.delivered(queue) == []

    def test_it_expires_when_it_is_requeued(
            self, ch: Channel, names: Names, letters: Letters, arguments: dict, expiration: str | None) -> None:
        """Though the consumer that gave it back would take it."""
        queue = declare(ch, names, {**arguments, **letters.arguments})
        ch.consume(queue)
        fill(ch, queue, "0", expiration=expiration)
        ch.nack(ch.deliveries(1)[0].tag)
        assert shown(letters.take(1)) == ["0"]
        assert ch.delivered(queue) == []


# Behind others


def short_behind_long(ch: Channel, queue: str) -> None:
    """Publish a message with a long time to live, and behind it one with a short one."""
    fill(ch, queue, "long", expiration=str(LONG_MS))
    fill(ch, queue, "short", expiration=str(SHORT_MS))


def test_a_message_behind_one_that_lives_longer_is_not_delivered_past_its_time(
        ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    short_behind_long(ch, queue)
    let_pass(SHORT_MS + 10)
    assert shown(get(ch, queue)) == ["long"]
    assert shown(letters.take(1)) == ["short"]
    assert ch.get(queue) is None


@pytest.mark.needs("expiry-at-the-head")
def test_a_message_behind_one_that_lives_longer_waits_for_it_and_is_counted(
        ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    short_behind_long(ch, queue)
    let_pass(2 * SHORT_MS)
    assert ready(ch, queue) == 2
    assert letters.come() == []


@pytest.mark.needs("expiry-in-time")
def test_a_message_behind_one_that_lives_longer_expires_at_its_time(
        ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    watch = Stopwatch()
    short_behind_long(ch, queue)
    assert shown(letters.take(1)) == ["short"]
    assert watch.ms >= SHORT_MS
    assert ready(ch, queue) == 1


@pytest.mark.needs("expiry-in-time")
def test_messages_expire_in_the_order_of_their_times(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    watch = Stopwatch()
    times = {"last": 600, "first": 200, "middle": 400}
    for body, ms in times.items():
        ch.publish("", queue, body.encode(), properties=Properties(expiration=str(ms)))
    for body in ("first", "middle", "last"):
        assert shown(letters.take(1)) == [body]
        assert watch.ms >= times[body]


@pytest.mark.needs("expiry-in-time")
def test_messages_due_at_once_keep_their_order(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    fill(ch, queue, "blocks", expiration=str(LONG_MS))
    fill(ch, queue, *(str(number) for number in range(50)), expiration=str(SHORT_MS))
    assert shown(letters.take(50)) == [str(number) for number in range(50)]


@pytest.mark.needs("expiry-in-time")
def test_a_lower_priority_expires_at_its_time(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-priority": 5, **letters.arguments})
    fill(ch, queue, "high", priority=5)
    fill(ch, queue, "low", priority=1, expiration=str(SHORT_MS))
    assert shown(letters.take(1)) == ["low"]
    assert ready(ch, queue) == 1


@pytest.mark.needs("expiry-at-the-head")
def test_a_lower_priority_waits_for_higher_ones(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-priority": 5, **letters.arguments})
    fill(ch, queue, "high", priority=5)
    fill(ch, queue, "low", priority=1, expiration=str(SHORT_MS))
    let_pass(2 * SHORT_MS)
    assert ready(ch, queue) == 2
    assert letters.come() == []


def test_a_higher_priority_expires_while_lower_ones_live(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-priority": 5, **letters.arguments})
    fill(ch, queue, "high", priority=5, expiration=str(SHORT_MS))
    fill(ch, queue, "low", priority=1)
    assert shown(letters.take(1)) == ["high"]
    assert drained(ch, queue) == ["low"]


@pytest.mark.needs("expiry-in-time")
def test_a_higher_priority_that_came_later_expires_too(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-priority": 5, **letters.arguments})
    fill(ch, queue, "low", priority=1)
    fill(ch, queue, "high", priority=5, expiration=str(SHORT_MS))
    assert shown(letters.take(1)) == ["high"]
    assert drained(ch, queue) == ["low"]


# Many


def test_a_backlog_expires_whole(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-message-ttl": SHORT_MS})
    for number in range(2000):
        ch.publish("", queue, b"%d" % number)
    becomes_empty(ch, queue)
