"""The time as the broker knows it: two numbers that the server sets, and the wake-ups.

The broker never reads a clock. While it runs, deadlines use the monotonic clock. The store keeps them on its own clock,
which is the wall clock without the steps by which that was set since the store was created. See server/wall_clock.py.

Always true between calls: no wake-up is lost; a sleeper is called at or after its time.
"""

from __future__ import annotations

import heapq
import logging
from typing import Protocol

from amqpd.broker.effort import Effort

log = logging.getLogger("amqpd")

WAKE_STEPS = 10         # the cost of one wake-up, at least
FEWEST_ENTRIES = 256        # a larger heap is rebuilt once two of three entries are obsolete


class Sleeper(Protocol):
    """An object that asks for a wake-up."""

    def wake(self) -> None:
        """Act, as the requested time has come; an additional call does no harm."""


class Clock:
    """The clocks and wake-ups. `now_ms` is the monotonic clock, `wall_ms` the wall clock since 1970, both in ms."""

    def __init__(self, now_ms: int = 0, wall_ms: int = 0) -> None:
        self.now_ms = now_ms
        self._wall_ahead_ms = self._stored_ahead_ms = wall_ms - now_ms
        self._asleep: list[tuple[int, int]] = []        # a heap of times and numbers of wake-ups
        self._sleepers: dict[int, Sleeper] = {}         # by number, without cancelled ones
        self._asked = 0

    def set_wall(self, now_ms: int, wall_ms: int) -> None:
        """Set what the wall clock shows at this time; the store's clock continues."""
        self._wall_ahead_ms = wall_ms - now_ms

    def set_stored(self, behind_ms: int) -> None:
        """Set how far the store's clock is behind the wall clock, at start."""
        self._stored_ahead_ms = self._wall_ahead_ms - behind_ms

    def to_wall(self, when_ms: int) -> int:
        """Return the wall clock at this time of the monotonic clock."""
        return when_ms + self._wall_ahead_ms

    def to_stored(self, when_ms: int) -> int:
        """Return the store's clock at this time of the monotonic clock."""
        return when_ms + self._stored_ahead_ms

    @property
    def wall_ms(self) -> int:
        """The wall clock now."""
        return self.now_ms + self._wall_ahead_ms

    @property
    def stored_ms(self) -> int:
        """The store's clock now."""
        return self.now_ms + self._stored_ahead_ms

    @property
    def stored_behind_ms(self) -> int:
        """How many ms the store's clock is behind the wall clock."""
        return self._wall_ahead_ms - self._stored_ahead_ms

    def wake_at(self, when_ms: int, sleeper: Sleeper) -> int:
        """Wake a sleeper at this time, or soon after it; return the number of the wake-up."""
        self._asked += 1
        self._sleepers[self._asked] = sleeper
        heapq.heappush(self._asleep, (when_ms, self._asked))
        return self._asked

    def cancel(self, wake_up: int) -> None:
        """Cancel a wake-up by its number; one that is over is ignored."""
        sleepers = self._sleepers
        if sleepers.pop(wake_up, None) is not None and len(self._asleep) > FEWEST_ENTRIES + 2 * len(sleepers):
            self._asleep = [entry for entry in self._asleep if entry[1] in sleepers]
            heapq.heapify(self._asleep)

    @property
    def next_wake_ms(self) -> int | None:
        """The time of the next wake-up, if there is one."""
        asleep = self._asleep
        while asleep and asleep[0][1] not in self._sleepers:
            heapq.heappop(asleep)
        return asleep[0][0] if asleep else None

    def advance(self, now_ms: int, effort: Effort | None = None) -> None:
        """Set the time and wake the sleepers that are due, within the slice; an error affects one of them only."""
        self.now_ms = now_ms
        while self._asleep and self._asleep[0][0] <= now_ms:
            sleeper = self._sleepers.pop(heapq.heappop(self._asleep)[1], None)
            if sleeper is None:
                continue
            try:
                sleeper.wake()
            except Exception:
                log.exception("internal error in %r when its time had come", sleeper)
            if effort is not None:
                effort.total += WAKE_STEPS
                if effort.is_spent:
                    return
