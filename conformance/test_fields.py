"""§4 Field values and properties: every type is accepted, and a message is delivered without a change."""
from __future__ import annotations

import struct
from typing import Any

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker, Names
from conformance.fields import (
    Array, Boolean, ByteArray, Decimal, Double, Float, Long, LongString, Properties, SignedByte, SignedInt,
    SignedShort, Table, Timestamp, Typed, UnsignedByte, UnsignedInt, UnsignedShort, UpperLong, Void, content_header,
    encode_table, longstr)
from conformance.methods import BASIC_PUBLISH

VALUES = {
    "t true": Boolean(True),
    "t false": Boolean(False),
    "b lowest": SignedByte(-128),
    "b highest": SignedByte(127),
    "B highest": UnsignedByte(255),
    "s lowest": SignedShort(-32768),
    "s highest": SignedShort(32767),
    "u highest": UnsignedShort(65535),
    "I lowest": SignedInt(-2 ** 31),
    "I highest": SignedInt(2 ** 31 - 1),
    "i highest": UnsignedInt(2 ** 32 - 1),
    "l lowest": Long(-2 ** 63),
    "l highest": Long(2 ** 63 - 1),
    "L lowest": UpperLong(-2 ** 63),
    "L highest": UpperLong(2 ** 63 - 1),
    "f": Float(1.5),
    "d": Double(-2.25e300),
    "D": Decimal(314, 2),
    "D highest": Decimal(2 ** 32 - 1, 255),
    "S": LongString("text"),
    "S empty": LongString(""),
    "S UTF-8": LongString("Größe 漢字 🐇"),
    "S not UTF-8": LongString(b"\xff\x00\xfe"),
    "x": ByteArray(bytes(range(256))),
    "x empty": ByteArray(b""),
    "A": Array([SignedInt(1), LongString("two"), Void(), Array([Boolean(True)])]),
    "A empty": Array([]),
    "F": Table({"a": SignedInt(1), "b": {"c": Void()}}),
    "F empty": Table({}),
    "T": Timestamp(1_700_000_000),
    "T epoch": Timestamp(0),
    "T far": Timestamp(2 ** 63 - 1),
    "V": Void(),
}
every_value = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


# Arguments


@every_value
def test_client_properties_may_hold(broker: Broker, value: Typed) -> None:
    client = broker.client(connect=False)
    client.open_socket()
    client.greet()
    client.log_in(properties={"key": value})


@every_value
def test_arguments_of_a_queue_may_hold(ch: Channel, queue_name: str, value: Typed) -> None:
    ch.declare_queue(queue_name, arguments={"key": value})
    ch.declare_queue(queue_name, arguments={"key": value})


@every_value
def test_arguments_of_an_exchange_may_hold(ch: Channel, exchange_name: str, value: Typed) -> None:
    ch.declare_exchange(exchange_name, "fanout", arguments={"key": value})
    ch.declare_exchange(exchange_name, "fanout", arguments={"key": value})


@every_value
def test_arguments_of_a_binding_may_hold(ch: Channel, queue_name: str, value: Typed) -> None:
    """The binding is found again by the same arguments, and then routes no more."""
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, "amq.fanout", "", {"key": value})
    ch.publish("amq.fanout", "", b"bound")
    assert ch.get(queue_name, no_ack=True).body == b"bound"
    ch.unbind_queue(queue_name, "amq.fanout", "", {"key": value})
    ch.publish("amq.fanout", "", b"unbound")
    assert ch.get(queue_name) is None


@every_value
def test_arguments_of_a_consumer_may_hold(ch: Channel, queue_name: str, value: Typed) -> None:
    ch.declare_queue(queue_name)
    assert ch.consume(queue_name, "tag", arguments={"key": value}) == "tag"


def test_the_first_of_duplicate_keys_counts(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, arguments=[("x-max-length", 1), ("x-max-length", 2)])
    ch.declare_queue(queue_name, arguments={"x-max-length": 1})


@pytest.mark.parametrize("depth", [1, 8, 30])
def test_arguments_may_be_nested(ch: Channel, queue_name: str, depth: int) -> None:
    """Up to 32 levels in ours (§38), without a limit in RabbitMQ."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"deeper": value}
    ch.declare_queue(queue_name, arguments={"key": value})


def test_arguments_may_be_many(ch: Channel, queue_name: str) -> None:
    """Up to 4096 fields in ours (§38), without a limit in RabbitMQ."""
    ch.declare_queue(queue_name, arguments={f"key {number}": number for number in range(4000)})


def test_keys_may_be_empty_long_and_strange(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, arguments={"": 1, "k" * 255: 2, "ключ 🔑\x00\n": 3})


# A message in and out


def carried(ch: Channel, queue: str, header: bytes, body: bytes = b"") -> bytes:
    """Publish with this content header, and return that of the delivery."""
    ch.declare_queue(queue)
    ch.publish("", queue, body, properties=header)
    got = ch.get(queue, no_ack=True)
    assert got.body == body
    return got.header


def header_with(table: bytes) -> bytes:
    """A content header that has nothing but a headers table, given as its octets."""
    return struct.pack(">HHQH", 60, 0, 0, 1 << 13) + table


@every_value
def test_a_header_value_is_carried_octet_for_octet(ch: Channel, queue_name: str, value: Typed) -> None:
    header = header_with(encode_table({"key": value}))
    assert carried(ch, queue_name, header) == header


TABLES = {
    "no keys": {},
    "every type": {name: value for name, value in VALUES.items()},
    "keys in no order": {"z": 1, "a": 2, "m": 3},
    "a key twice": [("k", 1), ("k", "two"), ("k", None)],
    "an empty key": {"": 1},
    "the longest key": {"k" * 255: 1},
    "a strange key": {"\x00\n\"'\\ ключ 🔑": 1},
    "a key that is not UTF-8": [(b"\xff\xfe", 1)],
    "thirty levels": {"a": [{"b": [{"c": [{"d": [{"e": [{"f": [{"g": [{}]}]}]}]}]}]}]},
    "a thousand keys": {f"key {number}": number for number in range(1000)},
    "a long value": {"long": "x" * 100_000},
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_headers_table_is_carried_octet_for_octet(ch: Channel, queue_name: str, table: Any) -> None:
    header = header_with(encode_table(table))
    assert carried(ch, queue_name, header) == header


@pytest.mark.parametrize("value", [b"t\x02", b"T" + b"\xff" * 8, b"L" + b"\xff" * 8],
                         ids=["a boolean of 2", "the last timestamp", "the last unsigned long"])
def test_a_header_value_without_a_python_twin_is_carried_octet_for_octet(
        ch: Channel, queue_name: str, value: bytes) -> None:
    header = header_with(longstr(b"\x01k" + value))
    assert carried(ch, queue_name, header) == header


PROPERTIES = {
    "content_type": ["text/plain", "", "x" * 255, "Größe 🐇", b"\xff\xfe"],
    "content_encoding": ["gzip", "", "x" * 255],
    "headers": [{}, {"a": 1}],
    "delivery_mode": [1, 2],
    "priority": [0, 9, 255],
    "correlation_id": ["1", "", "x" * 255, "\x00\n", b"\xff\xfe"],
    "reply_to": ["answers", "", "x" * 255],
    "expiration": ["60000", "315360000000"],
    "message_id": ["1", "", "x" * 255, b"\xff\xfe"],
    "timestamp": [0, 1_700_000_000, 2 ** 63 - 1, 2 ** 64 - 1],
    "type": ["order", "", "x" * 255],
    "app_id": ["shop", "", "x" * 255, b"\xff\xfe"],
    "cluster_id": ["c", "", "x" * 255],
}


@pytest.mark.standard
@pytest.mark.parametrize("name, value", [(name, value) for name, values in PROPERTIES.items() for value in values])
def test_a_property_is_carried_alone_and_octet_for_octet(ch: Channel, queue_name: str, name: str, value: Any) -> None:
    header = content_header(0, Properties(**{name: value}))
    assert carried(ch, queue_name, header) == header


def test_the_user_id_is_carried(ch: Channel, broker: Broker, queue_name: str) -> None:
    header = content_header(0, Properties(user_id=broker.parts.user))
    assert carried(ch, queue_name, header) == header


@pytest.mark.standard
def test_absent_properties_stay_absent(ch: Channel, queue_name: str) -> None:
    assert carried(ch, queue_name, content_header(4), b"body")[12:] == b"\x00\x00"


def all_properties(user: str) -> Properties:
    """One value for each of the fourteen."""
    return Properties(**{name: values[0] for name, values in PROPERTIES.items()}, user_id=user)


@pytest.mark.standard
def test_all_properties_together_are_carried_octet_for_octet(ch: Channel, broker: Broker, queue_name: str) -> None:
    header = content_header(4, all_properties(broker.parts.user))
    assert header[12:14] == b"\xff\xfc"
    assert carried(ch, queue_name, header, b"body") == header


@pytest.mark.standard
def test_a_delivery_a_return_and_a_get_show_the_same_header(ch: Channel, broker: Broker, queue_name: str) -> None:
    header = content_header(4, all_properties(broker.parts.user))
    ch.declare_queue(queue_name)
    for _ in range(2):
        ch.publish("", queue_name, b"body", properties=header)
    ch.publish("", "nowhere", b"body", properties=header, mandatory=True)
    returned, = ch.returns(1)
    got = ch.get(queue_name)
    ch.consume(queue_name, no_ack=True)
    delivered, = ch.deliveries(1)
    assert returned.header == got.header == delivered.header == header


def test_a_requeued_message_keeps_its_header(ch: Channel, queue_name: str) -> None:
    table = encode_table(TABLES["every type"])
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, properties=header_with(table))
    for _ in range(3):
        got = ch.get(queue_name)
        assert got.header == header_with(table)
        ch.nack(got.tag)


@pytest.mark.parametrize("mode", [0, 3, 255])
def test_a_delivery_mode_that_is_none_closes_the_channel(ch: Channel, mode: int) -> None:
    ch.publish("", "nowhere", properties=Properties(delivery_mode=mode))
    ch.fails(406, f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}", *BASIC_PUBLISH)


# Names

NAMES = {
    "a space": " ",
    "a dot": ".",
    "a slash": "/",
    "per cent": "%2F%00",
    "quotes": "it's \"so\"",
    "a zero octet": "zero\x00zero",
    "control characters": "\x01\x07\x1b[31m\x7f",
    "a tab": "a\tb",
    "accents": "Größe",
    "accents taken apart": "Gro\u0308ße",
    "right to left": "שלום",
    "an emoji": "🐇",
    "outside the plane": "\U0010FFFF",
    "markup": "<script>alert(1)</script>",
    "SQL": "'; DROP TABLE queue; --",
    "a format": "%s {0} ~p",
    "a wildcard": "#.*",
    "255 octets": "n" * 255,
    "255 octets of UTF-8": "ä" * 127 + "n",
}
every_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


@every_name
def test_a_queue_may_be_called(ch: Channel, names: Names, name: str) -> None:
    names.queue(name)
    assert ch.declare_queue(name) == (name, 0, 0)
    ch.publish("", name, b"body")
    assert ch.get(name, no_ack=True).routing_key == name


@every_name
def test_an_exchange_may_be_called(ch: Channel, names: Names, queue_name: str, name: str) -> None:
    names.exchange(name)
    ch.declare_exchange(name, "fanout")
    ch.publish(name, "", mandatory=True)
    assert ch.returns(1)[0].exchange == name
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, name)
    ch.publish(name, "")
    assert ch.get(queue_name, no_ack=True).exchange == name


@every_name
def test_a_routing_key_may_be(ch: Channel, queue_name: str, exchange_name: str, name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    ch.publish(exchange_name, name, mandatory=True)
    assert ch.returns(1)[0].routing_key == name
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, exchange_name, name)
    ch.publish(exchange_name, name)
    assert ch.get(queue_name, no_ack=True).routing_key == name


@every_name
def test_a_consumer_tag_may_be(ch: Channel, queue_name: str, name: str) -> None:
    ch.declare_queue(queue_name)
    assert ch.consume(queue_name, name) == name
    ch.publish("", queue_name)
    assert ch.deliveries(1)[0].consumer_tag == name
    ch.cancel(name)


def test_line_ends_are_removed_from_names(ch: Channel, queue_name: str, exchange_name: str) -> None:
    """§8 for exchanges; RabbitMQ does the same for queues."""
    assert ch.declare_queue(f"\r{queue_name[:5]}\n{queue_name[5:]}\r\n")[0] == queue_name
    ch.declare_exchange(f"{exchange_name[:5]}\r\n{exchange_name[5:]}", "direct")
    ch.declare_queue(queue_name, passive=True)
    ch.declare_exchange(exchange_name, passive=True)
