"""What a worker has counted since its last report, and what reports are added up to."""

from __future__ import annotations

import msgspec

from amqpd.perf.histogram import Histogram


class Counts(msgspec.Struct):
    """Numbers of messages and operations, and their times. `…_ns` are moments of the monotonic clock, 0 for never.

    `refused` publishes were answered with basic.nack, `returned` ones had no route. `operations` are those of churn.
    """

    published: int = 0
    confirmed: int = 0
    refused: int = 0
    returned: int = 0
    delivered: int = 0
    acked: int = 0
    operations: int = 0
    latency: Histogram = msgspec.field(default_factory=Histogram)
    confirm_latency: Histogram = msgspec.field(default_factory=Histogram)
    last_published_ns: int = 0
    last_delivered_ns: int = 0

    def add(self, other: Counts) -> None:
        """Add what another one has counted."""
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency.merge(other.latency)
        self.confirm_latency.merge(other.confirm_latency)
        self.last_published_ns = max(self.last_published_ns, other.last_published_ns)
        self.last_delivered_ns = max(self.last_delivered_ns, other.last_delivered_ns)


NUMBERS = ("published", "confirmed", "refused", "returned", "delivered", "acked", "operations")
