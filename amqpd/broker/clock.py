"""The time as the broker knows it: two numbers that the server sets, and when to be woken.

The broker never looks at a clock. While it runs, deadlines are on one that nobody sets; the store keeps them on a clock
of its own, which is the wall clock but for the steps by which that was set since the store was made. See
server/wall_clock.py.

Always true between calls: no wake-up is lost; a queue that asked for one is called at or after its time.
"""

from __future__ import annotations

import heapq
import logging
from typing import Protocol

from amqpd.broker.effort import Effort

log = logging.getLogger("amqpd")

WAKE_STEPS = 10         # what waking one takes, at least
FEWEST_ENTRIES = 256        # the heap is made anew once it is larger, and two of three entries are of no use


class Sleeper(Protocol):
    """Whoever asks to be woken."""

    def wake(self) -> None:
        """The time that was asked for has come; a call too many does no harm."""


class Clock:
    """`now_ms` is milliseconds of the monotonic clock, `wall_ms` of the wall clock since 1970."""

    def __init__(self, now_ms: int = 0, wall_ms: int = 0) -> None:
        self.now_ms = now_ms
        self._wall_ahead_ms = self._stored_ahead_ms = wall_ms - now_ms
        self._asleep: list[tuple[int, int]] = []        # a heap of times and numbers of wake-ups
        self._sleepers: dict[int, Sleeper] = {}         # by number, without those that were cancelled
        self._asked = 0

    def set_wall(self, now_ms: int, wall_ms: int) -> None:
        """Learn what the wall clock shows at this time; the store's clock goes on as it was."""
        self._wall_ahead_ms = wall_ms - now_ms

    def set_stored(self, behind_ms: int) -> None:
        """Learn how far the store's clock is behind the wall clock, at start."""
        self._stored_ahead_ms = self._wall_ahead_ms - behind_ms

    def to_wall(self, when_ms: int) -> int:
        """What the wall clock will show then."""
        return when_ms + self._wall_ahead_ms

    def to_stored(self, when_ms: int) -> int:
        """Return what the store's clock will show then."""
        return when_ms + self._stored_ahead_ms

    @property
    def wall_ms(self) -> int:
        """What the wall clock shows now."""
        return self.now_ms + self._wall_ahead_ms

    @property
    def stored_ms(self) -> int:
        """Return what the store's clock shows now."""
        return self.now_ms + self._stored_ahead_ms

    @property
    def stored_behind_ms(self) -> int:
        """Return how far the store's clock is behind the wall clock."""
        return self._wall_ahead_ms - self._stored_ahead_ms

    def wake_at(self, when_ms: int, sleeper: Sleeper) -> int:
        """Wake somebody at this time, or as soon after it as the server gets to it; return the wake-up's number."""
        self._asked += 1
        self._sleepers[self._asked] = sleeper
        heapq.heappush(self._asleep, (when_ms, self._asked))
        return self._asked

    def cancel(self, wake_up: int) -> None:
        """Forget a wake-up, by its number, and who asked for it; one that is over does no harm."""
        sleepers = self._sleepers
        if sleepers.pop(wake_up, None) is not None and len(self._asleep) > FEWEST_ENTRIES + 2 * len(sleepers):
            self._asleep = [entry for entry in self._asleep if entry[1] in sleepers]
            heapq.heapify(self._asleep)

    @property
    def next_wake_ms(self) -> int | None:
        """When somebody wants to be woken next."""
        asleep = self._asleep
        while asleep and asleep[0][1] not in self._sleepers:
            heapq.heappop(asleep)
        return asleep[0][0] if asleep else None

    def advance(self, now_ms: int, effort: Effort | None = None) -> None:
        """Set the time and wake those whose time has come, as far as the slice goes; an error ends one of them."""
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
