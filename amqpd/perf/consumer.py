"""A connection that consumes: counts deliveries, measures how long they took, and acknowledges them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pamqp.base import Frame
from pamqp.commands import Basic

from amqpd.perf.batches import Row, pack_ack_up_to, pack_acks, row_of
from amqpd.perf.client import Client, method_of
from amqpd.perf.counts import Counts
from amqpd.perf.link import Link
from amqpd.perf.plan import Plan

LONGEST_NS = 3_600 * 10 ** 9        # a longer time is not one: the message was published by another program


class Consumer(Link):
    """One consumer. `number` is its place among all consumers of the run."""

    def __init__(
        self, plan: Plan, number: int, client: Client, counts: Callable[[], Counts], now_ns: Callable[[], int]
    ) -> None:
        self._counts = counts
        self._ack_every = plan.ack_every
        self._row: Row | None = None
        self._acked = self._last_tag = 0
        if plan.prefetch:
            client.call(method_of(Basic.Qos, prefetch_count=plan.prefetch), Basic.QosOk)
        super().__init__(client, now_ns)
        self.is_ready = False           # the broker has started the consumers
        for place, queue in enumerate(plan.queues_of(number)):
            self.ask(method_of(
                Basic.Consume, queue=queue, consumer_tag=f"amqpperf-{place:05}", no_ack=not plan.ack_every,
                nowait=True))
        self.ask(method_of(Basic.Qos, prefetch_count=plan.prefetch))

    def take(self) -> None:
        """Take all whole deliveries, in batches, and act on the rare methods between them."""
        at, now_ns = 0, self.now_ns()
        while True:
            count = self._row.count_in(self.buffer, at) if self._row else 0
            if count and self._row:
                self._take_deliveries(self._row, at, count, now_ns)
                at += count * self._row.size
                continue
            try:
                row = row_of(self.buffer, at)
            except ValueError:
                stop = self.take_frame(at)
                if stop is None:
                    break
                at = stop
            else:
                if row is None:
                    break
                self._row = row
        del self.buffer[:at]

    def _take_deliveries(self, row: Row, at: int, count: int, now_ns: int) -> None:
        counts = self._counts()
        counts.delivered += count
        counts.last_delivered_ns = now_ns
        for stamp, times in Counter(row.stamps(self.buffer, at, count)).items():
            if 0 <= now_ns - stamp < LONGEST_NS:
                counts.latency.record(now_ns - stamp, times)
        if self._ack_every:
            self._last_tag = row.tag(self.buffer, at + (count - 1) * row.size)
            if self._last_tag - self._acked >= self._ack_every:
                self._ack()

    def _ack(self) -> None:
        first, last = self._acked + 1, self._last_tag
        self.put(pack_acks(first, last) if self._ack_every == 1 else pack_ack_up_to(last))
        self._counts().acked += last - self._acked
        self._acked = last

    def on_method(self, method: Frame) -> None:
        """Note that the consumers have started; end the run if the broker cancels one, since its queue is gone."""
        if isinstance(method, Basic.QosOk):
            self.is_ready = True
        if isinstance(method, Basic.Cancel):
            raise self.failure("it cancelled a consumer; was the queue deleted?")

    def finish(self) -> None:
        """Acknowledge what is not acknowledged yet."""
        if self._ack_every and self._last_tag > self._acked:
            self._ack()
