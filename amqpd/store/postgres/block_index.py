"""The message blocks of a store: how they are written, read, flagged and removed.

Owns the tables `message_blocks` and `block_flags`; `rows/block_bits.py` knows which messages are left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from amqpd.store.postgres.database import Database, Statement
from amqpd.store.postgres.statements import delete, insert
from amqpd.store.postgres.texts import numbers
from amqpd.store.rows.block_bits import BlockBits
from amqpd.store.rows.message_blocks import BLOCK_COLUMNS, BlockRow, Record, records_of, taken_apart, unpack_flags

SELECT_BLOCKS = """
    SELECT block.first, queue, last, count, bytes, heads, flags
    FROM message_blocks AS block LEFT JOIN block_flags AS flag ON flag.first = block.first ORDER BY block.first"""
_READ = "SELECT queue, heads, contents FROM message_blocks WHERE first = %s"
_SINGLE_COLUMNS = (
    "number", "queue", "redelivered", "exchange", "routing_key", "properties", "checksum", "body")
_REPLACE_FLAGS = " ON CONFLICT (first) DO UPDATE SET flags = excluded.flags"

CanRead = Callable[[bytes, bytes, bytes], bool]


class BlockIndex(BlockBits):
    """The blocks of one store, and their tables."""

    def __init__(self, database: Database, deleted_at_once: int) -> None:
        super().__init__(deleted_at_once)
        self._database = database

    # Statements of changes

    def add(self, rows: Sequence[BlockRow]) -> list[Statement]:
        """Return the statement that writes these blocks."""
        self.add_bits(rows)
        return [insert("message_blocks", BLOCK_COLUMNS, rows)] if rows else []

    def drop_queues(self, queues: Collection[int]) -> int:
        """Stage the deletion of all blocks of these queues; return how many messages waited in them."""
        rows = self._database.read(
            "SELECT first FROM message_blocks WHERE queue = ANY(%s::bigint[])", (numbers(queues),))
        dropped = sum([self._now_waiting(first).bit_count() for first, in rows])
        emptied = {*self._emptied}
        self._changed.update([(first, 0) for first, in rows if first not in emptied])
        return dropped

    def take_out(self, wanted: Sequence[int]) -> list[Statement]:
        """Return the statement that gives these messages, whose numbers rise, rows of their own; no damaged ones."""
        rows = []
        for first, queue, record in self._records(self.split(wanted)[0]):
            if record.is_sound:
                was_delivered = self._redelivered.get(first, 0) >> record.place & 1
                rows.append(_row(first + record.place, queue, was_delivered, record))
                self._changed[first] = self._now_waiting(first) & ~(1 << record.place)
        return [insert("message_rows", _SINGLE_COLUMNS, rows)] if rows else []

    def mark_redelivered(self, delivered: Sequence[int]) -> None:
        """Stage that these messages, whose numbers rise, have been delivered."""
        for first, bits in self.split(delivered)[0].items():
            self._redelivered[first] = self._redelivered.get(first, 0) | bits
            self._changed[first] = self._now_waiting(first)

    def dissolve(self, first: int, now: int, can_read: CanRead) -> tuple[list[Statement], int]:
        """Return what replaces a damaged block, and how many of its messages are damaged.

        Sound messages get rows of their own, the others rows of the table `damaged`.
        """
        queue, heads, contents = self.read(first)
        flags = self._database.read("SELECT flags FROM block_flags WHERE first = %s", (first,))
        waiting, redelivered = unpack_flags(flags[0][0]) if flags and flags[0][0] else (-1, 0)
        sound, damaged = [], []
        for number, record, was_delivered in taken_apart(first, heads, contents, waiting, redelivered):
            if record.is_sound and can_read(record.exchange, record.routing_key, record.properties):
                sound.append(_row(number, queue, was_delivered, record))
            else:
                damaged.append((*_row(number, queue, was_delivered, record), now))
        self._changed[first] = 0
        statements = []
        if sound:
            statements.append(insert("message_rows", _SINGLE_COLUMNS, sound))
        if damaged:
            replaced = delete("damaged", "number", [row[0] for row in damaged])
            statements += [replaced, insert("damaged", (*_SINGLE_COLUMNS, "noticed"), damaged)]
        return statements, len(damaged)

    def write(self) -> list[Statement]:
        """Return the statements that write the changes of blocks, and delete some of the empty ones."""
        deleted, unflagged, flags = self.pending()
        statements = []
        if deleted:
            statements.append(delete("message_blocks", "first", deleted))
        if unflagged := [*{*unflagged}.difference([first for first, _ in flags])]:
            statements.append(delete("block_flags", "first", unflagged))
        if flags:
            statements.append(insert("block_flags", ("first", "flags"), flags, _REPLACE_FLAGS))
        return statements

    # Looking

    def read(self, first: int) -> tuple[int, bytes, bytes]:
        """Return queue, heads and contents of a block; empty ones if it is not there any more."""
        rows = self._database.read(_READ, (first,))
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else (0, b"", b"")

    def check(self) -> None:
        """Assert what must hold between transactions."""
        self.check_against(self._database.read(SELECT_BLOCKS))

    def _records(self, found: dict[int, int]) -> Iterator[tuple[int, int, Record]]:
        """Return the messages with these bits, with the first number of their blocks, and their queues."""
        for first, bits in found.items():
            queue, heads, contents = self.read(first)
            for record in records_of(heads, contents):
                if bits >> record.place & 1:
                    yield first, queue, record


def _row(number: int, queue: int, redelivered: int, record: Record) -> tuple[Any, ...]:
    return (number, queue, redelivered, record.exchange, record.routing_key, record.properties, record.row_checksum,
            record.body)
