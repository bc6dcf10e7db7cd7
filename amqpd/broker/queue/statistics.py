"""Count what happens in one queue."""

from __future__ import annotations


class QueueCounts:
    """Totals of messages since the queue was made, or the broker started."""

    __slots__ = ("published", "delivered", "got", "settled", "redelivered", "_came", "_went")

    def __init__(self) -> None:
        self.published = self.delivered = self.got = self.settled = self.redelivered = 0
        self._came = self._went = 0         # the totals when `keeps_up` was last asked

    def keeps_up(self) -> bool:
        """Return whether consumers took a quarter of what was published since this was last asked, and any at all."""
        came, went = self.published, self.delivered + self.got
        does = went > self._went and 4 * (went - self._went) >= came - self._came
        self._came, self._went = came, went
        return does
