"""The store of a running broker in PostgreSQL: opened, read at start, and written in batches.

See `store/port.py` for the calls, their threads and their errors. Always true between calls:
- what `commit` returned from is where the server's settings say that a commit is: on its disk, and with standbys;
- only the run whose epoch is the lease's can write, so a broker that was taken over can harm nothing;
- `meta.clean` is 1 only after `close`, so a run that ended otherwise is known as such.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg

from amqpd.broker.audit_entry import AuditEntry
from amqpd.message import Message, MessageProperties
from amqpd.store import files
from amqpd.store.batch import Batch
from amqpd.store.body_writes import BodyPiece
from amqpd.store.errors import StoreError, from_mistake_at
from amqpd.store.port import Recovered, StoreInfo
from amqpd.store.postgres import schema
from amqpd.store.postgres.audit_rows import read_audit_log
from amqpd.store.postgres.batch_writer import BatchWriter
from amqpd.store.postgres.block_index import BlockIndex
from amqpd.store.postgres.body_parts import BodyParts
from amqpd.store.postgres.confirming import describe_commits
from amqpd.store.postgres.connecting import Address
from amqpd.store.postgres.counts import MessageCounts
from amqpd.store.postgres.database import Database, Statement
from amqpd.store.postgres.errors import from_postgres
from amqpd.store.postgres.fetching import MessageFetcher
from amqpd.store.postgres.lease import Lease
from amqpd.store.postgres.limits import LIMITS, StoreLimits
from amqpd.store.postgres.recovery import COPIED, meta_of, recover
from amqpd.store.postgres.statements import ORPHAN_ROWS, SET_META
from amqpd.store.rows.body_use import DELETED_AT_ONCE
from amqpd.store.rows.reading import MessageReader

logger = logging.getLogger(__name__)

_SIZE = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class WHERE relkind = 'r' " \
    "AND relnamespace = current_schema()::regnamespace"


class Store:
    """See `store/port.py`."""

    def __init__(
        self, database: Database, lease: Lease, limits: StoreLimits, *, now: int, confirms: str
    ) -> None:
        self.first_number = database.epoch << schema.EPOCH_SHIFT
        self.database = database
        self._lease = lease
        self._limits = limits
        self._now = now
        self._blocks = BlockIndex(database, limits.deleted_at_once)
        self._parts = BodyParts(database)
        self._counts = MessageCounts(database)
        self._writer = BatchWriter(database, self._blocks, self._parts, self._counts, limits)
        self._fetcher: MessageFetcher | None = None
        self._file_bytes = 0
        self._confirms = confirms
        self._held = ExitStack()        # connection, lease and lock of the directory
        database.staged = self._blocks, self._parts, self._counts
        lease.on_lost = database.fail

    # Opening

    @classmethod
    def exists(cls, url: str) -> bool:
        """Return whether there is a store at this URL. Raises StoreError."""
        address = Address(url)
        with address.connect_first() as connection:
            row = connection.execute(
                "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'meta')",
                (address.schema,)).fetchone()
        return bool(row and row[0])

    @classmethod
    def open(
        cls, url: str, *, directory: str | Path | None = None, node: str = "amqpd", reached_at: str = "",
        is_patient: bool = True, now: int, limits: StoreLimits = LIMITS, **lease_times: float
    ) -> Store:
        """Open the store at this URL, or make one; `now` is the wall clock, in seconds since 1970.

        `directory` is for what one broker has beside the store; no other broker can have it. `node` names this broker
        to others, which reach it at `reached_at`. It waits until the lease of another one has run out if it
        `is_patient`. Raises StoreLocked while another broker leads the store; StoreError for a server that cannot be
        reached or will not do.
        """
        address = Address(url)
        with ExitStack() as undo:
            connection = address.connect_first()
            undo.callback(connection.close)
            lease = Lease(address, node, reached_at, is_patient=is_patient, **lease_times)
            try:
                schema.prepare(connection, address.schema, address.place, now)
                lease.take()
                undo.callback(lease.end)
                confirms = describe_commits(connection)
            except psycopg.Error as error:
                raise from_postgres(error, address.place) from error
            if directory is not None:
                files.prepare_directory(Path(directory))
                undo.callback(os.close, files.take_lock(Path(directory)))
            store = cls(Database(address, connection, lease.epoch), lease, limits, now=now, confirms=confirms)
            store._held = undo.pop_all()
        logger.info("store: %s; confirm = %s", address.place, confirms)
        return store

    def load(self, read_properties: Callable[[bytes], MessageProperties]) -> Recovered:
        """See `store/port.py`."""
        database = self.database
        reader = MessageReader(read_properties, self._limits.remembered, hold=self._parts.hold)
        was_clean = bool(meta_of(database).get("clean"))
        try:
            recovered = recover(database, reader, self._blocks, was_clean=was_clean, now=self._now)
        except (KeyError, TypeError, ValueError) as error:
            raise database.failed(from_mistake_at(error, database.address.place)) from error
        self._parts.load(self.first_number)
        self._counts.count()
        database.run([Statement(SET_META, ("clean", 0)), Statement("DELETE FROM meta WHERE key = %s", (COPIED,))])
        self._fetcher = MessageFetcher(database, self._blocks, self._parts, reader, self._counts)
        self._fetcher.warn_of_damage(recovered.damaged, recovered.damaged_in)
        self._file_bytes = database.read(_SIZE)[0][0]
        return recovered

    def fetch(self, numbers: Sequence[int]) -> list[Message]:
        """See `store/port.py`."""
        assert self._fetcher is not None, "the store has not been loaded"
        return self._fetcher.fetch(numbers)

    def on_reachable(self, tell: Callable[[str], None]) -> None:
        """See `store/port.py`."""
        self.database.tell = tell

    # Writing

    def commit(self, batch: Batch) -> None:
        """See `store/port.py`."""
        if not batch.is_empty:
            with self.database.guarded():
                statements = self._writer.statements(batch)
            self.database.run(statements)

    def write_body(self, piece: BodyPiece) -> None:
        """See `store/port.py`."""
        with self.database.guarded():
            statements = self._parts.write(piece)
        self.database.run(statements)

    def release_body(self, body_id: int) -> None:
        """See `store/port.py`."""
        self._parts.release(body_id)

    # Tidying up

    def is_checkpoint_due(self) -> bool:
        """See `store/port.py`: the server does this."""
        return False

    @property
    def is_checkpoint_long(self) -> bool:
        """See `store/port.py`."""
        return False

    def checkpoint_if_due(self) -> None:
        """See `store/port.py`."""

    @property
    def has_to_sweep(self) -> bool:
        """See `store/port.py`."""
        return self._blocks.has_emptied or self._parts.find_dead()

    def sweep(self) -> bool:
        """See `store/port.py`. Each commit deletes a piece as well."""
        self.database.run([*self._blocks.write(), *self._parts.delete(DELETED_AT_ONCE)])
        return self.has_to_sweep

    def shrink(self) -> bool:
        """See `store/port.py`: the server does this. Measures the size, since there is time for it."""
        self._file_bytes = self.database.read(_SIZE)[0][0]
        return False

    # Ending

    def close(
        self, redelivered: Mapping[int, Collection[int]], redelivered_to: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        """See `store/port.py`."""
        with self.database.guarded():
            statements = self._writer.mark_redelivered(redelivered, redelivered_to)
        self.database.run([*statements, Statement(SET_META, ("clean", 1))])
        self.database.close()
        self._lease.give_back()
        self._held.close()

    def abandon(self) -> None:
        """See `store/port.py`."""
        self.database.close()
        self._held.close()

    # Failing

    def fail(self, failure: StoreError) -> None:
        """See `store/port.py`."""
        self.database.fail(failure)

    def fail_by_mistake(self, error: Exception) -> StoreError:
        """See `store/port.py`."""
        return self.database.failed(from_mistake_at(error, self.database.address.place))

    def check_files(self) -> None:
        """See `store/port.py`: there are none, but the lease may have been lost."""
        with self.database.guarded():
            pass

    # Looking

    def backup(self, to: Path, between: Callable[[int, int], None]) -> None:
        """See `store/port.py`. Raises StoreError: the server has better ways."""
        raise StoreError(
            f"{self.database.address.place} is backed up by PostgreSQL: "
            f"pg_dump --schema={self.database.address.schema}, or pg_basebackup")

    def audit_log(self, *, limit: int, **wanted: Any) -> list[AuditEntry]:
        """See `store/port.py`."""
        return read_audit_log(self.database, limit=limit, **wanted)

    def info(self) -> StoreInfo:
        """See `store/port.py`."""
        return StoreInfo(
            self.database.address.place, "server", schema.newest_format(), self._file_bytes, 0, self._counts.messages,
            self._counts.damaged, self._confirms)

    def check(self) -> None:
        """Assert what must hold between calls."""
        orphans = self.database.read(ORPHAN_ROWS)
        assert not orphans, f"message rows and entries disagree: {orphans}"
        known = self._counts.messages
        self._counts.count()
        assert known == self._counts.messages, "the count is off"
        self._blocks.check()
        self._parts.check()
