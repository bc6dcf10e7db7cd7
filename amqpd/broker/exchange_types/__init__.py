"""Exchange types: each finds the destinations of a message by the bindings of one exchange.

A type is one module of this package with one interface, `ExchangeType`; to add a type, add a module. The exchange
(`broker/exchange.py`) owns the bindings and their identity; `broker/routing.py` has alternate exchanges and the walk
from exchange to exchange. Destinations are opaque here.

Invariants: a binding is bound once before it is unbound, and unbound at most once; a destination is found exactly if at
least one binding to it matches.
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
    """Whether `route` reads the headers. If not, a result for a key is valid until the next bind or unbind."""

    steps = 0
    """The cost of the last `route` beyond a look-up, in steps of broker/effort.py."""

    @property
    def reads_key(self) -> bool:
        """Whether the result of `route` depends on the routing key, with the current bindings."""
        return True

    @property
    def is_large(self) -> bool:
        """Whether `route` may take long even for one routing key, so that `routes` must be used."""
        return False

    def check_binding(self, binding: BindingDefinition) -> None:
        """Refuse a binding whose arguments this type cannot match; most types accept all arguments.

        Raises ChannelException: PRECONDITION_FAILED.
        """

    @abstractmethod
    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        """Route messages that match this binding to this destination."""

    @abstractmethod
    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        """Remove a binding made by `bind`. Other bindings to the same destination stay."""

    @abstractmethod
    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        """Return the destinations of a message as the keys, in any order; the values have no meaning.

        The result may be a view of this object, and must be read before the next bind or unbind.
        """

    def routes(self, routing_keys: Collection[str], headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        """Yield the destinations of a message with all of these keys, in pieces; bindings may change in between.

        A piece may be empty, and must be read before the next bind or unbind.
        """
        for key in routing_keys:
            yield self.route(key, headers)


class Destinations(dict[Destination, int]):
    """Destinations, each with the number of its bindings. Iterates over each destination once."""

    __slots__ = ()

    def join(self, destination: Destination) -> None:
        """Count one more binding to this destination."""
        self[destination] = self.get(destination, 0) + 1

    def part(self, destination: Destination) -> None:
        """Count one binding less, and remove the destination with its last one."""
        left = self[destination] - 1
        if left:
            self[destination] = left
        else:
            del self[destination]


NOWHERE: Mapping[Any, int] = {}


@cache
def exchange_types() -> Mapping[str, type[ExchangeType[Any]]]:
    """Return every exchange type by its name; they are found once, among the modules of this package."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    found = [value for module in modules for value in vars(module).values() if _is_type_of(module.__name__, value)]
    return {exchange_type.name: exchange_type for exchange_type in found}


def exchange_type(name: str) -> type[ExchangeType[Any]] | None:
    """Return the exchange type of this name, or None if it does not exist."""
    return exchange_types().get(name)


def _is_type_of(module_name: str, value: object) -> bool:
    return isinstance(value, type) and issubclass(value, ExchangeType) and value.__module__ == module_name
