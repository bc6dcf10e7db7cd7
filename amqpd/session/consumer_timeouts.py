"""Find deliveries that have been unacked for too long, without walking what is not due.

A channel notes when its deliveries were made, a quarter of a second together, and says when it has to be looked at
again; a connection keeps these times in a heap. So a tick costs what is due, however many channels, consumers and
unacked deliveries there are. And since a client chooses what is due together, that is looked at in pieces.

Always true between calls: a channel with an unacked delivery, or with answers that a rollback may undo, is looked at
when one may be overdue, and at least every LOOK_MS, as a policy may have changed the timeout.

RabbitMQ docs/consumers (delivery acknowledgement timeout).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.message import Message

LOOK_MS = 5_000
TOGETHER_MS = 250
FEWEST_TIMES = 256                      # of deliveries, before old ones are put together
LOOK_STEPS, CLOSE_STEPS = 5, 120        # what it takes to look at a channel, and to close one; see broker/effort.py


def timeout_of(consumer: Consumer[Queue], default_ms: int | None) -> int | None:
    """Return how many ms a delivery to this consumer may stay unacked, or None for as long as it takes.

    Its own argument says so, else the rule of its queue, else the broker's setting `default_ms`.
    """
    own: int | None = consumer.arguments.get("x-consumer-timeout")
    if own is not None:
        return own
    rule = consumer.queue.rules.consumer_timeout_ms
    return default_ms if rule is None else rule


def has_own_timeout(consumer: Consumer[Queue]) -> bool:
    """Return whether a delivery to this consumer may be due before earlier ones to others."""
    return consumer.queue.rules.consumer_timeout_ms is not None or "x-consumer-timeout" in consumer.arguments


class DeliveryTimes:
    """When the deliveries of one channel were made, by tag. Times are in ms of a monotonic clock."""

    __slots__ = ("next_look_ms", "_made", "_most")

    def __init__(self) -> None:
        self.next_look_ms: int | None = None        # None while nothing was delivered that may be unacked
        # The tag after some deliveries, when the last one of them was made, and when the first one was.
        self._made: deque[tuple[int, int, int]] = deque()
        self._most = FEWEST_TIMES

    def delivered(self, next_tag: int, now_ms: int) -> None:
        """Note that deliveries up to the one before this tag were made."""
        made = self._made
        if made and now_ms - made[-1][2] < TOGETHER_MS:
            made[-1] = next_tag, now_ms, made[-1][2]
        else:
            made.append((next_tag, now_ms, now_ms))
            if len(made) > self._most:
                self._put_together(now_ms)

    def _put_together(self, now_ms: int) -> None:
        """Keep fewer times of old deliveries, of which one may be unacked for ever: they are late by 1/32 at most."""
        fewer: deque[tuple[int, int, int]] = deque()
        for next_tag, last_ms, first_ms in self._made:
            if fewer and last_ms - fewer[-1][2] <= (now_ms - last_ms) // 32:
                fewer[-1] = next_tag, last_ms, fewer[-1][2]
            else:
                fewer.append((next_tag, last_ms, first_ms))
        self._made = fewer
        self._most = max(FEWEST_TIMES, 2 * len(fewer))

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a time in which no answer could be heard."""
        self._made = deque(
            (tag, min(now_ms, last_ms + gap_ms), min(now_ms, first_ms + gap_ms))
            for tag, last_ms, first_ms in self._made)

    def overdue(
        self, now_ms: int, unacked: Mapping[int, tuple[Message, Consumer[Queue]]], default_ms: int | None, *,
        has_own_timeouts: bool, keeps_all: bool,
    ) -> int | None:
        """Return the timeout in ms that some delivery has been unacked for longer than, or None.

        `has_own_timeouts` says that a later delivery may be due before the oldest one; `keeps_all`, that deliveries
        may come back that are not among the unacked ones now.
        """
        if not unacked and not keeps_all:
            self._made.clear()
            self.next_look_ms = None
            return None
        self.next_look_ms = now_ms + LOOK_MS
        if unacked and not keeps_all:
            oldest = next(iter(unacked))
            while self._made[0][0] <= oldest:
                self._made.popleft()
        seen: set[Consumer[Queue]] = set()
        made = iter(self._made)
        tag_after = made_ms = 0
        for tag, (_, consumer) in unacked.items():
            while tag >= tag_after:
                tag_after, made_ms, _ = next(made)
            if consumer not in seen:
                seen.add(consumer)
                timeout = timeout_of(consumer, default_ms)
                if timeout is not None:
                    if now_ms - made_ms > timeout:
                        return timeout
                    self.next_look_ms = min(self.next_look_ms, made_ms + timeout + 1)
            if not has_own_timeouts:
                break
        return None


class Looks:
    """Which channels of a connection are to be looked at, and when."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []      # (when, the channel's number); others than its own time are old

    def add(self, number: int, when_ms: int) -> None:
        """Have a channel looked at, which has this time as its next one."""
        heapq.heappush(self._heap, (when_ms, number))

    def due(self, now_ms: int) -> Iterator[tuple[int, int]]:
        """Take the channels that are due, by their numbers, with the time that they were to be looked at."""
        while self.are_due(now_ms):
            when_ms, number = heapq.heappop(self._heap)
            yield number, when_ms

    def are_due(self, now_ms: int) -> bool:
        """Return whether any channel is due."""
        return bool(self._heap) and self._heap[0][0] <= now_ms


class OverdueChannels:
    """Close the channels of one connection on which a delivery has been unacked for too long, as a job of the worklist.

    `close` is given the number of a channel, the time at which it was to be looked at, the time of the look, and
    whether the log should tell of it; it says whether the channel was overdue. Of those that are closed together the
    log tells of `most_told` one by one, and `tell_of_others` is given how many others there are.
    """

    def __init__(
        self, looks: Looks, worklist: Worklist, close: Callable[[int, int, int, bool], bool],
        tell_of_others: Callable[[int], None], most_told: int,
    ) -> None:
        self._looks = looks
        self._worklist = worklist
        self._close = close
        self._tell_of_others = tell_of_others
        self._most_told = most_told
        self._now_ms = 0
        self._closed = 0        # since nothing was due

    def end(self) -> None:
        """Look at nothing more, and forget the connection: it is gone."""
        self._looks = Looks()
        del self._close, self._tell_of_others

    def look(self, now_ms: int) -> None:
        """Look at the channels that are due now."""
        self._now_ms = now_ms
        if self.has_work:
            self._worklist.add(self)

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return self._looks.are_due(self._now_ms)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        effort = self._worklist.effort
        stop = effort.total + PIECE
        for number, when_ms in self._looks.due(self._now_ms):
            effort.total += LOOK_STEPS
            if self._close(number, when_ms, self._now_ms, self._closed < self._most_told):
                effort.total += CLOSE_STEPS
                self._closed += 1
            if effort.total >= stop:
                break
        if not self.has_work:
            if self._closed > self._most_told:
                self._tell_of_others(self._closed - self._most_told)
            self._closed = 0
