"""A rate limit for each of many names, which tells how long an event has to wait."""

from __future__ import annotations

MOST_NAMES = 10_000


class Pace:
    """Allows `at_once` events for a name, then one in each `interval_ms`; no event waits longer than `most_ms`.

    Beyond `most_names` names, the one that was used longest ago is dropped.
    """

    def __init__(self, at_once: int, interval_ms: int, most_ms: int, most_names: int = MOST_NAMES) -> None:
        self._at_once_ms = at_once * interval_ms
        self._interval_ms = interval_ms
        self._most_ms = most_ms
        self._most_names = most_names
        self._used_until: dict[str, int] = {}       # by name: when all its events will be forgotten

    def delay_ms(self, name: str, now_ms: int) -> int:
        """Count one more event for this name, and return how many ms it has to wait."""
        used_until = max(now_ms, self._used_until.pop(name, 0)) + self._interval_ms
        delay_ms = min(self._most_ms, max(0, used_until - now_ms - self._at_once_ms))
        self._used_until[name] = min(used_until, now_ms + self._at_once_ms + self._most_ms)
        if len(self._used_until) > self._most_names:
            del self._used_until[next(iter(self._used_until))]
        return delay_ms
