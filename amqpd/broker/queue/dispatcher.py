"""Choose which consumer of a queue takes the next message.

Owns the consumers of one queue, the single active consumer, and the order of service: round-robin among the consumers
of the highest priority that has one with credit and room. The queue has the messages.

Consumers that may take a message stand in rings, one for each priority. Credit and room are checked when it is a
consumer's turn. Without them the consumer is blocked: it leaves its ring, and its subscriber is told and calls
`unblock` once there may be credit and room again. Then it joins the end of the ring. So a dispatch costs as much as it
delivers, however many consumers wait, as on RabbitMQ (rabbit_queue_consumers).

Always true between calls:
- a consumer is in the ring of its priority, or it is blocked; with a single active consumer all are in the rings, and
  the active one may be blocked;
- a blocked consumer lacks credit or room, or its subscriber is about to unblock it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Generic

from amqpd.broker.queue.consumer import Consumer, OfQueue
from amqpd.broker.queue.segment import DELIVERY_OVERHEAD
from amqpd.broker.step_job import Act

CANCEL_STEPS = 8    # the cost of telling a consumer that its queue is deleted; see broker/effort.py
ASKED = 250         # consumers that are checked without success, or served one message each, at once
DEALT_TO = 1_000    # consumers that are given more than one message each at once

Ring = OrderedDict[Consumer[OfQueue], None]


class Dispatcher(Generic[OfQueue]):
    """The consumers of one queue. With `is_single_active` only one of them is served, until it is removed."""

    __slots__ = ("consumers", "active", "exclusive", "_is_single_active", "_rings", "_priorities", "_first")

    def __init__(self, *, is_single_active: bool) -> None:
        self.consumers: dict[Consumer[OfQueue], None] = {}       # in the order in which they were added
        self.active: Consumer[OfQueue] | None = None             # with `is_single_active`
        self.exclusive: Consumer[OfQueue] | None = None
        self._is_single_active = is_single_active
        self._rings: dict[int, Ring[OfQueue]] = {}      # by priority; none is empty
        self._priorities: list[int] = []                # of the rings, rising
        self._first: Ring[OfQueue] | None = None        # the ring of the highest priority

    # The consumers

    def add(self, consumer: Consumer[OfQueue]) -> None:
        """Add a consumer at the end of its ring."""
        self.consumers[consumer] = None
        if consumer.exclusive:
            self.exclusive = consumer
        self._enter(consumer)
        if self._is_single_active and self.active is None:
            self.active = consumer

    def remove(self, consumer: Consumer[OfQueue]) -> None:
        """Remove a consumer; if it was the single active one, the first one of the highest priority becomes active."""
        del self.consumers[consumer]
        if consumer is self.exclusive:
            self.exclusive = None
        if self._is_single_active or not consumer.is_blocked:
            self._leave(consumer)
        if consumer is self.active:
            self.active = next(iter(self._first)) if self._first is not None else None

    def end(self) -> Iterator[Act]:
        """Return the acts that remove all consumers, and tell them that the queue is gone."""
        return ((CANCEL_STEPS, partial(self._cancel, consumer)) for consumer in [*self.consumers])

    def _cancel(self, consumer: Consumer[OfQueue]) -> None:
        if consumer in self.consumers:      # otherwise it was removed meanwhile
            self.remove(consumer)
            consumer.subscriber.cancelled(consumer)

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

    # The order of service

    def next_taker(self) -> Consumer[OfQueue] | None:
        """Return the next consumer that can take a message, if there is one; block those before it that cannot.

        If very many cannot, the others are left for another call: see `has_unasked`.
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
        """Return whether `next_taker` has found no consumer but has not checked all of them."""
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
        """Return whether the consumer that `next_taker` returned takes all messages, as there is no other."""
        return self._is_single_active or self._first is not None and len(self._first) == 1

    def deal(self, count: int, ready_bytes: int) -> tuple[list[Consumer[OfQueue]], int]:
        """Return the consumers that share so many messages, next one first, and the number of rounds.

        If each has a subscriber of its own, as many rounds as all of them can take are delivered at once: no client can
        see the difference, and each is given one run. In a single round, a delivery to one consumer may use up what the
        next one could have had: `may_still_take` checks that. Of very many consumers, only the next ones take part.
        """
        assert self._first is not None
        if count < 2 * len(self._first):
            return [next(iter(self._first))], 1
        if len(self._first) > DEALT_TO:
            return [*islice(self._first, ASKED)], 1
        takers = [consumer for consumer in list(self._first) if self._can_take(consumer)]
        if len({id(consumer.subscriber) for consumer in takers}) == len(takers) and (
                ready_bytes + DELIVERY_OVERHEAD * count <= min([consumer.subscriber.room for consumer in takers])):
            return takers, max(1, min(count // len(takers), min([consumer.credit for consumer in takers])))
        return takers[:ASKED], 1

    def may_still_take(self, consumer: Consumer[OfQueue]) -> bool:
        """Return whether a consumer that takes part still has credit and room; block it if not."""
        return not consumer.is_blocked and self._can_take(consumer)

    def served(self, consumer: Consumer[OfQueue]) -> None:
        """Move a consumer that took its share to the end of its ring."""
        assert self._first is not None
        self._first.move_to_end(consumer)

    def unblock(self, consumer: Consumer[OfQueue]) -> None:
        """Put a blocked consumer into its ring again: there may be credit and room for it."""
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
            most = max(consumer.prefetch, consumer.in_flight_before)
            assert not consumer.prefetch or consumer.in_flight <= most, "prefetch exceeded"

    @property
    def has_idle(self) -> bool:
        """Whether a consumer that may be served has credit and room. Checks all of them; only for `check`."""
        served = [self.active] if self.active is not None else self.consumers
        return any(consumer.credit > 0 and consumer.subscriber.room > 0 for consumer in served)
