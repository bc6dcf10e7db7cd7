"""§14 Publisher confirms: which publishes are numbered, and that each is confirmed once, when it is safe.

A broker nacks messages that exceed length limits; those tests are in `test_length_limits`.
"""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel, Confirm
from conformance.client import Client, content_frames, method_frame
from conformance.conftest import Broker, Names
from conformance.fields import Properties, content_header, pack
from conformance.methods import BASIC_ACK, BASIC_PUBLISH, BASIC_RETURN, CONFIRM_SELECT, TX_SELECT

pytestmark = pytest.mark.needs("publisher_confirms")

NOWHERE = "nobody.declares.this"
PERSISTENT = Properties(delivery_mode=2)


@pytest.fixture
def confirming(ch: Channel) -> Channel:
    """A channel in confirm mode."""
    ch.confirm_select()
    return ch


def all_acked(count: int) -> list[Confirm]:
    """The confirms of the first so many publishes, sorted."""
    return [Confirm(number, True) for number in range(1, count + 1)]


# confirm.select


def test_select_without_waiting_is_not_answered(ch: Channel) -> None:
    ch.confirm_select(nowait=True)
    assert ch.sync() == []
    ch.publish("", NOWHERE)
    assert ch.confirms(1) == all_acked(1)


@pytest.mark.parametrize("nowait", [False, True])
def test_selecting_again_is_fine_and_does_not_count_anew(confirming: Channel, nowait: bool) -> None:
    confirming.publish("", NOWHERE)
    confirming.confirm_select(nowait=nowait)
    confirming.publish("", NOWHERE)
    assert confirming.confirms(2) == all_acked(2)


def test_a_transactional_channel_cannot_confirm(ch: Channel) -> None:
    ch.tx_select()
    ch.send_confirm_select()
    ch.fails(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", *CONFIRM_SELECT)


def test_a_confirming_channel_cannot_be_transactional(confirming: Channel) -> None:
    confirming.send_tx_select()
    confirming.fails(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", *TX_SELECT)


def test_a_channel_that_did_not_ask_gets_no_confirms(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    assert ch.delivered(queue_name) == [] and ch.sync() == []


def test_a_channel_opened_again_does_not_confirm_until_asked(confirming: Channel) -> None:
    confirming.publish("", NOWHERE)
    confirming.confirms(1)
    confirming.close()
    confirming.open()
    confirming.publish("", NOWHERE)
    assert confirming.sync() == []
    confirming.confirm_select()
    confirming.publish("", NOWHERE)
    assert confirming.confirms(1) == all_acked(1)


# Numbers


def test_the_first_publish_after_select_is_number_1(ch: Channel) -> None:
    for _ in range(3):
        ch.publish("", NOWHERE)
    ch.confirm_select()
    ch.publish("", NOWHERE)
    assert ch.confirms(1) == all_acked(1)


def test_publishes_are_numbered_one_by_one(confirming: Channel) -> None:
    """Awaited each, so that nothing can be batched."""
    for number in range(1, 6):
        confirming.publish("", NOWHERE)
        assert confirming.confirms(1) == [Confirm(number, True)]


def test_every_channel_counts_for_itself(client: Client, confirming: Channel) -> None:
    other = client.channel()
    other.confirm_select()
    confirming.publish("", NOWHERE)
    confirming.publish("", NOWHERE)
    other.publish("", NOWHERE)
    assert confirming.confirms(2) == all_acked(2)
    assert other.confirms(1) == all_acked(1)


def test_deliveries_and_publishes_are_numbered_apart(confirming: Channel, queue_name: str) -> None:
    confirming.declare_queue(queue_name)
    confirming.publish("", NOWHERE)
    confirming.publish("", queue_name)
    assert sorted(confirming.confirms(2)) == all_acked(2)
    assert confirming.get(queue_name).tag == 1


# Each publish is answered once

KINDS = {
    "transient in a transient queue": ({}, Properties(delivery_mode=1)),
    "persistent in a transient queue": ({}, PERSISTENT),
    "transient in a durable queue": ({"durable": True}, Properties(delivery_mode=1)),
    "persistent in a durable queue": ({"durable": True}, PERSISTENT),
    "persistent in an exclusive queue": ({"exclusive": True}, PERSISTENT),
    "persistent in a quorum queue": ({"durable": True, "arguments": {"x-queue-type": "quorum"}}, PERSISTENT),
}


@pytest.mark.parametrize("flags, properties", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("count", [1, 100])
def test_messages_are_acked(
        confirming: Channel, queue_name: str, flags: dict[str, Any], properties: Properties, count: int) -> None:
    confirming.declare_queue(queue_name, **flags)
    for _ in range(count):
        confirming.publish("", queue_name, properties=properties)
    assert sorted(confirming.confirms(count)) == all_acked(count)
    assert confirming.sync() == []


@pytest.mark.parametrize("exchange", ["", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"])
def test_messages_that_go_nowhere_are_acked(confirming: Channel, exchange: str) -> None:
    confirming.publish(exchange, NOWHERE)
    assert confirming.confirms(1) == all_acked(1)


def test_messages_of_all_kinds_mixed_are_acked_once_each(confirming: Channel, names: Names) -> None:
    durable, transient = names.queue(), names.queue()
    confirming.declare_queue(durable, durable=True)
    confirming.declare_queue(transient)
    for _ in range(50):
        confirming.publish("", durable, properties=PERSISTENT)
        confirming.publish("", transient)
        confirming.publish("", NOWHERE)
    assert sorted(confirming.confirms(150)) == all_acked(150)
    assert confirming.sync() == []


def test_a_message_in_many_queues_is_acked_once(confirming: Channel, names: Names, exchange_name: str) -> None:
    confirming.declare_exchange(exchange_name, "fanout")
    for durable in (True, False, True, False):
        queue = names.queue()
        confirming.declare_queue(queue, durable=durable)
        confirming.bind_queue(queue, exchange_name)
    confirming.publish(exchange_name, "", properties=PERSISTENT)
    assert confirming.confirms(1) == all_acked(1)
    assert confirming.sync() == []


def test_a_message_with_further_keys_is_acked_once(confirming: Channel, names: Names) -> None:
    queues = [names.queue(), names.queue()]
    for queue in queues:
        confirming.declare_queue(queue, durable=True)
    headers = {"CC": [queues[1]]}
    confirming.publish("", queues[0], properties=Properties(headers=headers, delivery_mode=2))
    assert confirming.confirms(1) == all_acked(1)
    assert confirming.sync() == []


def test_a_message_consumed_at_once_is_acked(confirming: Channel, broker: Broker, queue_name: str) -> None:
    """Whoever acks it first, consumer or disk."""
    confirming.declare_queue(queue_name, durable=True)
    consumer = broker.channel()
    consumer.consume(queue_name)
    for _ in range(20):
        confirming.publish("", queue_name, properties=PERSISTENT)
    for delivery in consumer.deliveries(20):
        consumer.ack(delivery.tag)
    assert sorted(confirming.confirms(20)) == all_acked(20)


def test_messages_are_acked_once_each_whatever_consumers_say_of_them(
        confirming: Channel, broker: Broker, names: Names) -> None:
    """Each by itself, and all together in many queues: a consumer may be faster than the disk, or not there."""
    exchange = names.exchange()
    confirming.declare_exchange(exchange, "fanout")
    answers = {"ack": names.queue(), "reject": names.queue(), "requeue": names.queue(), "transaction": names.queue()}
    queues = [*answers.values(), names.queue()]
    for queue in queues:
        confirming.declare_queue(queue, durable=True)
        confirming.bind_queue(queue, exchange)
    consumers = {answer: broker.channel() for answer in answers}
    consumers["transaction"].tx_select()
    for answer, consumer in consumers.items():
        consumer.consume(answers[answer])
    for _ in range(10):
        confirming.publish(exchange, "", properties=PERSISTENT)
        for queue in queues:
            confirming.publish("", queue, properties=PERSISTENT)
    for answer, consumer in consumers.items():
        for delivery in consumer.deliveries(20):
            if answer in ("ack", "transaction"):
                consumer.ack(delivery.tag)
            else:
                consumer.reject(delivery.tag, requeue=answer == "requeue")
    for delivery in consumers["requeue"].deliveries(20):
        consumers["requeue"].ack(delivery.tag)
    consumers["transaction"].tx_commit()
    assert sorted(confirming.confirms(60)) == all_acked(60)
    assert confirming.sync() == []


def test_a_message_delivered_but_unacked_is_acked_to_its_publisher(
        confirming: Channel, broker: Broker, queue_name: str) -> None:
    confirming.declare_queue(queue_name, durable=True)
    consumer = broker.channel()
    consumer.consume(queue_name)
    confirming.publish("", queue_name, properties=PERSISTENT)
    consumer.deliveries(1)
    assert confirming.confirms(1) == all_acked(1)


def test_a_message_without_a_body_is_acked(confirming: Channel, queue_name: str) -> None:
    confirming.declare_queue(queue_name, durable=True)
    confirming.publish("", queue_name, b"", properties=PERSISTENT)
    assert confirming.confirms(1) == all_acked(1)


def test_a_large_message_is_acked(confirming: Channel, queue_name: str) -> None:
    confirming.declare_queue(queue_name, durable=True)
    confirming.publish("", queue_name, bytes(4 << 20), properties=PERSISTENT)
    assert confirming.confirms(1) == all_acked(1)


def test_confirms_come_while_other_methods_are_answered(confirming: Channel, queue_name: str) -> None:
    confirming.declare_queue(queue_name, durable=True)
    for _ in range(20):
        confirming.publish("", queue_name, properties=PERSISTENT)
        confirming.declare_queue(queue_name, passive=True)
    assert sorted(confirming.confirms(20)) == all_acked(20)


def test_confirms_go_to_the_publishing_channel_alone(client: Client, confirming: Channel, queue_name: str) -> None:
    other = client.channel()
    other.confirm_select()
    confirming.declare_queue(queue_name, durable=True)
    confirming.publish("", queue_name, properties=PERSISTENT)
    confirming.confirms(1)
    assert other.sync() == []


def test_what_is_confirmed_can_be_got_by_anyone(confirming: Channel, broker: Broker, queue_name: str) -> None:
    confirming.declare_queue(queue_name, durable=True)
    confirming.publish("", queue_name, b"safe", properties=PERSISTENT)
    confirming.confirms(1)
    assert broker.channel().get(queue_name).body == b"safe"


def test_the_multiple_bit_is_the_only_one_of_an_ack(client: Client, confirming: Channel) -> None:
    confirming.publish("", NOWHERE)
    tag, flags = client.expect(1, *BASIC_ACK).decode("8o")
    assert tag == 1 and flags in (0, 1)


def test_confirms_that_were_not_sent_are_lost_with_the_channel(confirming: Channel, queue_name: str) -> None:
    """No confirm of the old channel comes on the new one."""
    confirming.declare_queue(queue_name, durable=True)
    for _ in range(20):
        confirming.publish("", queue_name, properties=PERSISTENT)
    confirming.close()
    confirming.client.take_kept(confirming.number)
    confirming.open()
    assert confirming.sync() == []
    assert confirming.purge(queue_name) == 20


# Returns


def answers(client: Client, count: int) -> list[int | bytes]:
    """The next answers to publishes in their order: the number of what is acked, the body of what comes back."""
    acked, come = 0, []
    while len(come) < count:
        method = client.await_method(1, [BASIC_ACK, BASIC_RETURN], keep=())
        if method.ids == BASIC_RETURN:
            come.append(method.body)
            continue
        tag, flags = method.decode("8o")
        come += range(acked + 1 if flags else tag, tag + 1)
        acked = tag
    return come


@pytest.mark.parametrize("mandatory, expected", [
    ([False, True], [1, b"2", 2]),
    ([False, False, True], [1, 2, b"3", 3]),
    ([True, True, False, True], [b"1", 1, b"2", 2, 3, b"4", 4]),
], ids=str)
def test_a_return_comes_before_its_ack_and_after_those_before_it(
        client: Client, confirming: Channel, mandatory: list[bool], expected: list[int | bytes]) -> None:
    """Though they are all published in one go."""
    client.send(b"".join(
        method_frame(1, *BASIC_PUBLISH, pack("2sso", 0, "", NOWHERE, is_mandatory))
        + content_frames(1, content_header(len(b"%d" % number)), b"%d" % number, client.frame_max)
        for number, is_mandatory in enumerate(mandatory, 1)))
    assert answers(client, len(expected)) == expected
