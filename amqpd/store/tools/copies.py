"""Copy a store to a backup, and a backup to a store.

A backup is a directory on which a broker can be started. It gets its name when it is complete, on disk and checked.

Always true: in a copy every message counts as delivered before, since the original may deliver it after the copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from amqpd.store import files
from amqpd.store.errors import StoreError, from_system
from amqpd.store.sqlite import connecting, wal_number
from amqpd.store.sqlite.copying import copy_pages, put_in_place, remove_copy
from amqpd.store.sqlite.errors import from_copying, is_corruption
from amqpd.store.sqlite.recovery import COPIED
from amqpd.store.sqlite.statements import COUNT_MESSAGES
from amqpd.store.tools.checking import findings
from amqpd.store.tools.stopped import (
    Progress,
    column_in,
    expect_wal,
    file_of,
    has_blocks,
    held,
    name_in,
    nothing,
    reading,
)

PAGES = 1_024      # copied between two steps of progress
_TOLD = 3           # findings


class StoreDamaged(StoreError):
    """The store is damaged, so that it was not copied."""


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Return the path for a new store. Its directory is renamed to `target` at the end, or deleted after an error.

    Raises StoreError, also if the target exists. Errors name the target instead of the temporary directory; errors of
    files elsewhere name these.
    """
    if files.is_there(target):
        raise StoreError(f"{target} is there already: choose another name")
    try:
        making = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".new", dir=target.absolute().parent))
    except OSError as error:
        raise from_system(error, target, "make") from error
    try:
        yield making / connecting.DATABASE
        files.sync_file(making / connecting.DATABASE)
        files.sync_directory(making)
        os.rename(making, target)
        files.sync_directory(target.absolute().parent)
    except OSError as error:
        if _is_elsewhere(error, making):
            raise from_system(error, Path(os.fsdecode(error.filename))) from error
        raise from_system(error, target, "make") from error
    except StoreError as error:
        raise type(error)(str(error).replace(str(making), str(target))) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)       # after the rename, there is nothing to delete


def _is_elsewhere(error: OSError, making: Path) -> bool:
    """Return whether a system call failed on a file that is not in this directory, nor this directory itself."""
    if error.filename is None:
        return False
    path = Path(os.fsdecode(error.filename))
    return path not in (making, making.parent) and making not in path.parents


def backup(directory: Path, target: Path, progress: Progress = nothing, *, pages: int = PAGES) -> int:
    """Copy a stopped store to a new directory, so many pages at a time, and return how many messages it has.

    Raises StoreError.
    """
    with held(directory) as path, new_directory(target) as copy:
        with reading(path) as (connection, _):
            expect_wal(path, connection)
            copy_pages(connection, path, copy, pages=pages, between=_copied(progress))
        return finish(copy, path)


def _copied(progress: Progress) -> Progress:
    return lambda left, total: progress(total - left, total)


def finish(copy: Path, original: Path) -> int:
    """Make an independent store of a copy, check it, and return how many messages it has.

    Raises StoreError: StoreDamaged, which names the original, if the copy has the same damage.
    """
    uri = f"{connecting.uri_of(copy)}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, 1)", (COPIED,))
            wal_number.delete_from(connection)      # the logs of the original are not its own
            format_, = connection.execute("PRAGMA user_version").fetchone()
            if format_ >= 2:
                largest = "SELECT max(number) AS number FROM message_rows"
                if has_blocks(format_):
                    largest += f" UNION ALL SELECT max(last) FROM {name_in(format_, 'message_blocks')}"
                connection.execute(
                    f"UPDATE queue_rows SET {column_in(format_, 'delivery_watermark')} = "
                    f"(SELECT coalesce(max(number), 0) FROM ({largest}))")
            connection.execute("COMMIT")
            # Not left to the close of the connection, which reports no error: if it failed, the commit would stay in a
            # log that is not renamed with the store.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        failed = from_copying(error, original, copy)
        raise StoreDamaged(str(failed)) if is_corruption(error) else failed from error
    return expect_sound(copy, named=original)


def expect_sound(path: Path, progress: Progress = nothing, *, named: Path | None = None) -> int:
    """Check a store, and return how many messages it has. Raises StoreDamaged, with the path `named` if given."""
    with reading(path) as (connection, _):
        found = list(islice(findings(connection, progress), _TOLD + 1))
        if found:
            told = "; ".join(found[:_TOLD]) + ("; …" if len(found) > _TOLD else "")
            raise StoreDamaged(f"{named or path} is damaged ({told}): save what can be read with 'amqpd store salvage'")
        count: int = connection.execute(COUNT_MESSAGES).fetchone()[0]
    return count


def restore(backup: Path, directory: Path, progress: Progress = nothing) -> int:
    """Copy a backup to a directory that has no store, or an empty one; return how many messages it has.

    Raises StoreError: StoreDamaged if the backup is damaged.
    """
    source = file_of(backup)
    path = directory / connecting.DATABASE
    files.prepare_directory(directory)
    lock = files.take_lock(directory)
    try:
        for name in (path, *[path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]):
            if files.is_there(name) and not (name.is_file() and name.stat().st_size == 0):
                raise StoreError(f"{name} is there already: move it away, or choose another directory")
        making = path.with_name(path.name + ".new")
        try:
            expect_sound(source, progress)
            with reading(source) as (connection, _):
                copy_pages(connection, source, making)
            count = finish(making, source)
            put_in_place(making, path)
        finally:
            remove_copy(making)
        return count
    finally:
        os.close(lock)
