"""What a session tells whoever drives it: the server's loop, or a test's stage.

The parts of a session tell it through `SessionSignals`, which knows whose they are until the socket is gone. So no part
refers to the session by itself, and all is freed when it ends.
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
    """What a session asks of whoever drives it; each only makes a note for the end of the turn.

    `alarm` is why nothing may be published now, in the words for `connection.blocked`, or empty.
    """

    alarm: str

    def output_ready(self, session: Told) -> None:
        """There is something to send."""

    def handshake_advanced(self, session: Told) -> None:
        """The client has taken a step towards its login: if `login` is set, that can be looked at."""

    def commit_awaited(self, session: Told) -> None:
        """Something waits for a batch to be on disk."""

    def input_deferred(self, session: Told) -> None:
        """The client has had its share of this turn: call `go_on` in the next one."""

    def command_unfinished(self, session: Told) -> None:
        """A command goes on in the next turn in which jobs are worked on: call `go_on` then."""

    def input_drained(self, session: Told) -> None:
        """What waited has been carried out: the client may be read again."""


class SessionSignals(Generic[Client]):
    """The signals of one session, to its `driver`. After `end` there is nobody left to be told."""

    __slots__ = ("driver", "output_ready", "_session")

    def __init__(self, driver: Signals[Client], session: Client) -> None:
        self.driver = driver
        self._session: Client | None = session
        # See `Signals`. It is called for each flush, so it is one call and not two.
        self.output_ready: Callable[[], None] = partial(driver.output_ready, session)

    def end(self) -> None:
        """Forget the session: its socket is gone."""
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
