"""The store of a running broker: one SQLite file in one directory, opened, read at start, and written in batches.

Owns the order of opening and closing, and which numbers a run may give. See `store/port.py` for the calls, their
threads and their errors.

Always true between calls:
- what `commit` returned from is on disk, whatever happens next (`durability="process"`: unless power is lost);
- a message row exists exactly while some queue's entry points at it: its own column or a row of `entries`;
- a message block exists while one of its messages is in its queue;
- a message whose body is in parts has all of them, and parts that belong to no message are deleted in time; messages
  may share them;
- `meta.clean` is 1 only after `close`, so a run that ended otherwise is known as such;
- after a failure other than a full disk nothing is written any more; see `database.py`.

Spec: sqlite.org/wal.html, sqlite.org/atomiccommit.html; RabbitMQ docs/persistence-conf.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from amqpd.broker.audit_entry import AuditEntry
from amqpd.message import Message, MessageProperties
from amqpd.store import files
from amqpd.store.batch import Batch
from amqpd.store.body_writes import BodyPiece
from amqpd.store.errors import StoreError, from_mistake
from amqpd.store.port import Durability, Recovered, StoreInfo
from amqpd.store.sqlite import connecting, copying, inspection, schema, wal_number
from amqpd.store.sqlite.audit_rows import read_audit_log
from amqpd.store.sqlite.batch_writer import BatchWriter
from amqpd.store.sqlite.block_index import BlockIndex
from amqpd.store.sqlite.body_parts import BodyParts
from amqpd.store.sqlite.counts import MessageCounts
from amqpd.store.sqlite.database import Database
from amqpd.store.sqlite.errors import from_damage
from amqpd.store.sqlite.fetching import MessageFetcher
from amqpd.store.sqlite.file_watch import FileWatch
from amqpd.store.sqlite.limits import LIMITS, StoreLimits
from amqpd.store.rows.body_use import DELETED_AT_ONCE
from amqpd.store.rows.reading import MessageReader
from amqpd.store.sqlite.recovery import COPIED, recover
from amqpd.store.sqlite.shrinking import shrink
from amqpd.store.sqlite.statements import COUNT_MESSAGES, ORPHAN_ROWS, SET_META
from amqpd.store.sqlite.wal import WriteAheadLog, size_of

logger = logging.getLogger(__name__)


class Store:
    """See `store/port.py`. `database` is the open file."""

    def __init__(
        self, database: Database, watch: FileWatch, durability: Durability, limits: StoreLimits, *, was_clean: bool,
        now: int,
    ) -> None:
        connection = database.connection
        self.first_number = 0
        self.database = database
        self._watch = watch
        self._durability: Durability = durability
        self._limits = limits
        self._was_clean = was_clean
        self._now = now
        self._held = ExitStack()        # the connection and the lock, released in this order
        self._blocks = BlockIndex(connection, limits.deleted_at_once)
        self._parts = BodyParts(connection, limits.part_bytes)
        self._writer = BatchWriter(connection, self._blocks, self._parts, limits)
        self._fetcher: MessageFetcher | None = None
        self._counts = MessageCounts()
        database.staged = self._blocks, self._parts

    # Opening

    @staticmethod
    def exists(directory: Path) -> bool:
        """Return whether there is a store in this directory, as far as this user can see."""
        return os.path.lexists(directory / connecting.DATABASE)

    @classmethod
    def open(
        cls, directory: str | Path, *, durability: Durability = "power", now: int, limits: StoreLimits = LIMITS,
        steps: schema.Steps = schema.STEPS,
    ) -> Store:
        """Open the store in this directory, or make one; `now` is the wall clock, in seconds since 1970.

        `steps` lead from an empty file to the newest format.

        The files are examined first. Raises StoreLocked while another broker has it; StoreError for a directory that
        others can write, another program's file, a newer format or damage, and leaves such a file as it is.
        """
        directory = Path(directory)
        files.prepare_directory(directory)
        path = directory / connecting.DATABASE
        with ExitStack() as undo:
            lock = files.take_lock(directory)
            undo.callback(os.close, lock)
            if not files.is_there(path):
                schema.create(path, now, steps)
            inspection.check_ours(path)
            inspection.finish_rollback(path, busy_wait_s=limits.busy_wait_s)
            was_clean = inspection.examine(path, busy_wait_s=limits.busy_wait_s)
            connection = connecting.connect(path, busy_wait_s=limits.busy_wait_s)
            undo.callback(connection.close)
            watch = FileWatch()
            database = Database(path, connection, WriteAheadLog(path, watch, limits))
            store = cls(database, watch, durability, limits, was_clean=was_clean, now=now)
            store._prepare(steps)
            store._held = undo.pop_all()
        return store

    def _prepare(self, steps: schema.Steps) -> None:
        """Write back the log that the last run left, bring the file to today's format, and watch the files."""
        database, path = self.database, self.database.path
        wal = database.wal
        if wal.size:
            with database.guarded():
                files.write_again(wal.path)     # the last run may have ended because it could not sync it
            database.checkpoint()   # what two crashes leave in one log, the log scan could not tell from damage
        with database.guarded() as connection:
            upgraded = schema.upgrade(connection, path, steps)
            meta = dict(connection.execute("SELECT key, value FROM meta"))
        if upgraded is not None:
            logger.info("store upgraded from format %d to %d; the old file is kept as %s", *upgraded)
        wal.begin(meta)
        with database.guarded():
            self._watch.begin((path, wal.path), path.with_name(files.LOCK))
        self.first_number = meta["epoch"] + 1 << schema.EPOCH_SHIFT

    def load(self, read_properties: Callable[[bytes], MessageProperties]) -> Recovered:
        """See `store/port.py`."""
        database, reader = self.database, MessageReader(
            read_properties, self._limits.remembered, hold=self._parts.hold)
        with database.transaction() as connection:
            try:
                recovered = recover(connection, reader, self._blocks, was_clean=self._was_clean, now=self._now)
            except (KeyError, TypeError, ValueError) as error:
                raise from_damage(error, database.path) from error
            self._parts.load(self.first_number)
            self._counts.count(connection)
            self._begin_run()       # not before: a file that turns out to be damaged is left as it was
        # Nor this: the start of a run must be known after a power cut, whatever confirms are promised.
        if self._durability == "process":
            with database.guarded() as connection:
                connecting.change_setting(connection, database.path, "synchronous", 1)
        self._fetcher = MessageFetcher(database, self._blocks, self._parts, reader, self._counts)
        self._fetcher.warn_of_damage(recovered.damaged, recovered.damaged_in)
        return recovered

    def _begin_run(self) -> None:
        """Write that the file is in use, and that no later run may give the numbers of this one."""
        connection = self.database.connection
        epoch = self.first_number >> schema.EPOCH_SHIFT
        values = ("epoch", epoch), ("clean", 0), ("synced", self._durability == "power")
        connection.executemany(SET_META, values)
        connection.execute("DELETE FROM meta WHERE key = ?", (COPIED,))
        wal_number.prepare(self.database.path)

    def fetch(self, numbers: Sequence[int]) -> list[Message]:
        """See `store/port.py`."""
        assert self._fetcher is not None, "the store has not been loaded"
        return self._fetcher.fetch(numbers)

    def on_reachable(self, tell: Callable[[str], None]) -> None:
        """See `store/port.py`: a file is always there."""

    # Writing

    def commit(self, batch: Batch) -> None:
        """See `store/port.py`."""
        if batch.is_empty:
            return
        with self.database.transaction():
            added = self._writer.write(batch)
        self._counts.messages += added

    def write_body(self, piece: BodyPiece) -> None:
        """See `store/port.py`."""
        with self.database.transaction():
            self._parts.write(piece)

    def release_body(self, body_id: int) -> None:
        """See `store/port.py`."""
        self._parts.release(body_id)

    # Tidying up

    def is_checkpoint_due(self) -> bool:
        """See `store/port.py`."""
        return self.database.is_checkpoint_due()

    @property
    def is_checkpoint_long(self) -> bool:
        """See `store/port.py`."""
        return self.database.wal.is_long

    def checkpoint_if_due(self) -> None:
        """See `store/port.py`."""
        self.database.checkpoint_if_due()

    @property
    def has_to_sweep(self) -> bool:
        """See `store/port.py`."""
        return self._blocks.has_emptied or self._parts.find_dead()

    def sweep(self) -> bool:
        """See `store/port.py`. Each commit deletes a piece as well."""
        with self.database.transaction():
            self._blocks.write()
            self._parts.delete(DELETED_AT_ONCE)
        self.database.checkpoint_if_due()
        return self.has_to_sweep

    def shrink(self) -> bool:
        """See `store/port.py`."""
        return shrink(self.database, self._limits)

    # Ending

    def close(
        self, redelivered: Mapping[int, Collection[int]], redelivered_to: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        """See `store/port.py`."""
        database = self.database
        self.check_files()
        with database.transaction() as connection:
            self._writer.mark_redelivered(redelivered, redelivered_to)
            connection.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
        database.checkpoint()
        with database.guarded() as connection:
            self._watch.end()
            connection.close()          # which deletes the log
        wal_number.forget(database.path)
        self.abandon()

    def abandon(self) -> None:
        """See `store/port.py`."""
        self._watch.end()
        self._held.close()

    # Failing

    def fail(self, failure: StoreError) -> None:
        """See `store/port.py`."""
        self.database.fail(failure)

    def fail_by_mistake(self, error: Exception) -> StoreError:
        """See `store/port.py`."""
        return self.database.failed(from_mistake(error, self.database.path))

    def check_files(self) -> None:
        """See `store/port.py`."""
        with self.database.guarded():
            self._watch.check()

    # Looking

    def backup(self, to: Path, between: Callable[[int, int], None]) -> None:
        """See `store/port.py`."""
        copying.copy_pages(
            self.database.connection, self.database.path, to, pages=self._limits.backup_pages, between=between)

    def audit_log(
        self, *, limit: int, user: str = "", door: str = "", action: str = "", since_ms: int = 0
    ) -> list[AuditEntry]:
        """See `store/port.py`."""
        with self.database.guarded() as connection:
            return read_audit_log(
                connection, limit=limit, user=user, door=door, action=action, since_ms=since_ms)

    def info(self) -> StoreInfo:
        """See `store/port.py`."""
        path, counts = self.database.path, self._counts
        return StoreInfo(
            str(path), self._durability, schema.newest_format(), size_of(path), self.database.wal.size,
            counts.messages, counts.damaged)

    def check(self) -> None:
        """Assert what must hold between calls."""
        connection = self.database.connection
        orphans = connection.execute(ORPHAN_ROWS).fetchall()
        assert not orphans, f"message rows and entries disagree: {orphans}"
        assert self._counts.messages == connection.execute(COUNT_MESSAGES).fetchone()[0]
        self._blocks.check()
        self._parts.check()
