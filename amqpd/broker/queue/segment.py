"""A segment of a FIFO: messages in memory, in the order of their numbers.

Owns these messages, and the sum of the sizes of their bodies. `paged_fifo.py` knows what comes before and after the
segment.

Always true between calls:
- message numbers rise from head to tail. Messages that were requeued between others wait in a heap beside the segment
  until they are next, so that a requeue is cheap at every position;
- `body_bytes` is the sum of the bodies; the budget has been charged for them, and for `MESSAGE_COST` a message;
- a message that was removed from the middle is invisible to callers, even while its place is still in the segment.

RabbitMQ docs/semantics (requeueing).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice, repeat
from operator import attrgetter
from typing import Protocol

from amqpd.broker.effort import Effort
from amqpd.broker.queue.page_limits import PAGE_LIMITS, PageLimits
from amqpd.message import Message

# Counted against a connection's room for each message, besides its body.
DELIVERY_OVERHEAD = 100
# The memory of a message besides its body, about: the message, its number, its frames, its place in a queue.
MESSAGE_COST = 300
# A segment is compacted once most of its places are empty, and at least so many: the removals have paid for that.
FEWEST_LEFT_PLACES = 64
PLACES_A_STEP = 16      # passed in one step of a walk along a segment; see broker/effort.py
PIECE, FEWEST_IN_PIECES = 256, 16       # messages that are taken together; a run of fewer is taken one by one
NO_BOUND = 1 << 62

number_of: Callable[[Message], int] = attrgetter("number")


class Pageable(Protocol):
    """The messages of one queue that can be paged out."""

    @property
    def cost(self) -> int:
        """What its messages in memory cost of the budget."""

    @property
    def is_spared(self) -> bool:
        """Whether its consumers nearly keep up, so that its publishers should wait instead."""

    def page_out(self, wanted: int) -> None:
        """Page out up to so many bytes."""

    def shrunk(self) -> None:
        """Note that it is no longer among the large ones."""


class Budget:
    """The limit and the sum of the bytes of waiting messages in memory, for all queues together.

    `large` are the queues with so much in memory, now or at the last check, that paging them out is worth it.
    `effort` counts the walks along whole segments; the broker sets its own here. `page_limits` are for the pages of
    all queues. `paged_out_…` count the pages whose content has left memory, with their messages and bytes of bodies.
    """

    def __init__(self, limit: int = 1 << 62, *, page_limits: PageLimits = PAGE_LIMITS) -> None:
        self.limit = limit
        self.page_limits = page_limits
        self.used = 0
        self.paged_out_pages = self.paged_out_messages = self.paged_out_bytes = 0
        self.large: dict[Pageable, None] = {}
        self.effort = Effort.without_end()

    def largest(self, least: int, count: int) -> list[Pageable]:
        """Return the `count` large ones with most in memory; forget those with less than `least`."""
        costs = {one: one.cost for one in self.large}
        for one, cost in costs.items():
            if cost <= least:
                del self.large[one]
                one.shrunk()
        return heapq.nlargest(count, self.large, key=costs.__getitem__)


class Segment:
    """A FIFO that is completely in memory."""

    __slots__ = ("body_bytes", "_budget", "_messages", "_back", "_last_back", "_gone")

    def __init__(self, budget: Budget) -> None:
        self.body_bytes = 0
        self._budget = budget
        self._messages: deque[Message] = deque()
        self._back: list[tuple[int, Message]] = []      # a heap, by number, of messages put back between others
        self._last_back = 0     # no number in the heap is higher
        self._gone: set[int] = set()        # numbers of removed messages whose place is still there

    def __len__(self) -> int:
        return len(self._messages) + len(self._back) - len(self._gone)

    def __iter__(self) -> Iterator[Message]:
        gone, messages = self._gone, self._messages
        places: Iterable[Message] = messages
        if self._back:
            places = sorted([*messages, *[message for _, message in self._back]], key=number_of)
        return (message for message in places if message.number not in gone) if gone else iter(places)

    @property
    def cost(self) -> int:
        """What the budget has been charged for it."""
        return self.body_bytes + MESSAGE_COST * len(self)

    @property
    def first_number(self) -> int:
        """The lowest number in it; 0 if it is empty."""
        messages, back = self._messages, self._back
        if back and (not messages or back[0][0] < messages[0].number):
            return back[0][0]
        return messages[0].number if messages else 0

    def number_at(self, place: int) -> int:
        """Return the number of the message at about this position, or of the last one; 0 if it is empty."""
        messages = self._messages
        if not messages:
            return self._last_back if self._back else 0
        return messages[min(max(0, place - len(self._back)), len(messages) - 1)].number

    def after(self, number: int, limit: int) -> list[Message]:
        """Return the next messages behind this number, at most `limit`; they stay."""
        messages, back, gone = self._messages, self._back, self._gone
        while True:
            found = _part_of(messages, bisect_right(messages, number, key=number_of), limit)
            if back:
                end = found[-1].number if len(found) == limit else NO_BOUND
                found += [message for put_back, message in back if number < put_back <= end]
                found = sorted(found, key=number_of)[:limit]
            left = [message for message in found if message.number not in gone] if gone else found
            if left or not found:
                return left
            number = found[-1].number

    def before(self, place: int) -> tuple[int, int]:
        """Return the number of a place before the message at this position, and how many messages are between them."""
        if self._back or self._gone or not place:
            return self.first_number - 1, place
        return self._messages[place - 1].number, 0

    def _charge(self, total_bytes: int, count: int) -> None:
        self.body_bytes += total_bytes
        self._budget.used += total_bytes + MESSAGE_COST * count

    def extend(self, run: Collection[Message]) -> None:
        """Add messages behind all others; their numbers are the highest."""
        self._messages.extend(run)
        self._charge(body_bytes(run), len(run))

    def put_back(self, run: Collection[Message]) -> None:
        """Put messages back into the order of their numbers."""
        gone, messages, back = self._gone, self._messages, self._back
        if gone and not gone.isdisjoint(map(number_of, run)):
            self._sweep()       # their old places are still there
            messages, back = self._messages, self._back
        in_order = sorted(run, key=number_of)
        last = in_order[-1].number
        if not messages or in_order[0].number > messages[-1].number:
            messages.extend(in_order)
        elif last < messages[0].number:
            messages.extendleft(reversed(in_order))
        else:
            self._last_back = max(last, self._last_back) if back else last
            for message in in_order:
                heapq.heappush(back, (message.number, message))
        self._charge(body_bytes(run), len(run))

    def take(self, limit: int, room: int, bound: int = NO_BOUND) -> list[Message]:
        """Take the first messages: at most `limit`, up to the number `bound`, until `room` bytes are used up."""
        messages, back = self._messages, self._back
        if not back and len(messages) <= limit and self.body_bytes + DELIVERY_OVERHEAD * len(messages) <= room and (
                not messages or messages[-1].number <= bound):
            return self.clear()
        gone = self._gone
        run: list[Message] = []
        total_bytes = 0 if limit < FEWEST_IN_PIECES or back or gone else self._take_pieces(run, limit, room, bound)
        used = 0        # or, after pieces, less than the room in any case
        while (messages or back) and len(run) < limit and used < room:
            was_put_back = back and (not messages or back[0][0] < messages[0].number)
            message = back[0][1] if was_put_back else messages[0]
            if message.number > bound:
                break
            if was_put_back:
                heapq.heappop(back)
            else:
                messages.popleft()
            if message.number in gone:
                gone.discard(message.number)
                continue
            total_bytes += message.body_size
            used = total_bytes + DELIVERY_OVERHEAD * len(run)
            run.append(message)
        self._charge(-total_bytes, -len(run))
        return run

    def take_before(self, number: int) -> list[Message]:
        """Take the messages before this number, however many, and count them as effort."""
        run = self.take(NO_BOUND, NO_BOUND, number - 1) if self and self.first_number < number else []
        self._budget.effort.total += len(run)
        return run

    def _take_pieces(self, run: list[Message], limit: int, room: int, bound: int) -> int:
        """Take the first messages in pieces that fit completely, if there are such; return their bytes.

        This is the fast path for most of a run. `take` checks the rest one by one.
        """
        messages, total_bytes = self._messages, 0
        while messages and len(run) < limit:
            piece = [*islice(messages, min(PIECE, limit - len(run)))]
            size = body_bytes(piece)
            if total_bytes + size + DELIVERY_OVERHEAD * (len(run) + len(piece)) > room or piece[-1].number > bound:
                break
            for _ in repeat(None, len(piece)):
                messages.popleft()
            run += piece
            total_bytes += size
        return total_bytes

    def take_last(self, limit: int, room: int, may_go: Callable[[Message], bool]) -> list[Message]:
        """Take from the end, as `take` does from the head, up to a message that may not go; return them in order."""
        run: deque[Message] = deque()
        total_bytes = 0
        while len(run) < limit and total_bytes < room:
            self._drop_gone_at_end()
            if self._back and (not self._messages or self._messages[-1].number < self._last_back):
                self._sweep()
            messages = self._messages
            if not messages or not may_go(messages[-1]):
                break
            message = messages.pop()
            total_bytes += message.body_size
            run.appendleft(message)
        self._charge(-total_bytes, -len(run))
        return list(run)

    def take_first(self, limit: int, room: int, may_go: Callable[[Message], bool]) -> list[Message]:
        """Take as `take` does, up to a message that may not go."""
        messages, back = self._messages, self._back
        run: list[Message] = []
        total_bytes = 0
        while len(run) < limit and total_bytes < room:
            self._drop_gone_at_head()
            if back and (not messages or back[0][0] < messages[0].number):
                if not may_go(back[0][1]):
                    break
                _, message = heapq.heappop(back)
            elif messages and may_go(messages[0]):
                message = messages.popleft()
            else:
                break
            total_bytes += message.body_size
            run.append(message)
        self._charge(-total_bytes, -len(run))
        return run

    def clear(self) -> list[Message]:
        """Take all messages."""
        run = list(self) if self._gone or self._back else list(self._messages)
        self._messages.clear()
        self._back.clear()
        self._gone.clear()
        self._charge(-self.body_bytes, -len(run))
        return run

    def remove(self, run: Collection[Message]) -> None:
        """Remove these messages, all of which are here, at any position.

        Their places are left empty, and removed when that is worth a walk along the segment.
        """
        gone = self._gone
        gone.update(map(number_of, run))
        self._charge(-body_bytes(run), -len(run))
        self._drop_gone_at_head()
        self._drop_gone_at_end()
        if len(gone) > max(FEWEST_LEFT_PLACES, len(self)):
            self._sweep()

    def _drop_gone_at_head(self) -> None:
        messages, back, gone = self._messages, self._back, self._gone
        while gone and messages and messages[0].number in gone:
            gone.discard(messages.popleft().number)
        while gone and back and back[0][0] in gone:
            gone.discard(heapq.heappop(back)[0])

    def _drop_gone_at_end(self) -> None:
        messages, gone = self._messages, self._gone
        while gone and messages and messages[-1].number in gone:
            gone.discard(messages.pop().number)

    def _sweep(self) -> None:
        """Remove empty places, and sort the messages that were put back into the segment."""
        self._budget.effort.total += (len(self._messages) + len(self._back)) // PLACES_A_STEP + len(self._back) // 2
        self._messages = deque(self)
        self._back.clear()
        self._gone.clear()

    def check(self) -> None:
        """Assert what must hold between calls."""
        numbers = [message.number for message in self]
        assert numbers == sorted(set(numbers)), "a segment is out of publish order"
        assert all([number <= self._last_back for number, _ in self._back]), "more was put back than is known of"
        assert len(numbers) == len(self), "the length is off"
        assert self.body_bytes == body_bytes(list(self)), "the sum of the bodies is off"


def body_bytes(run: Iterable[Message]) -> int:
    """Return the bytes of the bodies of these messages."""
    return sum([message.body_size for message in run])


def _part_of(messages: deque[Message], start: int, limit: int) -> list[Message]:
    """Return the messages from this position on, at most `limit`; the walk to them begins at the nearer end."""
    end = min(start + limit, len(messages))
    if end <= len(messages) // 2:
        return [*islice(messages, start, end)]
    return [*islice(reversed(messages), len(messages) - end, len(messages) - start)][::-1]
