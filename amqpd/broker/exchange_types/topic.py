"""The topic exchange: binding keys are patterns of words, `*` for one word and `#` for any number of them.

The binding keys form a trie. A node has a label of one or more words, so that there are at most two nodes for a binding
key without `#`, however long it is. A `#` is a node of its own.

A routing key is matched like a finite automaton does. Above any `#`, a node is reached at one position in the routing
key. Below a `#` it is reached at all of its positions at once: a set of positions is an integer with a bit for each of
the at most 129 positions. So each node is visited at most once, no pattern makes the exchange repeat work, and bindings
that do not match cost nothing.

In a trie of very many nodes the search is cut into pieces, so that other clients are served. If they bind or unbind
meanwhile, nodes may have been split or joined: then the search starts again, and after some restarts it is not cut.

Keys are split at each dot, and words may be empty: the empty key has no words, `.` has two empty ones.

Invariants, asserted by `check`: each node except the root leads to a destination; a node without a destination
has several children, unless it or its child is a `#`; no wildcard follows a `#` (see `_canonical`).

Spec: §3.1.3.3; RabbitMQ docs/exchanges.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Generic

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types import NOWHERE, Destination, Destinations, ExchangeType

# Words contain no dots, so that the `*` or `#` of a routing key, an ordinary word there, is never taken for a wildcard.
ONE_WORD = ".*"
ANY_WORDS = ".#"

LARGE = 1_000       # nodes, from which on searches are cut
NODES_A_PIECE = 250
MOST_TRIES = 3      # attempts of a search that is cut
COLD = 2            # factor for the cost of a node if there are too many for the processor's cache

_Words = tuple[str, ...]
_Marks = dict[str, int]     # words, each with its positions as bits


class TopicExchange(ExchangeType[Destination]):
    """Routes by the words of the routing key."""

    name = "topic"

    def __init__(self) -> None:
        self._root: _Node[Destination] = _Node(())
        self._size = 0          # nodes below the root
        self._changes = 0

    @property
    def is_large(self) -> bool:
        return self._size > LARGE

    @property
    def reads_key(self) -> bool:
        """Whether there is a binding by another key than `#`."""
        return bool(self._root.destinations) or any(
            word != ANY_WORDS or node.children for word, node in self._root.children.items())

    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        node, words = self._root, _canonical(binding.routing_key)
        self._changes += 1
        while words:
            child = node.children.get(words[0])
            if child is None:
                child = node.children[words[0]] = _Node(_first_label(words))
                self._size += 1
            elif (common := _common(child.label, words)) < child.size:
                child = _split(node, child, common)
                self._size += 1
            node, words = child, words[len(child.label) :]
        node.destinations.join(destination)

    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        words = _canonical(binding.routing_key)
        path = [self._root]
        self._changes += 1
        while words:
            path.append(path[-1].children[words[0]])
            words = words[len(path[-1].label) :]
        path[-1].destinations.part(destination)
        while len(path) > 1:
            node = path.pop()
            if node.destinations or len(node.children) > 1:
                return
            if node.children:
                self._size -= _merge(path[-1], node)
                return
            del path[-1].children[node.label[0]]
            self._size -= 1

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        found: dict[Destination, int] = {}
        self.steps = sum(self._search(routing_key, found))
        return found

    def routes(self, routing_keys: Collection[str], headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        for key in routing_keys:
            if self.is_large:
                yield from self._route_in_pieces(key, headers)
            else:
                yield self.route(key, headers)

    def _route_in_pieces(self, routing_key: str, headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        for _ in range(MOST_TRIES):
            changes = self._changes
            found: dict[Destination, int] = {}
            for steps in self._search(routing_key, found):
                self.steps = COLD * steps
                yield NOWHERE
                if self._changes != changes:
                    break
            else:
                self.steps = 0
                yield found
                return
        yield self.route(routing_key, headers)

    def _search(self, routing_key: str, found: dict[Destination, int]) -> Iterator[int]:
        """Add the destinations of this key to `found`; yield the steps of each piece."""
        words = tuple(routing_key.split(".")) if routing_key else ()
        end = len(words)
        marks: _Marks = {}
        below_any: list[tuple[_Node[Destination], int]] = []
        to_visit = [(self._root, 0)]
        nodes = iter(to_visit)
        visited = 0
        while visited < len(to_visit):
            if visited:
                yield NODES_A_PIECE
            visited += NODES_A_PIECE
            for node, at in islice(nodes, NODES_A_PIECE):
                if at == end:
                    found.update(node.destinations)
                children = node.children
                if not children:
                    continue
                if ANY_WORDS in children:
                    below_any.append((children[ANY_WORDS], at))
                if at == end:
                    continue
                for word in (words[at], ONE_WORD):
                    if word in children:
                        child = children[word]
                        size = child.size
                        if size > 1 and child.label != words[at : at + size]:
                            if not child.needed or at + size > end:
                                continue
                            marks = marks or _marks_of(words)
                            if not _fits(child, marks, at):
                                continue
                        to_visit.append((child, at + size))
        yield len(to_visit) - visited + NODES_A_PIECE
        if below_any:
            yield from self._search_below_any(words, marks or _marks_of(words), below_any, found)

    def _search_below_any(
        self, words: _Words, marks: _Marks, below_any: list[tuple[_Node[Destination], int]],
        found: dict[Destination, int],
    ) -> Iterator[int]:
        """Do as `_search` at and below nodes of a `#`; each comes with the position from which on it matches."""
        end = 1 << len(words)
        everywhere = 2 * end - 1
        tries = looks = 0       # attempts of words that may lead on, and comparisons with words of labels
        to_visit = [(node, everywhere & -(1 << at)) for node, at in below_any]
        nodes = iter(to_visit)
        visited = 0
        while visited < len(to_visit):
            if visited:
                yield NODES_A_PIECE + (tries >> 3) + (looks >> 2)
                tries = looks = 0
            visited += NODES_A_PIECE
            for node, places in islice(nodes, NODES_A_PIECE):
                if places >= end:
                    found.update(node.destinations)
                children = node.children
                entered: Iterable[str] = children
                if len(children) > len(marks):
                    entered = children.keys() & marks.keys()
                    if ANY_WORDS in children:
                        entered.add(ANY_WORDS)
                    tries += len(marks)
                else:
                    tries += len(children)
                for word in entered:
                    child = children[word]
                    if word is ANY_WORDS:
                        after = everywhere & -(places & -places)
                    else:
                        after = (places & marks.get(word, 0)) << 1
                        if after and child.size > 1:
                            for word in child.label[1:]:
                                looks += 1
                                after = (after & marks.get(word, 0)) << 1
                    if after:
                        to_visit.append((child, after))
        yield len(to_visit) - visited + NODES_A_PIECE + (tries >> 3) + (looks >> 2)

    def check(self) -> None:
        """Assert what must hold between calls."""
        below = [("", self._root)]
        size = -1
        while below:
            word, node = below.pop()
            size += 1
            children = node.children
            if node is not self._root:
                assert node.label[0] == word and (ANY_WORDS not in node.label or node.label == (ANY_WORDS,))
                assert node.destinations or children, "a node leads nowhere"
                assert node.destinations or len(children) > 1 or ANY_WORDS in (word, *children), "a node is not needed"
            assert word != ANY_WORDS or not children.keys() & {ONE_WORD, ANY_WORDS}, "a wildcard follows a #"
            below += children.items()
        assert size == self._size, "nodes are not counted as they are"


class _Node(Generic[Destination]):
    """A node of the trie. `destinations` are those of the binding keys that end here.

    If the label has several words, at least one of them a `*`, `needed` has all words with their positions.
    """

    __slots__ = ("label", "size", "needed", "children", "destinations")

    def __init__(self, label: _Words) -> None:
        self.children: dict[str, _Node[Destination]] = {}
        self.destinations: Destinations[Destination] = Destinations()
        self.relabel(label)

    def relabel(self, label: _Words) -> None:
        """Change the label of this node."""
        self.label = label
        self.size = len(label)
        self.needed = _marks_of(label) if self.size > 1 and ONE_WORD in label else {}


def _marks_of(words: _Words) -> _Marks:
    """Return the distinct words of a routing key, each with its positions; `*` stands at all of them."""
    marks = {ONE_WORD: (1 << len(words)) - 1}
    for at, word in enumerate(words):
        marks[word] = marks.get(word, 0) | 1 << at
    return marks


def _fits(node: _Node[Any], marks: _Marks, at: int) -> bool:
    """Return whether the words of a node's label stand at this position of a routing key that is long enough."""
    for word, needed in node.needed.items():
        if (marks.get(word, 0) >> at) & needed != needed:
            return False
    return True


def _first_label(words: _Words) -> _Words:
    """Return the longest label that the words begin with: `#` alone, or all words up to the next `#`."""
    if words[0] is ANY_WORDS:
        return words[:1]
    return words[: words.index(ANY_WORDS)] if ANY_WORDS in words else words


def _common(label: _Words, words: _Words) -> int:
    """Return how many words these have in common at their beginning."""
    count = 0
    for one, other in zip(label, words):
        if one != other:
            break
        count += 1
    return count


def _split(parent: _Node[Destination], node: _Node[Destination], size: int) -> _Node[Destination]:
    """Insert a new node between the two, with the first `size` words of this node's label, and return it."""
    between: _Node[Destination] = _Node(node.label[:size])
    parent.children[node.label[0]] = between
    node.relabel(node.label[size:])
    between.children[node.label[0]] = node
    return between


def _merge(parent: _Node[Destination], node: _Node[Destination]) -> bool:
    """Join a node that leads only to one child with that child, unless one of them is a `#`.

    Return whether that was done.
    """
    child, = node.children.values()
    if ANY_WORDS in (node.label[0], child.label[0]):
        return False
    child.relabel(node.label + child.label)
    parent.children[node.label[0]] = child
    return True


def _canonical(binding_key: str) -> _Words:
    """Return the words of a binding key, with each run of wildcards written as its `*`s and then at most one `#`.

    `#.*.#` and `*.#` match the same keys; one spelling for both avoids `#` after `#`.
    """
    words: list[str] = []
    owes_any = False
    for word in binding_key.split(".") if binding_key else ():
        if word == "#":
            owes_any = True
        elif word == "*":
            words.append(ONE_WORD)
        else:
            words += (ANY_WORDS, word) if owes_any else (word,)
            owes_any = False
    return (*words, ANY_WORDS) if owes_any else tuple(words)
