"""§18 Requeueing by nack, reject, recover and the end of a channel: the original position, and `redelivered`."""
from __future__ import annotations

from typing import Callable

import pytest

from conformance.channel import Channel, Delivery, Got
from conformance.client import Client
from conformance.conftest import Broker
from conformance.methods import BASIC_RECOVER, BASIC_RECOVER_ASYNC
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("basic.nack")


@pytest.fixture
def filled(ch: Channel, queue_name: str) -> str:
    """A queue with the messages 0 to 5."""
    ch.declare_queue(queue_name)
    for number in range(6):
        ch.publish("", queue_name, b"%d" % number)
    return queue_name


def get(ch: Channel, queue: str, count: int) -> list[Got]:
    """So many messages."""
    return [ch.get(queue) for _ in range(count)]


def shown(messages: list[Got] | list[Delivery]) -> list[str]:
    """Bodies, those redelivered with an exclamation mark."""
    return [message.body.decode() + "!" * message.redelivered for message in messages]


# The old place


@pytest.mark.parametrize("requeue", [
    lambda ch, tag: ch.nack(tag), lambda ch, tag: ch.reject(tag)], ids=["nack", "reject"])
@pytest.mark.parametrize("tag, expected", [
    (1, ["0!", "3", "4", "5"]), (2, ["1!", "3", "4", "5"]), (3, ["2!", "3", "4", "5"])])
def test_a_requeued_message_goes_back_to_its_place(
        ch: Channel, filled: str, requeue: Callable[[Channel, int], None], tag: int, expected: list[str]) -> None:
    get(ch, filled, 3)
    requeue(ch, tag)
    assert shown(get(ch, filled, 4)) == expected


def test_messages_requeued_in_any_order_are_in_their_old_one(ch: Channel, filled: str) -> None:
    get(ch, filled, 5)
    for tag in (3, 5, 1, 4, 2):
        ch.nack(tag)
    assert shown(get(ch, filled, 6)) == ["0!", "1!", "2!", "3!", "4!", "5"]


def test_several_messages_are_requeued_by_one_nack(ch: Channel, filled: str) -> None:
    get(ch, filled, 4)
    ch.nack(3, multiple=True)
    assert shown(get(ch, filled, 5)) == ["0!", "1!", "2!", "4", "5"]


def test_all_messages_are_requeued_by_tag_0(ch: Channel, filled: str) -> None:
    get(ch, filled, 4)
    ch.nack(0, multiple=True)
    assert shown(get(ch, filled, 6)) == ["0!", "1!", "2!", "3!", "4", "5"]


def test_what_is_published_meanwhile_stays_behind(ch: Channel, filled: str) -> None:
    get(ch, filled, 6)
    ch.publish("", filled, b"6")
    ch.nack(0, multiple=True)
    assert shown(get(ch, filled, 7)) == ["0!", "1!", "2!", "3!", "4!", "5!", "6"]


def test_a_message_may_be_requeued_again_and_again(ch: Channel, filled: str) -> None:
    for _ in range(20):
        got = ch.get(filled)
        assert got.body == b"0"
        ch.nack(got.tag)
    assert shown(get(ch, filled, 2)) == ["0!", "1"]


def test_messages_with_several_channels_find_their_places(ch: Channel, broker: Broker, filled: str) -> None:
    """Each channel requeues its own, and the order of all of them is the old one."""
    channels = [broker.channel() for _ in range(3)]
    ch.sync()
    for number in range(6):
        channels[number % 3].get(filled)
    for channel in channels[::-1]:
        channel.nack(0, multiple=True)
        channel.sync()
    assert shown(get(ch, filled, 6)) == ["0!", "1!", "2!", "3!", "4!", "5!"]


def test_a_requeued_message_is_as_it_was(ch: Channel, filled: str) -> None:
    """Its properties are compared in test_fields.py."""
    first = ch.get(filled)
    ch.nack(first.tag)
    again = ch.get(filled)
    assert (again.exchange, again.routing_key, again.body) == (first.exchange, first.routing_key, first.body)
    assert (again.tag, again.redelivered) == (2, True)


def test_a_requeued_message_has_a_new_tag(ch: Channel, filled: str) -> None:
    ch.nack(ch.get(filled).tag)
    assert ch.get(filled).tag == 2
    ch.ack(1)
    ch.fails(406, "PRECONDITION_FAILED - unknown delivery tag 1")


# Consumers


def test_the_only_consumer_gets_a_requeued_message_back(ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.consume(filled)
    for _ in range(5):
        delivery, = ch.deliveries(1)
        assert delivery.body == b"0"
        ch.nack(delivery.tag)
    assert shown(ch.deliveries(1)) == ["0!"]


def test_a_requeued_message_comes_before_those_never_delivered(ch: Channel, filled: str) -> None:
    ch.qos(3)
    ch.consume(filled)
    ch.deliveries(3)
    ch.reject(2)
    assert shown(ch.deliveries(1)) == ["1!"]
    assert ch.delivered(filled) == []


def test_a_requeued_message_may_go_to_another_consumer(ch: Channel, broker: Broker, queue_name: str) -> None:
    """Where the first one has been cancelled, so that it can go nowhere else."""
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"0")
    ch.consume(queue_name, "tag")
    tag = ch.deliveries(1)[0].tag
    ch.cancel("tag")
    other = broker.channel()
    other.consume(queue_name)
    ch.nack(tag)
    assert shown(other.deliveries(1)) == ["0!"]


# The end of a channel


@pytest.mark.parametrize("consumed", [False, True], ids=["got", "consumed"])
def test_unacked_messages_are_requeued_in_order_when_their_channel_closes(
        ch: Channel, broker: Broker, filled: str, consumed: bool) -> None:
    taker = broker.channel()
    ch.sync()
    if consumed:
        taker.qos(4)
        taker.consume(filled, "tag")
        taker.deliveries(4)
        taker.cancel("tag")
    else:
        get(taker, filled, 4)
    taker.ack(2)
    taker.close()
    assert shown(get(ch, filled, 5)) == ["0!", "2!", "3!", "4", "5"]


def test_unacked_messages_are_requeued_when_their_connection_closes(
        ch: Channel, broker: Broker, filled: str) -> None:
    client = broker.client()
    taker = client.channel()
    taker.qos(2)
    taker.consume(filled)
    taker.deliveries(2)
    client.close()
    assert shown(get(ch, filled, 6)) == ["0!", "1!", "2", "3", "4", "5"]


def test_unacked_messages_are_requeued_when_tcp_drops(ch: Channel, broker: Broker, filled: str) -> None:
    client = broker.client()
    taker = client.channel()
    taker.qos(2)
    taker.consume(filled)
    taker.deliveries(2)
    client.drop()
    wait_until(lambda: ch.declare_queue(filled) == (filled, 6, 0))
    assert shown(get(ch, filled, 6)) == ["0!", "1!", "2", "3", "4", "5"]


def test_messages_that_were_sent_but_never_read_are_redelivered(ch: Channel, broker: Broker, filled: str) -> None:
    client = broker.client()
    client.channel().consume(filled)
    assert ch.declare_queue(filled) == (filled, 0, 1)
    client.drop()
    wait_until(lambda: ch.declare_queue(filled) == (filled, 6, 0))
    assert shown(get(ch, filled, 6)) == ["0!", "1!", "2!", "3!", "4!", "5!"]


def test_requeued_messages_go_to_waiting_consumers(ch: Channel, broker: Broker, filled: str) -> None:
    get(ch, filled, 6)
    other = broker.channel()
    other.consume(filled)
    ch.close()
    assert shown(other.deliveries(6)) == ["0!", "1!", "2!", "3!", "4!", "5!"]


# recover


def test_recover_requeues_all_unacked_messages_in_order(ch: Channel, filled: str) -> None:
    get(ch, filled, 4)
    ch.ack(2)
    ch.recover()
    assert shown(get(ch, filled, 5)) == ["0!", "2!", "3!", "4", "5"]


def test_recovered_messages_have_new_tags(ch: Channel, filled: str) -> None:
    get(ch, filled, 2)
    ch.recover()
    assert [got.tag for got in get(ch, filled, 2)] == [3, 4]


def test_recovered_messages_are_delivered_again(ch: Channel, filled: str) -> None:
    """Before or after recover-ok."""
    ch.consume(filled)
    ch.deliveries(6)
    ch.recover()
    deliveries = ch.deliveries(6)
    assert shown(deliveries) == ["0!", "1!", "2!", "3!", "4!", "5!"]
    assert [delivery.tag for delivery in deliveries] == [7, 8, 9, 10, 11, 12]


def test_recover_with_nothing_unacked_is_fine(ch: Channel) -> None:
    ch.recover()


def test_recover_leaves_what_other_channels_have(client: Client, ch: Channel, filled: str) -> None:
    other = client.channel()
    other.get(filled)
    ch.recover()
    assert shown(get(ch, filled, 1)) == ["1"]


def test_recover_async_does_the_same_without_an_answer(ch: Channel, filled: str) -> None:
    get(ch, filled, 4)
    ch.send_recover_async()
    assert ch.sync() == []
    assert shown(get(ch, filled, 6)) == ["0!", "1!", "2!", "3!", "4", "5"]


def test_recover_without_requeue_is_not_implemented(client: Client, ch: Channel) -> None:
    ch.send_recover(requeue=False)
    client.expect_connection_close(540, "NOT_IMPLEMENTED - requeue=false", *BASIC_RECOVER)


def test_recover_async_without_requeue_is_not_implemented(client: Client, ch: Channel) -> None:
    ch.send_recover_async(requeue=False)
    client.expect_connection_close(540, "NOT_IMPLEMENTED - requeue=false", *BASIC_RECOVER_ASYNC)
