"""A walk that also records how it came to each exchange and queue.

It is the walk that publishes use, with notes: so what it tells cannot differ from where messages go. Which binding
leads to a destination is asked of the exchange type itself, with that binding alone.

RabbitMQ docs/ae, docs/e2e.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from amqpd.broker.bindings import Bindings
from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange import Destination, Exchange
from amqpd.broker.routing import Headers, Routing, Walk


class Hop:
    """What the walk found at one exchange. With `is_unrouted`, `found` has the alternate exchange, if there is one."""

    __slots__ = ("found", "is_unrouted")

    def __init__(self) -> None:
        self.found: dict[Destination, None] = {}
        self.is_unrouted = False


class TracedWalk(Walk):
    """A walk for a message with these routing keys and headers. `hops` has the exchanges that it visited, in order."""

    __slots__ = ("hops", "keys", "headers")

    def __init__(
        self, routing: Routing, start: Exchange, keys: Collection[str], read_headers: Callable[[], Headers]
    ) -> None:
        super().__init__(routing, start, keys, read_headers)
        self.keys = keys
        self.headers = read_headers()
        self.hops: dict[Exchange, Hop] = {}

    def _visit(self) -> int:
        self.hops[self._to_visit[self._at]] = Hop()
        return super()._visit()

    def _turn_to_alternate(self, source: Exchange) -> int:
        self.hops[source].is_unrouted = True
        return super()._turn_to_alternate(source)

    def _reach(self, found: Mapping[Destination, int]) -> int:
        self.hops[self._to_visit[self._at - 1]].found.update(dict.fromkeys(found))
        return super()._reach(found)

    def bindings_used(
        self, bindings: Bindings, source: Exchange, destination: Destination
    ) -> Iterator[tuple[BindingDefinition, list[str]] | None]:
        """Yield each binding that leads the message to this destination, with the routing keys that it matches.

        Yield None for a binding that does not: so that the caller can pause. Bindings may change meanwhile.
        """
        kind = "exchange" if isinstance(destination, Exchange) else "queue"
        for name, key in bindings.leading_to(kind, destination.name):
            if name != source.name or key not in source.bindings:
                yield None
                continue
            binding, _ = source.bindings[key]
            matched = source.keys_matched(binding, self.keys, self.headers)
            yield (binding, matched) if matched else None
