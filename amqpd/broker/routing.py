"""The walk from an exchange to queues: through bindings, exchanges bound to exchanges, and alternate exchanges.

One walk says where a message goes, and whether anything on its way reads the message's headers. It visits each
exchange once, so a circle ends. RabbitMQ docs/ae, docs/e2e.

A walk can be long, and so it can stop: `step` goes on until the walk is done or the slice of work is spent. What
other clients bind and unbind in the meantime is seen by the exchanges that the walk has not visited yet, and not by
the others. The answer of one exchange to one routing key is never cut.
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

    `needs_headers`: no headers were given, and an exchange on the way reads them; then `queues` is empty.
    """

    __slots__ = (
        "queues", "needs_headers", "is_done", "_exchanges", "_keys", "_read", "_headers", "_reached", "_to_visit",
        "_at")

    def __init__(
        self, exchanges: Mapping[str, Exchange], start: Exchange, keys: Collection[str],
        read_headers: Callable[[], Headers] | None = None,
    ) -> None:
        self.queues: list[Queue] = []
        self.needs_headers = self.is_done = False
        self._exchanges = exchanges
        self._keys = keys
        self._read = read_headers
        self._headers: Headers | None = None
        self._reached: dict[Destination, None] = {start: None}
        self._to_visit = [start]
        self._at = 0

    def step(self, effort: Effort) -> bool:
        """Walk on until the slice is spent, but at least past one exchange; return whether the walk is done."""
        while self._at < len(self._to_visit):
            source = self._to_visit[self._at]
            self._at += 1
            if source.reads_headers and self._headers is None:
                if self._read is None:
                    self.needs_headers = self.is_done = True
                    self.queues = []
                    return True
                self._headers = self._read()
            effort.total += self._visit(source)
            if effort.is_spent and self._at < len(self._to_visit):
                return False
        self.is_done = True
        return True

    def _visit(self, source: Exchange) -> int:
        """Follow what leaves this exchange; return the steps that took."""
        headers = NO_HEADERS if self._headers is None else self._headers
        found = [destination for key in self._keys for destination in source.route(key, headers)]
        if not found and source.alternate is not None and source.alternate in self._exchanges:
            found = [self._exchanges[source.alternate]]
        for destination in found:
            if destination in self._reached:
                continue
            self._reached[destination] = None
            if isinstance(destination, Queue):
                self.queues.append(destination)
            else:
                self._to_visit.append(destination)
        return 1 + len(self._keys) + len(found)


class Routing:
    """The routes of one vhost."""

    def __init__(self, exchanges: Mapping[str, Exchange], effort: Effort) -> None:
        self._exchanges = exchanges
        self._effort = effort

    def walk(
        self, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers] | None = None
    ) -> Walk:
        """Return a walk from this exchange that has not begun; the headers are read when the first exchange asks."""
        return Walk(self._exchanges, start, keys, read_headers)

    def route(
        self, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers]
    ) -> list[Queue]:
        """Return the queues that a message reaches from here, each once, in one go."""
        walk = self.walk(start, keys, read_headers)
        while not walk.step(self._effort):
            pass
        return walk.queues
