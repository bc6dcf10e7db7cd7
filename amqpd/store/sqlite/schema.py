"""Create the tables of a store, and upgrade a file of an older format.

Owns the format number, which is the `user_version` of the file, and the steps from each format to the next. A new store
is created under another name and then renamed, so a file with the store's name is complete, or of another program.

The tables; `views.py` has the views that other programs may use:
- `vhosts`, `users`, `permissions`, `topic_permissions`, `parameters`, `global_parameters`, `policies`, `exchanges`,
  `queue_rows`, `bindings`: the durable definitions. Tags, limits, values, arguments and definitions of policies are
  JSON, with ``{"$type": …, "value": …}`` for values that JSON does not have;
- `queue_rows` has a `delivery_watermark`: messages with numbers up to it may have been delivered; and `is_paused`, 1
  while nothing of the queue is delivered;
- `message_rows`: one row for each message. `queue` is the number of its queue, or NULL if it is in several queues,
  which are in `entries`. `checksum` is the CRC-32 of exchange and routing key as short strings, properties and body.
  The columns before the body can be read without the overflow pages of a large body. A body that was written before
  its message is in parts: then `body` is empty, `body_id` is the number of the first part, `body_size` the bytes of all
  parts, and `checksum` has, in place of the body, the CRC-32 of each part as four big-endian bytes;
- `body_parts`: one row for each part of a body, of 1 MiB except the last one, with consecutive numbers. The first
  number of a body is a multiple of 1,024. Parts without a message row are deleted;
- `entries`: one row for each queue of a message that is in several queues;
- `message_rows` and `entries` have the state of a message in its queue; if it is in several, only `entries` has it:
  `redelivered`, 1 if it has been delivered; `expires_at`, in milliseconds since 1970 by the store's clock, or NULL;
  `deliveries`, its delivery count when it was requeued last;
- `message_blocks`: rows with several messages of one queue: the numbers of the first and the last, how many there were
  when the row was written, the bytes of all bodies then, and two columns that `message_blocks.py` explains. None of
  these messages expires or has a delivery count;
- `block_flags`: which messages of a block have left since it was written, and which have been delivered; most blocks
  have no row here;
- `audit_log`: the newest 10,000 administrative acts: `at_ms`, in milliseconds since 1970; the `user` who did it, from
  which `address`, by which `door` (control, http, amqp, config); the `action`, and its `detail` as JSON. A trigger
  deletes the oldest row beyond that;
- `damaged`: messages that failed their check, and when that was detected, in seconds since 1970;
- `meta`: `epoch`, which each start increments, has the upper bits of all numbers that the start assigns; `clean` is 1
  after a clean stop; `synced` is 0 if the last run did not sync its commits; `created` is in seconds since 1970;
  `copied` is 1 in a file that `amqpd store` made from another one, until a broker opens it; `wal_number`, see
  `wal_number.py`; `clock_behind` is how many milliseconds the clock of `expires_at` is behind the wall clock, if that
  was ever set while a broker ran; `unfinished` is the number of vhosts that may have bindings of deleted queues and
  exchanges, which the next start deletes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from amqpd.store.errors import from_system
from amqpd.store.files import make_empty, sync_directory
from amqpd.store.sqlite.copying import copy_whole
from amqpd.store.sqlite.errors import from_sqlite
from amqpd.store.sqlite.views import VIEWS
from amqpd.store.sqlite.wal_number import WAL_NUMBER

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.db import Table

APPLICATION_ID = 0x616D7164     # "amqd"
AUDIT_ROWS = 10_000             # the newest rows of the audit log, which are kept
EPOCH_SHIFT = 40                # one run may assign a million million numbers


def _format_1(db: Database) -> None:
    _create(db, "meta", {"key": str, "value": int}, "key")
    _create(db, "vhosts", {"name": str, "description": str, "tags": str}, "name")
    _create(db, "users", {"name": str, "password_hash": str, "hashing_algorithm": str, "tags": str}, "name")
    _create(
        db, "permissions", {"user": str, "vhost": str, "configure": str, "write": str, "read": str}, "user", "vhost")
    _create(
        db, "policies",
        {"vhost": str, "is_operator": int, "name": str, "pattern": str, "definition": str, "priority": int,
         "apply_to": str},
        "vhost", "is_operator", "name")
    _create(
        db, "exchanges",
        {"vhost": str, "name": str, "type": str, "auto_delete": int, "internal": int, "arguments": str},
        "vhost", "name")
    queues = _create(
        db, "queues", {"number": int, "vhost": str, "name": str, "auto_delete": int, "arguments": str}, "number")
    queues.create_index(["vhost", "name"], unique=True)
    binding = ["vhost", "source", "destination_type", "destination", "routing_key", "arguments"]
    _create(db, "bindings", dict.fromkeys(binding, str), *binding)
    message = {
        "number": int, "queue": int, "exchange": str, "routing_key": str, "properties": bytes, "body": bytes,
        "checksum": int, "redelivered": int, "expires_at": int, "deliveries": int}
    messages = _create(
        db, "messages", message, "number", nullable=("queue", "expires_at"),
        defaults={"redelivered": 0, "deliveries": 0})
    # In SQL, since sqlite-utils creates neither a partial index nor a table without rowid.
    db.execute(f"CREATE INDEX messages_of_queue ON {messages.name} (queue) WHERE queue IS NOT NULL")
    db.execute("""
        CREATE TABLE entries (
            queue INTEGER NOT NULL, number INTEGER NOT NULL, redelivered INTEGER NOT NULL DEFAULT 0,
            expires_at INTEGER, deliveries INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (queue, number)
        ) WITHOUT ROWID""")
    db.execute("CREATE INDEX entries_of_message ON entries (number)")
    db.table("damaged").create({**message, "noticed": int}, pk="number")      # any column of such rows may be missing


def _format_2(db: Database) -> None:
    """Leave the names `messages` and `queues` to views, put bodies last in rows, and add watermarks of queues."""
    db.execute("DROP INDEX idx_queues_vhost_name")
    db.execute("ALTER TABLE queues RENAME TO queue_rows")
    db.execute("ALTER TABLE queue_rows ADD COLUMN leased_to INTEGER NOT NULL DEFAULT 0")
    db.execute("CREATE UNIQUE INDEX queue_rows_by_name ON queue_rows (vhost, name)")
    db.execute("""
        CREATE TABLE message_rows (
            number INTEGER PRIMARY KEY NOT NULL, queue INTEGER, redelivered INTEGER NOT NULL DEFAULT 0,
            expires_at INTEGER, deliveries INTEGER NOT NULL DEFAULT 0, exchange TEXT NOT NULL,
            routing_key TEXT NOT NULL, properties BLOB NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL
        )""")
    columns = "number, queue, redelivered, expires_at, deliveries, exchange, routing_key, properties, checksum, body"
    db.execute(f"INSERT INTO message_rows ({columns}) SELECT {columns} FROM messages ORDER BY number")
    db.execute("DROP TABLE messages")
    db.execute("CREATE INDEX message_rows_of_queue ON message_rows (queue) WHERE queue IS NOT NULL")
    # After a crash, any message may have been delivered.
    db.execute("""
        UPDATE queue_rows SET leased_to = (SELECT coalesce(max(number), 0) FROM message_rows)
        WHERE (SELECT value FROM meta WHERE key = 'clean') = 0""")


def _format_3(db: Database) -> None:
    """Add message blocks: several messages may share a row."""
    db.execute("""
        CREATE TABLE run_rows (
            first INTEGER PRIMARY KEY NOT NULL, last INTEGER NOT NULL, queue INTEGER NOT NULL, count INTEGER NOT NULL,
            octets INTEGER NOT NULL, heads BLOB NOT NULL, contents BLOB NOT NULL
        )""")
    # The index has the count of messages, which tells how many are lost if a row cannot be read.
    db.execute("CREATE INDEX run_rows_of_queue ON run_rows (queue, last, count)")
    db.execute("CREATE TABLE run_marks (first INTEGER PRIMARY KEY NOT NULL, marks BLOB NOT NULL)")


def _format_4(db: Database) -> None:
    """Add parts of large bodies, and rename tables and columns to the terms of the field."""
    for view in ("messages", "queues", "run_heads"):
        db.execute(f"DROP VIEW IF EXISTS {view}")
    for table in ("message_rows", "damaged"):
        for column in ("body_id", "body_size"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")
    db.execute("CREATE TABLE body_parts (number INTEGER PRIMARY KEY NOT NULL, data BLOB NOT NULL)")
    db.execute("ALTER TABLE queue_rows RENAME COLUMN leased_to TO delivery_watermark")
    db.execute("DROP INDEX run_rows_of_queue")
    db.execute("ALTER TABLE run_rows RENAME COLUMN octets TO bytes")
    db.execute("ALTER TABLE run_rows RENAME TO message_blocks")
    db.execute("CREATE INDEX message_blocks_of_queue ON message_blocks (queue, last, count)")
    db.execute("ALTER TABLE run_marks RENAME COLUMN marks TO flags")
    db.execute("ALTER TABLE run_marks RENAME TO block_flags")
    db.execute("UPDATE meta SET key = 'wal_number' WHERE key = 'logs'")
    for view in VIEWS:
        db.execute(view)


def _format_5(db: Database) -> None:
    """Vhosts and users have more columns, and there are topic permissions and parameters."""
    db.execute("ALTER TABLE vhosts ADD COLUMN default_queue_type TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE vhosts ADD COLUMN protected_from_deletion INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE users ADD COLUMN scram_sha256 TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE users ADD COLUMN limits TEXT NOT NULL DEFAULT '{}'")
    db.execute("""
        CREATE TABLE topic_permissions (
            user TEXT NOT NULL, vhost TEXT NOT NULL, exchange TEXT NOT NULL, write TEXT NOT NULL, read TEXT NOT NULL,
            PRIMARY KEY (user, vhost, exchange)
        )""")
    db.execute("""
        CREATE TABLE parameters (
            vhost TEXT NOT NULL, component TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
            PRIMARY KEY (vhost, component, name)
        )""")
    db.execute("CREATE TABLE global_parameters (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)")


def _format_6(db: Database) -> None:
    """Queues can be paused, and there is an audit log."""
    db.execute("ALTER TABLE queue_rows ADD COLUMN is_paused INTEGER NOT NULL DEFAULT 0")
    db.execute("""
        CREATE TABLE audit_log (
            id INTEGER PRIMARY KEY NOT NULL, at_ms INTEGER NOT NULL, user TEXT NOT NULL, address TEXT NOT NULL,
            door TEXT NOT NULL, action TEXT NOT NULL, detail TEXT NOT NULL
        )""")
    db.execute(f"""
        CREATE TRIGGER audit_log_bound AFTER INSERT ON audit_log BEGIN
            DELETE FROM audit_log WHERE id <= new.id - {AUDIT_ROWS};
        END""")
    for view in ("messages", "queues", "block_heads"):
        db.execute(f"DROP VIEW {view}")
    for view in VIEWS:
        db.execute(view)


def _create(
    db: Database, name: str, columns: dict[str, type], *key: str, nullable: tuple[str, ...] = (),
    defaults: dict[str, int] | None = None,
) -> Table:
    return db.table(name).create(
        columns, pk=key[0] if len(key) == 1 else key, not_null=columns.keys() - {*nullable}, defaults=defaults or {})


# The step at index n leads from format n to format n + 1; format 0 is an empty file.
Steps = tuple[Callable[["Database"], None], ...]
STEPS: Steps = (_format_1, _format_2, _format_3, _format_4, _format_5, _format_6)


class Upgraded(NamedTuple):
    """The formats before and after an upgrade, and where the old file is kept."""

    before: int
    after: int
    copy: Path


# For each format a table that it was the first to have.
_NEW_TABLES = {2: "message_rows", 3: "run_rows", 4: "body_parts", 5: "parameters", 6: "audit_log"}


def newest_format() -> int:
    """Return the format that this program writes, which is the newest that it reads."""
    return len(STEPS)


def format_of_tables(connection: sqlite3.Connection) -> int:
    """Return the format that the tables show, without reading the number in the header. Raises sqlite3.Error."""
    # One query for each name, since a damaged name may not be valid text.
    has = "SELECT EXISTS (SELECT * FROM sqlite_master WHERE type = 'table' AND name = ?)"
    there = [format_ for format_, table in _NEW_TABLES.items() if connection.execute(has, (table,)).fetchone()[0]]
    return max([1, *there])


def create(path: Path, now: int, steps: Steps = STEPS) -> None:
    """Create an empty store at this path, which is unused; `now` is in seconds since 1970. Raises StoreError."""
    making = path.with_name(path.name + ".new")
    try:
        for leftover in (making, making.with_name(making.name + "-journal")):
            leftover.unlink(missing_ok=True)
        make_empty(making)
        with closing(sqlite3.connect(making, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            # With this, a file can shrink. To fill and drain 100,000 messages took the same time without it; it costs
            # one page of pointers for 800 others.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _take_steps(connection, 0, steps)
            connection.executemany(
                "INSERT INTO meta (key, value) VALUES (?, ?)",
                [("epoch", 0), ("clean", 1), ("created", now), (WAL_NUMBER, 0)])
            connection.execute("COMMIT")
        os.rename(making, path)
        sync_directory(path.parent)
    except sqlite3.Error as error:
        raise from_sqlite(error, making) from error
    except OSError as error:
        raise from_system(error, path, "make") from error


def upgrade(connection: sqlite3.Connection, path: Path, steps: Steps = STEPS) -> Upgraded | None:
    """Upgrade an older store to the newest format, and keep a copy of the old file beside it.

    Return what was done; None if the store has the newest format. Raises StoreError, sqlite3.Error.
    """
    found, = connection.execute("PRAGMA user_version").fetchone()
    if found == len(steps):
        return None
    copy = path.with_name(f"{path.name}.format-{found}")
    copy_whole(connection, path, copy)
    connection.execute("BEGIN IMMEDIATE")
    _take_steps(connection, found, steps)
    connection.execute("COMMIT")
    return Upgraded(found, len(steps), copy)


def _take_steps(connection: sqlite3.Connection, found: int, steps: Steps) -> None:
    # The import takes 0.1 s, and most starts have no step to take.
    from sqlite_utils import Database

    db = Database(connection, execute_plugins=False)
    for step in steps[found:]:
        step(db)
    connection.execute(f"PRAGMA user_version = {len(steps)}")
