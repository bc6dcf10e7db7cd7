"""The write-ahead log of an open store: its size, its number, and when it is written back into the database file.

Always true: the log is truncated to 0 bytes, and synced, before it is written again. If a log were written over an
older one, it could not be distinguished from a damaged one; see `wal_scan.py`. The number of a log is noted in a file
beside the store before the first commit of the log counts; see `wal_number.py`.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from amqpd.store import files
from amqpd.store.sqlite import wal_number
from amqpd.store.sqlite.file_watch import FileWatch
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.sqlite.statements import SET_META


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none. Raises OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class WriteAheadLog:
    """The log of the database at this path. `watch` gets its sizes."""

    def __init__(self, database: Path, watch: FileWatch, limits: StoreLimits) -> None:
        self.path = database.with_name(database.name + "-wal")
        self.is_long = False        # whether it was when `is_due` was last called
        self._database = database
        self._watch = watch
        self._limits = limits
        self._count = 0             # logs that there were before this one
        self._is_noted = False

    @property
    def size(self) -> int:
        """Return its bytes. Raises OSError."""
        return size_of(self.path)

    def begin(self, meta: Mapping[str, object]) -> None:
        """Continue the numbers of logs; `meta` has that of the last one."""
        number = wal_number.number_in(meta)
        self._count = number if isinstance(number, int) else 0

    def is_due(self) -> bool:
        """Return whether it is large enough to be written back, and remember its size. Raises OSError."""
        size = self.size
        self._watch.grown(self.path, size)
        self.is_long = size > self._limits.long_wal
        return size > self._limits.largest_wal

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Write the log back into the database file and truncate it to 0 bytes. Raises sqlite3.Error, OSError."""
        with self._watch.checkpoint():
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            files.sync_file(self.path)      # SQLite does not
        self._count += self._is_noted
        self._is_noted = False

    def write_number(self, connection: sqlite3.Connection) -> None:
        """Write the number of this log, unless it is noted already; to be called in each transaction.

        Raises sqlite3.Error.
        """
        if not self._is_noted:
            connection.execute(SET_META, (wal_number.WAL_NUMBER, self._count + 1))

    def note_number(self) -> None:
        """Note the number beside the store, once; to be called after each transaction. Raises OSError."""
        if self._is_noted:
            return
        try:
            wal_number.note(self._database, self._count + 1)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return      # the commit is safe, and the next one tries again
        self._is_noted = True
