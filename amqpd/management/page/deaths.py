"""Deaths of a message in words, from its header `x-death`, which anyone may have written: nothing of it is trusted.

RabbitMQ docs/dlx: effects of dead-lettering on messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MOST_DEATHS = 50
CAUSES = {
    "rejected": "a consumer rejected it", "expired": "it expired", "maxlen": "the queue was full",
    "delivery_limit": "it was given back too often"}


class Death(NamedTuple):
    """One entry of `x-death`: `words` says why. `time_ms` is 0 if it is not known."""

    reason: str
    words: str
    queue: str
    times: int
    exchange: str
    routing_keys: str
    time_ms: int


def deaths_of(properties: Mapping[str, Any]) -> list[Death]:
    """Return the deaths of a message, the last one first."""
    headers = properties.get("headers")
    found = headers.get("x-death") if isinstance(headers, Mapping) else None
    entries = found if isinstance(found, list) else []
    return [_death(one) for one in entries[:MOST_DEATHS] if isinstance(one, Mapping)]


def _death(entry: Mapping[str, Any]) -> Death:
    reason, keys, count, time = (entry.get(name) for name in ("reason", "routing-keys", "count", "time"))
    shown = ", ".join(str(key) for key in keys[:MOST_DEATHS]) if isinstance(keys, list) else ""
    return Death(
        str(reason or ""), CAUSES.get(str(reason), str(reason or "not known")), str(entry.get("queue", "")),
        count if isinstance(count, int) else 1, str(entry.get("exchange", "")), shown,
        time * 1_000 if isinstance(time, int) else 0)
