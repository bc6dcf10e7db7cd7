"""A stretch of a line: messages that are in memory, in the order of their numbers.

Owns which messages those are, and how many octets of body they hold. What comes before and after the stretch is
`broker/line.py`'s matter.

Always true between calls:
- message numbers rise from head to tail, also of messages that were put back;
- `octets` is the sum of the bodies; the budget has been charged for them, and for `MESSAGE_COST` a message;
- a message taken out of the middle is gone for every caller, even while its place in the stretch is still there.

RabbitMQ docs/semantics (requeueing).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import attrgetter
from typing import Protocol

from amqpd.message import Message

# Counted against a connection's room for each message besides its body.
DELIVERY_OVERHEAD = 100
# What a message in memory takes besides its body, about: the message, its number, its frames, its place in a queue.
MESSAGE_COST = 300
# A stretch is cleared of places left in its middle once these are the larger part of it, and at least so many.
FEWEST_LEFT_PLACES = 64
NO_BOUND = 1 << 62

number_of: Callable[[Message], int] = attrgetter("number")


class Pageable(Protocol):
    """The messages of one queue, as far as some of them may have to leave memory."""

    @property
    def cost(self) -> int:
        """Return what its messages in memory cost of the budget."""

    @property
    def is_spared(self) -> bool:
        """Return whether its consumers nearly keep up, so that its publishers rather wait."""

    def page_out(self, octets: int) -> None:
        """Let up to so many octets leave memory."""

    def shrunk(self) -> None:
        """Take note that it is not among the large ones any more."""


class Budget:
    """How many octets of waiting messages may be in memory, and how many are; of all queues together.

    `large` are the queues that have, or had when somebody looked last, so much that it is worth being paged out.
    """

    def __init__(self, limit: int = 1 << 62) -> None:
        self.limit = limit
        self.used = 0
        self.large: dict[Pageable, None] = {}

    def largest(self, least: int, count: int) -> list[Pageable]:
        """Return those of the large ones that have most in memory, and forget those that have less than the least."""
        costs = {one: one.cost for one in self.large}
        for one, cost in costs.items():
            if cost <= least:
                del self.large[one]
                one.shrunk()
        return heapq.nlargest(count, self.large, key=costs.__getitem__)


class Stretch:
    """First in, first out."""

    __slots__ = ("octets", "_budget", "_messages", "_gone")

    def __init__(self, budget: Budget) -> None:
        self.octets = 0
        self._budget = budget
        self._messages: deque[Message] = deque()
        self._gone: set[int] = set()        # numbers of messages whose place is still there

    def __len__(self) -> int:
        return len(self._messages) - len(self._gone)

    def __iter__(self) -> Iterator[Message]:
        gone = self._gone
        return (message for message in self._messages if message.number not in gone)

    @property
    def cost(self) -> int:
        """What the budget has been charged."""
        return self.octets + MESSAGE_COST * len(self)

    @property
    def first_number(self) -> int:
        """The lowest number in it; of an empty stretch 0."""
        return self._messages[0].number if self._messages else 0

    def number_at(self, place: int) -> int:
        """The number of the message at about this place, or of the last one; of an empty stretch 0."""
        messages = self._messages
        return messages[min(place, len(messages) - 1)].number if messages else 0

    def _charge(self, octets: int, count: int) -> None:
        self.octets += octets
        self._budget.used += octets + MESSAGE_COST * count

    def extend(self, run: Collection[Message]) -> None:
        """Add messages behind all others; their numbers are the highest."""
        self._messages.extend(run)
        self._charge(body_octets(run), len(run))

    def put_back(self, run: Collection[Message]) -> None:
        """Put messages to where their numbers belong.

        Costs what stands before the last of them, which is little: they were at the head once.
        """
        self._sweep()
        back = list(run)
        last = max(map(number_of, back))
        messages = self._messages
        while messages and messages[0].number < last:
            back.append(messages.popleft())
        back.sort(key=number_of)
        messages.extendleft(reversed(back))
        self._charge(body_octets(run), len(run))

    def take(self, limit: int, room: int, bound: int = NO_BOUND) -> list[Message]:
        """Take the first messages: at most `limit`, up to the number `bound`, and no more once `room` is used up."""
        messages = self._messages
        if len(messages) <= limit and self.octets + DELIVERY_OVERHEAD * len(messages) <= room and (
                not messages or messages[-1].number <= bound):
            return self.clear()
        run: list[Message] = []
        used = octets = 0
        gone = self._gone
        while messages and len(run) < limit and used < room and messages[0].number <= bound:
            message = messages.popleft()
            if message.number in gone:
                gone.discard(message.number)
                continue
            octets += message.body_size
            used = octets + DELIVERY_OVERHEAD * len(run)
            run.append(message)
        self._charge(-octets, -len(run))
        return run

    def take_last(self, limit: int, room: int, may_go: Callable[[Message], bool]) -> list[Message]:
        """Take from the end, as `take` does from the head, until one comes that may not go; in rising order."""
        self._sweep()
        messages = self._messages
        run: deque[Message] = deque()
        octets = 0
        while messages and len(run) < limit and octets < room and may_go(messages[-1]):
            message = messages.pop()
            octets += message.body_size
            run.appendleft(message)
        self._charge(-octets, -len(run))
        return list(run)

    def take_first(self, limit: int, room: int, may_go: Callable[[Message], bool]) -> list[Message]:
        """Take as `take` does, until one comes that may not go."""
        self._sweep()
        messages = self._messages
        run: list[Message] = []
        octets = 0
        while messages and len(run) < limit and octets < room and may_go(messages[0]):
            message = messages.popleft()
            octets += message.body_size
            run.append(message)
        self._charge(-octets, -len(run))
        return run

    def clear(self) -> list[Message]:
        """Take all."""
        run = list(self) if self._gone else list(self._messages)
        self._messages.clear()
        self._gone.clear()
        self._charge(-self.octets, -len(run))
        return run

    def remove(self, run: Collection[Message]) -> None:
        """Take out these messages, all of which are here, wherever they stand.

        Their places are left empty, and cleared away when that is worth a walk along the stretch.
        """
        messages, gone = self._messages, self._gone
        gone.update(map(number_of, run))
        self._charge(-body_octets(run), -len(run))
        while messages and messages[0].number in gone:
            gone.discard(messages.popleft().number)
        if len(gone) > max(FEWEST_LEFT_PLACES, len(self)):
            self._sweep()

    def _sweep(self) -> None:
        if self._gone:
            self._messages = deque(self)
            self._gone.clear()

    def check(self) -> None:
        """Assert what must hold between calls."""
        numbers = [message.number for message in self]
        assert numbers == sorted(set(numbers)), "a stretch is out of publish order"
        assert len(numbers) == len(self), "the length is off"
        assert self.octets == body_octets(list(self)), "octets is off"


def body_octets(run: Iterable[Message]) -> int:
    """Octets of the bodies of these messages."""
    return sum([message.body_size for message in run])
