"""Examine a store without changing it, before it is opened for writing.

A store that is refused here is left as it was, its write-ahead log too: a connection that may write would write the log
back into the file when it is closed.

Spec: sqlite.org/wal.html#readonly, sqlite.org/pragma.html#pragma_quick_check.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from amqpd.store.ballast import is_full
from amqpd.store.errors import StoreError, from_finding, full
from amqpd.store.sqlite import connecting, wal_number, wal_scan
from amqpd.store.sqlite.errors import from_damage, from_sqlite, is_io_error
from amqpd.store.sqlite.schema import APPLICATION_ID, format_of_tables, newest_format


def check_ours(path: Path) -> None:
    """Check that the file can be read and written, and that its header is that of a store. Raises StoreError."""
    if not path.is_file():
        raise StoreError(f"{path} is not a file: move it away, or choose another directory")
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(f"this user cannot read and write {path}: check its permissions, or choose another directory")
    if path.stat().st_size == 0:
        raise StoreError(
            f"{path} is empty, it has 0 bytes: restore a backup with 'amqpd store restore', or delete it to start "
            "without what it had")
    # Immutable, so that SQLite does not create the index of a log beside another program's file.
    with _reading(path, "mode=ro&immutable=1") as connection:
        # A crash during a checkpoint may leave a header with more pages than the file has without the log; SQLite reads
        # such a file only with this setting.
        connection.execute("PRAGMA writable_schema = ON")
        application_id, = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreError(f"{path} belongs to another program: move it away, or choose another directory")


def finish_rollback(path: Path, *, busy_wait_s: float = connecting.BUSY_WAIT_S) -> None:
    """Let SQLite roll back a transaction that a crash interrupted before the file had a write-ahead log.

    Before that, a connection that only reads cannot open the file. Raises StoreError.
    """
    journal = path.with_name(path.name + "-journal")
    if journal.exists():
        with _reading(path, "mode=rw", busy_wait_s) as connection:
            connection.execute("PRAGMA user_version").fetchone()


def examine(path: Path, *, busy_wait_s: float = connecting.BUSY_WAIT_S) -> bool:
    """Check file and write-ahead log, and return whether the last stop was clean.

    They are checked after a clean stop too: a disk can lose data at any time. Raises StoreError for a format that this
    program does not read, and for damage.
    """
    log = path.with_name(path.name + "-wal")
    had_log = log.exists()
    try:
        with _reading(path, "mode=ro", busy_wait_s) as connection:
            return _examine(connection, path, log, had_log=had_log)
    finally:
        with suppress(OSError):         # neither file does harm
            path.with_name(path.name + "-shm").unlink(missing_ok=True)      # the log's index, of no use to a writer
            if not had_log:
                log.unlink()        # an empty one


def known_format(connection: sqlite3.Connection, path: Path) -> int:
    """Return the format in the header. Raises StoreError if this program does not read it."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 1 <= found <= newest_format():
        raise StoreError(
            f"{path} has format {found}, this amqpd reads 1 to {newest_format()}: use the amqpd that wrote it")
    return found


def _examine(connection: sqlite3.Connection, path: Path, log: Path, *, had_log: bool) -> bool:
    found = known_format(connection, path)
    by_tables = format_of_tables(connection)
    if by_tables != found:
        raise from_finding(f"its header says format {found}, its tables are of format {by_tables}", path)
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    epoch = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()     # its index may be damaged
    if not epoch or not isinstance(epoch[0], int):
        raise from_finding("there is no epoch in meta", path)
    if not had_log and wal_number.is_missed(path, wal_number.number_in(meta)):
        raise wal_number.missing(path)
    if meta.get("synced", 1):
        page_size, = connection.execute("PRAGMA page_size").fetchone()
        wal_scan.check_wal(log, page_size)
    finding, = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise from_finding(finding, path)
    return bool(meta.get("clean", 0))


@contextmanager
def _reading(path: Path, mode: str, busy_wait_s: float = 0.0) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(f"{connecting.uri_of(path)}?{mode}", uri=True, timeout=busy_wait_s)
        with closing(connection):
            yield connection
    except sqlite3.Error as error:
        if is_io_error(error) and is_full(path.parent):     # there is no room for the index of the log
            raise full(path) from error
        raise from_sqlite(error, path) from error
    except UnicodeDecodeError as error:
        raise from_damage(error, path) from error
