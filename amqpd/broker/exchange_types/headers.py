"""The headers exchange: a binding's arguments are held against a message's headers, the routing key plays no part.

A binding asks for headers, each by value or, where its value is void, by presence; `x-match` says whether
all must be there or any will do, and whether those named `x-…` count. Bindings that ask the same share one
`_Rule`, found from each header it asks for: what a message costs is what it hits, not what is bound.

Invariants: a rule is listed under each of its criteria exactly while some binding leads through it.

Spec: §3.1.3.4; RabbitMQ docs/exchanges and, for what it compares, its `rabbit_exchange_type_headers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Generic

from amqpd.broker.arguments import as_term
from amqpd.broker.definitions import Arguments, BindingDefinition
from amqpd.broker.exchange_types import Destination, Destinations, ExchangeType
from amqpd.errors import ChannelException, ReplyCode
from amqpd.fields import Value, long_string, type_name

X_MATCH = "x-match"
_WAYS_TO_MATCH = ("all", "any", "all-with-x", "any-with-x")
_PRESENT = object()

Criterion = tuple[str, Hashable]
"""A header and the value it is to have, or `_PRESENT`."""


class HeadersExchange(ExchangeType[Destination]):
    """Routes by the headers."""

    name = "headers"
    reads_headers = True

    def __init__(self) -> None:
        self._rules: dict[tuple[frozenset[Criterion], int], _Rule[Destination]] = {}
        self._by_header: dict[str, dict[Hashable, set[_Rule[Destination]]]] = {}

    def check_binding(self, binding: BindingDefinition) -> None:
        way = binding.arguments.get(X_MATCH, "all")
        if type_name(way) != "longstr":
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED,
                f"Invalid x-match field type {type_name(way)} (value {as_term(way)}); expected longstr",
            )
        if way not in _WAYS_TO_MATCH:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED,
                f"Invalid x-match field value {as_term(way)}; expected all, any, all-with-x, or any-with-x",
            )

    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        criteria, needed = _demand(binding.arguments)
        rule = self._rules.setdefault((criteria, needed), _Rule(needed))
        rule.destinations.join(destination)
        for header, value in criteria:
            self._by_header.setdefault(header, {}).setdefault(value, set()).add(rule)

    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        criteria, needed = _demand(binding.arguments)
        rule = self._rules[criteria, needed]
        rule.destinations.part(destination)
        if rule.destinations:
            return
        del self._rules[criteria, needed]
        for header, value in criteria:
            by_value = self._by_header[header]
            by_value[value].remove(rule)
            if not by_value[value]:
                del by_value[value]
            if not by_value:
                del self._by_header[header]

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Destination]:
        hits: Counter[_Rule[Destination]] = Counter()
        for header in headers.keys() & self._by_header.keys():
            by_value = self._by_header[header]
            hits.update(by_value.get(_PRESENT, ()))
            hits.update(by_value.get(_comparable(headers[header]), ()))
        found = [rule.destinations for rule, count in hits.items() if count >= rule.needed]
        if (undemanding := self._rules.get((frozenset(), 0))) is not None:
            found.append(undemanding.destinations)
        return set().union(*found)


class _Rule(Generic[Destination]):
    """Where bindings with the same demand lead, and how many of their criteria a message must meet."""

    __slots__ = ("needed", "destinations")

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.destinations: Destinations[Destination] = Destinations()


def _demand(arguments: Arguments) -> tuple[frozenset[Criterion], int]:
    """What a binding asks for, and how much of it is enough: `all` of nothing is nothing, `any` of nothing is not."""
    way = arguments.get(X_MATCH, "all")
    criteria = frozenset(
        (header, _PRESENT if value is None else _comparable(value))
        for header, value in arguments.items()
        if header != X_MATCH and (way.endswith("-with-x") or not header.startswith("x-"))
    )
    return criteria, 1 if way.startswith("any") else len(criteria)


def _comparable(value: Value) -> Hashable:
    """Equal for values that RabbitMQ calls equal: 1 and 1.0, a string and its octets, but not 1 and true.

    What stands in an array or a table also has to be of the same type, and in the same order.
    """
    match value:
        case bool():
            return bool, value
        case bytes():
            return long_string(value)
        case Decimal():
            return Decimal, value.as_tuple()
        case list() | dict():
            return list, as_term(value)
        case _:
            return value
