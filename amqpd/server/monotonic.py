"""The monotonic clock, which cannot be set; it also runs while the machine sleeps, where the system can do that."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ms() -> int:
    """Return the clock's milliseconds."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000
