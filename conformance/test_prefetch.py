"""§17 basic.qos: prefetch per consumer and per channel; both differ from the specification.

`delivered` returns all that the broker sends while nothing is acked; `sync` would set the prefetch count to 0.
"""
from __future__ import annotations

from collections import Counter
from typing import Callable

import pytest

from conformance.channel import Channel, Delivery
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.methods import BASIC_QOS
from conformance.queues import declare, fill, ready


@pytest.fixture
def filled(ch: Channel, queue_name: str) -> str:
    """A queue with 20 messages."""
    ch.declare_queue(queue_name)
    for number in range(20):
        ch.publish("", queue_name, b"%d" % number)
    return queue_name


def numbers(deliveries: list[Delivery]) -> list[int]:
    """The bodies as numbers."""
    return [int(delivery.body) for delivery in deliveries]


# Per consumer


@pytest.mark.standard
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_consumer_gets_so_many_and_no_more(ch: Channel, filled: str, count: int) -> None:
    ch.qos(count)
    ch.consume(filled)
    assert numbers(ch.deliveries(count)) == list(range(count))
    assert ch.delivered(filled) == []


@pytest.mark.standard
@pytest.mark.parametrize("count", [0, 20, 65535])
def test_zero_is_no_limit_and_a_high_one_none_either(ch: Channel, filled: str, count: int) -> None:
    ch.qos(1)
    ch.qos(count)
    ch.consume(filled)
    assert numbers(ch.deliveries(20)) == list(range(20))


@pytest.mark.standard
def test_without_qos_there_is_no_limit(ch: Channel, filled: str) -> None:
    ch.consume(filled)
    assert numbers(ch.deliveries(20)) == list(range(20))


@pytest.mark.parametrize("settle", [
    Channel.ack, lambda ch, tag: ch.nack(tag, requeue=False), lambda ch, tag: ch.reject(tag, requeue=False)],
    ids=["ack", "nack", "reject"])
def test_every_answer_makes_room_for_one(ch: Channel, filled: str, settle: Callable[[Channel, int], None]) -> None:
    ch.qos(2)
    ch.consume(filled)
    for number in range(5):
        settle(ch, ch.deliveries(1)[0].tag)
    assert numbers(ch.deliveries(2)) == [5, 6]
    assert ch.delivered(filled) == []


def test_an_answer_to_several_makes_room_for_as_many(ch: Channel, filled: str) -> None:
    ch.qos(4)
    ch.consume(filled)
    ch.deliveries(4)
    ch.ack(3, multiple=True)
    assert numbers(ch.deliveries(3)) == [4, 5, 6]
    assert ch.delivered(filled) == []


def test_answers_may_come_in_any_order(ch: Channel, filled: str) -> None:
    ch.qos(3)
    ch.consume(filled)
    ch.deliveries(3)
    ch.ack(3)
    ch.ack(1)
    assert numbers(ch.deliveries(2)) == [3, 4]
    assert ch.delivered(filled) == []


def test_qos_is_for_consumers_started_afterwards(ch: Channel, filled: str) -> None:
    ch.qos(2)
    ch.consume(filled, "first")
    ch.qos(5)
    ch.consume(filled, "second")
    ch.qos(1)
    tags = [delivery.consumer_tag for delivery in ch.deliveries(7)]
    assert (tags.count("first"), tags.count("second")) == (2, 5)
    assert ch.delivered(filled) == []


def test_a_limit_that_is_lifted_holds_for_consumers_that_have_it(ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.consume(filled)
    ch.qos(0)
    assert numbers(ch.deliveries(1)) == [0]
    assert ch.delivered(filled) == []


@pytest.mark.needs("per_consumer_qos")
def test_each_consumer_has_the_limit_for_itself(ch: Channel, filled: str) -> None:
    ch.qos(2)
    for tag in "ABC":
        ch.consume(filled, tag)
    tags = [delivery.consumer_tag for delivery in ch.deliveries(6)]
    assert sorted(tags) == list("AABBCC")
    assert ch.delivered(filled) == []


def test_an_answer_makes_room_for_the_consumer_that_had_the_message(ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.consume(filled, "A")
    ch.consume(filled, "B")
    second = ch.deliveries(2)[1]
    ch.ack(second.tag)
    assert ch.deliveries(1)[0].consumer_tag == second.consumer_tag
    assert ch.delivered(filled) == []


@pytest.mark.standard
def test_qos_is_for_its_channel_alone(client: Client, ch: Channel, filled: str) -> None:
    ch.qos(1)
    other = client.channel()
    other.consume(filled)
    assert numbers(other.deliveries(20)) == list(range(20))


@pytest.mark.standard
def test_what_needs_no_ack_is_not_limited(ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.consume(filled, no_ack=True)
    assert numbers(ch.deliveries(20)) == list(range(20))


def test_a_cancelled_consumers_messages_do_not_count_for_the_next(ch: Channel, filled: str) -> None:
    ch.qos(2)
    ch.consume(filled, "first")
    ch.deliveries(2)
    ch.cancel("first")
    ch.consume(filled, "second")
    assert numbers(ch.deliveries(2)) == [2, 3]
    assert ch.delivered(filled) == []


def test_a_requeued_message_makes_room_and_comes_back(ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.consume(filled)
    ch.nack(ch.deliveries(1)[0].tag)
    assert numbers(ch.deliveries(1)) == [0]
    assert ch.delivered(filled) == []


def test_recover_makes_room_for_all(ch: Channel, filled: str) -> None:
    ch.qos(3)
    ch.consume(filled)
    ch.deliveries(3)
    ch.recover()
    assert numbers(ch.deliveries(3)) == [0, 1, 2]
    assert ch.delivered(filled) == []


# Per channel


@pytest.mark.needs("per_consumer_qos")
def test_one_global_limit_is_shared_by_all_consumers(ch: Channel, filled: str) -> None:
    ch.qos(3, is_global=True)
    ch.consume(filled, "A")
    ch.consume(filled, "B")
    assert numbers(ch.deliveries(3)) == [0, 1, 2]
    assert ch.delivered(filled) == []


@pytest.mark.needs("per_consumer_qos")
def test_an_ack_makes_room_within_a_global_limit(ch: Channel, filled: str) -> None:
    ch.qos(2, is_global=True)
    ch.consume(filled)
    for number in range(5):
        ch.ack(ch.deliveries(1)[0].tag)
    assert numbers(ch.deliveries(2)) == [5, 6]
    assert ch.delivered(filled) == []


@pytest.mark.needs("per_consumer_qos")
def test_a_global_limit_counts_what_consumers_that_were_unlimited_have(ch: Channel, filled: str) -> None:
    """Started unlimited they hold 20; a limit of 1 lets nothing through until all but none of them are acked."""
    ch.consume(filled, "unlimited")
    ch.deliveries(20)
    ch.qos(1, is_global=True)
    for _ in range(3):
        ch.publish("", filled, b"more")
    assert ch.delivered(filled) == []


@pytest.mark.needs("per_consumer_qos")
def test_a_global_limit_holds_for_existing_consumers_at_once(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.consume(queue_name)
    ch.qos(1, is_global=True)
    for number in range(10):
        ch.publish("", queue_name, b"%d" % number)
    assert numbers(ch.deliveries(1)) == [0]
    assert ch.delivered(queue_name) == []


@pytest.mark.needs("per_consumer_qos")
def test_a_raised_global_limit_lets_more_through_at_once(ch: Channel, filled: str) -> None:
    ch.qos(1, is_global=True)
    ch.consume(filled)
    assert numbers(ch.deliveries(1)) == [0]
    ch.qos(3, is_global=True)
    assert numbers(ch.deliveries(2)) == [1, 2]
    assert ch.delivered(filled) == []


@pytest.mark.needs("per_consumer_qos")
def test_a_global_limit_lifted_lets_all_through(ch: Channel, filled: str) -> None:
    ch.qos(1, is_global=True)
    ch.consume(filled)
    ch.deliveries(1)
    ch.qos(0, is_global=True)
    assert numbers(ch.deliveries(19)) == list(range(1, 20))


@pytest.mark.needs("per_consumer_qos")
def test_a_lowered_global_limit_takes_nothing_back(ch: Channel, filled: str) -> None:
    ch.qos(5, is_global=True)
    ch.consume(filled)
    ch.deliveries(5)
    ch.qos(2, is_global=True)
    ch.ack(3, multiple=True)
    assert ch.delivered(filled) == []
    ch.ack(4)
    assert numbers(ch.deliveries(1)) == [5]


@pytest.mark.needs("per_consumer_qos")
@pytest.mark.parametrize("each, together, expected", [(2, 3, 3), (3, 2, 2), (1, 9, 2), (0, 4, 4), (2, 0, 4)])
def test_both_limits_must_allow_a_delivery(ch: Channel, filled: str, each: int, together: int, expected: int) -> None:
    ch.qos(each)
    ch.qos(together, is_global=True)
    ch.consume(filled, "A")
    ch.consume(filled, "B")
    assert numbers(ch.deliveries(expected)) == list(range(expected))
    assert ch.delivered(filled) == []


@pytest.mark.needs("per_consumer_qos")
def test_what_needs_no_ack_does_not_count_for_a_global_limit(ch: Channel, filled: str) -> None:
    ch.qos(1, is_global=True)
    ch.consume(filled, no_ack=True)
    assert numbers(ch.deliveries(20)) == list(range(20))


@pytest.mark.needs("per_consumer_qos")
def test_what_needs_no_ack_waits_while_a_global_limit_is_used_up(
        ch: Channel, broker: Broker, filled: str, names: Names) -> None:
    """Whether it was there before, or comes then."""
    quick = declare(ch, names)
    ch.qos(2, is_global=True)
    ch.consume(filled)
    ch.deliveries(2)
    ch.consume(quick, "quick", no_ack=True)
    fill(ch, quick, "0", "1", "2")
    assert ch.delivered(quick) == []
    assert ready(ch, quick) == 3
    assert broker.channel().get(quick, no_ack=True).body == b"0"
    ch.qos(0, is_global=True)
    assert sorted(d.body for d in ch.deliveries(20) if d.consumer_tag == "quick") == [b"1", b"2"]


@pytest.mark.needs("per_consumer_qos")
def test_what_needs_no_ack_goes_on_once_there_is_room(ch: Channel, names: Names) -> None:
    slow, quick = declare(ch, names), declare(ch, names)
    fill(ch, slow, "slow")
    ch.qos(1, is_global=True)
    ch.consume(slow)
    tag = ch.deliveries(1)[0].tag
    ch.consume(quick, no_ack=True)
    fill(ch, quick, *"01234")
    assert ch.delivered(quick) == []
    ch.ack(tag)
    assert [delivery.body for delivery in ch.deliveries(5)] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.needs("per_consumer_qos")
@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize("consumers", [1, 2])
def test_all_queues_have_their_share_of_a_global_limit(
        ch: Channel, names: Names, count: int, consumers: int) -> None:
    """None of three full queues starves while 90 deliveries are acked one by one. RabbitMQ's vary: 46, 33, 11."""
    queues = [declare(ch, names) for _ in range(3)]
    for queue in queues:
        fill(ch, queue, *["0"] * 100)
    ch.qos(count, is_global=True)
    for number, queue in enumerate(queues * consumers):
        ch.consume(queue, f"{number % 3} {number}")
    taken: Counter[str] = Counter()
    for _ in range(90):
        delivery, = ch.deliveries(1)
        taken[delivery.consumer_tag[0]] += 1
        ch.ack(delivery.tag)
    assert len(taken) == 3 and min(taken.values()) >= 5, taken


@pytest.mark.needs("per_consumer_qos")
def test_what_was_got_does_not_count_for_a_global_limit(ch: Channel, filled: str) -> None:
    ch.qos(1, is_global=True)
    ch.get(filled)
    ch.get(filled)
    ch.consume(filled)
    assert numbers(ch.deliveries(1)) == [2]


@pytest.mark.needs("per_consumer_qos")
def test_a_global_limit_is_for_its_channel_alone(client: Client, ch: Channel, filled: str) -> None:
    ch.qos(1, is_global=True)
    ch.consume(filled)
    ch.deliveries(1)
    other = client.channel()
    other.consume(filled)
    assert numbers(other.deliveries(19)) == list(range(1, 20))


def test_other_channels_take_what_a_full_channel_leaves(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.qos(1, is_global=True)
    ch.consume(queue_name)
    other = broker.channel()
    other.consume(queue_name)
    for number in range(6):
        ch.publish("", queue_name, b"%d" % number)
    mine, others = ch.deliveries(1), other.deliveries(5)
    assert sorted(numbers(mine + others)) == [0, 1, 2, 3, 4, 5]


# What is refused


@pytest.mark.parametrize("is_global", [False, True])
def test_a_prefetch_size_is_not_implemented(client: Client, ch: Channel, is_global: bool) -> None:
    ch.send_qos(0, size=100, is_global=is_global)
    client.expect_connection_close(540, "NOT_IMPLEMENTED - prefetch_size!=0 (100)", *BASIC_QOS)


@pytest.mark.parametrize("is_global", [False, True])
@pytest.mark.parametrize("count", [0, 1, 65535])
def test_any_count_is_fine(ch: Channel, count: int, is_global: bool) -> None:
    ch.qos(count, is_global=is_global)
