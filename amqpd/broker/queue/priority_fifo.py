"""The ready messages of a queue with priorities: first in, first out within each level, the highest level first.

Owns one `PagedFifo` for each level that has messages: most queues use few of their levels, and a level without messages
costs neither memory nor time. A FIFO that became empty is kept for the next level that is used.

Always true between calls:
- `_levels` are the levels that have messages, in rising order, and the keys of `_lines`;
- `_count` and `body_bytes` are the sums over all levels; `next_expiry` is the earliest of theirs.

RabbitMQ docs/priority.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.fifo import NO_LIMIT, Bound, Place, without_bound
from amqpd.broker.queue.paged_fifo import PagedFifo, is_nowhere
from amqpd.broker.queue.pages import NEVER_DUE, Cleared, Due, OnDisk, Page, Removed
from amqpd.broker.queue.segment import DELIVERY_OVERHEAD, Budget
from amqpd.message import Message

KEPT_LINES = 1      # empty FIFOs, of about 2.5 KiB each


class PriorityFifo:
    """The ready messages in levels from 0 to `highest`; see `Fifo`."""

    def __init__(
        self, highest: int, budget: Budget, deadlines: Deadlines, is_stored: Callable[[Message], bool] = is_nowhere
    ) -> None:
        self._is_stored = is_stored
        self.body_bytes = 0
        self.next_expiry: int | None = None
        self._highest = highest
        self._budget = budget
        self._deadlines = deadlines
        self._lines: dict[int, PagedFifo] = {}
        self._levels: list[int] = []
        self._empty: list[PagedFifo] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Message]:
        return chain.from_iterable(self._from_highest())

    @property
    def lengths(self) -> dict[int, int]:
        """The number of messages of each priority that has some."""
        return {level: len(line) for level, line in self._lines.items()}

    def numbers(self) -> list[int]:
        """See `Fifo`."""
        return [number for line in self._from_highest() for number in line.numbers()]

    @property
    def cost(self) -> int:
        """See `Fifo`."""
        return sum([line.cost for line in self._lines.values()])

    @property
    def on_disk_only(self) -> tuple[int, int]:
        """See `Fifo`."""
        each = [line.on_disk_only for line in self._lines.values()]
        return sum([count for count, _ in each]), sum([total_bytes for _, total_bytes in each])

    @property
    def next_page(self) -> Page | None:
        """See `Fifo`."""
        return self._lines[self._levels[-1]].next_page if self._levels else None

    @property
    def page_ahead(self) -> Page | None:
        """See `Fifo`."""
        return self._lines[self._levels[-1]].page_ahead if self._levels else None

    @property
    def first_number(self) -> int:
        """See `Fifo`."""
        return self._lines[self._levels[-1]].first_number if self._levels else 0

    def number_at(self, place: int) -> int:
        """See `Fifo`."""
        return max([line.number_at(place) for line in self._lines.values()], default=0)

    # The levels in use

    def _from_highest(self) -> list[PagedFifo]:
        return [self._lines[level] for level in reversed(self._levels)]

    def _line(self, level: int) -> PagedFifo:
        """Return the FIFO of this level, or a new one; the caller puts messages into it."""
        line = self._lines.get(level)
        if line is None:
            line = self._empty.pop() if self._empty else PagedFifo(
                self._budget, self._deadlines, self._is_stored)
            self._lines[level] = line
            insort(self._levels, level)
        return line

    def _on(self, level: int, act: Callable[[PagedFifo], Removed | None]) -> Removed:
        """Call `act` with the FIFO of a level, which it may leave empty; return its result."""
        line = self._line(level)
        count, total_bytes, next_expiry = len(line), line.body_bytes, line.next_expiry
        left = act(line)
        self._count += len(line) - count
        self.body_bytes += line.body_bytes - total_bytes
        ends_anew = line.next_expiry != next_expiry
        if not line:
            self._drop(level, line)
        if ends_anew:
            expiries = [fifo.next_expiry for fifo in self._lines.values() if fifo.next_expiry is not None]
            self.next_expiry = min(expiries, default=None)
        return left or []

    def _drop(self, level: int, line: PagedFifo) -> None:
        del self._lines[level]
        del self._levels[bisect_left(self._levels, level)]
        if not self._levels:
            self._lines.clear()     # so that it shrinks
            self._levels.clear()
        if len(self._empty) < KEPT_LINES:
            self._empty.append(line)

    # Messages in

    def extend(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        for level, messages in by_level(run, self._highest).items():
            line = self._line(level)
            total_bytes = line.body_bytes
            line.extend(messages)
            self._count += len(messages)
            self.body_bytes += line.body_bytes - total_bytes

    def restore(self, level: int, pages: Iterable[Page]) -> None:
        """See `Fifo`."""
        self._on(level, partial(PagedFifo.restore, level=0, pages=pages))

    def put_back(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        for level, messages in by_level(run, self._highest).items():
            self._on(level, partial(PagedFifo.put_back, run=messages))

    def load(self, found: Collection[Message]) -> list[int]:
        """See `Fifo`."""
        missing: list[int] = []

        def act(line: PagedFifo) -> None:
            missing.extend(line.load(found))

        if self._levels:
            self._on(self._levels[-1], act)
        return missing

    # Messages out

    def take(self, limit: int, room: int, bound: Bound = without_bound) -> list[Message]:
        """See `Fifo`."""
        run: list[Message] = []
        while self._levels and len(run) < limit and room > 0:
            level = self._levels[-1]
            line = self._lines[level]
            total_bytes = line.body_bytes
            taken = line.take(limit - len(run), room, bound)
            used = total_bytes - line.body_bytes
            self._count -= len(taken)
            self.body_bytes -= used
            room -= used + DELIVERY_OVERHEAD * len(taken)
            run += taken
            if line:
                break           # a page of this level must be loaded before any lower level
            self._drop(level, line)
        return run

    def clear(self) -> Cleared:
        """See `Fifo`."""
        left: Cleared = [[]]
        for line in self._from_highest():
            left += line.clear()
        self._lines.clear()
        self._levels.clear()
        self._count = self.body_bytes = 0
        self.next_expiry = None
        return left

    def trim(self, most: int, most_bytes: int, limit: int = NO_LIMIT) -> Removed:
        """See `Fifo`. The head is that of the highest level."""
        left: Removed = []
        below, below_bytes = self._count, self.body_bytes
        least = self._count - limit
        for level in self._levels[::-1]:
            if below <= most and below_bytes <= most_bytes or self._count <= least:
                break
            line = self._lines[level]
            below -= len(line)
            below_bytes -= line.body_bytes
            # Where the levels below have too many bytes by themselves, this one goes as a whole, empty bodies too.
            left += self._on(level, partial(
                PagedFifo.trim, most=max(0, most - below) if below_bytes <= most_bytes else 0,
                most_bytes=max(0, most_bytes - below_bytes), limit=self._count - least))
        return left

    def remove(self, run: Collection[Message]) -> None:
        """See `Fifo`."""
        for level, messages in by_level(run, self._highest).items():
            self._on(level, partial(PagedFifo.remove, run=messages))

    def after(self, place: Place, limit: int) -> tuple[list[Message] | OnDisk, int]:
        """See `Fifo`."""
        level, number = place
        for at in range(bisect_right(self._levels, level) - 1, -1, -1):
            own = self._levels[at]
            found, _ = self._lines[own].after((own, number if own == level else -1), limit)
            if found:
                return found, own
        return [], 0

    def before(self, position: int) -> tuple[Place, int]:
        """See `Fifo`."""
        for level in reversed(self._levels):
            line = self._lines[level]
            if position < len(line):
                (_, number), left = line.before(position)
                return (level, number), left
            position -= len(line)
        return (-1, -1), position

    def take_out(self, run: Sequence[Message]) -> None:
        """See `Fifo`."""
        for level, messages in by_level(run, self._highest).items():
            self._on(level, partial(PagedFifo.take_out, run=messages))

    @property
    def next_due(self) -> Due:
        """See `Fifo`."""
        return min([line.next_due for line in self._lines.values()], default=NEVER_DUE)

    def take_due(self, now_ms: int, limit: int = NO_LIMIT, until: Due = NEVER_DUE) -> Removed:
        """See `Fifo`."""
        left: Removed = []
        least = self._count - limit
        if self.next_expiry is not None and self.next_expiry <= now_ms:
            for level in self._levels[:]:
                if self._count > least:
                    left += self._on(level, partial(
                        PagedFifo.take_due, now_ms=now_ms, limit=self._count - least, until=until))
        return left

    # Between memory and disk

    def page_out(self, wanted: int, may_go: Callable[[Message], bool]) -> list[Page]:
        """See `Fifo`. The lowest levels go first."""
        made: list[Page] = []

        def act(line: PagedFifo) -> None:
            made.extend(line.page_out(wanted, may_go))

        for level in self._levels[:]:
            if wanted <= 0:
                break
            before = len(made)
            self._on(level, act)
            wanted -= sum([page.cost for page in made[before:]])
        return made

    def check(self) -> None:
        """See `Fifo`."""
        assert self._levels == sorted(self._lines), "a level without a line, or a line without a level"
        assert all(self._lines.values()), "a level without messages"
        assert self._count == sum(map(len, self._lines.values())), "the length is off"
        assert self.body_bytes == sum([line.body_bytes for line in self._lines.values()]), "the sum of bodies is off"
        ends = [line.next_expiry for line in self._lines.values() if line.next_expiry is not None]
        assert self.next_expiry == min(ends, default=None), "the next end is off"
        for line in (*self._lines.values(), *self._empty):
            line.check()


def by_level(run: Iterable[Message], highest: int) -> dict[int, list[Message]]:
    """Sort by level: a message without a priority counts as 0, one above the highest as the highest."""
    levels: dict[int, list[Message]] = {}
    for message in run:
        level = message.facts.priority or 0
        if level > highest:
            level = highest
        same = levels.get(level)
        if same is None:
            levels[level] = [message]
        else:
            same.append(message)
    return levels
