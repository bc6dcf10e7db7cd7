"""Matching of a headers exchange."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types.headers import HeadersExchange
from amqpd.errors import ChannelException
from amqpd.fields import Float, Long, LongString, Timestamp, UnsignedByte

Headers = dict[str, Any]


def binding(arguments: Headers) -> BindingDefinition:
    return BindingDefinition("/", "x", "queue", "q", "", arguments)


def matches(arguments: Headers, headers: Headers) -> bool:
    exchange: HeadersExchange[str] = HeadersExchange()
    exchange.check_binding(binding(arguments))
    exchange.bind(binding(arguments), "q")
    return list(exchange.route("", headers)) == ["q"]


@pytest.mark.parametrize("headers", [{"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}])
@pytest.mark.parametrize("way", [{}, {"x-match": "all"}, {"x-match": "any"}, {"x-match": "all-with-x"}])
def test_a_message_with_all_that_is_asked_for_matches_every_way(way: Headers, headers: Headers) -> None:
    assert matches({**way, "a": 1, "b": 2}, headers)


@pytest.mark.parametrize("headers", [{}, {"a": 1}, {"a": 1, "b": 3}])
@pytest.mark.parametrize("way", [{}, {"x-match": "all"}, {"x-match": "all-with-x"}])
def test_all_is_not_met_by_less(way: Headers, headers: Headers) -> None:
    assert not matches({**way, "a": 1, "b": 2}, headers)


@pytest.mark.parametrize("way", ["any", "any-with-x"])
def test_any_is_met_by_one_and_not_by_none(way: str) -> None:
    asked = {"x-match": way, "a": 1, "b": 2}
    assert matches(asked, {"b": 2})
    assert not matches(asked, {"a": 2, "c": 1})
    assert not matches(asked, {})


def test_headers_named_x_count_only_where_x_match_says_so() -> None:
    assert matches({"x-match": "all", "a": 1, "x-b": 2}, {"a": 1})
    assert not matches({"x-match": "all-with-x", "a": 1, "x-b": 2}, {"a": 1})
    assert matches({"x-match": "all-with-x", "a": 1, "x-b": 2}, {"a": 1, "x-b": 2})
    assert not matches({"x-match": "any", "a": 1, "x-b": 2}, {"x-b": 2})
    assert matches({"x-match": "any-with-x", "a": 1, "x-b": 2}, {"x-b": 2})


@pytest.mark.parametrize("way", ["all", "any", "all-with-x", "any-with-x"])
def test_x_match_itself_is_never_looked_for(way: str) -> None:
    assert not matches({"x-match": way, "a": 1}, {"x-match": way})


@pytest.mark.parametrize("headers", [{}, {"a": 1}])
def test_all_of_nothing_matches_every_message_and_any_of_nothing_none(headers: Headers) -> None:
    assert matches({}, headers)
    assert matches({"x-match": "all", "x-ignored": 1}, headers)
    assert matches({"x-match": "all-with-x"}, headers)
    assert not matches({"x-match": "any"}, headers)
    assert not matches({"x-match": "any", "x-ignored": 1}, headers)


@pytest.mark.parametrize("value", [1, "", False, None, [], {}])
def test_a_void_argument_asks_for_presence_alone(value: Any) -> None:
    assert matches({"a": None}, {"a": value})
    assert not matches({"a": None}, {"b": value})


def test_a_void_header_has_no_value() -> None:
    assert not matches({"a": ""}, {"a": None})
    assert not matches({"x-match": "any", "a": False}, {"a": None})


@pytest.mark.parametrize(("left", "right"), [
    (1, 1.0), (5, Timestamp(5)), (5, UnsignedByte(5)), (1.5, Float(1.5)), (Long(1), Float(1)), ("a", b"a"),
    (LongString(b"\xff"), b"\xff"), (True, True), (Decimal("1.5"), Decimal("1.5")), ([], {}),
    ([1, "a", [True]], [1, "a", [True]]), ({"a": Long(1), "b": [2]}, {"a": Long(1), "b": [2]}),
])
def test_equal_values_match(left: Any, right: Any) -> None:
    assert matches({"a": left}, {"a": right})
    assert matches({"a": right}, {"a": left})


@pytest.mark.parametrize(("left", "right"), [
    (1, "1"), (1, True), (0, False), (1.0, True), (1, 2), ("a", "A"), ("true", True), (1, Decimal(1)),
    (UnsignedByte(1), True), (Decimal("1.5"), Decimal("1.50")), ([1], [True]), ([1], 1), ({"a": 1}, {"a": True}),
    ({"a": 1}, {}), ([1], [Long(1)]), ([1], [1.0]), ([1.5], [Float(1.5)]), (["a"], [b"a"]), ([1], "[{signedint,1}]"),
    ({"a": 1}, {"a": UnsignedByte(1)}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
])
def test_unequal_values_do_not_match(left: Any, right: Any) -> None:
    assert not matches({"a": left}, {"a": right})
    assert not matches({"a": right}, {"a": left})


def test_bindings_that_ask_the_same_are_unbound_one_by_one() -> None:
    exchange: HeadersExchange[str] = HeadersExchange()
    first, second = binding({"a": 1}), binding({"a": 1.0, "x-match": "all"})
    exchange.bind(first, "left")
    exchange.bind(second, "right")
    assert sorted(exchange.route("", {"a": 1})) == ["left", "right"]
    exchange.unbind(first, "left")
    assert list(exchange.route("", {"a": 1})) == ["right"]


def test_all_and_any_of_the_same_headers_are_told_apart() -> None:
    exchange: HeadersExchange[str] = HeadersExchange()
    exchange.bind(binding({"a": 1, "b": 2}), "all")
    exchange.bind(binding({"a": 1, "b": 2, "x-match": "any"}), "any")
    assert list(exchange.route("", {"a": 1})) == ["any"]
    exchange.unbind(binding({"a": 1, "b": 2, "x-match": "any"}), "any")
    assert list(exchange.route("", {"a": 1, "b": 2})) == ["all"]


def test_nothing_is_kept_of_bindings_that_are_gone() -> None:
    exchange: HeadersExchange[str] = HeadersExchange()
    bindings = [binding(asked) for asked in ({}, {"a": 1}, {"a": None, "b": 2}, {"a": 1, "x-match": "any"})]
    for made in bindings:
        exchange.bind(made, "q")
    for made in bindings:
        exchange.unbind(made, "q")
    assert vars(exchange) == vars(HeadersExchange())


@pytest.mark.parametrize(("value", "text"), [
    ("foo", 'Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or any-with-x'),
    ("", "Invalid x-match field value <<>>; expected all, any, all-with-x, or any-with-x"),
    (LongString(b"\xff"), "Invalid x-match field value <<255>>; expected all, any, all-with-x, or any-with-x"),
    (1, "Invalid x-match field type signedint (value 1); expected longstr"),
    (UnsignedByte(7), "Invalid x-match field type unsignedbyte (value 7); expected longstr"),
    (True, "Invalid x-match field type bool (value true); expected longstr"),
    (None, "Invalid x-match field type void (value undefined); expected longstr"),
    (b"all", 'Invalid x-match field type binary (value <<"all">>); expected longstr'),
])
def test_another_x_match_is_refused(value: Any, text: str) -> None:
    exchange: HeadersExchange[str] = HeadersExchange()
    with pytest.raises(ChannelException) as refusal:
        exchange.check_binding(binding({"x-match": value}))
    assert refusal.value.reply_text == f"PRECONDITION_FAILED - {text}"


def test_a_binding_is_found_again_whatever_has_been_bound_after_it() -> None:
    """Rules of several headers are listed under the one that the fewest rules ask for when the first of them comes."""
    exchange: HeadersExchange[str] = HeadersExchange()
    both = binding({"a": 1, "b": 1})
    exchange.bind(both, "first")
    for number in range(5):
        exchange.bind(binding({"a": 1, "c": number}), f"other {number}")
        exchange.bind(binding({"b": 1, "d": number}), f"another {number}")
        exchange.bind(binding({"a": 1, "e": number}), f"third {number}")
    exchange.bind(both, "second")
    assert {*exchange.route("", {"a": 1, "b": 1})} == {"first", "second"}
    exchange.unbind(both, "first")
    assert {*exchange.route("", {"a": 1, "b": 1})} == {"second"}
    exchange.unbind(both, "second")
    assert not exchange.route("", {"a": 1, "b": 1})
