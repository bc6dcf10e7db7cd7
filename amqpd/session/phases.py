"""The phases of a connection, from the protocol header to the end, and what is allowed in each: on one screen.

`TRANSITIONS` is the whole state machine: nothing else changes the phase, and anything that is not in its row is not
allowed. `session/handshake.py` answers methods before their phase begins; `session/closing.py` releases the resources.

Spec: §2.2.4; connection class.
"""

from __future__ import annotations

from enum import Enum, auto

from pamqp.base import Frame
from pamqp.commands import Connection

from amqpd.broker.clock import Clock

CLOSE_OK_WAIT_MS = 5_000
LINGER_MS = 1_000       # how long a client may read the last output before the socket is closed


class Phase(Enum):
    """The phase of a connection."""

    AWAIT_HEADER = auto()
    AWAIT_START_OK = auto()
    AUTHENTICATING = auto()     # the server checks the login; the client is expected to wait
    AWAIT_SECURE_OK = auto()    # the client has a challenge to answer
    AWAIT_TUNE_OK = auto()
    AWAIT_OPEN = auto()
    OPEN = auto()
    CLOSING = auto()            # our close is sent; only close and close-ok are handled
    CLOSED = auto()


class Event(Enum):
    """An event that begins a phase, besides the client's methods."""

    HEADER = auto()         # the client has our protocol header
    CHALLENGED = auto()     # the client must answer before it is logged in
    LOGGED_IN = auto()      # the password was right
    LOGIN_FAILED = auto()   # the password was wrong, and the client supports a close for that
    CLOSE = auto()          # we close, and wait for close-ok
    END = auto()            # nothing more is sent by either side


TRANSITIONS: dict[Phase, dict[Event | type[Frame], Phase]] = {
    Phase.AWAIT_HEADER: {
        Event.HEADER: Phase.AWAIT_START_OK,
        Event.END: Phase.CLOSED},
    Phase.AWAIT_START_OK: {
        Connection.StartOk: Phase.AUTHENTICATING,
        Event.CLOSE: Phase.CLOSING,
        Event.END: Phase.CLOSED},
    Phase.AUTHENTICATING: {
        Event.CHALLENGED: Phase.AWAIT_SECURE_OK,
        Event.LOGGED_IN: Phase.AWAIT_TUNE_OK,
        Event.LOGIN_FAILED: Phase.CLOSING,
        Event.END: Phase.CLOSED},
    Phase.AWAIT_SECURE_OK: {
        Connection.SecureOk: Phase.AUTHENTICATING,
        Event.CLOSE: Phase.CLOSING,
        Event.END: Phase.CLOSED},
    Phase.AWAIT_TUNE_OK: {
        Connection.TuneOk: Phase.AWAIT_OPEN,
        Event.CLOSE: Phase.CLOSING,
        Event.END: Phase.CLOSED},
    Phase.AWAIT_OPEN: {
        Connection.Open: Phase.OPEN,
        Event.CLOSE: Phase.CLOSING,
        Event.END: Phase.CLOSED},
    Phase.OPEN: {
        Connection.UpdateSecret: Phase.OPEN,
        Connection.Close: Phase.CLOSED,
        Event.CLOSE: Phase.CLOSING,
        Event.END: Phase.CLOSED},
    Phase.CLOSING: {
        Connection.Close: Phase.CLOSED,
        Connection.CloseOk: Phase.CLOSED,
        Event.END: Phase.CLOSED},
    Phase.CLOSED: {
        Event.END: Phase.CLOSED},
}


class Phases:
    """The current phase of one connection. Its socket is closed at `drop_at_ms`, unless the next phase has begun.

    `is_over` says that the last output has been written, `peer_closes` that the client got close-ok, so that it has a
    while to close the socket itself.
    """

    __slots__ = ("current", "drop_at_ms", "is_over", "peer_closes", "_clock")

    def __init__(self, clock: Clock, drop_at_ms: int) -> None:
        self.current = Phase.AWAIT_HEADER
        self.drop_at_ms: int | None = drop_at_ms
        self.is_over = False
        self.peer_closes = False
        self._clock = clock

    def allows(self, event: Event | type[Frame]) -> bool:
        """Return whether this is allowed in the current phase."""
        return event in TRANSITIONS[self.current]

    def begin(self, event: Event | type[Frame]) -> None:
        """Begin the phase that this leads to."""
        self.current = TRANSITIONS[self.current][event]

    def await_close_ok(self, wait_ms: int = CLOSE_OK_WAIT_MS, *, event: Event = Event.CLOSE) -> None:
        """Wait so long for close-ok: our close has been written."""
        self.begin(event)
        self._drop_in(wait_ms)

    def say_no_more(self, *, peer_closes: bool = False) -> None:
        """Have the socket closed after the last output, or once the client closes it."""
        self.peer_closes = peer_closes
        self.is_over = True
        self.linger()

    def linger(self) -> None:
        """Give the client a moment to read the last output, before the socket is closed."""
        self._drop_in(LINGER_MS)

    def _drop_in(self, ms: int) -> None:
        self.drop_at_ms = self._clock.now_ms + ms

    def is_overdue(self, now_ms: int) -> bool:
        """Return whether the next phase has taken too long to begin."""
        return self.drop_at_ms is not None and now_ms >= self.drop_at_ms

    def excuse(self, gap_ms: int) -> None:
        """Do not count a gap, in which the client could not be read."""
        if self.drop_at_ms is not None:
            self.drop_at_ms += gap_ms
