"""Do something for one connection, so that an error in it is nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Guarded(Protocol):
    """A session, as far as it can fail."""

    def fail_internally(self) -> None:
        """Close it with 541 INTERNAL_ERROR, and log the error that is being handled."""


def guard(session: Guarded, act: Callable[..., object], *arguments: object) -> None:
    """Do this for a connection; an error closes that connection, and the others notice nothing."""
    try:
        act(*arguments)
    except Exception:
        session.fail_internally()
