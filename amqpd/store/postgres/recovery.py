"""Read the definitions, and the messages of each durable queue, when the broker starts.

Only numbers, sizes and expiries of messages are read; contents are read, and checked, shortly before they are
delivered. See `sqlite/recovery.py`, which does the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from amqpd.broker.definitions import Definition, QueueDefinition
from amqpd.store.port import Recovered
from amqpd.store.postgres.block_index import SELECT_BLOCKS, BlockIndex
from amqpd.store.postgres.body_parts import BODY_SIZE
from amqpd.store.postgres.database import Database, Statement
from amqpd.store.postgres.places import queues_of
from amqpd.store.postgres.statements import delete, delete_definition, select_definitions
from amqpd.store.postgres.texts import from_text, numbers
from amqpd.store.restoring import split_leftovers
from amqpd.store.rows.definition_rows import TABLES, definition_of
from amqpd.store.rows.reading import MessageReader
from amqpd.store.rows.waiting import WaitingMessages, gather_blocks, gather_rows, queues_of_definitions

# Keys of the table `meta`; see `schema.py`.
CLOCK_BEHIND = "clock_behind"       # milliseconds that the store's clock is behind the wall clock
UNFINISHED = "unfinished"           # vhosts with deletions whose bindings may not all be deleted
COPIED = "copied"                   # 1 in a store that `amqpd store` made from another one

# Properties are read only if they are needed before delivery: for the priority, and for the time to live.
_PROPERTIES = "CASE WHEN {0}.expires_at IS NOT NULL OR {0}.queue = ANY(%s::bigint[]) THEN m.properties END"
_SELECT_OWN = f"""
    SELECT m.queue, m.number, {BODY_SIZE}, m.redelivered, m.expires_at, m.deliveries, {_PROPERTIES.format("m")}
    FROM message_rows AS m WHERE m.queue IS NOT NULL ORDER BY m.number"""
_SELECT_SHARED = f"""
    SELECT e.queue, e.number, {BODY_SIZE}, e.redelivered, e.expires_at, e.deliveries, {_PROPERTIES.format("e")}
    FROM entries AS e JOIN message_rows AS m ON m.number = e.number AND m.queue IS NULL ORDER BY e.queue, e.number"""
_UNHELD = """
    SELECT number FROM message_rows WHERE queue IS NULL
    AND NOT EXISTS (SELECT FROM entries WHERE entries.number = message_rows.number)"""
_ORPHAN_ENTRIES = """
    FROM entries WHERE queue NOT IN (SELECT number FROM queue_rows)
    OR NOT EXISTS (SELECT FROM message_rows AS m WHERE m.number = entries.number AND m.queue IS NULL)"""
_COLUMNS = """
    number, queue, redelivered, expires_at, deliveries, exchange, routing_key, properties, checksum, body, body_id,
    body_size"""

logger = logging.getLogger(__name__)


def recover(database: Database, reader: MessageReader, blocks: BlockIndex, *, was_clean: bool, now: int) -> Recovered:
    """Read everything but contents, and register the message blocks with `blocks`.

    Damaged rows and blocks are moved to the table `damaged` with the time `now`, in seconds since 1970. Raises
    StoreError; KeyError, TypeError or ValueError for a definition that cannot be read.
    """
    definitions = _finished(database)
    waiting = queues_of_definitions(definitions, reader)
    damaged_in_blocks, damaged_in = 0, []
    for first in gather_blocks(database.stream(SELECT_BLOCKS), blocks.know, waiting):
        queues = queues_of(database, (), (first,))
        statements, count = blocks.dissolve(first, now, reader.can_read)
        database.run([*statements, *blocks.write()])
        if count:
            damaged_in_blocks += count
            damaged_in += queues
    damaged = _gather_rows(database, definitions, waiting)
    has_orphans = bool(database.read(f"SELECT 1 {_ORPHAN_ENTRIES} LIMIT 1"))
    if damaged or has_orphans:
        damaged_in += queues_of(database, damaged, ())
        database.run(set_aside(damaged, now))
    return _recovered(
        database, definitions, waiting, damaged_in_blocks + len(damaged), was_clean=was_clean,
        damaged_in=tuple(dict.fromkeys(damaged_in)))


def _finished(database: Database) -> list[Definition]:
    """Return the definitions, without those that belong to deletions that a crash interrupted, which are deleted."""
    definitions = read_definitions(database)
    left: list[Definition] = []
    if meta_of(database).get(UNFINISHED):
        definitions, left = split_leftovers(definitions)
    found = [delete_definition(TABLES[type(one)], TABLES[type(one)].key_of(one)) for one in left]
    database.run([*found, Statement("DELETE FROM meta WHERE key = %s", (UNFINISHED,))])
    if left:
        logger.info("deletions of the last run are finished: %d bindings and exchanges removed", len(left))
    return definitions


def read_definitions(database: Database) -> list[Definition]:
    """Return all definitions, in an order in which they can be restored. Raises ValueError, StoreError."""
    definitions = []
    for table in TABLES.values():
        for row in database.read(select_definitions(table)):
            definition = definition_of(table, [
                from_text(value) if isinstance(value, str) else value for value in row])
            if definition is None:
                raise ValueError(f"{table.name} {row[:len(table.key)]} is no definition")
            definitions.append(definition)
    return definitions


def meta_of(database: Database) -> dict[str, int]:
    """Return the table `meta`."""
    return dict(database.read("SELECT key, value FROM meta"))


def _recovered(
    database: Database, definitions: list[Definition], waiting: dict[int, WaitingMessages], damaged: int, *,
    was_clean: bool, damaged_in: tuple[str, ...] = (),
) -> Recovered:
    watermarks: dict[int, int] = dict(database.read(
        "SELECT number, delivery_watermark FROM queue_rows WHERE delivery_watermark > 0"))
    meta = meta_of(database)
    return Recovered(
        definitions, {queue: one.messages() for queue, one in waiting.items()},
        {queue: one.redelivered for queue, one in waiting.items() if one.redelivered}, watermarks,
        {queue: one.deliveries for queue, one in waiting.items() if one.deliveries}, damaged, was_clean,
        meta.get(CLOCK_BEHIND, 0), bool(meta.get(COPIED)), damaged_in)


def _gather_rows(
    database: Database, definitions: list[Definition], waiting: dict[int, WaitingMessages]
) -> list[int]:
    """Add the messages with rows of their own to their queues; return the numbers of damaged and orphan rows."""
    by_priority = numbers([
        definition.number for definition in definitions
        if isinstance(definition, QueueDefinition) and "x-max-priority" in definition.arguments])
    damaged: list[int] = []
    for select in (_SELECT_OWN, _SELECT_SHARED):
        damaged += gather_rows(waiting, _rows(database, select, by_priority))
    damaged += [number for number, in database.read(_UNHELD)]
    return list(dict.fromkeys(damaged))     # a message of several queues may be listed more than once


def _rows(database: Database, select: str, by_priority: str) -> Iterator[tuple[Any, ...]]:
    return database.stream(select, (by_priority,))


def set_aside(damaged: list[int], now: int) -> list[Statement]:
    """Return what moves damaged rows to the table `damaged`, and deletes entries without a message row."""
    listed = numbers(damaged)
    return [
        delete("damaged", "number", damaged),
        Statement(f"INSERT INTO damaged ({_COLUMNS}, noticed) SELECT {_COLUMNS}, %s FROM message_rows "
                  "WHERE number = ANY(%s::bigint[])", (now, listed)),
        delete("message_rows", "number", damaged), Statement(f"DELETE {_ORPHAN_ENTRIES}")]
