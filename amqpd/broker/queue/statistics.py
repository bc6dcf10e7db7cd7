"""Counts of what happens in one queue."""

from __future__ import annotations

from amqpd.broker.counts import DELIVERED, DeliveryCounts, Totals, Values
from amqpd.broker.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED


class QueueCounts(DeliveryCounts):
    """Totals of messages since the queue was created, or the broker started.

    A settled message has been removed for good. `dropped` counts dropped messages by the reason that dead letters have,
    whether they were dead-lettered or not; `dead_lettered` counts those whose copies are in other queues.
    """

    __slots__ = ("published", "settled", "purged", "dropped", "dead_lettered", "_told", "_came", "_went")

    def __init__(self) -> None:
        super().__init__()
        self.published = self.settled = self.purged = self.dead_lettered = 0
        self.dropped = dict.fromkeys((EXPIRED, REJECTED, MAXLEN, DELIVERY_LIMIT), 0)
        self._told: Values = (0,) * len(DELIVERED)      # what the totals know
        self._came = self._went = 0         # the totals at the last call of `keeps_up`

    @property
    def taken(self) -> int:
        """The number of messages that were delivered, or got by basic.get."""
        return self.delivered + self.delivered_no_ack + self.got + self.got_no_ack

    def tell(self, totals: Totals, queue_type: str) -> Values:
        """Add to the totals what was counted since the last call, and return `delivered_values`."""
        now, told = self.delivered_values(), self._told
        if now != told:
            self._told = now
            totals.add_delivered(queue_type, [new - old for new, old in zip(now, told)])
        return now

    def keeps_up(self) -> bool:
        """Return whether consumers took a quarter of what was published since the last call, and at least one."""
        came, went = self.published, self.taken
        does = went > self._went and 4 * (went - self._went) >= came - self._came
        self._came, self._went = came, went
        return does
