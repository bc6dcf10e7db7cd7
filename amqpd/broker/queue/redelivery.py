"""The earlier deliveries of the messages of a queue: which may have been delivered, and how often a delivery failed.

After a crash only a bound is known: every message up to it may have been delivered. Messages that were requeued since
are recorded by their numbers.

Always true between calls: every number in `numbers` and `deliveries` belongs to a message that is ready, unacked or
waits to be dead-lettered.

RabbitMQ docs/consumers (delivery acknowledgements), docs/quorum-queues (poison message handling).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from amqpd.broker.queue.segment import number_of
from amqpd.broker.statistics import UnackedDelivery
from amqpd.message import Message


class Redelivery:
    """The earlier deliveries of the messages of one queue, by message number."""

    __slots__ = ("numbers", "bound", "deliveries")

    def __init__(self) -> None:
        self.numbers: set[int] = set()      # of messages that have been delivered before
        self.bound = 0                      # up to this number, any message may have been delivered before a restart
        self.deliveries: dict[int, int] = {}        # number of failed deliveries, if any

    def restore(self, numbers: set[int], bound: int, deliveries: Mapping[int, int]) -> None:
        """Restore what the store kept."""
        self.numbers |= numbers
        self.bound = bound
        self.deliveries |= deliveries

    def is_redelivered(self, message: Message | UnackedDelivery) -> bool:
        """Return whether the message has been delivered before, or may have been."""
        return message.number <= self.bound or message.number in self.numbers

    def may_have_any(self, run: Sequence[Message]) -> bool:
        """Return whether any of these may have been delivered before."""
        return bool(self.numbers) or bool(self.bound) and min(map(number_of, run)) <= self.bound

    def mark(self, run: Sequence[Message]) -> None:
        """Mark these messages as delivered before."""
        self.numbers.update([message.number for message in run])

    def count_failures(self, run: Sequence[Message]) -> None:
        """Count one more failed delivery of each of these, and mark them."""
        deliveries = self.deliveries
        for message in run:
            deliveries[message.number] = deliveries.get(message.number, 0) + 1
        self.mark(run)

    def split(self, run: Sequence[Message], limit: int) -> tuple[Sequence[Message], Sequence[Message]]:
        """Return the messages that have failed at most `limit` times, and those that failed more often."""
        deliveries = self.deliveries
        beyond = [message for message in run if deliveries[message.number] > limit]
        return [message for message in run if deliveries[message.number] <= limit] if beyond else run, beyond

    def forget(self, numbers: Collection[int]) -> None:
        """Forget messages that have left the queue."""
        self.numbers.difference_update(numbers)
        if self.deliveries:
            for number in numbers:
                self.deliveries.pop(number, None)
