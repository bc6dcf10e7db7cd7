"""Exchange types: each says where one exchange's bindings lead a message, and nothing else.

A type is one module of this package behind one interface, `ExchangeType`; to add one, add a file. The
exchange (`broker/exchange.py`) owns the bindings, their identity, alternate exchanges and the walk from
exchange to exchange; what it hands in here as a destination is opaque.

Invariants: a binding is bound once before it is unbound, and unbound at most once; a destination is led to
exactly while some binding to it matches, however many do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, Generic, TypeVar

from amqpd.broker.definitions import BindingDefinition

Destination = TypeVar("Destination", bound=Hashable)


class ExchangeType(ABC, Generic[Destination]):
    """The bindings of one exchange, arranged for matching."""

    name: ClassVar[str]
    reads_headers: ClassVar[bool] = False
    """Whether `route` looks at the headers. If not, its answer to a routing key holds until the next bind or unbind."""

    steps = 0
    """What the last `route` has cost beyond a look-up, in steps of broker/effort.py."""

    @property
    def reads_key(self) -> bool:
        """Return whether the answer of `route` depends on the routing key, with the bindings as they are."""
        return True

    @property
    def is_large(self) -> bool:
        """Return whether `route` may take long, even for one routing key, so that `routes` is to be asked."""
        return False

    def check_binding(self, binding: BindingDefinition) -> None:
        """Refuse a binding whose arguments this type cannot match by; most types take any.

        Raises ChannelException: PRECONDITION_FAILED.
        """

    @abstractmethod
    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        """Lead messages that match this binding to this destination."""

    @abstractmethod
    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        """Forget a binding made by `bind`. Other bindings to the same destination stay."""

    @abstractmethod
    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        """Say where a message goes: the destinations are the keys, in no promised order; the values mean nothing.

        The answer may be a view of this object, so it is read before the next bind or unbind.
        """

    def routes(self, routing_keys: Collection[str], headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        """Say where a message with all of these keys goes, in pieces, between which others may bind and unbind.

        A piece may be empty, and is read before the next bind or unbind.
        """
        for key in routing_keys:
            yield self.route(key, headers)


class Destinations(dict[Destination, int]):
    """Destinations, each with the number of bindings that join it. Iterates over each destination once."""

    __slots__ = ()

    def join(self, destination: Destination) -> None:
        """Count one more binding to this destination."""
        self[destination] = self.get(destination, 0) + 1

    def part(self, destination: Destination) -> None:
        """Count one binding less, and forget the destination with its last."""
        left = self[destination] - 1
        if left:
            self[destination] = left
        else:
            del self[destination]


NOWHERE: Mapping[Any, int] = {}


@cache
def exchange_types() -> Mapping[str, type[ExchangeType[Any]]]:
    """Every exchange type by its name, found once by walking this package's own modules."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    found = [value for module in modules for value in vars(module).values() if _is_type_of(module.__name__, value)]
    return {exchange_type.name: exchange_type for exchange_type in found}


def exchange_type(name: str) -> type[ExchangeType[Any]] | None:
    """The exchange type of this name, or None if there is none."""
    return exchange_types().get(name)


def _is_type_of(module_name: str, value: object) -> bool:
    return isinstance(value, type) and issubclass(value, ExchangeType) and value.__module__ == module_name
