"""The ready messages of a queue, first in, first out by message number, paged to disk if memory has no room.

Owns the waiting messages and the sum of their sizes; the queue decides why a message comes or goes. A priority queue
has one such FIFO for each priority in use (`priority_fifo.py`).

A FIFO has a head in memory, then pages on disk (`page_list.py`), then a tail in memory, where new messages are added.
As long as memory has room, there is only the head. A caller that wants to take messages loads `next_page` first.

Always true between calls:
- numbers rise from the head through the pages to the tail;
- a message with an expiry is in the queue's deadlines while it is in the head or tail; while it is in a page, the page
  has its expiry.

RabbitMQ docs/priority, docs/semantics (requeueing), docs/lazy-queues.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain

from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.fifo import NO_LIMIT, Bound, Place, without_bound
from amqpd.broker.queue.page_list import PageList
from amqpd.broker.queue.page_limits import PageLimits
from amqpd.broker.queue.pages import NEVER_DUE, Cleared, Due, OnDisk, Page, Removed
from amqpd.broker.queue.segment import Budget, Segment, body_bytes, number_of
from amqpd.message import Message


def is_nowhere(message: Message) -> bool:
    """Return False: no store keeps the message."""
    return False


class PagedFifo:
    """First in, first out. `is_stored` tells whether a message can be fetched, so that it need not be in memory."""

    __slots__ = ("_budget", "_deadlines", "_is_stored", "_head", "_paged")

    def __init__(self, budget: Budget, deadlines: Deadlines, is_stored: Callable[[Message], bool] = is_nowhere) -> None:
        self._budget = budget
        self._deadlines = deadlines
        self._is_stored = is_stored
        self._head = Segment(budget)
        self._paged: PageList | None = None     # and the tail behind them; None without pages

    def __len__(self) -> int:
        paged = self._paged
        return len(self._head) + (paged.count + len(paged.tail) if paged is not None else 0)

    def __iter__(self) -> Iterator[Message]:
        paged = self._paged
        if paged is None:
            return iter(self._head)
        return chain(self._head, *[page.messages for page in paged.pages], paged.tail)

    def numbers(self) -> list[int]:
        """See `Fifo`."""
        paged = self._paged
        numbers = [*map(number_of, self._head)]
        return numbers if paged is None else [
            *numbers, *chain(*[page.numbers for page in paged.pages]), *map(number_of, paged.tail)]

    @property
    def body_bytes(self) -> int:
        """See `Fifo`."""
        paged = self._paged
        return self._head.body_bytes + (paged.body_bytes + paged.tail.body_bytes if paged is not None else 0)

    @property
    def cost(self) -> int:
        """See `Fifo`."""
        paged = self._paged
        return self._head.cost + (paged.cost + paged.tail.cost if paged is not None else 0)

    @property
    def on_disk_only(self) -> tuple[int, int]:
        """See `Fifo`."""
        return self._paged.on_disk_only if self._paged is not None else (0, 0)

    @property
    def next_page(self) -> Page | None:
        """See `Fifo`."""
        return self._paged.pages[0] if self._paged is not None and not self._head else None

    @property
    def page_ahead(self) -> Page | None:
        """See `Fifo`."""
        if self._paged is None:
            return None
        limits = self._budget.page_limits
        is_short = len(self._head) < limits.messages and self._head.body_bytes < limits.bytes
        return self._paged.pages[0] if is_short else None

    def _begin_paging(self, tail: Segment) -> PageList:
        """Begin to have pages, with this segment as the tail; the caller adds pages, or calls `_join`."""
        self._paged = PageList(self._budget, self._deadlines, self._is_stored, tail)
        return self._paged

    def _join(self) -> None:
        """Join head and tail to one segment if there are no pages between them."""
        paged = self._paged
        if paged is None or paged.pages:
            return
        tail = paged.tail
        if not self._head:
            self._head = tail
        elif len(tail) < len(self._head):
            self._head.extend(tail.clear())
        else:
            tail.put_back(self._head.clear())
            self._head = tail
        self._paged = None

    # Messages in

    def extend(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        (self._head if self._paged is None else self._paged.tail).extend(run)

    def restore(self, level: int, pages: Iterable[Page]) -> None:
        """See `Fifo`; there is one level."""
        paged = self._paged or self._begin_paging(Segment(self._budget))
        for page in pages:
            paged.append(page)
        self._join()

    def put_back(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        if not all([message.content for message in run]):
            self._put_back_unread(sorted([message for message in run if not message.content], key=number_of))
            run = [message for message in run if message.content]
            if not run:
                return
        paged = self._paged
        if paged is None:
            self._head.put_back(run)
            return
        first, last = paged.pages[0].first, paged.pages[-1].last
        for segment, part in (
            (self._head, [message for message in run if message.number < first]),
            (paged.tail, [message for message in run if message.number > last]),
        ):
            if part:
                segment.put_back(part)
        between = [message for message in run if first < message.number < last]
        if between:
            paged.put_between(sorted(between, key=number_of))

    def _put_back_unread(self, run: list[Message]) -> None:
        """Put references, in order, into pages.

        Messages of the head after the first of them go to pages with their content, and so do messages of the tail
        before the last of them.
        """
        first, last = run[0].number, run[-1].number
        paged = self._paged
        if paged is None:
            paged = self._begin_paging(self._head)
            self._head = Segment(self._budget)
            self._head.extend(paged.tail.take_before(first))
        else:
            paged.prepend_run(self._head.take_last(NO_LIMIT, NO_LIMIT, lambda message: message.number > first))
        paged.append_run(paged.tail.take_before(last))
        paged.put_between(run)

    # Messages out

    @property
    def first_number(self) -> int:
        """See `Fifo`."""
        return self._head.first_number

    def number_at(self, place: int) -> int:
        """See `Fifo`."""
        return self._head.number_at(place)

    def take(self, limit: int, room: int, bound: Bound = without_bound) -> list[Message]:
        """See `Fifo`."""
        return self._head.take(limit, room, bound(self._head.first_number))

    def load(self, found: Collection[Message]) -> list[int]:
        """See `Fifo`."""
        assert self._paged is not None
        page = self._paged.take_first()
        numbers = page.numbers
        messages = page.left_of(found)
        self._head.extend(messages)
        self._deadlines.add(page.expiries_of(messages))
        if page.spill_file is not None:
            page.spill_file.forget(numbers)
        page.count = 0
        self._join()
        if len(messages) == len(numbers):
            return []
        return sorted({*numbers} - {message.number for message in messages})

    def clear(self) -> Cleared:
        """See `Fifo`."""
        left: Cleared = [self._head.clear()]
        if self._paged is not None:
            left += [*self._paged.clear(), self._paged.tail.clear()]
            self._paged = None
        return left

    def trim(self, most: int, most_bytes: int, limit: int = NO_LIMIT) -> Removed:
        """See `Fifo`."""
        left: Removed = []
        least = len(self) - limit
        while len(self) > least and (len(self) > most or self.body_bytes > most_bytes):
            page, paged = self.next_page, self._paged
            if page is None or paged is None:
                left.append(self._head.take(max(1, len(self) - max(most, least)), NO_LIMIT))
            elif page.content is not None:
                self.load(page.content)
            else:
                left.append(paged.drop_first(most - len(paged.tail), most_bytes - paged.tail.body_bytes))
                self._join()
        return left

    def remove(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        if self._paged is None:
            self._head.remove(run)
            return
        first = self._paged.pages[0].first
        for segment, part in (
            (self._head, [message for message in run if message.number < first]),
            (self._paged.tail, [message for message in run if message.number > first]),
        ):
            if part:
                segment.remove(part)

    def after(self, place: Place, limit: int) -> tuple[list[Message] | OnDisk, int]:
        """See `Fifo`; the level of a place does not matter."""
        _, number = place
        found: list[Message] | OnDisk = self._head.after(number, limit)
        if not found and self._paged is not None:
            found = self._paged.after(number, limit) or self._paged.tail.after(number, limit)
        return found, 0

    def before(self, position: int) -> tuple[Place, int]:
        """See `Fifo`."""
        paged, in_head = self._paged, len(self._head)
        if paged is None or position < in_head:
            number, left = self._head.before(min(position, in_head))
            left += max(0, position - in_head)
        else:
            number, left = paged.before(min(position - in_head, paged.count + len(paged.tail)))
        return (0, number), left

    def take_out(self, run: Sequence[Message]) -> None:
        """See `Fifo`."""
        paged = self._paged
        if paged is None:
            self._head.remove(run)
            return
        start = bisect_left(run, paged.pages[0].first, key=number_of)
        end = bisect_right(run, paged.pages[-1].last, start, key=number_of)
        if start:
            self._head.remove(run[:start])
        if end < len(run):
            paged.tail.remove(run[end:])
        paged.take_out(run[start:end])
        self._join()

    @property
    def next_expiry(self) -> int | None:
        """See `Fifo`."""
        return self._paged.next_expiry if self._paged is not None else None

    @property
    def next_due(self) -> Due:
        """See `Fifo`."""
        return self._paged.next_due if self._paged is not None else NEVER_DUE

    def take_due(self, now_ms: int, limit: int = NO_LIMIT, until: Due = NEVER_DUE) -> Removed:
        """See `Fifo`."""
        if self._paged is None:
            return []
        left = self._paged.take_due(now_ms, limit, until)
        self._join()
        return left

    # Between memory and disk

    def page_out(self, wanted: int, may_go: Callable[[Message], bool]) -> list[Page]:
        """See `Fifo`. A page's worth of messages stays at the head."""
        paged, limits = self._paged, self._budget.page_limits
        page_size = limits.messages, limits.bytes
        if paged is None:
            kept = self._head.take(*page_size)
            paged = self._begin_paging(self._head)
            self._head = Segment(self._budget)
            self._head.extend(kept)
        tail = paged.tail
        made = paged.with_content(wanted)
        wanted -= sum([page.cost for page in made])
        while wanted > 0 and _is_enough(run := tail.take_first(*page_size, may_go), limits, tail.put_back):
            page = paged.page_of(run)
            paged.append(page)
            made.append(page)
            wanted -= page.cost
        while wanted > 0 and paged.pages and len(self._head) > 2 * limits.messages and _is_enough(
                run := self._head.take_last(*page_size, may_go), limits, self._head.extend):
            page = paged.page_of(run)
            paged.prepend(page)
            made.append(page)
            wanted -= page.cost
        self._join()
        return made

    def check(self) -> None:
        """See `Fifo`."""
        self._head.check()
        if self._paged is not None:
            assert self._paged.pages, "a tail without pages"
            self._paged.check()
        numbers = self.numbers()
        assert numbers == sorted(set(numbers)), "ready is out of publish order"
        assert len(numbers) == len(self), "the length is off"


def _is_enough(run: list[Message], limits: PageLimits, give_back: Callable[[list[Message]], None]) -> bool:
    """Return whether these are enough for a page; if not, give them back."""
    if len(run) >= limits.fewest_messages or body_bytes(run) >= limits.fewest_bytes:
        return True
    if run:
        give_back(run)
    return False
