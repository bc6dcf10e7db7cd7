"""Name a few queues of many in a log line."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_NAMED = 3


def listed(queues: Sequence[str]) -> str:
    """Join descriptions of queues to a short text: the first three, and the number of the others."""
    named = [*queues[:_MOST_NAMED]]
    if len(queues) > _MOST_NAMED:
        named.append(f"{len(queues) - _MOST_NAMED} more")
    *others, last = named
    return f"{', '.join(others)} and {last}" if others else last
