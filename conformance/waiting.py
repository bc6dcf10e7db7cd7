"""Wait for what the broker does without an answer, by checking repeatedly."""
from __future__ import annotations

import time
from typing import Callable

PAUSE_S = 0.02


def wait_until(holds: Callable[[], bool], *, within_s: float = 10, pause_s: float = PAUSE_S) -> None:
    """Ask again and again until it holds, and fail when that takes too long."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        time.sleep(pause_s)
