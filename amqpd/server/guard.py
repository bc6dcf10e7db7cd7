"""Isolate errors: an error in the work for one connection does not affect the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Guarded(Protocol):
    """The part of a session that `guard` needs."""

    def fail_internally(self) -> None:
        """Close the connection with 541 INTERNAL_ERROR, and log the current exception."""


def guard(session: Guarded, act: Callable[..., object], *arguments: object) -> None:
    """Call `act` for a connection; an error closes that connection only."""
    try:
        act(*arguments)
    except Exception:
        session.fail_internally()
