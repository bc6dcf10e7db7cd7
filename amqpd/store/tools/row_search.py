"""Read the rows of a damaged table, and find the next row that can be read behind a damaged page."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from amqpd.store.tools.checking import UNREADABLE

Row = tuple[Any, ...]
LARGEST = (1 << 63) - 1


class RowSearch:
    """Reads the rows of one table, one query for each: a query for many rows would lose some before a damaged page."""

    def __init__(self, source: sqlite3.Connection, name: str, columns: str) -> None:
        self._source = source
        self._query = f"SELECT rowid, {columns} FROM {name} WHERE rowid"

    def next_row(self, at: int) -> Row | None:
        """Return the first row from this number on, which has its number first; None if there is none.

        Raises sqlite3.Error if the row cannot be read.
        """
        row: Row | None = self._source.execute(f"{self._query} >= ? ORDER BY rowid LIMIT 1", (at,)).fetchone()
        if row is not None and row[0] < at:
            raise sqlite3.DatabaseError("a damaged page leads back")
        return row

    def beyond(self, at: int, known: Sequence[int]) -> int | None:
        """Return the first number after a damaged row `at` from which the table can be read again, or None.

        `known` are numbers of rows that are known from elsewhere, in rising order. They are tried first; then the steps
        become larger until something can be read.
        """
        bad = at
        for place in range(bisect_left(known, at), len(known)):
            good = known[place]
            if self._has(good):
                break
            bad = good
        else:
            step = 1
            while not self._can_go_on(bad + step):
                step *= 2
                if bad + step > LARGEST:
                    return None
            bad, good = bad + step // 2, bad + step
        while good - bad > 1:
            middle = (bad + good) // 2
            if self._can_go_on(middle):
                good = middle
            else:
                bad = middle
        return good

    def _has(self, number: int) -> bool:
        with suppress(*UNREADABLE):
            return self._source.execute(f"{self._query} = ?", (number,)).fetchone() is not None
        return False

    def _can_go_on(self, at: int) -> bool:
        with suppress(*UNREADABLE):
            self.next_row(at)
            return True
        return False
