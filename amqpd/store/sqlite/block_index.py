"""The message blocks of a store: how they are written, read, flagged and removed.

Owns the tables `message_blocks` and `block_flags`; `rows/block_bits.py` knows which messages are left.

A block is deleted when its last message leaves; before that, flags tell which messages have left. A message that gets a
delivery count or an expiry gets a row of its own instead.

Always true between transactions: `_waiting` agrees with the two tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence

from amqpd.store.rows.block_bits import BlockBits
from amqpd.store.rows.message_blocks import (
    BLOCK_COLUMNS,
    BlockRow,
    Record,
    records_of,
    taken_apart,
    unpack_flags,
)
from amqpd.store.sqlite.statements import insert_rows

SELECT_BLOCKS = """
    SELECT first, queue, last, count, bytes, CAST(heads AS BLOB), CAST(flags AS BLOB)
    FROM message_blocks LEFT JOIN block_flags USING (first) ORDER BY first"""
_READ = "SELECT queue, CAST(heads AS BLOB), CAST(contents AS BLOB) FROM message_blocks WHERE first = ?"
_PUT = """
    INSERT OR REPLACE INTO {} (number, queue, redelivered, deliveries, exchange, routing_key, properties, checksum,
    body{}) VALUES (?, ?, ?, 0, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?{})"""
_PUT_SINGLE, _PUT_ASIDE = _PUT.format("message_rows", "", ""), _PUT.format("damaged", ", noticed", ", ?")


def _always(*_: object) -> bool:
    return True


class BlockIndex(BlockBits):
    """The blocks of one store, and their tables."""

    def __init__(self, connection: sqlite3.Connection, deleted_at_once: int) -> None:
        super().__init__(deleted_at_once)
        self._connection = connection

    # Changes

    def add(self, rows: Sequence[BlockRow]) -> int:
        """Write these blocks; return how many messages they have. Raises sqlite3.Error, as all changes do."""
        insert_rows(self._connection, "message_blocks", BLOCK_COLUMNS, rows, sum([len(row[-1]) for row in rows]))
        self.add_bits(rows)
        return sum([row[3] for row in rows])

    def drop_queues(self, queues: Collection[int]) -> int:
        """Delete all blocks of these queues; return how many messages waited in them."""
        firsts = self._connection.execute(
            "SELECT first FROM message_blocks WHERE queue IN (SELECT value FROM json_each(?))",
            (json.dumps(list(queues)),)).fetchall()
        dropped = sum([self._now_waiting(first).bit_count() for first, in firsts])
        emptied = {*self._emptied}
        self._changed.update([(first, 0) for first, in firsts if first not in emptied])
        return dropped

    def take_out(self, numbers: Sequence[int]) -> None:
        """Move these messages, whose numbers rise, from their blocks to rows of their own, except damaged ones."""
        for first, queue, record in self._records(self.split(numbers)[0]):
            if record.is_sound:
                was_delivered = self._redelivered.get(first, 0) >> record.place & 1
                self._put(_PUT_SINGLE, first + record.place, queue, was_delivered, record)
                self._changed[first] = self._now_waiting(first) & ~(1 << record.place)

    def mark_redelivered(self, numbers: Sequence[int]) -> None:
        """Note that these messages, whose numbers rise, have been delivered."""
        for first, bits in self.split(numbers)[0].items():
            self._redelivered[first] = self._redelivered.get(first, 0) | bits
            self._changed[first] = self._now_waiting(first)

    def dissolve(self, first: int, now: int, can_read: Callable[[bytes, bytes, bytes], bool] = _always) -> int:
        """Replace a damaged block: move sound messages to rows of their own, and the others to the table `damaged`.

        Return the number of the others.

        `can_read` is asked about exchange, routing key and properties of each. If this fails too, the
        block stays as it is, is not delivered, and counts as damaged.
        """
        execute = self._connection.execute
        execute("SAVEPOINT dissolve")
        try:
            damaged = self._take_apart(first, now, can_read)
        except (MemoryError, sqlite3.Error):
            raise
        except Exception:
            execute("ROLLBACK TO dissolve")
            execute("RELEASE dissolve")
            count, = execute("SELECT CAST(count AS INTEGER) FROM message_blocks WHERE first = ?", (first,)).fetchone()
            return int(count)
        execute("RELEASE dissolve")
        self._changed[first] = 0
        return damaged

    def _take_apart(self, first: int, now: int, can_read: Callable[[bytes, bytes, bytes], bool]) -> int:
        queue, heads, contents = self.read(first)
        flags = self._connection.execute(
            "SELECT CAST(flags AS BLOB) FROM block_flags WHERE first = ?", (first,)).fetchone()
        waiting, redelivered = unpack_flags(flags[0]) if flags and flags[0] else (-1, 0)
        damaged = 0
        for number, record, was_delivered in taken_apart(first, heads, contents, waiting, redelivered):
            if record.is_sound and can_read(record.exchange, record.routing_key, record.properties):
                self._put(_PUT_SINGLE, number, queue, was_delivered, record)
            else:
                self._put(_PUT_ASIDE, number, queue, was_delivered, record, now)
                damaged += 1
        return damaged

    def write(self) -> None:
        """Write the changes of blocks, and delete some of the empty ones."""
        deleted, unflagged, flags = self.pending()
        if deleted:
            self._delete("message_blocks", deleted)
        if unflagged:
            self._delete("block_flags", unflagged)
        insert_rows(self._connection, "block_flags", ("first", "flags"), flags)

    def _delete(self, table: str, firsts: list[int]) -> None:
        self._connection.execute(
            f"DELETE FROM {table} WHERE first IN (SELECT value FROM json_each(?))", (json.dumps(firsts),))

    def _put(self, statement: str, number: int, queue: int, redelivered: int, record: Record, *noticed: int) -> None:
        self._connection.execute(statement, (
            number, queue, redelivered, record.exchange, record.routing_key, record.properties, record.row_checksum,
            record.body, *noticed))

    # Looking

    def read(self, first: int) -> tuple[int, bytes, bytes]:
        """Return queue, heads and contents of a block; empty ones if it is not there any more."""
        return self._connection.execute(_READ, (first,)).fetchone() or (0, b"", b"")

    def _records(self, found: dict[int, int]) -> Iterator[tuple[int, int, Record]]:
        """Return the messages with these bits, with the first number of their blocks, and their queues."""
        for first, bits in found.items():
            queue, heads, contents = self.read(first)
            for record in records_of(heads, contents):
                if bits >> record.place & 1:
                    yield first, queue, record

    def check(self) -> None:
        """Assert what must hold between transactions."""
        self.check_against(self._connection.execute(SELECT_BLOCKS))
