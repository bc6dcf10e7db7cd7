"""Read the definitions of a store, and build them in a broker: the same code for a start, `check` and `salvage`.

A definition that cannot be read or built is told of by name. A start is refused then, since without it messages
might go astray; `check` lists it; `salvage` leaves it out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from amqpd.broker.access import RIGHTS
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import Definition, PermissionDefinition
from amqpd.broker.patterns import compile_pattern
from amqpd.store.rows import TABLES, Table

_NUMBERS = {"number", "auto_delete", "internal", "is_operator", "priority"}     # of definitions; the rest is text


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
