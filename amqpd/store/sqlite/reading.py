"""Read messages with rows of their own, and large bodies in pieces."""

from __future__ import annotations

import json
import sqlite3
from binascii import crc32
from collections.abc import Sequence
from functools import partial
from typing import cast

from amqpd.message import LARGE_BODY, Message, content_of_pieces
from amqpd.store.rows.message_rows import checksum_of_parts
from amqpd.store.rows.reading import CHANNEL, FRAME_MAX, MessageReader, Parts
from amqpd.store.sqlite.body_parts import HAS_PARTS, PartReader

# A large body is read in pieces; to ask for its size reads nothing of it.
_LARGE = f"length(body) > {LARGE_BODY} AND typeof(body) = 'blob'"
_COLUMNS = f"""
    number, CAST(exchange AS BLOB), CAST(routing_key AS BLOB), properties, checksum,
    CASE WHEN body_id IS NOT NULL THEN coalesce(body_size, 0) WHEN {_LARGE} THEN length(body) ELSE body END"""
_IS_LARGE = f"SELECT body_id FROM message_rows WHERE number = ? AND ({HAS_PARTS} OR {_LARGE})"
_IN_RANGE = f"SELECT {_COLUMNS} FROM message_rows WHERE number BETWEEN ? AND ?"
_LISTED = f"SELECT {_COLUMNS} FROM json_each(?) AS wanted CROSS JOIN message_rows ON number = wanted.value"


def fetch(
    connection: sqlite3.Connection, reader: MessageReader, numbers: Sequence[int]
) -> tuple[list[Message], list[int]]:
    """Return the messages of these numbers, which rise, and the numbers of damaged ones. Others are missing.

    Raises sqlite3.Error.
    """
    if not numbers:
        return [], []
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        rows = connection.execute(_IN_RANGE, (numbers[0], numbers[-1]))
    else:
        rows = connection.execute(_LISTED, (json.dumps(numbers),))
    return reader.read_rows(rows, partial(read_large, connection), sqlite3.Error)


def read_large(
    connection: sqlite3.Connection, number: int, properties: bytes, size: int, sum_before: int, checksum: int
) -> tuple[bytes, Parts | None]:
    """Return the content of a message with a large body, which is copied once, a frame at a time.

    Return also which parts the body is in, if it is in parts. Raises ValueError where it does not fit the checksum,
    parts are missing, or a flipped bit made a number of the body; sqlite3.Error.
    """
    row = connection.execute(_IS_LARGE, (number,)).fetchone()
    if row is None:
        raise ValueError("the body is a number")
    if row[0] is not None:
        return _read_parts(connection, row[0], properties, size, sum_before, checksum)
    found = sum_before

    def read(size: int) -> bytes:
        nonlocal found
        piece = blob.read(size)
        found = crc32(piece, found)
        return piece

    with connection.blobopen("message_rows", "body", number, readonly=True) as blob:
        content = content_of_pieces(CHANNEL, FRAME_MAX, properties, size, read)
    if found != checksum:
        raise ValueError("the checksum does not fit")
    return cast(bytes, content), None


def _read_parts(
    connection: sqlite3.Connection, body_id: int, properties: bytes, size: int, sum_before: int, checksum: int
) -> tuple[bytes, Parts | None]:
    """Return the same as `read_large`, of a message whose body is in parts."""
    parts = PartReader(connection, body_id, size)
    try:
        content = content_of_pieces(CHANNEL, FRAME_MAX, properties, size, parts.read)
    finally:
        parts.end_part()
    if checksum_of_parts(sum_before, parts.checksums) != checksum:
        raise ValueError("the checksum does not fit")
    return cast(bytes, content), (body_id, parts.checksums)
