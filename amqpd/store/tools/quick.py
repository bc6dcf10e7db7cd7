"""A quick look at the store of a broker that does not run, for as long as there is time. Changes nothing.

`checking.py` has the whole check, which reads every message.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from amqpd.store import files
from amqpd.store.sqlite import connecting
from amqpd.store.tools.stopped import held, misses_wal, reading

INSTRUCTIONS = 20_000           # of SQLite, between two looks at the time
MOST_FLAWS = 3


class QuickLook(NamedTuple):
    """What was found: `flaws` in the pages; `is_whole` is False if there was no time for all pages."""

    flaws: list[str]
    is_whole: bool


def quick_look(directory: Path, budget_s: float) -> QuickLook | None:
    """Check the pages of the store for so many seconds at most; None if there is no store.

    Raises StoreLocked if a broker has it open; StoreError if it cannot be read.
    """
    if not files.is_there(directory) or not files.is_there(directory / connecting.DATABASE):
        return None
    with held(directory) as path, reading(path) as (connection, _):
        if misses_wal(path, connection):
            return QuickLook(["its write-ahead log is missing"], is_whole=True)
        stop_at = time.monotonic() + budget_s
        connection.set_progress_handler(lambda: time.monotonic() > stop_at, INSTRUCTIONS)
        try:
            found = [text for text, in connection.execute(f"PRAGMA quick_check({MOST_FLAWS})") if text != "ok"]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return QuickLook([], is_whole=False)
        finally:
            connection.set_progress_handler(None, 0)
        return QuickLook(found, is_whole=True)
