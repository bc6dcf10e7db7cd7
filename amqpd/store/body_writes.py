"""Write large bodies to the store in parts, before their messages are recorded.

A batch with a large body would take long to write, and all publishers in the batch would wait for it. So only the
publish with the large body waits: its body is written in pieces, each in its own transaction, and between two pieces
the committer writes the batches of others. The message is recorded last, which is quick. After a crash, either the
whole message is there or none of it: parts without a message are deleted. So are those of a body that no message has
any more; see `message.StoredBody`.

Owns the bodies that are to be written. They take turns, a piece each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from amqpd.message import Message, StoredBody

PART_BYTES = 1 << 20        # of each part; the last part of a body may be smaller
PIECE_PARTS = 2             # in one transaction, which takes some milliseconds

Part = list[memoryview]
Release = Callable[[int], None]


def parts_of(size: int, part_bytes: int = PART_BYTES) -> int:
    """Return how many parts a body of this size has."""
    return -(-size // part_bytes)


class BodyWrite:
    """One body that is being written, or has been; see `broker.ports.BodyWrite`.

    The store assigns the number of `stored`, with the first part.
    """

    def __init__(self, message: Message, queue: BodyQueue) -> None:
        self.stored = StoredBody(message.body_size, queue.release)
        self.part_bytes = queue.part_bytes
        self.part_count = parts_of(message.body_size, queue.part_bytes)
        self.is_done = self.is_dropped = False
        self._parts: Iterator[Part] | None = _cut(message, queue.part_bytes)
        self._queue = queue
        self._calls: list[Callable[[], None]] = []

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back, once, when the body has been written or dropped."""
        self._calls.append(go_on)

    def next_parts(self, most: int) -> list[Part]:
        """Return the next parts to write, at most `most`; none if the body has been dropped."""
        parts = self._parts
        return list(islice(parts, most)) if parts is not None else []

    def note_written(self, checksums: Sequence[int]) -> None:
        """Note that the next parts, which have these checksums, have been written."""
        self.stored.checksums += checksums
        if len(self.stored.checksums) == self.part_count and not self.is_dropped:
            self.is_done = True
            self._leave()

    def _leave(self) -> None:
        self._parts = None
        self._queue.remove(self)
        calls, self._calls = self._calls, []
        for go_on in calls:
            go_on()

    def end(self) -> None:
        """Drop the body if it has not been written completely."""
        if not self.is_done and not self.is_dropped:
            self.is_dropped = True
            self._leave()


class BodyPiece:
    """The parts of a body that one transaction writes, from index `start` on.

    `checksums` are those of these parts, once they have been written.
    """

    def __init__(self, body: BodyWrite) -> None:
        self.body = body
        self.start = len(body.stored.checksums)
        self.checksums: list[int] = []
        self._parts: list[Part] | None = None

    @property
    def parts(self) -> list[Part]:
        """Its parts. The thread that writes them cuts them, at the first access."""
        if self._parts is None:
            self._parts = self.body.next_parts(PIECE_PARTS)
        return self._parts

    @property
    def size(self) -> int:
        """The bytes of the body that it has written."""
        part_bytes = self.body.part_bytes
        return min(len(self.checksums) * part_bytes, self.body.stored.size - self.start * part_bytes)

    def end(self) -> None:
        """Note that the transaction is committed."""
        self._parts = None
        self.body.note_written(self.checksums)


class BodyQueue:
    """The bodies that are to be written, in parts of `part_bytes`.

    `release` is called with the number of a body that no message in memory has any more; see `message.StoredBody`.
    """

    def __init__(self, *, part_bytes: int = PART_BYTES) -> None:
        self.part_bytes = part_bytes
        self.release: Release = _nowhere
        self._bodies: deque[BodyWrite] = deque()

    def add(self, message: Message) -> BodyWrite:
        """Add the body of this message, and return its write."""
        body = BodyWrite(message, self)
        self._bodies.append(body)
        return body

    def next_piece(self) -> BodyPiece | None:
        """Return the next piece of the body whose turn it is; None if nothing is to be written."""
        if not self._bodies:
            return None
        body = self._bodies[0]
        self._bodies.rotate(-1)
        return BodyPiece(body)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be written."""
        return not self._bodies

    def remove(self, body: BodyWrite) -> None:
        """Remove a body of which no more is to be written."""
        self._bodies.remove(body)


def _cut(message: Message, part_bytes: int) -> Iterator[Part]:
    """Yield the parts of a body, as views of the message's content."""
    part: Part = []
    room = part_bytes
    for view in message.body_pieces(part_bytes):
        while len(view) >= room:
            part.append(view[:room])
            yield part
            part, view, room = [], view[room:], part_bytes
        if view:
            part.append(view)
            room -= len(view)
    if part:
        yield part


def _nowhere(body_id: int) -> None:
    """Do nothing: no store is open yet."""
