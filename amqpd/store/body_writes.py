"""Write large bodies to the store in parts, before their messages are recorded.

A batch with a large body would take long to write, and all publishers in the batch would wait for it. So only the
publish with the large body waits: its body is written in pieces, each in its own transaction, and between two pieces
the committer writes the batches of others. The message is recorded last, which is quick. After a crash, either the
whole message is there or none of it: parts without a message are deleted.

Owns the bodies that are to be written. They take turns, a piece each.

Always true between calls: if the message of a body has not been recorded and will not be, the body has been dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from amqpd.message import Message

PART_BYTES = 1 << 20        # of each part; the last part of a body may be smaller
PIECE_PARTS = 2             # in one transaction, which takes some milliseconds

Part = list[memoryview]
Drop = Callable[[int, int], None]


def parts_of(size: int, part_bytes: int = PART_BYTES) -> int:
    """Return how many parts a body of this size has."""
    return -(-size // part_bytes)


class BodyWrite:
    """One body that is being written, or has been; see `broker.ports.StoredBody`.

    `body_id` is the number of its first part, which the store assigns; `checksums` has the CRC-32 of each part that has
    been written.
    """

    def __init__(self, message: Message, queue: BodyQueue) -> None:
        self.body_id = 0
        self.size = message.body_size
        self.part_bytes = queue.part_bytes
        self.part_count = parts_of(self.size, queue.part_bytes)
        self.checksums: list[int] = []
        self.is_done = self.is_dropped = self._is_recorded = False
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

    def note_written(self, start: int, checksums: Sequence[int]) -> None:
        """Note that the parts from index `start` on, which have these checksums, have been written."""
        if self.is_dropped:
            self._queue.drop(self.body_id + start, len(checksums))
            return
        self.checksums += checksums
        if len(self.checksums) == self.part_count:
            self._parts = None
            self.is_done = True
            self._call_all()

    def _call_all(self) -> None:
        calls, self._calls = self._calls, []
        for go_on in calls:
            go_on()

    def begin_publish(self, number: int) -> None:
        """Assign the body to the message with this number, which is about to be published."""
        self._queue.to_be_recorded[number] = self

    def note_recorded(self) -> None:
        """Note that a batch has the message: from now on the store deletes the body together with the message."""
        self._is_recorded = True

    def end(self) -> None:
        """End the publish; drop the body if its message has not been recorded."""
        self._queue.forget(self)
        if not self._is_recorded and not self.is_dropped:
            self.is_dropped = True
            self._parts = None
            self._queue.drop(self.body_id, len(self.checksums))
            self._call_all()


class BodyPiece:
    """The parts of a body that one transaction writes, from index `start` on.

    `checksums` are those of these parts, once they have been written.
    """

    def __init__(self, body: BodyWrite) -> None:
        self.body = body
        self.start = len(body.checksums)
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
        return min(len(self.checksums) * part_bytes, self.body.size - self.start * part_bytes)

    def end(self) -> None:
        """Note that the transaction is committed."""
        self._parts = None
        self.body.note_written(self.start, self.checksums)


class BodyQueue:
    """The bodies that are to be written, in parts of `part_bytes`.

    `drop` is called with the number of the first part and a count: the store deletes these parts later.
    """

    def __init__(self, *, part_bytes: int = PART_BYTES) -> None:
        self.part_bytes = part_bytes
        self.drop: Drop = _nowhere
        self.to_be_recorded: dict[int, BodyWrite] = {}      # by the number of the message that is being published
        self._bodies: deque[BodyWrite] = deque()

    def add(self, message: Message) -> BodyWrite:
        """Add the body of this message, and return its write."""
        body = BodyWrite(message, self)
        self._bodies.append(body)
        return body

    def next_piece(self) -> BodyPiece | None:
        """Return the next piece of the body whose turn it is; None if nothing is to be written."""
        while self._bodies:
            body = self._bodies.popleft()
            if not (body.is_dropped or body.is_done):
                self._bodies.append(body)
                return BodyPiece(body)
        return None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be written."""
        while self._bodies and (self._bodies[0].is_dropped or self._bodies[0].is_done):
            self._bodies.popleft()
        return not self._bodies

    def forget(self, body: BodyWrite) -> None:
        """Forget the message of this body: its publish has ended."""
        if self.to_be_recorded:
            self.to_be_recorded = {number: one for number, one in self.to_be_recorded.items() if one is not body}


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


def _nowhere(body_id: int, count: int) -> None:
    """Do nothing: no store is open yet."""
