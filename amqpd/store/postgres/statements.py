"""The statements of transactions: few, with many rows each, in arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from amqpd.store.postgres.database import Statement
from amqpd.store.postgres.texts import Bytes, numbers, to_text
from amqpd.store.rows.definition_rows import NUMBERS, Table

# How the columns of a table that are inserted by arrays are called, and which of them have bytes.
_BYTES = {"exchange", "routing_key", "properties", "body", "heads", "contents", "flags", "data"}

SET_META = "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
# What must not be: messages and entries that lead nowhere, or twice.
ORPHAN_ROWS = """
    SELECT number, 'is in no queue there is' FROM message_rows
    WHERE queue NOT IN (SELECT number FROM queue_rows)
    UNION ALL SELECT number, 'is kept for no queue' FROM message_rows
    WHERE queue IS NULL AND number NOT IN (SELECT number FROM entries)
    UNION ALL SELECT number, 'expires or counts deliveries in no one queue' FROM message_rows
    WHERE queue IS NULL AND (expires_at IS NOT NULL OR deliveries <> 0)
    UNION ALL SELECT number, 'has an entry, but is not kept for several queues' FROM entries
    WHERE number NOT IN (SELECT number FROM message_rows WHERE queue IS NULL)
    UNION ALL SELECT number, 'has an entry in no queue there is' FROM entries
    WHERE queue NOT IN (SELECT number FROM queue_rows)
    UNION ALL SELECT block.first, 'begins a message block in no queue there is'
    FROM message_blocks AS block LEFT JOIN block_flags AS flag ON flag.first = block.first
    WHERE queue NOT IN (SELECT number FROM queue_rows)
        AND (flags IS NULL OR replace(encode(flags, 'escape'), '-', '') <> '')
    UNION ALL SELECT first, 'has flags, but begins no message block' FROM block_flags
    WHERE first NOT IN (SELECT first FROM message_blocks)"""
_BINDING_CONFLICT = "(vhost, source, destination_type, destination, routing_key, md5(arguments))"


def insert(table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], suffix: str = "") -> Statement:
    """Return the statement that inserts these rows, which are not empty."""
    arrays = ", ".join(["%s::bytea[]" if column in _BYTES else "%s::bigint[]" for column in columns])
    values = [Bytes(column) if name in _BYTES else numbers(column) for name, column in zip(columns, zip(*rows))]
    return Statement(f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays}){suffix}", values)


def delete(
    table: str, column: str, values: Iterable[int], condition: str = "",
    note: Callable[[int, list[tuple[Any, ...]]], None] | None = None,
) -> Statement:
    """Return the statement that deletes the rows with one of these numbers in this column, and a further condition."""
    return Statement(f"DELETE FROM {table} WHERE {column} = ANY(%s::bigint[]){condition}", (numbers(values),), note)


def upsert_definition(table: Table, row: Iterable[Any]) -> Statement:
    """Return the statement that inserts a definition, or replaces the one with the same key."""
    columns = [f'"{column}"' for column in table.columns]
    updates = ", ".join([f'"{column}" = excluded."{column}"' for column in table.others])
    key = _BINDING_CONFLICT if table.name == "bindings" else f"({', '.join(columns[:len(table.key)])})"
    return Statement(
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))}) "
        f"ON CONFLICT {key} DO " + (f"UPDATE SET {updates}" if updates else "NOTHING"), kept(row))


def delete_definition(table: Table, key: Iterable[Any]) -> Statement:
    """Return the statement that deletes the definition with this key."""
    return Statement(
        f"DELETE FROM {table.name} WHERE " + " AND ".join([f'"{column}" = %s' for column in table.key]), kept(key))


def select_definitions(table: Table) -> str:
    """Return the query for all definitions of a table, in the order that SQLite has them in."""
    columns = ", ".join([f'"{column}"' for column in table.columns])
    key = ", ".join([f'"{column}"' + ("" if column in NUMBERS else ' COLLATE "C"') for column in table.key])
    return f"SELECT {columns} FROM {table.name} ORDER BY {key}"


def kept(values: Iterable[Any]) -> list[Any]:
    """Return values of columns, texts as they are kept."""
    return [to_text(value) if isinstance(value, str) else int(value) for value in values]
