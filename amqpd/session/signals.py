"""The signals of a session to its driver: the server's loop, or a test's stage.

The parts of a session send them through `SessionSignals`, which refers to the session until the socket is lost. So no
part refers to the session itself, and everything is freed when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from amqpd.broker.broker import Broker, Connection
from amqpd.broker.worklist import nothing

Told = TypeVar("Told", bound=Connection, contravariant=True)
Client = TypeVar("Client", bound=Connection)


class Signals(Protocol[Told]):
    """The driver of a session; each signal only makes a note for the end of the turn.

    `alarm` is why nothing may be published now, in the words for `connection.blocked`, or empty.
    """

    alarm: str

    def output_ready(self, session: Told) -> None:
        """Note that there is output."""

    def handshake_advanced(self, session: Told) -> None:
        """Note a step of the handshake: if `login` is set, it can be checked."""

    def commit_awaited(self, session: Told) -> None:
        """Note that output waits for a batch to be on disk."""

    def input_deferred(self, session: Told) -> None:
        """Note that the client has had its share of this turn: call `go_on` in the next one."""

    def command_unfinished(self, session: Told) -> None:
        """Note that a command must continue when jobs have their next turn: call `go_on` then."""

    def input_drained(self, session: Told) -> None:
        """Note that deferred input has been carried out: the client may be read again."""


class SessionSignals(Generic[Client]):
    """The signals of one session, to its `driver`. After `end` nothing is sent."""

    __slots__ = ("driver", "output_ready", "_session")

    def __init__(self, driver: Signals[Client], session: Client) -> None:
        self.driver = driver
        self._session: Client | None = session
        # See `Signals`. It is called for each flush, so it is one call and not two.
        self.output_ready: Callable[[], None] = partial(driver.output_ready, session)

    def end(self) -> None:
        """Drop the reference to the session: its socket is lost."""
        self._session = None
        self.output_ready = nothing

    def enter(self, broker: Broker, number: int) -> None:
        """List the session with the broker: its connection is open."""
        if self._session is not None:
            broker.connections[number] = self._session

    def handshake_advanced(self) -> None:
        """See `Signals`."""
        if self._session is not None:
            self.driver.handshake_advanced(self._session)

    def commit_awaited(self) -> None:
        """See `Signals`."""
        if self._session is not None:
            self.driver.commit_awaited(self._session)

    def input_deferred(self) -> None:
        """See `Signals`."""
        if self._session is not None:
            self.driver.input_deferred(self._session)

    def command_unfinished(self) -> None:
        """See `Signals`."""
        if self._session is not None:
            self.driver.command_unfinished(self._session)

    def input_drained(self) -> None:
        """See `Signals`."""
        if self._session is not None:
            self.driver.input_drained(self._session)
