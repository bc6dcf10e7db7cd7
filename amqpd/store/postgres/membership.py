"""The nodes that share a store: who leads it, and who is ready to.

Owns the table `nodes`. Each node notes there that it is up, about once a second, by the server's clock.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psycopg

from amqpd.store.errors import StoreError
from amqpd.store.port import Member
from amqpd.store.postgres import schema
from amqpd.store.postgres.connecting import Address, Connection
from amqpd.store.postgres.errors import from_postgres, is_away
from amqpd.store.postgres.lease import LOCK, TRY_S, UNLOCK

GONE_S = 5              # without a word, after which a node counts as gone
_FORGOTTEN_S = 3_600    # after which it is not listed any more

_NOTE = """
    INSERT INTO nodes VALUES (%s, %s, %s, clock_timestamp(), clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET
        seen = excluded.seen, address = excluded.address, instance = excluded.instance,
        started = CASE WHEN nodes.instance = excluded.instance THEN nodes.started ELSE excluded.started END"""
_LOCK_NAME = "SELECT pg_try_advisory_lock(hashtext('amqpd ' || current_schema()), hashtext(%s))"
_FORGET = "DELETE FROM nodes WHERE seen < clock_timestamp() - %s * interval '1 second'"
_LEAVE = "DELETE FROM nodes WHERE name = %s AND instance = %s"
_MEMBERS = """
    SELECT n.name, n.address, n.seen > clock_timestamp() - %s * interval '1 second',
        l.node = n.name AND l.until > clock_timestamp(), extract(epoch FROM n.started)::bigint
    FROM nodes AS n CROSS JOIN leases AS l WHERE l.name = '' ORDER BY n.name"""
_LEADER = "SELECT node, address, until > clock_timestamp() FROM leases WHERE name = ''"


class Membership:
    """The membership of one node, `name`, which others reach at `address` while it leads; see `port.Membership`."""

    def __init__(self, url: str, name: str, *, now: int) -> None:
        self._place = Address(url)
        self._name = name
        self.address = ""
        self._now = now
        self._instance = os.urandom(8).hex()
        self._connection: Connection | None = None

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._place.connect_first()
            try:
                schema.prepare(connection, self._place.schema, self._place.place, self._now)
                self._take_name(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _take_name(self, connection: Connection) -> None:
        """Lock the name for this session; one that was killed lets go of it as soon as the server notices."""
        gives_up_at = time.monotonic() + GONE_S
        while not connection.execute(_LOCK_NAME, (f"node {self._name}",)).fetchall()[0][0]:
            if time.monotonic() > gives_up_at:
                raise StoreError(
                    f"a node with the name '{self._name}' is up already at {self._place.place}: give this one another "
                    "name, with --node-name")
            time.sleep(TRY_S)

    def note(self) -> None:
        """See `store/port.py`."""
        try:
            connection = self._connected()
            connection.execute(_NOTE, (self._name, self.address, self._instance))
            connection.execute(_FORGET, (_FORGOTTEN_S,))
        except psycopg.Error as error:
            raise self._failed(error) from error

    def leader(self) -> Member | None:
        """See `store/port.py`."""
        try:
            connection = self._connected()
            name, address, is_led = connection.execute(_LEADER).fetchall()[0]
            if not is_led:
                return None
            if connection.execute(LOCK).fetchall()[0][0]:       # the session of the leader is gone
                connection.execute(UNLOCK)
                return None
        except psycopg.Error as error:
            raise self._failed(error) from error
        return Member(name, address, is_up=True, is_leader=True, started=0)

    def members(self) -> list[Member]:
        """See `store/port.py`."""
        try:
            rows = self._connected().execute(_MEMBERS, (GONE_S,)).fetchall()
        except psycopg.Error as error:
            raise self._failed(error) from error
        return [Member(name, address, is_up=is_up, is_leader=is_leader, started=started)
                for name, address, is_up, is_leader, started in rows]

    def leave(self) -> None:
        """See `store/port.py`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error), connection:
                connection.execute(_LEAVE, (self._name, self._instance))

    def _failed(self, error: psycopg.Error) -> StoreError:
        connection, self._connection = self._connection, None
        if connection is not None and is_away(error):
            with suppress(psycopg.Error):
                connection.close()
        return from_postgres(error, self._place.place)
