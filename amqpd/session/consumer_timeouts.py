"""Find deliveries that have been unacked for too long, without visiting those that are not due.

A channel records when its deliveries were made, in groups of a quarter of a second, and when it has to be checked
again; a connection keeps these times in a heap. So a tick costs only what is due, however many channels, consumers and
unacked deliveries there are. Since a client can make very much due at once, that is checked in slices.

Always true between calls: a channel with an unacked delivery, or with answers that a rollback may undo, is checked when
one may be overdue, and at least every LOOK_MS, as a policy may have changed the timeout.

RabbitMQ docs/consumers (delivery acknowledgement timeout).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.message import Message

LOOK_MS = 5_000
TOGETHER_MS = 250
FEWEST_TIMES = 256                      # times of deliveries, before old ones are merged
LOOK_STEPS, CLOSE_STEPS = 5, 120        # the cost of checking a channel, and of closing one; see broker/effort.py


def timeout_of(consumer: Consumer[Queue], default_ms: int | None) -> int | None:
    """Return how many ms a delivery to this consumer may stay unacked; None for no limit.

    Taken from its own argument, else from the rule of its queue, else from the broker's setting `default_ms`.
    """
    own: int | None = consumer.arguments.get("x-consumer-timeout")
    if own is not None:
        return own
    rule = consumer.queue.rules.consumer_timeout_ms
    return default_ms if rule is None else rule


def has_own_timeout(consumer: Consumer[Queue]) -> bool:
    """Return whether a delivery to this consumer may be due before earlier ones to other consumers."""
    return consumer.queue.rules.consumer_timeout_ms is not None or "x-consumer-timeout" in consumer.arguments


class DeliveryTimes:
    """The times of the deliveries of one channel, by tag, in ms of a monotonic clock."""

    __slots__ = ("next_look_ms", "_made", "_most")

    def __init__(self) -> None:
        self.next_look_ms: int | None = None        # None if no delivery may be unacked
        # The tag after some deliveries, the time of the last one of them, and the time of the first one.
        self._made: deque[tuple[int, int, int]] = deque()
        self._most = FEWEST_TIMES

    def delivered(self, next_tag: int, now_ms: int) -> None:
        """Record that deliveries up to the one before this tag were made."""
        made = self._made
        if made and now_ms - made[-1][2] < TOGETHER_MS:
            made[-1] = next_tag, now_ms, made[-1][2]
        else:
            made.append((next_tag, now_ms, now_ms))
            if len(made) > self._most:
                self._put_together(now_ms)

    def _put_together(self, now_ms: int) -> None:
        """Merge times of old deliveries, of which one may never be acked: they become late by 1/32 at most."""
        fewer: deque[tuple[int, int, int]] = deque()
        for next_tag, last_ms, first_ms in self._made:
            if fewer and last_ms - fewer[-1][2] <= (now_ms - last_ms) // 32:
                fewer[-1] = next_tag, last_ms, fewer[-1][2]
            else:
                fewer.append((next_tag, last_ms, first_ms))
        self._made = fewer
        self._most = max(FEWEST_TIMES, 2 * len(fewer))

    def made_ms(self, tag: int) -> int | None:
        """Return when a delivery was made: at most a quarter of a second late, or 1/32 of its age; None if unknown."""
        at = bisect_right(self._made, tag, key=itemgetter(0))
        return self._made[at][1] if at < len(self._made) else None

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a gap, in which no answer could be read."""
        self._made = deque(
            (tag, min(now_ms, last_ms + gap_ms), min(now_ms, first_ms + gap_ms))
            for tag, last_ms, first_ms in self._made)

    def overdue(
        self, now_ms: int, unacked: Mapping[int, tuple[Message, Consumer[Queue]]], default_ms: int | None, *,
        has_own_timeouts: bool, keeps_all: bool,
    ) -> int | None:
        """Return the timeout in ms that a delivery has exceeded, or None.

        `has_own_timeouts` says that a later delivery may be due before the oldest one; `keeps_all`, that deliveries
        that are not unacked now may become unacked again.
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
    """The times at which channels of a connection have to be checked."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []      # (time, channel number); some are obsolete

    def add(self, number: int, when_ms: int) -> None:
        """Have a channel checked at this time, which is its next one."""
        heapq.heappush(self._heap, (when_ms, number))

    def due(self, now_ms: int) -> Iterator[tuple[int, int]]:
        """Remove and yield the channels that are due, by number, with the time of the check."""
        while self.are_due(now_ms):
            when_ms, number = heapq.heappop(self._heap)
            yield number, when_ms

    def are_due(self, now_ms: int) -> bool:
        """Return whether a channel is due."""
        return bool(self._heap) and self._heap[0][0] <= now_ms


class OverdueChannels:
    """Closes the channels of one connection with overdue deliveries, as a job of the worklist.

    `close` gets the number of a channel, the time for which the check was planned, the time of the check, and whether
    to log a close; it returns whether the channel was overdue. Of channels that are closed together, `most_told` are
    logged one by one, and `tell_of_others` gets the number of the others.
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
        """Stop, and drop the references to the connection, which is closed."""
        self._looks = Looks()
        del self._close, self._tell_of_others

    def look(self, now_ms: int) -> None:
        """Check the channels that are due now."""
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
