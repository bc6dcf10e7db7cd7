"""Read definitions from their tables, and write changes of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from amqpd.broker.definitions import (
    Change,
    Defined,
    Definition,
    QueueDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.store.rows.definition_rows import OF_USER, OF_VHOST, TABLES, definition_of


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


def apply_change(connection: sqlite3.Connection, change: Change) -> list[int]:
    """Write a change; return the numbers of the queues whose messages are to be deleted with it.

    Raises sqlite3.Error.
    """
    execute, definition = connection.execute, change.definition
    table = TABLES[type(definition)]
    if isinstance(change, Defined):
        execute(table.upsert, table.row_of(definition))
        return []
    execute(table.delete, table.key_of(definition))
    if isinstance(definition, QueueDefinition):
        return [definition.number]
    if isinstance(definition, UserDefinition):
        for name in OF_USER:
            execute(f"DELETE FROM {name} WHERE user = ?", (definition.name,))
    if not isinstance(definition, VhostDefinition):
        return []
    queues = execute("SELECT number FROM queue_rows WHERE vhost = ?", (definition.name,)).fetchall()
    for name in OF_VHOST:
        execute(f"DELETE FROM {name} WHERE vhost = ?", (definition.name,))
    return [number for number, in queues]


def delete_definitions(connection: sqlite3.Connection, definitions: Iterable[Definition]) -> None:
    """Delete these definitions, and nothing else with them. Raises sqlite3.Error."""
    for definition in definitions:
        table = TABLES[type(definition)]
        connection.execute(table.delete, table.key_of(definition))
