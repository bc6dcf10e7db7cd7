"""Counts of what happens to messages, by exchange, channel, vhost and broker; queue/statistics.py has those of queues.

Exchanges, channels and queues count where it happens, once a run. A vhost and the broker do not count themselves: their
totals are told of what was counted since the last time, when statistics are sampled, and when a channel, a queue or a
connection ends. So a run costs no more for them, and a total never falls.

RabbitMQ docs/management, docs/prometheus.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

# What channels count of publishes, and queues of deliveries, in the order of their values, under RabbitMQ's names.
# `received_confirm` are publishes on channels with confirms, and `routed` counts each queue that a publish reached.
PUBLISHED = ("publish", "confirm", "return_unroutable", "drop_unroutable", "received_confirm", "routed")
DELIVERED = ("deliver", "deliver_no_ack", "get", "get_no_ack", "get_empty", "redeliver", "ack")
Values = tuple[int, ...]


class Traffic(Protocol):
    """The bytes of one connection."""

    received_bytes: int
    sent_bytes: int

    def tell(self, totals: Totals) -> tuple[int, int]:
        """Add to the totals of the vhost the bytes since the last call; return all bytes received and sent."""


class ExchangeCounts:
    """Publishes of clients to one exchange. `spread` is the number of copies in queues beyond one for each publish.

    So it is negative if most publishes reach no queue, and most runs have to count one number only.
    """

    __slots__ = ("published", "spread")

    def __init__(self) -> None:
        self.published = self.spread = 0

    def values(self) -> Values:
        """Return the number of publishes, and of their copies in queues."""
        return self.published, self.published + self.spread


class DeliveryCounts:
    """Deliveries of one channel, or of one queue.

    Messages that need no ack are in `delivered_no_ack` and `got_no_ack`, and not in `delivered` and `got`.
    """

    __slots__ = ("delivered", "delivered_no_ack", "got", "got_no_ack", "got_empty", "redelivered", "acked")

    def __init__(self) -> None:
        self.delivered = self.delivered_no_ack = self.redelivered = self.acked = 0
        self.got = self.got_no_ack = self.got_empty = 0

    def delivered_values(self) -> Values:
        """Return the counts of deliveries, in the order of `DELIVERED`."""
        return (
            self.delivered, self.delivered_no_ack, self.got, self.got_no_ack, self.got_empty, self.redelivered,
            self.acked)


class ChannelCounts(DeliveryCounts):
    """What one channel published and was delivered; `spread` as for an exchange.

    The channel sets some before they are read: `confirmed`, `confirmable` (publishes after confirm.select), and
    `delivered`.
    """

    __slots__ = ("published", "spread", "returned", "dropped", "confirmed", "confirmable", "told")

    def __init__(self) -> None:
        super().__init__()
        self.published = self.spread = self.returned = self.dropped = self.confirmed = self.confirmable = 0
        self.told: Values = (0,) * len(PUBLISHED)       # what the totals know

    def add_published(self, exchange: ExchangeCounts, count: int, queues: int, *, mandatory: bool) -> None:
        """Count publishes to an exchange that reached so many queues each, also for the exchange."""
        exchange.published += count
        self.published += count
        if queues:
            exchange.spread += count * (queues - 1)
            self.spread += count * (queues - 1)
        else:
            self.add_unroutable(exchange, count, mandatory=mandatory)

    def add_unroutable(self, exchange: ExchangeCounts, count: int, *, mandatory: bool) -> None:
        """Count publishes that reached no queue, and are counted as publishes elsewhere."""
        exchange.spread -= count
        self.spread -= count
        if mandatory:
            self.returned += count
        else:
            self.dropped += count

    def add_replies(self, exchange: ExchangeCounts, count: int) -> None:
        """Count direct replies, which reach no queue and are counted as publishes elsewhere."""
        exchange.spread -= count
        self.spread -= count

    def published_values(self) -> Values:
        """Return the counts of publishes, in the order of `PUBLISHED`."""
        published = self.published
        return published, self.confirmed, self.returned, self.dropped, self.confirmable, published + self.spread


class Churn:
    """How many connections, channels and queues came and went since the broker started."""

    __slots__ = (
        "connection_created", "connection_closed", "channel_created", "channel_closed", "queue_declared",
        "queue_created", "queue_deleted")

    def __init__(self) -> None:
        self.connection_created = self.connection_closed = self.channel_created = self.channel_closed = 0
        self.queue_declared = self.queue_created = self.queue_deleted = 0

    def values(self) -> Values:
        """Return the counts, in the order of the slots."""
        return (
            self.connection_created, self.connection_closed, self.channel_created, self.channel_closed,
            self.queue_declared, self.queue_created, self.queue_deleted)


class Totals:
    """The totals of a vhost, or of the broker: what is added to a vhost is added to its `parent` too.

    `delivered` is by queue type; `dropped`, dead letters and those that would be if there were a dead-letter exchange,
    by queue type, reason and RabbitMQ's name of the strategy. With `at_least_once` the reason may also be "confirmed",
    for those whose copies are in other queues.
    """

    def __init__(self, parent: Totals | None = None) -> None:
        self.published: list[int] = [0] * len(PUBLISHED)
        self.delivered: dict[str, list[int]] = {}
        self.dropped: dict[tuple[str, str, str], int] = {}
        self.received_bytes = self.sent_bytes = 0
        self._parent = parent

    def tell_published(self, counts: ChannelCounts) -> None:
        """Add what a channel has counted since the last call for it."""
        now, told = counts.published_values(), counts.told
        if now == told:
            return
        counts.told = now
        change = [new - old for new, old in zip(now, told)]
        for totals in self._with_parents():
            _add(totals.published, change)

    def add_delivered(self, queue_type: str, change: list[int]) -> None:
        """Add what queues of this type have counted, in the order of `DELIVERED`."""
        for totals in self._with_parents():
            _add(totals.delivered.setdefault(queue_type, [0] * len(DELIVERED)), change)

    def add_dropped(self, queue_type: str, reason: str, strategy: str, count: int) -> None:
        """Add messages that a queue dropped for this reason."""
        key = queue_type, reason, strategy
        for totals in self._with_parents():
            totals.dropped[key] = totals.dropped.get(key, 0) + count

    def add_bytes(self, received: int, sent: int) -> None:
        """Add bytes that a connection has received and sent."""
        for totals in self._with_parents():
            totals.received_bytes += received
            totals.sent_bytes += sent

    def _with_parents(self) -> Iterator[Totals]:
        totals: Totals | None = self
        while totals is not None:
            yield totals
            totals = totals._parent

    @property
    def all_delivered(self) -> list[int]:
        """The deliveries of queues of all types, in the order of `DELIVERED`."""
        found = [0] * len(DELIVERED)
        for counts in self.delivered.values():
            _add(found, counts)
        return found


def _add(to: list[int], change: list[int]) -> None:
    for place, count in enumerate(change):
        to[place] += count
