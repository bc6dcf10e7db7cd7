"""How often something may happen for each of many names, and how long what comes too often has to wait."""

from __future__ import annotations

MOST_NAMES = 10_000


class Pace:
    """So many at once, then one per interval; nothing waits longer than `most_ms`. Times are in ms.

    Of more than `most_names` names the one that was used longest ago is forgotten.
    """

    def __init__(self, at_once: int, interval_ms: int, most_ms: int, most_names: int = MOST_NAMES) -> None:
        self._at_once_ms = at_once * interval_ms
        self._interval_ms = interval_ms
        self._most_ms = most_ms
        self._most_names = most_names
        self._used_until: dict[str, int] = {}       # by name: when all that happened will have been forgotten

    def delay_ms(self, name: str, now_ms: int) -> int:
        """Count one more for this name, and return how long it has to wait."""
        used_until = max(now_ms, self._used_until.pop(name, 0)) + self._interval_ms
        delay_ms = min(self._most_ms, max(0, used_until - now_ms - self._at_once_ms))
        self._used_until[name] = min(used_until, now_ms + self._at_once_ms + self._most_ms)
        if len(self._used_until) > self._most_names:
            del self._used_until[next(iter(self._used_until))]
        return delay_ms
