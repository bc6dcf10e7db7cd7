"""Texts as PostgreSQL can keep them, and arrays as parameters of statements.

A text of PostgreSQL cannot have the character NUL, which a name of AMQP may have: it is written as U+0001 and the digit
0 then, and U+0001 itself as U+0001 and the digit 1. All other texts are kept as they are.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

_ESCAPED = re.compile("\x01([01])")
_BYTEA, _BYTEA_ARRAY = 17, 1001         # identifiers of types, the same on every server
_ARRAY_HEADER = struct.Struct(">iiIii")
_LENGTH = struct.Struct(">i").pack


def to_text(text: str) -> str:
    """Return a text as it is kept."""
    if "\x00" in text or "\x01" in text:
        return text.replace("\x01", "\x011").replace("\x00", "\x010")
    return text


def from_text(text: str) -> str:
    """Return the text that is kept as this one."""
    return _ESCAPED.sub(lambda found: "\x00" if found[1] == "0" else "\x01", text) if "\x01" in text else text


def numbers(values: Iterable[int | None]) -> str:
    """Return an array of numbers, to be cast to `bigint[]`; None is NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


class Bytes(list[bytes]):
    """An array of type `bytea[]`."""


class BytesDumper(Dumper):
    """Sends `Bytes` in the binary format: psycopg's own dumper takes a step of Python for each element."""

    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: Sequence[bytes]) -> Buffer:
        """Return the array as `array_send` makes it (PostgreSQL src/backend/utils/adt/arrayfuncs.c)."""
        if not obj:
            return _ARRAY_HEADER.pack(0, 0, _BYTEA, 0, 0)[:12]
        pieces = [_ARRAY_HEADER.pack(1, 0, _BYTEA, len(obj), 1)]
        for value in obj:
            pieces += (_LENGTH(len(value)), value)
        return b"".join(pieces)
