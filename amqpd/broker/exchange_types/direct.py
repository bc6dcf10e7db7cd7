"""The direct exchange: a message goes to every destination with a binding key equal to its routing key.

Spec: §3.1.3.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types import NOWHERE, Destination, Destinations, ExchangeType


class DirectExchange(ExchangeType[Destination]):
    """Routes by one look-up."""

    name = "direct"

    def __init__(self) -> None:
        self._by_key: dict[str, Destinations[Destination]] = {}

    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        self._by_key.setdefault(binding.routing_key, Destinations()).join(destination)

    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        destinations = self._by_key[binding.routing_key]
        destinations.part(destination)
        if not destinations:
            del self._by_key[binding.routing_key]

    @property
    def reads_key(self) -> bool:
        return bool(self._by_key)

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        return self._by_key.get(routing_key, NOWHERE)

    def routes(self, routing_keys: Collection[str], headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        bound = self._by_key.keys() & routing_keys      # costs as much as the smaller of the two
        found: dict[Destination, int] = {}
        for key in bound:
            found.update(self._by_key[key])
        self.steps = len(bound) >> 2
        yield found
        self.steps = 0
