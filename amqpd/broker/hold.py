"""The hold on the journal's current batch, for a job that records in several turns what must be on disk as a whole.

During a hold nothing is written, and all confirms wait. So each batch is held at most once, by one job at a time, and
only while the job can go on: a job that comes too late waits for the next batch.
"""

from __future__ import annotations

from collections.abc import Callable


class Hold:
    """The hold on the current batch; `is_on` while a job has it."""

    __slots__ = ("is_on", "_is_used", "_calls")

    def __init__(self) -> None:
        self.is_on = False
        self._is_used = False           # for the current batch
        self._calls: list[Callable[[], None]] = []

    def begin(self) -> bool:
        """Keep the batch from being taken until `end`. Return False if it is held, or has been held before."""
        if self._is_used:
            return False
        self.is_on = self._is_used = True
        return True

    def end(self) -> None:
        """Release the batch."""
        self.is_on = False

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back, once, when another batch is current, or this one has turned out empty."""
        self._calls.append(go_on)

    def taken(self) -> None:
        """Record that another batch is current, or that there was nothing to write."""
        self._is_used = False
        calls, self._calls = self._calls, []
        for go_on in calls:
            go_on()


class NoHold(Hold):
    """The hold where nothing is written: it is always granted."""

    def begin(self) -> bool:
        """See `Hold`."""
        return True
