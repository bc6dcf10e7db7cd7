"""What a topic exchange matches, and what matching may cost."""

from __future__ import annotations

import pytest

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types.topic import TopicExchange

LONGEST_KEY = "." * 255


def bound(*binding_keys: str) -> TopicExchange[str]:
    """An exchange with each of these keys bound to a destination of the same name."""
    exchange: TopicExchange[str] = TopicExchange()
    for key in binding_keys:
        bind(exchange, key)
    exchange.check()
    return exchange


def bind(exchange: TopicExchange[str], key: str) -> None:
    exchange.bind(BindingDefinition("/", "x", "queue", "q", key), key)


def unbind(exchange: TopicExchange[str], key: str) -> None:
    exchange.unbind(BindingDefinition("/", "x", "queue", "q", key), key)
    exchange.check()


def matches(binding_key: str, routing_key: str) -> bool:
    return list(bound(binding_key).route(routing_key, {})) == [binding_key]


# RabbitMQ docs/exchanges, "Topic exchanges"; the empty words as RabbitMQ splits keys.
@pytest.mark.parametrize(("binding_key", "routing_keys"), [
    ("#", ["", "a", "a.b", ".", "*", "#"]),
    ("*", ["a", "*", "#"]),
    ("a.#", ["a", "a.", "a.b", "a.b.c"]),
    ("#.a", ["a", "b.a", ".a", "a.a"]),
    ("*.*", [".", "a.b", "a."]),
    ("a.*.b", ["a..b", "a.x.b"]),
    ("a.#.b", ["a.b", "a..b", "a.x.y.b", "a.b.b"]),
    ("", [""]),
    ("a.b", ["a.b"]),
    ("a*", ["a*"]),
    ("**", ["**"]),
    ("##", ["##"]),
    (".", ["."]),
    ("#.#", ["", "a", "a.b"]),
    ("#.*", ["a", "a.b", "."]),
    ("*.#", ["a", "a.b", "."]),
    ("*.#.*", ["a.b", ".", "a.b.c"]),
    ("#.*.#.*.#", ["a.b", "a.b.c.d"]),
    ("#.a.#.b.#", ["a.b", "x.a.y.b.z", "a.a.b.b"]),
    ("*.a.#", ["x.a", "x.a.b"]),
    ("stock.*.nyse", ["stock.usd.nyse"]),
])
def test_matches(binding_key: str, routing_keys: list[str]) -> None:
    assert [key for key in routing_keys if not matches(binding_key, key)] == []


@pytest.mark.parametrize(("binding_key", "routing_keys"), [
    ("*", ["", "a.b", "."]),
    ("a.#", ["ab", "b", "b.a", ""]),
    ("#.a", ["", "ba", "a.b", "a."]),
    ("*.*", ["a", "", "a.b.c"]),
    ("a.*.b", ["a.b", "a.x.y.b"]),
    ("a.#.b", ["a", "b", "a.bb", ""]),
    ("", ["a", "."]),
    ("a", ["", "A", "a.", ".a"]),
    ("a*", ["ab", "a"]),
    ("**", ["ab", "a"]),
    (".", ["", "a", ".."]),
    ("#.*", [""]),
    ("*.#.*", ["", "a"]),
    ("#.a.#.b.#", ["b.a", "a", "b"]),
])
def test_does_not_match(binding_key: str, routing_keys: list[str]) -> None:
    assert [key for key in routing_keys if matches(binding_key, key)] == []


def test_every_matching_binding_leads_somewhere_and_no_other() -> None:
    exchange = bound("a.b", "a.*", "*.b", "#", "a.#", "a.c", "b.#")
    assert sorted(exchange.route("a.b", {})) == ["#", "*.b", "a.#", "a.*", "a.b"]


def test_a_destination_is_named_once_however_many_ways_match() -> None:
    exchange: TopicExchange[str] = TopicExchange()
    for key in ("a.b", "a.*", "#", "#.b", "*.#"):
        exchange.bind(BindingDefinition("/", "x", "queue", "q", key), "q")
    assert list(exchange.route("a.b", {})) == ["q"]


def test_wildcards_in_a_routing_key_are_words_like_any_other() -> None:
    exchange = bound("*.x", "#.y", "a.b")
    assert list(exchange.route("*.x", {})) == ["*.x"]
    assert list(exchange.route("#.y", {})) == ["#.y"]
    assert list(exchange.route("a.*", {})) == []
    assert list(exchange.route("#", {})) == []


def test_binding_keys_that_mean_the_same_are_unbound_one_by_one() -> None:
    exchange = bound("#.*", "*.#", "#.*.#")
    unbind(exchange, "*.#")
    assert sorted(exchange.route("a", {})) == ["#.*", "#.*.#"]


def test_unbinding_keeps_what_passes_through_the_same_words() -> None:
    exchange = bound("a", "a.b.c", "a.b.*", "a.#")
    unbind(exchange, "a.b.c")
    unbind(exchange, "a.#")
    assert list(exchange.route("a.b.c", {})) == ["a.b.*"]
    assert list(exchange.route("a", {})) == ["a"]


def test_nothing_is_kept_of_bindings_that_are_gone() -> None:
    exchange = bound("a.b.c", "a.*.#", "#.z", "")
    for key in ("a.b.c", "#.z", "", "a.*.#"):
        unbind(exchange, key)
    assert not exchange._root.children and not exchange._root.destinations


# Tried every way a matcher that backtracks would try, none of these would end.
@pytest.mark.parametrize("words", [["#"], ["*", "#"], ["#", ""], ["#", "*", ""], ["*", "#", ""], ["#", "", ""]])
def test_hostile_patterns_end_at_once(words: list[str]) -> None:
    key = ".".join(words * 127)[:255].rstrip(".")
    exchange = bound(key, f"{key[:253]}.z")
    assert list(exchange.route(LONGEST_KEY, {})) == [key]


def test_routing_holds_a_node_once_however_many_wildcards_lead_to_it() -> None:
    exchange = bound(*(".".join(["#", "a"] * count) for count in range(1, 65)))
    assert len(list(exchange.route(".".join("a" * 63), {}))) == 63
