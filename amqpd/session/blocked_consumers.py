"""Consumers that wait for something shared: the credit of a channel, or the room of a connection.

Their queues take turns, and of one queue only as many consumers are unblocked at a time as may be served. So an ack, or
a flush, costs as much as it allows to be delivered, however many consumers wait.

RabbitMQ: rabbit_limiter, rabbit_queue_consumers (unblock).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue

AT_A_TIME = 64      # consumers of one queue; a larger value unblocks more of them in vain


class BlockedConsumers:
    """The consumers that wait for one thing, by queue."""

    def __init__(self) -> None:
        self._by_queue: OrderedDict[Queue, OrderedDict[Consumer[Queue], None]] = OrderedDict()

    def add(self, consumer: Consumer[Queue]) -> None:
        """Keep a consumer until there is something left for it."""
        consumers = self._by_queue.get(consumer.queue)
        if consumers is None:
            consumers = self._by_queue[consumer.queue] = OrderedDict()
        consumers[consumer] = None

    def remove(self, consumer: Consumer[Queue]) -> None:
        """Forget a consumer that has been cancelled."""
        consumers = self._by_queue.get(consumer.queue)
        if consumers is not None and consumers.pop(consumer, self) is None and not consumers:
            del self._by_queue[consumer.queue]

    def serve(self, left: Callable[[], int], begin_turn: Callable[[int], None] | None = None) -> None:
        """Unblock consumers, one queue after the other, while something is left for them, as `left` tells.

        `begin_turn` is told how much of it the next queue may have, so that no queue takes everything.
        """
        by_queue = self._by_queue
        turns = share = 0
        while by_queue and (most := left()) > 0:
            if begin_turn is not None:
                if not turns:
                    turns = len(by_queue)
                    share = max(1, most // turns)
                turns -= 1
                begin_turn(share)
            queue, consumers = by_queue.popitem(last=False)
            for _ in range(min(len(consumers), most, AT_A_TIME)):
                queue.unblock(consumers.popitem(last=False)[0])
            if consumers:
                by_queue[queue] = consumers
            queue.dispatch()
