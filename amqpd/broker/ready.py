"""The ready messages of a queue, in the order they will be handed out.

A `Line` is first in, first out by message number; `PriorityLines` has one a level and serves the highest first.
Both own which messages wait and how many octets of body they hold; why a message comes or goes is the queue's.

Always true between calls:
- within a line, message numbers rise from head to tail, also of messages that were put back;
- `octets` is the sum of the bodies that wait;
- a message taken out of the middle is gone for every caller, even while its place in the line is still there.

RabbitMQ docs/priority, docs/semantics (requeueing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Protocol

from amqpd.message import Message

# Counted against a connection's room for each message besides its body.
DELIVERY_OVERHEAD = 100
# A line is cleared of places that were left in its middle once these are the larger part of it, and at least so many.
FEWEST_LEFT_PLACES = 64

_number: Callable[[Message], int] = attrgetter("number")


class Ready(Protocol):
    """What a queue asks of the place where its messages wait."""

    @property
    def octets(self) -> int:
        """Octets of the bodies that wait."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Message]: ...

    def extend(self, run: Collection[Message]) -> None:
        """Add messages behind all others; their numbers are the highest."""

    def put_back(self, run: Collection[Message]) -> None:
        """Put messages to where their numbers belong."""

    def take(self, limit: int, room: int) -> list[Message]:
        """Take the next messages: at most `limit`, and no more once `room` octets are used up."""

    def clear(self) -> list[Message]:
        """Take all."""

    def remove(self, run: Collection[Message]) -> None:
        """Take out these messages, all of which wait here, wherever they stand."""

    def check(self) -> None:
        """Assert what must hold between calls."""


class Line:
    """First in, first out."""

    def __init__(self) -> None:
        self.octets = 0
        self._messages: deque[Message] = deque()
        self._gone: set[int] = set()        # numbers of messages whose place is still in the line

    def __len__(self) -> int:
        return len(self._messages) - len(self._gone)

    def __iter__(self) -> Iterator[Message]:
        gone = self._gone
        return (message for message in self._messages if message.number not in gone)

    def extend(self, run: Collection[Message]) -> None:
        """See `Ready`."""
        self._messages.extend(run)
        self.octets += body_octets(run)

    def put_back(self, run: Collection[Message]) -> None:
        """See `Ready`. Costs what stands before the last of them, which is little: they were at the head once."""
        self._sweep()
        back = list(run)
        last = max(map(_number, back))
        messages = self._messages
        while messages and messages[0].number < last:
            back.append(messages.popleft())
        back.sort(key=_number)
        messages.extendleft(reversed(back))
        self.octets += body_octets(run)

    def take(self, limit: int, room: int) -> list[Message]:
        """See `Ready`."""
        messages = self._messages
        if len(messages) <= limit and self.octets + DELIVERY_OVERHEAD * len(messages) <= room:
            return self.clear()
        run: list[Message] = []
        used = octets = 0
        gone = self._gone
        while messages and len(run) < limit and used < room:
            message = messages.popleft()
            if message.number in gone:
                gone.discard(message.number)
                continue
            octets += message.body_size
            used = octets + DELIVERY_OVERHEAD * len(run)
            run.append(message)
        self.octets -= octets
        return run

    def clear(self) -> list[Message]:
        """See `Ready`."""
        run = list(self) if self._gone else list(self._messages)
        self._messages.clear()
        self._gone.clear()
        self.octets = 0
        return run

    def remove(self, run: Collection[Message]) -> None:
        """See `Ready`. Their places are left empty, and cleared away when that is worth a walk along the line."""
        messages, gone = self._messages, self._gone
        gone.update(map(_number, run))
        self.octets -= body_octets(run)
        while messages and messages[0].number in gone:
            gone.discard(messages.popleft().number)
        if len(gone) > max(FEWEST_LEFT_PLACES, len(self)):
            self._sweep()

    def _sweep(self) -> None:
        if self._gone:
            self._messages = deque(self)
            self._gone.clear()

    def check(self) -> None:
        """See `Ready`."""
        numbers = [message.number for message in self]
        assert numbers == sorted(set(numbers)), "ready is out of publish order"
        assert len(numbers) == len(self), "the length is off"
        assert self.octets == body_octets(list(self)), "octets is off"


class PriorityLines:
    """A line for each level from 0 to `highest`; the highest level that has messages is served first."""

    def __init__(self, highest: int) -> None:
        self._lines = [Line() for _ in range(highest + 1)]

    @property
    def octets(self) -> int:
        """Octets of body on all levels."""
        return sum([line.octets for line in self._lines])

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __iter__(self) -> Iterator[Message]:
        return chain.from_iterable(reversed(self._lines))

    def _by_level(self, run: Iterable[Message]) -> dict[int, list[Message]]:
        """A message without a priority counts as 0, one above the highest as the highest."""
        highest = len(self._lines) - 1
        levels: dict[int, list[Message]] = {}
        for message in run:
            levels.setdefault(min(message.facts.priority or 0, highest), []).append(message)
        return levels

    def extend(self, run: Collection[Message]) -> None:
        """See `Ready`."""
        for level, messages in self._by_level(run).items():
            self._lines[level].extend(messages)

    def put_back(self, run: Collection[Message]) -> None:
        """See `Ready`."""
        for level, messages in self._by_level(run).items():
            self._lines[level].put_back(messages)

    def take(self, limit: int, room: int) -> list[Message]:
        """See `Ready`."""
        run: list[Message] = []
        for line in reversed(self._lines):
            if limit <= len(run) or room <= 0:
                break
            if line:
                taken = line.take(limit - len(run), room)
                room -= body_octets(taken) + DELIVERY_OVERHEAD * len(taken)
                run += taken
        return run

    def clear(self) -> list[Message]:
        """See `Ready`."""
        return [message for line in reversed(self._lines) for message in line.clear()]

    def remove(self, run: Collection[Message]) -> None:
        """See `Ready`."""
        for level, messages in self._by_level(run).items():
            self._lines[level].remove(messages)

    def check(self) -> None:
        """See `Ready`."""
        for line in self._lines:
            line.check()


def body_octets(run: Iterable[Message]) -> int:
    """Octets of the bodies of these messages."""
    return sum([message.body_size for message in run])
