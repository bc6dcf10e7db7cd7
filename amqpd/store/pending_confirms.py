"""Which messages are owed to somebody: published, not on disk yet, and not taken over by a consumer.

A publisher may be told of a message once it is on disk, or once consumers have acknowledged it in every queue: nobody
is owed it any more then. Only an ack counts that holds by itself. One of a transaction waits for its commit, and so
does what a message leaves behind in other queues when it dies. What was sent to somebody who need not ack may not
have come anywhere yet.

Owns a bit for each such message, by queue; numbers rise in the order of publishing. Where there is too much of that,
it is not kept, and nobody is told before the commit.

Always true between calls: a message that is owed has its bit, or nothing is told.

RabbitMQ: blog "Introducing Publisher Confirms"; rabbit_msg_store (what is removed before it was written is confirmed).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from amqpd.message import Message
from amqpd.store.sqlite.message_blocks import bits_of

MOST_QUEUES = 64
SPAN = 1 << 20          # of the numbers
EVERYTHING = 1 << 62


class PendingConfirms:
    """The messages that a journal has been told of, as far as they are owed to somebody."""

    def __init__(self) -> None:
        self._base = 0                      # the number that the lowest bit stands for
        self._bits: dict[int, int] = {}     # by the number of a queue that has any
        self._last = self._taken = 0        # the highest number so far; that of the batch that is being written
        self._is_overfull = False
        self._has_news = False

    def published(self, queue: int, run: Sequence[Message]) -> None:
        """These messages, whose numbers rise, are owed to whoever takes them from this queue."""
        first, last = run[0].number, run[-1].number
        self._last = max(self._last, last)
        if not self._bits:
            self._base = first
        elif first < self._base:    # of another queue, and published between those that came before
            self._bits = {other: bits << self._base - first for other, bits in self._bits.items()}
            self._base = first
        if self._is_overfull or last - self._base >= SPAN or len(self._bits) >= MOST_QUEUES:
            self._is_overfull = True
            self._bits.clear()
        else:
            numbers: Sequence[int] = range(first, last + 1)
            if len(numbers) != len(run):
                numbers = [message.number for message in run]
            self._bits[queue] = self._bits.get(queue, 0) | bits_of(numbers, self._base)

    def answered(self, queue: int, numbers: Sequence[int]) -> None:
        """Consumers have taken over these messages of this queue."""
        bits = self._bits.get(queue)
        if bits is None:
            return
        rising = sorted(numbers)
        rising = rising[bisect_left(rising, self._base) :]
        if rising and (left := bits & ~bits_of(rising, self._base)) != bits:
            self._has_news = True
            if left:
                self._bits[queue] = left
            else:
                del self._bits[queue]

    def taken(self) -> None:
        """All that was published so far is being written."""
        self._taken = self._last

    def committed(self) -> None:
        """It is on disk."""
        if self._last == self._taken:
            self._is_overfull = False
        done = self._taken + 1 - self._base
        if self._bits and done > 0:
            self._base += done
            self._bits = {queue: left for queue, bits in self._bits.items() if (left := bits >> done)}

    def nothing_waits(self) -> None:
        """There is nothing to be written: what was published has left its queues again, or is on disk."""
        self._bits.clear()
        self._is_overfull = False

    def safe_number(self) -> int | None:
        """Up to which number nothing is owed, if that may be higher than when this was last asked."""
        if not self._has_news or self._is_overfull:
            return None
        self._has_news = False
        lowest = [self._base + (bits & -bits).bit_length() - 1 for bits in self._bits.values()]
        return min(lowest, default=EVERYTHING) - 1

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert all(self._bits.values()), "a queue to which nothing is owed"
        assert not (self._is_overfull and self._bits)
        assert all(self._base + bits.bit_length() - 1 <= self._last for bits in self._bits.values())
