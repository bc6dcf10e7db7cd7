"""The headers exchange: it compares the arguments of bindings with a message's headers and ignores the routing key.

A binding names headers, each with a value, or with a void value, which means presence; `x-match` says whether all of
them must be there or any, and whether headers named `x-…` count. Bindings that a single criterion satisfies are found
by one look-up, however many there are. Bindings with the same set of several criteria share a rule. A rule is listed
under one of its criteria only, the one that the fewest bindings have, and is checked when a message has that one. So
the cost of a message does not depend on the number of bindings. Where it may be high all the same, the search is cut
into pieces, so that other clients are served; each piece sees the current bindings.

Invariants: a rule is listed under one of its criteria exactly while a binding uses it; `_asked` counts the bindings
with a criterion, `_names` those with any criterion of a header.

Spec: §3.1.3.4; RabbitMQ docs/exchanges and, for what it compares, its `rabbit_exchange_type_headers`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from amqpd.broker.definitions import Arguments, BindingDefinition
from amqpd.broker.exchange_types import NOWHERE, Destination, Destinations, ExchangeType
from amqpd.erlang import field_term
from amqpd.errors import ChannelException, ReplyCode
from amqpd.fields import Value, long_string, type_name

X_MATCH = "x-match"
_WAYS_TO_MATCH = ("all", "any", "all-with-x", "any-with-x")
_PRESENT = object()

LARGE = 1_000               # steps that all rules may cost together, from which on searches are cut
STEPS_A_PIECE = 500
WHOLE = 1 << 62
NAMES_A_STEP = 4            # matched criteria, criteria of a rule that are looked up, destinations that are added
CRITERIA_A_STEP = 8
DESTINATIONS_A_STEP = 64

Criterion = tuple[str, Hashable]
"""A header and its required value, or `_PRESENT`."""
Criteria = frozenset[Criterion]


class HeadersExchange(ExchangeType[Destination]):
    """Routes by the headers."""

    name = "headers"
    reads_headers = True

    def __init__(self) -> None:
        self._size = 0          # steps for checking all bindings against a message, about
        self._names: Destinations[str] = Destinations()
        self._asked: Destinations[Criterion] = Destinations()
        self._always: Destinations[Destination] = Destinations()            # bindings with `all` of nothing
        self._by_one: dict[Criterion, Destinations[Destination]] = {}       # where one criterion is enough
        self._listed_under: dict[Criteria, Criterion] = {}
        self._rules: dict[Criterion, dict[Criteria, Destinations[Destination]]] = {}

    @property
    def reads_key(self) -> bool:
        return False

    @property
    def is_large(self) -> bool:
        return self._size > LARGE

    def check_binding(self, binding: BindingDefinition) -> None:
        way = binding.arguments.get(X_MATCH, "all")
        if type_name(way) != "longstr":
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED,
                f"Invalid x-match field type {type_name(way)} (value {field_term(way)}); expected longstr",
            )
        if way not in _WAYS_TO_MATCH:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED,
                f"Invalid x-match field value {field_term(way)}; expected all, any, all-with-x, or any-with-x",
            )

    def bind(self, binding: BindingDefinition, destination: Destination) -> None:
        criteria, is_any = _demand(binding.arguments)
        self._size += _steps_to_hold(criteria)
        self._ask(criteria)
        if is_any or len(criteria) == 1:
            for criterion in criteria:
                self._by_one.setdefault(criterion, Destinations()).join(destination)
        elif not criteria:
            self._always.join(destination)
        else:
            under = self._listed_under.get(criteria)
            if under is None:
                under = self._listed_under[criteria] = min(criteria, key=lambda one: (self._asked[one], one[0]))
            self._rules.setdefault(under, {}).setdefault(criteria, Destinations()).join(destination)

    def unbind(self, binding: BindingDefinition, destination: Destination) -> None:
        criteria, is_any = _demand(binding.arguments)
        self._size -= _steps_to_hold(criteria)
        for criterion in criteria:
            self._names.part(criterion[0])
            self._asked.part(criterion)
        if is_any or len(criteria) == 1:
            for criterion in criteria:
                self._by_one[criterion].part(destination)
                if not self._by_one[criterion]:
                    del self._by_one[criterion]
        elif not criteria:
            self._always.part(destination)
        else:
            self._part_from_rule(criteria, destination)

    def _ask(self, criteria: Criteria) -> None:
        for criterion in criteria:
            self._names.join(criterion[0])
            self._asked.join(criterion)

    def _part_from_rule(self, criteria: Criteria, destination: Destination) -> None:
        rules = self._rules[self._listed_under[criteria]]
        rules[criteria].part(destination)
        if not rules[criteria]:
            del rules[criteria]
            under = self._listed_under.pop(criteria)
            if not rules:
                del self._rules[under]

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        return next(self._search(headers, WHOLE))

    def routes(self, routing_keys: Collection[str], headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        return self._search(headers, STEPS_A_PIECE)

    def _search(self, headers: Mapping[str, Any], most: int) -> Iterator[Mapping[Destination, int]]:
        """Yield the destinations of a message, in pieces of about this many steps, at least one."""
        met = self._met(headers)
        found: dict[Destination, int] = dict(self._always)
        steps = len(met) // NAMES_A_STEP + len(found) // DESTINATIONS_A_STEP
        for destinations, rule_steps in self._opened(met):
            steps += rule_steps + len(destinations) // DESTINATIONS_A_STEP
            found.update(destinations)
            if steps >= most:
                self.steps = steps
                yield found
                found, steps = {}, 0
        self.steps = steps
        yield found

    def _opened(self, met: set[Criterion]) -> Iterator[tuple[Mapping[Destination, int], int]]:
        """Yield the destinations for all matched criteria, each with its steps; bindings may change meanwhile."""
        for criterion in met & self._by_one.keys():
            yield self._by_one.get(criterion, NOWHERE), 0
        for criterion in met & self._rules.keys():
            for criteria, destinations in [*self._rules.get(criterion, {}).items()]:
                yield destinations if criteria <= met else NOWHERE, _steps_to_hold(criteria)

    def _met(self, headers: Mapping[str, Any]) -> set[Criterion]:
        """Return the criteria of bindings that these headers match."""
        names: Iterable[str] = headers.keys() & self._names.keys()
        met: set[Criterion] = {(name, _comparable(headers[name])) for name in names}
        met.update((name, _PRESENT) for name in names)
        return met


def _steps_to_hold(criteria: Criteria) -> int:
    """Return the cost of checking a rule against a message, about; see broker/effort.py."""
    return 1 + len(criteria) // CRITERIA_A_STEP


def _demand(arguments: Arguments) -> tuple[Criteria, bool]:
    """Return the criteria of a binding, and whether one of them is enough.

    `all` of nothing matches every message, `any` of nothing matches none.
    """
    way = arguments.get(X_MATCH, "all")
    with_x = way.endswith("-with-x")
    criteria = frozenset(
        (header, _PRESENT if value is None else _comparable(value))
        for header, value in arguments.items()
        if header != X_MATCH and (with_x or not header.startswith("x-"))
    )
    return criteria, way.startswith("any")


def _comparable(value: Value) -> Hashable:
    """Return a key, equal for values that RabbitMQ calls equal: 1 and 1.0, a string and its bytes, not 1 and true.

    Values in an array or a table also need the same type and the same order.
    """
    match value:
        case bool():
            return bool, value
        case bytes():
            return long_string(value)
        case Decimal():
            return Decimal, value.as_tuple()
        case list() | dict():
            return list, field_term(value)
        case _:
            return value
