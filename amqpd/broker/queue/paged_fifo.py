"""The ready messages of a queue, first in, first out by message number, paged to disk where memory has no room.

Owns which messages wait and how many bytes of body they have; why a message comes or goes is the queue's matter. A
priority queue has one such FIFO for each priority in use (`priority_fifo.py`).

A FIFO has a head in memory, then pages that are on disk, then a tail in memory, where new messages come. As long as
memory has room, there is only the head. A caller that wants to take messages loads `next_page` first.

Always true between calls:
- numbers rise from the head through the pages to the tail;
- a message that expires is in the queue's deadlines while it is in the head or tail. In a page, the page has its
  expiry, and `_ends` knows the next expiry of each page.

RabbitMQ docs/priority, docs/semantics (requeueing), docs/lazy-queues.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, count, groupby

from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.fifo import NO_LIMIT, Bound, without_bound
from amqpd.broker.queue.pages import (
    FEWEST_MESSAGES,
    FEWEST_OCTETS,
    PAGE_MESSAGES,
    PAGE_OCTETS,
    Cleared,
    OnDisk,
    Page,
    Removed,
)
from amqpd.broker.queue.segment import Budget, Segment, body_octets, number_of
from amqpd.message import Message

PAGE = PAGE_MESSAGES, PAGE_OCTETS


def is_nowhere(message: Message) -> bool:
    """Return that no store keeps the message."""
    return False


class PagedFifo:
    """First in, first out. `is_stored` says whether a message can be fetched, so that it need not be in memory."""

    __slots__ = ("_budget", "_deadlines", "_head", "_pages", "_tail", "_paged", "_paged_octets", "_unwritten", "_ends",
                 "_serials", "_is_stored")

    def __init__(self, budget: Budget, deadlines: Deadlines, is_stored: Callable[[Message], bool] = is_nowhere) -> None:
        self._is_stored = is_stored
        self._budget = budget
        self._deadlines = deadlines
        self._head = Segment(budget)
        self._pages: deque[Page] = deque()
        self._tail: Segment | None = None       # there while there are pages
        self._paged = self._paged_octets = 0
        self._unwritten: dict[Page, None] = {}      # pages that have their content in memory, or had it a moment ago
        # A heap of ends, first numbers, and serial numbers; entries of pages that have none left are passed over.
        self._ends: list[tuple[int, int, int, Page]] = []
        self._serials = count()

    def __len__(self) -> int:
        return len(self._head) + (self._paged + len(self._tail) if self._tail is not None else 0)

    def __iter__(self) -> Iterator[Message]:
        return chain(self._head, *[page.messages for page in self._pages], self._tail or ())

    def numbers(self) -> list[int]:
        """See `Fifo`."""
        paged = [page.numbers for page in self._pages]
        return [*map(number_of, self._head), *chain(*paged), *map(number_of, self._tail or ())]

    @property
    def octets(self) -> int:
        """See `Fifo`."""
        return self._head.octets + (self._paged_octets + self._tail.octets if self._tail is not None else 0)

    @property
    def cost(self) -> int:
        """See `Fifo`."""
        contents = sum([page.cost for page in self._unwritten])
        return self._head.cost + contents + (self._tail.cost if self._tail is not None else 0)

    @property
    def on_disk_only(self) -> tuple[int, int]:
        """See `Fifo`."""
        away = [page for page in self._pages if page.content is None]
        return sum([page.count for page in away]), sum([page.octets for page in away])

    @property
    def next_page(self) -> Page | None:
        """See `Fifo`."""
        return self._pages[0] if self._pages and not self._head else None

    @property
    def page_ahead(self) -> Page | None:
        """See `Fifo`."""
        is_short = len(self._head) < PAGE_MESSAGES and self._head.octets < PAGE_OCTETS
        return self._pages[0] if self._pages and is_short else None

    # Messages in

    def extend(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        (self._head if self._tail is None else self._tail).extend(run)

    def restore(self, level: int, pages: Iterable[Page]) -> None:
        """See `Fifo`; there is one level."""
        for page in pages:
            self._add_page(page)
            self._pages.append(page)

    def put_back(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        if not all([message.content for message in run]):
            self._put_back_unread(sorted([message for message in run if not message.content], key=number_of))
            run = [message for message in run if message.content]
            if not run:
                return
        if self._tail is None:
            self._head.put_back(run)
            return
        first, last = self._pages[0].first, self._pages[-1].last
        for segment, part in (
            (self._head, [message for message in run if message.number < first]),
            (self._tail, [message for message in run if message.number > last]),
        ):
            if part:
                segment.put_back(part)
        between = [message for message in run if first < message.number < last]
        if between:
            self._put_between(sorted(between, key=number_of))

    def _put_back_unread(self, run: list[Message]) -> None:
        """Put references, in order, into pages.

        What is in memory and comes after the first of them goes from the head to pages that have their content; so does
        what comes before the last of them from the tail.
        """
        first, last = run[0].number, run[-1].number
        tail, after = self._tail, Segment(self._budget)
        if tail is None:
            tail, self._head = self._head, after
            self._head.extend(self._taken_to(tail, first))
            self._tail = tail
        else:
            later = self._head.take_last(NO_LIMIT, NO_LIMIT, lambda message: message.number > first)
            self._pages.extendleft(reversed(self._pages_of(later)))
        self._pages.extend(self._pages_of(self._taken_to(tail, last)))
        self._put_between(run)

    def _taken_to(self, segment: Segment, number: int) -> list[Message]:
        """Take what comes before this number out of a segment."""
        run = segment.take(NO_LIMIT, NO_LIMIT, number) if segment and segment.first_number < number else []
        self._budget.effort.total += len(run)
        return run

    def _pages_of(self, run: list[Message]) -> list[Page]:
        """Return pages of messages in memory, which count from now on."""
        pages = _in_size(Page.of(run, self._deadlines.page_out(run))) if run else []
        for page in pages:
            self._add_page(page)
        return pages

    def _put_between(self, run: list[Message]) -> None:
        """Put messages, in order, between those of the pages; references also behind them."""
        start = 0
        while start < len(run):
            at = bisect_left(self._pages, run[start].number, key=_last_of)
            if at == len(self._pages):
                self._pages.extend(self._pages_of(run[start:]))
                return
            end = bisect_left(run, self._pages[at].last, start, key=number_of)
            self._put_into(at, run[start:end])
            start = end

    def _put_into(self, at: int, run: list[Message]) -> None:
        """Put messages into the page at this place, or before it.

        What the store keeps joins a page that is on disk, and is on disk then too. Else they are a page of their own,
        or several between parts of this one, unless that is in memory. References join no page in memory.
        """
        page = self._pages[at]
        ends = self._deadlines.page_out(run)
        joins = all(map(self._is_stored, run)) if page.content is None else bool(
            run[0].content) and not page.is_leaving
        if joins and len(run) == 1 and page.content is None and not ends and not page.has_expiries and (
                page.count < 2 * PAGE_MESSAGES and page.octets < 2 * PAGE_OCTETS):
            self._remove_page(page)
            page.insert(run[0])
            self._add_page(page)
            return
        self._budget.effort.total += page.count + len(run)      # it is made anew, in one part or several
        if not joins and run[-1].number < page.first:
            parts = [*_in_size(Page.of(run, ends)), page]
        else:
            self._remove_page(page)
            parts = _in_size(page.merged(run, ends)) if joins else _between(page, run, ends)
        del self._pages[at]
        for part in reversed(parts):
            self._pages.insert(at, part)
            if part is not page:
                self._add_page(part)

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
        page = self._pages.popleft()
        self._remove_page(page)
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
        for page in self._pages:
            left.append(page if page.content is None else page.messages)
            self._budget.used -= page.cost
            page.count = 0
        if self._tail is not None:
            left.append(self._tail.clear())
        self._pages.clear()
        self._unwritten.clear()
        self._ends.clear()
        self._paged = self._paged_octets = 0
        self._tail = None
        return left

    def trim(self, most: int, most_octets: int, limit: int = NO_LIMIT) -> Removed:
        """See `Fifo`."""
        left: Removed = []
        least = len(self) - limit
        while len(self) > least and (len(self) > most or self.octets > most_octets):
            page = self.next_page
            if page is None:
                left.append(self._head.take(max(1, len(self) - max(most, least)), NO_LIMIT))
            elif page.content is not None:
                self.load(page.content)
            else:
                left.append(self._drop_of(page, most, most_octets))
        return left

    def _drop_of(self, page: Page, most: int, most_octets: int) -> OnDisk:
        """Let go of the first messages of the first page."""
        numbers = []
        self._remove_page(page)
        others, other_octets = len(self), self.octets
        while page.count and (others + page.count > most or other_octets + page.octets > most_octets):
            numbers.append(page.drop_first())
        if page.count:
            self._add_page(page)
        else:
            self._pages.popleft()
            self._join()
        return OnDisk(numbers, page.spill_file)

    def remove(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        if self._tail is None:
            self._head.remove(run)
            return
        first = self._pages[0].first
        for segment, part in (
            (self._head, [message for message in run if message.number < first]),
            (self._tail, [message for message in run if message.number > first]),
        ):
            if part:
                segment.remove(part)

    @property
    def next_expiry(self) -> int | None:
        """See `Fifo`."""
        return self._ends[0][0] if self._ends else None

    def take_due(self, now_ms: int, limit: int = NO_LIMIT) -> Removed:
        """See `Fifo`."""
        left: Removed = []
        on_disk: list[int] = []
        octets = 0
        has_empty = False
        least = len(self) - limit
        while self._ends and self._ends[0][0] <= now_ms and len(self) > least:
            page = heapq.heappop(self._ends)[-1]
            if not page.count:
                continue
            self._remove_page(page)
            before = page.octets
            due = page.take_due(now_ms)
            if page.content is not None:
                ended = {*due}
                left.append([message for message in page.content if message.number in ended])
            elif page.spill_file is not None:
                left.append(OnDisk(due, page.spill_file))
            else:
                on_disk += due      # together, as one of each page may be due, but no more than is read at once
                octets += before - page.octets
                if octets >= PAGE_OCTETS:
                    left.append(OnDisk(sorted(on_disk)))
                    on_disk, octets = [], 0
            if page.count:
                self._add_page(page)
            else:
                has_empty = True
        if on_disk:
            left.append(OnDisk(sorted(on_disk)))
        if has_empty:
            self._pages = deque([page for page in self._pages if page.count])
        self._join()
        return left

    # Between memory and disk

    def page_out(self, octets: int, may_go: Callable[[Message], bool]) -> list[Page]:
        """See `Fifo`. A page's worth of messages stays at the head."""
        tail = self._tail
        if tail is None:
            kept = self._head.take(PAGE_MESSAGES, PAGE_OCTETS)
            tail, self._head = self._head, Segment(self._budget)
            self._head.extend(kept)
            self._tail = tail
        made = self._with_content(octets)
        octets -= sum([page.cost for page in made])
        while octets > 0 and (page := self._page_of(tail.take_first(*PAGE, may_go), tail.put_back)) is not None:
            self._pages.append(page)
            made.append(page)
            octets -= page.cost
        while octets > 0 and self._pages and len(self._head) > 2 * PAGE_MESSAGES and (
                page := self._page_of(self._head.take_last(*PAGE, may_go), self._head.extend)) is not None:
            self._pages.appendleft(page)
            made.append(page)
            octets -= page.cost
        self._join()
        return made

    def _with_content(self, octets: int) -> list[Page]:
        """Return pages that have their content in memory, up to so many octets; others come first the next time."""
        found, seen = [], []
        for page in self._unwritten:
            if octets <= 0:
                break
            seen.append(page)
            if page.content is not None and not page.is_leaving:
                found.append(page)
                octets -= page.cost
        for page in seen:
            del self._unwritten[page]
            if page.content is not None:
                self._unwritten[page] = None
        return found

    def _page_of(self, run: list[Message], give_back: Callable[[list[Message]], None]) -> Page | None:
        """A page of what was taken for it; None, and all is given back, where that is too little."""
        if len(run) >= FEWEST_MESSAGES or body_octets(run) >= FEWEST_OCTETS:
            page = self._new_page(run)
            self._add_page(page)
            return page
        if run:
            give_back(run)
        return None

    def _new_page(self, run: list[Message]) -> Page:
        return Page.of(run, self._deadlines.page_out(run))

    def _add_page(self, page: Page) -> None:
        """Count a page that is to be among the others."""
        if self._tail is None:
            self._tail = Segment(self._budget)
        self._paged += page.count
        self._paged_octets += page.octets
        self._budget.used += page.cost
        if page.content is not None:
            self._unwritten[page] = None
        end = page.next_expiry
        if end is not None:
            heapq.heappush(self._ends, (end, page.first, next(self._serials), page))

    def _remove_page(self, page: Page) -> None:
        self._paged -= page.count
        self._paged_octets -= page.octets
        self._budget.used -= page.cost
        self._unwritten.pop(page, None)

    def _join(self) -> None:
        """Without pages there is but one segment."""
        if self._tail is None or self._pages:
            return
        if not self._head:
            self._head = self._tail
        elif len(self._tail) < len(self._head):
            self._head.extend(self._tail.clear())
        else:
            self._tail.put_back(self._head.clear())
            self._head = self._tail
        self._tail = None
        self._ends.clear()

    def check(self) -> None:
        """See `Fifo`."""
        for segment in (self._head, self._tail):
            if segment is not None:
                segment.check()
        for page in self._pages:
            page.check()
            assert page.content is None or page in self._unwritten, "a page is never written"
        numbers = self.numbers()
        assert numbers == sorted(set(numbers)), "ready is out of publish order"
        assert len(numbers) == len(self), "the length is off"
        assert (self._tail is not None) == bool(self._pages), "pages without a tail, or a tail without pages"
        waking = {(end, id(page)) for end, _, _, page in self._ends}
        for page in self._pages:
            expiry = page.next_expiry
            assert expiry is None or (expiry, id(page)) in waking, "a page has an expiry that never comes"


def _last_of(page: Page) -> int:
    return page.last


def _in_size(page: Page) -> list[Page]:
    """Return this page, or parts of it where it is much larger than is read at once."""
    if page.count <= 2 * PAGE_MESSAGES and page.octets <= 2 * PAGE_OCTETS:
        return [page]
    step = max(1, min(PAGE_MESSAGES, page.count * PAGE_OCTETS // max(1, page.octets)))
    return page.split(range(step, page.count, step))


def _between(page: Page, run: list[Message], ends: Mapping[int, int]) -> list[Page]:
    """Return parts of a page, with pages of the messages that belong between them."""
    numbers = page.numbers
    groups = [list(group) for _, group in groupby(run, key=lambda message: bisect_left(numbers, message.number))]
    parts = page.split([bisect_left(numbers, group[0].number) for group in groups])
    made = [part for group in groups for part in _in_size(Page.of(group, ends))]
    return sorted([*parts, *made], key=_last_of)
