"""The copy of a dead letter: it is made whatever the headers contain, and its headers describe the death."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqpd.broker.dead_letter import HIGHEST_COUNT, REMEMBERED, DeadCopies, DeadLetterRoute, cycling_queues
from amqpd.errors import ConnectionException
from amqpd.fields import Long, LongString, Value, decode_table, encode_table, without_keys
from amqpd.message import Message, Route, pack_content, pack_short_string
from amqpd.properties import read_own_properties, read_properties

FRAME_MAX = 131_072
NOW_S = 1_800_000_000
DEAD_LETTERING = DeadLetterRoute("q", "expired", "dlx", None)
OURS = ("x-death", *(f"x-{which}-death-{what}" for which in ("first", "last") for what in (
    "exchange", "queue", "reason")))


def sized(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def entry(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + value


def message_with(headers: bytes, *, exchange: str = "x", key: str = "k") -> Message:
    """A persistent message with these octets as its headers, as a peer publishes it."""
    properties = b"\x30\x00" + sized(headers) + b"\x02"
    route = Route(exchange, key, pack_short_string(exchange) + pack_short_string(key), 1, FRAME_MAX)
    return Message(7, route, read_properties(properties), pack_content(1, FRAME_MAX, properties, b"body"), 4)


def dead_copy(message: Message, dead_route: DeadLetterRoute, number: int = 8) -> Message:
    return DeadCopies(dead_route, NOW_S).copy(message, number)


def headers_of(message: Message) -> dict[str, Any]:
    return decode_table(message.facts.headers)


def deaths(headers: dict[str, Value] | bytes, dead_route: DeadLetterRoute = DEAD_LETTERING) -> list[dict[str, Any]]:
    """Return `x-death` after a message with these headers was dead-lettered."""
    octets = headers if isinstance(headers, bytes) else encode_table(headers)
    found: list[dict[str, Any]] = headers_of(dead_copy(message_with(octets), dead_route))["x-death"]
    return found


def told(headers: dict[str, Value]) -> list[tuple[Any, Any, Any]]:
    return [(death.get("queue"), death.get("reason"), death.get("count")) for death in deaths(headers)]


# Whatever a client sends

NUMBERS = st.sampled_from([0, 1, 5, 127, (1 << 31) - 1]) | st.integers(-(1 << 63), (1 << 63) - 1)
LEAVES = st.one_of(
    NUMBERS.map(lambda number: b"l" + struct.pack(">q", number)),
    st.just(b"l" + b"\x7f" + b"\xff" * 7), st.just(b"T" + b"\xff" * 8), st.just(b"L" + b"\x80" + bytes(7)),
    st.integers(0, 255).map(lambda number: b"b" + bytes((number,))),
    st.just(b"D\xff\x80\x00\x00\x00"), st.just(b"d" + struct.pack(">d", 1e300)), st.just(b"t\x07"), st.just(b"V"),
    (st.sampled_from([b"q", b"expired", b"rejected", b"7"]) | st.binary(max_size=5)).flatmap(
        lambda octets: st.sampled_from([b"S" + sized(octets), b"x" + sized(octets)])))
NAMES = st.sampled_from([b"queue", b"reason", b"count", b"x-death", b"CC", b"\xff" * 255, b"", b"x-last-death-queue"])


def containers(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    fields = st.lists(st.tuples(NAMES, inner), max_size=5).map(
        lambda fields: b"".join([entry(name, value) for name, value in fields]))
    return fields.map(lambda octets: b"F" + sized(octets)) | st.lists(inner, max_size=5).map(
        lambda values: b"A" + sized(b"".join(values)))


ANYTHING = st.recursive(LEAVES, containers, max_leaves=25)
ENTRIES = st.lists(st.tuples(NAMES, ANYTHING), max_size=5).map(
    lambda fields: b"F" + sized(b"".join([entry(name, value) for name, value in fields])))
X_DEATHS = st.lists(ENTRIES | ANYTHING, max_size=6).map(lambda values: b"A" + sized(b"".join(values))) | ANYTHING
TABLES = st.lists(
    st.tuples(NAMES, ANYTHING) | st.tuples(st.just(b"x-death"), X_DEATHS), max_size=6,
).map(lambda fields: b"".join([entry(name, value) for name, value in fields]))
DEAD_LETTER_QUEUES = st.builds(
    DeadLetterRoute, st.sampled_from(["q", "ü" * 127]), st.sampled_from(["expired", "rejected"]),
    st.sampled_from(["", "dlx", "e" * 300]), st.sampled_from([None, "k", "é" * 200]))


def nested(levels: int) -> bytes:
    octets = b"V"
    for _ in range(levels):
        octets = b"A" + sized(octets)
    return octets


@given(TABLES, st.lists(DEAD_LETTER_QUEUES, min_size=1, max_size=3))
@example(entry(b"x-death", b"A" + sized(b"F" + sized(entry(b"n", nested(29))))), [DEAD_LETTERING, DEAD_LETTERING])
@example(entry(b"x-death", b"A" + sized(b"F" + sized(entry(b"\xff" * 255, b"V")))), [DEAD_LETTERING, DEAD_LETTERING])
def test_every_message_that_was_accepted_has_a_copy(headers: bytes, dead_letter_queues: list[DeadLetterRoute]) -> None:
    try:
        message = message_with(headers)
    except ConnectionException:
        return      # refused at the door: nested too deep
    for dead_route in dead_letter_queues:
        copy = dead_copy(message, dead_route)
        assert copy.body == message.body
        assert copy.facts.headers == read_own_properties(copy.properties).headers
        unchanged = OURS if dead_route.routing_key is None else (*OURS, "CC")
        assert without_keys(copy.facts.headers, unchanged) == without_keys(message.facts.headers, unchanged)
        read_again = msgspec.structs.replace(message, facts=read_own_properties(message.properties))
        again = dead_copy(read_again, dead_route)
        assert again.content == copy.content, "what is known of the deaths makes a difference"
        first = headers_of(copy)["x-death"][0]
        assert isinstance(first["count"], Long | int)
        assert cycling_queues(copy, [dead_route.queue, "unknown"]) <= {dead_route.queue}
        message = copy


@pytest.mark.parametrize("count", [HIGHEST_COUNT, HIGHEST_COUNT - 1])
def test_a_count_stays_at_the_highest_there_is(count: int) -> None:
    assert told({"x-death": [{"queue": "q", "reason": "expired", "count": count}]}) == [
        ("q", "expired", HIGHEST_COUNT)]


@pytest.mark.parametrize("count", ["many", True, 1.5, [1], {"count": 1}], ids=str)
def test_a_count_that_is_no_number_counts_as_none(count: Value) -> None:
    assert told({"x-death": [{"queue": "q", "reason": "expired", "count": count}]}) == [("q", "expired", 1)]


def test_a_table_of_many_fields_grows_all_the_same() -> None:
    """Beyond what any peer could send in a frame."""
    message = message_with(b"".join([entry(b"%05d" % n, b"t\x01") for n in range(16_300)]))
    for number in range(20):
        message = dead_copy(message, DeadLetterRoute(f"queue {number}", "expired", "", None))
    assert len(message.properties) > FRAME_MAX
    assert read_own_properties(message.properties).headers == message.facts.headers
    assert [death["queue"] for death in headers_of(message)["x-death"]] == [f"queue {n}" for n in range(19, -1, -1)]


def test_a_message_dies_in_700_queues() -> None:
    message = message_with(b"")
    for number in range(700):
        message = dead_copy(message, DeadLetterRoute(f"queue {number}", "expired", "", None))
    assert len(headers_of(message)["x-death"]) == 700
    queues = {f"queue {number}" for number in range(700)}
    assert cycling_queues(message, {*queues, "queue"}) == queues
    assert cycling_queues(message, {"queue 5", "queue", "5"}) == {"queue 5"}


# Circles

def test_a_circle_is_what_nobody_rejected() -> None:
    known: list[Value] = [
        {"queue": "c", "reason": "expired"}, {"queue": "b", "reason": "rejected"}, {"queue": "a", "reason": "maxlen"}]
    copy = dead_copy(message_with(encode_table({"x-death": known})), DEAD_LETTERING)
    assert cycling_queues(copy, "abcq") == {"q", "c"}


def test_a_name_that_is_not_utf_8_is_known_by_its_escapes() -> None:
    known: list[Value] = [{"queue": LongString(b"\xff"), "reason": "expired"}]
    copy = dead_copy(message_with(encode_table({"x-death": known})), DEAD_LETTERING)
    assert cycling_queues(copy, ["\\xff"]) == {"\\xff"}


def test_the_first_death_stays_what_it_was_and_the_last_is_told_anew() -> None:
    once = dead_copy(message_with(b"", exchange="first"), DeadLetterRoute("q1", "expired", "dlx", None))
    twice = dead_copy(once, DeadLetterRoute("q2", "rejected", "dlx", None), 9)
    for died, last in (once, ("first", "q1", "expired")), (twice, ("dlx", "q2", "rejected")):
        headers = headers_of(died)
        assert tuple(headers[f"x-first-death-{what}"] for what in ("exchange", "queue", "reason")) == (
            "first", "q1", "expired")
        assert tuple(headers[f"x-last-death-{what}"] for what in ("exchange", "queue", "reason")) == last


def test_messages_of_equal_properties_have_copies_alike() -> None:
    messages = [message_with(encode_table({"a": 1})), message_with(encode_table({"a": 2}))]
    messages.append(Message(9, messages[0].route, messages[0].facts, messages[0].content, 4))
    copies = DeadCopies(DEAD_LETTERING, NOW_S)
    one, other, same = [copies.copy(message, number) for number, message in enumerate(messages)]
    assert same.facts is one.facts and same.route is one.route and same.content == one.content
    assert [headers_of(copy)["a"] for copy in (one, other, same)] == [1, 2, 1]
    assert [copy.number for copy in (one, other, same)] == [0, 1, 2]


# Names

def test_a_key_longer_than_a_delivery_holds_is_cut() -> None:
    copy = dead_copy(message_with(b""), DeadLetterRoute("q", "expired", "dlx", "é" * 200))
    assert copy.route.routing_key == "é" * 127
    assert copy.route.packed_names == b"\x03dlx\xfe" + ("é" * 127).encode()


def test_a_string_that_is_not_utf_8_stays_as_it_is() -> None:
    odd = {"queue": LongString(b"\xff"), "reason": "expired", "more": LongString(b"\xfe")}
    assert deaths(encode_table({"x-death": [odd]}))[1] == odd


# What is known of the deaths without reading them

@pytest.mark.parametrize("headers, is_merged", [
    ({}, True), ({"a": 1}, True), ({"x-death": "no array"}, True),
    ({"x-death": [{"queue": "a", "reason": "expired", "count": 1}]}, True),
    ({"x-death": [{"queue": "a", "reason": "expired"}]}, False),
    ({"x-death": [{"queue": "a", "reason": "expired"}, {"queue": "b", "reason": "expired"}]}, True)])
def test_a_copy_knows_whether_its_deaths_are_merged(headers: dict[str, Value], *, is_merged: bool) -> None:
    copy = dead_copy(message_with(encode_table(headers)), DeadLetterRoute("c", "expired", "dlx", None))
    assert copy.facts.deaths_are_merged is is_merged
    again = dead_copy(copy, DeadLetterRoute("d", "expired", "dlx", None))
    assert again.facts.deaths_are_merged
    assert [death["queue"] for death in headers_of(again)["x-death"]][:2] == ["d", "c"]


def test_entries_without_a_count_are_counted_by_how_many_there_are() -> None:
    old: list[Value] = [{"queue": name, "reason": "expired"} for name in "qabqaq"]
    assert told({"x-death": old}) == [("q", "expired", 4), ("a", "expired", 2), ("b", "expired", 1)]
    mixed: list[Value] = [{"queue": "a", "reason": "expired", "count": 7}, {"queue": "a", "reason": "expired"}]
    assert told({"x-death": mixed}) == [("q", "expired", 1), ("a", "expired", 7)]


def test_a_death_tells_the_expiration_that_the_message_had() -> None:
    properties = b"\x11\x00" + b"\x02" + b"\x0560000"        # delivery mode and expiration
    route = Route("x", "k", pack_short_string("x") + pack_short_string("k"), 1, FRAME_MAX)
    message = Message(7, route, read_properties(properties), pack_content(1, FRAME_MAX, properties, b"body"), 4)
    copy = dead_copy(message, DEAD_LETTERING)
    death, = headers_of(copy)["x-death"]
    assert death["original-expiration"] == "60000"
    assert (death["count"], death["exchange"], death["routing-keys"]) == (1, "x", ["k"])
    assert copy.facts.expiration_ms is None
    assert "original-expiration" not in deaths({})[0]


def test_a_message_whose_deaths_are_no_array_goes_in_no_circle() -> None:
    for headers in (b"", encode_table({"x-death": "q"}), encode_table({"x-death": [1, "q"]})):
        assert cycling_queues(message_with(headers), ["q"]) == set()


def test_what_copies_have_in_common_is_remembered_up_to_a_bound() -> None:
    copies = DeadCopies(DEAD_LETTERING, NOW_S)
    for number in range(2 * REMEMBERED + 5):
        copy = copies.copy(message_with(encode_table({"a": number})), number)
        assert (copy.number, headers_of(copy)["a"]) == (number, number)
    assert len(copies._known) == 5


@pytest.mark.parametrize("time_s, told", [(0, 0), (1, 1), (-5, 0)])
def test_the_time_of_a_death_is_never_before_1970(time_s: int, told: int) -> None:
    copy = DeadCopies(DEAD_LETTERING, time_s).copy(message_with(b""), 9)
    death, = decode_table(copy.facts.headers)["x-death"]
    assert death["time"] == told
