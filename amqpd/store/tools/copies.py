"""Copies of a store: backups, and what is made of them again.

A backup is a directory that a broker can be started on. It gets its name when it is whole, on disk and checked.

Always true: in a copy everything counts as delivered before, since the original may go on and deliver it.
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
    """There is a store, and it is damaged: what was to be made of it was not."""


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """The file to make a store in; its directory gets its name at the end, and is gone if anything went wrong.

    Raises StoreError, also where there is something by that name. Errors name the target, not what is gone, unless
    they are of a file elsewhere.
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
        shutil.rmtree(making, ignore_errors=True)       # where it has its name by now, nothing is here


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
    """Make a store of its own of a copy, and check it; says how many messages it has.

    Raises StoreError: StoreDamaged, which names the original, where the copy has the damage of the original.
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
            # Not left to the end of the connection, where nobody hears that it failed: what is committed would stay in
            # a log that does not get the name of the store.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        failed = from_copying(error, original, copy)
        raise StoreDamaged(str(failed)) if is_corruption(error) else failed from error
    return expect_sound(copy, named=original)


def expect_sound(path: Path, progress: Progress = nothing, *, named: Path | None = None) -> int:
    """Check all of a store; says how many messages it has. Raises StoreDamaged, which may name another path."""
    with reading(path) as (connection, _):
        found = list(islice(findings(connection, progress), _TOLD + 1))
        if found:
            told = "; ".join(found[:_TOLD]) + ("; …" if len(found) > _TOLD else "")
            raise StoreDamaged(f"{named or path} is damaged ({told}): save what can be read with 'amqpd store salvage'")
        count: int = connection.execute(COUNT_MESSAGES).fetchone()[0]
    return count


def restore(backup: Path, directory: Path, progress: Progress = nothing) -> int:
    """Make a store of a backup, in a directory that has none or an empty one; says how many messages it has.

    Raises StoreError: StoreDamaged where the backup is.
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
