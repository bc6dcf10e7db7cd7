"""Give free pages of the database file back to the disk, a piece at a time."""

from __future__ import annotations

from amqpd.store.sqlite.database import Database
from amqpd.store.sqlite.limits import StoreLimits

_INCREMENTAL = 2            # the value of PRAGMA auto_vacuum of a file that can shrink


def shrink(database: Database, limits: StoreLimits) -> bool:
    """Give a piece of the free pages back; return whether there are more to give.

    As many pages as are in use stay free, and 16 MiB at least, so that a backlog that comes and goes finds its room.
    A store that was made in format 1 only shrinks once it was compacted. Raises StoreFull, StoreError.
    """
    spare = _spare_pages(database, limits.kept_free_pages)
    if spare <= 0:
        return False
    with database.guarded() as connection:
        # As a script: Python makes one step of a single statement that returns no rows, which frees one page.
        connection.executescript(f"PRAGMA incremental_vacuum({min(spare, limits.shrink_pages)})")
    if spare > limits.shrink_pages:
        database.checkpoint_if_due()
        return True
    database.checkpoint()       # the file is not cut before
    return False


def _spare_pages(database: Database, kept: int) -> int:
    """Return how many free pages are too many; none in a file that cannot shrink."""
    with database.guarded() as connection:
        mode, free, pages = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in (
            "auto_vacuum", "freelist_count", "page_count")]
        return free - max(kept, pages - free) if mode == _INCREMENTAL else 0
