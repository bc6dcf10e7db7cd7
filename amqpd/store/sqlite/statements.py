"""Write many rows with few statements.

Each statement that runs in a thread hands the interpreter lock to a busy event loop and waits to get it back,
so confirms wait longer for a batch with many statements, not for one with many rows. Names of tables and columns are
constants of this package; values from outside are always bound parameters.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

from amqpd.message import StoredBody
from amqpd.store.rows.message_rows import PARTS_COLUMNS, LargeBody

SET_META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"

# An expression over a block and its flags: how many of its messages wait.
COUNT_WAITING = "CASE WHEN flags IS NULL THEN count ELSE length(replace(flags, '-', '')) END"

# What must not be: messages and entries that lead nowhere, or twice.
ORPHAN_ROWS = """
    SELECT number, 'is in no queue there is' FROM message_rows
    WHERE queue NOT IN (SELECT number FROM queue_rows)
    UNION ALL SELECT number, 'is kept for no queue' FROM message_rows
    WHERE queue IS NULL AND number NOT IN (SELECT number FROM entries)
    UNION ALL SELECT number, 'expires or counts deliveries in no one queue' FROM message_rows
    WHERE queue IS NULL AND (expires_at IS NOT NULL OR deliveries)
    UNION ALL SELECT number, 'has an entry, but is not kept for several queues' FROM entries
    WHERE number NOT IN (SELECT number FROM message_rows WHERE queue IS NULL)
    UNION ALL SELECT number, 'has an entry in no queue there is' FROM entries
    WHERE queue NOT IN (SELECT number FROM queue_rows)
    UNION ALL SELECT first, 'begins a message block in no queue there is'
    FROM message_blocks LEFT JOIN block_flags USING (first)
    WHERE queue NOT IN (SELECT number FROM queue_rows) AND (flags IS NULL OR replace(flags, '-', '') <> '')
    UNION ALL SELECT first, 'has flags, but begins no message block' FROM block_flags
    WHERE first NOT IN (SELECT first FROM message_blocks)"""

COUNT_MESSAGES = f"""
    SELECT (SELECT count(*) FROM message_rows) + (
        SELECT coalesce(sum({COUNT_WAITING}), 0)
        FROM message_blocks LEFT JOIN block_flags USING (first))"""

MOST_ROWS = 512             # of one statement, a power of two
_MOST_BYTES = 4 << 20      # bound to one statement, about: SQLite keeps them until the statement is used again
_FEW_RANGES = 4


def insert_rows(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[Any]], size: int = 0
) -> None:
    """Insert rows of `size` bytes in all, by statements of 512, 256, … 1 rows. Raises sqlite3.Error."""
    affordable = max(1, _MOST_BYTES * len(rows) // size) if size else MOST_ROWS
    at, left = 0, len(rows)
    while left:
        count = min(MOST_ROWS, _power_of_two_within(min(left, affordable)))
        connection.execute(_insert(table, columns, count), list(chain.from_iterable(rows[at : at + count])))
        at += count
        left -= count


def insert_large(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]
) -> None:
    """Insert rows with large bodies: the column `body`, by the first one as the rowid.

    A body that is not in parts is written now, in pieces. Bound as a whole, it would be copied while no
    other thread can run, and take twice as long to write. Raises sqlite3.Error.
    """
    at = columns.index("body")
    places = ", ".join(["zeroblob(?)" if column == "body" else "?" for column in columns])
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
    in_parts = columns + PARTS_COLUMNS
    stored: list[Sequence[Any]] = []
    for row in rows:
        body: LargeBody | StoredBody = row[at]
        if isinstance(body, StoredBody):
            stored.append((*row[:at], b"", *row[at + 1 :], body.body_id, body.size))
            continue
        connection.execute(insert, (*row[:at], body.size, *row[at + 1 :]))
        with connection.blobopen(table, "body", row[0]) as blob:
            for piece in body.pieces():
                blob.write(piece)
    insert_rows(connection, table, in_parts, stored)


def _power_of_two_within(number: int) -> int:
    return 1 << (number.bit_length() - 1)


@lru_cache
def _insert(table: str, columns: tuple[str, ...], count: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"


def change_numbers(
    connection: sqlite3.Connection, statement: str, numbers: Sequence[int], *parameters: int
) -> int:
    """Change the rows with these numbers, which rise; return how many there were.

    The statement is a DELETE or an UPDATE that ends in a condition, which they must meet too.

    Raises sqlite3.Error.
    """
    head = f"{statement} AND number"
    ranges = _ranges(numbers)
    if len(ranges) <= _FEW_RANGES:
        return sum([connection.execute(f"{head} BETWEEN ? AND ?", (*parameters, *ends)).rowcount for ends in ranges])
    listed = f"{head} IN (SELECT value FROM json_each(?))"
    return connection.execute(listed, (*parameters, json.dumps(numbers))).rowcount


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return first and last number of each range without a gap."""
    if not numbers:
        return []
    starts = [at for at, (before, after) in enumerate(pairwise(numbers), 1) if after - before != 1]
    return [(numbers[start], numbers[end - 1]) for start, end in zip((0, *starts), (*starts, len(numbers)))]
