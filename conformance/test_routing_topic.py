"""§12 Routing: topic exchanges. `*` matches one word, `#` any number of words, and words may be empty."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.routes import Routes

LONGEST = ".".join("a" * 128)
DELAYED = ".".join("1" + "0" * 27)

MATCHES = {
    "#": ["", "a", "a.b", ".", "..", "a.b.c.d.e", "#", "*", LONGEST],
    "*": ["a", "ab", "*", "#", "ключ", " "],
    "": [""],
    "a": ["a"],
    "a.b": ["a.b"],
    ".": ["."],
    "..": [".."],
    "a.": ["a."],
    ".a": [".a"],
    "a.#": ["a", "a.", "a.b", "a.b.c", "a..", "a.a", "a.#"],
    "#.a": ["a", "b.a", ".a", "c.b.a", "a.a", "..a"],
    "a.*": ["a.", "a.b", "a.*"],
    "*.a": [".a", "b.a"],
    "*.*": [".", "a.b", "a.", ".b"],
    "*.*.*": ["..", "a.b.c"],
    "a.*.b": ["a..b", "a.x.b", "a.a.b"],
    "a.#.b": ["a.b", "a..b", "a.x.b", "a.x.y.b", "a.b.b", "a.b.a.b"],
    "#.#": ["", "a", "a.b", "."],
    "#.*": ["a", "a.b", ".", "a."],
    "*.#": ["a", "a.b", ".", ".a"],
    "*.#.*": ["a.b", ".", "a.b.c"],
    "#.*.#": ["a", "a.b", "a.b.c"],
    "#.a.#": ["a", "x.a", "a.x", "x.a.y", "a.a", ".a."],
    "#.a.#.b.#": ["a.b", "x.a.y.b.z", "a.a.b.b", "b.a.b"],
    "*.a.*.b.*": ["x.a.y.b.z", ".a..b."],
    "a*": ["a*"],
    "**": ["**"],
    "a#": ["a#"],
    "##": ["##"],
    "a.b*.c": ["a.b*.c"],
    "*.1.#": ["0.1", "0.1.0.0"],
    ".".join("*" * 27 + "0"): [".".join("1" * 27 + "0")],
    ".".join("*" * 28 + "#"): [DELAYED],
    LONGEST: [LONGEST],
}
MISSES = {
    "*": ["", "a.b", ".", "a."],
    "": ["a", ".", " "],
    "a": ["", "b", "A", "a.", ".a", "a.b", "aa"],
    "a.b": ["a", "b", "a.b.c", "a..b", "b.a", "ab"],
    ".": ["", "..", "a.b"],
    "a.#": ["", "ab", "b", ".a", "b.a"],
    "#.a": ["", "ab", "a.b", "a."],
    "a.*": ["a", "a.b.c", "a..", "ab"],
    "*.*": ["", "a", "..", "a.b.c"],
    "a.*.b": ["a.b", "a.x.y.b", "a.x", "x.a.b"],
    "a.#.b": ["a", "b", "ab", "a.b.c", "x.a.b", "a."],
    "#.*": [""],
    "*.#.*": ["", "a"],
    "#.*.#": [""],
    "#.a.#": ["", "b", "aa", "ab.ba"],
    "#.a.#.b.#": ["a", "b", "b.a", "ab"],
    "*.a.*.b.*": ["a.b", "x.a.b.z", "x.a.y.b"],
    "a*": ["a", "ab", "abc"],
    "**": ["a", "*", "ab", "a.b"],
    "a#": ["a", "ab"],
    "##": ["a", "#", ""],
    "a.b*.c": ["a.b.c", "a.bx.c"],
    "*.1.#": ["1", "0.0.1", "1.0"],
}
TABLE = [(pattern, key, True) for pattern, keys in MATCHES.items() for key in keys]
TABLE += [(pattern, key, False) for pattern, keys in MISSES.items() for key in keys]


@pytest.fixture
def topic(ch: Channel, exchange_name: str) -> str:
    """A topic exchange."""
    ch.declare_exchange(exchange_name, "topic")
    return exchange_name


@pytest.mark.parametrize("pattern, key, is_match", TABLE)
def test_a_pattern_matches_a_key_or_not(routes: Routes, topic: str, pattern: str, key: str, is_match: bool) -> None:
    queue = routes.queue(topic, pattern)
    assert routes.reached(topic, key) == ({queue} if is_match else set())


def test_all_patterns_side_by_side_find_the_same(routes: Routes, topic: str) -> None:
    """A trie that holds every pattern at once must not mix them up."""
    queues = {pattern: routes.queue(topic, pattern) for pattern in MATCHES}
    for key in {key for keys in MATCHES.values() for key in keys}:
        reached = routes.reached(topic, key)
        assert {queues[pattern] for pattern, keys in MATCHES.items() if key in keys} <= reached
        assert not {queues[pattern] for pattern, keys in MISSES.items() if key in keys} & reached


@pytest.mark.standard
def test_patterns_that_overlap_give_one_copy(routes: Routes, topic: str) -> None:
    queue = routes.queue(topic, "#", "a.#", "*.b", "a.b", "#.b", "a.*")
    assert routes.reached(topic, "a.b") == {queue}


@pytest.mark.standard
def test_a_pattern_removed_leaves_the_others(ch: Channel, routes: Routes, topic: str) -> None:
    queue = routes.queue(topic, "a.#", "a.*", "a.b")
    ch.unbind_queue(queue, topic, "a.#")
    assert routes.reached(topic, "a.b.c") == set()
    assert routes.reached(topic, "a.x") == {queue}
    ch.unbind_queue(queue, topic, "a.*")
    assert routes.reached(topic, "a.x") == set()
    assert routes.reached(topic, "a.b") == {queue}


@pytest.mark.standard
def test_two_queues_with_one_pattern_are_independent(ch: Channel, routes: Routes, topic: str) -> None:
    one, other = routes.queue(topic, "a.*.c"), routes.queue(topic, "a.*.c")
    assert routes.reached(topic, "a.b.c") == {one, other}
    ch.unbind_queue(one, topic, "a.*.c")
    assert routes.reached(topic, "a.b.c") == {other}


def test_one_pattern_with_different_arguments_is_two_bindings(ch: Channel, routes: Routes, topic: str) -> None:
    queue = routes.queue(topic, "a.#", arguments={"n": 1})
    ch.bind_queue(queue, topic, "a.#", {"n": 2})
    ch.unbind_queue(queue, topic, "a.#", {"n": 1})
    assert routes.reached(topic, "a.b") == {queue}
    ch.unbind_queue(queue, topic, "a.#", {"n": 2})
    assert routes.reached(topic, "a.b") == set()


@pytest.mark.needs("quick-patterns")
@pytest.mark.parametrize("pattern", [".".join("#" * 20), ".".join("#" * 20) + ".z", "#.a." * 30 + "#"])
def test_a_pattern_made_to_be_slow_is_not(routes: Routes, topic: str, pattern: str) -> None:
    """§38: at most 1 ms for a key of 127 words; here it has to end at all."""
    routes.queue(topic, pattern)
    routes.reached(topic, ".".join("b" * 127))
