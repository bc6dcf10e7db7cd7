"""Change memory and record it, as one: after an error in between, nobody knows whether both say the same.

So the journal fails then. Nothing more is written, the broker stops, and a start goes by what is on disk. What may be
refused is looked at before, so that no client can cause this: only a mistake of ours can.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from amqpd.broker.ports import Journal
from amqpd.errors import AmqpException

NEVER = 1 << 62         # a batch that no commit comes to


class Atomic:
    """Guard what is inside of `with`, where nothing waits. `on_failure` is called besides."""

    __slots__ = ("_journal", "_on_failure")

    def __init__(self, journal: Journal, on_failure: Callable[[], None]) -> None:
        self._journal = journal
        self._on_failure = on_failure

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; a refusal, which comes before anything changes, is no failure."""
        if isinstance(error, Exception) and not isinstance(error, AmqpException):
            self._journal.fail(error)
            self._on_failure()
