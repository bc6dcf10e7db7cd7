"""The direct exchange: a message goes where a binding key equals its routing key.

Spec: §3.1.3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types import Destination, Destinations, ExchangeType


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

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Destination]:
        return self._by_key.get(routing_key, ())
