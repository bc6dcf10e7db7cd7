"""Read the definitions, and the messages of each durable queue, when the broker starts.

Only numbers, sizes and expiries of messages are read, so that a start is quick however many there are. Contents are
read, and checked, shortly before they are delivered. A message row that is in no queue is moved to the table `damaged`
and counted; an entry without a message row is deleted.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from amqpd.broker.definitions import Definition, QueueDefinition
from amqpd.store.port import Recovered
from amqpd.store.restoring import split_leftovers
from amqpd.store.rows.reading import MessageReader
from amqpd.store.rows.waiting import WaitingMessages, gather_blocks, gather_rows, queues_of_definitions
from amqpd.store.sqlite.block_index import SELECT_BLOCKS, BlockIndex
from amqpd.store.sqlite.body_parts import BODY_SIZE
from amqpd.store.sqlite.definitions import delete_definitions, read_definitions
from amqpd.store.sqlite.places import queues_of

# A flipped bit can change the type of a value; such a value is read as NULL or 0.
_STATE = "{0}.redelivered, CASE typeof({0}.expires_at) WHEN 'integer' THEN {0}.expires_at END, " \
    "CAST({0}.deliveries AS INTEGER)"
# Properties are read only if they are needed before delivery: for the priority, and for the time to live.
_PROPERTIES = "CASE WHEN {0}.expires_at IS NOT NULL OR {0}.queue IN (SELECT value FROM json_each(?)) " \
    "THEN CAST(m.properties AS BLOB) END"
_SELECT_OWN = f"""
    SELECT m.queue, m.number, {BODY_SIZE}, {_STATE.format("m")}, {_PROPERTIES.format("m")}
    FROM message_rows AS m WHERE m.queue IS NOT NULL ORDER BY m.number"""
_SELECT_SHARED = f"""
    SELECT e.queue, e.number, {BODY_SIZE}, {_STATE.format("e")}, {_PROPERTIES.format("e")}
    FROM entries AS e CROSS JOIN message_rows AS m ON m.number = e.number AND m.queue IS NULL
    ORDER BY e.queue, e.number"""
_UNHELD = """
    SELECT number FROM message_rows WHERE queue IS NULL
    AND NOT EXISTS (SELECT * FROM entries WHERE entries.number = message_rows.number)"""
_ORPHAN_ENTRIES = """
    FROM entries WHERE queue NOT IN (SELECT number FROM queue_rows)
    OR NOT EXISTS (SELECT * FROM message_rows AS m WHERE m.number = entries.number AND m.queue IS NULL)"""
_COLUMNS = """
    number, queue, redelivered, expires_at, deliveries, exchange, routing_key, properties, checksum, body, body_id,
    body_size"""

# Keys of the table `meta`; see `schema.py`.
CLOCK_BEHIND = "clock_behind"       # milliseconds that the store's clock is behind the wall clock
UNFINISHED = "unfinished"           # vhosts with deletions whose bindings may not all be deleted
COPIED = "copied"                   # 1 in a file that `amqpd store` made from another one

logger = logging.getLogger(__name__)


def recover(
    connection: sqlite3.Connection, reader: MessageReader, blocks: BlockIndex, *, was_clean: bool, now: int
) -> Recovered:
    """Read everything but contents, within a transaction, and register the message blocks with `blocks`.

    Damaged rows and blocks are moved to the table `damaged` with the time `now`, in seconds since 1970. Raises
    sqlite3.Error; KeyError, TypeError or ValueError for a definition that cannot be read.
    """
    definitions, left = _definitions(connection)
    _finish_deletions(connection, left)
    waiting = queues_of_definitions(definitions, reader)
    damaged_in_blocks, damaged_in = 0, []
    for first in _gather_blocks(connection, blocks.know, waiting):
        queues = queues_of(connection, (), (first,))
        if count := blocks.dissolve(first, now, reader.can_read):
            damaged_in_blocks += count
            damaged_in += queues
    blocks.write()
    connection.execute("DELETE FROM block_flags WHERE first NOT IN (SELECT first FROM message_blocks)")
    damaged = _gather_rows(connection, definitions, waiting)
    has_orphans = connection.execute(f"SELECT 1 {_ORPHAN_ENTRIES} LIMIT 1").fetchone() is not None
    if damaged or has_orphans:
        damaged_in += queues_of(connection, damaged, ())
        set_aside(connection, damaged, now)
    return _recovered(
        connection, definitions, waiting, damaged_in_blocks + len(damaged), was_clean=was_clean,
        damaged_in=tuple(dict.fromkeys(damaged_in)))


class Survey(NamedTuple):
    """What a start would read. It would set aside `odd_blocks`, by their first numbers, and the messages `damaged`."""

    recovered: Recovered
    odd_blocks: list[int]
    damaged: list[int]


def survey(connection: sqlite3.Connection, reader: MessageReader) -> Survey:
    """Read all that a start reads, without a change. Raises what `recover` raises."""
    definitions, _ = _definitions(connection)
    waiting = queues_of_definitions(definitions, reader)
    odd = _gather_blocks(connection, lambda *_: None, waiting)
    damaged = _gather_rows(connection, definitions, waiting)
    return Survey(
        _recovered(connection, definitions, waiting, len(odd) + len(damaged), was_clean=False), odd, damaged)


def _definitions(connection: sqlite3.Connection) -> tuple[list[Definition], list[Definition]]:
    """Return the definitions, and those that belong to deletions that were not finished."""
    definitions = read_definitions(connection)
    unfinished = connection.execute("SELECT value FROM meta WHERE key = ?", (UNFINISHED,)).fetchone()
    return split_leftovers(definitions) if unfinished and unfinished[0] else (definitions, [])


def _finish_deletions(connection: sqlite3.Connection, left: list[Definition]) -> None:
    """Delete the definitions that are left of deletions which a crash or a stop has interrupted."""
    delete_definitions(connection, left)
    if left:
        logger.info("deletions of the last run are finished: %d bindings and exchanges removed", len(left))
    connection.execute("DELETE FROM meta WHERE key = ?", (UNFINISHED,))


def _recovered(
    connection: sqlite3.Connection, definitions: list[Definition], waiting: dict[int, WaitingMessages], damaged: int, *,
    was_clean: bool, damaged_in: tuple[str, ...] = (),
) -> Recovered:
    watermarks = dict(connection.execute(
        "SELECT number, delivery_watermark FROM queue_rows WHERE delivery_watermark > 0").fetchall())
    behind, copied = [
        connection.execute("SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?", (key,)).fetchone()
        for key in (CLOCK_BEHIND, COPIED)]
    return Recovered(
        definitions, {queue: one.messages() for queue, one in waiting.items()},
        {queue: one.redelivered for queue, one in waiting.items() if one.redelivered}, watermarks,
        {queue: one.deliveries for queue, one in waiting.items() if one.deliveries}, damaged, was_clean,
        behind[0] or 0 if behind else 0, bool(copied and copied[0]), damaged_in)


def _gather_blocks(
    connection: sqlite3.Connection, know: Callable[[int, int, int], None], waiting: dict[int, WaitingMessages]
) -> list[int]:
    with closing(connection.execute(SELECT_BLOCKS)) as rows:
        return gather_blocks(rows, know, waiting)


def _gather_rows(
    connection: sqlite3.Connection, definitions: list[Definition], waiting: dict[int, WaitingMessages]
) -> list[int]:
    """Add the messages with rows of their own to their queues; return the numbers of damaged and orphan rows."""
    by_priority = json.dumps([
        definition.number for definition in definitions
        if isinstance(definition, QueueDefinition) and "x-max-priority" in definition.arguments])
    damaged: list[int] = []
    for select in (_SELECT_OWN, _SELECT_SHARED):
        damaged += gather_rows(waiting, connection.execute(select, (by_priority,)))
    damaged += [number for number, in connection.execute(_UNHELD)]
    return list(dict.fromkeys(damaged))     # a message of several queues may be listed more than once


def set_aside(connection: sqlite3.Connection, damaged: list[int], now: int) -> None:
    """Move damaged rows to the table `damaged`, and delete entries without a message row. Raises sqlite3.Error."""
    numbers = json.dumps(damaged)
    connection.execute(
        f"INSERT OR REPLACE INTO damaged ({_COLUMNS}, noticed) SELECT {_COLUMNS}, ? FROM message_rows "
        "WHERE number IN (SELECT value FROM json_each(?))", (now, numbers))
    connection.execute("DELETE FROM message_rows WHERE number IN (SELECT value FROM json_each(?))", (numbers,))
    connection.execute(f"DELETE {_ORPHAN_ENTRIES}")
