"""Create the tables of a store in PostgreSQL, and upgrade older ones.

All is in one schema of the database, `amqpd` unless the URL says otherwise. The tables, and what their columns mean,
are those of the file in SQLite, see `sqlite/schema.py`, with these differences:
- names of messages are bytes; other texts are as `texts.py` keeps them;
- `meta` has the `format`, and nothing of a write-ahead log;
- `leases` has one row, with the empty name, for the one broker that may write: its `epoch`, which each start
  increments and which has the upper bits of all numbers that the start assigns, its `node` name,
  the `address` at which other nodes reach it, and `until` when it holds unless it is renewed, by the server's clock;
- `nodes` has the nodes that share the store, and when each was `seen`;
- `batches` has the numbers of the last transactions of an epoch, by which a broker whose connection broke during a
  commit finds out whether it took place.

Two views are for others to rely on, as in SQLite: `messages` and `queues`; see `views.py`.
"""

from __future__ import annotations

from itertools import chain

from psycopg import sql

from amqpd.store.errors import StoreError
from amqpd.store.postgres.connecting import Connection
from amqpd.store.postgres.views import VIEWS
from amqpd.store.rows.definition_rows import NUMBERS, TABLES, Table

AUDIT_ROWS = 10_000             # the newest rows of the audit log, which are kept
EPOCH_SHIFT = 40                # one run may assign a million million numbers
_LOCK = 0x616D7164              # "amqd": held while tables are made, so that two first starts do not meet

# Rows come and go, so that a table soon has many more dead ones than rows: they are cleaned as soon as there are this
# many, without a pause. Bodies are not compressed: that costs more than it saves.
_CLEANED = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0"
_MESSAGE = """
    number bigint PRIMARY KEY, queue bigint, redelivered bigint NOT NULL DEFAULT 0, expires_at bigint,
    deliveries bigint NOT NULL DEFAULT 0, exchange bytea NOT NULL, routing_key bytea NOT NULL,
    properties bytea NOT NULL, checksum bigint NOT NULL, body bytea NOT NULL, body_id bigint, body_size bigint"""


def _definitions(table: Table) -> str:
    columns = [f'"{column}" {"bigint" if column in NUMBERS else "text"} NOT NULL' for column in table.columns]
    if table.name == "queue_rows":
        columns.append("delivery_watermark bigint NOT NULL DEFAULT 0")
    if table.name != "bindings":        # arguments may be longer than a key of an index
        columns.append(f"PRIMARY KEY ({', '.join([quoted(column) for column in table.key])})")
    return f"CREATE TABLE {table.name} ({', '.join(columns)})"


def quoted(column: str) -> str:
    """Return the name of a column, which may be a word of SQL, such as `user`."""
    return f'"{column}"'


BINDING_KEY = "vhost, source, destination_type, destination, routing_key, md5(arguments)"
_FORMAT_1 = (
    "CREATE TABLE meta (key text PRIMARY KEY, value bigint NOT NULL)",
    "CREATE TABLE leases (name text PRIMARY KEY, epoch bigint NOT NULL, node text NOT NULL, "
    "address text NOT NULL, since timestamptz NOT NULL, until timestamptz NOT NULL)",
    # Whoever changes the epoch waits for a batch that holds it, and whoever renews a lease does not: the epoch is in a
    # key (PostgreSQL docs/explicit-locking, FOR KEY SHARE).
    "CREATE UNIQUE INDEX leases_by_epoch ON leases (name, epoch)",
    "INSERT INTO leases VALUES ('', 0, '', '', '-infinity', '-infinity')",
    "CREATE TABLE nodes (name text PRIMARY KEY, address text NOT NULL, instance text NOT NULL, "
    "started timestamptz NOT NULL, seen timestamptz NOT NULL)",
    "CREATE TABLE batches (epoch bigint, number bigint NOT NULL, PRIMARY KEY (epoch, number))",
    *map(_definitions, TABLES.values()),
    "CREATE UNIQUE INDEX queue_rows_by_name ON queue_rows (vhost, name)",
    f"CREATE UNIQUE INDEX bindings_key ON bindings ({BINDING_KEY})",
    f"CREATE TABLE message_rows ({_MESSAGE}) WITH ({_CLEANED})",
    "CREATE INDEX message_rows_of_queue ON message_rows (queue) WHERE queue IS NOT NULL",
    f"CREATE TABLE damaged ({_MESSAGE}, noticed bigint NOT NULL)",
    "CREATE TABLE entries (queue bigint, number bigint, redelivered bigint NOT NULL DEFAULT 0, expires_at bigint, "
    f"deliveries bigint NOT NULL DEFAULT 0, PRIMARY KEY (queue, number)) WITH ({_CLEANED})",
    "CREATE INDEX entries_of_message ON entries (number)",
    "CREATE TABLE message_blocks (first bigint PRIMARY KEY, last bigint NOT NULL, queue bigint NOT NULL, "
    "count bigint NOT NULL, bytes bigint NOT NULL, heads bytea NOT NULL, contents bytea NOT NULL) "
    f"WITH ({_CLEANED})",
    "CREATE INDEX message_blocks_of_queue ON message_blocks (queue)",
    f"CREATE TABLE block_flags (first bigint PRIMARY KEY, flags bytea NOT NULL) WITH ({_CLEANED})",
    f"CREATE TABLE body_parts (number bigint PRIMARY KEY, data bytea NOT NULL) WITH ({_CLEANED})",
    "CREATE TABLE audit_log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_ms bigint NOT NULL, "
    '"user" text NOT NULL, address text NOT NULL, door text NOT NULL, action text NOT NULL, detail text NOT NULL)',
    *[f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL" for table, column in (
        ("message_rows", "body"), ("message_rows", "properties"), ("message_blocks", "heads"),
        ("message_blocks", "contents"), ("body_parts", "data"))],
    *VIEWS,
)

# The step at index n leads from format n to format n + 1; format 0 is an empty schema.
STEPS: tuple[tuple[str, ...], ...] = (_FORMAT_1,)


def newest_format() -> int:
    """Return the format that this program writes, which is the newest that it reads."""
    return len(STEPS)


def prepare(connection: Connection, schema: str, place: str, now: int) -> None:
    """Make the tables, or bring them to the newest format; `now` is in seconds since 1970.

    Raises StoreError for a schema that another program, or a newer amqpd, has made; psycopg.Error.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        exists = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"
        if not _one(connection, exists, schema):
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        has = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'meta')"
        found = 0
        if _one(connection, has, schema):
            row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
            found = int(row[0]) if row else 0
        elif _one(connection, "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = %s)", schema):
            raise StoreError(f"{place}: the schema '{schema}' has tables of another program: choose another schema, "
                             f"with ?amqpd_schema=NAME in the URL")
        if found > newest_format():
            raise StoreError(f"{place} has format {found}, and this amqpd reads up to {newest_format()}: "
                             "use a newer amqpd")
        for statement in chain.from_iterable(STEPS[found:]):
            connection.execute(statement)
        set_meta = "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        if not found:
            for key, value in (("clean", 1), ("created", now)):
                connection.execute(set_meta, (key, value))
        if found != newest_format():
            connection.execute(set_meta, ("format", newest_format()))


def _one(connection: Connection, query: str, value: str) -> bool:
    row = connection.execute(query, (value,)).fetchone()
    return row is not None and bool(row[0])
