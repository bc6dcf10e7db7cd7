"""Follow the wall clock while the broker runs, so that messages expire in time after a restart even if it was set.

While the broker runs, expiries use the monotonic clock. The store uses a clock of its own. It began as the wall clock
and runs as the wall clock does, but does not follow when that is set: the difference of the two is written into the
store as soon as it changes. So a restart knows the time on the store's clock, and an expiry that was written before the
wall clock was set is as right as a later one.

The monotonic clock is CLOCK_BOOTTIME where it exists: it runs while a laptop sleeps, as the time to live of a message
does. On Linux, `time.monotonic` stops meanwhile, and sleep would look like a change of the wall clock.
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

STEP_MS = 100           # smaller differences come from reading one clock after the other
FOLLOWED_S = 0.5
TOLD_MS = 1_000         # a step from which on it is logged

log = logging.getLogger("amqpd")


def read_clocks() -> tuple[int, int]:
    """Return the monotonic clock and the wall clock, in milliseconds."""
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
        """Read the wall clock; if it was set, record by how much, with the batch that is being collected."""
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
        """Follow the wall clock all the time; after a sleep of the machine, do what became due meanwhile."""
        while True:
            self.follow()
            if self._turn is not None:
                self._turn.begin()
                self._turn.wake_up.wake_if_overdue()
            await asyncio.sleep(FOLLOWED_S)
