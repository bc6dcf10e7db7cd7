"""Compact a store: write it to a new file without free pages, which replaces the old file when it is complete.

Spec: sqlite.org/lang_vacuum.html.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from amqpd.store import files
from amqpd.store.errors import StoreError
from amqpd.store.sqlite import connecting, inspection
from amqpd.store.sqlite.copying import put_in_place, remove_copy
from amqpd.store.sqlite.errors import from_copying, from_sqlite
from amqpd.store.tools.copies import expect_sound
from amqpd.store.tools.stopped import Progress, held, nothing

STEPS = 200_000         # of SQLite's virtual machine, between two calls of `progress`
_SPARE = 1 << 20        # bytes that should stay free on the disk


def compact(directory: Path, progress: Progress = nothing, *, steps: int = STEPS) -> tuple[int, int]:
    """Compact the store in this directory, and return its sizes in bytes before and after.

    Raises StoreError, for example if the disk has no room for both files; then the store is not changed.
    """
    with held(directory) as path:
        inspection.check_ours(path)
        inspection.examine(path)
        making = path.with_name(path.name + ".new")
        before = path.stat().st_size
        try:
            remove_copy(making)
            # Closing it deletes the log, which must not be applied to the new file.
            with closing(connecting.connect(path)) as connection:
                _write_anew(connection, path, making, progress, steps)
            if path.with_name(path.name + "-wal").exists():
                raise StoreError(f"{path} is in use by another program: end that")
            expect_sound(making, named=path)
            put_in_place(making, path)
        except sqlite3.Error as error:
            raise from_copying(error, path, making) from error
        finally:
            remove_copy(making)
        return before, path.stat().st_size


def _write_anew(connection: sqlite3.Connection, path: Path, to: Path, progress: Progress, steps: int) -> None:
    try:
        needed = _prepare(connection, path)
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    files.make_empty(to)
    connection.set_progress_handler(lambda: progress(to.stat().st_size, needed), steps)
    # Half a file is never used, so it is synced once, when it is whole. SQLite would sync it and its journal several
    # times, and ignore an error of the last sync.
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("VACUUM INTO ?", (str(to),))
    connection.execute("PRAGMA synchronous = FULL")


def _prepare(connection: sqlite3.Connection, path: Path) -> int:
    """Prepare the old file, and return how many bytes the new one may take.

    Raises StoreError, sqlite3.Error.
    """
    facts = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in (
        "page_count", "freelist_count", "page_size")}
    needed: int = (facts["page_count"] - facts["freelist_count"]) * facts["page_size"] + _SPARE
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StoreError(
            f"{path} needs {needed >> 20} MiB beside it to be written anew, {free >> 20} MiB are free: free some")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if not connection.execute("PRAGMA auto_vacuum").fetchone()[0]:      # else SQLite would write it to the old file
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    return needed
