"""§25 Direct reply-to: the pseudo-queue, the generated addresses, and replies."""
from __future__ import annotations

import base64
from typing import Any

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker
from conformance.fields import Properties
from conformance.methods import BASIC_CONSUME, BASIC_GET, BASIC_PUBLISH, QUEUE_BIND, QUEUE_DECLARE, QUEUE_PURGE
from conformance.texts import Texts

pytestmark = pytest.mark.needs("direct_reply_to")

PSEUDO_QUEUE = "amq.rabbitmq.reply-to"
NO_CONSUMER = "PRECONDITION_FAILED - fast reply consumer does not exist"


@pytest.fixture
def requester(ch: Channel) -> Channel:
    """A channel that waits for replies under the tag `replies`."""
    ch.consume(PSEUDO_QUEUE, "replies", no_ack=True)
    return ch


@pytest.fixture
def responder(broker: Broker) -> Channel:
    """A channel elsewhere."""
    return broker.channel()


@pytest.fixture
def requests(ch: Channel, queue_name: str) -> str:
    """A queue for requests."""
    ch.declare_queue(queue_name)
    return queue_name


@pytest.fixture
def address(requester: Channel, requests: str, responder: Channel) -> str:
    """Where the requester's replies go to, learnt from a request."""
    requester.publish("", requests, b"request", properties=Properties(reply_to=PSEUDO_QUEUE))
    requester.sync()
    return responder.get(requests, no_ack=True).properties.reply_to


# The consumer


def test_replies_are_consumed_without_ack(ch: Channel) -> None:
    ch.send_consume(PSEUDO_QUEUE)
    ch.fails(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", *BASIC_CONSUME)


@pytest.mark.parametrize("tag", ["replies", "others"])
def test_a_channel_has_one_consumer_of_replies(requester: Channel, tag: str) -> None:
    requester.send_consume(PSEUDO_QUEUE, tag, no_ack=True)
    requester.fails(406, "PRECONDITION_FAILED - reply consumer already set", *BASIC_CONSUME)


def test_every_channel_may_have_one(client: Client, requester: Channel) -> None:
    client.channel().consume(PSEUDO_QUEUE, "replies", no_ack=True)


def test_a_consumer_of_replies_without_a_tag_gets_one(ch: Channel) -> None:
    assert ch.consume(PSEUDO_QUEUE, no_ack=True).startswith("amq.ctag-")


def test_an_exclusive_consumer_of_replies_is_like_any(ch: Channel, responder: Channel) -> None:
    ch.consume(PSEUDO_QUEUE, no_ack=True, exclusive=True)
    responder.consume(PSEUDO_QUEUE, no_ack=True)


def test_consuming_replies_without_waiting_is_not_answered(ch: Channel) -> None:
    ch.consume(PSEUDO_QUEUE, "replies", no_ack=True, nowait=True)
    assert ch.sync() == []


# Addresses


def test_a_request_carries_an_address_of_its_requester(address: str) -> None:
    assert address.startswith(PSEUDO_QUEUE + ".")
    assert len(address) <= 255


def test_an_address_has_two_parts_in_base64(address: str) -> None:
    """With padding: a process in Erlang's external form, and a key of 128 bits."""
    start, process, key = address.rsplit(".", 2)
    assert start == PSEUDO_QUEUE
    assert base64.b64decode(process, validate=True)[:2] == b"\x83X"
    assert len(base64.b64decode(key, validate=True)) == 16


def test_a_new_consumer_has_a_new_address(requester: Channel, requests: str, responder: Channel, address: str) -> None:
    """Whose key has nothing in common with that of the old one."""
    requester.cancel("replies")
    requester.consume(PSEUDO_QUEUE, no_ack=True)
    requester.publish("", requests, properties=Properties(reply_to=PSEUDO_QUEUE))
    requester.sync()
    again = responder.get(requests, no_ack=True).properties.reply_to
    assert again.rpartition(".")[2] != address.rpartition(".")[2]


def test_all_requests_of_a_channel_carry_one_address(
        requester: Channel, requests: str, responder: Channel, address: str) -> None:
    requester.publish("", requests, properties=Properties(reply_to=PSEUDO_QUEUE))
    requester.sync()
    assert responder.get(requests).properties.reply_to == address


def test_channels_have_different_addresses(client: Client, requests: str, responder: Channel, address: str) -> None:
    other = client.channel()
    other.consume(PSEUDO_QUEUE, no_ack=True)
    other.publish("", requests, properties=Properties(reply_to=PSEUDO_QUEUE))
    other.sync()
    assert responder.get(requests).properties.reply_to != address


def test_the_other_properties_of_a_request_stay(requester: Channel, requests: str) -> None:
    properties = Properties(
        content_type="text/plain", headers={"a": 1}, correlation_id="7", reply_to=PSEUDO_QUEUE, message_id="id")
    requester.publish("", requests, b"request", properties=properties)
    got = requester.get(requests)
    assert got.body == b"request"
    assert got.properties == Properties(
        content_type="text/plain", headers={"a": 1}, correlation_id="7", reply_to=got.properties.reply_to,
        message_id="id")


@pytest.mark.parametrize("reply_to", ["", "my.queue", "amq.rabbitmq.reply-to.abc", "amq.rabbitmq.reply-tox", "AMQ"])
def test_other_addresses_are_left_alone(ch: Channel, requests: str, reply_to: str) -> None:
    ch.publish("", requests, properties=Properties(reply_to=reply_to))
    assert ch.get(requests).properties.reply_to == reply_to


def test_a_request_without_a_consumer_of_replies_is_refused(ch: Channel, requests: str) -> None:
    ch.publish("", requests, properties=Properties(reply_to=PSEUDO_QUEUE))
    ch.fails(406, NO_CONSUMER, *BASIC_PUBLISH)


def test_a_consumer_on_another_channel_does_not_count(client: Client, requester: Channel, requests: str) -> None:
    other = client.channel()
    other.publish("", requests, properties=Properties(reply_to=PSEUDO_QUEUE))
    other.fails(406, NO_CONSUMER, *BASIC_PUBLISH)


def test_a_consumer_cancelled_does_not_count(requester: Channel, requests: str) -> None:
    requester.cancel("replies")
    requester.publish("", requests, properties=Properties(reply_to=PSEUDO_QUEUE))
    requester.fails(406, NO_CONSUMER, *BASIC_PUBLISH)


# Replies


def test_a_reply_is_delivered_to_the_requester(requester: Channel, responder: Channel, address: str) -> None:
    responder.publish("", address, b"reply", properties=Properties(correlation_id="7"))
    reply, = requester.deliveries(1)
    assert (reply.consumer_tag, reply.redelivered) == ("replies", False)
    assert (reply.exchange, reply.routing_key) == ("", address)
    assert (reply.properties, reply.body) == (Properties(correlation_id="7"), b"reply")


def test_replies_come_in_order(requester: Channel, responder: Channel, address: str) -> None:
    for number in range(50):
        responder.publish("", address, b"%d" % number)
    assert [int(reply.body) for reply in requester.deliveries(50)] == list(range(50))


def test_a_large_reply_is_delivered_whole(requester: Channel, responder: Channel, address: str) -> None:
    body = bytes(range(256)) * 4000
    responder.publish("", address, body)
    assert requester.deliveries(1)[0].body == body


def test_a_requester_may_answer_itself(requester: Channel, address: str) -> None:
    requester.publish("", address, b"to myself")
    assert requester.deliveries(1)[0].body == b"to myself"


def test_replies_are_confirmed(requester: Channel, responder: Channel, address: str) -> None:
    responder.confirm_select()
    responder.publish("", address)
    requester.deliveries(1)
    assert responder.confirms(1) == [(1, True)]


def test_replies_do_not_advance_the_channels_tags(requester: Channel, responder: Channel, address: str) -> None:
    for _ in range(3):
        responder.publish("", address)
    requester.deliveries(3)
    queue, _, _ = requester.declare_queue(exclusive=True)
    requester.publish("", queue)
    assert requester.get(queue).tag == 1


def test_replies_are_not_limited_by_prefetch(requester: Channel, responder: Channel, address: str) -> None:
    requester.qos(1)
    requester.qos(1, is_global=True)
    for _ in range(5):
        responder.publish("", address)
    assert len(requester.deliveries(5)) == 5


def test_a_reply_goes_through_the_default_exchange_alone(
        requester: Channel, responder: Channel, address: str) -> None:
    responder.publish("amq.direct", address, mandatory=True)
    assert responder.returns(1)[0].routing_key == address
    assert requester.sync() == []


@pytest.mark.parametrize("change", [
    lambda address: address[:-1], lambda address: address + "x", lambda address: address.upper(),
    lambda address: PSEUDO_QUEUE, lambda address: PSEUDO_QUEUE + ".", lambda address: PSEUDO_QUEUE + ".abc"],
    ids=["shorter", "longer", "upper case", "pseudo-queue", "no address", "made up"])
def test_a_reply_to_another_address_comes_back(
        requester: Channel, responder: Channel, address: str, change: Any) -> None:
    responder.publish("", change(address), mandatory=True)
    assert responder.returns(1)[0].routing_key == change(address)
    assert requester.sync() == []


@pytest.mark.needs("delivered-replies-return")
def test_a_mandatory_reply_comes_back_though_it_was_delivered(
        requester: Channel, responder: Channel, address: str) -> None:
    responder.publish("", address, b"reply", mandatory=True)
    assert requester.deliveries(1)[0].body == responder.returns(1)[0].body == b"reply"


@pytest.mark.needs("delivered-replies-stay")
def test_a_mandatory_reply_that_is_delivered_does_not_come_back(
        requester: Channel, responder: Channel, address: str) -> None:
    responder.publish("", address, b"reply", mandatory=True)
    assert requester.deliveries(1)[0].body == b"reply"
    assert responder.sync() == []


def test_a_mandatory_reply_comes_back_once_the_requester_has_cancelled(
        requester: Channel, responder: Channel, address: str) -> None:
    requester.cancel("replies")
    responder.publish("", address, mandatory=True)
    assert responder.returns(1)[0].routing_key == address
    assert requester.sync() == []


def test_a_mandatory_reply_comes_back_once_the_requester_has_gone(
        client: Client, responder: Channel, address: str) -> None:
    client.close()
    responder.publish("", address, mandatory=True)
    assert responder.returns(1)[0].routing_key == address


def test_a_reply_to_nobody_is_dropped_and_confirmed(
        requester: Channel, responder: Channel, address: str) -> None:
    requester.close()
    responder.confirm_select()
    responder.publish("", address)
    assert responder.confirms(1) == [(1, True)]
    assert responder.sync() == []


def test_a_channel_opened_again_does_not_get_its_predecessors_replies(
        requester: Channel, responder: Channel, address: str) -> None:
    requester.close()
    requester.open()
    requester.consume(PSEUDO_QUEUE, "replies", no_ack=True)
    responder.publish("", address, mandatory=True)
    responder.returns(1)
    assert requester.sync() == []


# The pseudo-queue and the addresses as queues

FLAGS = [
    {}, {"passive": True}, {"durable": True}, {"exclusive": True}, {"auto_delete": True},
    {"arguments": {"x-expires": 0}}]


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_the_pseudo_queue_may_be_declared_with_any_flags(ch: Channel, flags: dict[str, Any]) -> None:
    """One consumer is shown though there is none."""
    assert ch.declare_queue(PSEUDO_QUEUE, **flags) == (PSEUDO_QUEUE, 0, 1)


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_an_address_may_be_declared_while_its_requester_lives(
        responder: Channel, address: str, flags: dict[str, Any]) -> None:
    assert responder.declare_queue(address, **flags) == (address, 0, 1)


def test_an_address_is_not_found_once_its_requester_has_gone(
        client: Client, responder: Channel, texts: Texts, address: str) -> None:
    client.close()
    responder.send_declare_queue(address)
    responder.fails(404, texts.no_queue(address), *QUEUE_DECLARE)


def test_an_address_is_not_found_once_its_requester_has_cancelled(
        requester: Channel, responder: Channel, texts: Texts, address: str) -> None:
    requester.cancel("replies")
    responder.send_declare_queue(address, passive=True)
    responder.fails(404, texts.no_queue(address), *QUEUE_DECLARE)


@pytest.mark.parametrize("passive", [False, True])
@pytest.mark.parametrize("suffix", [".", ".abc", "x"])
def test_a_made_up_address_is_not_found(ch: Channel, texts: Texts, suffix: str, passive: bool) -> None:
    ch.send_declare_queue(PSEUDO_QUEUE + suffix, passive=passive)
    ch.fails(404, texts.no_queue(PSEUDO_QUEUE + suffix), *QUEUE_DECLARE)


@pytest.mark.parametrize("is_address", [False, True], ids=["pseudo-queue", "address"])
def test_it_is_no_queue_to_the_other_methods(
        responder: Channel, texts: Texts, address: str, is_address: bool) -> None:
    name = address if is_address else PSEUDO_QUEUE
    responder.send_get(name)
    responder.fails(404, texts.no_queue(name), *BASIC_GET)
    responder.open().send_purge(name)
    responder.fails(404, texts.no_queue(name), *QUEUE_PURGE)
    assert responder.open().delete_queue(name) == 0
    responder.unbind_queue(name, "amq.direct", "key")


def test_an_address_cannot_be_consumed_from(responder: Channel, texts: Texts, address: str) -> None:
    responder.send_consume(address, no_ack=True)
    responder.fails(404, texts.no_queue(address), *BASIC_CONSUME)


@pytest.mark.needs("pseudo-queue-not-found")
@pytest.mark.parametrize("is_address", [False, True], ids=["pseudo-queue", "address"])
def test_it_cannot_be_bound(responder: Channel, texts: Texts, address: str, is_address: bool) -> None:
    name = address if is_address else PSEUDO_QUEUE
    responder.send_bind_queue(name, "amq.direct", "key")
    responder.fails(404, texts.no_queue(name), *QUEUE_BIND)


def test_an_address_is_put_into_a_header_that_fills_its_frame(
        requester: Channel, requests: str, responder: Channel) -> None:
    properties = Properties(reply_to=PSEUDO_QUEUE, headers={"a": "x" * 131_010})
    requester.publish("", requests, properties=properties)
    requester.sync()
    got = responder.get(requests, no_ack=True)
    assert got.properties.reply_to.startswith(PSEUDO_QUEUE + ".") and len(got.header) > 131_072
