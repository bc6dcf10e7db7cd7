"""The topic exchange: binding keys are patterns of words, `*` for one word and `#` for any number of them.

The binding keys form a trie, one node a word. A routing key is matched as a finite automaton would: after
each of its words the exchange holds every node that the words so far lead to, once. So the cost does not
grow with the number of bindings, and no pattern, whatever its wildcards, makes it try anything twice.

Keys are split at each dot, and words may be empty: the empty key has no words, `.` has two empty ones.

Invariants, asserted by `check`: each node but the root is on the way to a destination; no wildcard follows
a `#` (see `_canonical`).

Spec: §3.1.3.3; RabbitMQ docs/exchanges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types import Destination, Destinations, ExchangeType

# No word holds a dot, so the `*` or `#` of a routing key, a word like any other, is never taken for one of these.
ONE_WORD = ".*"
ANY_WORDS = ".#"


class TopicExchange(ExchangeType[Destination]):
    """Routes by the words of the routing key."""

    name = "topic"

    def __init__(self) -> None:
        self._root: _Node[Destination] = _Node()

    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        node = self._root
        for word in _canonical(binding.routing_key):
            node = node.children.setdefault(word, _Node())
        node.destinations.join(destination)

    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        words = _canonical(binding.routing_key)
        path = [self._root]
        for word in words:
            path.append(path[-1].children[word])
        path[-1].destinations.part(destination)
        while words and path.pop().is_empty:
            del path[-1].children[words.pop()]

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Destination]:
        reached = [self._root]
        lasting: dict[_Node[Destination], None] = {}    # the `#` nodes reached: further words leave us there
        for word in _split(routing_key):
            _enter_any_words(reached, lasting)
            reached = _step(word, reached) + _step(word, lasting)
        _enter_any_words(reached, lasting)
        found: dict[Destination, int] = {}
        for node in (*reached, *lasting):
            found.update(node.destinations)
        return found

    def check(self) -> None:
        """Assert what must hold between calls."""
        below = [("", self._root)]
        while below:
            word, node = below.pop()
            assert node is self._root or not node.is_empty, "a node leads nowhere"
            assert word != ANY_WORDS or not node.children.keys() & {ONE_WORD, ANY_WORDS}, "a wildcard follows a #"
            below += node.children.items()


class _Node(Generic[Destination]):
    """Where the words of a binding key lead; `destinations` are those of the binding keys that end here."""

    __slots__ = ("children", "destinations")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Destination]] = {}
        self.destinations: Destinations[Destination] = Destinations()

    @property
    def is_empty(self) -> bool:
        return not self.children and not self.destinations


def _enter_any_words(reached: Iterable[_Node[Destination]], lasting: dict[_Node[Destination], None]) -> None:
    for node in reached:
        if ANY_WORDS in node.children:
            lasting[node.children[ANY_WORDS]] = None


def _step(word: str, nodes: Iterable[_Node[Destination]]) -> list[_Node[Destination]]:
    reached = []
    for node in nodes:
        children = node.children
        if word in children:
            reached.append(children[word])
        if ONE_WORD in children:
            reached.append(children[ONE_WORD])
    return reached


def _canonical(binding_key: str) -> list[str]:
    """The words of a binding key, each run of wildcards in it as its `*`s and then at most one `#`.

    `#.*.#` and `*.#` match the same keys; one way to write them keeps `#` from following `#`.
    """
    words: list[str] = []
    owes_any = False
    for word in _split(binding_key):
        if word == "#":
            owes_any = True
        elif word == "*":
            words.append(ONE_WORD)
        else:
            words += (ANY_WORDS, word) if owes_any else (word,)
            owes_any = False
    return [*words, ANY_WORDS] if owes_any else words


def _split(key: str) -> list[str]:
    return key.split(".") if key else []
