"""The registry of exchange types, and the types direct and fanout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types import Destinations, ExchangeType, exchange_type, exchange_types


def new(name: str) -> ExchangeType[str]:
    found = exchange_type(name)
    assert found is not None
    return found()


def binding(key: str, **arguments: Any) -> BindingDefinition:
    return BindingDefinition("/", "x", "queue", "q", key, arguments)


def routed(exchange: ExchangeType[str], key: str) -> list[str]:
    found: Iterable[str] = exchange.route(key, {})
    return sorted(found)


def test_the_four_standard_types_are_found_under_their_names() -> None:
    assert {name: found.__name__ for name, found in exchange_types().items()} == {
        "direct": "DirectExchange", "fanout": "FanoutExchange",
        "topic": "TopicExchange", "headers": "HeadersExchange",
    }


def test_an_unknown_type_is_not_found() -> None:
    assert exchange_type("x-nope") is None


def test_only_the_headers_type_reads_headers() -> None:
    assert [name for name, found in exchange_types().items() if found.reads_headers] == ["headers"]


@pytest.mark.parametrize("name", ["direct", "fanout", "topic", "headers"])
def test_a_new_exchange_leads_nowhere(name: str) -> None:
    assert routed(new(name), "key") == []


@pytest.mark.parametrize("name", ["direct", "fanout", "topic"])
def test_any_arguments_will_do_for_a_type_that_reads_none(name: str) -> None:
    new(name).check_binding(binding("key", **{"x-match": "foo"}))


@pytest.mark.parametrize("name", ["direct", "fanout", "topic", "headers"])
def test_a_destination_bound_twice_is_named_once_and_stays_until_the_second_unbind(name: str) -> None:
    exchange = new(name)
    first, second = binding("key"), binding("key", **{"x-other": 1})
    exchange.bind(first, "q")
    exchange.bind(second, "q")
    assert routed(exchange, "key") == ["q"]
    exchange.unbind(first, "q")
    assert routed(exchange, "key") == ["q"]
    exchange.unbind(second, "q")
    assert routed(exchange, "key") == []


@pytest.mark.parametrize("name", ["direct", "fanout", "topic", "headers"])
def test_unbinding_one_destination_leaves_the_other(name: str) -> None:
    exchange = new(name)
    exchange.bind(binding("key"), "left")
    exchange.bind(binding("key"), "right")
    exchange.unbind(binding("key"), "left")
    assert routed(exchange, "key") == ["right"]


def test_direct_routes_by_the_whole_key_as_it_stands() -> None:
    exchange = new("direct")
    for key in ("a", "A", "a.b", "#", ""):
        exchange.bind(binding(key), f"q {key}")
    assert routed(exchange, "a") == ["q a"]
    assert routed(exchange, "") == ["q "]
    assert routed(exchange, "b") == []


def test_direct_keeps_nothing_of_a_key_that_is_unbound() -> None:
    exchange = new("direct")
    exchange.bind(binding("key"), "q")
    exchange.unbind(binding("key"), "q")
    assert vars(exchange) == vars(new("direct"))


def test_fanout_routes_to_every_destination_whatever_the_keys() -> None:
    exchange = new("fanout")
    exchange.bind(binding("a"), "one")
    exchange.bind(binding("b"), "two")
    exchange.bind(binding("c"), "two")
    assert routed(exchange, "z") == ["one", "two"]


def test_a_destination_that_nothing_joins_cannot_part() -> None:
    with pytest.raises(KeyError):
        Destinations[str]().part("q")
