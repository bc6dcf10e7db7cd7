"""The persistent messages that may not be confirmed yet: they are not on disk, and consumers have not acked them.

A publisher is told of a message once it is on disk, or once consumers have acked it in every queue: nobody can miss it
then. Only an ack counts that holds by itself. One of a transaction waits for its commit, and so does what a message
leaves behind in other queues when it dies. What was sent to a consumer that need not ack may not have arrived.

Owns a bit for each such message, by queue, of the batch that is being written and of the one that fills. Where there
are too many queues, the messages of the others are confirmed after their commit only; where the numbers of one batch
span too much, all of that batch are.

Always true between calls: a message that may not be confirmed has its bit, or its batch counts as a whole.

RabbitMQ: blog "Introducing Publisher Confirms"; rabbit_msg_store (what is removed before it was written is confirmed).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import reduce
from operator import or_

from amqpd.message import Message
from amqpd.store.bits import bits_of

MOST_QUEUES = 64
SPAN = 1 << 20          # of the numbers
EVERYTHING = 1 << 62


class _Unwritten:
    """The messages of one batch. A bit stands for a message; the lowest one, for the number `_base`."""

    __slots__ = ("is_whole", "_base", "_bits", "_late", "_joined", "_most_queues", "_span")

    def __init__(self, most_queues: int, span: int) -> None:
        self.is_whole = False               # none of it is confirmed before its commit
        self._base = 0
        self._bits: dict[int, int] = {}     # by the number of a queue that has any
        self._late = 0                      # of further queues: whether they have been acked is not known
        self._joined: int | None = 0        # all of these bits, if they have not changed since
        self._most_queues = most_queues
        self._span = span

    @property
    def is_empty(self) -> bool:
        return not (self._bits or self._late or self.is_whole)

    def add(self, queue: int, run: Sequence[Message]) -> None:
        if self.is_whole:
            return
        first, last = run[0].number, run[-1].number
        if not (self._bits or self._late):
            self._base = first
        elif first < self._base:            # it waited for something before it was published
            self._lower_base(first)
        if last - self._base >= self._span or self.is_whole:
            self._become_whole()
            return
        numbers: Sequence[int] = range(first, last + 1)
        if len(numbers) != len(run):
            numbers = [message.number for message in run]
        bits, known = bits_of(numbers, self._base), self._bits
        self._joined = None
        if queue in known:
            known[queue] |= bits
        elif len(known) < self._most_queues:
            known[queue] = bits
        else:
            self._late |= bits

    def _lower_base(self, first: int) -> None:
        by = self._base - first
        if by >= self._span:
            self._become_whole()
            return
        self._bits = {queue: bits << by for queue, bits in self._bits.items()}
        self._late <<= by
        self._base = first

    def _become_whole(self) -> None:
        self.is_whole = True
        self._bits.clear()
        self._late = 0

    def remove(self, queue: int, rising: Sequence[int]) -> bool:
        """Remove what a queue has of these messages, whose numbers rise; return whether it had any."""
        bits = self._bits.get(queue)
        if bits is None:
            return False
        rising = rising[bisect_left(rising, self._base) :]
        if not rising or (left := bits & ~bits_of(rising, self._base)) == bits:
            return False
        self._joined = None
        if left:
            self._bits[queue] = left
        else:
            del self._bits[queue]
        return True

    def first_from(self, number: int) -> int:
        """Return the lowest number of a message from this number on, or EVERYTHING."""
        if self.is_whole:
            return number
        bits = self._joined
        if bits is None:
            bits = self._joined = reduce(or_, self._bits.values(), self._late)
        if number > self._base:
            bits >>= number - self._base
        else:
            number = self._base
        return number + (bits & -bits).bit_length() - 1 if bits else EVERYTHING

    def check(self) -> None:
        assert all(self._bits.values()), "a queue without a message"
        assert len(self._bits) <= self._most_queues
        assert not (self.is_whole and (self._bits or self._late))
        assert self._joined is None or self.is_whole or self._joined == reduce(or_, self._bits.values(), self._late)


class PendingConfirms:
    """The messages that a journal has been told of and that may not be confirmed yet.

    `most_queues` are told apart in a batch, and the numbers of one that is looked at message by message lie within
    `span`.
    """

    def __init__(self, most_queues: int = MOST_QUEUES, span: int = SPAN) -> None:
        self._limits = most_queues, span
        self._writing = _Unwritten(*self._limits)
        self._filling = _Unwritten(*self._limits)
        self._has_news = False

    def published(self, queue: int, run: Sequence[Message]) -> None:
        """Note that these messages, whose numbers rise, are in this queue and join the batch that fills."""
        self._filling.add(queue, run)

    def answered(self, queue: int, numbers: Sequence[int]) -> None:
        """Note that consumers have acked these messages of this queue."""
        if self._writing.is_empty and self._filling.is_empty:
            return
        rising = sorted(numbers)
        was_removed = self._writing.remove(queue, rising)
        self._has_news |= self._filling.remove(queue, rising) or was_removed

    def taken(self) -> None:
        """Note that the batch that filled is being written, and another one fills."""
        self._writing, self._filling = self._filling, _Unwritten(*self._limits)

    def committed(self) -> None:
        """Note that what was being written is on disk."""
        self._writing = _Unwritten(*self._limits)

    def nothing_waits(self) -> None:
        """Note that there is nothing to be written: what was published has left its queues again, or is on disk."""
        if not self._filling.is_empty:
            self._filling = _Unwritten(*self._limits)

    def take_news(self) -> bool:
        """Return whether `first_pending` may have changed since this was last asked, other than by a commit."""
        had_news, self._has_news = self._has_news, False
        return had_news

    def first_pending(self, number: int) -> int:
        """Return the lowest number, from this one on, of a message that may not be confirmed yet, or EVERYTHING."""
        return min(self._writing.first_from(number), self._filling.first_from(number))

    def check(self) -> None:
        """Assert what must hold between calls."""
        self._writing.check()
        self._filling.check()
