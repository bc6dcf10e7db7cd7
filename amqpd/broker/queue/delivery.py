"""Deliver the ready messages of a queue to its consumers, and to clients that use basic.get.

`dispatcher.py` chooses the consumer, the FIFO the next message.

Always true between calls: no message is ready while a consumer has credit and its connection has room, unless the queue
is paused or busy with a job, or waits for the disk or for its delivery watermark.

Spec: §4.7; RabbitMQ docs/consumers, docs/consumer-prefetch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Generic

from amqpd.broker.queue.consumer import Consumer, OfQueue
from amqpd.broker.queue.dispatcher import Dispatcher
from amqpd.broker.queue.fifo import NO_LIMIT, Fifo
from amqpd.broker.queue.jobs import QueueJobs
from amqpd.broker.queue.pager import MessageNotLoaded, Pager
from amqpd.broker.queue.records import QueueRecords
from amqpd.broker.queue.segment import DELIVERY_OVERHEAD, body_bytes, number_of
from amqpd.broker.rules import QueueRules
from amqpd.broker.worklist import PIECE, Later, Worklist
from amqpd.message import Message

DISPATCH_STEPS = 8      # the cost of delivering one message alone, besides the delivery itself; see broker/effort.py
FEW = 8                 # messages that may have to be rewritten, delivered at once

log = logging.getLogger("amqpd")


class Delivery(Generic[OfQueue]):
    """The deliveries of one queue. `later` dispatches in a later slice of the worklist."""

    __slots__ = (
        "is_paused", "_is_by_priority", "_shows_count", "_ready", "_dispatcher", "_records", "_watermark", "_pager",
        "_jobs", "_worklist", "_later")

    def __init__(
        self, ready: Fifo, dispatcher: Dispatcher[OfQueue], records: QueueRecords, pager: Pager, jobs: QueueJobs,
        worklist: Worklist, later: Later,
    ) -> None:
        self.is_paused = False      # by an operator: nothing is delivered
        self._is_by_priority = self._shows_count = False
        self._ready = ready
        self._dispatcher = dispatcher
        self._records = records
        self._watermark = records.watermark
        self._pager = pager
        self._jobs = jobs
        self._worklist = worklist
        self._later = later

    def apply(self, rules: QueueRules) -> None:
        """Apply these rules from now on."""
        self._is_by_priority = rules.max_priority > 0
        self._shows_count = rules.shows_delivery_count

    # To consumers

    def sole_taker(self, run: Sequence[Message]) -> Consumer[OfQueue] | None:
        """Return the consumer that can take all of this at once, if it is the only one that can take any."""
        if self.is_paused:
            return None
        taker = self._dispatcher.next_taker()
        if taker is None or not self._dispatcher.is_sole(taker) or taker.credit < len(run):
            return None
        size = body_bytes(run) + DELIVERY_OVERHEAD * len(run)
        return taker if size <= taker.subscriber.room else None

    def dispatch(self) -> None:
        """Deliver ready messages to consumers, in turn, until there is no message or no consumer left."""
        if self._jobs.has_work or self.is_paused:
            return
        ready, dispatcher, effort = self._ready, self._dispatcher, self._worklist.effort
        while ready:
            taker = dispatcher.next_taker()
            if taker is None:
                if dispatcher.has_unasked:
                    effort.total += PIECE
                    self._later.ask()
                break
            if not self.next_is_at_hand():
                break
            if effort.is_spent:
                self._later.ask()
                return
            if dispatcher.is_sole(taker):
                limit = min(taker.credit, FEW) if self._is_rewritten else taker.credit
                self.hand_out(taker, self._take(limit, taker.subscriber.room))
            else:
                takers, rounds = dispatcher.deal(len(ready), ready.body_bytes)
                self._deal(takers, 1 if self._is_rewritten else rounds)
        if ready.page_ahead is not None and dispatcher.consumers:
            self._pager.order_call()

    def next_is_at_hand(self) -> bool:
        """Return whether the next message is in memory and may be delivered; if not, the pager calls when it can be."""
        ready, watermark = self._ready, self._watermark
        if ready.next_page is not None and not self._pager.load_next():
            return False
        if watermark is None or not ready or watermark.bound(ready.first_number):
            return True
        watermark.wait(ready.number_at(watermark.block))
        self._pager.order_call()
        return False

    @property
    def _is_rewritten(self) -> bool:
        """Return whether messages may have to be rewritten, which may cost much more than the delivery."""
        return self._shows_count and bool(self._records.redelivery.deliveries)

    def _deal(self, takers: list[Consumer[OfQueue]], rounds: int) -> None:
        """Deliver one message each, in turn, in so many rounds; then move these consumers to the end of their ring."""
        effort = self._worklist.effort
        if rounds == 1:
            effort.total += DISPATCH_STEPS * len(takers)
            for taker in takers:
                if self._dispatcher.may_still_take(taker):
                    run = self._take(1, NO_LIMIT)
                    if not run:
                        return
                    self.hand_out(taker, run)
                    self._dispatcher.served(taker)
                    if effort.is_spent:
                        return
            return
        dealt = self._take(rounds * len(takers), NO_LIMIT)
        for turn, taker in enumerate(takers):
            self.hand_out(taker, dealt[turn :: len(takers)])
        for taker in takers[: len(dealt) % len(takers)]:
            self._dispatcher.served(taker)

    def _take(self, limit: int, room: int) -> list[Message]:
        if self._watermark is None:
            return self._ready.take(limit, room)
        return self._ready.take(limit, room, self._watermark.bound)

    def hand_out(self, consumer: Consumer[OfQueue], run: Sequence[Message]) -> None:
        """Deliver messages that have left the FIFO to a consumer."""
        if not run:
            return
        records = self._records
        if self._watermark is not None:
            self._raise_watermark(run)
        if consumer.no_ack:
            records.counts.delivered_no_ack += len(run)
            if self._deliver(consumer, run):
                records.settled(run)
            else:
                self._ready.put_back(run)
        else:
            records.counts.delivered += len(run)
            records.unacked += len(run)
            consumer.in_flight += len(run)
            if records.deadlines:
                records.deadlines.hand_out(run)
            self._deliver(consumer, run)

    def _raise_watermark(self, run: Sequence[Message]) -> None:
        watermark = self._watermark
        assert watermark is not None
        last = max(map(number_of, run)) if self._is_by_priority else run[-1].number
        if watermark.handed_out(last):
            watermark.ask(max(last + watermark.block, self._ready.number_at(watermark.block)))

    def _deliver(self, consumer: Consumer[OfQueue], run: Sequence[Message]) -> bool:
        """Deliver, and return whether that worked: an error closes the connection and requeues its messages."""
        try:
            consumer.subscriber.deliver(consumer, run)
        except Exception:
            definition = self._records.definition
            log.exception("queue '%s' in vhost '%s': a delivery failed", definition.name, definition.vhost)
            consumer.subscriber.fail()
            return False
        return True

    # To basic.get

    def get(self, *, no_ack: bool) -> Message | None:
        """Take the first ready message; unless `no_ack`, it is unacked from now on. A paused queue counts as empty.

        Raises MessageNotLoaded if it is on disk and cannot be loaded now, or if the queue is busy.
        """
        if self.is_paused:
            return None
        if self._jobs.has_work:
            raise MessageNotLoaded(self._jobs.call)
        if not self.next_is_at_hand():
            raise MessageNotLoaded(self._pager.call)
        taken = self._take(1, NO_LIMIT)
        records = self._records
        if not taken:
            records.counts.got_empty += 1
            return None
        if self._watermark is not None:
            self._raise_watermark(taken)
        if no_ack:
            records.counts.got_no_ack += 1
        else:
            records.counts.got += 1
            records.unacked += 1
            if records.deadlines:
                records.deadlines.hand_out(taken)
        return taken[0]
