"""A log for events that clients can cause without limit: each text is logged rarely, with a count of the others."""

from __future__ import annotations

import logging
import time

INTERVAL_S = 10.0


class SparingLog:
    """Logs each text at most once in `interval_s`, whatever its arguments."""

    def __init__(self, log: logging.Logger, interval_s: float = INTERVAL_S) -> None:
        self._log = log
        self._interval_s = interval_s
        self._told: dict[str, tuple[float, int]] = {}       # by text: when it was logged, times left out since

    def warning(self, text: str, *arguments: object) -> None:
        """Log a warning, or only count it."""
        now = time.monotonic()
        told_at, left_out = self._told.get(text, (now - self._interval_s, 0))
        if now - told_at < self._interval_s:
            self._told[text] = told_at, left_out + 1
            return
        self._told[text] = now, 0
        if left_out:
            text, arguments = text + " (and %d times more in the meantime)", (*arguments, left_out)
        self._log.warning(text, *arguments)
