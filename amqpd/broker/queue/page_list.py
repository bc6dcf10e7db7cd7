"""The pages of one FIFO, in order, and the segment in memory behind them.

Always true between calls: numbers rise from page to page; `count` and `body_bytes` are those of the pages, and the
budget has been charged for contents in memory; every page with expiries is in the heap with its next one.

RabbitMQ docs/lazy-queues.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count, groupby

from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.page_limits import PageLimits
from amqpd.broker.queue.pages import NEVER_DUE, NO_EXPIRY, Cleared, Due, OnDisk, Page, Removed
from amqpd.broker.queue.segment import Budget, Segment, number_of
from amqpd.message import Message


class PageList:
    """The pages of a FIFO, and its tail. `is_stored` tells whether a message can be fetched from the store."""

    __slots__ = (
        "pages", "tail", "count", "body_bytes", "_budget", "_limits", "_deadlines", "_is_stored", "_unwritten",
        "_expiries", "_serials")

    def __init__(
        self, budget: Budget, deadlines: Deadlines, is_stored: Callable[[Message], bool], tail: Segment
    ) -> None:
        self.pages: deque[Page] = deque()
        self.tail = tail
        self.count = self.body_bytes = 0
        self._budget = budget
        self._limits = budget.page_limits
        self._deadlines = deadlines
        self._is_stored = is_stored
        self._unwritten: dict[Page, None] = {}      # pages that have their content in memory, or had it a moment ago
        # A heap of expiries, first numbers, and serial numbers; entries of pages that are gone are skipped.
        self._expiries: list[tuple[int, int, int, Page]] = []
        self._serials = count()

    @property
    def cost(self) -> int:
        """What the contents in memory cost of the budget."""
        return sum([page.cost for page in self._unwritten])

    @property
    def on_disk_only(self) -> tuple[int, int]:
        """See `Fifo`."""
        away = [page for page in self.pages if page.content is None]
        return sum([page.count for page in away]), sum([page.body_bytes for page in away])

    @property
    def next_expiry(self) -> int | None:
        """When the next message of a page expires, or a little earlier."""
        return self._expiries[0][0] if self._expiries else None

    @property
    def next_due(self) -> Due:
        """See `Fifo`."""
        return self._expiries[0][:2] if self._expiries else NEVER_DUE

    # Pages in and out

    def append(self, page: Page) -> None:
        """Add a page behind all others."""
        self._count(page)
        self.pages.append(page)

    def append_run(self, run: Collection[Message]) -> None:
        """Add pages of these messages, in order, behind all others."""
        for page in self._pages_of(run):
            self.append(page)

    def prepend(self, page: Page) -> None:
        """Add a page before all others."""
        self._count(page)
        self.pages.appendleft(page)

    def prepend_run(self, run: Collection[Message]) -> None:
        """Add pages of these messages, in order, before all others."""
        for page in reversed(self._pages_of(run)):
            self.prepend(page)

    def take_first(self) -> Page:
        """Remove and return the first page."""
        page = self.pages.popleft()
        self._discount(page)
        return page

    def page_of(self, run: Collection[Message]) -> Page:
        """Return a page of messages in memory, which is to be added."""
        run = list(run)
        return Page.of(run, self._deadlines.page_out(run))

    def _pages_of(self, run: Collection[Message]) -> list[Page]:
        return _in_size(self.page_of(run), self._limits) if run else []

    def _count(self, page: Page) -> None:
        self.count += page.count
        self.body_bytes += page.body_bytes
        self._budget.used += page.cost
        if page.content is not None:
            self._unwritten[page] = None
        expiry = page.next_expiry
        if expiry is not None:
            heapq.heappush(self._expiries, (expiry, page.first, next(self._serials), page))

    def _discount(self, page: Page) -> None:
        self.count -= page.count
        self.body_bytes -= page.body_bytes
        self._budget.used -= page.cost
        self._unwritten.pop(page, None)

    def clear(self) -> Cleared:
        """Remove and return all: pages that are on disk only, else lists of messages. The list is not used any more."""
        left: Cleared = []
        for page in self.pages:
            left.append(page if page.content is None else page.messages)
            self._budget.used -= page.cost
            page.count = 0
        return left

    # Messages in

    def put_between(self, run: list[Message]) -> None:
        """Put messages, in order, between those of the pages; references also behind them."""
        start = 0
        while start < len(run):
            at = bisect_left(self.pages, run[start].number, key=_last_of)
            if at == len(self.pages):
                self.append_run(run[start:])
                return
            end = bisect_left(run, self.pages[at].last, start, key=number_of)
            self._put_into(at, run[start:end])
            start = end

    def _put_into(self, at: int, run: list[Message]) -> None:
        """Put messages into the page at this position, or before it.

        Stored messages join a page that is on disk, and are then only on disk too. Others become a page of their own,
        or several between parts of this one, unless this one is in memory. References do not join a page in memory.
        """
        page, limits = self.pages[at], self._limits
        ends = self._deadlines.page_out(run)
        joins = all(map(self._is_stored, run)) if page.content is None else bool(
            run[0].content) and not page.is_leaving
        if joins and len(run) == 1 and page.content is None and not ends and not page.has_expiries and (
                page.count < 2 * limits.messages and page.body_bytes < 2 * limits.bytes):
            self._discount(page)
            page.insert(run[0])
            self._count(page)
            return
        self._budget.effort.total += page.count + len(run)      # it is rebuilt, in one part or several
        if not joins and run[-1].number < page.first:
            parts = [*_in_size(Page.of(run, ends), limits), page]
        else:
            self._discount(page)
            parts = _in_size(page.merged(run, ends), limits) if joins else _between(page, run, ends, limits)
        del self.pages[at]
        for part in reversed(parts):
            self.pages.insert(at, part)
            if part is not page:
                self._count(part)

    # Messages out

    def drop_first(self, most: int, most_bytes: int) -> OnDisk:
        """Remove from the first page, which is on disk, what exceeds so many messages, or bytes of body, of all."""
        page = self.pages[0]
        numbers = []
        self._discount(page)
        while page.count and (self.count + page.count > most or self.body_bytes + page.body_bytes > most_bytes):
            numbers.append(page.drop_first())
        if page.count:
            self._count(page)
        else:
            self.pages.popleft()
        return OnDisk(numbers, page.spill_file)

    def take_due(self, now_ms: int, limit: int, until: Due = NEVER_DUE) -> Removed:
        """See `Fifo`."""
        left: Removed = []
        on_disk: list[int] = []
        total_bytes = 0
        has_empty = False
        least = self.count - limit
        until = min(until, (now_ms, NO_EXPIRY))
        while self._expiries and self._expiries[0][:2] <= until and self.count > least:
            page = heapq.heappop(self._expiries)[-1]
            if not page.count:
                continue
            self._discount(page)
            before = page.body_bytes
            due = page.take_due(now_ms)
            if page.content is not None:
                expired = {*due}
                left.append([message for message in page.content if message.number in expired])
            elif page.spill_file is not None:
                left.append(OnDisk(due, page.spill_file))
            else:
                on_disk += due      # together, as one of each page may have expired, but no more than is read at once
                total_bytes += before - page.body_bytes
                if total_bytes >= self._limits.bytes:
                    left.append(OnDisk(sorted(on_disk)))
                    on_disk, total_bytes = [], 0
            if page.count:
                self._count(page)
            else:
                has_empty = True
        if on_disk:
            left.append(OnDisk(sorted(on_disk)))
        if has_empty:
            self.pages = deque([page for page in self.pages if page.count])
        return left

    def after(self, number: int, limit: int) -> list[Message] | OnDisk:
        """Return the next messages of a page behind this number, at most `limit`; they stay. Empty behind the pages."""
        pages = self.pages
        for at in range(bisect_right(pages, number, key=_last_of), len(pages)):
            page = pages[at]
            if page.content is not None:
                found = [message for message in page.messages if message.number > number][:limit]
                if found:
                    return found
                continue
            numbers = page.numbers
            start = bisect_right(numbers, number)
            if start < len(numbers):
                return OnDisk(numbers[start : start + limit], page.spill_file)
        return []

    def before(self, place: int) -> tuple[int, int]:
        """See `Segment.before`; the position is one of the pages or of the tail."""
        for page in self.pages:
            if place < page.count:
                return (page.numbers[place - 1] if place else page.first - 1), 0
            place -= page.count
        return self.tail.before(place) if place else (self.pages[-1].last, 0)

    def take_out(self, run: Sequence[Message]) -> None:
        """Remove these messages, in order, which are in pages."""
        start, has_empty = 0, False
        while start < len(run):
            page = self.pages[bisect_left(self.pages, run[start].number, key=_last_of)]
            end = bisect_right(run, page.last, start, key=number_of)
            self._discount(page)
            page.take_out([message.number for message in run[start:end]])
            if page.count:
                self._count(page)
            else:
                has_empty = True
            start = end
        if has_empty:
            self.pages = deque([page for page in self.pages if page.count])

    # Between memory and disk

    def with_content(self, wanted: int) -> list[Page]:
        """Return pages with their content in memory, up to so many bytes; the next call begins with other pages."""
        found, seen = [], []
        for page in self._unwritten:
            if wanted <= 0:
                break
            seen.append(page)
            if page.content is not None and not page.is_leaving:
                found.append(page)
                wanted -= page.cost
        for page in seen:
            del self._unwritten[page]
            if page.content is not None:
                self._unwritten[page] = None
        return found

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.tail.check()
        for page in self.pages:
            page.check()
            assert page.content is None or page in self._unwritten, "a page is never written"
        waking = {(expiry, id(page)) for expiry, _, _, page in self._expiries}
        for page in self.pages:
            expiry = page.next_expiry
            assert expiry is None or (expiry, id(page)) in waking, "a page has an expiry that never comes"


def _last_of(page: Page) -> int:
    return page.last


def _in_size(page: Page, limits: PageLimits) -> list[Page]:
    """Return this page, or parts of it if it is much larger than what is read at once."""
    if page.count <= 2 * limits.messages and page.body_bytes <= 2 * limits.bytes:
        return [page]
    step = max(1, min(limits.messages, page.count * limits.bytes // max(1, page.body_bytes)))
    return page.split(range(step, page.count, step))


def _between(page: Page, run: list[Message], ends: Mapping[int, int], limits: PageLimits) -> list[Page]:
    """Return parts of a page, with pages of the messages that belong between them."""
    numbers = page.numbers
    groups = [list(group) for _, group in groupby(run, key=lambda message: bisect_left(numbers, message.number))]
    parts = page.split([bisect_left(numbers, group[0].number) for group in groups])
    made = [part for group in groups for part in _in_size(Page.of(group, ends), limits)]
    return sorted([*parts, *made], key=_last_of)
