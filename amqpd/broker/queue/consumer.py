"""A consumer as a queue sees it, and the subscriber that it belongs to.

Owns the number of its unanswered deliveries. The channel knows which deliveries these are, as it gave them their tags.

The channel also needs the queue of a consumer, to answer its deliveries there. The parts of a queue do not use it: for
them the type of `queue` is open (`OfQueue`), and the code above a queue has a `Consumer[Queue]`.

Always true between calls: 0 ≤ in_flight, and in_flight ≤ prefetch where there is one, unless an operator has lowered
it. `in_flight` is raised in `Delivery.hand_out`, and lowered by the channel with each answer.
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
    """The destination of a queue's deliveries: a session's channel, or a list in tests.

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
        """Note that the queue is deleted, or an operator cancelled the consumer: it gets nothing more."""

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
    in_flight_before: int = 0       # when an operator changed its prefetch, which may have been higher
    is_blocked: bool = False        # without credit or room, so it is skipped; see broker/queue/dispatcher.py

    @property
    def credit(self) -> int:
        """How many messages it may be given now by its prefetch; the room of the connection is checked separately."""
        if self.no_ack:     # has no limit of its own, but waits while the shared limit is used up, as on RabbitMQ
            return NO_LIMIT if self.subscriber.credit > 0 else 0
        return min((self.prefetch or self.unacked_limit) - self.in_flight, self.subscriber.credit)

    @property
    def is_at_unacked_limit(self) -> bool:
        """Whether it waits because it set no prefetch and reached the limit of unacked deliveries for that case."""
        return not self.no_ack and not self.prefetch and self.in_flight >= self.unacked_limit

    @property
    def priority(self) -> int:
        """`x-priority`: consumers with a higher one are served first. RabbitMQ docs/consumer-priority."""
        priority: int = self.arguments.get("x-priority", 0)
        return priority
