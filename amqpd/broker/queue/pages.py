"""Pages: ready messages whose contents are only on disk. Memory keeps their numbers, sizes and expiries.

A page stands for consecutive messages of a FIFO and takes about 16 bytes of memory for each. It is read shortly before
its messages are delivered, and is then replaced by them. A page knows which of its messages are left. While a page is
being written to disk, it still has its messages as `content`.

Always true between calls: numbers rise; `count` and `body_bytes` are those of the messages that are left; a page in a
FIFO has at least one message; `content`, if there is one, has all messages that the page was made of.

RabbitMQ docs/persistence-conf, docs/lazy-queues.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import compress, repeat
from typing import NamedTuple, Protocol

from amqpd.broker.clock import Clock
from amqpd.broker.queue.page_limits import PAGE_LIMITS, PageLimits
from amqpd.broker.queue.segment import MESSAGE_COST, Budget, body_bytes, number_of
from amqpd.broker.step_job import Act
from amqpd.message import Message

NO_EXPIRY = 1 << 62

Due = tuple[int, int]       # an expiry and the number of a message, or of the first one of a page
NEVER_DUE: Due = (NO_EXPIRY, 0)


class SpillFile(Protocol):
    """A file of spilled transient messages, which the store does not keep; see `store/spill.py`."""

    @property
    def numbers(self) -> Collection[int]:
        """Return the numbers of the messages that it was written with, in rising order."""

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop these messages from the file; delete the file with its last message."""


class OnDisk(NamedTuple):
    """Messages that are only on disk: their numbers, and the file of those that the store does not keep."""

    numbers: list[int]
    spill_file: SpillFile | None = None

    @property
    def stored(self) -> list[int]:
        """The numbers of the messages that the store keeps."""
        if self.spill_file is None:
            return self.numbers
        spilled = {*self.spill_file.numbers}
        return [number for number in self.numbers if number not in spilled]


class StoredMessages(NamedTuple):
    """The messages of a queue as the store kept them, by number: sizes of bodies, expiries and priorities.

    `expiries` are in ms since 1970, `lifetimes` in ms, NO_EXPIRY for none; None if no message has one.
    """

    numbers: array[int]
    sizes: array[int]
    expiries: array[int] | None = None
    lifetimes: array[int] | None = None
    priorities: bytearray | None = None

    def ends(self, ttl_ms: int | None, clock: Clock) -> array[int] | None:
        """Return their expiries by the broker's clock, in a queue with this time to live; None if none expires.

        The rest of a time to live, by the wall clock, is never more than the whole. A message that was published
        without an expiry has none, even if the queue has a time to live now.
        """
        if self.expiries is None or self.lifetimes is None:
            return None
        now, stored = clock.now_ms, clock.stored_ms
        longest = NO_EXPIRY if ttl_ms is None else ttl_ms
        return array("q", [
            NO_EXPIRY if expiry == NO_EXPIRY else min(NO_EXPIRY, now + min(longest, lifetime, max(0, expiry - stored)))
            for expiry, lifetime in zip(self.expiries, self.lifetimes)])

    def pages(
        self, ends: array[int] | None, highest: int, limits: PageLimits = PAGE_LIMITS
    ) -> Iterator[tuple[int, Iterator[Page]]]:
        """Yield pages of them by priority, up to the highest; a higher priority counts as the highest."""
        if self.priorities is None or not highest:
            yield 0, _pages_of(self.numbers, self.sizes, ends, limits)
            return
        levels = [min(own, highest) for own in self.priorities]
        for level in sorted({*levels}):
            places = [place for place, own in enumerate(levels) if own == level]
            yield level, _pages_of(
                array("q", [self.numbers[place] for place in places]),
                array("I", [self.sizes[place] for place in places]),
                None if ends is None else array("q", [ends[place] for place in places]), limits)


# Messages that have left a FIFO, in order: those that were in memory, and those that were only on disk.
Removed = list["list[Message] | OnDisk"]


def numbers_of(part: Sequence[Message] | OnDisk) -> list[int]:
    """Return the numbers of these messages, wherever they are."""
    return part.numbers if isinstance(part, OnDisk) else [*map(number_of, part)]


class Page:
    """Consecutive messages of a FIFO. `ends` are expiries in ms of the broker's clock, NO_EXPIRY for none."""

    __slots__ = (
        "content", "count", "is_leaving", "body_bytes", "spill_file",
        "_numbers", "_sizes", "_ends", "_by_expiry", "_next_by_expiry", "_start", "_left")

    def __init__(
        self, numbers: array[int], sizes: array[int], ends: array[int] | None = None,
        content: list[Message] | None = None,
    ) -> None:
        self.content = content
        self.count = len(numbers)
        self.is_leaving = False         # its content is being written
        self.body_bytes = sum(sizes)
        self.spill_file: SpillFile | None = None
        self._numbers = numbers
        self._sizes = sizes
        self._ends = ends
        self._by_expiry: array[int] | None = None      # positions of messages with an expiry, earliest first
        self._next_by_expiry = 0
        self._start = 0                 # the position of the first message that is left
        self._left: bytearray | None = None     # by position, whether the message is left; None while all after it are
        if ends is not None:
            places = [place for place, end in enumerate(ends) if end != NO_EXPIRY]
            self._by_expiry = array("I", sorted(places, key=ends.__getitem__))

    @classmethod
    def of(cls, run: Sequence[Message], ends: Mapping[int, int]) -> Page:
        """Return a page of these messages; `ends` has the expiries by number, of messages that expire.

        It has them as `content`, unless they are references: then they are only on disk.
        """
        numbers = [message.number for message in run]
        return cls(
            array("q", numbers), array("I", [message.body_size for message in run]),
            array("q", [ends.get(number, NO_EXPIRY) for number in numbers]) if ends else None,
            list(run) if run[0].content else None)

    @property
    def first(self) -> int:
        """The lowest number that is left, or a lower one."""
        return self._numbers[self._start]

    @property
    def last(self) -> int:
        """The highest number that the page was made with."""
        return self._numbers[-1]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the messages that are left."""
        numbers = self._numbers[self._start:].tolist()
        return numbers if self._left is None else list(compress(numbers, self._left[self._start:]))

    @property
    def messages(self) -> list[Message]:
        """The messages that are left and in memory."""
        return self.left_of(self.content or ())

    def left_of(self, run: Collection[Message]) -> list[Message]:
        """Return which of these messages are left; the page was made with all of them."""
        if self.count == len(self._numbers):
            return list(run)
        left = {*self.numbers}
        return [message for message in run if message.number in left]

    @property
    def cost(self) -> int:
        """What its content costs of the budget: nothing once it is being written to disk."""
        return 0 if self.content is None or self.is_leaving else cost(self.content)

    @property
    def on_disk(self) -> OnDisk:
        """The messages that are left, as references to the disk."""
        return OnDisk(self.numbers, self.spill_file)

    def let_go(self, budget: Budget, spill_file: SpillFile | None = None) -> None:
        """Drop the content, which is on disk: in the store, or in this spill file if the store does not keep it."""
        if not self.count:      # loaded meanwhile, or removed
            if spill_file is not None:
                spill_file.forget(spill_file.numbers)
            return
        budget.used -= self.cost
        budget.paged_out_pages += 1
        budget.paged_out_messages += self.count
        budget.paged_out_bytes += self.body_bytes
        self.is_leaving = False
        self.content, self.spill_file = None, spill_file
        if spill_file is not None and self.count < len(self._numbers):
            spill_file.forget({*spill_file.numbers}.difference(self.numbers))   # those that were removed meanwhile

    def leave(self, budget: Budget) -> None:
        """Note that the content is being written to disk."""
        budget.used -= self.cost
        self.is_leaving = True

    def stay(self, budget: Budget) -> None:
        """Note that the content could not be written to disk."""
        self.is_leaving = False
        if self.count:
            budget.used += self.cost

    def expiries_of(self, run: Sequence[Message]) -> dict[Message, int]:
        """Return the expiries of those of these messages that have one."""
        if self._ends is None:
            return {}
        ends = {message: self._ends[bisect_left(self._numbers, message.number)] for message in run}
        return {message: end for message, end in ends.items() if end != NO_EXPIRY}

    # Messages out

    def drop_first(self) -> int:
        """Remove the first message that is left and return its number. The caller removes an empty page."""
        if self._left is not None:
            self._start = self._left.index(1, self._start)
        place = self._start
        self._start += 1
        self.count -= 1
        self.body_bytes -= self._sizes[place]
        return self._numbers[place]

    @property
    def next_expiry(self) -> int | None:
        """When the next of the messages that are left expires."""
        if self._by_expiry is None or self._ends is None:
            return None
        by_end, left, start = self._by_expiry, self._left, self._start
        for at in range(self._next_by_expiry, len(by_end)):
            place = by_end[at]
            if place >= start and (left is None or left[place]):
                self._next_by_expiry = at
                return self._ends[place]
        self._next_by_expiry = len(by_end)
        return None

    def take_due(self, now_ms: int) -> list[int]:
        """Remove the expired messages and return their numbers, in rising order."""
        due = []
        while (end := self.next_expiry) is not None and end <= now_ms:
            assert self._by_expiry is not None
            place = self._by_expiry[self._next_by_expiry]
            self._remove(place)
            due.append(self._numbers[place])
        return sorted(due)

    def take_out(self, numbers: Iterable[int]) -> None:
        """Remove these messages, all of which are here, at any position. The caller removes an empty page."""
        for number in numbers:
            self._remove(bisect_left(self._numbers, number))
        if self.spill_file is not None:
            self.spill_file.forget(numbers)

    def _remove(self, place: int) -> None:
        if self._left is None:
            self._left = bytearray(b"\1") * len(self._numbers)
        self._left[place] = 0
        self.count -= 1
        self.body_bytes -= self._sizes[place]

    # Messages in

    def insert(self, message: Message) -> None:
        """Insert a message that is only on disk. Neither it nor any other message of this page expires."""
        place = bisect_left(self._numbers, message.number, self._start)
        self._numbers.insert(place, message.number)
        self._sizes.insert(place, message.body_size)
        if self._left is not None:
            self._left.insert(place, 1)
        self.count += 1
        self.body_bytes += message.body_size

    @property
    def has_expiries(self) -> bool:
        """Whether any of its messages may expire."""
        return self._ends is not None

    def merged(self, run: Sequence[Message], ends: Mapping[int, int]) -> Page:
        """Return a page of what is left and of these, in memory if this page is. This page is not used then."""
        entries = sorted([*self._entries(), *[
            (message.number, message.body_size, ends.get(message.number, NO_EXPIRY)) for message in run]])
        content = None if self.content is None else sorted([*self.messages, *run], key=number_of)
        self.count = 0
        return self._of_entries(entries, content)

    def split(self, places: Sequence[int]) -> list[Page]:
        """Return pages of what is left up to each of these positions, counted among what is left, and of the rest.

        If nothing is between two positions there is no page for it. This page is not used then.
        """
        entries, content = self._entries(), self.messages if self.content is not None else None
        self.count = 0
        return [
            self._of_entries(entries[start:end], None if content is None else content[start:end])
            for start, end in zip([0, *places], [*places, len(entries)]) if start < end]

    def _entries(self) -> list[tuple[int, int, int]]:
        """Return numbers, sizes and expiries of what is left."""
        start, left = self._start, self._left
        ends = self._ends[start:] if self._ends is not None else repeat(NO_EXPIRY)
        entries = zip(self._numbers[start:], self._sizes[start:], ends)
        return list(entries) if left is None else list(compress(entries, left[start:]))

    def _of_entries(self, entries: Sequence[tuple[int, int, int]], content: list[Message] | None) -> Page:
        ends = array("q", [end for _, _, end in entries])
        part = Page(
            array("q", [number for number, _, _ in entries]), array("I", [size for _, size, _ in entries]),
            ends if min(ends) != NO_EXPIRY else None, content)
        part.spill_file = self.spill_file
        return part

    def check(self) -> None:
        """Assert what must hold between calls."""
        numbers = self.numbers
        assert numbers and numbers == sorted(set(numbers)), "a page is empty or out of order"
        assert self.count == len(numbers), "a page's count is off"
        sizes = [self._sizes[bisect_left(self._numbers, number)] for number in numbers]
        assert self.body_bytes == sum(sizes), "a page's body bytes are off"
        if self.content is not None:
            assert {*numbers} <= {message.number for message in self.content}, "a page has lost its content"


# What was taken from a whole FIFO: listing the numbers of very many pages takes long.
Cleared = list["list[Message] | Page"]


def cost(run: Collection[Message]) -> int:
    """Return what these messages cost of the budget while they are in memory."""
    return body_bytes(run) + MESSAGE_COST * len(run)


def _pages_of(
    numbers: array[int], sizes: array[int], ends: array[int] | None, limits: PageLimits
) -> Iterator[Page]:
    """Yield pages of reasonable size for these messages."""
    start = total_bytes = 0
    for place, size in enumerate(sizes):
        total_bytes += size
        if place + 1 - start >= limits.messages or total_bytes >= limits.bytes:
            yield _page(numbers, sizes, ends, start, place + 1)
            start, total_bytes = place + 1, 0
    if start < len(numbers):
        yield _page(numbers, sizes, ends, start, len(numbers))


def _page(numbers: array[int], sizes: array[int], ends: array[int] | None, start: int, end: int) -> Page:
    own_expiries = None if ends is None else ends[start:end]
    if own_expiries is not None and min(own_expiries) == NO_EXPIRY:
        own_expiries = None
    return Page(numbers[start:end], sizes[start:end], own_expiries)


def forget_spill_files(removed: Cleared) -> Iterator[Act]:
    """Yield the acts that drop the spill files of these pages, which are no longer needed."""
    for part in removed:
        if isinstance(part, Page) and part.spill_file is not None:
            numbers = part.on_disk.numbers
            yield len(numbers), partial(part.spill_file.forget, numbers)
