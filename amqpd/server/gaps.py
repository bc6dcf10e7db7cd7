"""Gaps in time: the process did not run, or the event loop was busy with one turn."""

from __future__ import annotations


class Gaps:
    """Detects gaps between calls of `look`, which come every `interval_ms`, and may be late by one interval."""

    def __init__(self, interval_ms: int, now_ms: int) -> None:
        self._interval_ms = interval_ms
        self._looked_ms = now_ms

    def is_late(self, now_ms: int) -> bool:
        """Return whether the next call of `look` is overdue, so that what is known may be out of date."""
        return self._late_ms(now_ms) > 0

    def look(self, now_ms: int) -> int:
        """Return by how many ms this call is late; 0 if it is not."""
        late_ms = self._late_ms(now_ms)
        self._looked_ms = now_ms
        return max(0, late_ms)

    def _late_ms(self, now_ms: int) -> int:
        return now_ms - self._looked_ms - 2 * self._interval_ms
