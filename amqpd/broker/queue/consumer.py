"""A consumer, a queue's view of somebody who takes its messages, and the subscriber that it belongs to.

Owns how many of its deliveries are unanswered. Which deliveries those are, the channel knows: it gave them their tags.

The channel also needs to know from which queue a consumer takes, to answer its deliveries there. The parts of a queue
do not look at it: to them the type of `queue` is open (`OfQueue`), and everybody above a queue has a `Consumer[Queue]`.

Always true between calls: 0 ≤ in_flight, and in_flight ≤ prefetch where there is one. Only the queue changes
`in_flight`: in `Delivery.hand_out` and in `Queue.answered`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from amqpd.broker.definitions import Arguments
from amqpd.message import Message

NO_LIMIT = 1 << 62

OfQueue = TypeVar("OfQueue")


class Subscriber(Protocol[OfQueue]):
    """Where a queue puts deliveries: a session's channel in life, a list in tests.

    Each call only appends to something that `server/` empties later, so nothing calls back into the queue.
    """

    @property
    def address(self) -> tuple[int, int]:
        """The number of the connection, and of the channel on it."""

    @property
    def room(self) -> int:
        """Bytes that may be delivered before the output of the connection counts as full; 0 or less for none."""

    @property
    def credit(self) -> int:
        """Deliveries that the limit shared by all consumers of the channel still allows."""

    def deliver(self, consumer: Consumer[OfQueue], run: Sequence[Message]) -> None:
        """Send a run of messages, in order. The consumer's own prefetch allows them all."""

    def consumer_blocked(self, consumer: Consumer[OfQueue]) -> None:
        """Note that a consumer lacks credit or room: it is skipped until its queue's `unblock` is called."""

    def cancelled(self, consumer: Consumer[OfQueue]) -> None:
        """Note that the queue is deleted: this consumer gets nothing more."""

    def fail(self) -> None:
        """Note an internal error in a delivery: there is no room any more, and the connection closes soon."""


class Consumer(msgspec.Struct, Generic[OfQueue], eq=False):
    """One basic.consume. `prefetch` 0 means `unacked_limit`; without acks nothing is counted."""

    tag: str
    queue: OfQueue
    subscriber: Subscriber[OfQueue]
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

    @property
    def priority(self) -> int:
        """`x-priority`: consumers of a higher one are served first. RabbitMQ docs/consumer-priority."""
        priority: int = self.arguments.get("x-priority", 0)
        return priority
