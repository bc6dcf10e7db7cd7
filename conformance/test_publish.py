"""§13 basic.publish: returns, refusals, and the order of the checks.

Routing by exchange type is in §12.
"""
from __future__ import annotations

import re
from typing import Any

import pytest

from conformance.channel import Channel
from conformance.client import BODY, HEADER, Client, content_frames, frame
from conformance.conftest import Broker, Names
from conformance.fields import Properties, content_header
from conformance.methods import BASIC_ACK, BASIC_PUBLISH, BASIC_RETURN
from conformance.texts import Texts

TEN_YEARS_MS = 315_360_000_000
NOWHERE = "nobody.declares.this"
EVERY_PROPERTY = Properties(
    content_type="text/plain", content_encoding="utf-8", headers={"a": 1, "b": [True, {"c": None}]}, delivery_mode=2,
    priority=7, correlation_id="correlation", reply_to="reply", expiration="60000", message_id="id",
    timestamp=1_700_000_000, type="type", app_id="app", cluster_id="cluster")

# Delivered as published


@pytest.mark.standard
def test_a_message_is_delivered_with_the_exchange_and_key_it_was_published_to(
        ch: Channel, queue_name: str, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, exchange_name, "binding key")
    ch.publish(exchange_name, "routing key", b"body")
    got = ch.get(queue_name)
    assert (got.exchange, got.routing_key, got.body) == (exchange_name, "routing key", b"body")


@pytest.mark.standard
@pytest.mark.parametrize("properties", [Properties(), EVERY_PROPERTY], ids=["none", "all"])
def test_properties_are_delivered_as_published(ch: Channel, queue_name: str, properties: Properties) -> None:
    """Absent ones stay absent."""
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, properties=properties)
    assert ch.get(queue_name).properties == properties


@pytest.mark.standard
def test_messages_keep_their_order(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    for number in range(200):
        ch.publish("", queue_name, b"%d" % number)
    ch.consume(queue_name, no_ack=True)
    assert [int(delivery.body) for delivery in ch.deliveries(200)] == list(range(200))


@pytest.mark.standard
def test_publishing_is_not_answered(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    assert ch.sync() == []


@pytest.mark.standard
@pytest.mark.parametrize("exchange", ["", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"])
def test_what_goes_nowhere_is_dropped_in_silence(ch: Channel, exchange: str) -> None:
    ch.publish(exchange, NOWHERE)
    assert ch.sync() == []


@pytest.mark.standard
def test_a_publish_is_lost_when_the_connection_ends_within_it(
        client: Client, ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.send(BASIC_PUBLISH, "2sso", 0, "", queue_name, 0)
    client.send_frame(HEADER, 1, content_header(4))
    client.drop()
    assert broker.channel().get(queue_name) is None


# Mandatory


@pytest.mark.standard
@pytest.mark.parametrize("exchange", ["", "amq.direct", "amq.topic"])
def test_a_mandatory_message_without_a_queue_comes_back(ch: Channel, exchange: str) -> None:
    ch.publish(exchange, NOWHERE, b"body", mandatory=True)
    returned, = ch.returns(1)
    assert (returned.code, returned.exchange, returned.routing_key) == (312, exchange, NOWHERE)


@pytest.mark.needs("reply-texts")
def test_a_message_that_comes_back_says_no_route(ch: Channel) -> None:
    ch.publish("", NOWHERE, mandatory=True)
    assert ch.returns(1)[0].text == "NO_ROUTE"


@pytest.mark.standard
def test_a_message_comes_back_as_it_was_published(ch: Channel) -> None:
    body = bytes(range(256)) * 1000
    ch.publish("", NOWHERE, body, properties=EVERY_PROPERTY, mandatory=True)
    returned, = ch.returns(1)
    assert (returned.properties, returned.body) == (EVERY_PROPERTY, body)


@pytest.mark.standard
def test_a_message_without_a_body_comes_back_without_one(ch: Channel) -> None:
    ch.publish("", NOWHERE, mandatory=True)
    returned, = ch.returns(1)
    assert returned.body == b""
    assert ch.sync() == []


@pytest.mark.standard
def test_returns_come_in_the_order_of_their_publishes(ch: Channel) -> None:
    for number in range(50):
        ch.publish("", NOWHERE, b"%d" % number, mandatory=True)
    assert [int(returned.body) for returned in ch.returns(50)] == list(range(50))


@pytest.mark.standard
def test_returns_come_on_the_channel_of_the_publish(client: Client, ch: Channel) -> None:
    other = client.channel()
    ch.publish("", NOWHERE, mandatory=True)
    ch.returns(1)
    assert other.sync() == []


@pytest.mark.standard
def test_a_mandatory_message_stays_with_a_queue_that_nobody_consumes(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"kept", mandatory=True)
    assert ch.sync() == []
    assert ch.get(queue_name).body == b"kept"


@pytest.mark.needs("publisher_confirms")
def test_a_return_comes_before_its_confirm(client: Client, ch: Channel) -> None:
    ch.confirm_select()
    ch.publish("", NOWHERE, mandatory=True)
    client.expect(1, *BASIC_RETURN)
    client.expect(1, *BASIC_ACK)


# Refused, in the order of the checks

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a reply-to nobody listens to": (
        {"reply_to": "amq.rabbitmq.reply-to"}, "PRECONDITION_FAILED - fast reply consumer does not exist"),
    "another user's id": (
        {"user_id": "nobody"},
        "PRECONDITION_FAILED - user_id property set to 'nobody' but authenticated user was '{user}'"),
    "a bad expiration": ({"expiration": "abc"}, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer"),
    "a bad CC": (
        {"headers": {"CC": "x"}},
        'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"CC",longstr}}'),
    "a bad delivery mode": (
        {"delivery_mode": 3}, "PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,3}}"),
}
ALL_FAULTS = Properties(**{name: value for properties, _ in FAULTS.values() for name, value in properties.items()})
PAIRS = [(earlier, later) for earlier in FAULTS for later in list(FAULTS)[list(FAULTS).index(earlier) + 1:]]


@pytest.mark.parametrize("properties, text", FAULTS.values(), ids=FAULTS)
def test_a_message_may_not_have(ch: Channel, broker: Broker, properties: dict[str, Any], text: str) -> None:
    ch.publish("amq.direct", NOWHERE, properties=Properties(**properties))
    ch.fails(406, text.format(user=broker.parts.user), *BASIC_PUBLISH)


@pytest.mark.parametrize("earlier, later", PAIRS)
def test_of_two_faults_it_is_told_the_first(ch: Channel, broker: Broker, earlier: str, later: str) -> None:
    (properties, text), (others, _) = FAULTS[earlier], FAULTS[later]
    ch.publish("amq.direct", NOWHERE, properties=Properties(**properties, **others))
    ch.fails(406, text.format(user=broker.parts.user), *BASIC_PUBLISH)


@pytest.mark.standard
@pytest.mark.parametrize("properties", [Properties(), ALL_FAULTS], ids=["alone", "before all faults"])
@pytest.mark.parametrize("mandatory", [False, True])
def test_an_exchange_that_is_not_there_is_not_found(
        ch: Channel, texts: Texts, properties: Properties, mandatory: bool) -> None:
    ch.publish("nonesuch", NOWHERE, properties=properties, mandatory=mandatory)
    ch.fails(404, texts.no_exchange("nonesuch"), *BASIC_PUBLISH)


@pytest.mark.parametrize("properties", [Properties(), ALL_FAULTS], ids=["alone", "before all faults"])
def test_an_internal_exchange_is_refused(
        ch: Channel, texts: Texts, exchange_name: str, properties: Properties) -> None:
    ch.declare_exchange(exchange_name, "fanout", internal=True)
    ch.publish(exchange_name, NOWHERE, properties=properties)
    ch.fails(403, texts.internal(exchange_name), *BASIC_PUBLISH)


@pytest.mark.parametrize("exchange", ["", "amq.direct", "nonesuch", "amq.rabbitmq.trace"])
@pytest.mark.parametrize("mandatory", [False, True])
def test_immediate_is_not_implemented_and_comes_before_all_else(
        client: Client, ch: Channel, exchange: str, mandatory: bool) -> None:
    ch.publish(exchange, NOWHERE, b"body", properties=ALL_FAULTS, mandatory=mandatory, immediate=True)
    client.expect_connection_close(540, "NOT_IMPLEMENTED - immediate=true", *BASIC_PUBLISH)


def test_a_refused_mandatory_message_does_not_come_back(ch: Channel) -> None:
    """A return before the close would be kept, and `sync` would show it."""
    ch.publish("", NOWHERE, properties=Properties(expiration="abc"), mandatory=True)
    ch.fails(406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer", *BASIC_PUBLISH)
    assert ch.open().sync() == []


def test_a_refused_message_reaches_no_queue(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, properties=Properties(delivery_mode=3))
    ch.fails(406, "PRECONDITION_FAILED - invalid message: {delivery_mode_unknown,3}", *BASIC_PUBLISH)
    assert ch.open().get(queue_name) is None


@pytest.mark.needs("publisher_confirms")
def test_a_refused_message_is_not_confirmed(ch: Channel) -> None:
    """Neither acked nor nacked: the close is all there is. The publish before it is acked."""
    ch.confirm_select()
    ch.publish("", NOWHERE)
    assert ch.confirms(1) == [(1, True)]
    ch.publish("", NOWHERE, properties=Properties(expiration="abc"))
    ch.fails(406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer", *BASIC_PUBLISH)
    assert ch.open().sync() == []


def test_a_body_is_read_to_its_end_before_a_publish_is_refused(ch: Channel, texts: Texts) -> None:
    """Nothing of it is taken for the next method."""
    ch.publish("nonesuch", "", bytes(300_000))
    ch.fails(404, texts.no_exchange("nonesuch"), *BASIC_PUBLISH)
    ch.open().sync()


@pytest.mark.needs("size-refused-at-header")
def test_a_message_over_the_limit_is_refused_at_its_header(client: Client, ch: Channel) -> None:
    size = 128 * 1024 * 1024 + 1
    ch.send(BASIC_PUBLISH, "2sso", 0, "", NOWHERE, 0)
    client.send_frame(HEADER, 1, content_header(size))
    text = re.compile(rf"PRECONDITION_FAILED - message size {size} is larger than configured max size \d+")
    ch.fails(406, text, *BASIC_PUBLISH)


# Expiration

EXPIRATIONS = {
    "abc": "no_integer",
    "": "no_integer",
    " 5": "no_integer",
    "\uff11": "no_integer",
    "10ms": '{leftover_string,"ms"}',
    "5 ": '{leftover_string," "}',
    "1.5": '{leftover_string,".5"}',
    "10,000": '{leftover_string,",000"}',
    "0x10": '{leftover_string,"x10"}',
    "-1": "{value_negative,-1}",
    f"{TEN_YEARS_MS + 1}": "{value_too_large,315360000001}",
}


@pytest.mark.parametrize("expiration, detail", EXPIRATIONS.items())
def test_an_expiration_may_not_be(ch: Channel, expiration: str, detail: str) -> None:
    ch.publish("", NOWHERE, properties=Properties(expiration=expiration))
    ch.fails(406, f"PRECONDITION_FAILED - invalid expiration '{expiration}': {detail}", *BASIC_PUBLISH)


@pytest.mark.parametrize("expiration", ["0", "1", "007", "60000", f"{TEN_YEARS_MS}"])
def test_an_expiration_may_be(ch: Channel, expiration: str) -> None:
    ch.publish("", NOWHERE, properties=Properties(expiration=expiration))
    assert ch.sync() == []


def test_an_expiration_is_checked_even_where_the_message_goes_nowhere(ch: Channel) -> None:
    ch.publish("amq.fanout", NOWHERE, properties=Properties(expiration="soon"))
    ch.fails(406, "PRECONDITION_FAILED - invalid expiration 'soon': no_integer", *BASIC_PUBLISH)


# Delivery mode, CC and BCC


@pytest.mark.parametrize("mode", [0, 3, 255])
def test_a_delivery_mode_may_not_be(ch: Channel, mode: int) -> None:
    ch.publish("", NOWHERE, properties=Properties(delivery_mode=mode))
    ch.fails(406, f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}", *BASIC_PUBLISH)


@pytest.mark.parametrize("mode", [None, 1, 2])
@pytest.mark.parametrize("durable", [False, True])
def test_a_delivery_mode_may_be(ch: Channel, queue_name: str, mode: int | None, durable: bool) -> None:
    """Any that is one, whether or not the queue is durable."""
    ch.declare_queue(queue_name, durable=durable)
    ch.publish("", queue_name, properties=Properties(delivery_mode=mode))
    assert ch.get(queue_name).properties.delivery_mode == mode


@pytest.mark.parametrize("value, type", [
    ("x", "longstr"), (5, "signedint"), (True, "bool"), (None, "void"), ({}, "table"), (1.5, "double")])
@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_further_keys_come_in_an_array(ch: Channel, header: str, value: Any, type: str) -> None:
    ch.publish("", NOWHERE, properties=Properties(headers={header: value}))
    text = f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{header}",{type}}}'
    ch.fails(406, text, *BASIC_PUBLISH)


def test_of_bad_cc_and_bcc_the_former_is_named(ch: Channel) -> None:
    ch.publish("", NOWHERE, properties=Properties(headers={"BCC": 5, "CC": 5}))
    text = 'PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",signedint}'
    ch.fails(406, text, *BASIC_PUBLISH)


@pytest.mark.parametrize("headers", [{"CC": []}, {"CC": [5, None]}, {"BCC": []}, {"cc": "x"}], ids=str)
def test_other_elements_of_the_array_and_other_headers_do_not_matter(
        ch: Channel, queue_name: str, headers: dict[str, Any]) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"there", properties=Properties(headers=headers))
    assert ch.get(queue_name).body == b"there"


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_a_message_that_only_a_further_key_routes_does_not_come_back(
        ch: Channel, queue_name: str, header: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", NOWHERE, b"there", properties=Properties(headers={header: [queue_name]}), mandatory=True)
    assert ch.sync() == []
    got = ch.get(queue_name)
    assert (got.routing_key, got.body) == (NOWHERE, b"there")


def test_a_message_published_to_several_queues_is_in_each_once(ch: Channel, names: Names) -> None:
    queues = [names.queue() for _ in range(3)]
    for queue in queues:
        ch.declare_queue(queue)
    ch.publish("", queues[0], properties=Properties(headers={"CC": queues, "BCC": queues}))
    assert [ch.purge(queue) for queue in queues] == [1, 1, 1]


# Publishes that come in pieces

@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_publish_is_refused_when_it_is_whole_and_not_before(
        client: Client, ch: Channel, texts: Texts, size: int) -> None:
    ch.send(BASIC_PUBLISH, "2sso", 0, "nonesuch", NOWHERE, 0)
    other = client.channel()
    other.sync()
    octets = content_frames(1, content_header(size), bytes(size), client.frame_max)
    last = size % (client.frame_max - 8) + 8 if size else len(octets)
    client.send(octets[:-last])
    other.sync()
    client.send(octets[-last:])
    ch.fails(404, texts.no_exchange("nonesuch"), *BASIC_PUBLISH)
    ch.open().sync()


@pytest.mark.standard
@pytest.mark.parametrize("step", [1, 2, 100, 5_000])
def test_a_body_in_many_small_frames_is_delivered_whole(
        client: Client, ch: Channel, queue_name: str, step: int) -> None:
    body = bytes(range(256)) * 50
    ch.declare_queue(queue_name)
    ch.send(BASIC_PUBLISH, "2sso", 0, "", queue_name, 0)
    client.send_frame(HEADER, 1, content_header(len(body)))
    client.send(b"".join(frame(BODY, 1, body[start:start + step]) for start in range(0, len(body), step)))
    found = ch.get(queue_name)
    assert found is not None and found.body == body


@pytest.mark.standard
def test_a_body_in_small_frames_fits_the_frames_of_whoever_gets_it(
        client: Client, ch: Channel, broker: Broker, queue_name: str) -> None:
    """`Client` refuses frames that are larger than agreed."""
    body = bytes(range(256)) * 200
    ch.declare_queue(queue_name)
    ch.send(BASIC_PUBLISH, "2sso", 0, "", queue_name, 0)
    client.send_frame(HEADER, 1, content_header(len(body)))
    client.send(b"".join(frame(BODY, 1, body[start:start + 700]) for start in range(0, len(body), 700)))
    ch.sync()
    with Client(broker.url, frame_max=4096) as narrow:
        found = narrow.channel(1).get(queue_name)
    assert found is not None and found.body == body
