"""The fanout exchange: a message goes to every destination that is bound.

Spec: §3.1.3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types import Destination, Destinations, ExchangeType


class FanoutExchange(ExchangeType[Destination]):
    """Routes to every destination, whatever the routing key."""

    name = "fanout"

    def __init__(self) -> None:
        self._destinations: Destinations[Destination] = Destinations()

    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        self._destinations.join(destination)

    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        self._destinations.part(destination)

    @property
    def reads_key(self) -> bool:
        return False

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        return self._destinations
