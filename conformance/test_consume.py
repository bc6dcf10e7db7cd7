"""§17 Consumers: consume, exclusive consumers, distribution of messages, priorities, cancel.

Prefetch is in `test_prefetch`; the cancel of consumers of a deleted queue is in `test_queue_delete_purge`.
"""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel, Delivery
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.fields import Array, Double, Long, SignedInt, Table, Timestamp, UnsignedByte
from conformance.methods import BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_DELIVER
from conformance.texts import Texts
from conformance.waiting import wait_until


@pytest.fixture
def queue(ch: Channel, queue_name: str) -> str:
    """An empty queue."""
    ch.declare_queue(queue_name)
    return queue_name


@pytest.fixture
def filled(ch: Channel, queue: str) -> str:
    """A queue with three messages."""
    publish_numbers(ch, queue, 3)
    return queue


def publish_numbers(ch: Channel, queue: str, count: int, first: int = 0) -> None:
    """Publish bodies that are numbers in a row."""
    for number in range(first, first + count):
        ch.publish("", queue, b"%d" % number)


def numbers(deliveries: list[Delivery]) -> list[int]:
    """The bodies as numbers."""
    return [int(delivery.body) for delivery in deliveries]


# consume


@pytest.mark.standard
def test_consume_ok_repeats_the_tag(ch: Channel, queue: str) -> None:
    assert ch.consume(queue, "my tag") == "my tag"


@pytest.mark.parametrize("tag", ["amq.ctag-mine", "ü" * 127, " "])
def test_a_tag_may_be(ch: Channel, filled: str, tag: str) -> None:
    ch.consume(filled, tag)
    assert ch.deliveries(1)[0].consumer_tag == tag


@pytest.mark.standard
def test_consume_ok_comes_before_the_first_delivery(client: Client, ch: Channel, filled: str) -> None:
    ch.send_consume(filled, "tag")
    client.expect(1, *BASIC_CONSUME_OK)
    for _ in range(3):
        client.expect(1, *BASIC_DELIVER)


@pytest.mark.standard
def test_consuming_without_waiting_is_not_answered_but_delivers(client: Client, ch: Channel, filled: str) -> None:
    ch.consume(filled, "tag", nowait=True)
    for _ in range(3):
        client.expect(1, *BASIC_DELIVER)
    assert ch.sync() == []


def test_a_consumer_without_a_tag_may_not_wait_either(ch: Channel, filled: str) -> None:
    ch.consume(filled, "", nowait=True)
    assert ch.deliveries(1)[0].consumer_tag.startswith("amq.ctag-")


@pytest.mark.standard
def test_a_delivery_says_whose_it_is_and_where_it_was_published(ch: Channel, queue: str) -> None:
    ch.bind_queue(queue, "amq.direct", queue)
    ch.publish("amq.direct", queue, b"body")
    ch.consume(queue, "tag")
    delivery, = ch.deliveries(1)
    assert (delivery.consumer_tag, delivery.tag, delivery.redelivered) == ("tag", 1, False)
    assert (delivery.exchange, delivery.routing_key, delivery.body) == ("amq.direct", queue, b"body")


@pytest.mark.standard
@pytest.mark.parametrize("no_ack", [False, True])
def test_deliveries_come_in_order_and_their_tags_rise_from_1(ch: Channel, queue: str, no_ack: bool) -> None:
    publish_numbers(ch, queue, 100)
    ch.consume(queue, no_ack=no_ack)
    publish_numbers(ch, queue, 100, first=100)
    deliveries = ch.deliveries(200)
    assert numbers(deliveries) == list(range(200))
    assert [delivery.tag for delivery in deliveries] == list(range(1, 201))


@pytest.mark.standard
def test_consumers_of_a_channel_share_its_tags(ch: Channel, queue: str) -> None:
    ch.consume(queue, "a")
    ch.consume(queue, "b", no_ack=True)
    publish_numbers(ch, queue, 4)
    deliveries = ch.deliveries(4)
    assert [delivery.tag for delivery in deliveries] == [1, 2, 3, 4]
    assert {delivery.consumer_tag for delivery in deliveries} == {"a", "b"}


@pytest.mark.standard
def test_what_needs_no_ack_is_gone_once_it_is_sent(ch: Channel, broker: Broker, filled: str) -> None:
    consumer = broker.channel()
    consumer.consume(filled, no_ack=True)
    consumer.deliveries(3)
    consumer.close()
    assert ch.declare_queue(filled) == (filled, 0, 0)


@pytest.mark.standard
def test_what_is_unacked_is_with_nobody_else(ch: Channel, broker: Broker, filled: str) -> None:
    ch.consume(filled)
    ch.deliveries(3)
    assert broker.channel().get(filled) is None


def test_a_connections_own_messages_are_delivered_though_it_wants_none(ch: Channel, filled: str) -> None:
    """RabbitMQ ignores no-local."""
    ch.consume(filled, no_local=True)
    assert numbers(ch.deliveries(3)) == [0, 1, 2]


@pytest.mark.standard
def test_a_consumer_gets_the_messages_of_its_queue_alone(ch: Channel, names: Names) -> None:
    queues = {f"tag {number}": names.queue() for number in range(3)}
    for tag, queue in queues.items():
        ch.declare_queue(queue)
        ch.consume(queue, tag)
    for queue in queues.values():
        ch.publish("", queue)
    assert {delivery.consumer_tag: delivery.routing_key for delivery in ch.deliveries(3)} == queues


@pytest.mark.parametrize("arguments", [
    {"x-whatever": 1}, {"x-cancel-on-ha-failover": True}, {"": [1, {"a": None}]}], ids=str)
def test_other_arguments_do_not_matter(ch: Channel, filled: str, arguments: dict[str, Any]) -> None:
    ch.consume(filled, arguments=arguments)
    assert numbers(ch.deliveries(3)) == [0, 1, 2]


# Consumer tags


@pytest.mark.standard
@pytest.mark.parametrize("nowait", [False, True])
def test_a_tag_in_use_on_the_channel_closes_the_connection(
        client: Client, ch: Channel, queue: str, nowait: bool) -> None:
    ch.consume(queue, "tag")
    ch.send_consume(queue, "tag", nowait=nowait)
    client.expect_connection_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'", *BASIC_CONSUME)


@pytest.mark.standard
def test_a_tag_of_another_channel_is_free(client: Client, ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.consume(filled, "tag")
    other = client.channel()
    other.consume(filled, "tag")
    assert numbers(ch.deliveries(1)) == [0]
    assert numbers(other.deliveries(2)) == [1, 2]


@pytest.mark.standard
def test_a_tag_is_free_once_it_is_cancelled(ch: Channel, filled: str) -> None:
    ch.consume(filled, "tag", no_ack=True)
    ch.deliveries(3)
    ch.cancel("tag")
    ch.consume(filled, "tag")
    publish_numbers(ch, filled, 1, first=7)
    assert numbers(ch.deliveries(1)) == [7]


# What is refused, in the order of the checks


@pytest.mark.standard
@pytest.mark.parametrize("nowait", [False, True])
def test_a_queue_that_is_not_there_is_not_found(ch: Channel, texts: Texts, nowait: bool) -> None:
    ch.send_consume("nonesuch", "tag", nowait=nowait, arguments={"x-priority": "high"})
    ch.fails(404, texts.no_queue("nonesuch"), *BASIC_CONSUME)


def test_a_tag_in_use_comes_before_a_queue_that_is_not_there(client: Client, ch: Channel, queue: str) -> None:
    ch.consume(queue, "tag")
    ch.send_consume("nonesuch", "tag")
    client.expect_connection_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'", *BASIC_CONSUME)


def test_another_connections_queue_comes_before_bad_arguments(
        ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    other = broker.channel()
    other.send_consume(queue_name, arguments={"x-priority": "high"})
    other.fails(405, texts.locked(queue_name), *BASIC_CONSUME)


@pytest.mark.needs("consumer_priorities")
@pytest.mark.parametrize("type, value", [
    ("longstr", "1"), ("bool", True), ("double", Double(1.0)), ("void", None), ("timestamp", Timestamp(1)),
    ("array", Array([1])), ("table", Table({}))])
def test_a_priority_may_not_be(ch: Channel, texts: Texts, queue: str, type: str, value: Any) -> None:
    ch.send_consume(queue, arguments={"x-priority": value})
    text = texts.invalid_argument("x-priority", queue, f'"expected integer, got {type}"')
    ch.fails(406, text, *BASIC_CONSUME)


def test_bad_arguments_come_before_an_exclusive_consumer(
        ch: Channel, broker: Broker, texts: Texts, queue: str) -> None:
    broker.channel().consume(queue, exclusive=True)
    ch.send_consume(queue, arguments={"x-priority": "high"})
    ch.fails(406, texts.invalid_argument("x-priority", queue, '"expected integer, got longstr"'), *BASIC_CONSUME)


def test_a_stream_offset_is_refused_on_other_queues(ch: Channel, texts: Texts, queue: str) -> None:
    ch.send_consume(queue, arguments={"x-stream-offset": "first"})
    ch.fails(406, texts.foreign_argument("x-stream-offset", queue, "classic"), *BASIC_CONSUME)


# Exclusive consumers


@pytest.mark.standard
@pytest.mark.parametrize("first, second", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("same_channel", [False, True])
def test_an_exclusive_consumer_is_alone(
        ch: Channel, broker: Broker, texts: Texts, queue: str, first: bool, second: bool, same_channel: bool) -> None:
    ch.consume(queue, exclusive=first)
    other = ch if same_channel else broker.channel()
    other.send_consume(queue, exclusive=second)
    other.fails(403, texts.in_exclusive_use(queue), *BASIC_CONSUME)


def test_without_waiting_a_second_consumer_is_refused_too(
        ch: Channel, broker: Broker, texts: Texts, queue: str) -> None:
    ch.consume(queue, exclusive=True)
    other = broker.channel()
    other.send_consume(queue, "tag", nowait=True)
    other.fails(403, texts.in_exclusive_use(queue), *BASIC_CONSUME)


@pytest.mark.standard
def test_a_refused_consumer_gets_nothing(ch: Channel, broker: Broker, texts: Texts, queue: str) -> None:
    ch.consume(queue, exclusive=True)
    other = broker.channel()
    other.send_consume(queue)
    other.fails(403, texts.in_exclusive_use(queue), *BASIC_CONSUME)
    publish_numbers(ch, queue, 4)
    assert numbers(ch.deliveries(4)) == [0, 1, 2, 3]
    assert ch.declare_queue(queue, passive=True) == (queue, 0, 1)


@pytest.mark.standard
def test_an_exclusive_consumer_lets_others_in_once_it_is_cancelled(ch: Channel, broker: Broker, queue: str) -> None:
    ch.consume(queue, "tag", exclusive=True)
    ch.cancel("tag")
    broker.channel().consume(queue)


@pytest.mark.standard
def test_an_exclusive_consumer_lets_others_in_once_its_channel_is_closed(
        client: Client, ch: Channel, broker: Broker, queue: str) -> None:
    consumer = client.channel()
    consumer.consume(queue, exclusive=True)
    consumer.close()
    broker.channel().consume(queue, exclusive=True)


@pytest.mark.standard
def test_an_exclusive_consumer_lets_others_in_once_its_connection_is_closed(
        ch: Channel, broker: Broker, queue: str) -> None:
    consumer = broker.client()
    consumer.channel().consume(queue, exclusive=True)
    consumer.close()
    ch.consume(queue)


def test_an_exclusive_consumer_lets_others_in_once_its_tcp_drops(ch: Channel, broker: Broker, queue: str) -> None:
    consumer = broker.client()
    consumer.channel().consume(queue, exclusive=True)
    consumer.drop()
    wait_until(lambda: ch.declare_queue(queue, passive=True) == (queue, 0, 0))
    ch.consume(queue)


@pytest.mark.standard
def test_a_consumer_may_be_exclusive_once_all_others_have_gone(ch: Channel, broker: Broker, queue: str) -> None:
    ch.consume(queue, "tag")
    ch.cancel("tag")
    broker.channel().consume(queue, exclusive=True)


# Who gets which message


def test_messages_go_to_consumers_in_turn(ch: Channel, queue: str) -> None:
    for tag in "ABC":
        ch.consume(queue, tag)
    publish_numbers(ch, queue, 9)
    assert "".join(delivery.consumer_tag for delivery in ch.deliveries(9)) == "ABCABCABC"


def test_messages_go_to_consumers_of_several_connections_in_turn(ch: Channel, broker: Broker, queue: str) -> None:
    consumers = [broker.channel() for _ in range(3)]
    for consumer in consumers:
        consumer.consume(queue)
    publish_numbers(ch, queue, 9)
    assert [numbers(consumer.deliveries(3)) for consumer in consumers] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_a_new_consumer_goes_to_the_end(ch: Channel, queue: str) -> None:
    ch.consume(queue, "A")
    ch.consume(queue, "B")
    publish_numbers(ch, queue, 1)
    assert ch.deliveries(1)[0].consumer_tag == "A"
    ch.consume(queue, "C")
    publish_numbers(ch, queue, 6)
    assert "".join(delivery.consumer_tag for delivery in ch.deliveries(6)) == "BACBAC"


def test_a_full_consumer_is_passed_over_until_it_acks(ch: Channel, broker: Broker, queue: str) -> None:
    slow, fast = broker.channel(), broker.channel()
    slow.qos(1)
    slow.consume(queue)
    fast.consume(queue)
    publish_numbers(ch, queue, 5)
    assert numbers(slow.deliveries(1)) == [0]
    assert numbers(fast.deliveries(4)) == [1, 2, 3, 4]
    slow.ack(1)
    slow.delivered(queue)
    publish_numbers(ch, queue, 2, first=5)
    assert len(slow.deliveries(1)) == len(fast.deliveries(1)) == 1


def test_a_waiting_message_goes_to_the_next_consumer(ch: Channel, broker: Broker, filled: str) -> None:
    consumer = broker.channel()
    consumer.consume(filled)
    assert numbers(consumer.deliveries(3)) == [0, 1, 2]


@pytest.mark.standard
def test_every_message_goes_to_one_consumer(ch: Channel, broker: Broker, queue: str) -> None:
    consumers = [broker.channel() for _ in range(4)]
    for consumer in consumers:
        consumer.qos(5)
        consumer.consume(queue)
    publish_numbers(ch, queue, 20)
    assert sorted(number for consumer in consumers for number in numbers(consumer.deliveries(5))) == list(range(20))
    assert ch.declare_queue(queue) == (queue, 0, 4)


# Consumer priorities


@pytest.mark.needs("consumer_priorities")
def test_the_highest_priority_gets_all_while_it_can_take_more(ch: Channel, queue: str) -> None:
    for tag, arguments in {"low": {"x-priority": -1}, "none": {}, "high": {"x-priority": 1}}.items():
        ch.consume(queue, tag, arguments=arguments)
    publish_numbers(ch, queue, 6)
    assert {delivery.consumer_tag for delivery in ch.deliveries(6)} == {"high"}


@pytest.mark.needs("consumer_priorities")
def test_lower_priorities_are_served_while_higher_ones_are_full(ch: Channel, queue: str) -> None:
    ch.qos(1)
    for tag, priority in {"low": -5, "middle": 0, "high": 5}.items():
        ch.consume(queue, tag, arguments={"x-priority": priority})
    publish_numbers(ch, queue, 4)
    assert [delivery.consumer_tag for delivery in ch.deliveries(3)] == ["high", "middle", "low"]
    assert ch.delivered(queue) == []
    ch.ack(1)
    assert ch.deliveries(1)[0].consumer_tag == "high"


@pytest.mark.needs("consumer_priorities")
def test_equal_priorities_take_turns(ch: Channel, queue: str) -> None:
    for tag, priority in {"A": 3, "x": 0, "B": 3}.items():
        ch.consume(queue, tag, arguments={"x-priority": priority})
    publish_numbers(ch, queue, 4)
    assert "".join(delivery.consumer_tag for delivery in ch.deliveries(4)) == "ABAB"


@pytest.mark.needs("consumer_priorities")
def test_no_priority_is_priority_0(ch: Channel, queue: str) -> None:
    ch.consume(queue, "A")
    ch.consume(queue, "B", arguments={"x-priority": 0})
    publish_numbers(ch, queue, 4)
    assert "".join(delivery.consumer_tag for delivery in ch.deliveries(4)) == "ABAB"


@pytest.mark.needs("consumer_priorities")
def test_the_next_priority_takes_over_when_the_highest_is_cancelled(ch: Channel, queue: str) -> None:
    ch.consume(queue, "low")
    ch.consume(queue, "high", arguments={"x-priority": 1})
    ch.cancel("high")
    publish_numbers(ch, queue, 2)
    assert {delivery.consumer_tag for delivery in ch.deliveries(2)} == {"low"}


@pytest.mark.needs("consumer_priorities")
@pytest.mark.parametrize("priority", [
    UnsignedByte(200), SignedInt(-2 ** 31), Long(2 ** 62), Long(-2 ** 62)], ids=str)
def test_a_priority_may_be_any_integer(ch: Channel, filled: str, priority: Any) -> None:
    ch.consume(filled, arguments={"x-priority": priority})
    assert numbers(ch.deliveries(3)) == [0, 1, 2]


# cancel


@pytest.mark.standard
def test_nothing_is_delivered_after_cancel_ok(ch: Channel, broker: Broker, queue: str) -> None:
    ch.consume(queue, "tag")
    ch.cancel("tag")
    publish_numbers(ch, queue, 3)
    assert ch.delivered(queue) == []
    assert ch.declare_queue(queue) == (queue, 3, 0)


def test_deliveries_under_way_come_before_cancel_ok(ch: Channel, queue: str) -> None:
    """What was sent and what is left in the queue make the whole."""
    publish_numbers(ch, queue, 200)
    ch.send_consume(queue, "tag", nowait=True)
    ch.cancel("tag")
    _, left, _ = ch.declare_queue(queue)
    assert len(ch.delivered(queue)) + left == 200


@pytest.mark.parametrize("tag", ["nonesuch", ""])
def test_cancelling_an_unknown_tag_is_fine(ch: Channel, tag: str) -> None:
    ch.cancel(tag)


def test_a_consumer_of_another_channel_is_unknown(client: Client, ch: Channel, filled: str) -> None:
    ch.consume(filled, "tag")
    client.channel().cancel("tag")
    assert numbers(ch.deliveries(3)) == [0, 1, 2]
    assert ch.declare_queue(filled) == (filled, 0, 1)


@pytest.mark.standard
@pytest.mark.parametrize("tag", ["tag", "nonesuch"])
def test_cancelling_without_waiting_is_not_answered(ch: Channel, queue: str, tag: str) -> None:
    ch.consume(queue, "tag")
    ch.cancel(tag, nowait=True)
    assert ch.sync() == []
    assert ch.declare_queue(queue) == (queue, 0, int(tag != "tag"))


@pytest.mark.standard
def test_what_is_unacked_stays_with_the_channel_after_a_cancel(ch: Channel, broker: Broker, filled: str) -> None:
    ch.consume(filled, "tag")
    ch.deliveries(3)
    ch.cancel("tag")
    assert broker.channel().get(filled) is None
    ch.ack(2, multiple=True)
    ch.close()
    assert broker.channel().get(filled).body == b"2"


@pytest.mark.standard
def test_other_consumers_go_on_after_a_cancel(ch: Channel, queue: str) -> None:
    ch.consume(queue, "A")
    ch.consume(queue, "B")
    ch.cancel("A")
    publish_numbers(ch, queue, 2)
    assert [delivery.consumer_tag for delivery in ch.deliveries(2)] == ["B", "B"]


@pytest.mark.standard
def test_a_cancelled_consumer_is_not_counted(ch: Channel, queue: str) -> None:
    ch.consume(queue, "tag")
    ch.cancel("tag")
    assert ch.declare_queue(queue) == (queue, 0, 0)


# The connection's end


@pytest.mark.standard
def test_consumers_go_when_tcp_drops(ch: Channel, broker: Broker, filled: str) -> None:
    consumer = broker.client()
    channel = consumer.channel()
    channel.consume(filled)
    channel.deliveries(3)
    consumer.drop()
    wait_until(lambda: ch.declare_queue(filled) == (filled, 3, 0))
    assert [ch.get(filled).redelivered for _ in range(3)] == [True, True, True]
