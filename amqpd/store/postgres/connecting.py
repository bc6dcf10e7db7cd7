"""Connect to PostgreSQL: what a connection is set to, and what a server must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8Dumper

from amqpd.store.errors import StoreError, one_line
from amqpd.store.postgres.errors import NEEDED_VERSION, from_start
from amqpd.store.postgres.texts import Bytes, BytesDumper

SCHEMA = "amqpd"
SCHEMA_SETTING = "amqpd_schema"     # in a URL: the schema, so that several brokers can share a database
CONNECT_S = 5
# A peer that is gone without a word is noticed after this many ms, even if nothing is to be sent.
_DEFAULTS: Mapping[str, int | str] = {
    "connect_timeout": CONNECT_S, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    "tcp_user_timeout": 10_000, "application_name": "amqpd"}
# Plans are made when tables are empty, and kept: they must not read whole tables later.
_SETTINGS = ("SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan", "SET jit = off")


Connection = psycopg.Connection[tuple[Any, ...]]


class Address:
    """Where the store is, from a URL such as `postgresql://user@host1,host2/db`. Raises StoreError for what is none.

    `place` is for messages: the URL without a password.
    """

    def __init__(self, url: str) -> None:
        head, _, query = url.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        self.schema = options.pop(SCHEMA_SETTING, SCHEMA)
        try:
            parts = conninfo_to_dict(f"{head}?{urlencode(options)}" if options else head)
        except psycopg.Error as error:
            raise StoreError(f"store: {one_line(str(error))}: give postgresql://USER@HOST/DATABASE") from None
        self.conninfo = make_conninfo("", **{**_DEFAULTS, **parts})
        hosts = parts.get("host") or parts.get("hostaddr") or "localhost"
        ports = [*str(parts.get("port") or "").split(",")]
        named = ",".join([f"{host}:{ports[min(at, len(ports) - 1)]}" if any(ports) else host
                          for at, host in enumerate(str(hosts).split(","))])
        user = f"{parts['user']}@" if parts.get("user") else ""
        self.place = f"postgresql://{user}{named}/{parts.get('dbname') or ''}"
        if self.schema != SCHEMA:
            self.place += f"?{SCHEMA_SETTING}={self.schema}"

    def connect(self, *, plans: bool = True) -> Connection:
        """Return a new connection, in autocommit. Raises psycopg.Error."""
        connection = psycopg.connect(self.conninfo, autocommit=True)
        connection.adapters.register_dumper(int, Int8Dumper)        # one type, so that each statement is prepared once
        connection.adapters.register_dumper(Bytes, BytesDumper)
        connection.prepare_threshold = 0
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(self.schema)))
        for setting in _SETTINGS if plans else ():
            connection.execute(setting)
        return connection

    def connect_first(self) -> Connection:
        """Return a connection for the start, to a server that will do. Raises StoreError."""
        try:
            connection = self.connect()
        except psycopg.Error as error:
            raise from_start(error, self.place) from error
        version = connection.info.server_version
        encoding = connection.info.parameter_status("server_encoding")
        if version < NEEDED_VERSION * 10_000:
            connection.close()
            raise StoreError(
                f"{self.place} is PostgreSQL {version // 10_000}: version {NEEDED_VERSION} or later is needed")
        if encoding != "UTF8":
            connection.close()
            raise StoreError(f"{self.place} has the encoding {encoding}: make the database with ENCODING 'UTF8'")
        return connection
