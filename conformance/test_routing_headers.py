"""§12 Routing: headers exchanges with all four values of x-match."""
from __future__ import annotations

import re
from typing import Any

import pytest

from conformance.channel import Channel
from conformance.fields import (
    Array, Boolean, Decimal, Double, Float, Long, LongString, SignedByte, SignedInt, SignedShort, Table, Timestamp,
    UnsignedByte, UnsignedInt, UnsignedShort, UpperLong, Void)
from conformance.methods import EXCHANGE_BIND, QUEUE_BIND
from conformance.routes import Routes
from conformance.texts import Texts

# Binding arguments, message headers, whether they match.
MATCHES: dict[str, tuple[Any, Any, bool]] = {
    "all is the default: every key is there": ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    "all is the default: one key is missing": ({"a": 1, "b": 2}, {"a": 1}, False),
    "all: every key is there": ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    "all: more keys do not matter": ({"x-match": "all", "a": 1}, {"a": 1, "b": 2, "z": 3}, True),
    "all: one value differs": ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 3}, False),
    "all: one key is missing": ({"x-match": "all", "a": 1, "b": 2}, {"b": 2}, False),
    "all: no headers": ({"x-match": "all", "a": 1}, {}, False),
    "all: no headers table": ({"x-match": "all", "a": 1}, None, False),
    "all without keys: any headers": ({"x-match": "all"}, {"a": 1}, True),
    "all without keys: no headers": ({"x-match": "all"}, {}, True),
    "all without keys: no headers table": ({"x-match": "all"}, None, True),
    "no arguments: any headers": ({}, {"a": 1}, True),
    "no arguments: no headers table": ({}, None, True),
    "any: one of two": ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
    "any: both": ({"x-match": "any", "a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    "any: one right and one wrong": ({"x-match": "any", "a": 1, "b": 2}, {"a": 1, "b": 3}, True),
    "any: all wrong": ({"x-match": "any", "a": 1, "b": 2}, {"a": 2, "b": 1}, False),
    "any: others": ({"x-match": "any", "a": 1, "b": 2}, {"c": 1}, False),
    "any: no headers table": ({"x-match": "any", "a": 1}, None, False),
    "any without keys": ({"x-match": "any"}, {"a": 1}, False),
    "any without keys: no headers table": ({"x-match": "any"}, None, False),
    "all: x- keys do not count": ({"x-match": "all", "x-a": 1, "b": 2}, {"b": 2}, True),
    "all: x- keys do not help": ({"x-match": "all", "x-a": 1, "b": 2}, {"x-a": 1}, False),
    "all: nothing but x- keys": ({"x-match": "all", "x-a": 1}, {}, True),
    "all: a bare x- does not count": ({"x-match": "all", "x-": 1}, {}, True),
    "all: X- counts": ({"x-match": "all", "X-a": 1}, {}, False),
    "all: x counts": ({"x-match": "all", "x": 1}, {}, False),
    "any: x- keys do not count": ({"x-match": "any", "x-a": 1, "b": 2}, {"x-a": 1}, False),
    "any: nothing but x- keys": ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
    "all-with-x: x- keys count": ({"x-match": "all-with-x", "x-a": 1, "b": 2}, {"b": 2}, False),
    "all-with-x: both are there": ({"x-match": "all-with-x", "x-a": 1, "b": 2}, {"x-a": 1, "b": 2}, True),
    "all-with-x: x-match itself does not count": ({"x-match": "all-with-x"}, {}, True),
    "any-with-x: x- keys count": ({"x-match": "any-with-x", "x-a": 1, "b": 2}, {"x-a": 1}, True),
    "any-with-x: a wrong x- key": ({"x-match": "any-with-x", "x-a": 1, "b": 2}, {"x-a": 2}, False),
    "any-with-x: x-match itself does not count": ({"x-match": "any-with-x"}, {"x-match": "any-with-x"}, False),
    "void: the key is there": ({"a": Void()}, {"a": "anything"}, True),
    "void: the key is there without a value": ({"a": Void()}, {"a": Void()}, True),
    "void: the key is missing": ({"a": Void()}, {"b": 1}, False),
    "void: one of any": ({"x-match": "any", "a": Void(), "b": 5}, {"a": 9}, True),
    "void in the message is no wildcard": ({"a": 1}, {"a": Void()}, False),
    "keys differ in case": ({"a": 1}, {"A": 1}, False),
    "values differ in case": ({"a": "Red"}, {"a": "red"}, False),
    "keys in any order": ([("b", 2), ("a", 1)], [("a", 1), ("b", 2)], True),
    "empty keys are keys": ({"": 1}, {"": 1}, True),
}

ONES = {
    "b": SignedByte(1), "B": UnsignedByte(1), "s": SignedShort(1), "u": UnsignedShort(1), "I": SignedInt(1),
    "i": UnsignedInt(1), "l": Long(1), "L": UpperLong(1)}
FLOATING_ONES = {"f": Float(1), "d": Double(1)}
OTHERS = {
    "a string": LongString("1"), "true": Boolean(True), "another number": SignedInt(2), "a table": Table({"a": 1}),
    "an array": Array([1]), "a decimal": Decimal(1), "nothing": Void(), "a fraction": Double(1.5)}
SAME = {
    "true": Boolean(True), "false": Boolean(False), "a string": LongString("red"), "an empty string": LongString(""),
    "UTF-8": LongString("Größe"), "a fraction": Double(-1.5), "zero": SignedInt(0), "negative": Long(-5),
    "a timestamp": Timestamp(1_700_000_000), "a decimal": Decimal(314, 2), "a table": Table({"a": {"b": 1}}),
    "an array": Array([1, "two", Void()]), "an array of bytes": Array([SignedByte(1), UnsignedByte(2)]),
    "the largest number": Long(2 ** 63 - 1)}
DIFFERENT = {
    "true and false": (Boolean(True), Boolean(False)), "true and its name": (Boolean(True), LongString("true")),
    "false and zero": (Boolean(False), SignedInt(0)), "fractions": (Double(1.5), Double(1.25)),
    "a string and a longer one": (LongString("red"), LongString("reds")),
    "large numbers": (Long(2 ** 62), Long(2 ** 62 + 1)), "signs": (SignedInt(1), SignedInt(-1)),
    "arrays": (Array([1, 2]), Array([2, 1])), "tables": (Table({"a": 1}), Table({"a": 2})),
    "arrays of integers of other widths": (Array([SignedInt(1)]), Array([Long(1)])),
    "arrays of an integer and a floating number": (Array([SignedInt(1)]), Array([Double(1)])),
    "tables of integers of other widths": (Table({"a": SignedInt(1)}), Table({"a": UnsignedByte(1)})),
    "tables in another order": (Table([("a", 1), ("b", 2)]), Table([("b", 2), ("a", 1)])),
    "a string and nothing": (LongString(""), Void())}


@pytest.fixture
def headers(ch: Channel, exchange_name: str) -> str:
    """A headers exchange."""
    ch.declare_exchange(exchange_name, "headers")
    return exchange_name


@pytest.mark.parametrize("arguments, carried, is_match", MATCHES.values(), ids=MATCHES)
def test_x_match(routes: Routes, headers: str, arguments: Any, carried: Any, is_match: bool) -> None:
    queue = routes.queue(headers, "", arguments=arguments)
    assert routes.reached(headers, headers=carried) == ({queue} if is_match else set())


@pytest.mark.parametrize("bound", ONES)
@pytest.mark.parametrize("carried", ONES)
def test_integers_match_by_value_whatever_their_width(
        routes: Routes, headers: str, bound: str, carried: str) -> None:
    queue = routes.queue(headers, "", arguments={"key": ONES[bound]})
    assert routes.reached(headers, headers={"key": ONES[carried]}) == {queue}


@pytest.mark.parametrize("bound, carried", [
    (SignedInt(1), Float(1)), (SignedInt(1), Double(1)), (Double(1), Long(1)), (Float(1), Double(1)),
    (Float(1.5), Double(1.5))], ids=repr)
def test_floating_numbers_match_equal_numbers(routes: Routes, headers: str, bound: Any, carried: Any) -> None:
    """So in 3.10, where 1 equals 1.0."""
    queue = routes.queue(headers, "", arguments={"key": bound})
    assert routes.reached(headers, headers={"key": carried}) == {queue}


@pytest.mark.parametrize("name", OTHERS)
def test_the_number_1_does_not_match(routes: Routes, headers: str, name: str) -> None:
    routes.queue(headers, "", arguments={"key": SignedInt(1)})
    assert routes.reached(headers, headers={"key": OTHERS[name]}) == set()


@pytest.mark.parametrize("value", SAME.values(), ids=SAME)
def test_a_value_matches_itself(routes: Routes, headers: str, value: Any) -> None:
    queue = routes.queue(headers, "", arguments={"key": value})
    assert routes.reached(headers, headers={"key": value}) == {queue}


@pytest.mark.parametrize("bound, carried", DIFFERENT.values(), ids=DIFFERENT)
def test_values_that_differ_do_not_match(routes: Routes, headers: str, bound: Any, carried: Any) -> None:
    routes.queue(headers, "", arguments={"key": bound})
    assert routes.reached(headers, headers={"key": carried}) == set()


def test_the_first_of_duplicate_headers_counts(routes: Routes, headers: str) -> None:
    queue = routes.queue(headers, "", arguments={"key": 1})
    assert routes.reached(headers, headers=[("key", 1), ("key", 2)]) == {queue}
    assert routes.reached(headers, headers=[("key", 2), ("key", 1)]) == set()


@pytest.mark.parametrize("key", ["", "a", "other", "#"])
def test_the_routing_key_plays_no_part(routes: Routes, headers: str, key: str) -> None:
    queue = routes.queue(headers, "bound", arguments={"a": 1})
    assert routes.reached(headers, key, {"a": 1}) == {queue}
    assert routes.reached(headers, key, {"a": 2}) == set()


def test_bindings_that_differ_in_arguments_are_two(ch: Channel, routes: Routes, headers: str) -> None:
    queue = routes.queue(headers, "", arguments={"a": 1})
    ch.bind_queue(queue, headers, "", {"a": 2})
    assert routes.reached(headers, headers={"a": 1}) == routes.reached(headers, headers={"a": 2}) == {queue}
    ch.unbind_queue(queue, headers, "", {"a": 1})
    assert routes.reached(headers, headers={"a": 1}) == set()
    assert routes.reached(headers, headers={"a": 2}) == {queue}


def test_bindings_that_differ_in_x_match_are_two(ch: Channel, routes: Routes, headers: str) -> None:
    queue = routes.queue(headers, "", arguments={"x-match": "all", "a": 1, "b": 2})
    ch.bind_queue(queue, headers, "", {"x-match": "any", "a": 1, "b": 2})
    assert routes.reached(headers, headers={"a": 1}) == {queue}
    ch.unbind_queue(queue, headers, "", {"x-match": "any", "a": 1, "b": 2})
    assert routes.reached(headers, headers={"a": 1}) == set()
    assert routes.reached(headers, headers={"a": 1, "b": 2}) == {queue}


def test_amq_match_is_a_headers_exchange_too(routes: Routes) -> None:
    queue = routes.queue("amq.match", "", arguments={"conformance": "amq.match"})
    assert routes.reached("amq.match", headers={"conformance": "amq.match"}) == {queue}


BAD_VALUE = 'PRECONDITION_FAILED - Invalid x-match field value <<{}>>; expected all, any, all-with-x, or any-with-x'
BAD_TYPE = "PRECONDITION_FAILED - Invalid x-match field type {} (value {}); expected longstr"


@pytest.mark.parametrize("value, shown", [("foo", '"foo"'), ("ALL", '"ALL"'), ("all ", '"all "'), ("", "")])
def test_another_x_match_is_refused(ch: Channel, headers: str, value: str, shown: str) -> None:
    queue, _, _ = ch.declare_queue(exclusive=True)
    ch.send_bind_queue(queue, headers, "", {"x-match": value})
    ch.fails(406, BAD_VALUE.format(shown), *QUEUE_BIND)


@pytest.mark.parametrize("value, type, shown", [
    (1, "signedint", "1"), (Long(-5), "long", "-5"), (UnsignedByte(7), "unsignedbyte", "7"), (True, "bool", "true"),
    (Double(1.5), "double", "1.5")])
def test_an_x_match_that_is_no_string_is_refused(
        ch: Channel, headers: str, value: Any, type: str, shown: str) -> None:
    queue, _, _ = ch.declare_queue(exclusive=True)
    ch.send_bind_queue(queue, headers, "", {"x-match": value})
    ch.fails(406, BAD_TYPE.format(type, shown), *QUEUE_BIND)


@pytest.mark.parametrize("value, type", [(None, "void"), ({}, "table"), ([], "array"), (Decimal(1), "decimal")])
def test_an_x_match_of_a_type_without_digits_is_refused(ch: Channel, headers: str, value: Any, type: str) -> None:
    """How the value is written is Erlang's affair."""
    queue, _, _ = ch.declare_queue(exclusive=True)
    ch.send_bind_queue(queue, headers, "", {"x-match": value})
    ch.fails(406, re.compile(BAD_TYPE.replace("(", r"\(").replace(")", r"\)").format(type, ".+")), *QUEUE_BIND)


def test_a_bad_x_match_is_refused_between_exchanges_too(ch: Channel, headers: str) -> None:
    ch.send_bind_exchange("amq.direct", headers, "", {"x-match": "foo"})
    ch.fails(406, BAD_VALUE.format('"foo"'), *EXCHANGE_BIND)


def test_a_missing_queue_is_noticed_before_a_bad_x_match(ch: Channel, headers: str, texts: Texts) -> None:
    ch.send_bind_queue("nonesuch", headers, "", {"x-match": "foo"})
    ch.fails(404, texts.no_queue("nonesuch"), *QUEUE_BIND)


def test_unbinding_with_a_bad_x_match_is_fine(ch: Channel, headers: str) -> None:
    queue, _, _ = ch.declare_queue(exclusive=True)
    ch.unbind_queue(queue, headers, "", {"x-match": "foo"})


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.fanout", "amq.topic"])
def test_x_match_means_nothing_to_other_types(ch: Channel, exchange: str) -> None:
    queue, _, _ = ch.declare_queue(exclusive=True)
    ch.bind_queue(queue, exchange, queue, {"x-match": "foo"})
