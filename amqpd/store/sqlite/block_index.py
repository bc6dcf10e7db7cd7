"""The message blocks of a store: which of their messages are left, and how messages are read, flagged and removed.

Owns the tables `message_blocks` and `block_flags`. Memory has a number with a bit for each message of a block, so the
messages that are left are known without reading. A block is deleted when its last message leaves; before that, flags
tell which messages have left. A message that gets a delivery count or an expiry gets a row of its own instead.

Deleting a row takes as long as writing it. So when very many blocks become empty at once, by a purge or with a queue,
only some are deleted at once. The others get flags which say that no message is left, and are deleted in slices.

Always true between transactions: `_waiting` agrees with the two tables, and nothing is staged; `_emptied` are the
blocks without messages.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from amqpd.store.bits import bits_of
from amqpd.store.sqlite.message_blocks import (
    BLOCK_COLUMNS,
    SPAN,
    Record,
    BlockRow,
    pack_flags,
    places_and_sizes,
    records_of,
    taken_apart,
    unpack_flags,
)
from amqpd.store.sqlite.statements import insert_rows

SELECT_BLOCKS = """
    SELECT first, queue, last, count, bytes, CAST(heads AS BLOB), CAST(flags AS BLOB)
    FROM message_blocks LEFT JOIN block_flags USING (first) ORDER BY first"""
NOTHING_WAITS = pack_flags(0, 0)
_MANY = 32
_READ = "SELECT queue, CAST(heads AS BLOB), CAST(contents AS BLOB) FROM message_blocks WHERE first = ?"
_PUT = """
    INSERT OR REPLACE INTO {} (number, queue, redelivered, deliveries, exchange, routing_key, properties, checksum,
    body{}) VALUES (?, ?, ?, 0, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?{})"""
_PUT_SINGLE, _PUT_ASIDE = _PUT.format("message_rows", "", ""), _PUT.format("damaged", ", noticed", ", ?")


def _always(*_: object) -> bool:
    return True


class BlockIndex:
    """The blocks of one store. Changes within a transaction are staged until `keep`, or dropped by `forget`."""

    def __init__(self, connection: sqlite3.Connection, deleted_at_once: int) -> None:
        self._connection = connection
        self._deleted_at_once = deleted_at_once     # rows, in one transaction
        self._firsts: list[int] = []                # of all blocks, rising
        self._waiting: dict[int, int] = {}          # by the first number of a block
        self._redelivered: dict[int, int] = {}      # as far as the last clean stop knew; most blocks have none
        self._added: dict[int, int] = {}            # in this transaction, and what waits in them
        self._changed: dict[int, int] = {}          # what waits in others once it is done
        self._emptied: list[int] = []               # rows that are to be deleted
        self._now_emptied: list[int] = []           # in this transaction
        self._deleted = 0                           # of `_emptied`, in this transaction

    def know(self, first: int, waiting: int, redelivered: int) -> None:
        """Register a block, when the store is read; blocks come in the order of their numbers."""
        if not waiting:
            self._emptied.append(first)
            return
        self._firsts.append(first)
        self._waiting[first] = waiting
        if redelivered:
            self._redelivered[first] = redelivered

    # Changes

    def add(self, rows: Sequence[BlockRow]) -> int:
        """Write these blocks; return how many messages they have. Raises sqlite3.Error, as all changes do."""
        insert_rows(self._connection, "message_blocks", BLOCK_COLUMNS, rows, sum([len(row[-1]) for row in rows]))
        for first, last, _, count, _, heads, _ in rows:
            has_gaps = last - first >= count
            self._added[first] = bits_of([place for place, _ in places_and_sizes(heads)] if has_gaps else range(count))
        return sum([row[3] for row in rows])

    def settle(self, numbers: Sequence[int]) -> list[int]:
        """Remove these messages, whose numbers rise, from their blocks; return the numbers of those in none."""
        found, single = self.split(numbers)
        for first, bits in found.items():
            self._changed[first] = self._now_waiting(first) & ~bits
        return single

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
        if self._changed:
            self._write_changes()
        elif self._emptied:
            self._delete_emptied(self._deleted_at_once)

    def _write_changes(self) -> None:
        gone = [first for first, bits in self._changed.items() if not bits]
        self._delete("message_blocks", gone[:self._deleted_at_once])
        self._delete("block_flags", [*self._changed])
        self._now_emptied = gone[self._deleted_at_once:]
        flags = [(first, pack_flags(bits, self._redelivered.get(first, 0) & bits))
                 for first, bits in self._changed.items() if bits]
        flags += [(first, NOTHING_WAITS) for first in self._now_emptied]
        insert_rows(self._connection, "block_flags", ("first", "flags"), flags)
        self._delete_emptied(self._deleted_at_once - len(gone))

    def _delete_emptied(self, most: int) -> None:
        """Delete up to so many rows of blocks that became empty before this transaction."""
        if most > 0 and self._emptied:
            firsts = self._emptied[-most:]
            self._deleted = len(firsts)
            self._delete("message_blocks", firsts)
            self._delete("block_flags", firsts)

    def _delete(self, table: str, firsts: list[int]) -> None:
        self._connection.execute(
            f"DELETE FROM {table} WHERE first IN (SELECT value FROM json_each(?))", (json.dumps(firsts),))

    @property
    def has_emptied(self) -> bool:
        """Whether empty blocks are to be deleted."""
        return bool(self._emptied)

    def keep(self) -> None:
        """Note that the changes are committed."""
        if self._added:
            in_order = not self._firsts or self._firsts[-1] < min(self._added)
            self._firsts += sorted(self._added)
            if not in_order:        # what is published later may have been given its number earlier
                self._firsts.sort()
        self._waiting.update(self._added)
        gone = []
        for first, bits in self._changed.items():
            if bits:
                self._waiting[first] = bits
            elif self._waiting.pop(first, None) is not None:    # but for one that was never known to be sound
                gone.append(first)
                self._redelivered.pop(first, None)
        if len(gone) < _MANY:
            for first in gone:
                del self._firsts[bisect_left(self._firsts, first)]
        else:
            self._firsts = [first for first in self._firsts if first in self._waiting]
        if self._deleted:
            del self._emptied[-self._deleted :]
        self._emptied += self._now_emptied

    def forget(self) -> None:
        """Forget what was changed since the last transaction."""
        self._added.clear()
        self._changed.clear()
        self._now_emptied = []
        self._deleted = 0

    def _now_waiting(self, first: int) -> int:
        return self._changed.get(first, self._waiting.get(first, 0))

    def _put(self, statement: str, number: int, queue: int, redelivered: int, record: Record, *noticed: int) -> None:
        self._connection.execute(statement, (
            number, queue, redelivered, record.exchange, record.routing_key, record.properties, record.row_checksum,
            record.body, *noticed))

    # Looking

    def split(self, numbers: Sequence[int]) -> tuple[dict[int, int], list[int]]:
        """Return the blocks of these messages, whose numbers rise, with their bits; and the numbers without a block."""
        found: dict[int, int] = {}
        single: list[int] = []
        if not self._firsts:
            return found, [*numbers]
        at = 0
        while at < len(numbers):
            number = numbers[at]
            first = self._block_of(number)
            if first is None:
                single.append(number)
                at += 1
                continue
            waiting = self._now_waiting(first)
            end = bisect_left(numbers, first + waiting.bit_length(), at)
            bits = bits_of(numbers[at:end], first)
            found[first] = here = bits & waiting
            if here != bits:        # blocks of several queues may share a span
                others = [number for number in numbers[at:end] if not here >> number - first & 1]
                numbers, at, end = [*others, *numbers[end:]], 0, 0
            at = end
        return found, single

    def _block_of(self, number: int) -> int | None:
        """Return the first number of the block in which this message waits."""
        for at in range(bisect_right(self._firsts, number) - 1, -1, -1):
            first = self._firsts[at]
            if number - first >= SPAN:
                break
            if self._now_waiting(first) >> number - first & 1:
                return first
        return None

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
        assert not self._added and not self._changed, "a change was neither kept nor forgotten"
        assert self._firsts == sorted(self._waiting)
        rows = {row[0]: parse_block(row) for row in self._connection.execute(SELECT_BLOCKS)}
        assert sorted(self._emptied) == [first for first, (_, waiting, _) in rows.items() if not waiting]
        rows = {first: row for first, row in rows.items() if row[1]}
        assert {first: waiting for first, (_, waiting, _) in rows.items()} == self._waiting
        for first, (_, waiting, redelivered) in rows.items():
            assert redelivered == self._redelivered.get(first, 0) & waiting


def parse_block(row: tuple[Any, ...]) -> tuple[list[tuple[int, int]], int, int]:
    """Parse a row of `SELECT_BLOCKS`: return places and sizes of all messages, the bits of those that are left, and of
    those that have been delivered. Raises TypeError, ValueError for a damaged row.
    """
    first, _, last, count, body_bytes, heads, flags = row
    found = places_and_sizes(heads)
    places, sizes = zip(*found)
    if (last, count, body_bytes) != (first + places[-1], len(found), sum(sizes)):
        raise ValueError("its heads are not what its other columns say")
    everything = bits_of(places)
    waiting, redelivered = (everything, 0) if flags is None else unpack_flags(flags)
    if flags == b"" or waiting & ~everything:
        raise ValueError("its flags are not those of its messages")
    return found, waiting, redelivered & waiting
