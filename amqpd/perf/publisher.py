"""A connection that publishes: at a rate or as fast as the broker takes it, with or without confirms.

Invariant: `confirmed + refused` publishes have been answered, and no more than `plan.confirm` wait for an answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Confirm

from amqpd.perf.batches import PublishBlock, properties, read_acks
from amqpd.perf.client import Client, method_of
from amqpd.perf.counts import Counts
from amqpd.perf.link import Link
from amqpd.perf.plan import Plan

BLOCKS_IN_A_TURN = 4            # then the other connections of the process have their turn
LATE_NS = 5_000_000             # from this delay on, a message counts as published when it was due
NEVER = math.inf


class Publisher(Link):
    """One producer. `number` is its place among all producers of the run."""

    def __init__(
        self, plan: Plan, number: int, client: Client, counts: Callable[[], Counts], now_ns: Callable[[], int]
    ) -> None:
        if plan.confirm:
            client.call(method_of(Confirm.Select), Confirm.SelectOk)
        super().__init__(client, now_ns)
        self._counts = counts
        self._rate, self._limit, self._window = plan.rate, plan.count or NEVER, plan.confirm
        packed = properties(is_persistent=plan.is_persistent, priority=plan.priority)
        self._blocks = [
            PublishBlock(plan.exchange, key, plan.size, packed, client.frame_max, is_mandatory=plan.is_mandatory)
            for key in plan.keys_of(number)]
        self._turn = 0
        self._sent = 0
        self._answers = Answers()
        self._begun_ns = 0
        self._is_closing = False
        self.is_done = False        # the broker has taken in all publishes

    def begin(self) -> None:
        """Publish from now on."""
        self._begun_ns = self.now_ns()

    def finish(self) -> None:
        """Publish no more."""
        self._limit = min(self._limit, self._sent)

    def wait_ns(self) -> float:
        """Return how long there is nothing to do, unless something arrives; 0 if a publish is due now."""
        if self.wants_to_write or self._is_closing or not self._begun_ns:
            return NEVER
        if self._sent >= self._limit:
            return NEVER if self._window and self._unanswered else 0
        if self._window and self._unanswered >= self._window:
            return NEVER
        if not self._rate:
            return 0
        return max(0, self._due_ns() - self.now_ns())

    def step(self) -> None:
        """Publish what is due; once all is published and answered, ask the broker to confirm that it took it in."""
        for _ in range(BLOCKS_IN_A_TURN):
            if self.wait_ns() > 0:
                return
            if self._sent >= self._limit:
                self._is_closing = True
                self.ask(method_of(Channel.Close, reply_code=200))
                return
            self._publish()

    @property
    def _unanswered(self) -> int:
        return self._sent - self._answers.count

    def _due_ns(self) -> int:
        return self._begun_ns + int(self._sent / self._rate * 1e9)

    def _publish(self) -> None:
        now_ns = stamp_ns = self.now_ns()
        block = self._blocks[self._turn % len(self._blocks)]
        most: float = min(block.most, self._limit - self._sent)
        if self._window:
            most = min(most, self._window - self._unanswered)
        if self._rate:
            due_ns = self._due_ns()
            most = min(most, (now_ns - self._begun_ns) * self._rate / 1e9 - self._sent + 1)
            if now_ns - due_ns > LATE_NS:
                stamp_ns = due_ns       # else a broker that stands still would look fast
        count = max(1, int(most))
        self._turn += 1
        self._sent += count
        counts = self._counts()
        counts.published += count
        counts.last_published_ns = now_ns
        if self._window:
            self._answers.expect(count, stamp_ns)
        self.put(block.stamped(count, stamp_ns))

    def take(self) -> None:
        """Count confirms, and act on the rare methods between them."""
        at: int | None = 0
        end = 0
        while at is not None:
            tags, end = read_acks(self.buffer, at)
            if tags:
                self._on_acks(tags)
            at = self.take_frame(end)
        del self.buffer[:end]

    def _on_acks(self, tags: list[tuple[int, bool]]) -> None:
        counts, now_ns, before = self._counts(), self.now_ns(), self._answers.count
        for tag, multiple in tags:
            for sent_ns, count in self._answers.on_answer(tag, multiple):
                counts.confirm_latency.record(now_ns - sent_ns, count)
        counts.confirmed += self._answers.count - before

    def on_method(self, method: Frame) -> None:
        """Count nacks and returns."""
        if isinstance(method, Basic.Nack):
            before = self._answers.count
            for _ in self._answers.on_answer(method.delivery_tag, method.multiple):
                pass
            self._counts().refused += self._answers.count - before
        elif isinstance(method, Basic.Return):
            self._counts().returned += 1
        elif isinstance(method, Channel.CloseOk):
            self.is_done = True

    def end(self, timeout_s: float) -> None:
        """Close the connection; if the channel is closed already, the broker has taken in all."""
        if self.is_done:
            self.client.close()
        else:
            super().end(timeout_s)


class Answers:
    """Which publishes of a channel have been answered, and when they were sent. Answers may come in any order."""

    def __init__(self) -> None:
        self.count = 0
        self._floor = 0                             # all publishes up to this one are answered
        self._single: set[int] = set()              # and these above it
        self._sent: deque[list[int]] = deque()      # the last number of each batch above the floor, and its time
        self._last = 0

    def expect(self, count: int, sent_ns: int) -> None:
        """Note that so many publishes have been sent."""
        self._last += count
        self._sent.append([self._last, sent_ns])

    def on_answer(self, tag: int, multiple: bool) -> list[tuple[int, int]]:
        """Note an answer; return when those were sent that it newly answers, and how many of them."""
        found: list[tuple[int, int]] = []
        if multiple or tag == self._floor + 1:
            floor = tag or self._last
            while self._floor < floor:
                last, sent_ns = self._sent[0]
                stop = min(last, floor)
                count = stop - self._floor
                if self._single:
                    early = {one for one in self._single if one <= stop}
                    self._single -= early
                    count -= len(early)
                if count:
                    found.append((sent_ns, count))
                self._floor = stop
                if stop == last:
                    self._sent.popleft()
        elif tag > self._floor and tag not in self._single:
            self._single.add(tag)
            found.append((next(sent_ns for last, sent_ns in self._sent if last >= tag), 1))
        while self._floor + 1 in self._single:
            self._single.remove(self._floor + 1)
            self._floor += 1
            if self._sent[0][0] == self._floor:
                self._sent.popleft()
        self.count += sum(count for _, count in found)
        return found
