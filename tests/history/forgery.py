"""Forged histories: functions that make a history in which exactly one line is broken."""

from __future__ import annotations

from collections.abc import Callable

from tests.history.events import Death
from tests.history.story import Story

Forgery = Callable[[Story], None]
FORGERIES: list[tuple[int, Forgery]] = []
REJECTED, EXPIRED = Death("jobs", "rejected", 1), Death("jobs", "expired", 1)


def breaks(line: int) -> Callable[[Forgery], Forgery]:
    """Make a forgery known by the line that it breaks."""
    def known(forgery: Forgery) -> Forgery:
        FORGERIES.append((line, forgery))
        return forgery

    return known
