"""What waits in each queue, gathered from rows when a store is read at start, without the contents of messages."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from operator import gt
from typing import Any

from amqpd.broker.definitions import Definition, QueueDefinition
from amqpd.broker.queue.pages import NO_EXPIRY, StoredMessages
from amqpd.store.rows.block_bits import parse_block
from amqpd.store.rows.reading import MessageReader, Unreadable

# Of a message in a queue: the queue, its number, the size of its body (None if not all parts are there), whether it was
# delivered, its expiry, its delivery count, and the properties if they are needed before it is delivered.
Row = tuple[int, int, "int | None", int, "int | None", int, "bytes | None"]


def queues_of_definitions(definitions: list[Definition], reader: MessageReader) -> dict[int, WaitingMessages]:
    """Return room for what waits in each of these queues, by its number."""
    return {one.number: WaitingMessages(reader) for one in definitions if isinstance(one, QueueDefinition)}


def gather_rows(waiting: dict[int, WaitingMessages], rows: Iterable[Row]) -> list[int]:
    """Add the messages of these rows to their queues; return the numbers of damaged and orphan rows."""
    useless = []
    for queue, number, size, redelivered, expires_at, deliveries, properties in rows:
        here = waiting.get(queue)
        if here is None or type(size) is not int or not (properties is None or here.can_note(properties)):
            useless.append(number)
            continue
        here.numbers.append(number)
        here.sizes.append(size)
        if redelivered or deliveries:
            here.mark(number, redelivered, deliveries)
        if properties is not None:
            here.note(properties, expires_at)
    return useless


def gather_blocks(
    rows: Iterable[tuple[Any, ...]], know: Callable[[int, int, int], None], waiting: dict[int, WaitingMessages]
) -> list[int]:
    """Add the messages of blocks, whose rows are as `parse_block` takes them, to their queues; `know` each block.

    Return the first numbers of damaged blocks: their messages are to get rows of their own.
    """
    odd = []
    for row in rows:
        try:
            found, bits, redelivered = parse_block(row)
            here = waiting[row[1]] if bits else None
        except MemoryError:
            raise
        except Exception:
            odd.append(row[0])
            continue
        if here is not None:
            here.add_block(row[0], found, bits, redelivered)
        know(row[0], bits, redelivered)
    return odd


class WaitingMessages:
    """The messages of one queue. Columns that few messages need are filled only up to the last message that does."""

    def __init__(self, reader: MessageReader) -> None:
        self.numbers = array("q")
        self.sizes = array("I")
        self.redelivered: set[int] = set()
        self.deliveries: dict[int, int] = {}
        self._reader = reader
        self._expiries = array("q")
        self._lifetimes = array("q")
        self._priorities = bytearray()

    def add_block(self, first: int, found: list[tuple[int, int]], waiting: int, redelivered: int) -> None:
        """Add the messages of a block that wait, which have these bits; `found` has the places and sizes of all."""
        if waiting.bit_count() < len(found):
            found = [one for one in found if waiting >> one[0] & 1]
        self.numbers.extend([first + place for place, _ in found])
        self.sizes.extend([size for _, size in found])
        if redelivered:
            self.redelivered.update([first + place for place, _ in found if redelivered >> place & 1])

    def mark(self, number: int, redelivered: int, deliveries: int) -> None:
        """Note that a message has been delivered, and how often."""
        if redelivered:
            self.redelivered.add(number)
        if deliveries:
            self.deliveries[number] = deliveries

    def can_note(self, properties: bytes) -> bool:
        """Return whether these properties can be read."""
        try:
            self._reader.facts(properties)
        except Unreadable:
            return False
        return True

    def note(self, properties: bytes, expires_at: int | None) -> None:
        """Note priority and expiry of the message that was added last."""
        facts = self._reader.facts(properties)
        before = len(self.numbers) - 1
        if expires_at is not None:
            self._fill(before)
            self._expiries.append(expires_at)
            self._lifetimes.append(NO_EXPIRY if facts.expiration_ms is None else facts.expiration_ms)
        if facts.priority:
            self._priorities += bytes(before - len(self._priorities))
            self._priorities.append(min(facts.priority, 255))

    def _fill(self, length: int) -> None:
        for column in (self._expiries, self._lifetimes):
            column.extend([NO_EXPIRY] * (length - len(column)))

    def messages(self) -> StoredMessages:
        """Return all messages, sorted by number: they were added in the order of the tables."""
        count = len(self.numbers)
        if self._expiries:
            self._fill(count)
        if self._priorities:
            self._priorities += bytes(count - len(self._priorities))
        if pieces := _in_order(self.numbers):
            columns: tuple[array[int] | bytearray, ...] = (
                self.numbers, self.sizes, self._expiries, self._lifetimes, self._priorities)
            for column in columns:
                before = column[:]
                del column[:]
                for at in range(0, len(pieces), 2):
                    column.extend(before[pieces[at] : pieces[at + 1]])
        return StoredMessages(
            self.numbers, self.sizes, self._expiries or None, self._lifetimes or None, self._priorities or None)


def _in_order(numbers: array[int]) -> array[int]:
    """Return the pieces that make these numbers rise when they are put one after the other: starts and ends in turn.

    Return nothing if all numbers rise already. They consist of a few long runs that rise, so that pieces take much less
    memory than a sorted list of places.
    """
    falls = [at for at, falls in enumerate(map(gt, numbers, islice(numbers, 1, None)), 1) if falls]
    pieces = array("q")
    if not falls:
        return pieces
    parts = [(numbers[start], start, stop) for start, stop in pairwise((0, *falls, len(numbers)))]
    heapq.heapify(parts)
    while parts:
        _, start, end = parts[0]
        stop = bisect_left(numbers, min(parts[1:3])[0], start + 1, end) if len(parts) > 1 else end
        pieces.extend((start, stop))
        if stop < end:
            heapq.heapreplace(parts, (numbers[stop], stop, end))
        else:
            heapq.heappop(parts)
    return pieces
