"""Counts of what happens in one queue."""

from __future__ import annotations

from amqpd.broker.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED


class QueueCounts:
    """Totals of messages since the queue was created, or the broker started.

    A settled message has been removed for good. `dropped` counts dropped messages by the reason that dead letters have,
    whether they were dead-lettered or not; `dead_lettered` counts those whose copies are in other queues.
    """

    __slots__ = (
        "published", "delivered", "got", "redelivered", "settled", "acked", "purged", "dropped", "dead_lettered",
        "_came", "_went")

    def __init__(self) -> None:
        self.published = self.delivered = self.got = self.redelivered = 0
        self.settled = self.acked = self.purged = self.dead_lettered = 0
        self.dropped = dict.fromkeys((EXPIRED, REJECTED, MAXLEN, DELIVERY_LIMIT), 0)
        self._came = self._went = 0         # the totals at the last call of `keeps_up`

    def keeps_up(self) -> bool:
        """Return whether consumers took a quarter of what was published since the last call, and at least one."""
        came, went = self.published, self.delivered + self.got
        does = went > self._went and 4 * (went - self._went) >= came - self._came
        self._came, self._went = came, went
        return does
