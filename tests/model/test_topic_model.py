"""A topic exchange against a simple matcher, with random binds and unbinds."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types.topic import TopicExchange

# Few words, so that keys meet; the empty word and wildcards also where only literal words are meant.
routing_keys = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=6).map(".".join)
binding_keys = st.lists(st.sampled_from(["a", "b", "", "*", "#", "#", "*a"]), max_size=7).map(".".join)
destinations = st.sampled_from(["p", "q", "r"])


def matches(pattern: list[str], words: list[str]) -> bool:
    """The definition, word by word."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


def split(key: str) -> list[str]:
    return key.split(".") if key else []


def binding(key: str) -> BindingDefinition:
    return BindingDefinition("/", "x", "queue", "q", key)


class TopicMachine(RuleBasedStateMachine):
    """Bindings come and go; routes are asked for in between."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange: TopicExchange[str] = TopicExchange()
        self.bound: Counter[tuple[str, str]] = Counter()

    @rule(key=binding_keys, destination=destinations)
    def bind(self, key: str, destination: str) -> None:
        self.exchange.bind(binding(key), destination)
        self.bound[key, destination] += 1

    @rule(data=st.data())
    def unbind(self, data: st.DataObject) -> None:
        if not self.bound:
            return
        key, destination = data.draw(st.sampled_from(sorted(self.bound)))
        self.exchange.unbind(binding(key), destination)
        self.bound -= Counter([(key, destination)])

    @rule(routing_key=routing_keys)
    def route(self, routing_key: str) -> None:
        found = list(self.exchange.route(routing_key, {}))
        assert len(found) == len(set(found)), "a destination is named twice"
        assert set(found) == {
            destination for key, destination in self.bound if matches(split(key), split(routing_key))
        }

    @invariant()
    def the_trie_holds_its_promises(self) -> None:
        self.exchange.check()

    @invariant()
    def nothing_is_left_when_nothing_is_bound(self) -> None:
        assert self.bound or not self.exchange._root.children


TestTopicMachine = TopicMachine.TestCase


@given(key=binding_keys, routing_key=routing_keys)
def test_one_binding_matches_what_its_definition_says(key: str, routing_key: str) -> None:
    exchange: TopicExchange[str] = TopicExchange()
    exchange.bind(binding(key), "q")
    assert bool(list(exchange.route(routing_key, {}))) == matches(split(key), split(routing_key))
