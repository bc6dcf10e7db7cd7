"""Walk along the ready messages of a queue without changing it, in slices.

A walk remembers the place behind the last message that it has passed. So it meets each message at most once, whatever
is delivered, published or requeued between two slices, and none that was published after it began.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from amqpd.broker.queue.fifo import HEAD, NO_LIMIT, Place
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.pages import OnDisk, numbers_of
from amqpd.broker.queue.queue import Queue
from amqpd.message import Message

MOST_BYTES = 1 << 20


class Browser:
    """One walk, from behind a place on, past messages with numbers up to `last`."""

    def __init__(self, queue: Queue, place: Place = HEAD, last: int = NO_LIMIT) -> None:
        self.place = place
        self.passed = 0             # messages, readable or not
        self.is_at_end = False
        self._queue = queue
        self._last = last

    @property
    def cursor(self) -> str:
        """The place as a text, without a meaning for others."""
        return "{}:{}".format(*self.place)

    def skip(self, count: int) -> int:
        """Pass up to so many messages without reading them; return how many."""
        part, level = self._part(count)
        numbers = numbers_of(part)
        if numbers:
            self._pass(level, numbers)
        return len(numbers)

    def begin_at(self, position: int) -> int:
        """Go to a place before the message at this position, as near as that is quick; return how many to skip then."""
        self.place, left = self._queue.ready.before(position)
        return left

    def turn_back(self, number: int, unread: int) -> None:
        """Go back to the place behind the message with this number; the last `next` returned `unread` more after it.
        """
        self.place, self.is_at_end = (self.place[0], number), False
        self.passed -= unread

    def next(self, limit: int) -> list[Message]:
        """Return the next messages, at most `limit`, of one priority; they stay where they are.

        Of messages in memory, no more once they have a mebibyte of bodies; those on disk come page by page. None may be
        returned before the end, if messages on disk are damaged. Raises MessageNotLoaded while they are on disk and
        cannot be read.
        """
        part, level = self._part(limit)
        if isinstance(part, OnDisk):
            pager = self._queue.pager
            if not pager.can_load:
                raise MessageNotLoaded(pager.call)
            found = pager.fetch(part)
            numbers = part.numbers
        else:
            found = _within(part, MOST_BYTES)
            numbers = numbers_of(found)
        if numbers:
            self._pass(level, numbers)
        return found

    def find(self, number: int) -> Message | None:
        """Return the ready message with this number, or None. Raises MessageNotLoaded as `next`."""
        place = HEAD
        while not self._queue.deleted:
            part, level = self._queue.ready.after(place, 1)
            if not part:
                break
            part, own = self._queue.ready.after((level, number - 1), 1)
            if numbers_of(part) == [number]:
                self.place, self.is_at_end = (own, number - 1), False
                return next(iter(self.next(1)), None)
            if not level:
                break
            place = level - 1, -1
        return None

    def _pass(self, level: int, numbers: list[int]) -> None:
        self.place = level, numbers[-1]
        self.passed += len(numbers)

    def _part(self, limit: int) -> tuple[list[Message] | OnDisk, int]:
        while not self._queue.deleted:
            part, level = self._queue.ready.after(self.place, limit)
            if not part:
                break
            if isinstance(part, OnDisk):
                numbers = [number for number in part.numbers if number <= self._last]
                part = OnDisk(numbers, part.spill_file) if numbers else []
            else:
                part = [message for message in part if message.number <= self._last]
            if part:
                return part, level
            self.place = level, NO_LIMIT        # newer messages only: go on with the next priority
        self.is_at_end = True
        return [], 0


def _within(run: list[Message], most: int) -> list[Message]:
    """Return the first of these messages: one, and more as long as their bodies have so many bytes."""
    size = 0
    for count, message in enumerate(run, 1):
        size += message.body_size
        if size >= most:
            return run[:count]
    return run


class Selected:
    """A walk along the messages with these numbers, in order; those that are not ready are passed and in `gone`."""

    def __init__(self, queue: Queue, numbers: Sequence[int]) -> None:
        self._browser = Browser(queue)
        self._numbers = numbers
        self.passed = 0
        self.gone: list[int] = []       # numbers that were passed and are of no ready message

    @property
    def is_at_end(self) -> bool:
        """Whether all numbers have been passed."""
        return self.passed >= len(self._numbers)

    @property
    def cursor(self) -> str:
        """The place as a text, as that of a `Browser`."""
        return f"0:{self._numbers[self.passed - 1] if self.passed else -1}"

    def turn_back(self, number: int, unread: int) -> None:
        """Go back to behind this number."""
        self.passed = bisect_right(self._numbers, number)
        del self.gone[bisect_right(self.gone, number):]

    def next(self, limit: int) -> list[Message]:
        """Return the next messages that are ready, of at most `limit` numbers, of any priority.

        Raises MessageNotLoaded as `Browser.next`.
        """
        found: list[Message] = []
        size = 0
        for number in self._numbers[self.passed : self.passed + limit]:
            try:
                message = self._browser.find(number)
            except MessageNotLoaded:
                if found:
                    break
                raise
            self.passed += 1
            if message is None:
                self.gone.append(number)
            else:
                found.append(message)
                size += message.body_size
                if size >= MOST_BYTES:
                    break
        return found
