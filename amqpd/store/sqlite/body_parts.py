"""The table of the parts of large bodies: they are written before their messages, and deleted after them.

Owns the table `body_parts`; `rows/body_use.py` knows which of them are used.
"""

from __future__ import annotations

import json
import sqlite3
from binascii import crc32
from collections.abc import Iterable
from itertools import chain

from amqpd.store.body_writes import BodyPiece
from amqpd.store.rows.body_use import DELETED_A_PART, ID_STEP, BodyUse
from amqpd.store.rows.message_rows import checksum_of_parts

HAS_PARTS = "body_id IS NOT NULL"
# Of a row `m`: the size of its body, or NULL where not all of its parts are there.
BODY_SIZE = f"""
    CASE WHEN m.body_id IS NULL THEN length(m.body) WHEN m.body_size = (
        SELECT sum(length(data)) FROM body_parts WHERE body_parts.number BETWEEN m.body_id AND m.body_id + {ID_STEP - 1}
    ) THEN m.body_size END"""
_SELECT_BODIES = f"SELECT number, body_id FROM message_rows WHERE {HAS_PARTS}"
_IN_ORDER = f"FROM body_parts WHERE number BETWEEN ? AND ? + {ID_STEP - 1} ORDER BY number"


class BodyParts(BodyUse):
    """The parts of one store, and their table."""

    def __init__(self, connection: sqlite3.Connection, part_bytes: int) -> None:
        super().__init__()
        self._connection = connection
        self._part_bytes = part_bytes

    def load(self, first_id: int) -> None:
        """Read which bodies and unused parts there are, at start; new bodies get numbers from `first_id` on."""
        damaged = self._connection.execute(f"SELECT body_id FROM damaged WHERE {HAS_PARTS}")
        parts = self._connection.execute("SELECT number FROM body_parts ORDER BY number")
        self.know(self._read_bodies(), [body_id for body_id, in damaged], [number for number, in parts], first_id)

    def _read_bodies(self) -> dict[int, int]:
        return dict(self._connection.execute(_SELECT_BODIES).fetchall())

    # Changes

    def write(self, piece: BodyPiece) -> None:
        """Write some parts of a body. Raises sqlite3.Error, as all changes do."""
        stored, execute = piece.body.stored, self._connection.execute
        self.delete(DELETED_A_PART * len(piece.parts))      # before, so that their pages are used again
        self.give_id(stored)
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
        self.note_written(stored, piece.start + len(checksums))

    def settle(self, numbers: Iterable[int] | None = None) -> None:
        """Note which of these messages, or of all, have no row any more."""
        candidates = self.of_messages(numbers)
        if candidates:
            left = self._connection.execute(
                "SELECT number FROM message_rows WHERE number IN (SELECT value FROM json_each(?))",
                (json.dumps(candidates),)).fetchall()
            self.note_gone(candidates, chain.from_iterable(left))

    def delete(self, most: int) -> None:
        """Delete up to so many unused parts."""
        for first, last in self.next_dead(most):
            self._connection.execute("DELETE FROM body_parts WHERE number BETWEEN ? AND ?", (first, last))

    def check(self) -> None:
        """Assert what must hold between transactions."""
        parts = self._connection.execute("SELECT number FROM body_parts")
        self.check_against(self._read_bodies(), {number for number, in parts})


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
