"""The rejected messages of one client that are in their queue until they have been dead-lettered.

A client that is told that a later publish is on disk may rely on its earlier answers being there too. A reject with a
dead-letter exchange is on disk when the message has been moved, which may take several batches of the journal. So the
confirms of the client's later publishes wait for it.

Always true between calls: rejects are in the order of their batches.
"""

from __future__ import annotations

from collections import deque

import msgspec

MOST_BATCHES = 64       # are kept apart; rejects of later batches are counted with those of the newest that is kept


class Reject(msgspec.Struct):
    """Rejects of one batch: `left` have not been moved, `moved_by` is the batch of the last move."""

    batch: int
    left: int = 0
    moved_by: int = 0

    def moved(self, batch: int) -> None:
        """Note that one more has been moved, in this batch, or will not be moved for now."""
        self.left -= 1
        self.moved_by = max(self.moved_by, batch)

    def is_on_disk(self, committed: int) -> bool:
        """Return whether all have been moved by the batches up to this one."""
        return not self.left and self.moved_by <= committed


class Rejects:
    """The rejects of one client that are not on disk."""

    __slots__ = ("_rejects",)

    def __init__(self) -> None:
        self._rejects: deque[Reject] = deque()

    def __len__(self) -> int:
        """Return the number of batches that may have such rejects."""
        return len(self._rejects)

    @property
    def has_unmoved(self) -> bool:
        """Whether any of the messages has not been moved."""
        return any([reject.left for reject in self._rejects])

    def add(self, count: int, batch: int) -> Reject:
        """Add so many rejects, while this batch is current."""
        rejects = self._rejects
        self.last_sure(batch - 2)       # at most one batch is being written, so this one is on disk
        if not rejects or rejects[-1].batch < batch and len(rejects) < MOST_BATCHES:
            rejects.append(Reject(batch))
        rejects[-1].left += count
        return rejects[-1]

    def last_sure(self, committed: int) -> int:
        """Return the newest batch up to which all rejects are on disk; `committed` is the newest batch on disk."""
        rejects = self._rejects
        while rejects and rejects[0].is_on_disk(committed):
            rejects.popleft()
        return min(committed, rejects[0].batch - 1) if rejects else committed
