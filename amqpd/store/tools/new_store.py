"""The connection to a new store, which is written while another store is read.

Always true: an error of this connection is a StoreError with the path of the new file, so that any sqlite3.Error is of
the file that is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amqpd.store.sqlite.errors import from_sqlite


class NewStore(sqlite3.Connection):
    """A connection whose errors name its file. `open_new` makes it."""

    path = Path()

    def execute(self, *statement: Any) -> sqlite3.Cursor:
        """Execute a statement. Raises StoreError; sqlite3.IntegrityError."""
        with self.errors_named():
            return super().execute(*statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query. Raises StoreError."""
        with self.errors_named():
            return super().execute(query).fetchall()

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Raise errors of SQLite as StoreError, except for a row that contradicts another one."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise from_sqlite(error, self.path) from error


def open_new(path: Path) -> NewStore:
    """Open a new store whose file has been created. Raises StoreError."""
    try:
        store = sqlite3.connect(path, isolation_level=None, factory=NewStore)
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    store.path = path
    return store
