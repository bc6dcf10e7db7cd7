"""Read the figures of a store that no broker has open, for `amqpd store info`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from amqpd.store.sqlite.recovery import COPIED
from amqpd.store.sqlite.statements import COUNT_MESSAGES
from amqpd.store.tools.stopped import held, misses_wal, name_in, reading

_COUNTED = ("vhosts", "users", "policies", "exchanges", "queue_rows", "bindings")


class StoppedStore(msgspec.Struct, frozen=True):
    """The state and the sizes of a store.

    `free_bytes` of the file are not in use. `counts` has the rows of each table of definitions, and the numbers of
    messages and of damaged messages. `misses_wal` says that the write-ahead log has been deleted.
    """

    path: Path
    format: int
    was_clean: bool
    is_copy: bool
    misses_wal: bool
    file_bytes: int
    free_bytes: int
    wal_bytes: int
    counts: dict[str, int]


def facts(directory: Path) -> StoppedStore:
    """Return figures of the store in this directory. Raises StoreError; StoreLocked while a broker has it open."""
    with held(directory) as path, reading(path) as (connection, found):
        page_size, free = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in (
            "page_size", "freelist_count")]
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        queries = {table: f"SELECT count(*) FROM {name_in(found, table)}" for table in _COUNTED}
        queries |= {"messages": COUNT_MESSAGES, "damaged": "SELECT count(*) FROM damaged"}
        counts = {what: connection.execute(query).fetchone()[0] for what, query in queries.items()}
        log = path.with_name(path.name + "-wal")
        return StoppedStore(
            path, found, bool(meta.get("clean")), bool(meta.get(COPIED)), misses_wal(path, connection),
            path.stat().st_size, page_size * free, log.stat().st_size if log.exists() else 0, counts)
