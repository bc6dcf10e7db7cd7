"""The one timer that wakes the broker: for messages and queues that expire, and for whatever else waits for a time.

Always true between turns: the timer is set for the time at which the broker's clock has to wake somebody, or before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from amqpd.broker.broker import Broker

READ_TURN_S = 0.02          # after it all sockets have been read: a timer that is set now comes after a poll
LATE_MS = 500               # by which a wake-up comes late where the process, or the loop, did not go on


class Timer(Protocol):
    """A call that has been asked for."""

    def cancel(self) -> None:
        """Do not make it."""


class Timers(Protocol):
    """What makes calls later: the event loop."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Make this call after the callbacks of this turn, in the next one."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Make this call in so many seconds."""


class WakeUp:
    """Wakes who is due with the broker; `schedule` sees to what follows from that at the end of the turn."""

    def __init__(
        self, broker: Broker, timers: Timers, now_ms: Callable[[], int], schedule: Callable[[], None]
    ) -> None:
        self._broker = broker
        self._timers = timers
        self._now_ms = now_ms
        self._schedule = schedule
        self._timer: Timer | None = None
        self._due_ms = 0
        self._reads_first = False

    def set(self, now_ms: int) -> None:
        """Set the timer for what is due next."""
        due_ms = self._broker.clock.next_wake_ms
        if due_ms is None or (self._timer is not None and self._due_ms <= due_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_ms = due_ms
        self._timer = self._timers.call_later(max(0, due_ms - now_ms) / 1000, self._wake)

    def _wake(self) -> None:
        """Do what is due. After a gap read first: a queue that expires may have been used meanwhile."""
        now = self._now_ms()
        self._reads_first = not self._reads_first and now - self._due_ms > LATE_MS
        if self._reads_first:
            self._timer = self._timers.call_later(READ_TURN_S, self._wake)
            return
        self._timer = None
        self._broker.effort.begin()
        self._broker.clock.advance(now, self._broker.effort)
        self._schedule()

    def wake_if_overdue(self) -> None:
        """Wake those whose time came while the machine slept, for which the loop's own timers stand still."""
        if self._timer is not None and not self._reads_first and self._now_ms() - self._due_ms > LATE_MS:
            self._timer.cancel()
            self._wake()
