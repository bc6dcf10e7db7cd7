"""The lease of the one broker that may write: how a start takes it, and the thread that renews it.

Liveness is the lease's, by the server's clock; safety is the epoch's, which each transaction checks, see `database.py`.
A lock of the session is a hint: as long as the session of the last leader is there, its lease has to run out first; if
it is gone, so is the leader, and a start need not wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from amqpd.store.errors import StoreError
from amqpd.store.postgres.connecting import Address, Connection
from amqpd.store.postgres.errors import from_postgres, held, is_away, taken_over, text_of

LEASE_S = 5.0           # how long a lease holds without being renewed
RENEW_S = 1.5           # between two renewals
TRY_S = 0.25           # between two attempts to take it

logger = logging.getLogger(__name__)

LOCK = "SELECT pg_try_advisory_lock(hashtext('amqpd ' || current_schema()), 0)"
UNLOCK = LOCK.replace("pg_try_advisory_lock", "pg_advisory_unlock")
_TAKE = """
    UPDATE leases SET epoch = epoch + 1, node = %s, address = %s, since = clock_timestamp(),
        until = clock_timestamp() + %s * interval '1 second'
    WHERE name = '' AND (until < clock_timestamp() OR %s) RETURNING epoch"""
_RENEW = """
    UPDATE leases SET until = clock_timestamp() + %s * interval '1 second' WHERE name = '' AND epoch = %s"""
_HOLDER = "SELECT node, to_char(since, 'YYYY-MM-DD HH24:MI:SS TZ') FROM leases WHERE name = ''"
_END = "UPDATE leases SET until = '-infinity' WHERE name = '' AND epoch = %s"


class Lease:
    """The lease of this run, with a connection and a thread of its own; `epoch` is 0 until it is taken.

    Other nodes reach the one that has it at `reached_at`. A start that `is_patient` waits until a lease has run out.

    `on_lost` is called in the thread when another run has taken it.
    """

    def __init__(
        self, address: Address, node: str, reached_at: str = "", *, is_patient: bool = True, lease_s: float = LEASE_S,
        renew_s: float = RENEW_S
    ) -> None:
        self.epoch = 0
        self.on_lost: Callable[[StoreError], None] = _nobody
        self._address = address
        self._node = node
        self._reached_at = reached_at
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._patience_s = lease_s + renew_s if is_patient else 0.0
        self._connection: Connection | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_forever, name="amqpd-lease", daemon=True)

    def take(self) -> None:
        """Take it, and renew it from now on; wait for one that nobody renews. Raises StoreError, StoreLocked."""
        try:
            self._connection = connection = self._address.connect(plans=False)
            gives_up_at = time.monotonic() + self._patience_s
            while True:
                is_alone = connection.execute(LOCK).fetchall()[0][0]
                row = connection.execute(_TAKE, (self._node, self._reached_at, self._lease_s, is_alone)).fetchone()
                if row is not None:
                    break
                if time.monotonic() > gives_up_at:
                    node, since = connection.execute(_HOLDER).fetchall()[0]
                    raise held(self._address.place, node, since)
                time.sleep(TRY_S)
        except psycopg.Error as error:
            self.end()
            raise from_postgres(error, self._address.place) from error
        except StoreError:
            self.end()
            raise
        self.epoch = row[0]
        self._thread.start()

    def _renew_forever(self) -> None:
        while not self._ended.wait(self._renew_s):
            try:
                if self._connection is None:
                    self._connection = self._address.connect(plans=False)
                    self._connection.execute(LOCK)
                if not self._connection.execute(_RENEW, (self._lease_s, self.epoch)).rowcount:
                    self.on_lost(taken_over(self._address.place))
                    return
            except psycopg.Error as error:
                if not is_away(error):
                    logger.warning("the lease of %s cannot be renewed: %s", self._address.place, text_of(error))
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def give_back(self) -> None:
        """End it, so that the next start need not wait."""
        self.end()
        if self.epoch:
            with suppress(psycopg.Error), self._address.connect(plans=False) as connection:
                connection.execute(_END, (self.epoch,))

    def end(self) -> None:
        """Renew it no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._disconnect()


def _nobody(error: StoreError) -> None:
    """Do nothing: nobody has asked to hear of it yet."""
