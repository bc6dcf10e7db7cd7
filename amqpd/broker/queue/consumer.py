"""A consumer: a queue's view of somebody who takes its messages.

Owns how many of its deliveries are unanswered. Which deliveries those are, the channel knows: it gave them
their tags.

Always true between calls: 0 ≤ in_flight, and in_flight ≤ prefetch where there is one. Only the queue changes
`in_flight`: in `Delivery.hand_out` and in `Queue.answered`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from amqpd.broker.definitions import Arguments

if TYPE_CHECKING:
    from amqpd.broker.ports import Subscriber
    from amqpd.broker.queue.queue import Queue

NO_LIMIT = 1 << 62


class Consumer(msgspec.Struct, eq=False):
    """One basic.consume. `prefetch` 0 means `unacked_limit`; without acks nothing is counted."""

    tag: str
    queue: Queue
    subscriber: Subscriber
    no_ack: bool = False
    exclusive: bool = False
    prefetch: int = 0
    unacked_limit: int = 50_000
    arguments: Arguments = {}
    in_flight: int = 0
    is_blocked: bool = False        # without credit or room, and therefore not asked; see broker/queue/dispatcher.py

    @property
    def credit(self) -> int:
        """How many messages it may be given now, as far as acks go; the connection's room is asked apart."""
        if self.no_ack:     # counts for no limit, but waits while the one that is shared is used up, as on RabbitMQ
            return NO_LIMIT if self.subscriber.credit > 0 else 0
        return min((self.prefetch or self.unacked_limit) - self.in_flight, self.subscriber.credit)

    @property
    def is_at_unacked_limit(self) -> bool:
        """Return whether it waits because it has named no prefetch and left as much unanswered as anybody may."""
        return not self.no_ack and not self.prefetch and self.in_flight >= self.unacked_limit

    def timeout_ms(self, default_ms: int | None) -> int | None:
        """How long a delivery may stay unacked: its own argument, else the queue's rule, else the broker's setting."""
        own: int | None = self.arguments.get("x-consumer-timeout")
        if own is not None:
            return own
        rule = self.queue.rules.consumer_timeout_ms
        return default_ms if rule is None else rule

    @property
    def priority(self) -> int:
        """`x-priority`: consumers of a higher one are served first. RabbitMQ docs/consumer-priority."""
        priority: int = self.arguments.get("x-priority", 0)
        return priority
