"""The one timer of the broker: for expiries of messages and queues, and for everything else that waits for a time.

Always true between turns: the timer is set for the next time of the broker's clock, or for an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from amqpd.broker.broker import Broker

READ_TURN_S = 0.02          # in which all sockets are read: a timer set now fires after a poll
LATE_MS = 500               # the delay of a wake-up that shows that the process, or the loop, was stopped


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancel the call."""


class Timers(Protocol):
    """The event loop, as far as it schedules calls."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Schedule a call in the next turn, after the callbacks of this one."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Schedule a call in so many seconds."""


class WakeUp:
    """Advances the broker's clock when something is due; `schedule` asks for the end of the turn that follows."""

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
        """Set the timer for the next time of the broker's clock."""
        due_ms = self._broker.clock.next_wake_ms
        if due_ms is None or (self._timer is not None and self._due_ms <= due_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_ms = due_ms
        self._timer = self._timers.call_later(max(0, due_ms - now_ms) / 1000, self._wake)

    def _wake(self) -> None:
        """Do what is due. After a gap, read the sockets first: a queue that expires may have been used meanwhile."""
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
        """Do what became due while the machine slept, since the loop's own timers do not run meanwhile."""
        if self._timer is not None and not self._reads_first and self._now_ms() - self._due_ms > LATE_MS:
            self._timer.cancel()
            self._wake()
