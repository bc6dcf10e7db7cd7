"""The walk from an exchange to queues: through bindings, exchanges bound to exchanges, and alternate exchanges.

One walk finds the destinations of a message, and whether any exchange on its way reads the message's headers. It visits
each exchange once, so that a cycle ends. RabbitMQ docs/ae, docs/e2e.

A walk can be long, so it can pause: `step` goes on until the walk is done or the slice is used up. If other clients
bind or unbind in the meantime, exchanges that the walk has not visited yet use the new bindings, the others do not;
`is_current` tells. The route of one exchange for one routing key is cut only if it may take long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any

from amqpd.broker.effort import Effort
from amqpd.broker.exchange import Destination, Exchange
from amqpd.broker.queue.queue import Queue

LONG_WALK = 10          # references from which on a walk is worth caching
FEWEST_GONE = 16        # deleted queues and exchanges, for which the cache is cleared
MOST_KNOWN = 200_000    # references to queues and exchanges in all cached walks of a vhost

Headers = Mapping[str, Any]
NO_HEADERS: Headers = {}


class Walk:
    """The walk of one message, or of all messages with these routing keys.

    `queues` are those found so far, each once. With `needs_headers` there are none: an exchange on the way reads
    headers, and none were given. `reads_key` is whether another routing key might have had another result.
    """

    __slots__ = (
        "queues", "needs_headers", "reads_key", "_routing", "_keys", "_key", "_read_headers", "_headers",
        "_reached", "_to_visit", "_at", "_pieces", "_is_routed", "_visited", "_exchanges_added", "_is_kept")

    def __init__(
        self, routing: Routing, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers] | None,
        *, is_kept: bool = False,
    ) -> None:
        self.queues: list[Queue] = []
        self.needs_headers = self.reads_key = False
        self._routing = routing
        self._keys = keys
        self._key = next(iter(keys))
        self._read_headers = read_headers
        self._headers: Headers = NO_HEADERS
        self._reached: dict[Destination, int] = {start: 1}
        self._to_visit = [start]
        self._at = 0
        self._pieces: Iterator[Mapping[Destination, int]] | None = None     # the results of the current exchange
        self._is_routed = False                             # whether it has found any destination
        self._visited: list[tuple[Exchange, int]] = []      # with its changes when it was visited
        self._exchanges_added: int | None = None            # the number of exchanges, when an alternate was missing
        self._is_kept = is_kept                             # whether to cache it when it is done

    def step(self, effort: Effort) -> bool:
        """Walk on until the slice is used up, at least one piece; return whether the walk is done."""
        has_begun = False
        while self._pieces is not None or self._at < len(self._to_visit):
            if has_begun and effort.is_spent:
                return False
            has_begun = True
            steps = self._visit() if self._pieces is None else self._take_piece(self._pieces)
            effort.total += steps       # not before, as reading the headers counts itself
        self.queues = [queue for queue in self.queues if not queue.deleted]
        if self._is_kept and self.is_current:
            self._is_kept = False
            self._routing.remember(self)
        return True

    def _visit(self) -> int:
        """Route by the next exchange, or begin to if that may take long; return the steps."""
        source = self._to_visit[self._at]
        self._at += 1
        self._visited.append((source, source.changes))
        if source.reads_headers and self._headers is NO_HEADERS:
            if self._read_headers is None:
                self.needs_headers = True
                self.queues = []
                self._at = len(self._to_visit)
                return 1
            self._headers = self._read_headers()
        reads_key = source.reads_key
        self.reads_key = self.reads_key or reads_key
        if source.is_large or (reads_key and len(self._keys) > 1):
            self._pieces = source.routes(self._keys, self._headers)
            self._is_routed = False
            return 1
        found = source.route(self._key, self._headers)
        if found:
            return 1 + source.steps + self._reach(found)
        return 1 + source.steps + self._turn_to_alternate(source)

    def _take_piece(self, pieces: Iterator[Mapping[Destination, int]]) -> int:
        """Take one piece of the current exchange's results for many keys; return the steps."""
        source = self._to_visit[self._at - 1]
        found = next(pieces, None)
        if found is None:
            self._pieces = None
            return 0 if self._is_routed else self._turn_to_alternate(source)
        if not found:
            return 1 + source.steps
        self._is_routed = True
        return 1 + source.steps + self._reach(found)

    def _turn_to_alternate(self, source: Exchange) -> int:
        """Go on to the alternate of an exchange that found no destination; return the steps."""
        if source.alternate is None:
            return 0
        alternate = self._routing.exchanges.get(source.alternate)
        if alternate is None:
            self._exchanges_added = self._routing.exchanges_added
            return 0
        return self._reach({alternate: 1})

    def _reach(self, found: Mapping[Destination, int]) -> int:
        """Add destinations to those found so far; return the steps, which are fewer for known ones."""
        reached = self._reached
        known = len(reached)
        reached.update(found)
        new = len(reached) - known
        if new:
            for destination in [*islice(reversed(reached), new)][::-1]:
                if isinstance(destination, Exchange):
                    self._to_visit.append(destination)
                else:
                    self.queues.append(destination)
        return (len(found) >> 5) + (new >> 3)

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges that the walk has visited."""
        return [exchange for exchange, _ in self._visited]

    @property
    def start(self) -> tuple[Exchange, str]:
        """The exchange at which the walk begins, and the first routing key."""
        return self._to_visit[0], self._key

    @property
    def size(self) -> int:
        """The number of references that it holds once it is done."""
        return len(self.queues) + 2 * len(self._visited)

    @property
    def is_current(self) -> bool:
        """Whether the same walk, begun now, would have the same result."""
        if self._exchanges_added is not None and self._exchanges_added != self._routing.exchanges_added:
            return False
        return all([exchange.changes == changes for exchange, changes in self._visited])

    def mark_remembered(self) -> None:
        """Mark everything that this walk refers to."""
        for queue in self.queues:
            queue.is_remembered = True
        for exchange, _ in self._visited:
            exchange.is_remembered = True

    def let_go(self) -> None:
        """Drop what only an unfinished walk needs."""
        self._reached = {}
        self._to_visit = self._to_visit[:1]
        self._at = 1


class Routing:
    """The routes of one vhost. `exchanges_added` counts the exchanges that were ever added to it.

    `version` rises whenever what sessions cache of an earlier walk, or of a right to publish, might be outdated.

    Long walks are cached by exchange and routing key, or by exchange alone if the key does not matter. A cached walk is
    valid as long as none of the exchanges that it visited has changed, whatever else is declared in the vhost.
    `most_known` is how many references to queues and exchanges all cached walks may have.
    """

    def __init__(self, exchanges: Mapping[str, Exchange], effort: Effort, *, most_known: int = MOST_KNOWN) -> None:
        self.exchanges = exchanges
        self.most_known = most_known
        self.exchanges_added = 0
        self.version = 0
        self._effort = effort
        self._known: dict[tuple[Exchange, str | None], Walk] = {}
        self._known_size = 0
        self._gone = 0          # deleted queues and exchanges that cached walks refer to

    def walk(self, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers]) -> Walk:
        """Return a new walk from this exchange; the headers are read when the first exchange asks for them."""
        return Walk(self, start, keys, read_headers)

    def at_once(self, start: Exchange, key: str) -> list[Queue] | None:
        """Return the queues of a route that ends at its first exchange; None if a walk is needed."""
        if start.bound_exchanges or start.reads_headers or start.alternate is not None or start.is_large:
            return None
        found = start.route(key, NO_HEADERS)
        self._effort.total += 1 + start.steps
        if len(found) >= LONG_WALK:
            return None
        return [queue for queue in found if isinstance(queue, Queue) and not queue.deleted]

    def find(self, start: Exchange, keys: Collection[str]) -> Walk:
        """Return a walk without headers: a cached one that is valid and done, or a new one."""
        key = next(iter(keys)) if len(keys) == 1 else None
        if self._known and key is not None:
            known = self._known.get((start, None)) or self._known.get((start, key))
            if known is not None:
                self._effort.total += known.size >> 5
                if known.is_current:
                    return known
                self._forget(known)
        return Walk(self, start, keys, None, is_kept=key is not None)

    def route(self, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers]) -> list[Queue]:
        """Return the queues that a message reaches from here, each once, without a pause."""
        if len(keys) == 1:
            walk = self.find(start, keys)
            self._finish(walk)
            if not walk.needs_headers:
                return walk.queues
        walk = self.walk(start, keys, read_headers)
        self._finish(walk)
        return walk.queues

    def _finish(self, walk: Walk) -> None:
        while not walk.step(self._effort):
            pass

    def remember(self, walk: Walk) -> None:
        """Cache a finished walk, if it was long."""
        if walk.size < LONG_WALK:
            return
        walk.let_go()
        if self._known_size + walk.size > self.most_known:
            self.forget()
        self._known[self._name_of(walk)] = walk
        self._known_size += walk.size
        walk.mark_remembered()

    def gone(self, destination: Destination) -> None:
        """Note that this queue or exchange is deleted. The cache is cleared once it refers to many deleted ones."""
        self._gone += destination.is_remembered
        if self._gone > max(FEWEST_GONE, len(self._known) // 8):
            self.forget()

    def forget(self) -> None:
        """Clear the cache: a deleted queue is still bound."""
        self._known.clear()
        self._known_size = self._gone = 0

    def _forget(self, walk: Walk) -> None:
        if self._known.pop(self._name_of(walk), None) is walk:
            self._known_size -= walk.size

    def _name_of(self, walk: Walk) -> tuple[Exchange, str | None]:
        start, key = walk.start
        return start, key if walk.reads_key else None
