"""Encoding and decoding of methods: pamqp checks the layouts; refusals have RabbitMQ's texts."""

from __future__ import annotations

import struct
import warnings
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.base import Frame
from pamqp.commands import INDEX_MAPPING, Basic, Channel, Connection, Exchange, Queue, Tx

from amqpd.errors import ConnectionException, ReplyCode
from amqpd.fields import LongString, Timestamp, Value, encode_table
from amqpd.wire import methods
from amqpd.wire.methods import AccessRequest, AccessRequestOk, decode_method, encode_method

SAMPLES: dict[str, Any] = {
    "octet": 200, "short": 60_000, "long": 4_000_000_000, "longlong": 1 << 62, "shortstr": "naïve", "longstr": "lóng",
    "table": {"a": [1_000_000, {"b": True}], "none": None},     # pamqp packs small numbers smaller than we do
}
METHODS: list[type[Frame]] = [INDEX_MAPPING[index] for index in sorted(INDEX_MAPPING)]


def sample(method_class: type[Frame], *, bits: bool) -> Frame:
    """A method with a value in every argument, past what pamqp's constructors allow."""
    method = method_class.__new__(method_class)
    for number, name in enumerate(method_class.attributes()):
        kind = method_class.amqp_type(name)
        setattr(method, name, (number % 2 == 0) is bits if kind == "bit" else SAMPLES[kind])
    return method


def pamqp_payload(method: Frame) -> bytes:
    """What pamqp makes of the method, with its judgement about values switched off."""
    with patch.object(type(method), "validate", Frame.validate):
        return method.index.to_bytes(4, "big") + method.marshal()


def values(method: Frame) -> dict[str, Any]:
    return {name: getattr(method, name) for name in method.attributes()}


def payload(method_class: type[Frame], arguments: bytes) -> bytes:
    return method_class.index.to_bytes(4, "big") + arguments


def table(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def nested_arrays(levels: int) -> bytes:
    octets = b""
    for _ in range(levels):
        octets = b"A" + table(octets)
    return octets


def refusal(octets: bytes) -> tuple[str, tuple[int, int] | None]:
    with pytest.raises(ConnectionException) as refused:
        decode_method(octets)
    return str(refused.value), refused.value.method


# The layouts

@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.parametrize("method_class", METHODS, ids=lambda method_class: method_class.name)
def test_every_method_reads_as_pamqp_writes_it(method_class: type[Frame], bits: bool) -> None:
    expected = sample(method_class, bits=bits)
    method = decode_method(pamqp_payload(expected))
    assert type(method) is method_class
    assert values(method) == values(expected)


@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.parametrize("method_class", METHODS, ids=lambda method_class: method_class.name)
def test_every_method_is_written_as_pamqp_writes_it(method_class: type[Frame], bits: bool) -> None:
    method = sample(method_class, bits=bits)
    octets = encode_method(7, method)
    assert octets == struct.pack(">BHI", 1, 7, len(octets) - 8) + pamqp_payload(method) + b"\xce"


@pytest.mark.parametrize("method_class", METHODS, ids=lambda method_class: method_class.name)
def test_no_method_decodes_cut_short_or_with_octets_left_over(method_class: type[Frame]) -> None:
    whole = pamqp_payload(sample(method_class, bits=True))
    ids = struct.unpack_from(">HH", whole)
    for octets in [whole[:end] for end in range(4, len(whole))] + [whole + b"\x00"]:
        text, method = refusal(octets)
        assert text.startswith("FRAME_ERROR - cannot decode ")
        assert method == ids


def test_decoding_warns_about_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = decode_method(payload(Basic.RecoverAsync, b"\x01"))
    assert values(method) == {"requeue": True}


def test_unknown_bits_are_ignored() -> None:
    assert values(decode_method(payload(Channel.Flow, b"\xfe"))) == {"active": False}


def test_access_request_is_known_and_answered_with_ticket_one() -> None:
    method = decode_method(b"\x00\x1e\x00\x0a\x05/data\x1f")
    assert type(method) is AccessRequest
    assert values(method) == {
        "realm": "/data", "exclusive": True, "passive": True, "active": True, "write": True, "read": True}
    assert encode_method(1, AccessRequestOk()) == b"\x01\x00\x01\x00\x00\x00\x06\x00\x1e\x00\x0b\x00\x01\xce"


# Values

@pytest.mark.parametrize("name", ["weird name?", "a" * 255, "é" * 127, "\x00\n", " ", "//"])
def test_any_utf8_name_is_let_through(name: str) -> None:
    octets = name.encode()
    method = decode_method(
        payload(Queue.Declare, b"\x00\x00" + bytes((len(octets),)) + octets + b"\x00" + table(b"")))
    assert isinstance(method, Queue.Declare)
    assert method.queue == name


def test_table_values_arrive_as_they_were_sent() -> None:
    arguments: dict[str, Value] = {
        "when": Timestamp(1_700_000_000_000), "raw": LongString(b"\xff"), "exact": 0.1, "huge": 1e300}
    method = decode_method(payload(Exchange.Declare, b"\x00\x00\x01e\x06direct\x00" + table(encode_table(arguments))))
    assert isinstance(method, Exchange.Declare)
    assert method.arguments == arguments


def test_a_long_string_is_text_if_it_is_utf8() -> None:
    method = decode_method(payload(Connection.SecureOk, table("\x00gäst\x00pw".encode())))
    assert values(method) == {"response": "\x00gäst\x00pw"}


def test_a_long_string_that_is_not_utf8_stays_octets() -> None:
    method = decode_method(payload(Connection.SecureOk, table(b"\x00g\xff")))
    assert values(method) == {"response": LongString(b"\x00g\xff")}


# What is refused

@pytest.mark.parametrize("octets, text", [
    (b"", "<<>>"), (b"\x00\x0a\x00", "<<0,10,0>>"), (b"abc", '<<"abc">>'),
])
def test_a_payload_too_short_for_a_method_is_no_frame(octets: bytes, text: str) -> None:
    assert refusal(octets) == (f"FRAME_ERROR - type 1, all octets = {text}: unknown_frame", (0, 0))


def test_an_unknown_class_is_named() -> None:
    assert refusal(b"\x00\x63\x00\x0a") == ("NOT_IMPLEMENTED - unknown class 99", (99, 10))


def test_an_unknown_method_is_named() -> None:
    assert refusal(b"\x00\x3c\x03\xe7") == ("NOT_IMPLEMENTED - unknown method 999 of class 60", (60, 999))


def test_arguments_that_do_not_decode_are_shown_as_rabbitmq_shows_them() -> None:
    assert refusal(payload(Queue.Declare, b"\x00\x00 abc")) == (
        "FRAME_ERROR - cannot decode <<0,0,32,97,98,99>>", (50, 10))


@pytest.mark.parametrize(
    "method", [Connection.StartOk, Connection.SecureOk, Connection.UpdateSecret], ids=lambda method: method.name)
def test_arguments_that_may_hold_a_password_are_not_shown(method: type[Frame]) -> None:
    octets = payload(method, b"\x00\x00\x00\xffpassword")
    text, ids = refusal(octets)
    assert text == "FRAME_ERROR - cannot decode the arguments, which are not shown since they may hold a password"
    assert ids == (10, int.from_bytes(octets[2:4], "big"))
    assert methods.shown(octets) == octets[:4]


def test_octets_after_the_arguments_are_refused() -> None:
    assert refusal(payload(Tx.Select, b"\x00")) == ("FRAME_ERROR - cannot decode <<0>>", (90, 10))


def test_only_the_start_of_long_arguments_is_shown() -> None:
    with pytest.raises(ConnectionException) as refused:
        decode_method(payload(Tx.Select, bytes(100_000)))
    assert refused.value.reply_text == ("FRAME_ERROR - cannot decode <<" + "0," * 200)[:252] + "..."


def test_a_short_string_that_is_not_utf8_is_refused_before_the_table_after_it() -> None:
    octets = payload(Queue.Declare, b"\x00\x00\x01\xff\x00" + table(b"\x01aU"))
    assert refusal(octets) == ("FRAME_ERROR - Malformed UTF-8 in shortstr", (0, 0))


@pytest.mark.parametrize("octets, text", [
    (b"\x01aU", "unknown field type 'U'"),
    (b"\x01aS\x00\x00\x00\xc8abcd", "table ends within a field"),
    (b"\x01a" + nested_arrays(32), "table nested deeper than 32 levels"),
])
def test_a_table_beyond_reason_is_refused_with_the_reason(octets: bytes, text: str) -> None:
    reply, method = refusal(payload(Queue.Declare, b"\x00\x00\x01q\x00" + table(octets)))
    assert (reply, method) == (f"SYNTAX_ERROR - {text}", (50, 10))


@given(st.sampled_from(METHODS), st.binary(max_size=60))
@example(Connection.StartOk, b"\xff\xff\xff\xff")
def test_random_arguments_decode_or_are_refused(method_class: type[Frame], octets: bytes) -> None:
    try:
        method = decode_method(payload(method_class, octets))
    except ConnectionException as refused:
        assert refused.code in (ReplyCode.FRAME_ERROR, ReplyCode.SYNTAX_ERROR)
    else:
        assert type(method) is method_class


@given(st.binary(max_size=20))
def test_random_payloads_decode_or_are_refused(octets: bytes) -> None:
    try:
        decode_method(octets)
    except ConnectionException as refused:
        assert refused.text


# The packers

def unmarshalled(octets: bytes) -> tuple[int, Any]:
    consumed, channel, method = frame.unmarshal(octets)
    assert consumed == len(octets)
    return channel, method


def test_declare_ok_carries_any_name() -> None:
    channel, method = unmarshalled(methods.pack_declare_ok(3, "weird name?", 5, 2))
    assert (channel, values(method)) == (3, {"queue": "weird name?", "message_count": 5, "consumer_count": 2})


def test_consume_ok_carries_any_tag() -> None:
    channel, method = unmarshalled(methods.pack_consume_ok(3, "tåg?"))
    assert (channel, type(method), method.consumer_tag) == (3, Basic.ConsumeOk, "tåg?")


@pytest.mark.parametrize("nowait", [True, False])
def test_cancel_says_whether_it_waits(nowait: bool) -> None:
    channel, method = unmarshalled(methods.pack_cancel(3, "tag", nowait))
    assert (channel, type(method), values(method)) == (3, Basic.Cancel, {"consumer_tag": "tag", "nowait": nowait})


def test_cancel_ok_carries_any_tag() -> None:
    channel, method = unmarshalled(methods.pack_cancel_ok(3, "tåg?"))
    assert (channel, type(method), method.consumer_tag) == (3, Basic.CancelOk, "tåg?")


@pytest.mark.parametrize("channel, method_class", [(0, Connection.Close), (1, Channel.Close)])
def test_close_is_the_connections_on_channel_0(channel: int, method_class: type[Frame]) -> None:
    number, method = unmarshalled(methods.pack_close(channel, ReplyCode.NOT_FOUND, "NOT_FOUND - no queue", 50, 10))
    assert (number, type(method)) == (channel, method_class)
    assert values(method) == {
        "reply_code": 404, "reply_text": "NOT_FOUND - no queue", "class_id": 50, "method_id": 10}


def test_a_close_is_cut_to_the_octets_of_a_short_string() -> None:
    _, method = unmarshalled(methods.pack_close(1, 404, "é" * 200, 0, 0))
    assert method.reply_text == "é" * 126 + "..."


def test_start_carries_server_properties() -> None:
    properties: dict[str, Value] = {"product": "amqpd", "capabilities": {"basic.nack": True}}
    channel, method = unmarshalled(methods.pack_start(properties, "PLAIN AMQPLAIN", "en_US"))
    assert (channel, type(method)) == (0, Connection.Start)
    assert values(method) == {
        "version_major": 0, "version_minor": 9, "server_properties": properties, "mechanisms": "PLAIN AMQPLAIN",
        "locales": "en_US"}


def test_a_name_over_255_octets_cannot_be_packed() -> None:
    with pytest.raises(ValueError):
        methods.pack_consume_ok(1, "é" * 128)


def test_a_challenge_is_sent_on_the_channel_of_the_connection() -> None:
    assert methods.pack_secure(b"once") == b"\1\0\0\0\0\0\x0c\0\x0a\0\x14\0\0\0\x04once\xce"
