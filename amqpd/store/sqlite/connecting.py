"""The one connection to the database file of a store, and the settings it needs.

Always true: nothing but SQLite opens the database file, since closing another descriptor of it would drop SQLite's
locks.

Spec: sqlite.org/pragma.html, sqlite.org/wal.html, sqlite.org/howtocorrupt.html §2.2.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from pathlib import Path

from amqpd.store.errors import StoreError
from amqpd.store.sqlite.errors import from_sqlite

DATABASE = "amqpd.db"
BUSY_WAIT_S = 1.0

Settings = tuple[tuple[str, str | int], ...]

# In the order they must be made in; `secure_delete` would write every page of a settled message once more.
SETTINGS: Settings = (
    ("locking_mode", "exclusive"),
    ("journal_mode", "wal"),
    ("synchronous", 2),
    ("fullfsync", 1),               # on macOS a sync does not reach the disk otherwise; elsewhere it changes nothing
    ("checkpoint_fullfsync", 1),
    ("foreign_keys", 1),
    ("trusted_schema", 0),
    ("cell_size_check", 1),
    ("mmap_size", 0),
    ("wal_autocheckpoint", 0),
    ("secure_delete", 0),
)


def uri_of(path: Path) -> str:
    """Return the file as a URI, to which SQLite takes parameters."""
    return path.absolute().as_uri()


def connect(path: Path, *, busy_wait_s: float = BUSY_WAIT_S, settings: Settings = SETTINGS) -> sqlite3.Connection:
    """Open an existing database with every setting made, read back and checked.

    Wait up to `busy_wait_s` for another program that has it open. Raises StoreError.
    """
    with ExitStack() as undo:
        try:
            connection = sqlite3.connect(
                f"{uri_of(path)}?mode=rw", uri=True, timeout=busy_wait_s, isolation_level=None,
                check_same_thread=False)
            undo.callback(connection.close)
            for name, value in settings:
                change_setting(connection, path, name, value)
        except sqlite3.Error as error:
            raise from_sqlite(error, path) from error
        undo.pop_all()
    return connection


def change_setting(connection: sqlite3.Connection, path: Path, name: str, value: str | int) -> None:
    """Make one setting of SQLite and check that it holds. Raises StoreError, sqlite3.Error."""
    connection.execute(f"PRAGMA {name} = {value}").fetchall()
    row = connection.execute(f"PRAGMA {name}").fetchone()
    found = row[0] if row else 0        # a build without mmap answers nothing
    if found != value:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} refuses {name}={value} for {path}: it stays {found}")
