"""Look at a database without opening the store: for `check-config`, `doctor` and `amqpd store`."""

from __future__ import annotations

import time
from contextlib import closing
from statistics import median
from typing import NamedTuple

import psycopg
from psycopg import sql

from amqpd.broker.definitions import Definition
from amqpd.store.errors import StoreError
from amqpd.store.postgres.confirming import describe_commits
from amqpd.store.postgres.connecting import Address, Connection
from amqpd.store.postgres.counts import MessageCounts
from amqpd.store.postgres.database import Database
from amqpd.store.postgres.errors import from_postgres, remedy_for, text_of
from amqpd.store.postgres.recovery import meta_of, read_definitions
from amqpd.store.postgres.schema import newest_format

SLOW_COMMIT_S = 0.02        # a confirm waits at least as long
CLOCK_S = 1.0               # between the clocks of the server and of this machine
_COMMITS = 5

_HOLDER = """
    SELECT node, until > clock_timestamp(), to_char(since, 'YYYY-MM-DD HH24:MI:SS TZ') FROM leases WHERE name = ''"""


class Fact(NamedTuple):
    """What is so. `remedy` tells what to do if that is a `problem`, or a reason for a warning."""

    text: str
    remedy: str = ""
    is_problem: bool = False


def has_store(connection: Connection, address: Address) -> bool:
    """Return whether there is a store. Raises psycopg.Error."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'meta')",
        (address.schema,)).fetchone()
    return bool(row and row[0])


def definitions_at(url: str) -> list[Definition]:
    """Return the definitions of the store at this URL, none if there is no store. Raises StoreError, ValueError."""
    address = Address(url)
    with closing(address.connect_first()) as connection:
        return read_definitions(Database(address, connection, 0)) if has_store(connection, address) else []


def facts_at(url: str) -> dict[str, str | int]:
    """Return what `amqpd store info` tells of the store at this URL. Raises StoreError."""
    address = Address(url)
    with closing(address.connect_first()) as connection:
        if not has_store(connection, address):
            raise StoreError(f"there is no store at {address.place}: a broker makes it when it starts")
        database = Database(address, connection, 0)
        counts = MessageCounts(database)
        counts.count()
        meta = meta_of(database)
        node, is_led, since = database.read(_HOLDER)[0]
        size = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relnamespace = %s::regnamespace"
        return {
            "store": address.place, "format": meta["format"], "readable formats": f"1 to {newest_format()}",
            "server": f"PostgreSQL {connection.info.server_version // 10_000}",
            "confirm": describe_commits(connection),
            "queues": database.read("SELECT count(*) FROM queue_rows")[0][0],
            "messages": counts.messages, "damaged messages": counts.damaged,
            "bytes": int(database.read(size, (address.schema,))[0][0] or 0),
            "stopped cleanly": "yes" if meta.get("clean") else "no",
            "led by": f"{node}, since {since}" if is_led else "nobody"}


def examine(url: str) -> list[Fact]:
    """Return what is right and wrong with a database: version, settings, rights, clock, and how long a commit takes."""
    try:
        address = Address(url)
        connection = address.connect_first()
    except StoreError as error:
        return [Fact(str(error), is_problem=True)]
    with closing(connection):
        try:
            return [*_examine(address, connection)]
        except psycopg.Error as error:
            return [Fact(str(from_postgres(error, address.place)), remedy_for(error), is_problem=True)]


def _examine(address: Address, connection: Connection) -> list[Fact]:
    version = connection.info.server_version
    found = [Fact(f"{address.place}: PostgreSQL {version // 10_000}.{version % 10_000}"),
             Fact(f"confirm = {describe_commits(connection)}")]
    row = connection.execute(
        "SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'), "
        "extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    fsync, commit, pages, clock = row
    for name, value, is_wrong in (("fsync", fsync, fsync == "off"), ("synchronous_commit", commit, commit == "off"),
                                  ("full_page_writes", pages, pages == "off")):
        if is_wrong:
            found.append(Fact(f"{name} = {value}: confirmed messages can be lost", f"set {name} = on", is_problem=True))
    apart = abs(clock - time.time())
    if apart > CLOCK_S:
        found.append(Fact(f"the server's clock is {apart:.0f} s off this machine's", "keep both in step, with NTP"))
    found += _rights(address, connection)
    return found


def _rights(address: Address, connection: Connection) -> list[Fact]:
    """Return whether this user can make, or write, the store, and how long a commit takes."""
    if not has_store(connection, address):
        may = connection.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchall()[0][0]
        return [Fact("there is no store yet; a start creates it") if may else Fact(
            "there is no store yet, and this user may not create one", "GRANT CREATE ON DATABASE", is_problem=True)]
    database = Database(address, connection, 0)
    node, is_led, since = database.read(_HOLDER)[0]
    found = [Fact(f"led by {node}, since {since}" if is_led else "led by nobody now")]
    took = []
    try:
        for _ in range(_COMMITS):
            began = time.monotonic()
            # Writes nothing that anybody reads: a key of its own, which goes with the next one.
            connection.execute(sql.SQL(
                "INSERT INTO meta VALUES ('examined', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1"))
            took.append(time.monotonic() - began)
    except psycopg.Error as error:
        return [*found, Fact(f"this user cannot write: {text_of(error)}", remedy_for(error), is_problem=True)]
    found.append(Fact(f"a commit takes {median(took) * 1000:.1f} ms", "use faster disks, or standbys that are nearer"
                      if median(took) > SLOW_COMMIT_S else ""))
    return found
