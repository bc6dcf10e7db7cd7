"""The walk from an exchange to queues: through bindings, exchanges bound to exchanges, and alternate exchanges.

One walk says where a message goes, and whether anything on its way reads the message's headers. It visits each
exchange once, so a circle ends. RabbitMQ docs/ae, docs/e2e.

A walk can be long, and so it can stop: `step` goes on until the walk is done or the slice of work is spent. What
other clients bind and unbind in the meantime is seen by the exchanges that the walk has not visited yet, and not by
the others; `is_current` tells. The answer of one exchange to one routing key is never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from amqpd.broker.effort import Effort
from amqpd.broker.exchange import Destination, Exchange
from amqpd.broker.queue import Queue

Headers = Mapping[str, Any]
NO_HEADERS: Headers = {}


class Walk:
    """The way of one message, or of all that have these routing keys.

    `queues` are those that have been found, each once. With `needs_headers` there are none: no headers were given,
    and an exchange on the way reads them.
    """

    __slots__ = (
        "queues", "needs_headers", "_routing", "_keys", "_read_headers", "_headers", "_reached", "_to_visit", "_at",
        "_visited", "_exchanges_added")

    def __init__(
        self, routing: Routing, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers] | None
    ) -> None:
        self.queues: list[Queue] = []
        self.needs_headers = False
        self._routing = routing
        self._keys = keys
        self._read_headers = read_headers
        self._headers: Headers | None = None
        self._reached: dict[Destination, None] = {start: None}
        self._to_visit = [start]
        self._at = 0
        self._visited: list[tuple[Exchange, int]] = []      # with its changes when it was visited
        self._exchanges_added: int | None = None            # how many, when an alternate was found missing

    def step(self, effort: Effort) -> bool:
        """Walk on until the slice is spent, but at least past one exchange; return whether the walk is done."""
        while self._at < len(self._to_visit):
            source = self._to_visit[self._at]
            self._at += 1
            self._visited.append((source, source.changes))
            if source.reads_headers and self._headers is None:
                if self._read_headers is None:
                    self.needs_headers = True
                    self.queues = []
                    break
                self._headers = self._read_headers()
            effort.total += self._visit(source)
            if effort.is_spent and self._at < len(self._to_visit):
                return False
        if not self.is_current:
            self.queues = [queue for queue in self.queues if not queue.deleted]
        return True

    def _visit(self, source: Exchange) -> int:
        """Follow what leaves this exchange; return the steps that took."""
        headers = NO_HEADERS if self._headers is None else self._headers
        found = [destination for key in self._keys for destination in source.route(key, headers)]
        if not found and source.alternate is not None:
            alternate = self._routing.exchanges.get(source.alternate)
            if alternate is not None:
                found = [alternate]
            else:
                self._exchanges_added = self._routing.exchanges_added
        for destination in found:
            if destination in self._reached:
                continue
            self._reached[destination] = None
            if isinstance(destination, Queue):
                self.queues.append(destination)
            else:
                self._to_visit.append(destination)
        return 1 + len(self._keys) + len(found)

    @property
    def is_current(self) -> bool:
        """Return whether the same walk, begun now, would find the same."""
        if self._exchanges_added is not None and self._exchanges_added != self._routing.exchanges_added:
            return False
        return all([exchange.changes == changes for exchange, changes in self._visited])


class Routing:
    """The routes of one vhost. `exchanges_added` counts the exchanges that were ever added to it."""

    def __init__(self, exchanges: Mapping[str, Exchange], effort: Effort) -> None:
        self.exchanges = exchanges
        self.exchanges_added = 0
        self._effort = effort

    def walk(
        self, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers] | None = None
    ) -> Walk:
        """Return a walk from this exchange that has not begun; the headers are read when the first exchange asks."""
        return Walk(self, start, keys, read_headers)

    def route(
        self, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers]
    ) -> list[Queue]:
        """Return the queues that a message reaches from here, each once, in one go."""
        walk = self.walk(start, keys, read_headers)
        while not walk.step(self._effort):
            pass
        return walk.queues
