"""The statements that write what a batch brings, in order; `database.py` sends them as one transaction.

Always true after it: a message row exists exactly while some queue's entry points at it, which is its own column
`queue` or a row of `entries`; a message block exists while one of its messages is in its queue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

from msgspec.structs import astuple

from amqpd.broker.definitions import Change, Defined, QueueDefinition, UserDefinition, VhostDefinition
from amqpd.message import Message, StoredBody
from amqpd.store.batch import Batch, QueueChanges
from amqpd.store.postgres.block_index import BlockIndex
from amqpd.store.postgres.body_parts import BodyParts
from amqpd.store.postgres.counts import MessageCounts
from amqpd.store.postgres.database import Database, Statement
from amqpd.store.postgres.limits import StoreLimits
from amqpd.store.postgres.recovery import CLOCK_BEHIND, UNFINISHED
from amqpd.store.postgres.schema import AUDIT_ROWS
from amqpd.store.postgres.statements import (
    SET_META,
    delete,
    delete_definition,
    insert,
    kept,
    upsert_definition,
)
from amqpd.store.postgres.texts import numbers
from amqpd.store.rows.body_use import DELETED_WITH_BATCH
from amqpd.store.rows.definition_rows import OF_USER, OF_VHOST, TABLES
from amqpd.store.rows.message_blocks import BlockRow, pack_blocks
from amqpd.store.rows.message_rows import ENTRY_COLUMNS, STATE_COLUMNS, EntryRow, LargeBody, message_rows, with_states

_ROW_COLUMNS = (
    "number", "queue", "exchange", "routing_key", "properties", "body", "checksum", *STATE_COLUMNS, "body_id",
    "body_size")
_AUDIT = 'INSERT INTO audit_log (at_ms, "user", address, door, action, detail) VALUES (%s, %s, %s, %s, %s, %s)'
_BOUND_AUDIT = f"DELETE FROM audit_log WHERE id <= (SELECT max(id) FROM audit_log) - {AUDIT_ROWS}"
_RAISE_WATERMARKS = """
    UPDATE queue_rows SET delivery_watermark = greatest(delivery_watermark, mark)
    FROM unnest(%s::bigint[], %s::bigint[]) AS raised (queue, mark) WHERE number = queue"""
_DROP_SHARED = """
    WITH gone AS (DELETE FROM entries WHERE queue = ANY(%s::bigint[]) RETURNING number)
    DELETE FROM message_rows AS m USING (SELECT DISTINCT number FROM gone) AS g
    WHERE m.number = g.number AND m.queue IS NULL AND NOT EXISTS (
        SELECT FROM entries AS e WHERE e.number = m.number AND NOT e.queue = ANY(%s::bigint[]))"""
_DELETE_ENTRIES = """
    DELETE FROM entries USING unnest(%s::bigint[], %s::bigint[]) AS gone (queue, number)
    WHERE entries.queue = gone.queue AND entries.number = gone.number"""
_UNHELD = " AND queue IS NULL AND NOT EXISTS (SELECT FROM entries WHERE entries.number = message_rows.number)"
_COUNT_DELIVERIES = """
    UPDATE {} AS m SET deliveries = counted.deliveries
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS counted (queue, number, deliveries)
    WHERE m.queue = counted.queue AND m.number = counted.number"""
_MARK = """
    UPDATE {} SET redelivered = 1 WHERE queue = %s AND redelivered = 0 AND number = ANY(%s::bigint[])"""


class BatchWriter:
    """Makes the statements of batches of one store."""

    def __init__(
        self, database: Database, blocks: BlockIndex, parts: BodyParts, counts: MessageCounts, limits: StoreLimits
    ) -> None:
        self._database = database
        self._blocks = blocks
        self._parts = parts
        self._counts = counts
        self._limits = limits

    def statements(self, batch: Batch) -> list[Statement]:
        """Return the statements of a batch."""
        queues = batch.queues
        found, dropped = self._definitions(batch.changes)
        if dropped:
            found += self._drop_queues(dropped)
        found += self._insert(batch)
        found += self._settle({number: changes.settled for number, changes in queues.items() if changes.settled})
        found += self._count_deliveries(queues)
        if batch.audited:
            found += [Statement(_AUDIT, kept(astuple(entry))) for entry in batch.audited]
            found.append(Statement(_BOUND_AUDIT))
        found += self._blocks.write()
        if self._parts.find_dead():
            found += self._parts.delete(DELETED_WITH_BATCH)
        for key, value in ((CLOCK_BEHIND, batch.clock_behind_ms), (UNFINISHED, batch.unfinished)):
            if value is not None:
                found.append(Statement(SET_META, (key, value)))
        marks = [(number, changes.watermark) for number, changes in queues.items() if changes.watermark is not None]
        if marks:
            found.append(Statement(_RAISE_WATERMARKS, [numbers(column) for column in zip(*marks)]))
        return found

    def _definitions(self, changes: Iterable[Change]) -> tuple[list[Statement], list[int]]:
        """Return the statements of changes of definitions, and the queues whose messages are to be deleted."""
        found: list[Statement] = []
        dropped: list[int] = []
        for change in changes:
            definition = change.definition
            table = TABLES[type(definition)]
            if isinstance(change, Defined):
                found.append(upsert_definition(table, table.row_of(definition)))
                continue
            found.append(delete_definition(table, table.key_of(definition)))
            if isinstance(definition, QueueDefinition):
                dropped.append(definition.number)
            elif isinstance(definition, UserDefinition):
                found += [Statement(f'DELETE FROM {name} WHERE "user" = %s', kept([definition.name]))
                          for name in OF_USER]
            elif isinstance(definition, VhostDefinition):
                name_kept = kept([definition.name])
                # A queue that this batch declares has no messages: the batch has forgotten them.
                dropped += [number for number, in self._database.read(
                    "SELECT number FROM queue_rows WHERE vhost = %s", name_kept)]
                found += [Statement(f"DELETE FROM {name} WHERE vhost = %s", name_kept) for name in OF_VHOST]
        return found, dropped

    def _drop_queues(self, queues: list[int]) -> list[Statement]:
        """Delete all messages of these queues, but for those that are in others too."""
        listed = numbers(queues)
        removed = self._counts.note_removed
        removed(self._blocks.drop_queues(queues), [])
        return [
            delete("message_rows", "queue", queues, note=removed),
            Statement(_DROP_SHARED, (listed, listed), removed), *self._parts.settle()]

    def _insert(self, batch: Batch) -> list[Statement]:
        """Write what is published, with its expiries and delivery counts."""
        blocks: list[BlockRow] = []
        single: dict[int, Mapping[int, Message]] = {}
        for queue, changes in batch.queues.items():
            if changes.published:
                more, single[queue] = pack_blocks(
                    queue, changes.published, {*changes.expiries, *changes.deliveries}, self._limits.blocks)
                blocks += more
        found = self._blocks.add(blocks)
        plain, large, entries = message_rows(single, self._limits.large_body)
        plain_states, large_states, entry_states = with_states(plain, large, entries, batch.queues)
        rows: list[tuple[Any, ...]] = [
            (number, owner, exchange.encode(), key.encode(), properties, body, checksum, *state, None, None)
            for number, owner, exchange, key, properties, body, checksum, *state in plain_states]
        for number, owner, exchange, key, properties, large_body, checksum, *state in large_states:
            place = (large_body.body_id, large_body.size) if isinstance(large_body, StoredBody) else (None, None)
            whole = b"".join(large_body.pieces()) if isinstance(large_body, LargeBody) else b""
            rows.append((number, owner, exchange.encode(), key.encode(), properties, whole, checksum, *state, *place))
        if rows:
            found.append(insert("message_rows", _ROW_COLUMNS, rows))
        if entries:
            self._counts.has_shared = True
            found.append(insert("entries", (*ENTRY_COLUMNS, *STATE_COLUMNS), entry_states))
        self._parts.record([(row[0], row[5].body_id) for row in large if isinstance(row[5], StoredBody)])
        self._counts.add(sum([row[3] for row in blocks]) + len(rows))
        return found

    def _settle(self, settled: Mapping[int, list[int]]) -> list[Statement]:
        """Delete what has left its queue."""
        single = {queue: self._blocks.settle(sorted(left)) for queue, left in settled.items()}
        removed = self._counts.note_removed
        removed(sum(map(len, settled.values())) - sum(map(len, single.values())), [])
        gone = sorted({*chain.from_iterable(single.values())})
        if not gone:
            return []
        found = [delete("message_rows", "number", gone, " AND queue IS NOT NULL", removed)]
        if self._counts.has_shared:
            pairs: list[EntryRow] = [(queue, number) for queue, left in single.items() for number in left]
            found.append(Statement(_DELETE_ENTRIES, [numbers(column) for column in zip(*pairs)]))
            found.append(delete("message_rows", "number", gone, _UNHELD, removed))
        return found + self._parts.settle(gone)

    def _count_deliveries(self, queues: Mapping[int, QueueChanges]) -> list[Statement]:
        """Write the delivery counts of messages that earlier batches have written."""
        found: list[Statement] = []
        counted: list[tuple[int, int, int]] = []
        for queue, changes in queues.items():
            wanted = sorted(changes.deliveries.keys() - changes.published.keys())
            if wanted:
                found += self._blocks.take_out(wanted)
                counted += [(queue, number, changes.deliveries[number]) for number in wanted]
        if counted:
            columns = [numbers(column) for column in zip(*counted)]
            found += [Statement(_COUNT_DELIVERIES.format(table), columns) for table in ("message_rows", "entries")]
        return found

    def mark_redelivered(
        self, redelivered: Mapping[int, Collection[int]], redelivered_to: Mapping[int, int]
    ) -> list[Statement]:
        """Return what notes which messages have been delivered, for a clean stop; see `port.Store.close`."""
        found: list[Statement] = []
        for queue, delivered in redelivered.items():
            self._blocks.mark_redelivered(sorted(delivered))
            values = queue, numbers(delivered)
            found += [Statement(_MARK.format(table), values) for table in ("message_rows", "entries")]
        found += self._blocks.write()
        found.append(Statement("UPDATE queue_rows SET delivery_watermark = 0 WHERE delivery_watermark > 0"))
        if redelivered_to:
            found.append(Statement(_RAISE_WATERMARKS, (numbers(redelivered_to), numbers(redelivered_to.values()))))
        return found
