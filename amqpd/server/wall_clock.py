"""Follow the wall clock while the broker runs, so that messages expire in time after a restart whatever it was set to.

While the broker runs, expiries are on a clock that nobody sets. The store keeps them on a clock of its own, which began
as the wall clock and goes on as that one does, but for the times at which it was set: how far the two are apart is
written into the store as soon as it changes. So a restart knows what time it is on the store's clock, and an expiry
that was written before the wall clock was set is as right as one written after it.

The clock that nobody sets is CLOCK_BOOTTIME where there is one: it goes on while a laptop sleeps, as the time to live
of a message does. `time.monotonic` stands still meanwhile on Linux, and sleeping would look as if the clock was set.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from amqpd.broker.clock import Clock
from amqpd.server.loop import LoopTurn
from amqpd.server.monotonic import now_ms
from amqpd.store.journal import Journal

STEP_MS = 100           # less is what two clocks read one after the other differ by, and is let go
FOLLOWED_S = 0.5
TOLD_MS = 1_000         # a step from which on the log tells of it

log = logging.getLogger("amqpd")


def read_clocks() -> tuple[int, int]:
    """Return what the clock that nobody sets shows, and the wall clock, in milliseconds."""
    return now_ms(), time.time_ns() // 1_000_000


class WallClock:
    """Keeps the broker's clock and the journal informed of the wall clock; `read` reads both clocks."""

    def __init__(
        self, clock: Clock, journal: Journal, turn: LoopTurn | None = None,
        read: Callable[[], tuple[int, int]] = read_clocks,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._turn = turn
        self._read = read
        self._noted_ms = clock.stored_behind_ms

    def follow(self) -> None:
        """Look at the wall clock; where it was set, note by how much, with the batch that fills."""
        now, wall = self._read()
        self._clock.set_wall(now, wall)
        behind = self._clock.stored_behind_ms
        step = behind - self._noted_ms
        if abs(step) >= STEP_MS:
            self._noted_ms = behind
            self._journal.clock_set(behind)
            if abs(step) >= TOLD_MS:
                log.warning("the wall clock was set by %+.1f s; messages expire as if it had not been", step / 1000)

    async def follow_forever(self) -> None:
        """Look at it all the time; after a sleep of the machine, wake those whose time came meanwhile."""
        while True:
            self.follow()
            if self._turn is not None:
                self._turn.begin()
                self._turn.wake_up.wake_if_overdue()
            await asyncio.sleep(FOLLOWED_S)
