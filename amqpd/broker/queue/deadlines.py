"""The expiries of the messages of one queue: which have a time to live, and which are due.

Owns the expiries of all messages of a queue that are in memory, ready or unacked. Messages on disk have their expiries
in their pages. An unacked message does not expire.

A message without an expiry costs nothing, and each other message costs about the same, however many wait. New messages
are put aside, together with the earliest of their expiries. They are moved to a heap only when that time has come; most
of them have left the queue by then. An entry of the heap whose message has left is skipped when its time comes. When
most entries are of that kind, a new heap replaces the old one, a few entries for each message that leaves, so that no
single call pays for all of them.

Always true between calls: a message that is ready, in no page, and has an expiry is put aside or in the heap.

RabbitMQ docs/ttl.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from typing import Any

from amqpd.broker.queue.pages import NEVER_DUE, NO_EXPIRY, Due
from amqpd.message import Message

FEWEST_ENTRIES = 256    # of a heap that is worth replacing once half of them are obsolete
CLEARED_AWAY = 3        # entries of the old heap for each message that leaves: it is soon empty


_Entry = tuple[int, int]        # an expiry and a message number; a message may have several entries


class Deadlines:
    """The expiries of messages, in milliseconds of the broker's clock."""

    __slots__ = (
        "_ends", "_out", "_aside", "_soonest_aside", "_arriving", "_soonest_arriving", "_waiting", "_in_heap", "_old",
        "_moved", "_fewest_entries")

    def __init__(self, *, fewest_entries: int = FEWEST_ENTRIES) -> None:
        self._fewest_entries = fewest_entries
        self._ends: dict[int, int] = {}         # by message number, for ready and unacked messages
        self._out: set[int] = set()             # numbers of unacked messages
        self._aside: dict[int, Message] = {}    # by number, messages that came since the heap was last added to
        self._soonest_aside = NO_EXPIRY            # the earliest of their expiries, or an earlier time
        self._arriving: dict[int, Message] = {}     # messages on their way from there to the heap
        self._soonest_arriving = NO_EXPIRY
        self._waiting: list[_Entry] = []        # the heap
        self._in_heap: dict[int, Message] = {}  # by number, messages with a valid entry there
        self._old: list[_Entry] = []            # the previous heap; it stays a heap when its last entry is removed
        self._moved: set[int] = set()           # numbers of messages moved from the old heap to the new one

    def __bool__(self) -> bool:
        return bool(self._ends)

    def add(self, ends: dict[Message, int]) -> None:
        """Add ready messages with their expiries."""
        if ends:
            numbers = [message.number for message in ends]
            self._ends.update(zip(numbers, ends.values()))
            self._put_aside(numbers, ends, min(ends.values()))

    def _put_aside(self, numbers: Iterable[int], run: Iterable[Message], soonest: int) -> None:
        self._aside.update(zip(numbers, run))
        self._soonest_aside = min(self._soonest_aside, soonest)

    def add_out(self, ends: dict[Message, int]) -> None:
        """Add messages with an expiry that were handed out as soon as they were published."""
        numbers = {message.number: end for message, end in ends.items()}
        self._ends.update(numbers)
        self._out.update(numbers)

    def hand_out(self, run: Iterable[Message]) -> None:
        """Note that these messages are unacked from now on: they do not expire meanwhile."""
        self._out.update([message.number for message in run if message.number in self._ends])

    def take_back(self, run: Iterable[Message]) -> None:
        """Note that these messages are ready again, with their previous expiries."""
        ends = self._ends
        back = [message for message in run if message.number in ends]
        if back:
            numbers = [message.number for message in back]
            self._out.difference_update(numbers)
            self._put_aside(numbers, back, min([ends[number] for number in numbers]))

    def release(self, message: Message) -> None:
        """Drop the content of this unacked message; it is passed in again when it is ready."""
        number = message.number
        self._in_heap.pop(number, None)
        self._aside.pop(number, None)
        if not self._aside:
            self._soonest_aside = NO_EXPIRY
        self._arriving.pop(number, None)
        if not self._arriving:
            self._soonest_arriving = NO_EXPIRY

    def forget(self, run: Iterable[Message]) -> None:
        """Forget these messages, which have left the queue."""
        self._drop([message.number for message in run])

    def let_go(self) -> list[dict[Any, Any] | list[Any] | set[Any]]:
        """Forget all messages; return the collections that held them, since freeing them may take long."""
        held: list[dict[Any, Any] | list[Any] | set[Any]] = [
            self._ends, self._aside, self._arriving, self._in_heap, self._waiting, self._old, self._out, self._moved]
        self._ends, self._aside, self._arriving, self._in_heap = {}, {}, {}, {}
        self._waiting, self._old = [], []
        self._out, self._moved = set(), set()
        self._soonest_aside = self._soonest_arriving = NO_EXPIRY
        return held

    def page_out(self, run: Iterable[Message]) -> dict[int, int]:
        """Move messages to a page, which then has their expiries; return these by number."""
        ends = self._ends
        paged = {message.number: ends[message.number] for message in run if message.number in ends} if ends else {}
        self._drop(paged)
        return paged

    def _drop(self, numbers: Collection[int]) -> None:
        ends, aside, in_heap = self._ends, self._aside, self._in_heap
        for number in numbers:
            ends.pop(number, None)
            aside.pop(number, None)
        if in_heap:
            for number in numbers:
                in_heap.pop(number, None)
        if not aside:
            self._soonest_aside = NO_EXPIRY
        self._out.difference_update(numbers)
        if not ends:
            self._waiting.clear()
            self._old.clear()
            self._moved.clear()
        elif not self._old:
            if len(self._waiting) <= max(self._fewest_entries, 2 * len(ends)):
                return
            self._old, self._waiting = self._waiting, []
        if numbers and self._old:
            self._clear_away(CLEARED_AWAY * len(numbers))

    def _clear_away(self, count: int) -> None:
        """Take so many entries off the end of the old heap; valid ones go to the new heap, once each."""
        old, moved, in_heap = self._old, self._moved, self._in_heap
        last = {number: in_heap.pop(number) for _, number in old[-count:] if number in in_heap and number not in moved}
        del old[-count:]
        self._push(last.items())
        if old:
            moved.update(last)
        else:
            moved.clear()

    def _push(self, messages: Collection[tuple[int, Message]]) -> None:
        """Add the ready ones of these messages, by number, to the heap."""
        ends, out = self._ends, self._out
        in_heap = {number: message for number, message in messages if number in ends and number not in out}
        self._in_heap.update(in_heap)
        more = [(ends[number], number) for number in in_heap]
        if 4 * len(more) > len(self._waiting):
            self._waiting += more
            heapq.heapify(self._waiting)
        else:
            for entry in more:
                heapq.heappush(self._waiting, entry)

    @property
    def next_ms(self) -> int | None:
        """When the next ready message expires, or a little earlier; None for never."""
        soonest = min(self._soonest_aside, self._soonest_arriving)
        if self._waiting:
            soonest = min(soonest, self._waiting[0][0])
        if self._old:
            soonest = min(soonest, self._old[0][0])
        return None if soonest == NO_EXPIRY else soonest

    @property
    def next_due(self) -> Due:
        """The expiry and the number of the next message of the heap, or earlier ones; `NEVER_DUE` if it is empty."""
        return self._next_heap[0] if self._next_heap else NEVER_DUE

    def has_to_take_in(self, now_ms: int) -> bool:
        """Return whether messages may have expired that are not in the heap yet: `take_due` adds some."""
        return bool(self._arriving) or self._soonest_aside <= now_ms

    def take_due(self, now_ms: int, limit: int = NO_EXPIRY, before: Due = NEVER_DUE) -> list[Message]:
        """Return the ready messages that have expired, in the order of expiry and number, and forget them.

        Returns at most `limit`, and only messages before the expiry and number `before`. Takes about as many steps;
        `next_ms` tells whether there may be more.
        """
        if self._soonest_aside <= now_ms and not self._arriving:
            self._arriving, self._aside = self._aside, {}
            self._soonest_arriving, self._soonest_aside = self._soonest_aside, NO_EXPIRY
        if self._arriving:
            self._take_in(limit)
            if self.has_to_take_in(now_ms):
                return []
        before = min(before, (now_ms + 1, 0))
        due: list[Message] = []
        ends, out, in_heap = self._ends, self._out, self._in_heap
        seen = 0
        while seen < limit and (heap := self._next_heap) and heap[0] < before:
            _, number = heapq.heappop(heap)
            seen += 1
            message = in_heap.pop(number, None)
            if message is not None and number not in out:
                del ends[number]
                due.append(message)
        return due

    @property
    def _next_heap(self) -> list[_Entry]:
        """The heap with the earliest entry."""
        waiting, old = self._waiting, self._old
        return old if old and (not waiting or old[0] < waiting[0]) else waiting

    def _take_in(self, limit: int) -> None:
        """Add so many of the messages that are on their way to the heap."""
        take = self._arriving.popitem
        last = [take() for _ in range(min(limit, len(self._arriving)))]
        if not self._arriving:
            self._soonest_arriving = NO_EXPIRY
        self._push(last)

    def check(self, ready: Iterable[Message]) -> None:
        """Assert what must hold between calls."""
        waiting = {(number, end) for end, number in (*self._waiting, *self._old) if number in self._in_heap}
        arriving = [number for number in self._arriving if number in self._ends]
        waiting |= {(number, self._ends[number]) for number in (*self._aside, *arriving)}
        assert self._soonest_arriving <= min([self._ends[number] for number in arriving], default=NO_EXPIRY)
        assert self._soonest_aside <= min([self._ends[number] for number in self._aside], default=NO_EXPIRY)
        for message in ready:
            end = self._ends.get(message.number)
            assert end is None or (message.number, end) in waiting, "a message has an end that never comes"
            assert message.number not in self._out, "a message is both ready and unacked"
        assert self._out <= self._ends.keys()
