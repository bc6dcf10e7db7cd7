"""Prefetch: how many deliveries the consumers of a channel may leave unanswered.

There are two limits: one for each new consumer, and one that all consumers of the channel share (`global`). Consumers
that wait for the shared limit are served in turn, a share for each queue.

Spec: basic.qos; RabbitMQ docs/consumer-prefetch.
"""

from __future__ import annotations

from amqpd.broker.queue.consumer import NO_LIMIT, Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.session.blocked_consumers import BlockedConsumers


class Prefetch:
    """The limits of one channel; `in_flight` counts unanswered deliveries to consumers, without basic.get."""

    __slots__ = ("of_consumers", "shared", "in_flight", "_limit", "_blocked")

    def __init__(self) -> None:
        self.of_consumers = 0       # for consumers that start from now on; 0 is no limit
        self.shared = 0
        self.in_flight = 0
        self._limit = NO_LIMIT      # the limit in force; less than `shared` while a queue has its turn
        self._blocked = BlockedConsumers()      # empty unless the limit is shared

    @property
    def credit(self) -> int:
        """How many more deliveries the shared limit allows."""
        return self._limit - self.in_flight

    def share(self, limit: int) -> None:
        """Let all consumers share this limit from now on; 0 ends that."""
        self.shared = limit
        self.hand_out()

    def block(self, consumer: Consumer[Queue]) -> None:
        """Keep a consumer until there is credit."""
        self._blocked.add(consumer)

    def forget(self, consumer: Consumer[Queue]) -> None:
        """Forget a consumer that has been cancelled."""
        self._blocked.remove(consumer)

    def answered(self, consumer: Consumer[Queue], count: int) -> None:
        """Count so many deliveries as answered; without a tag they were made by basic.get, and do not count."""
        if consumer.tag:
            consumer.in_flight -= count
            if consumer.is_blocked:
                consumer.queue.unblock(consumer)
            self.in_flight -= count

    def hand_out(self) -> None:
        """Deliver what the shared limit allows: each waiting queue has its share."""
        limit = self.shared or NO_LIMIT

        def begin_turn(share: int) -> None:
            self._limit = min(limit, self.in_flight + share)

        self._blocked.serve(lambda: limit - self.in_flight, begin_turn)
        self._limit = limit

    def end(self) -> None:
        """Stop limiting: the channel is ending."""
        self.shared, self._limit = 0, NO_LIMIT
