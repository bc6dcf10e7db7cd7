"""Write large bodies to the store in parts, before the messages that have them are recorded.

A batch with a large body in it would take long to write, and all that is in the batch would wait for it. So a publish
with such a body waits instead: its body is written in pieces, in transactions of their own, and between two of them the
committer writes the batch that others wait for. The record of the message comes last and is small. After a crash a
message is there as a whole or not at all: parts without a record are deleted.

Owns which bodies are to be written; bodies have their turn one after the other, a piece at a time.

Always true between calls: a body whose message was not recorded, and will not be, has been given to `drop`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from amqpd.message import Message

PART_BYTES = 1 << 20        # of all parts of a body but its last one
PIECE_PARTS = 2             # of one transaction: some milliseconds

Part = list[memoryview]
Drop = Callable[[int, int], None]


def parts_of(size: int, part_bytes: int = PART_BYTES) -> int:
    """Return how many parts a body of this size has."""
    return -(-size // part_bytes)


class BodyWrite:
    """One body that is written, or has been; see `broker.ports.StoredBody`.

    `body_id` is the number of its first part, which the store gives it; `checksums` are those of the parts that have
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
        """Call back, once, when the body has been written, or will not be."""
        self._calls.append(go_on)

    def next_parts(self, most: int) -> list[Part]:
        """Return the next parts that are to be written; none where the body has been dropped meanwhile."""
        parts = self._parts
        return list(islice(parts, most)) if parts is not None else []

    def note_written(self, start: int, checksums: Sequence[int]) -> None:
        """Note that the parts from this place on have been written."""
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
        """Let the message of this number, which is about to be published, have this body."""
        self._queue.to_be_recorded[number] = self

    def note_recorded(self) -> None:
        """Note that a batch has the message: the store deletes the body with it."""
        self._is_recorded = True

    def end(self) -> None:
        """Delete the body, unless its message was recorded: it has been published, or will not be."""
        self._queue.forget(self)
        if not self._is_recorded and not self.is_dropped:
            self.is_dropped = True
            self._parts = None
            self._queue.drop(self.body_id, len(self.checksums))
            self._call_all()


class BodyPiece:
    """What one transaction writes of a body, from the part at `start` on.

    `checksums` are those of its parts, once they have been written.
    """

    def __init__(self, body: BodyWrite) -> None:
        self.body = body
        self.start = len(body.checksums)
        self.checksums: list[int] = []
        self._parts: list[Part] | None = None

    @property
    def parts(self) -> list[Part]:
        """Return its parts. They are cut when this is first asked, in the thread that writes them."""
        if self._parts is None:
            self._parts = self.body.next_parts(PIECE_PARTS)
        return self._parts

    @property
    def size(self) -> int:
        """Return how many bytes of the body it has written."""
        part_bytes = self.body.part_bytes
        return min(len(self.checksums) * part_bytes, self.body.size - self.start * part_bytes)

    def end(self) -> None:
        """Note that it has been written."""
        self._parts = None
        self.body.note_written(self.start, self.checksums)


class BodyQueue:
    """The bodies that are to be written, in parts of `part_bytes`.

    `drop` deletes so many parts from a number on, at some time.
    """

    def __init__(self, *, part_bytes: int = PART_BYTES) -> None:
        self.part_bytes = part_bytes
        self.drop: Drop = _nowhere
        self.to_be_recorded: dict[int, BodyWrite] = {}      # by the number of the message that is being published
        self._bodies: deque[BodyWrite] = deque()

    def add(self, message: Message) -> BodyWrite:
        """Have the body of this message written."""
        body = BodyWrite(message, self)
        self._bodies.append(body)
        return body

    def next_piece(self) -> BodyPiece | None:
        """Return a piece of the body whose turn it is."""
        while self._bodies:
            body = self._bodies.popleft()
            if not (body.is_dropped or body.is_done):
                self._bodies.append(body)
                return BodyPiece(body)
        return None

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is to be written."""
        while self._bodies and (self._bodies[0].is_dropped or self._bodies[0].is_done):
            self._bodies.popleft()
        return not self._bodies

    def forget(self, body: BodyWrite) -> None:
        """Note that the publish of this body is over."""
        if self.to_be_recorded:
            self.to_be_recorded = {number: one for number, one in self.to_be_recorded.items() if one is not body}


def _cut(message: Message, part_bytes: int) -> Iterator[Part]:
    """Cut a body into parts, which are views of the content."""
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
    """There is no store yet."""
