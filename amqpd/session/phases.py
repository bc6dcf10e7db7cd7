"""The phases of a connection, from the protocol header to the end, and what may be said in each: on one screen.

`TRANSITIONS` is the whole machine: nothing else changes the phase, and what has no place in its row cannot happen. What
is answered to a method before its phase begins is in `session/handshake.py`, what our own close lets go of in
`session/closing.py`.

Spec: §2.2.4; connection class.
"""

from __future__ import annotations

from enum import Enum, auto

from pamqp.base import Frame
from pamqp.commands import Connection

from amqpd.broker.clock import Clock

CLOSE_OK_WAIT_MS = 5_000
LINGER_MS = 1_000       # how long a peer may read what was said last before the socket goes


class Phase(Enum):
    """Where the talk of a connection stands."""

    AWAIT_HEADER = auto()
    AWAIT_START_OK = auto()
    AUTHENTICATING = auto()     # the server looks at the password; the client is expected to wait
    AWAIT_TUNE_OK = auto()
    AWAIT_OPEN = auto()
    OPEN = auto()
    CLOSING = auto()            # our close is out; only close and close-ok are heard
    CLOSED = auto()


class Event(Enum):
    """What begins a phase, beside the client's methods."""

    HEADER = auto()         # the client speaks our protocol
    LOGGED_IN = auto()      # the server has found the password right,
    LOGIN_FAILED = auto()   # or wrong, and the client understands a close that says so
    CLOSE = auto()          # we close, and wait for close-ok
    END = auto()            # nothing more is said by either side


TRANSITIONS: dict[Phase, dict[Event | type[Frame], Phase]] = {
    Phase.AWAIT_HEADER: {
        Event.HEADER: Phase.AWAIT_START_OK,
        Event.END: Phase.CLOSED},
    Phase.AWAIT_START_OK: {
        Connection.StartOk: Phase.AUTHENTICATING,
        Event.CLOSE: Phase.CLOSING,
        Event.END: Phase.CLOSED},
    Phase.AUTHENTICATING: {
        Event.LOGGED_IN: Phase.AWAIT_TUNE_OK,
        Event.LOGIN_FAILED: Phase.CLOSING,
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
    """Where one connection stands: `current`. Its socket goes at `drop_at_ms`, unless the next phase has begun.

    `is_over` says that what is said last has been written, and `peer_closes` that the peer got close-ok, so that
    closing the socket is left to it for a while.
    """

    __slots__ = ("current", "drop_at_ms", "is_over", "peer_closes", "_clock")

    def __init__(self, clock: Clock, drop_at_ms: int) -> None:
        self.current = Phase.AWAIT_HEADER
        self.drop_at_ms: int | None = drop_at_ms
        self.is_over = False
        self.peer_closes = False
        self._clock = clock

    def allows(self, event: Event | type[Frame]) -> bool:
        """Return whether this has a place in the current phase."""
        return event in TRANSITIONS[self.current]

    def begin(self, event: Event | type[Frame]) -> None:
        """Begin the phase that this leads to."""
        self.current = TRANSITIONS[self.current][event]

    def await_close_ok(self, wait_ms: int = CLOSE_OK_WAIT_MS, *, event: Event = Event.CLOSE) -> None:
        """Wait so long for close-ok: our close has been written."""
        self.begin(event)
        self._drop_in(wait_ms)

    def say_no_more(self, *, peer_closes: bool = False) -> None:
        """Have the socket go once the last bytes are out, or once the peer closes it."""
        self.peer_closes = peer_closes
        self.is_over = True
        self.linger()

    def linger(self) -> None:
        """Give the peer a moment to read what was said last, before the socket goes."""
        self._drop_in(LINGER_MS)

    def _drop_in(self, ms: int) -> None:
        self.drop_at_ms = self._clock.now_ms + ms

    def is_overdue(self, now_ms: int) -> bool:
        """Return whether the next phase has taken too long to begin."""
        return self.drop_at_ms is not None and now_ms >= self.drop_at_ms

    def excuse(self, gap_ms: int) -> None:
        """Do not count a time in which the client could not be heard."""
        if self.drop_at_ms is not None:
            self.drop_at_ms += gap_ms
