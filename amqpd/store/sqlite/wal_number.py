"""Number the write-ahead logs of a store, and note the last number in a file beside it, to detect a deleted log.

To SQLite, a database file without a log looks complete. After a crash it is complete if another program with SQLite has
opened it since: SQLite wrote the log back and deleted it. If the log was only deleted, everything committed since the
last checkpoint is lost. The numbers distinguish the two cases: each commit writes the number of its log to `meta`, and
the first commit of a log notes it in the file before anything is confirmed. If there is no log, and the number in
`meta` is one less than the noted one, a log is missing. Without a note, or with an unreadable one, nothing is
concluded.

Always true: a log whose number is noted has a commit on disk, and its name is there; a clean stop deletes the note.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from amqpd.store import files
from amqpd.store.errors import StoreError


# Of `meta`, today and in formats before the fourth.
WAL_NUMBER = "wal_number"
_EARLIER = "logs"


def number_in(meta: Mapping[str, object]) -> object:
    """Return the number of the last log that a store with these values in `meta` has had."""
    return meta.get(WAL_NUMBER, meta.get(_EARLIER))


def delete_from(connection: sqlite3.Connection) -> None:
    """Delete that number from a store. Raises sqlite3.Error."""
    connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (WAL_NUMBER, _EARLIER))


def note_beside(database: Path) -> Path:
    """Return the file in which the number of the last log is noted."""
    return database.with_name("amqpd.log-number")


def prepare(database: Path) -> None:
    """Reserve space for the note, so that a full disk fails a commit before it and not after it. Raises OSError."""
    path = note_beside(database)
    if not path.exists() or path.stat().st_size < len(_line(0)):
        _write(path, bytes(len(_line(0))))
    files.sync_directory(database.parent)       # the log's name too, which may be no older


def note(database: Path, number: int) -> None:
    """Note that the log of this number has a commit. Raises OSError."""
    _write(note_beside(database), _line(number))


def _write(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, files.OWNER_ONLY)
    try:
        os.pwrite(descriptor, line, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(database: Path) -> None:
    """Delete the note, after a clean stop, which leaves no log."""
    with suppress(OSError):     # the number is the one in the file, so nothing follows from it
        note_beside(database).unlink()


def is_missed(database: Path, number: object) -> bool:
    """Return whether this file, which has no log, is incomplete without one; `number` is that of its `meta`."""
    return number == _noted(note_beside(database)) - 1


def missing(database: Path) -> StoreError:
    """Return the error for a log that is missing."""
    return StoreError(
        f"{database}-wal is missing, and with it what was committed last: put it back, restore a backup, or delete "
        f"{note_beside(database)} to go on without")


def _noted(path: Path) -> int:
    """Return the number that is noted; 0 for no note, or one that a power cut left incomplete."""
    try:
        line = path.read_bytes()
        number = int(line[:20])
    except (OSError, ValueError):
        return 0
    return number if line == _line(number) else 0


def _line(number: int) -> bytes:
    digits = b"%020d" % number
    return b"%s %08x\n" % (digits, zlib.crc32(digits))
