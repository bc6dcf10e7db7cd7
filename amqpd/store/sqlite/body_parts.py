"""The parts of large bodies: they are written before their messages, and deleted after them, a few at a time.

Owns the table `body_parts`, and the list of message rows with a body there. Deleting a part takes a third of the time
of writing it. So unused parts are deleted in slices: with each write, so that deleting keeps pace, and while there is
nothing else to do.

Always true between transactions: `_bodies` are the bodies of message rows; each part belongs to a body of a message
row, of a row in `damaged`, or of a message that has not been recorded yet, or it is about to be deleted.
"""

from __future__ import annotations

import json
import sqlite3
from binascii import crc32
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain

from amqpd.store.body_writes import BodyPiece, BodyWrite, parts_of
from amqpd.store.sqlite.message_rows import checksum_of_parts

ID_STEP = 1_024             # between the numbers of two bodies, which have 512 parts at most
DELETED_AT_ONCE = 8         # parts, while there is nothing else to do
DELETED_WITH_BATCH = 2
DELETED_A_PART = 2          # with each part that is written
HAS_PARTS = "body_id IS NOT NULL"
# Of a row `m`: the size of its body, or NULL where not all of its parts are there.
BODY_SIZE = f"""
    CASE WHEN m.body_id IS NULL THEN length(m.body) WHEN m.body_size = (
        SELECT sum(length(data)) FROM body_parts WHERE body_parts.number BETWEEN m.body_id AND m.body_id + {ID_STEP - 1}
    ) THEN m.body_size END"""
_SELECT_BODIES = f"SELECT number, body_id, body_size FROM message_rows WHERE {HAS_PARTS}"
_IN_ORDER = f"FROM body_parts WHERE number BETWEEN ? AND ? + {ID_STEP - 1} ORDER BY number"


class BodyParts:
    """The parts of one store. Changes within a transaction are staged until `keep`, or dropped by `forget`."""

    def __init__(self, connection: sqlite3.Connection, part_bytes: int) -> None:
        self._connection = connection
        self._part_bytes = part_bytes
        self._next_id = 0
        self._bodies: dict[int, tuple[int, int]] = {}       # by message number: the first part, and how many
        self._dead: deque[tuple[int, int]] = deque()        # parts to be deleted: the first, and how many
        self._dropped: deque[tuple[int, int]] = deque()     # the same, as the loop's thread has said
        self._recorded: dict[int, tuple[int, int]] = {}     # in this transaction
        self._gone: set[int] = set()                        # messages, likewise
        self._unused: list[tuple[int, int]] = []            # bodies whose messages are not written any more, likewise
        self._deleted = 0                                   # parts, likewise

    def load(self, first_id: int) -> None:
        """Read which bodies and unused parts there are, at start; new bodies get numbers from `first_id` on."""
        self._next_id = first_id
        self._bodies = self._read_bodies()
        needed = {body_id for body_id, _ in self._bodies.values()}
        needed.update([body_id for body_id, in self._connection.execute(
            f"SELECT body_id FROM damaged WHERE {HAS_PARTS}")])
        orphans: dict[int, tuple[int, int]] = {}
        for number, in self._connection.execute("SELECT number FROM body_parts ORDER BY number"):
            body_id = number - number % ID_STEP
            if body_id not in needed:
                first, _ = orphans.get(body_id, (number, 1))
                orphans[body_id] = first, number - first + 1
        self._dead = deque(orphans.values())

    def _read_bodies(self) -> dict[int, tuple[int, int]]:
        return {number: (body_id, parts_of(size, self._part_bytes))
                for number, body_id, size in self._connection.execute(_SELECT_BODIES)}

    def drop(self, body_id: int, count: int) -> None:
        """Request that the parts of a body are deleted: its message will not be recorded. Any thread may call this."""
        if count:
            self._dropped.append((body_id, count))

    # Changes

    def write(self, piece: BodyPiece) -> None:
        """Write some parts of a body. Raises sqlite3.Error, as all changes do."""
        body, execute = piece.body, self._connection.execute
        self.delete(DELETED_A_PART * len(piece.parts))      # before, so that their pages are used again
        if not body.body_id:
            body.body_id = self._next_id
            self._next_id += ID_STEP
        checksums = []
        for number, part in enumerate(piece.parts, body.body_id + piece.start):
            execute("INSERT INTO body_parts (number, data) VALUES (?, zeroblob(?))", (number, sum(map(len, part))))
            checksum = 0
            # Bound as a whole, a part would be copied while no other thread can run.
            with self._connection.blobopen("body_parts", "data", number) as blob:
                for view in part:
                    blob.write(view)
                    checksum = crc32(view, checksum)
            checksums.append(checksum)
        piece.checksums = checksums

    def record(self, bodies: Iterable[tuple[int, BodyWrite]], written: Sequence[int]) -> None:
        """Note the bodies of these messages; `written` are the numbers of messages whose rows have been written."""
        rows = {*written}
        for number, body in bodies:
            place = body.body_id, body.part_count
            if number in rows:
                self._recorded[number] = place
            else:
                self._unused.append(place)

    def settle(self, numbers: Iterable[int] | None = None) -> None:
        """Note which of these messages, or of all, have no row any more: their bodies are unused."""
        if self._bodies:
            candidates = [*self._bodies] if numbers is None else [*self._bodies.keys() & numbers]
            if candidates:
                left = self._connection.execute(
                    "SELECT number FROM message_rows WHERE number IN (SELECT value FROM json_each(?))",
                    (json.dumps(candidates),)).fetchall()
                self._gone |= {*candidates}.difference(chain.from_iterable(left))

    def delete(self, most: int) -> None:
        """Delete up to so many unused parts."""
        while self._dropped:
            self._dead.append(self._dropped.popleft())
        left = most
        skipped = self._deleted
        for first, count in self._dead:
            if skipped >= count:
                skipped -= count
                continue
            first, count = first + skipped, count - skipped
            skipped = 0
            now = min(count, left)
            self._connection.execute("DELETE FROM body_parts WHERE number BETWEEN ? AND ?", (first, first + now - 1))
            self._deleted += now
            left -= now
            if not left:
                return

    @property
    def has_dead(self) -> bool:
        """Whether there are unused parts."""
        return bool(self._dead or self._dropped)

    def keep(self) -> None:
        """Note that the changes are committed."""
        if self._recorded:
            self._bodies.update(self._recorded)
        while self._deleted:
            first, count = self._dead.popleft()
            now = min(count, self._deleted)
            self._deleted -= now
            if now < count:
                self._dead.appendleft((first + now, count - now))
        if self._gone or self._unused:
            self._dead.extend([self._bodies.pop(number) for number in self._gone])
            self._dead.extend(self._unused)

    def forget(self) -> None:
        """Forget what was changed since the last transaction."""
        self._recorded.clear()
        self._gone.clear()
        self._unused.clear()
        self._deleted = 0

    def leave(self, numbers: Iterable[int]) -> None:
        """Keep the bodies of these messages, which are moved to the table `damaged`."""
        for number in numbers:
            self._bodies.pop(number, None)

    def check(self) -> None:
        """Assert what must hold between transactions."""
        assert not (self._recorded or self._gone or self._unused or self._deleted)
        assert self._bodies == self._read_bodies()
        there = {number for number, in self._connection.execute("SELECT number FROM body_parts")}
        kept = {one for body_id, count in self._bodies.values() for one in range(body_id, body_id + count)}
        dead = {one for first, count in (*self._dead, *self._dropped) for one in range(first, first + count)}
        assert kept <= there, "a body lacks parts"
        assert not kept & dead, "a body is to be deleted that a message has"


# Reading

def checksum_from_parts(connection: sqlite3.Connection, body_id: int, size: int, before: int) -> int | None:
    """Return the checksum of a message from its parts; None if parts are missing or damaged.

    `before` is the checksum of names and properties. Raises sqlite3.Error.
    """
    checksums, found = [], 0
    for data, in connection.execute(f"SELECT data {_IN_ORDER}", (body_id, body_id)):
        if not isinstance(data, bytes):
            return None
        checksums.append(crc32(data))
        found += len(data)
    return checksum_of_parts(before, checksums) if found == size else None


class PartReader:
    """Reads a body of this size from its parts, in order; `checksums` are those of completely read parts."""

    def __init__(self, connection: sqlite3.Connection, body_id: int, size: int) -> None:
        """Prepare to read. Raises ValueError if parts are missing; sqlite3.Error."""
        select = f"SELECT number, CASE typeof(data) WHEN 'blob' THEN length(data) END {_IN_ORDER}"
        rows = connection.execute(select, (body_id, body_id)).fetchall()
        if None in [length for _, length in rows] or sum([length for _, length in rows]) != size:
            raise ValueError("parts of the body are missing")
        self.checksums: list[int] = []
        self._connection = connection
        self._numbers = iter([number for number, _ in rows])
        self._blob: sqlite3.Blob | None = None
        self._checksum = 0

    def read(self, size: int) -> bytes:
        """Return the next so many bytes. Raises sqlite3.Error."""
        pieces = []
        while size:
            piece = self._blob.read(size) if self._blob is not None else b""
            if piece:
                self._checksum = crc32(piece, self._checksum)
                pieces.append(piece)
                size -= len(piece)
            else:
                self._open_next()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _open_next(self) -> None:
        self.end_part()
        self._blob = self._connection.blobopen("body_parts", "data", next(self._numbers), readonly=True)

    def end_part(self) -> None:
        """Close the current part, and note its checksum. To be called after the last read, too."""
        if self._blob is not None:
            self._blob.close()
            self._blob = None
            self.checksums.append(self._checksum)
            self._checksum = 0
