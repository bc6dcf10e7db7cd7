"""When the messages of one queue end: what has a time to live, and which of it is due.

Owns the ends of all messages of a queue that are in memory and have one, ready or unacked; those on disk have
theirs in their pages. What is handed out does not end while it is out. Costs nothing for messages without an end,
and the same for each that has one, however many wait: an end is one entry in a heap, and one that no longer
matters is passed over when its time comes.

Always true between calls: a message that is ready, in no page, and has an end is in the heap with it.

RabbitMQ docs/ttl.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from amqpd.message import Message

# The heap is made anew once this share of it matters no longer, and it has at least so many entries.
FEWEST_ENTRIES = 256


class Deadlines:
    """Ends of messages, in milliseconds of the broker's clock."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}         # by message number, ready and unacked ones
        self._out: set[int] = set()             # numbers of those that are unacked
        self._waiting: list[tuple[int, int, Message]] = []

    def __bool__(self) -> bool:
        return bool(self._ends)

    def end_of(self, message: Message) -> int | None:
        """When this message ends, if it does."""
        return self._ends.get(message.number)

    def add(self, ends: dict[Message, int]) -> None:
        """These messages are ready, and end then."""
        for message, end in ends.items():
            self._ends[message.number] = end
            heapq.heappush(self._waiting, (end, message.number, message))
        self._sweep_if_due()

    def add_out(self, ends: dict[Message, int]) -> None:
        """These messages have an end and were handed out as soon as they came."""
        numbers = {message.number: end for message, end in ends.items()}
        self._ends.update(numbers)
        self._out.update(numbers)

    def hand_out(self, run: Iterable[Message]) -> None:
        """These are unacked from now on."""
        self._out.update([message.number for message in run if message.number in self._ends])

    def take_back(self, run: Iterable[Message]) -> None:
        """These are ready again; their ends are what they were."""
        for message in run:
            end = self._ends.get(message.number)
            if end is not None:
                self._out.discard(message.number)
                heapq.heappush(self._waiting, (end, message.number, message))

    def forget(self, run: Iterable[Message]) -> None:
        """These have left the queue."""
        numbers = [message.number for message in run]
        for number in numbers:
            self._ends.pop(number, None)
        self._out.difference_update(numbers)

    def page_out(self, run: Iterable[Message]) -> dict[int, int]:
        """These go to a page, which sees to their ends from now on: the ends of those that have one, by number."""
        if not self._ends:
            return {}
        ends = self._ends
        paged = {message.number: ends.pop(message.number) for message in run if message.number in ends}
        self._out.difference_update(paged)
        self._sweep_if_due()
        return paged

    @property
    def next_ms(self) -> int | None:
        """When the next ready message ends, or a little earlier."""
        return self._waiting[0][0] if self._waiting else None

    def take_due(self, now_ms: int) -> list[Message]:
        """The ready messages whose end has come, first things first; they are forgotten."""
        due = []
        waiting, ends, out = self._waiting, self._ends, self._out
        while waiting and waiting[0][0] <= now_ms:
            _, number, message = heapq.heappop(waiting)
            if number in ends and number not in out:
                del ends[number]
                due.append(message)
        return due

    def _sweep_if_due(self) -> None:
        if len(self._waiting) > max(FEWEST_ENTRIES, 2 * len(self._ends)):
            self._sweep()

    def _sweep(self) -> None:
        self._waiting = [
            entry for entry in self._waiting if entry[1] in self._ends and entry[1] not in self._out]
        heapq.heapify(self._waiting)

    def check(self, ready: Iterable[Message]) -> None:
        """Assert what must hold between calls."""
        waiting = {(number, end) for end, number, _ in self._waiting}
        for message in ready:
            end = self._ends.get(message.number)
            assert end is None or (message.number, end) in waiting, "a message has an end that never comes"
            assert message.number not in self._out, "a message is both ready and unacked"
        assert self._out <= self._ends.keys()
