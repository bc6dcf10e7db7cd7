"""Matching of a topic exchange, and its cost."""

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


def test_of_very_many_words_below_a_wildcard_those_of_the_key_are_entered() -> None:
    words = [f"w{n}" for n in range(50)]
    exchange = bound(
        *[f"#.{word}" for word in words], *[f"#.a.{word}" for word in words], "#.a.#.z", "#.w3.w4", "#.*.w4")
    assert sorted(exchange.route("w3", {})) == ["#.w3"]
    assert sorted(exchange.route("w3.w4", {})) == ["#.*.w4", "#.w3.w4", "#.w4"]
    assert sorted(exchange.route("x.a.w7", {})) == ["#.a.w7", "#.w7"]
    assert sorted(exchange.route("a.z", {})) == sorted(exchange.route("a.b.z", {})) == ["#.a.#.z"]
    assert list(exchange.route("none", {})) == list(exchange.route("", {})) == []


# Very many nodes: a search in pieces

WORDS = [f"w{n}" for n in range(60)]
KEY = ".".join(WORDS)
PATTERNS = [f"#.{one}.#.{other}" for one in WORDS for other in WORDS]


@pytest.fixture(scope="module")
def reached() -> set[str]:
    """Where `KEY` leads by `PATTERNS`."""
    return set(bound(*PATTERNS).route(KEY, {}))


@pytest.fixture
def large() -> TopicExchange[str]:
    return bound(*PATTERNS)


def test_a_search_in_very_many_nodes_is_cut(large: TopicExchange[str], reached: set[str]) -> None:
    pieces, steps = [], []
    for piece in large.routes([KEY], {}):
        pieces.append(set(piece))
        steps.append(large.steps)
    assert large.is_large and len(pieces) > 5
    assert pieces[-1] == reached and not any(pieces[:-1])
    assert max(steps) < 2_500
    large.route(KEY, {})
    assert sum(steps) == 2 * large.steps


def test_a_search_below_no_wildcard_for_many_words_is_cut_too() -> None:
    exchange = bound(*[".".join("*a"[number >> bit & 1] for bit in range(11)) for number in range(2_000)])
    *pieces, last = [(set(piece), exchange.steps) for piece in exchange.routes([".".join("a" * 11)], {})]
    assert len(pieces) > 5 and max(steps for _, steps in pieces) < 1_000
    assert len(last[0]) == 2_000


def test_words_that_lead_nowhere_cost_something_too() -> None:
    exchange = bound(*[f"#.{word}.#.m{number}" for word in WORDS[:20] for number in range(50)])
    few = bound(*[f"#.{word}.#.m" for word in WORDS[:20]])
    few.route(KEY, {})
    exchange.route(KEY, {})
    assert exchange.steps > few.steps + 50


def test_a_small_trie_is_searched_in_one_piece() -> None:
    exchange = bound(*PATTERNS[:100])
    assert not exchange.is_large
    assert len([*exchange.routes([KEY], {})]) == 1


def test_nodes_that_are_joined_while_a_search_is_cut_are_found(large: TopicExchange[str], reached: set[str]) -> None:
    bind(large, f"{KEY}.z")
    bind(large, f"{KEY}.#")
    bind(large, WORDS[0])
    pieces = large.routes([KEY], {})
    next(pieces)
    unbind(large, WORDS[0])
    unbind(large, PATTERNS[7])
    *_, last = pieces
    assert set(last) == reached - {PATTERNS[7]} | {f"{KEY}.#"}


def test_a_search_ends_however_often_others_bind(large: TopicExchange[str], reached: set[str]) -> None:
    count = 0
    for piece in large.routes([KEY], {}):
        found = set(piece)
        bind(large, f"none.{count}")
        count += 1
    assert found == reached and count < 10


def test_an_exchange_is_no_longer_large_when_its_bindings_have_gone(large: TopicExchange[str]) -> None:
    for key in PATTERNS:
        large.unbind(BindingDefinition("/", "x", "queue", "q", key), key)
    large.check()
    assert not large.is_large and not large._root.children
