"""The parts of large bodies: they are written before their messages, and deleted after them, a few at a time.

Owns the table `body_parts`, and the list of message rows with a body there. Several rows may have the same body: copies
that were dead-lettered, or were published to very many queues. Parts are unused once no row has their body and no
message in memory has it, which may still get a row; see `message.StoredBody`.

Deleting a part takes a third of the time of writing it. So unused parts are deleted in slices: with each write, so that
deleting keeps pace, and while there is nothing else to do.

Always true between transactions: `_bodies` are the bodies of message rows; each part belongs to a body of a message
row, of a row in `damaged`, or of a message in memory, or it is about to be deleted.
"""

from __future__ import annotations

import json
import sqlite3
from binascii import crc32
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import chain

from amqpd.message import StoredBody
from amqpd.store.body_writes import BodyPiece
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
_SELECT_BODIES = f"SELECT number, body_id FROM message_rows WHERE {HAS_PARTS}"
_IN_ORDER = f"FROM body_parts WHERE number BETWEEN ? AND ? + {ID_STEP - 1} ORDER BY number"


class BodyParts:
    """The parts of one store. Changes within a transaction are staged until `keep`, or dropped by `forget`."""

    def __init__(self, connection: sqlite3.Connection, part_bytes: int) -> None:
        self._connection = connection
        self._part_bytes = part_bytes
        self._next_id = 0
        self._bodies: dict[int, int] = {}                   # the body of each message row
        self._rows: Counter[int] = Counter()                # how many have this body, damaged ones too
        self._counts: dict[int, int] = {}                   # parts of each body that is in use
        self._in_memory: Counter[int] = Counter()           # how many `StoredBody` objects there are
        self._news: deque[tuple[int, int]] = deque()        # how these change; any thread may append
        self._dead: deque[tuple[int, int]] = deque()        # parts to be deleted: the first, and how many
        self._recorded: dict[int, int] = {}                 # as `_bodies`, in this transaction
        self._gone: set[int] = set()                        # messages, likewise
        self._written: tuple[int, int] | None = None        # a body and its parts, likewise
        self._deleted = 0                                   # parts, likewise

    def load(self, first_id: int) -> None:
        """Read which bodies and unused parts there are, at start; new bodies get numbers from `first_id` on."""
        self._next_id = first_id
        self._bodies = self._read_bodies()
        self._rows.update(self._bodies.values())
        self._rows.update([body_id for body_id, in self._connection.execute(
            f"SELECT body_id FROM damaged WHERE {HAS_PARTS}")])
        found: dict[int, list[int]] = {}
        for number, in self._connection.execute("SELECT number FROM body_parts ORDER BY number"):
            found.setdefault(number - number % ID_STEP, []).append(number)
        for body_id, numbers in found.items():
            count = numbers[-1] - numbers[0] + 1
            if body_id in self._rows:
                self._counts[body_id] = count
            else:
                self._dead.append((numbers[0], count))

    def _read_bodies(self) -> dict[int, int]:
        return dict(self._connection.execute(_SELECT_BODIES).fetchall())

    # Messages in memory

    def hold(self, size: int, body_id: int, checksums: Sequence[int]) -> StoredBody:
        """Return the body of a message that has been read."""
        self._news.append((body_id, 1))
        return StoredBody(size, self.release, body_id, checksums)

    def release(self, body_id: int) -> None:
        """Note that there is one `StoredBody` less with this body. Any thread may call this."""
        self._news.append((body_id, -1))

    def _take_news(self) -> None:
        while self._news:
            body_id, change = self._news.popleft()
            self._in_memory[body_id] += change
            if not self._in_memory[body_id]:
                del self._in_memory[body_id]
                self._delete_if_unused(body_id)

    def _delete_if_unused(self, body_id: int) -> None:
        if body_id not in self._rows and body_id not in self._in_memory and body_id in self._counts:
            self._dead.append((body_id, self._counts.pop(body_id)))

    # Changes

    def write(self, piece: BodyPiece) -> None:
        """Write some parts of a body. Raises sqlite3.Error, as all changes do."""
        stored, execute = piece.body.stored, self._connection.execute
        self.delete(DELETED_A_PART * len(piece.parts))      # before, so that their pages are used again
        if not stored.body_id:
            stored.body_id = self._next_id
            self._next_id += ID_STEP
            self._news.append((stored.body_id, 1))
        checksums = []
        for number, part in enumerate(piece.parts, stored.body_id + piece.start):
            execute("INSERT INTO body_parts (number, data) VALUES (?, zeroblob(?))", (number, sum(map(len, part))))
            checksum = 0
            # Bound as a whole, a part would be copied while no other thread can run.
            with self._connection.blobopen("body_parts", "data", number) as blob:
                for view in part:
                    blob.write(view)
                    checksum = crc32(view, checksum)
            checksums.append(checksum)
        piece.checksums = checksums
        self._written = stored.body_id, piece.start + len(checksums)

    def record(self, bodies: Iterable[tuple[int, int]]) -> None:
        """Note the bodies of messages whose rows have been written, by message number."""
        self._recorded.update(bodies)

    def settle(self, numbers: Iterable[int] | None = None) -> None:
        """Note which of these messages, or of all, have no row any more."""
        if self._bodies:
            candidates = [*self._bodies] if numbers is None else [*self._bodies.keys() & numbers]
            if candidates:
                left = self._connection.execute(
                    "SELECT number FROM message_rows WHERE number IN (SELECT value FROM json_each(?))",
                    (json.dumps(candidates),)).fetchall()
                self._gone |= {*candidates}.difference(chain.from_iterable(left))

    def delete(self, most: int) -> None:
        """Delete up to so many unused parts."""
        self._take_news()
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

    def find_dead(self) -> bool:
        """Return whether there are unused parts."""
        self._take_news()
        return bool(self._dead)

    def keep(self) -> None:
        """Note that the changes are committed."""
        if self._recorded:
            self._bodies.update(self._recorded)
            self._rows.update(self._recorded.values())
        if self._written is not None:
            body_id, count = self._written
            self._counts[body_id] = count
        while self._deleted:
            first, count = self._dead.popleft()
            now = min(count, self._deleted)
            self._deleted -= now
            if now < count:
                self._dead.appendleft((first + now, count - now))
        for number in self._gone:
            body_id = self._bodies.pop(number)
            self._rows[body_id] -= 1
            if not self._rows[body_id]:
                del self._rows[body_id]
                self._delete_if_unused(body_id)

    def forget(self) -> None:
        """Forget what was changed since the last transaction."""
        self._recorded.clear()
        self._gone.clear()
        self._written = None
        self._deleted = 0

    def leave(self, numbers: Iterable[int]) -> None:
        """Keep the bodies of these messages, which are moved to the table `damaged`."""
        for number in numbers:
            self._bodies.pop(number, None)

    def check(self) -> None:
        """Assert what must hold between transactions."""
        assert not (self._recorded or self._gone or self._written or self._deleted)
        assert self._bodies == self._read_bodies()
        assert Counter(self._bodies.values()) <= self._rows
        assert min([*self._rows.values(), *self._in_memory.values()], default=1) > 0
        there = {number for number, in self._connection.execute("SELECT number FROM body_parts")}
        kept = {one for body_id in self._bodies.values()
                for one in range(body_id, body_id + self._counts[body_id])}
        dead = {one for first, count in self._dead for one in range(first, first + count)}
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
