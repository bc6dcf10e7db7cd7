"""Count the steps and the memory of code, so that tests have figures that are equal on every machine."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

OF_OTHERS = [tracemalloc.Filter(False, f"*{name}") for name in ("/execnet/*", "/xdist/*", "/threading.py")]


def calls_of(act: Callable[[], Any]) -> int:
    """Return how many Python functions this calls."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


def kept_by(act: Callable[[], Any]) -> int:
    """Return how many bytes of memory `act` leaves in use, without garbage.

    The result of `act` is kept while they are counted. Only memory that Python allocates counts, without that of the
    thread of pytest-xdist.
    """
    gc.collect()
    tracemalloc.start()
    try:
        kept = act()
        gc.collect()
        used = tracemalloc.take_snapshot().filter_traces(OF_OTHERS)
        del kept
        return sum(trace.size for trace in used.traces)
    finally:
        tracemalloc.stop()
