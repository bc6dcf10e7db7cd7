"""The bindings of a vhost, each known at both of its ends.

A source exchange holds the bindings from it (`broker/exchange.py`). This holds the bindings to each queue and exchange,
so that a destination is deleted without a search through all exchanges. `broker/vhost.py` checks permissions and
records in the journal.

Always true between calls: a binding that is known at one end is known at the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange import BindingKey, Destination, Exchange

BINDING_STEPS = 10      # the cost of removing a binding; see broker/effort.py
BYTES_A_STEP = 4       # and of its arguments, which a headers exchange removes one by one

_End = tuple[str, str]      # "queue" or "exchange", and its name


def steps_to_remove(key: BindingKey) -> int:
    """Return the cost of removing the binding of this key."""
    *_, arguments = key
    return BINDING_STEPS + len(arguments) // BYTES_A_STEP


class Bindings:
    """All bindings of one vhost except those of the default exchange. Iterates over their definitions."""

    def __init__(self) -> None:
        self._incoming: dict[_End, dict[tuple[str, BindingKey], BindingDefinition]] = {}

    def __iter__(self) -> Iterator[BindingDefinition]:
        """Yield all bindings, which may be added and removed meanwhile: a long list is read over several turns."""
        for incoming in [*self._incoming.values()]:
            yield from [*incoming.values()]

    def leading_to(self, kind: str, name: str) -> list[tuple[str, BindingKey]]:
        """Return sources and keys of the bindings to this queue or exchange; `kind` is "queue" or "exchange"."""
        return list(self._incoming.get((kind, name), ()))

    def definitions_to(self, kind: str, name: str) -> Iterator[BindingDefinition]:
        """Yield the bindings to this queue or exchange, which may be added and removed meanwhile."""
        yield from [*self._incoming.get((kind, name), {}).values()]

    def count_to(self, kind: str, name: str) -> int:
        """Return the number of these bindings."""
        return len(self._incoming.get((kind, name), ()))

    def add(
        self, source: Exchange, key: BindingKey, binding: BindingDefinition, destination: Destination
    ) -> None:
        """Add a binding at both ends; its key comes from `Exchange.new_key`."""
        source.add(key, binding, destination)
        incoming = self._incoming.setdefault((binding.destination_type, binding.destination), {})
        incoming[binding.source, key] = binding

    def remove(self, source: Exchange, key: BindingKey) -> tuple[BindingDefinition, Destination]:
        """Remove an existing binding from both ends; return it and its destination."""
        binding, destination = source.unbind(key)
        end = binding.destination_type, binding.destination
        incoming = self._incoming[end]
        del incoming[binding.source, key]
        if not incoming:
            del self._incoming[end]
        return binding, destination

    def check(self, exchanges: Mapping[str, Exchange], queues: Mapping[str, Destination]) -> None:
        """Assert what must hold between calls."""
        for exchange in exchanges.values():
            for binding, destination in exchange.bindings.values():
                ends: Mapping[str, Destination] = queues if binding.destination_type == "queue" else exchanges
                assert ends.get(binding.destination) is destination, "a binding leads to something deleted"
        noted = sum(len(incoming) for incoming in self._incoming.values())
        assert noted == sum(len(exchange.bindings) for exchange in exchanges.values()), "bindings known at one end only"
