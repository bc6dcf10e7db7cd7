"""Find where the values of an encoded table begin and end, without decoding them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import isfinite

from amqpd.fields.layout import (
    ARRAY,
    BYTES,
    CUT_SHORT,
    DEEPEST,
    FLOATS,
    LONG_STRING,
    TABLE,
    TYPE_NAMES,
    UNCHECKED_WIDTHS,
    WIDTHS,
    length_at,
)
from amqpd.fields.values import FieldError, TableLimitError


def check_table(encoded: bytes) -> None:
    """Validate a table from a client: lengths, types, finite numbers, nesting.

    Raises TableLimitError beyond `DEEPEST` levels, FieldError if it cannot be decoded.
    """
    at, end, has_names = 0, len(encoded), True
    around: list[tuple[int, bool]] = []     # the containers around the current one: end, and whether a table
    try:
        while True:
            while at >= end:
                if at > end:
                    raise FieldError(CUT_SHORT)
                if not around:
                    return
                end, has_names = around.pop()
            if has_names:
                at += 1 + encoded[at]
            tag = encoded[at]
            at += 1
            if tag == LONG_STRING or tag == BYTES:
                at += 4 + length_at(encoded, at)[0]
            elif tag in UNCHECKED_WIDTHS:
                at += UNCHECKED_WIDTHS[tag]
            elif tag == TABLE or tag == ARRAY:
                around.append((end, has_names))
                if len(around) >= DEEPEST:
                    raise TableLimitError(f"table nested deeper than {DEEPEST} levels")
                start, outer_end = at + 4, end
                end, has_names = start + length_at(encoded, at)[0], tag == TABLE
                if end > outer_end:
                    raise FieldError(CUT_SHORT)
                at = start
            elif tag in FLOATS:
                if not isfinite(FLOATS[tag].unpack_from(encoded, at)[0]):
                    raise FieldError("floating-point field that is not a finite number")
                at += FLOATS[tag].size
            else:
                raise FieldError(f"unknown field type {chr(tag)!r}")
    except (IndexError, struct.error):
        raise FieldError(CUT_SHORT) from None


def span(encoded: bytes, at: int) -> tuple[int, int]:
    """Return where the value whose type byte is at `at` begins and ends. Raises IndexError past the end."""
    tag = encoded[at]
    width = WIDTHS.get(tag)
    if width is not None:
        return at + 1, at + 1 + width
    if tag not in TYPE_NAMES:
        raise FieldError(f"unknown field type {chr(tag)!r}")
    start = at + 5
    return start, start + int.from_bytes(encoded[at + 1 : start], "big")


def entries_of(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each entry of the outermost level."""
    at, size = 0, len(encoded)
    try:
        while at < size:
            value_at = at + 1 + encoded[at]
            end = span(encoded, value_at)[1]
            if end > size:
                raise FieldError(CUT_SHORT)
            yield encoded[at + 1 : value_at], at, end
            at = end
    except IndexError:
        raise FieldError(CUT_SHORT) from None
