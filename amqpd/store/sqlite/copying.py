"""Copy a whole store, page by page; its connection may write between two steps.

Always true: a copy with its final name is complete and on disk. Until then it has another name beside it, which a later
attempt replaces. The copy also has what this connection commits between two steps.

Spec: sqlite.org/backup.html, sqlite.org/c3ref/backup_finish.html.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from amqpd.store import files
from amqpd.store.errors import from_system
from amqpd.store.sqlite import connecting
from amqpd.store.sqlite.errors import from_copying

ALL_PAGES = -1


def copy_whole(connection: sqlite3.Connection, source: Path, to: Path) -> None:
    """Copy this file to a path, and replace an older copy. Raises StoreError; then no incomplete copy is left."""
    making = to.with_name(to.name + ".new")
    try:
        copy_pages(connection, source, making)
        put_in_place(making, to)
    except BaseException:
        with suppress(OSError):
            remove_copy(making)
        raise


def copy_pages(
    connection: sqlite3.Connection, source: Path, to: Path, *, pages: int = ALL_PAGES,
    between: Callable[[int, int], None] | None = None,
) -> None:
    """Copy this file into a new one, so many pages a step.

    `between` is called after each step, with the number of pages that are left, and of all pages. The new file is not
    synced. Raises StoreError, and what `between` raises.
    """
    try:
        remove_copy(to)
        files.make_empty(to)
    except OSError as error:
        raise from_system(error, to, "make") from error
    try:
        with closing(sqlite3.connect(f"{connecting.uri_of(to)}?mode=rw", uri=True, isolation_level=None)) as copy:
            # Half a copy is never used, so it needs no journal, and it is synced once, when it is whole.
            copy.execute("PRAGMA journal_mode = OFF").fetchall()
            copy.execute("PRAGMA synchronous = OFF")
            connection.backup(
                copy, pages=pages, progress=between and (lambda _, left, total: between(left, total)), sleep=0)
    except sqlite3.Error as error:
        raise from_copying(error, source, to) from error


def remove_copy(making: Path) -> None:
    """Remove an unfinished copy with its log or journal: they would be applied to the next copy. Raises OSError."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        making.with_name(making.name + suffix).unlink(missing_ok=True)


def put_in_place(making: Path, to: Path) -> None:
    """Give a finished copy its name, once it is on disk. Raises StoreError."""
    try:
        files.sync_file(making)
        os.rename(making, to)
        files.sync_directory(to.parent)
    except OSError as error:
        raise from_system(error, to, "make") from error
