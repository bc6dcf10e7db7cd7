"""§18 ack, nack and reject: which deliveries a tag covers, and which tags are unknown.

Requeueing is in `test_requeue`.
"""
from __future__ import annotations

from typing import Callable

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker
from conformance.methods import BASIC_ACK, BASIC_NACK, BASIC_REJECT

Settle = Callable[[Channel, int], None]
SINGLE: dict[str, tuple[Settle, tuple[int, int]]] = {
    "ack": (lambda ch, tag: ch.ack(tag), BASIC_ACK),
    "nack": (lambda ch, tag: ch.nack(tag, requeue=False), BASIC_NACK),
    "nack and requeue": (lambda ch, tag: ch.nack(tag), BASIC_NACK),
    "reject": (lambda ch, tag: ch.reject(tag, requeue=False), BASIC_REJECT),
    "reject and requeue": (lambda ch, tag: ch.reject(tag), BASIC_REJECT),
}
MULTIPLE: dict[str, tuple[Settle, tuple[int, int]]] = {
    "ack": (lambda ch, tag: ch.ack(tag, multiple=True), BASIC_ACK),
    "nack": (lambda ch, tag: ch.nack(tag, multiple=True, requeue=False), BASIC_NACK),
    "nack and requeue": (lambda ch, tag: ch.nack(tag, multiple=True), BASIC_NACK),
}
single = pytest.mark.parametrize("settle, ids", SINGLE.values(), ids=SINGLE)
multiple = pytest.mark.parametrize("settle, ids", MULTIPLE.values(), ids=MULTIPLE)
for_good = pytest.mark.parametrize("settle", [
    Channel.ack, lambda ch, tag: ch.nack(tag, requeue=False), lambda ch, tag: ch.reject(tag, requeue=False)],
    ids=["ack", "nack", "reject"])


def unknown(tag: int) -> str:
    """What is said of a tag that is not outstanding."""
    return f"PRECONDITION_FAILED - unknown delivery tag {tag}"


@pytest.fixture
def filled(ch: Channel, queue_name: str) -> str:
    """A queue with five messages, all of which this channel has got, under the tags 1 to 5."""
    ch.declare_queue(queue_name)
    for number in range(1, 6):
        ch.publish("", queue_name, b"%d" % number)
        ch.get(queue_name)
    return queue_name


def left(ch: Channel, broker: Broker, queue: str) -> list[int]:
    """Which of the messages come back when the channel closes."""
    ch.close()
    other = broker.channel()
    _, count, _ = other.declare_queue(queue, passive=True)
    return [int(other.get(queue).body) for _ in range(count)]


# What a tag names


@for_good
def test_a_tag_names_one_delivery(ch: Channel, broker: Broker, filled: str, settle: Settle) -> None:
    settle(ch, 3)
    assert left(ch, broker, filled) == [1, 2, 4, 5]


@for_good
def test_tags_may_be_answered_in_any_order(ch: Channel, broker: Broker, filled: str, settle: Settle) -> None:
    for tag in (4, 1, 5, 2):
        settle(ch, tag)
    assert left(ch, broker, filled) == [3]


@pytest.mark.parametrize("settle", [
    lambda ch, tag: ch.ack(tag, multiple=True), lambda ch, tag: ch.nack(tag, multiple=True, requeue=False)],
    ids=["ack", "nack"])
@pytest.mark.parametrize("tag, expected", [(1, [2, 3, 4, 5]), (3, [4, 5]), (5, []), (0, [])])
def test_multiple_names_all_up_to_the_tag_and_0_all_there_are(
        ch: Channel, broker: Broker, filled: str, settle: Settle, tag: int, expected: list[int]) -> None:
    settle(ch, tag)
    assert left(ch, broker, filled) == expected


def test_multiple_passes_over_what_is_answered_already(ch: Channel, broker: Broker, filled: str) -> None:
    ch.ack(1)
    ch.ack(3)
    ch.ack(4, multiple=True)
    assert left(ch, broker, filled) == [5]


def test_multiple_covers_gets_and_deliveries(ch: Channel, broker: Broker, filled: str) -> None:
    ch.consume(filled)
    for number in (6, 7):
        ch.publish("", filled, b"%d" % number)
    ch.deliveries(2)
    ch.ack(6, multiple=True)
    assert left(ch, broker, filled) == [7]


def test_multiple_covers_several_queues(ch: Channel, broker: Broker, filled: str) -> None:
    second, _, _ = ch.declare_queue(exclusive=True)
    ch.publish("", second)
    ch.get(second)
    ch.ack(0, multiple=True)
    assert left(ch, broker, filled) == []


def test_deliveries_that_need_no_ack_leave_gaps_in_the_tags(ch: Channel, broker: Broker, filled: str) -> None:
    ch.publish("", filled, b"6")
    assert ch.get(filled, no_ack=True).tag == 6
    ch.publish("", filled, b"7")
    assert ch.get(filled).tag == 7
    ch.ack(7, multiple=True)
    assert left(ch, broker, filled) == []


@single
def test_an_answer_is_not_answered(ch: Channel, filled: str, settle: Settle, ids: tuple[int, int]) -> None:
    settle(ch, 1)
    assert ch.sync() == []


# Unknown tags


@pytest.mark.standard
@single
@pytest.mark.parametrize("tag", [6, 42, 0, 2 ** 63 - 1])
def test_a_tag_never_given_is_unknown(
        ch: Channel, filled: str, settle: Settle, ids: tuple[int, int], tag: int) -> None:
    settle(ch, tag)
    ch.fails(406, unknown(tag), *ids)


@single
def test_a_tag_is_unknown_where_nothing_was_delivered(ch: Channel, settle: Settle, ids: tuple[int, int]) -> None:
    settle(ch, 1)
    ch.fails(406, unknown(1), *ids)


@single
def test_a_tag_answered_is_unknown(ch: Channel, filled: str, settle: Settle, ids: tuple[int, int]) -> None:
    ch.ack(2)
    settle(ch, 2)
    ch.fails(406, unknown(2), *ids)


@single
def test_a_tag_covered_by_multiple_is_unknown(ch: Channel, filled: str, settle: Settle, ids: tuple[int, int]) -> None:
    ch.ack(2, multiple=True)
    settle(ch, 1)
    ch.fails(406, unknown(1), *ids)


@multiple
def test_multiple_up_to_a_tag_never_given_is_unknown(
        ch: Channel, filled: str, settle: Settle, ids: tuple[int, int]) -> None:
    settle(ch, 99)
    ch.fails(406, unknown(99), *ids)


@multiple
def test_multiple_up_to_a_tag_answered_is_unknown_where_nothing_older_is_left(
        ch: Channel, filled: str, settle: Settle, ids: tuple[int, int]) -> None:
    ch.ack(2, multiple=True)
    settle(ch, 2)
    ch.fails(406, unknown(2), *ids)


@multiple
def test_multiple_up_to_a_tag_answered_is_unknown_though_older_ones_are_left(
        ch: Channel, filled: str, settle: Settle, ids: tuple[int, int]) -> None:
    ch.ack(3)
    settle(ch, 3)
    ch.fails(406, unknown(3), *ids)


@multiple
def test_multiple_is_unknown_where_nothing_was_delivered(ch: Channel, settle: Settle, ids: tuple[int, int]) -> None:
    settle(ch, 1)
    ch.fails(406, unknown(1), *ids)


@multiple
@pytest.mark.parametrize("delivered", [False, True])
def test_multiple_of_all_is_fine_where_nothing_is_left(
        ch: Channel, queue_name: str, settle: Settle, ids: tuple[int, int], delivered: bool) -> None:
    ch.declare_queue(queue_name)
    if delivered:
        ch.publish("", queue_name)
        ch.ack(ch.get(queue_name).tag)
    settle(ch, 0)
    assert ch.sync() == []


@single
def test_a_delivery_that_needed_no_ack_has_an_unknown_tag(
        ch: Channel, queue_name: str, settle: Settle, ids: tuple[int, int]) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    assert ch.get(queue_name, no_ack=True).tag == 1
    settle(ch, 1)
    ch.fails(406, unknown(1), *ids)


def test_a_tag_of_another_channel_is_unknown(client: Client, ch: Channel, filled: str) -> None:
    other = client.channel()
    other.ack(1)
    other.fails(406, unknown(1), *BASIC_ACK)


def test_an_unknown_tag_leaves_the_others_unanswered(ch: Channel, broker: Broker, filled: str) -> None:
    ch.ack(1)
    ch.ack(42)
    ch.fails(406, unknown(42), *BASIC_ACK)
    other = broker.channel()
    _, count, _ = other.declare_queue(filled, passive=True)
    assert [int(other.get(filled).body) for _ in range(count)] == [2, 3, 4, 5]


# What is settled


@pytest.mark.standard
def test_an_acked_message_is_gone(ch: Channel, broker: Broker, filled: str) -> None:
    ch.ack(5, multiple=True)
    ch.close()
    assert broker.channel().delete_queue(filled) == 0


def test_a_rejected_message_is_dropped_where_there_is_no_dead_letter_exchange(
        ch: Channel, broker: Broker, filled: str) -> None:
    ch.reject(1, requeue=False)
    ch.nack(5, multiple=True, requeue=False)
    ch.close()
    assert broker.channel().delete_queue(filled) == 0


def test_an_ack_of_a_delivery_makes_no_room_for_a_second_one(ch: Channel, queue_name: str) -> None:
    """A message is delivered to one consumer once, unless it is requeued."""
    ch.declare_queue(queue_name)
    ch.consume(queue_name, "A")
    ch.consume(queue_name, "B")
    ch.publish("", queue_name)
    ch.ack(ch.deliveries(1)[0].tag)
    assert ch.delivered(queue_name) == []
