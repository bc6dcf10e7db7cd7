"""The table of the parts of large bodies; `rows/body_use.py` knows which of them are used."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable

from amqpd.store.body_writes import BodyPiece
from amqpd.store.postgres.database import Database, Rows, Statement
from amqpd.store.postgres.statements import insert
from amqpd.store.postgres.texts import numbers
from amqpd.store.rows.body_use import DELETED_A_PART, ID_STEP, BodyUse

HAS_PARTS = "body_id IS NOT NULL"
# Of a row `m`: the size of its body, or NULL where not all of its parts are there.
BODY_SIZE = f"""
    CASE WHEN m.body_id IS NULL THEN length(m.body) WHEN m.body_size = (
        SELECT sum(length(data)) FROM body_parts WHERE body_parts.number BETWEEN m.body_id AND m.body_id + {ID_STEP - 1}
    ) THEN m.body_size END::bigint"""
_READ = f"SELECT data FROM body_parts WHERE number BETWEEN %s AND %s + {ID_STEP - 1} ORDER BY number"


class BodyParts(BodyUse):
    """The parts of one store, and their table."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def load(self, first_id: int) -> None:
        """Read which bodies and unused parts there are, at start; new bodies get numbers from `first_id` on."""
        read = self._database.read
        self.know(self._read_bodies(), [body_id for body_id, in read(f"SELECT body_id FROM damaged WHERE {HAS_PARTS}")],
                  [number for number, in read("SELECT number FROM body_parts ORDER BY number")], first_id)

    def _read_bodies(self) -> dict[int, int]:
        return dict(self._database.read(f"SELECT number, body_id FROM message_rows WHERE {HAS_PARTS}"))

    def write(self, piece: BodyPiece) -> list[Statement]:
        """Return the statements that write some parts of a body, and delete some unused ones; set the checksums."""
        stored = piece.body.stored
        statements = self.delete(DELETED_A_PART * len(piece.parts))
        self.give_id(stored)
        parts = [b"".join(part) for part in piece.parts]
        if parts:
            first = stored.body_id + piece.start
            statements.append(insert("body_parts", ("number", "data"), [*enumerate(parts, first)]))
        piece.checksums = [*map(crc32, parts)]
        self.note_written(stored, piece.start + len(parts))
        return statements

    def settle(self, settled: Iterable[int] | None = None) -> list[Statement]:
        """Return the query that finds out which of these messages, or of all, have no row any more."""
        candidates = self.of_messages(settled)

        def note(_: int, rows: Rows) -> None:
            self.drop_rows(candidates, [number for number, in rows])

        return [Statement(
            "SELECT number FROM message_rows WHERE number = ANY(%s::bigint[])", (numbers(candidates),), note,
            is_read=True)] if candidates else []

    def delete(self, most: int) -> list[Statement]:
        """Return the statements that delete up to so many unused parts."""
        text = "DELETE FROM body_parts WHERE number BETWEEN %s AND %s"
        return [Statement(text, ends) for ends in self.next_dead(most)]

    def read(self, body_id: int) -> list[bytes]:
        """Return the parts of a body, in order."""
        return [data for data, in self._database.read(_READ, (body_id, body_id))]

    def check(self) -> None:
        """Assert what must hold between transactions."""
        parts = self._database.read("SELECT number FROM body_parts")
        self.check_against(self._read_bodies(), {number for number, in parts})
