"""Choose which consumer of a queue takes the next message.

Owns the consumers of one queue, the single active one, and the order of service: round-robin among those of the
highest priority that has a consumer with credit and room. Messages are the queue's matter.

Consumers that may take a message stand in rings, one for each priority. Credit and room are looked at when it is a
consumer's turn; without them it is blocked: it leaves its ring, and its subscriber hears of it and calls `unblock`
once there may be some again. It then comes back at the end of the ring. So a dispatch costs what it hands out,
however many consumers wait, as on RabbitMQ (rabbit_queue_consumers).

Always true between calls:
- a consumer is in the ring of its priority, or it is blocked; with a single active consumer all are in the rings, and
  the active one may be blocked;
- a blocked consumer lacks credit or room, or its subscriber is about to unblock it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from itertools import islice
from typing import Generic

from amqpd.broker.queue.consumer import Consumer, OfQueue
from amqpd.broker.queue.segment import DELIVERY_OVERHEAD

ASKED = 250         # consumers that are asked in vain, or served one message each, in one go
DEALT_TO = 1_000    # consumers that are dealt more than one message each in one go

Ring = OrderedDict[Consumer[OfQueue], None]


class Dispatcher(Generic[OfQueue]):
    """The consumers of one queue. `is_single_active`: only one of them is served, until it leaves."""

    __slots__ = ("consumers", "active", "exclusive", "_is_single_active", "_rings", "_priorities", "_first")

    def __init__(self, *, is_single_active: bool) -> None:
        self.consumers: dict[Consumer[OfQueue], None] = {}       # in the order in which they came
        self.active: Consumer[OfQueue] | None = None             # with `is_single_active`
        self.exclusive: Consumer[OfQueue] | None = None
        self._is_single_active = is_single_active
        self._rings: dict[int, Ring[OfQueue]] = {}      # by priority; none is empty
        self._priorities: list[int] = []                # of the rings, rising
        self._first: Ring[OfQueue] | None = None        # the ring of the highest priority

    # Who is there

    def add(self, consumer: Consumer[OfQueue]) -> None:
        """Add a consumer at the end of its ring."""
        self.consumers[consumer] = None
        if consumer.exclusive:
            self.exclusive = consumer
        self._enter(consumer)
        if self._is_single_active and self.active is None:
            self.active = consumer

    def remove(self, consumer: Consumer[OfQueue]) -> None:
        """Remove a consumer; where it was the single active one, the first of the highest priority follows it."""
        del self.consumers[consumer]
        if consumer is self.exclusive:
            self.exclusive = None
        if self._is_single_active or not consumer.is_blocked:
            self._leave(consumer)
        if consumer is self.active:
            self.active = next(iter(self._first)) if self._first is not None else None

    def _enter(self, consumer: Consumer[OfQueue]) -> None:
        ring = self._rings.get(consumer.priority)
        if ring is None:
            ring = self._rings[consumer.priority] = OrderedDict()
            insort(self._priorities, consumer.priority)
            self._first = self._rings[self._priorities[-1]]
        ring[consumer] = None

    def _leave(self, consumer: Consumer[OfQueue]) -> None:
        priority = consumer.priority
        ring = self._rings[priority]
        del ring[consumer]
        if not ring:
            del self._rings[priority]
            del self._priorities[bisect_left(self._priorities, priority)]
            self._first = self._rings[self._priorities[-1]] if self._priorities else None

    # Whose turn it is

    def next_taker(self) -> Consumer[OfQueue] | None:
        """Return the consumer whose turn it is, if any can take a message; block those before it that cannot.

        Where very many cannot, the others are left for another time: see `has_unasked`.
        """
        if self._is_single_active:
            active = self.active
            if active is None or active.is_blocked or not self._can_take(active):
                return None
            return active
        for _ in range(ASKED):
            if self._first is None:
                return None
            consumer = next(iter(self._first))
            if self._can_take(consumer):
                return consumer
        return None

    @property
    def has_unasked(self) -> bool:
        """Return whether `next_taker`, which has found nobody, has not asked everybody."""
        return self._first is not None and not self._is_single_active

    def _can_take(self, consumer: Consumer[OfQueue]) -> bool:
        """Return whether this consumer, which is not blocked, has credit and room; block it if not."""
        if consumer.credit > 0 and consumer.subscriber.room > 0:
            return True
        consumer.is_blocked = True
        if not self._is_single_active:
            self._leave(consumer)
        consumer.subscriber.consumer_blocked(consumer)
        return False

    def is_sole(self, taker: Consumer[OfQueue]) -> bool:
        """Return whether the consumer that `next_taker` returned takes all that comes, as there is no other."""
        return self._is_single_active or self._first is not None and len(self._first) == 1

    def deal(self, count: int, octets: int) -> tuple[list[Consumer[OfQueue]], int]:
        """Return who takes part in dealing out so many messages, next one first, and in how many rounds.

        Where each has a subscriber of its own, as many rounds as all of them can take are dealt at once: nobody can
        see the difference, and each is given one run. In a single round, what one takes may be the last that the
        next one could have had: `may_still_take` says so. Of a crowd, only those who are next take part.
        """
        assert self._first is not None
        if count < 2 * len(self._first):
            return [next(iter(self._first))], 1
        if len(self._first) > DEALT_TO:
            return [*islice(self._first, ASKED)], 1
        takers = [consumer for consumer in list(self._first) if self._can_take(consumer)]
        if len({id(consumer.subscriber) for consumer in takers}) == len(takers) and (
                octets + DELIVERY_OVERHEAD * count <= min([consumer.subscriber.room for consumer in takers])):
            return takers, max(1, min(count // len(takers), min([consumer.credit for consumer in takers])))
        return takers[:ASKED], 1

    def may_still_take(self, consumer: Consumer[OfQueue]) -> bool:
        """Return whether a consumer of a deal has credit and room yet; block it if not."""
        return not consumer.is_blocked and self._can_take(consumer)

    def served(self, consumer: Consumer[OfQueue]) -> None:
        """Put a consumer that took its share at the end of its ring."""
        assert self._first is not None
        self._first.move_to_end(consumer)

    def unblock(self, consumer: Consumer[OfQueue]) -> None:
        """Let a consumer that was blocked have its turn again: there may be credit and room for it."""
        consumer.is_blocked = False
        if not self._is_single_active and consumer in self.consumers:
            self._enter(consumer)

    def check(self) -> None:
        """Assert what must hold between calls."""
        in_rings = [consumer for ring in self._rings.values() for consumer in ring]
        expected = [one for one in self.consumers if self._is_single_active or not one.is_blocked]
        assert {*in_rings} == {*expected} and len(in_rings) == len(expected), "a consumer is lost"
        assert self._priorities == sorted(self._rings)
        assert all(self._rings.values()), "an empty ring"
        assert self._first is (self._rings[self._priorities[-1]] if self._rings else None)
        assert all(one.priority == priority for priority, ring in self._rings.items() for one in ring)
        assert (self.active is not None) == (self._is_single_active and bool(self.consumers))
        for consumer in self.consumers:
            assert consumer.in_flight >= 0
            assert not consumer.prefetch or consumer.in_flight <= consumer.prefetch, "prefetch exceeded"

    @property
    def has_idle(self) -> bool:
        """Return whether any consumer that may be served has credit and room. Asks all, for checks alone."""
        served = [self.active] if self.active is not None else self.consumers
        return any(consumer.credit > 0 and consumer.subscriber.room > 0 for consumer in served)
