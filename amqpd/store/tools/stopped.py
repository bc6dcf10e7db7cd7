"""Lock the store of a broker that does not run, and read it without a change, whatever its format is."""

from __future__ import annotations

import ctypes
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from amqpd.broker.definitions import Definition
from amqpd.store import files
from amqpd.store.ballast import is_full
from amqpd.store.errors import StoreError
from amqpd.store.sqlite import connecting, inspection, wal_number
from amqpd.store.sqlite.definitions import read_definitions
from amqpd.store.sqlite.errors import from_sqlite, is_io_error
from amqpd.store.sqlite.schema import format_of_tables, newest_format

Progress = Callable[[int, int], None]       # called with the work that is done, and the work in all

# The names of today's tables in earlier formats, and those of their columns; the key is the last such format.
_RENAMED: dict[int, dict[str, str]] = {
    1: {"message_rows": "messages", "queue_rows": "queues"},
    3: {"message_blocks": "run_rows", "block_flags": "run_marks"},
}
_RENAMED_COLUMNS: dict[int, dict[str, str]] = {
    2: {"delivery_watermark": "leased_to"},
    3: {"delivery_watermark": "leased_to", "bytes": "octets", "flags": "marks"},
}
# Columns and tables that did not exist up to this format.
_NEW_COLUMNS: dict[int, dict[str, str]] = {
    1: {"queue_rows": "0 AS delivery_watermark"},
    3: {"message_rows": "NULL AS body_id, NULL AS body_size", "damaged": "NULL AS body_id, NULL AS body_size"},
    4: {"vhosts": "'' AS default_queue_type, 0 AS protected_from_deletion",
        "users": "'' AS scram_sha256, '{}' AS limits"},
    5: {"queue_rows": "0 AS is_paused"},
}
_NEW_TABLES: dict[int, dict[str, str]] = {
    2: {"message_blocks": "first last queue count bytes heads contents", "block_flags": "first flags"},
    3: {"body_parts": "number data"},
    4: {"topic_permissions": "user vhost exchange write read", "parameters": "vhost component name value",
        "global_parameters": "name value"},
    5: {"audit_log": "id at_ms user address door action detail"},
}
_COLUMNS_OF = {
    "queue_rows": ("number", "vhost", "name", "auto_delete", "arguments", "delivery_watermark", "is_paused"),
    "message_blocks": ("first", "last", "queue", "count", "bytes", "heads", "contents"),
    "block_flags": ("first", "flags"),
}


def nothing(done: int, total: int) -> None:
    """Report no progress."""


@contextmanager
def held(directory: Path) -> Iterator[Path]:
    """Lock the store in this directory until the block ends, and return its file.

    Raises StoreLocked if a broker has it open; StoreError if there is no store.
    """
    path = directory / connecting.DATABASE
    if not files.is_there(path):
        raise StoreError(f"there is no store in {directory}: name its directory with --data-dir")
    lock = files.take_lock(directory)
    try:
        yield path
    finally:
        os.close(lock)


@contextmanager
def reading(path: Path) -> Iterator[tuple[sqlite3.Connection, int]]:
    """Open the file without write access, and return the connection and the format of the file.

    The connection also reads what is still in the write-ahead log. Tables and columns of an older format have the names
    of today. Raises StoreError: for another program's file, for a newer format, and for each error of SQLite.
    """
    inspection.check_ours(path)
    log = path.with_name(path.name + "-wal")
    has_log = log.exists() and log.stat().st_size > 0
    try:
        with _connected(path, has_log=has_log) as connection:
            for setting in ("trusted_schema = OFF", "cell_size_check = ON"):
                connection.execute(f"PRAGMA {setting}")
            _see_schema(connection, path)
            yield connection, _format_of(connection, path)
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    finally:
        if has_log:
            path.with_name(path.name + "-shm").unlink(missing_ok=True)


@contextmanager
def _connected(path: Path, *, has_log: bool) -> Iterator[sqlite3.Connection]:
    """Open a connection that changes nothing. On a full disk, the index of the log is kept in memory.

    Raises sqlite3.Error.
    """
    connection = _connect(path, "mode=ro" if has_log else "mode=ro&immutable=1")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if not (is_io_error(error) and is_full(path.parent)):
            raise
        yield _without_index(path)
        return
    except sqlite3.Error:
        connection.close()
        raise
    with closing(connection):
        yield connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{connecting.uri_of(path)}?{mode}", uri=True, isolation_level=None, timeout=connecting.BUSY_WAIT_S)


def _without_index(path: Path) -> sqlite3.Connection:
    """Return a connection that keeps the index of the log in memory, as SQLite does with an exclusive lock.

    SQLite would write the log back into the file when this connection is closed. So it is never closed, and ends with
    the process, which is that of a command.
    """
    connection = _connect(path, "mode=rw")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    for setting in ("locking_mode = EXCLUSIVE", "query_only = ON"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    return connection


def stored_definitions(directory: Path) -> list[Definition]:
    """Return the definitions of the store in this directory; none if there is no store.

    Raises StoreLocked if a broker has it open; StoreError; ValueError for a definition that cannot be read.
    """
    if not files.is_there(directory) or not files.is_there(directory / connecting.DATABASE):
        return []
    with held(directory) as path, reading(path) as (connection, _):
        return read_definitions(connection)


def _see_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Check that SQLite can read the schema, without which nothing else can be read. Raises StoreError."""
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except UnicodeDecodeError as error:     # damaged names, which SQLite quotes in its error
        raise StoreError(f"{path} is damaged (its schema is no text): restore a backup of its directory") from error


def _format_of(connection: sqlite3.Connection, path: Path) -> int:
    inspection.known_format(connection, path)
    found = format_of_tables(connection)        # the number in the header may be damaged; the tables tell
    for view in _views_over(found):
        connection.execute(view)
    return found


def _views_over(format_: int) -> Iterator[str]:
    """Yield the statements that create views over an older format, which have the tables and columns of today."""
    if format_ == newest_format():
        return
    for last, tables in _NEW_TABLES.items():
        if format_ <= last:
            for table, columns in tables.items():
                yield (f"CREATE TEMP VIEW {table} AS SELECT "
                       f"{', '.join([f'NULL AS {column}' for column in columns.split()])} WHERE 0")
    for table in ("message_rows", "queue_rows", "damaged", "vhosts", "users"):
        added = [more[table] for last, more in _NEW_COLUMNS.items() if format_ <= last and table in more]
        yield _view_of(format_, table, added)
    if has_blocks(format_):
        for table in ("message_blocks", "block_flags"):
            yield _view_of(format_, table, [])


def _view_of(format_: int, table: str, added: list[str]) -> str:
    columns = ["*"]
    if table in _COLUMNS_OF:
        new = {one.split()[-1] for one in added}
        columns = [column if (then := column_in(format_, column)) == column else f"{then} AS {column}"
                   for column in _COLUMNS_OF[table] if column not in new]
    return f"CREATE TEMP VIEW {table} AS SELECT {', '.join([*columns, *added])} FROM main.{name_in(format_, table)}"


def misses_wal(path: Path, connection: sqlite3.Connection) -> bool:
    """Return whether the write-ahead log that belongs to this file has been deleted."""
    number = wal_number.number_in(dict(connection.execute("SELECT key, value FROM meta")))
    log = path.with_name(path.name + "-wal")
    return not log.exists() and number is not None and wal_number.is_missed(path, number)


def expect_wal(path: Path, connection: sqlite3.Connection) -> None:
    """Check that the write-ahead log has not been deleted. Raises StoreError."""
    if misses_wal(path, connection):
        raise wal_number.missing(path)


def name_in(format_: int, table: str) -> str:
    """Return the name of one of today's tables in an earlier format."""
    return _RENAMED.get(format_, {}).get(table, table)


def column_in(format_: int, column: str) -> str:
    """Return the name of one of today's columns in an earlier format."""
    return _RENAMED_COLUMNS.get(format_, {}).get(column, column)


def select_in(format_: int, table: str, columns: Iterable[str]) -> str | None:
    """Return what to select in an earlier format for these columns of a table, or None if it had no such table."""
    if any(format_ <= last and table in tables for last, tables in _NEW_TABLES.items()):
        return None
    added = {one.split()[-1]: one for last, more in _NEW_COLUMNS.items() if format_ <= last and table in more
             for one in more[table].split(", ")}
    return ", ".join([added.get(column, column) for column in columns])


def has_blocks(format_: int) -> bool:
    """Return whether stores of this format have message blocks."""
    return format_ >= 3


def has_parts(format_: int) -> bool:
    """Return whether stores of this format have the parts of large bodies in a table of their own."""
    return format_ >= 4


def file_of(place: Path) -> Path:
    """Return the database file of a store; `place` is the file or its directory. Raises StoreError."""
    path = place / connecting.DATABASE if os.path.isdir(place) else place
    if not files.is_there(path):
        raise StoreError(f"there is no store in {place}: name the directory of a backup")
    return path
