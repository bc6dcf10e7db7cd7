"""Read the definitions of a store, and build them in a broker: the same code for a start, `check` and `salvage`.

A definition that cannot be read or built is told of by name. A start is refused then, since without it messages
might go astray; `check` lists it; `salvage` leaves it out.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from amqpd.broker.access import RIGHTS
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    PermissionDefinition,
    QueueDefinition,
    VhostDefinition,
)
from amqpd.broker.patterns import compile_pattern
from amqpd.broker.vhost import RESERVED_PREFIX
from amqpd.store.sqlite.rows import TABLES, Table

_NUMBERS = {"number", "auto_delete", "internal", "is_operator", "priority"}     # of definitions; the rest is text

_End = tuple[str, str, str]     # vhost, "queue" or "exchange", and name


class Unrestored(NamedTuple):
    """A definition that no broker can be given, and why."""

    definition: Definition
    reason: str

    def __str__(self) -> str:
        table = TABLES[type(self.definition)]
        return f"{table.name} {tuple(table.row_of(self.definition)[:len(table.key)])} cannot be restored: {self.reason}"


def definition_of(table: Table, row: Sequence[object]) -> Definition | None:
    """Return the definition in a row, or None where that holds something else."""
    if any(isinstance(value, int) != (column in _NUMBERS) or not isinstance(value, (int, str))
           for column, value in zip(table.columns, row)):
        return None
    try:
        definition = table.definition_of(row)
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError):
        return None
    tables = [getattr(definition, name, {}) for name in ("arguments", "definition")]
    return definition if all(isinstance(value, dict) for value in tables) else None


def read_definitions(connection: sqlite3.Connection) -> list[Definition]:
    """Return all definitions, in an order in which they can be restored. Raises ValueError, sqlite3.Error."""
    definitions = []
    for table in TABLES.values():
        for row in connection.execute(table.select):
            definition = definition_of(table, row)
            if definition is None:
                raise ValueError(f"{table.name} {row[:len(table.key)]} is no definition")
            definitions.append(definition)
    return definitions


def split_leftovers(definitions: list[Definition]) -> tuple[list[Definition], list[Definition]]:
    """Split definitions into those that hold and what unfinished deletions have left of others.

    That is bindings that have lost an end, and auto-delete exchanges that have lost their last binding by this, with
    the bindings that lead to them. Bindings in a vhost that is not there either are left by no deletion.
    """
    there: dict[_End, ExchangeDefinition | QueueDefinition] = {}
    vhosts: set[str] = set()
    bindings: list[BindingDefinition] = []
    for definition in definitions:
        if isinstance(definition, VhostDefinition):
            vhosts.add(definition.name)
        elif isinstance(definition, (ExchangeDefinition, QueueDefinition)):
            kind = "queue" if isinstance(definition, QueueDefinition) else "exchange"
            there[definition.vhost, kind, definition.name] = definition
        elif isinstance(definition, BindingDefinition):
            bindings.append(definition)

    def has_both_ends(binding: BindingDefinition) -> bool:
        return all(
            end in there or end[1] == "exchange" and end[2].startswith(RESERVED_PREFIX)     # every vhost has these
            for end in (_source(binding), _destination(binding)))

    leaving = Counter(map(_source, bindings))
    leading_to: dict[_End, list[BindingDefinition]] = {}
    for binding in bindings:
        leading_to.setdefault(_destination(binding), []).append(binding)
    lost = [binding for binding in bindings if binding.vhost in vhosts and not has_both_ends(binding)]
    gone: dict[int, Definition] = {id(binding): binding for binding in lost}
    while lost:
        source = _source(lost.pop())
        leaving[source] -= 1
        exchange = there.get(source)
        if exchange is not None and exchange.auto_delete and not leaving[source]:
            gone[id(exchange)] = exchange
            more = [binding for binding in leading_to.get(source, ()) if id(binding) not in gone]
            gone.update([(id(binding), binding) for binding in more])
            lost += more
    return [definition for definition in definitions if id(definition) not in gone], [*gone.values()]


def _source(binding: BindingDefinition) -> _End:
    return binding.vhost, "exchange", binding.source


def _destination(binding: BindingDefinition) -> _End:
    return binding.vhost, binding.destination_type, binding.destination


def restore(broker: Broker, definitions: Iterable[Definition]) -> list[Unrestored]:
    """Build these definitions in a broker; returns those that cannot be built."""
    failed = []
    for definition in definitions:
        try:
            if isinstance(definition, PermissionDefinition):
                _check_patterns(definition)
            broker.restore([definition])
        except Exception as error:
            failed.append(Unrestored(definition, f"{type(error).__name__}: {error}"))
    return failed


def _check_patterns(permission: PermissionDefinition) -> None:
    for right in RIGHTS:
        compile_pattern(getattr(permission, right))
