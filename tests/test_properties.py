"""Properties: what is read, what is refused, and that splicing does not change the rest.

The reply texts are those of RabbitMQ 3.10.8, seen on the wire.
"""

from __future__ import annotations

import datetime
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from amqpd import fields
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.fields import decode_table, encode_table
from amqpd.message import MessageProperties
from amqpd.erlang import describe_frame, erlang_binary, erlang_bytes, erlang_string
from amqpd.properties import read_properties, read_timestamp, with_headers, with_reply_to, without_headers

EVERYTHING: dict[str, Any] = {
    "content_type": "application/json", "content_encoding": "gzip", "headers": {"a": "b"}, "delivery_mode": 2,
    "priority": 5, "correlation_id": "c", "reply_to": "answers", "expiration": "1000", "message_id": "m",
    "timestamp": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "message_type": "t", "user_id": "guest",
    "app_id": "app",
}
SHORT_TEXT = st.text(min_size=1, max_size=20)
PROPERTIES = st.fixed_dictionaries({}, optional={
    "content_type": SHORT_TEXT, "content_encoding": SHORT_TEXT, "delivery_mode": st.sampled_from([1, 2]),
    "headers": st.dictionaries(SHORT_TEXT, st.booleans() | st.text(), min_size=1, max_size=3),
    "priority": st.integers(0, 255), "correlation_id": SHORT_TEXT, "reply_to": SHORT_TEXT,
    "expiration": st.integers(0, 10**9).map(str), "message_id": SHORT_TEXT,
    "timestamp": st.datetimes(
        datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC)),
    "message_type": SHORT_TEXT, "user_id": SHORT_TEXT, "app_id": SHORT_TEXT,
})


def packed(**properties: Any) -> bytes:
    """Flags and values as pamqp writes them."""
    octets: bytes = Basic.Properties(**properties).marshal()
    return octets


def unpacked(properties: bytes) -> dict[str, Any]:
    """What pamqp reads, without what is absent."""
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQ", 60, 0, 0) + properties)
    return {name: value for name, value in header.properties if value is not None}


def with_table(headers: bytes) -> bytes:
    return b"\x20\x00" + struct.pack(">I", len(headers)) + headers


def nested_arrays(levels: int) -> bytes:
    octets = b""
    for _ in range(levels):
        octets = b"A" + struct.pack(">I", len(octets)) + octets
    return octets


def expiring(expiration: bytes) -> bytes:
    return b"\x01\x00" + bytes((len(expiration),)) + expiration


def facts_of(facts: MessageProperties) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in facts.__struct_fields__}


# Facts

def test_everything_the_broker_needs_is_read() -> None:
    assert facts_of(read_properties(packed(**EVERYTHING))) == {
        "persistent": True, "priority": 5, "expiration_ms": 1000, "reply_to": "answers", "user_id": "guest",
        "extra_keys": (), "has_bcc": False, "headers": encode_table({"a": "b"}), "flaw": "",
        "deaths_are_merged": False,
    }


def test_without_properties_nothing_is_asked_of_the_broker() -> None:
    assert facts_of(read_properties(b"\x00\x00")) == facts_of(MessageProperties())


@pytest.mark.parametrize("mode, persistent", [(1, False), (2, True)])
def test_delivery_mode_2_is_persistent(mode: int, persistent: bool) -> None:
    assert read_properties(packed(delivery_mode=mode)).persistent is persistent
    assert read_properties(packed(delivery_mode=mode, priority=1)).persistent is persistent


@given(PROPERTIES)
def test_facts_agree_with_pamqp(properties: dict[str, Any]) -> None:
    facts = read_properties(packed(**properties))
    assert facts.flaw == ""
    assert facts.persistent is (properties.get("delivery_mode") == 2)
    assert facts.priority == properties.get("priority")
    assert facts.reply_to == properties.get("reply_to")
    assert facts.user_id == properties.get("user_id")
    assert facts.expiration_ms == (int(properties["expiration"]) if "expiration" in properties else None)
    assert decode_table(facts.headers) == properties.get("headers", {})


def test_strings_need_not_be_utf8() -> None:
    facts = read_properties(b"\x82\x10\x01\xff\x03r\xe9p\x01\xfe")
    assert (facts.reply_to, facts.user_id) == ("r\\xe9p", "\\xfe")


@pytest.mark.parametrize("low_flags", [1, 2, 3])
def test_the_two_lowest_flags_mean_nothing(low_flags: int) -> None:
    assert read_properties(bytes((0x10, low_flags, 2))).persistent


# What does not decode

def refused(properties: bytes) -> ConnectionException:
    with pytest.raises(ConnectionException) as refusal:
        read_properties(properties)
    return refusal.value


@pytest.mark.parametrize("properties", [
    packed(**EVERYTHING) + b"\x00",
    b"\x00\x01\x00\x00",                                # a second flag word, as the specification has it
    with_table(b"\x01aU"),
    with_table(b"\x01ad\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    b"\x20\x00\xff\xff\xff\xff",
])
def test_what_does_not_decode_is_an_internal_error_without_a_text(properties: bytes) -> None:
    error = refused(properties)
    assert (error.code, error.reply_text, error.method) == (ReplyCode.INTERNAL_ERROR, "INTERNAL_ERROR", (0, 0))


def test_properties_cut_short_anywhere_are_refused() -> None:
    properties = packed(**EVERYTHING)[:2]
    whole = bytes((properties[0], properties[1] | 4)) + packed(**EVERYTHING)[2:] + b"\x01c"     # and a cluster-id
    read_properties(whole)
    for end in range(len(whole)):
        assert refused(whole[:end]).code == ReplyCode.INTERNAL_ERROR


@pytest.mark.parametrize("headers, text", [
    (b"\x01a" + nested_arrays(32), "SYNTAX_ERROR - headers: table nested deeper than 32 levels"),
])
def test_headers_beyond_the_limits_are_refused_by_name(headers: bytes, text: str) -> None:
    assert refused(with_table(headers)).reply_text == text


@given(st.binary(max_size=80))
def test_random_properties_are_read_or_refused(properties: bytes) -> None:
    try:
        read_properties(properties)
    except ConnectionException as error:
        assert error.code in (ReplyCode.INTERNAL_ERROR, ReplyCode.SYNTAX_ERROR)


@given(PROPERTIES, st.data())
def test_damaged_properties_are_read_or_refused(properties: dict[str, Any], data: st.DataObject) -> None:
    octets = bytearray(packed(**properties))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_properties(bytes(octets))
    except ConnectionException:
        return
    if octets[0] & 0x20:    # headers
        assert with_headers(bytes(octets), {}) == bytes((octets[0], octets[1] & 0xFC)) + octets[2:]


# Expiration

@pytest.mark.parametrize("expiration, milliseconds", [
    (b"0", 0), (b"007", 7), (b"+5", 5), (b"-0", 0), (b"315360000000", 315_360_000_000),
])
def test_expiration_is_a_decimal_number_of_milliseconds(expiration: bytes, milliseconds: int) -> None:
    facts = read_properties(expiring(expiration))
    assert (facts.expiration_ms, facts.flaw) == (milliseconds, "")


@pytest.mark.parametrize("expiration, flaw", [
    (b"abc", "invalid expiration 'abc': no_integer"),
    (b"", "invalid expiration '': no_integer"),
    (b" 5", "invalid expiration ' 5': no_integer"),
    (b"--5", "invalid expiration '--5': no_integer"),
    (b"10ms", "invalid expiration '10ms': {leftover_string,\"ms\"}"),
    (b"5.5", "invalid expiration '5.5': {leftover_string,\".5\"}"),
    (b"10\"\\", "invalid expiration '10\"\\': {leftover_string,\"\\\"\\\\\"}"),
    (b"10\x01\x02", "invalid expiration '10\x01\x02': {leftover_string,[1,2]}"),
    ("10é".encode(), "invalid expiration '10é': {leftover_string,\"é\"}"),
    (b"10\xe9", "invalid expiration '10\\xe9': {leftover_string,[233]}"),
    (b"5\n", "invalid expiration '5\n': {leftover_string,\"\\n\"}"),
    (b"-1", "invalid expiration '-1': {value_negative,-1}"),
    (b"315360000001", "invalid expiration '315360000001': {value_too_large,315360000001}"),
])
def test_a_bad_expiration_is_a_flaw_in_rabbitmqs_words(expiration: bytes, flaw: str) -> None:
    facts = read_properties(expiring(expiration))
    assert (facts.expiration_ms, facts.flaw) == (None, flaw)


# Delivery mode, CC and BCC

@pytest.mark.parametrize("mode", [0, 3, 255])
def test_an_unknown_delivery_mode_is_a_flaw(mode: int) -> None:
    assert read_properties(bytes((0x10, 0, mode))).flaw == f"invalid message: {{delivery_mode_unknown,{mode}}}"


def test_cc_comes_before_bcc_in_the_extra_keys() -> None:
    facts = read_properties(with_table(encode_table({"BCC": ["hidden"], "CC": ["a", "b"]})))
    assert (facts.extra_keys, facts.has_bcc, facts.flaw) == (("a", "b", "hidden"), True, "")


def test_an_empty_bcc_is_still_one_to_remove() -> None:
    facts = read_properties(with_table(encode_table({"BCC": []})))
    assert (facts.extra_keys, facts.has_bcc) == ((), True)


def test_elements_of_cc_that_are_no_long_strings_are_passed_over() -> None:
    facts = read_properties(with_table(encode_table({"CC": [1, "a", b"octets", None, ["b"]]})))
    assert (facts.extra_keys, facts.has_bcc) == (("a",), False)


@pytest.mark.parametrize("headers", [{"xCC": "a"}, {"in": {"CC": "a"}}, {"a": "CC"}, {"cc": "a"}])
def test_only_headers_named_exactly_so_are_cc(headers: dict[str, Any]) -> None:
    facts = read_properties(with_table(encode_table(headers)))
    assert (facts.extra_keys, facts.has_bcc, facts.flaw) == ((), False, "")


@pytest.mark.parametrize("octets, kind", [
    (b"S\x00\x00\x00\x01a", "longstr"), (b"I\x00\x00\x00\x01", "signedint"), (b"b\x01", "byte"), (b"V", "void"),
    (b"T\x00\x00\x00\x00\x00\x00\x00\x00", "timestamp"), (b"F\x00\x00\x00\x00", "table"),
])
@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_copies_that_are_no_array_are_a_flaw(name: str, octets: bytes, kind: str) -> None:
    facts = read_properties(with_table(bytes((len(name),)) + name.encode() + octets))
    assert facts.flaw == f'invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}'


def test_flaws_are_found_in_rabbitmqs_order() -> None:
    headers = encode_table({"BCC": 1, "CC": "a"})
    table = struct.pack(">I", len(headers)) + headers
    assert "expiration" in read_properties(b"\x31\x00" + table + b"\x03\x03abc").flaw
    assert '"CC"' in read_properties(b"\x30\x00" + table + b"\x03").flaw
    assert "delivery_mode" in read_properties(b"\x30\x00\x00\x00\x00\x00\x03").flaw


@given(PROPERTIES)
def test_a_timestamp_is_read_wherever_it_stands(properties: dict[str, Any]) -> None:
    stamp = properties.get("timestamp")
    assert read_timestamp(packed(**properties)) == (stamp and int(stamp.timestamp()))


# Splicing

ODD_HEADERS = b"\x01bb\x05\x01ff\x3d\xcc\xcc\xcd"     # a byte and a 32-bit float: pamqp would write neither again
ODD = b"\xa0\x00\x02\xff\xfe\x00\x00\x00\x0b" + ODD_HEADERS


def test_reply_to_is_replaced_and_the_rest_kept() -> None:
    properties = with_reply_to(packed(**EVERYTHING), "amq.rabbitmq.reply-to.x")
    assert unpacked(properties) == {**unpacked(packed(**EVERYTHING)), "reply_to": "amq.rabbitmq.reply-to.x"}


def test_reply_to_is_added_where_it_belongs() -> None:
    assert with_reply_to(ODD, "r") == b"\xa2" + ODD[1:] + b"\x01r"


def test_headers_are_removed_and_the_rest_keeps_its_octets() -> None:
    headers = encode_table({"BCC": ["hidden"]}) + ODD_HEADERS
    properties = b"\xa0\x00\x02\xff\xfe" + struct.pack(">I", len(headers)) + headers
    assert without_headers(properties, ["BCC"]) == ODD


def test_without_any_header_left_the_table_is_empty() -> None:
    properties = packed(headers={"BCC": ["hidden"]}, delivery_mode=2, app_id="app")
    assert without_headers(properties, ["BCC"]) == b"\x30\x08" + b"\x00\x00\x00\x00" + b"\x02" + b"\x03app"


def test_removing_from_no_headers_changes_nothing() -> None:
    assert without_headers(packed(delivery_mode=2), ["BCC"]) == packed(delivery_mode=2)


def test_headers_are_added_behind_the_others() -> None:
    added = encode_table({"x-death": [{"count": 1}]})
    assert with_headers(ODD, {"x-death": [{"count": 1}]}) == (
        ODD[:5] + struct.pack(">I", 11 + len(added)) + ODD_HEADERS + added)


def test_headers_are_added_where_there_were_none() -> None:
    assert with_headers(packed(content_type="t", priority=1), {"a": "b"}) == packed(
        content_type="t", headers={"a": "b"}, priority=1)


@given(PROPERTIES, SHORT_TEXT, st.text())
def test_a_header_that_is_set_is_read_back(properties: dict[str, Any], name: str, value: str) -> None:
    octets = with_headers(packed(**properties), {name: value})
    expected = {**properties, "headers": {**properties.get("headers", {}), name: value}}
    assert unpacked(octets) == unpacked(packed(**expected))


# Octets in Erlang's syntax

@pytest.mark.parametrize("octets, text", [
    (b"", "<<>>"), (b"abc", '<<"abc">>'), (b"\x00<\x00F", "<<0,60,0,70>>"), (b"a\"b\\c", r'<<"a\"b\\c">>'),
    (b"\b\t\n\v\f\r\x1b", r'<<"\b\t\n\v\f\r\e">>'), (b"\x7f", "<<127>>"), ("é".encode(), '<<"é">>'),
    (b"\xe9", "<<233>>"), ("À".encode(), "<<195,128>>"),
])
def test_a_binary_is_shown_as_erlang_shows_it(octets: bytes, text: str) -> None:
    assert erlang_binary(octets) == text


def test_octets_are_shown_as_numbers_where_rabbitmq_does() -> None:
    assert erlang_bytes(b"abc") == "<<97,98,99>>"


@pytest.mark.parametrize("octets, text", [(b"ms", '"ms"'), (b"", "[]"), (b"a\x00", "[97,0]")])
def test_a_string_is_shown_as_erlang_shows_it(octets: bytes, text: str) -> None:
    assert erlang_string(octets) == text


@pytest.mark.parametrize("payload, text", [
    (b"", "type 3, all octets = <<>>"),
    (b"0123456789abcdef", 'type 3, all octets = <<"0123456789abcdef">>'),
    (b"0123456789abcdef\x00", 'type 3, first 16 octets = <<"0123456789abcdef">>'),
])
def test_a_frame_is_described_by_its_first_16_octets(payload: bytes, text: str) -> None:
    assert describe_frame(3, payload) == text


def test_a_header_is_added_to_very_many_without_reading_them(monkeypatch: pytest.MonkeyPatch) -> None:
    many = with_headers(b"\0\0", {f"{number}": True for number in range(1_000)})
    monkeypatch.setattr(fields, "with_entries", lambda *_: pytest.fail("the table is read"))
    assert decode_table(read_properties(with_headers(many, {"new": 1})).headers)["new"] == 1
