"""The store: one SQLite file in one directory, opened, read at start, and written a batch at a time.

Owns the rows, and which numbers a run may give. Only one thread at a time may call it: the main one at start
and stop, the committer's in between; `info` may be asked at any time.

Always true between calls:
- what `commit` returned from is on disk, whatever happens next (`durability="process"`: unless power is lost);
- a message row exists exactly while some queue's entry points at it: its own column or a row of `entries`;
- a message block exists while one of its messages is in its queue;
- a message whose body is in parts has all of them, and parts that belong to no message are deleted in time;
- `meta.clean` is 1 only after `close`, so a run that ended otherwise is known as such;
- after a failure other than a full disk nothing is written any more: a sync that failed once may be reported
  as done the next time, without being so.

Spec: sqlite.org/wal.html, sqlite.org/atomiccommit.html; RabbitMQ docs/persistence-conf.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from amqpd.broker.definitions import Change, Defined, QueueDefinition, UserDefinition, VhostDefinition
from amqpd.broker.queue.segment import number_of
from amqpd.message import MessageProperties, Message
from amqpd.store import files
from amqpd.store.sqlite import connecting
from amqpd.store.sqlite import copying
from amqpd.store.sqlite import wal_number
from amqpd.store.sqlite import inspection
from amqpd.store.sqlite import schema
from amqpd.store.errors import StoreError, StoreFull, from_mistake, from_system
from amqpd.store.sqlite.errors import from_damage, from_sqlite
from amqpd.store.sqlite.file_watch import FileWatch
from amqpd.store.body_writes import BodyPiece
from amqpd.store.journal import Batch
from amqpd.store.sqlite.body_parts import DELETED_AT_ONCE, DELETED_WITH_BATCH, BodyParts
from amqpd.store.sqlite.reading import MessageReader
from amqpd.store.sqlite.places import listed, queues_of
from amqpd.store.sqlite.wal_number import WAL_NUMBER
from amqpd.store.sqlite.recovery import CLOCK_BEHIND, COPIED, UNFINISHED, Recovered, recover, set_aside
from amqpd.store.sqlite.rows import (
    ENTRY_COLUMNS,
    STATE_COLUMNS,
    MESSAGE_COLUMNS,
    TABLES,
    message_rows,
    size_of_large,
    with_states,
)
from amqpd.store.sqlite.message_blocks import BlockRow, pack_blocks
from amqpd.store.sqlite.block_index import BlockIndex
from amqpd.store.sqlite.statements import ORPHAN_ROWS, COUNT_MESSAGES, change_numbers, insert_large, insert_rows
from amqpd.wording import counted

Durability = Literal["power", "process"]

LARGEST_WAL = 8 << 20       # bytes of the write-ahead log before it is written back, which takes 10 ms or so
LONG_WAL = 2 * LARGEST_WAL  # from which to write it back takes so long that it matters
KEPT_FREE_PAGES = 4_096     # 16 MiB of the file that are not given back
SHRINK_PAGES = 1_024        # at once: some milliseconds and a sync
BACKUP_PAGES = 128          # of 4 KiB, between two commits: about a millisecond
_INCREMENTAL = 2            # as SQLite says it
_SET_META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
_RAISE_WATERMARKS = """
    UPDATE queue_rows SET delivery_watermark = max(delivery_watermark, json_extract(watermark.value, '$[1]'))
    FROM json_each(?) AS watermark
    WHERE queue_rows.number = json_extract(watermark.value, '$[0]')"""

logger = logging.getLogger(__name__)


class StoreInfo(msgspec.Struct, frozen=True):
    """What the store says of itself. `octets` are those of the file, `wal_bytes` those of its write-ahead log."""

    path: str
    durability: Durability
    format: int
    octets: int
    wal_bytes: int
    messages: int
    damaged: int


class Store:
    """The store of a running broker: `open`, `load`, then `commit` and `checkpoint_if_due`, at last `close`."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, durability: Durability, *, was_clean: bool, now: int
    ) -> None:
        self.first_number = 0
        self._path = path
        self._wal_path = path.with_name(path.name + "-wal")
        self._connection = connection
        self._held = ExitStack()        # the connection and the lock, let go of in this order
        self._files = FileWatch()
        self._durability: Durability = durability
        self._was_clean = was_clean
        self._now = now
        self.is_checkpoint_long = False     # whether the log was that large when `is_checkpoint_due` was last asked
        self._blocks = BlockIndex(connection)
        self._parts = BodyParts(connection)
        self._wal_count = 0             # write-ahead logs that there were before this one
        self._is_wal_noted = False
        self._messages = self._damaged = 0
        self._reader: MessageReader | None = None
        self._failure: StoreError | None = None

    # Opening

    @classmethod
    def open(cls, directory: str | Path, *, durability: Durability = "power", now: int) -> Store:
        """Open the store in this directory, or make one; `now` is the wall clock, in seconds since 1970.

        The files are examined first. Once it is loaded all message and queue numbers start at
        `first_number`, which no earlier run of this store has reached.

        Raises StoreLocked while another broker has it; StoreError for a directory others can write, another
        program's file, a newer format or damage, and leaves such a file as it is.
        """
        directory = Path(directory)
        files.prepare_directory(directory)
        path = directory / connecting.DATABASE
        with ExitStack() as undo:
            lock = files.take_lock(directory)
            undo.callback(os.close, lock)
            if not files.is_there(path):
                schema.create(path, now)
            inspection.check_ours(path)
            inspection.finish_rollback(path)
            was_clean = inspection.examine(path)
            connection = connecting.connect(path)
            undo.callback(connection.close)
            store = cls(path, connection, durability, was_clean=was_clean, now=now)
            store._prepare()
            store._held = undo.pop_all()
        return store

    def _prepare(self) -> None:
        if self._size_of(self._wal_path):
            with self._guarded():
                files.write_again(self._wal_path)   # the last run may have ended because it could not sync it
            self._checkpoint()      # what two crashes leave in one log, the log scan could not tell from damage
        with self._guarded() as connection:
            schema.upgrade(connection, self._path)
            meta = dict(connection.execute("SELECT key, value FROM meta"))
        logs = wal_number.number_in(meta)
        self._wal_count = logs if isinstance(logs, int) else 0
        with self._guarded():
            self._files.begin((self._path, self._wal_path), self._path.with_name(files.LOCK))
        self.first_number = meta["epoch"] + 1 << schema.EPOCH_SHIFT

    def load(self, read_properties: Callable[[bytes], MessageProperties]) -> Recovered:
        """Read back all but contents, once, before the first commit. `read_properties` reads the bytes of properties.

        Those messages count as redelivered that `close` was told of, or that the watermarks of the last run cover. What
        is of no use to any queue is set aside and logged. Raises StoreError.
        """
        self._reader = MessageReader(read_properties)
        with self._transaction() as connection:
            try:
                recovered = recover(connection, self._reader, self._blocks, was_clean=self._was_clean, now=self._now)
            except (KeyError, TypeError, ValueError) as error:
                raise self._failed(from_damage(error, self._path)) from error
            self._parts.load(self.first_number)
            self._count_all()
            self._begin_run(connection)     # not before: a file that turns out to be damaged is left as it was
        # Nor this: the start of a run must be known after a power cut, whatever confirms are promised.
        if self._durability == "process":
            with self._guarded() as connection:
                connecting.change_setting(connection, self._path, "synchronous", 1)
        self._warn_of_damage(recovered.damaged, recovered.damaged_in)
        return recovered

    def _begin_run(self, connection: sqlite3.Connection) -> None:
        """Write that the file is in use, and that no later run may give the numbers of this one."""
        epoch = self.first_number >> schema.EPOCH_SHIFT
        values = ("epoch", epoch), ("clean", 0), ("synced", self._durability == "power")
        connection.executemany(_SET_META, values)
        connection.execute("DELETE FROM meta WHERE key = ?", (COPIED,))
        wal_number.prepare(self._path)

    def _warn_of_damage(self, count: int, queues: Sequence[str]) -> None:
        if count:
            logger.warning(
                "%s%s will not be delivered: moved to the table 'damaged' of %s", counted(count, "damaged message"),
                f" of {listed(queues)}" if queues else "", self._path)

    def fetch(self, numbers: Sequence[int]) -> list[Message]:
        """The messages of these numbers, which rise, in order; after `load`, and not while a batch is written.

        Damaged ones are set aside and logged; whoever settled them in all queues, they are missing. Raises StoreError.
        """
        assert self._reader is not None
        with self._guarded() as connection:
            in_blocks, single = self._blocks.split(numbers)
            messages, damaged = self._reader.fetch(connection, single)
            damaged_blocks = []
            for first, bits in in_blocks.items():
                found = self._reader.read_block(first, *self._blocks.read(first)[1:], bits)
                messages += found
                if len(found) < bits.bit_count():
                    damaged_blocks.append(first)
        if damaged or damaged_blocks:
            self._set_aside(damaged, damaged_blocks)
        if damaged_blocks:
            messages += self._fetch_single_rows(sorted({*numbers}.difference([m.number for m in messages], damaged)))
        if len(in_blocks) + bool(single) > 1:
            messages.sort(key=number_of)
        return messages

    def _fetch_single_rows(self, numbers: list[int]) -> list[Message]:
        """Fetch messages that were sound in a damaged block, and have rows of their own now."""
        assert self._reader is not None
        with self._guarded() as connection:
            messages, damaged = self._reader.fetch(connection, numbers)
        if damaged:
            self._set_aside(damaged, [])
        return messages

    def _set_aside(self, damaged: list[int], damaged_blocks: list[int]) -> None:
        assert self._reader is not None
        now, before = int(time.time()), self._damaged
        with self._transaction() as connection:
            queues = queues_of(connection, damaged, damaged_blocks)
            set_aside(connection, damaged, now)
            self._parts.leave(damaged)
            for first in damaged_blocks:
                self._blocks.dissolve(first, now, self._reader.can_read)
            self._blocks.write()
            self._count_all()
        self._warn_of_damage(self._damaged - before, queues)

    def _count_all(self) -> None:
        self._messages, = self._connection.execute(COUNT_MESSAGES).fetchone()
        self._damaged, = self._connection.execute("SELECT count(*) FROM damaged").fetchone()

    # Writing

    def commit(self, batch: Batch) -> None:
        """Make a batch safe, whole.

        Raises StoreFull, when nothing of it was written and it may be committed again; StoreError, after which
        nobody knows, and every later call raises the same.
        """
        if batch.is_empty and not batch.written:
            return
        with self._transaction():
            gone = [number for change in batch.changes for number in self._apply(change)]
            removed = self._drop_queues(gone) if gone else 0
            added = self._insert(batch)
            removed += self._settle(batch.settled)
            self._count_deliveries(batch)
            self._blocks.write()
            if self._parts.has_dead:
                self._parts.delete(DELETED_WITH_BATCH)
            if batch.clock_behind_ms is not None:
                self._connection.execute(_SET_META, (CLOCK_BEHIND, batch.clock_behind_ms))
            if batch.unfinished is not None:
                self._connection.execute(_SET_META, (UNFINISHED, batch.unfinished))
            if batch.watermarks:
                self._connection.execute(_RAISE_WATERMARKS, (json.dumps(list(batch.watermarks.items())),))
        self._messages += added - removed

    def write_body(self, piece: BodyPiece) -> None:
        """Write some parts of a large body, whose message is recorded later, and make them safe.

        Raises StoreFull, when nothing was written and it may be tried again; StoreError.
        """
        with self._transaction():
            self._parts.write(piece)

    def drop_body(self, body_id: int, count: int) -> None:
        """Delete so many parts of a body, at some time: its message will not be recorded. From any thread."""
        self._parts.drop(body_id, count)

    def _apply(self, change: Change) -> list[int]:
        """Write a change; the numbers of the queues whose messages go with it."""
        execute, definition = self._connection.execute, change.definition
        table = TABLES[type(definition)]
        if isinstance(change, Defined):
            execute(table.upsert, table.row_of(definition))
            return []
        execute(table.delete, table.key_of(definition))
        if isinstance(definition, QueueDefinition):
            return [definition.number]
        if isinstance(definition, UserDefinition):
            execute("DELETE FROM permissions WHERE user = ?", (definition.name,))
        if not isinstance(definition, VhostDefinition):
            return []
        gone = execute("SELECT number FROM queue_rows WHERE vhost = ?", (definition.name,)).fetchall()
        for name in ("permissions", "policies", "exchanges", "queue_rows", "bindings"):
            execute(f"DELETE FROM {name} WHERE vhost = ?", (definition.name,))
        return [number for number, in gone]

    def _drop_queues(self, queues: list[int]) -> int:
        """Delete all messages of these queues, but for those that are in others too; says how many."""
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
        """Write what is published, with its expiries and delivery counts; says how many messages that is."""
        connection = self._connection
        blocks: list[BlockRow] = []
        single: dict[int, Mapping[int, Message]] = {}
        for queue, messages in batch.published.items():
            more, single[queue] = pack_blocks(queue, messages, batch.marked(queue))
            blocks += more
        added = self._blocks.add(blocks)
        rows, large, entries = message_rows(single, batch.written)
        octets = max(0, batch.weight - size_of_large(large))
        if not (batch.expiries or batch.deliveries):
            insert_rows(connection, "message_rows", MESSAGE_COLUMNS, rows, octets)
            insert_large(connection, "message_rows", MESSAGE_COLUMNS, large)
            insert_rows(connection, "entries", ENTRY_COLUMNS, entries)
        else:
            rows_with_states, large_with_states, entries_with_states = with_states(
                rows, large, entries, batch.expiries, batch.deliveries)
            insert_rows(connection, "message_rows", MESSAGE_COLUMNS + STATE_COLUMNS, rows_with_states, octets)
            insert_large(connection, "message_rows", MESSAGE_COLUMNS + STATE_COLUMNS, large_with_states)
            insert_rows(connection, "entries", ENTRY_COLUMNS + STATE_COLUMNS, entries_with_states)
        if batch.written:
            self._parts.record(batch.written.items(), [row[0] for row in large])
        return added + len(rows) + len(large)

    def _count_deliveries(self, batch: Batch) -> None:
        """Write the delivery counts of messages that were there before this batch."""
        for queue, counts in batch.deliveries.items():
            alike: dict[int, list[int]] = {}
            numbers = sorted(counts.keys() - batch.published.get(queue, {}).keys())
            self._blocks.take_out(numbers)
            for number in numbers:
                alike.setdefault(counts[number], []).append(number)
            for count, numbers in alike.items():
                for table in ("message_rows", "entries"):
                    update = f"UPDATE {table} SET deliveries = ? WHERE queue = ?"
                    change_numbers(self._connection, update, numbers, count, queue)

    def _settle(self, settled: Mapping[int, list[int]]) -> int:
        """Delete what has left its queue; says how many messages went with it."""
        single = {queue: self._blocks.settle(sorted(left)) for queue, left in settled.items()}
        count = sum(map(len, settled.values()))
        numbers = sorted({*chain.from_iterable(single.values())})
        # Such a message is in one queue, so whoever settled it was the only one who could.
        removed = count - sum(map(len, single.values()))
        removed += change_numbers(self._connection, "DELETE FROM message_rows WHERE queue IS NOT NULL", numbers)
        if removed != count:
            for queue, left in single.items():
                change_numbers(self._connection, "DELETE FROM entries WHERE queue = ?", left, queue)
            removed += self._drop_unheld(numbers)
        self._parts.settle(numbers)
        return removed

    def _drop_unheld(self, numbers: list[int]) -> int:
        """Delete those of these messages, kept for several queues, that no queue has any more; says how many."""
        unheld = "queue IS NULL AND NOT EXISTS (SELECT * FROM entries WHERE entries.number = message_rows.number)"
        return change_numbers(self._connection, f"DELETE FROM message_rows WHERE {unheld}", numbers)

    def is_checkpoint_due(self) -> bool:
        """Return whether the log is large enough to be written back; its size is noted meanwhile. Raises StoreError."""
        with self._guarded():
            size = self._size_of(self._wal_path)
            self._files.grown(self._wal_path, size)
            self.is_checkpoint_long = size > LONG_WAL
            return size > LARGEST_WAL

    def checkpoint_if_due(self) -> None:
        """Write the log back into the file when that is due. Raises StoreFull, StoreError."""
        if self.is_checkpoint_due():
            self._checkpoint()

    def fail(self, failure: StoreError) -> None:
        """Write nothing any more: something was not read that should have been, and may not be taken for lost."""
        self._failure = self._failure or failure

    def fail_by_mistake(self, error: Exception) -> StoreError:
        """As `fail`, for an error that nobody has thought of; returns what to tell."""
        return self._failed(from_mistake(error, self._path))

    def check_files(self) -> None:
        """See that the files that are open are still there under their names; from any thread, even meanwhile.

        Raises StoreError, and so does every later call: nothing that was written since can be relied on.
        """
        with self._guarded():
            self._files.check()

    def _checkpoint(self) -> None:
        with self._guarded() as connection, self._files.checkpoint():
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            # SQLite does not, and a log that is written over an older one cannot be told from a damaged one.
            files.sync_file(self._wal_path)
        self._wal_count += self._is_wal_noted
        self._is_wal_noted = False

    @property
    def has_to_sweep(self) -> bool:
        """Return whether there is anything that `sweep` would delete."""
        return self._blocks.has_emptied or self._parts.has_dead

    def sweep(self) -> bool:
        """Delete a piece of what a purge, a deleted queue or a large message has left; says whether there is more.

        Each commit does as much. Raises StoreFull, StoreError.
        """
        with self._transaction():
            self._blocks.write()
            self._parts.delete(DELETED_AT_ONCE)
        self.checkpoint_if_due()
        return self.has_to_sweep

    def shrink(self) -> bool:
        """Give a piece of the file's free room back to the disk; says whether there is more to give.

        As much as is in use stays free, and 16 MiB at least, so that a backlog that comes and goes finds its room.
        A store that was made in format 1 only shrinks once it was compacted. Raises StoreFull, StoreError.
        """
        spare = self._spare_pages()
        if spare <= 0:
            return False
        with self._guarded() as connection:
            # As a script: of a single statement that gives no rows Python takes one step, which frees one page.
            connection.executescript(f"PRAGMA incremental_vacuum({min(spare, SHRINK_PAGES)})")
        if spare > SHRINK_PAGES:
            self.checkpoint_if_due()
            return True
        self._checkpoint()      # not before is the file cut
        return False

    def _spare_pages(self) -> int:
        with self._guarded() as connection:
            mode, free, pages = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in (
                "auto_vacuum", "freelist_count", "page_count")]
            return free - max(KEPT_FREE_PAGES, pages - free) if mode == _INCREMENTAL else 0

    # Ending

    def close(
        self, redelivered: Mapping[int, Collection[int]], redelivered_to: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        """Stop cleanly. By queue number: the numbers of messages that have been with somebody, and the number up to
        which any may have been, where that is all that is known.

        Raises StoreFull, StoreError; `abandon` is what is left to do then.
        """
        self.check_files()
        with self._transaction() as connection:
            for queue, numbers in redelivered.items():
                self._blocks.mark_redelivered(sorted(numbers))
                for table in ("message_rows", "entries"):
                    connection.execute(
                        f"UPDATE {table} SET redelivered = 1 WHERE queue = ? AND redelivered = 0 "
                        "AND number IN (SELECT value FROM json_each(?))", (queue, json.dumps(list(numbers))))
            self._blocks.write()
            connection.execute("UPDATE queue_rows SET delivery_watermark = 0 WHERE delivery_watermark > 0")
            for queue, number in redelivered_to.items():
                connection.execute("UPDATE queue_rows SET delivery_watermark = ? WHERE number = ?", (number, queue))
            connection.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
        self._checkpoint()
        with self._guarded() as connection:
            self._files.end()
            connection.close()          # which takes the log away
        wal_number.forget(self._path)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the files as a crash would: the next start takes this for an unclean stop. Twice is fine."""
        self._files.end()
        self._held.close()

    # Looking

    def backup(self, to: Path, between: Callable[[int, int], None]) -> None:
        """Copy all to a new file, in steps; `between` is called after each and may commit, which is in the copy too.

        What comes out is as a crash would leave it, and is not synced. Raises StoreError, which is the copy's only,
        and what `between` raises.
        """
        copying.copy_pages(self._connection, to, pages=BACKUP_PAGES, between=between)

    def info(self) -> StoreInfo:
        """What there is, from memory and the sizes of the files; from any thread, and after `load`."""
        return StoreInfo(
            str(self._path), self._durability, schema.newest_format(), self._size_of(self._path),
            self._size_of(self._wal_path), self._messages, self._damaged)

    @staticmethod
    def _size_of(path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def check(self) -> None:
        """Assert what must hold between calls."""
        orphans = self._connection.execute(ORPHAN_ROWS).fetchall()
        assert not orphans, f"message rows and entries disagree: {orphans}"
        assert self._messages == self._connection.execute(COUNT_MESSAGES).fetchone()[0]
        self._blocks.check()
        self._parts.check()

    # Failing

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, or rolled back whatever went wrong."""
        with self._guarded() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                if not self._is_wal_noted:
                    connection.execute(_SET_META, (WAL_NUMBER, self._wal_count + 1))
                connection.execute("COMMIT")
                self._blocks.keep()
                self._parts.keep()
                if not self._is_wal_noted:
                    self._note_wal()
            finally:
                self._blocks.forget()
                self._parts.forget()
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")

    def _note_wal(self) -> None:
        try:
            wal_number.note(self._path, self._wal_count + 1)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return      # the commit is safe, and the next one tries again
        self._is_wal_noted = True

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """The connection, unless something failed before; what fails now is remembered, but for a full disk.

        Everything becomes a StoreError: whatever it was, a batch was not written, and nobody may go on.
        """
        if self._failure is not None:
            raise self._failure
        try:
            yield self._connection
        except sqlite3.Error as error:
            raise self._failed(from_sqlite(error, self._path)) from error
        except StoreError as error:
            raise self._failed(error)
        except OSError as error:
            path = Path(error.filename) if isinstance(error.filename, str) else self._path
            raise self._failed(from_system(error, path)) from error
        except Exception as error:
            raise self._failed(from_mistake(error, self._path)) from error

    def _failed(self, failure: StoreError) -> StoreError:
        if not isinstance(failure, StoreFull):
            self._failure = failure
        return failure
