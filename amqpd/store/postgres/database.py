"""The open store in PostgreSQL: transactions, each in one round trip, and what is done when the server is away.

A transaction is a list of statements that are sent together, with one Sync at the end: the server takes them as one
transaction (PostgreSQL docs/protocol-flow, Pipelining). The first one writes the number of the transaction, and fails
unless this run still leads the store; so a run that was taken over can write nothing, whatever its clock says.

If the connection breaks before the answer to a commit has come, nobody knows whether it took place. After connecting
again, a write that is committed itself tells: a read might tell of what no standby has yet. If the number is not there,
the same statements are sent again; both can never be in, since the number is a key.

While the server is away, `run` waits and goes on trying. `tell` is called then with a reason, and with "" when it is
back. Always true: after a failure every call raises it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import errors as postgres_errors

from amqpd.store.errors import StoreError, from_mistake_at
from amqpd.store.postgres.connecting import Address, Connection
from amqpd.store.postgres.errors import from_postgres, is_away, taken_over, text_of

AWAY = "the store is not reachable"
RETRY_S, MOST_RETRY_S = 0.05, 1.0       # between two attempts to connect
MOST_WAIT_S = 30.0                      # of a read, which the event loop may be waiting for
STREAMED_ROWS = 1_000
KEPT_NUMBERS = 256                      # of transactions; older ones are deleted

logger = logging.getLogger(__name__)

Rows = list[tuple[Any, ...]]


class Statement(NamedTuple):
    """A statement with its parameters; `note` is called with the count of rows and the rows, once it is committed.

    The count is UNKNOWN where the answer to the commit was lost. `is_read` tells that it only reads.
    """

    text: str
    parameters: Sequence[Any] = ()
    note: Callable[[int, Rows], None] | None = None
    is_read: bool = False


UNKNOWN = -1


class Staged(Protocol):
    """What is known of a table in memory. What a transaction changes there counts once the transaction is committed."""

    def keep(self) -> None:
        """Take over the changes: they are committed."""

    def forget(self) -> None:
        """Forget changes that were not kept: the transaction is over."""


# The number is NULL, which is refused, unless this run has the lease. FOR KEY SHARE lets it be renewed meanwhile.
FENCE = """
    WITH held AS (SELECT FROM leases WHERE name = '' AND epoch = %s FOR KEY SHARE)
    INSERT INTO batches (epoch, number) SELECT %s, CASE WHEN EXISTS (SELECT FROM held) THEN %s::bigint END"""
_FORGET_NUMBERS = "DELETE FROM batches WHERE epoch = %s AND number < %s OR epoch < %s"
_IS_IN = """
    UPDATE leases SET until = greatest(until, clock_timestamp()) WHERE name = '' AND epoch = %s
    RETURNING (SELECT EXISTS (SELECT FROM batches WHERE batches.epoch = leases.epoch AND number = %s))"""
_NO_STANDBY = "01000"       # a wait for standbys was cancelled: it is committed here, and nobody knows about them


class _Doubtful(Exception):
    """A commit has succeeded, but a standby may not have it."""


class Database:
    """The connection that writes and reads; `staged` follows its transactions."""

    def __init__(
        self, address: Address, connection: Connection, epoch: int
    ) -> None:
        self.address = address
        self.epoch = epoch
        self.staged: tuple[Staged, ...] = ()
        self.tell: Callable[[str], None] = _nobody
        self.has_ended = threading.Event()
        self._connection: Connection | None = None
        self._use(connection)
        self._number = 0            # of the last transaction
        self._is_doubtful = False
        self._failure: StoreError | None = None

    def _use(self, connection: Connection) -> None:
        connection.add_notice_handler(self._notice)
        self._connection = connection

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.sqlstate == _NO_STANDBY:
            self._is_doubtful = True

    # Transactions

    def run(self, statements: Sequence[Statement]) -> None:
        """Commit these statements as one transaction; on return it is in. Waits while the server is away.

        Raises StoreError.
        """
        with self.guarded():
            self._number += 1
            sent = [Statement(FENCE, (self.epoch, self.epoch, self._number)), *statements]
            if self._number % KEPT_NUMBERS == 0:
                sent.append(Statement(_FORGET_NUMBERS, (self.epoch, self._number - KEPT_NUMBERS, self.epoch)))
            try:
                outcome = self._commit(sent)
                for one in self.staged:
                    one.keep()
                for statement, (count, rows) in zip(sent, outcome):
                    if statement.note is not None:
                        statement.note(count, rows)
            finally:
                for one in self.staged:
                    one.forget()

    def _commit(self, sent: Sequence[Statement]) -> list[tuple[int, Rows]]:
        """Return the count of rows and the rows of each statement; nothing of a transaction whose answer was lost."""
        is_sent = False
        while True:
            try:
                connection = self._connected()
                if is_sent and self._is_in(connection):
                    return [(UNKNOWN, self.read(*one[:2]) if one.is_read else []) for one in sent]
                is_sent = True
                return self._send(connection, sent)
            except postgres_errors.UniqueViolation as error:
                if error.diag.table_name != "batches":
                    raise
                # An earlier attempt was still on its way. `_is_in` sees it, and writes, so that standbys have it too.
            except postgres_errors.NotNullViolation as error:
                if error.diag.table_name != "batches":
                    raise
                raise taken_over(self.address.place) from error
            except _Doubtful:
                pass
            except psycopg.Error as error:
                if not is_away(error):
                    raise
                self._lose(error)

    def _send(
        self, connection: Connection, sent: Sequence[Statement]
    ) -> list[tuple[int, Rows]]:
        self._is_doubtful = False
        with connection.pipeline():
            cursors = [connection.execute(one.text, one.parameters, prepare=True) for one in sent]
        if self._is_doubtful:
            raise _Doubtful
        return [(cursor.rowcount, cursor.fetchall() if cursor.description and one.note is not None else [])
                for one, cursor in zip(sent, cursors)]

    def _is_in(self, connection: Connection) -> bool:
        """Return whether the last transaction is in, by a write that standbys have to confirm too."""
        self._is_doubtful = False
        row = connection.execute(_IS_IN, (self.epoch, self._number)).fetchone()
        if self._is_doubtful:
            raise _Doubtful
        if row is None:
            raise taken_over(self.address.place)
        return bool(row[0])

    # Reading

    def read(self, query: str, parameters: Sequence[Any] = ()) -> Rows:
        """Return the rows of a query, between transactions. Waits while the server is away, but not for ever.

        Raises StoreError.
        """
        gives_up_at = time.monotonic() + MOST_WAIT_S
        with self.guarded():
            while True:
                try:
                    return self._connected(gives_up_at).execute(query, parameters, binary=True).fetchall()
                except psycopg.Error as error:
                    if not is_away(error) or time.monotonic() > gives_up_at:
                        raise
                    self._lose(error)

    def stream(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, a thousand at a time, so that memory has few of them. Raises StoreError."""
        with self.guarded(), self._connected(time.monotonic() + MOST_WAIT_S).transaction():
            with self._connected().cursor("rows", binary=True) as cursor:
                cursor.itersize = STREAMED_ROWS
                yield from cursor.execute(query, parameters)

    # The connection

    def _connected(self, until: float = inf) -> Connection:
        """Return the connection, or a new one; wait until there is one, or until this time of the monotonic clock."""
        wait_s = RETRY_S
        while self._connection is None:
            try:
                self._use(self.address.connect())
            except psycopg.Error as error:
                if not is_away(error):
                    raise
                if self.has_ended.wait(wait_s) or time.monotonic() > until:
                    raise from_postgres(error, self.address.place) from error
                wait_s = min(2 * wait_s, MOST_RETRY_S)
            else:
                logger.warning("%s can be reached again", self.address.place)
                self.tell("")
        return self._connection

    def _lose(self, error: psycopg.Error) -> None:
        """Close a connection that is of no use any more."""
        logger.warning("%s cannot be reached (%s): publishers wait", self.address.place, text_of(error))
        self.tell(AWAY)
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
        if self.has_ended.is_set():
            raise from_postgres(error, self.address.place) from error
        time.sleep(RETRY_S)

    def close(self) -> None:
        """Close the connection, and wait for none any more."""
        self.has_ended.set()
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()

    # Failing

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Raise the failure, if there was one; what fails now is remembered as that. Every error is a StoreError."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except psycopg.Error as error:
            raise self.failed(from_postgres(error, self.address.place)) from error
        except StoreError as error:
            raise self.failed(error)
        except Exception as error:
            raise self.failed(from_mistake_at(error, self.address.place)) from error

    def failed(self, failure: StoreError) -> StoreError:
        """Remember a failure, and return it."""
        self._failure = failure
        return failure

    def fail(self, failure: StoreError) -> None:
        """Let every later call raise this failure, unless there was one before."""
        self._failure = self._failure or failure


def _nobody(reason: str) -> None:
    """Do nothing: nobody has asked to hear of it yet."""
