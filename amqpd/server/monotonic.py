"""The clock that nobody sets, and that goes on while the machine sleeps, where there is one; see wall_clock.py."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ms() -> int:
    """Return the milliseconds that it shows."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000
