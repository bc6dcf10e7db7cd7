"""The open database of a store: transactions, checkpoints, and the failure after which nothing is written any more.

Always true: a transaction is committed as a whole or rolled back; after a failure other than a full disk every call
raises it again, since a sync that has failed once may be reported as done the next time, without being so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from amqpd.store.errors import StoreError, StoreFull, from_mistake, from_system
from amqpd.store.sqlite.errors import from_sqlite
from amqpd.store.sqlite.wal import WriteAheadLog


class Staged(Protocol):
    """What is known of a table in memory. What a transaction changes there counts once the transaction is committed."""

    def keep(self) -> None:
        """Take over the changes: they are committed."""

    def forget(self) -> None:
        """Forget changes that were not kept: the transaction is over."""


class Database:
    """The connection to the file at `path`, with its write-ahead log; `staged` follows its transactions."""

    def __init__(self, path: Path, connection: sqlite3.Connection, wal: WriteAheadLog) -> None:
        self.path = path
        self.connection = connection
        self.wal = wal
        self.staged: tuple[Staged, ...] = ()
        self._failure: StoreError | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Return the connection in a transaction, which is committed at the end, or rolled back after any error.

        Raises StoreFull, StoreError.
        """
        with self.guarded() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                self.wal.write_number(connection)
                connection.execute("COMMIT")
                for one in self.staged:
                    one.keep()
                self.wal.note_number()
            finally:
                for one in self.staged:
                    one.forget()
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")

    @contextmanager
    def guarded(self) -> Iterator[sqlite3.Connection]:
        """Return the connection. Raises the failure, if there was one; what fails now is remembered as that.

        Every error becomes a StoreError: whatever it was, a batch was not written, and nobody may go on. A full disk
        is not remembered.
        """
        if self._failure is not None:
            raise self._failure
        try:
            yield self.connection
        except sqlite3.Error as error:
            raise self.failed(from_sqlite(error, self.path)) from error
        except StoreError as error:
            raise self.failed(error)
        except OSError as error:
            path = Path(error.filename) if isinstance(error.filename, str) else self.path
            raise self.failed(from_system(error, path)) from error
        except Exception as error:
            raise self.failed(from_mistake(error, self.path)) from error

    def failed(self, failure: StoreError) -> StoreError:
        """Remember a failure unless it is a full disk, and return it."""
        if not isinstance(failure, StoreFull):
            self._failure = failure
        return failure

    def fail(self, failure: StoreError) -> None:
        """Let every later call raise this failure, unless there was one before."""
        self._failure = self._failure or failure

    def checkpoint(self) -> None:
        """Write the log back into the file. Raises StoreFull, StoreError."""
        with self.guarded() as connection:
            self.wal.checkpoint(connection)

    def is_checkpoint_due(self) -> bool:
        """Return whether the log is large enough to be written back. Raises StoreError."""
        with self.guarded():
            return self.wal.is_due()

    def checkpoint_if_due(self) -> None:
        """Write the log back into the file if that is due. Raises StoreFull, StoreError."""
        if self.is_checkpoint_due():
            self.checkpoint()
