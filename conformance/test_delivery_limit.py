"""§23 Delivery counts: the header x-delivery-count, and the limit x-delivery-limit.

RabbitMQ has both for quorum queues only, amqpd also for every queue with a limit. RabbitMQ 3.10 sends the header from
the first delivery on, as 0; RabbitMQ 4 and amqpd only from 1 on. The tests accept both.
"""
from __future__ import annotations

from typing import Any, Callable

import pytest

from conformance.channel import Channel, Delivery, Got
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.fields import Long, LongString
from conformance.letters import Letters, counts, typed_headers
from conformance.queues import declare, drained, fill, get, shown

pytestmark = pytest.mark.needs("quorum-queues", "dead-letters", "publisher_confirms")

types = pytest.mark.parametrize(
    "type", ["quorum", pytest.param("classic", marks=pytest.mark.needs("delivery-limit-on-classic"))])

COMING_BACK: dict[str, Callable[[Channel, int], None]] = {
    "nack": lambda channel, tag: channel.nack(tag),
    "reject": lambda channel, tag: channel.reject(tag),
    "recover": lambda channel, tag: channel.recover(),
    "channel closes": lambda channel, tag: channel.close(),
    "connection closes": lambda channel, tag: channel.client.close(),
    "tcp drops": lambda channel, tag: channel.client.drop(),
}


def counting(type: str) -> dict[str, Any]:
    """Arguments of a queue of this type that counts: a classic one does where it has a limit."""
    return {"x-delivery-limit": 20} if type == "classic" else {}


def delivery_count(message: Got | Delivery) -> int:
    """The count a message carries; none is 0."""
    return (message.properties.headers or {}).get("x-delivery-count", 0)


def hand_out(ch: Channel, queue: str, times: int) -> list[Got]:
    """Get the only message so many times and requeue it each time but the last."""
    got = get(ch, queue)
    for _ in range(times - 1):
        ch.nack(got[-1].tag)
        got += get(ch, queue)
    return got


# The count


@types
@pytest.mark.parametrize("come_back", COMING_BACK.values(), ids=COMING_BACK)
def test_every_return_counts(
        ch: Channel, names: Names, broker: Broker, type: str, come_back: Callable[[Channel, int], None]) -> None:
    queue = declare(ch, names, counting(type), type)
    fill(ch, queue, "0")
    taker = broker.channel()
    come_back(taker, get(taker, queue)[0].tag)
    again, = get(ch, queue)
    assert (again.redelivered, delivery_count(again)) == (True, 1)


@types
def test_the_count_rises_by_one_each_time(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, counting(type), type)
    fill(ch, queue, "0")
    got = hand_out(ch, queue, 5)
    assert [delivery_count(message) for message in got] == [0, 1, 2, 3, 4]
    assert [message.redelivered for message in got] == [False, True, True, True, True]


@types
def test_the_count_is_a_long_among_the_other_headers(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, counting(type), type)
    fill(ch, queue, "0", headers={"z": Long(1), "a": LongString("text")})
    headers = typed_headers(hand_out(ch, queue, 2)[1])
    assert headers == {"z": Long(1), "a": LongString("text"), "x-delivery-count": Long(1)}


@pytest.mark.needs("first-delivery-counts-0")
def test_a_first_delivery_counts_0(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, type="quorum")
    fill(ch, queue, "0")
    assert typed_headers(get(ch, queue)[0]) == {"x-delivery-count": Long(0)}


@pytest.mark.needs("first-delivery-without-count")
@types
def test_a_first_delivery_has_no_count(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, counting(type), type)
    fill(ch, queue, "0")
    assert get(ch, queue)[0].properties.headers is None


@pytest.mark.parametrize("headers", [None, {"x-delivery-count": 7}], ids=["none", "a client's"])
def test_a_classic_queue_without_a_limit_changes_no_header(
        ch: Channel, names: Names, headers: dict[str, int] | None) -> None:
    """There are clients that cannot read a long."""
    queue = declare(ch, names)
    fill(ch, queue, "0", headers=headers)
    got = hand_out(ch, queue, 3)[2]
    assert (got.redelivered, got.properties.headers) == (True, headers)
    ch.nack(got.tag)
    ch.consume(queue)
    delivery, = ch.deliveries(1)
    assert (delivery.redelivered, delivery.properties.headers) == (True, headers)


@types
def test_each_message_has_its_own_count(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 10}, type)
    fill(ch, queue, "0", "1", "2")
    get(ch, queue, 2)
    ch.ack(1)
    ch.nack(2)
    assert [(message.body, delivery_count(message)) for message in get(ch, queue, 2)] == [(b"1", 1), (b"2", 0)]


@pytest.mark.parametrize("made_up", [7, "many"])
def test_a_count_from_a_client_does_not_matter(ch: Channel, names: Names, made_up: Any) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 5}, "quorum")
    fill(ch, queue, "0", headers={"x-delivery-count": made_up})
    got = hand_out(ch, queue, 3)
    assert [delivery_count(message) for message in got[1:]] == [1, 2]


@types
def test_a_dead_letter_begins_to_count_anew(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    """And has no header of the queue it died in."""
    queue = declare(ch, names, {"x-delivery-limit": 2, **letters.arguments}, type)
    fill(ch, queue, "0")
    ch.nack(hand_out(ch, queue, 3)[2].tag)
    assert "x-delivery-count" not in letters.take(1)[0].properties.headers


# The limit


@types
@pytest.mark.parametrize("limit", [0, 1, 2, 5])
def test_a_message_is_handed_out_once_more_often_than_the_limit(
        ch: Channel, names: Names, letters: Letters, type: str, limit: int) -> None:
    """Then it dies."""
    queue = declare(ch, names, {"x-delivery-limit": limit, **letters.arguments}, type)
    fill(ch, queue, "0")
    ch.nack(hand_out(ch, queue, limit + 1)[-1].tag)
    assert counts(letters.take(1)[0]) == [(queue, "delivery_limit", 1)]
    assert ch.get(queue) is None


@types
@pytest.mark.parametrize("come_back", COMING_BACK.values(), ids=COMING_BACK)
def test_it_does_not_matter_how_it_came_back(
        ch: Channel, names: Names, letters: Letters, broker: Broker, type: str,
        come_back: Callable[[Channel, int], None]) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 1, **letters.arguments}, type)
    fill(ch, queue, "0")
    for _ in range(2):
        taker = broker.channel()
        come_back(taker, get(taker, queue)[0].tag)
    assert counts(letters.take(1)[0]) == [(queue, "delivery_limit", 1)]


@types
def test_consumers_get_it_as_often(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 2, **letters.arguments}, type)
    ch.consume(queue)
    fill(ch, queue, "0")
    for count in range(3):
        delivery, = ch.deliveries(1)
        assert delivery_count(delivery) == count
        ch.nack(delivery.tag)
    assert shown(letters.take(1)) == ["0"]
    assert ch.delivered(queue) == []


@types
def test_without_a_dead_letter_exchange_it_is_dropped(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 1}, type)
    fill(ch, queue, "0", "1")
    for _ in range(2):
        ch.nack(get(ch, queue)[0].tag)
    assert drained(ch, queue) == ["1"]


@types
def test_a_rejection_for_good_is_no_matter_of_the_limit(
        ch: Channel, names: Names, letters: Letters, type: str) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 1, **letters.arguments}, type)
    fill(ch, queue, "0")
    ch.reject(hand_out(ch, queue, 2)[1].tag, requeue=False)
    assert counts(letters.take(1)[0]) == [(queue, "rejected", 1)]


@types
def test_several_may_reach_the_limit_at_once(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 0, **letters.arguments}, type)
    fill(ch, queue, "0", "1", "2")
    get(ch, queue, 3)
    ch.nack(0, multiple=True)
    assert sorted(shown(letters.take(3))) == ["0", "1", "2"]
    assert ch.get(queue) is None


@types
def test_with_a_limit_returned_messages_go_back_to_their_places(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 5}, type)
    fill(ch, queue, "0", "1", "2", "3")
    get(ch, queue, 2)
    ch.nack(1)
    ch.nack(2)
    assert shown(get(ch, queue, 4)) == ["0!", "1!", "2", "3"]


@pytest.mark.needs("quorum-appends-requeued")
def test_without_a_limit_a_quorum_queue_appends_returned_messages(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, type="quorum")
    fill(ch, queue, "0", "1", "2", "3")
    get(ch, queue, 2)
    ch.nack(1)
    ch.nack(2)
    assert shown(get(ch, queue, 4)) == ["2", "3", "0!", "1!"]


@pytest.mark.needs("delivery-limit-on-classic")
def test_a_limit_is_compared_on_every_queue(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-delivery-limit": 2})
    assert ch.declare_queue(queue, arguments={"x-delivery-limit": 2}) == (queue, 0, 0)


# A quorum queue as clients see it


@pytest.mark.parametrize("mode", [None, 1, 2])
def test_a_quorum_queue_takes_messages_of_any_delivery_mode(ch: Channel, names: Names, mode: int | None) -> None:
    """And delivers them with the mode they were published with."""
    queue = declare(ch, names, type="quorum")
    fill(ch, queue, "0", delivery_mode=mode)
    assert get(ch, queue)[0].properties.delivery_mode == mode


def test_a_quorum_queue_passes_over_the_exclusive_flag_of_consumers(
        ch: Channel, names: Names, broker: Broker) -> None:
    """The second one is let in, exclusive or not."""
    queue = declare(ch, names, type="quorum")
    channels = [broker.channel() for _ in range(3)]
    for channel, exclusive in zip(channels, (True, True, False)):
        channel.consume(queue, exclusive=exclusive)
    fill(ch, queue, "0", "1", "2")
    assert sorted(shown(channel.deliveries(1))[0] for channel in channels) == ["0", "1", "2"]


@pytest.mark.needs("quorum-without-global-prefetch")
def test_a_quorum_queue_knows_no_prefetch_count_of_channels(client: Client, ch: Channel, names: Names) -> None:
    queue = declare(ch, names, type="quorum")
    ch.qos(1, is_global=True)
    ch.send_consume(queue)
    client.expect_connection_close(
        540, f"NOT_IMPLEMENTED - queue '{queue}' in vhost '{client.url.vhost}' does not support global qos")


@pytest.mark.parametrize("bound", [True, False])
def test_a_quorum_queue_is_bound_and_unbound_like_any(
        ch: Channel, names: Names, exchange_name: str, bound: bool) -> None:
    ch.declare_exchange(exchange_name, "topic")
    queue = declare(ch, names, type="quorum")
    ch.bind_queue(queue, exchange_name, "a.#")
    if not bound:
        ch.unbind_queue(queue, exchange_name, "a.#")
    ch.confirm_select()
    ch.publish(exchange_name, "a.b", b"0")
    assert ch.confirms(1) == [(1, True)]
    assert drained(ch, queue) == (["0"] if bound else [])


def test_a_quorum_queue_is_purged_and_deleted_like_any(ch: Channel, names: Names, broker: Broker) -> None:
    queue = declare(ch, names, type="quorum")
    fill(ch, queue, "0", "1")
    assert ch.purge(queue) == 2
    fill(ch, queue, "2")
    assert drained(ch, queue) == ["2"]
    ch.delete_queue(queue)
    assert not broker.has_queue(queue)


def test_a_count_is_added_to_a_header_that_fills_its_frame(ch: Channel, names: Names) -> None:
    """Which is larger than a frame then: a content has but one header."""
    queue = declare(ch, names, type="quorum")
    fill(ch, queue, "0", headers={"a": "x" * 131_035})
    got = hand_out(ch, queue, 2)[1]
    assert (delivery_count(got), len(got.properties.headers["a"])) == (1, 131_035)
    assert len(got.header) > 131_072
