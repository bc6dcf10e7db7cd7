"""Write what a batch brings into the tables, within a transaction of the caller.

Always true after it: a message row exists exactly while some queue's entry points at it, which is its own column
`queue` or a row of `entries`; a message block exists while one of its messages is in its queue.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from itertools import chain

from msgspec.structs import astuple

from amqpd.message import Message, StoredBody
from amqpd.store.batch import Batch, QueueChanges
from amqpd.store.sqlite.audit_rows import AUDIT_COLUMNS
from amqpd.store.sqlite.block_index import BlockIndex
from amqpd.store.sqlite.body_parts import BodyParts
from amqpd.store.sqlite.definitions import apply_change
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.rows.body_use import DELETED_WITH_BATCH
from amqpd.store.rows.message_blocks import BlockRow, pack_blocks
from amqpd.store.rows.message_rows import (
    ENTRY_COLUMNS,
    MESSAGE_COLUMNS,
    STATE_COLUMNS,
    message_rows,
    size_of_large,
    with_states,
)
from amqpd.store.sqlite.recovery import CLOCK_BEHIND, UNFINISHED
from amqpd.store.sqlite.statements import SET_META, change_numbers, insert_large, insert_rows

_RAISE_WATERMARKS = """
    UPDATE queue_rows SET delivery_watermark = max(delivery_watermark, json_extract(watermark.value, '$[1]'))
    FROM json_each(?) AS watermark
    WHERE queue_rows.number = json_extract(watermark.value, '$[0]')"""


class BatchWriter:
    """Writes batches of one store. Its methods raise sqlite3.Error."""

    def __init__(
        self, connection: sqlite3.Connection, blocks: BlockIndex, parts: BodyParts, limits: StoreLimits
    ) -> None:
        self._connection = connection
        self._blocks = blocks
        self._parts = parts
        self._limits = limits

    def write(self, batch: Batch) -> int:
        """Write a batch; return how many messages the store has more than before."""
        connection, queues = self._connection, batch.queues
        dropped = [number for change in batch.changes for number in apply_change(connection, change)]
        removed = self._drop_queues(dropped) if dropped else 0
        added = self._insert(batch)
        removed += self._settle({number: changes.settled for number, changes in queues.items() if changes.settled})
        self._count_deliveries(queues)
        insert_rows(connection, "audit_log", AUDIT_COLUMNS, [astuple(entry) for entry in batch.audited])
        self._blocks.write()
        if self._parts.find_dead():
            self._parts.delete(DELETED_WITH_BATCH)
        if batch.clock_behind_ms is not None:
            connection.execute(SET_META, (CLOCK_BEHIND, batch.clock_behind_ms))
        if batch.unfinished is not None:
            connection.execute(SET_META, (UNFINISHED, batch.unfinished))
        watermarks = {number: changes.watermark for number, changes in queues.items() if changes.watermark is not None}
        if watermarks:
            connection.execute(_RAISE_WATERMARKS, (json.dumps(list(watermarks.items())),))
        return added - removed

    def _drop_queues(self, queues: list[int]) -> int:
        """Delete all messages of these queues, but for those that are in others too; return how many."""
        execute, listed = self._connection.execute, (json.dumps(queues),)
        of_queues = "queue IN (SELECT value FROM json_each(?))"
        removed = self._blocks.drop_queues(queues)
        removed += execute(f"DELETE FROM message_rows WHERE {of_queues}", listed).rowcount
        shared = execute(f"SELECT DISTINCT number FROM entries WHERE {of_queues} ORDER BY number", listed).fetchall()
        execute(f"DELETE FROM entries WHERE {of_queues}", listed)
        removed += self._drop_unheld([number for number, in shared])
        self._parts.settle()
        return removed

    def _insert(self, batch: Batch) -> int:
        """Write what is published, with its expiries and delivery counts; return how many messages that is."""
        connection, limits = self._connection, self._limits
        blocks: list[BlockRow] = []
        single: dict[int, Mapping[int, Message]] = {}
        has_states = False
        for queue, changes in batch.queues.items():
            marked = {*changes.expiries, *changes.deliveries}
            has_states |= bool(marked)
            if changes.published:
                more, single[queue] = pack_blocks(queue, changes.published, marked, limits.blocks)
                blocks += more
        added = self._blocks.add(blocks)
        rows, large, entries = message_rows(single, limits.large_body)
        size = max(0, batch.weight - size_of_large(large))
        if not has_states:
            insert_rows(connection, "message_rows", MESSAGE_COLUMNS, rows, size)
            insert_large(connection, "message_rows", MESSAGE_COLUMNS, large)
            insert_rows(connection, "entries", ENTRY_COLUMNS, entries)
        else:
            rows_with_states, large_with_states, entries_with_states = with_states(
                rows, large, entries, batch.queues)
            insert_rows(connection, "message_rows", MESSAGE_COLUMNS + STATE_COLUMNS, rows_with_states, size)
            insert_large(connection, "message_rows", MESSAGE_COLUMNS + STATE_COLUMNS, large_with_states)
            insert_rows(connection, "entries", ENTRY_COLUMNS + STATE_COLUMNS, entries_with_states)
        self._parts.record([(row[0], row[5].body_id) for row in large if isinstance(row[5], StoredBody)])
        return added + len(rows) + len(large)

    def _settle(self, settled: Mapping[int, list[int]]) -> int:
        """Delete what has left its queue; return how many messages were in no other queue."""
        single = {queue: self._blocks.settle(sorted(left)) for queue, left in settled.items()}
        count = sum(map(len, settled.values()))
        numbers = sorted({*chain.from_iterable(single.values())})
        # A message of a block is in one queue, so it goes with this settle.
        removed = count - sum(map(len, single.values()))
        removed += change_numbers(self._connection, "DELETE FROM message_rows WHERE queue IS NOT NULL", numbers)
        if removed != count:
            for queue, left in single.items():
                change_numbers(self._connection, "DELETE FROM entries WHERE queue = ?", left, queue)
            removed += self._drop_unheld(numbers)
        self._parts.settle(numbers)
        return removed

    def _drop_unheld(self, numbers: list[int]) -> int:
        """Delete those of these messages that were in several queues and are in none any more; return how many."""
        unheld = "queue IS NULL AND NOT EXISTS (SELECT * FROM entries WHERE entries.number = message_rows.number)"
        return change_numbers(self._connection, f"DELETE FROM message_rows WHERE {unheld}", numbers)

    def _count_deliveries(self, queues: Mapping[int, QueueChanges]) -> None:
        """Write the delivery counts of messages that earlier batches have written."""
        for queue, changes in queues.items():
            counts = changes.deliveries
            if not counts:
                continue
            alike: dict[int, list[int]] = {}
            numbers = sorted(counts.keys() - changes.published.keys())
            self._blocks.take_out(numbers)
            for number in numbers:
                alike.setdefault(counts[number], []).append(number)
            for count, numbers in alike.items():
                for table in ("message_rows", "entries"):
                    update = f"UPDATE {table} SET deliveries = ? WHERE queue = ?"
                    change_numbers(self._connection, update, numbers, count, queue)

    def mark_redelivered(
        self, redelivered: Mapping[int, Collection[int]], redelivered_to: Mapping[int, int]
    ) -> None:
        """Write which messages have been delivered, for a clean stop; see `port.Store.close`."""
        execute = self._connection.execute
        for queue, numbers in redelivered.items():
            self._blocks.mark_redelivered(sorted(numbers))
            for table in ("message_rows", "entries"):
                execute(
                    f"UPDATE {table} SET redelivered = 1 WHERE queue = ? AND redelivered = 0 "
                    "AND number IN (SELECT value FROM json_each(?))", (queue, json.dumps(list(numbers))))
        self._blocks.write()
        execute("UPDATE queue_rows SET delivery_watermark = 0 WHERE delivery_watermark > 0")
        for queue, number in redelivered_to.items():
            execute("UPDATE queue_rows SET delivery_watermark = ? WHERE number = ?", (number, queue))
