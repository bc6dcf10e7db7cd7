"""Who keeps the journal's batch that fills: what is to be on disk as a whole takes more than one turn to record.

While it is kept, nothing is written, and all confirms wait. So each batch is kept once at most, by one at a time, and
only while there is nothing to wait for: whoever comes too late waits for the next batch.
"""

from __future__ import annotations

from collections.abc import Callable


class Hold:
    """The hold on the batch that fills; `is_on` while somebody has it."""

    __slots__ = ("is_on", "_is_used", "_calls")

    def __init__(self) -> None:
        self.is_on = False
        self._is_used = False           # of the batch that fills
        self._calls: list[Callable[[], None]] = []

    def begin(self) -> bool:
        """Keep the batch from being taken until `end`. Return False where somebody keeps it, or has kept it before."""
        if self._is_used:
            return False
        self.is_on = self._is_used = True
        return True

    def end(self) -> None:
        """Let the batch be taken."""
        self.is_on = False

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back, once, when another batch fills, or this one has come out empty."""
        self._calls.append(go_on)

    def taken(self) -> None:
        """Note that another batch fills, or that there was nothing to be written."""
        self._is_used = False
        calls, self._calls = self._calls, []
        for go_on in calls:
            go_on()


class NoHold(Hold):
    """The hold of those who write nothing: everybody has it who asks."""

    def begin(self) -> bool:
        """See `Hold`."""
        return True
