"""Decode tables."""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal

from amqpd.fields.layout import (
    ARRAY,
    BYTES,
    DECIMAL,
    FLOATS,
    LONG_STRING,
    TABLE,
    TYPED,
    WIDTHS,
    fits_in_32_bits,
    length_at,
)
from amqpd.fields.values import Float, Long, LongString, TypedInt, Value
from amqpd.fields.walking import check_table

_Reader = Callable[[bytes, int, int], Value]


def decode_table(encoded: bytes) -> dict[str, Value]:
    """Return the values of a table. Of two entries with one name the first counts, as in RabbitMQ's look-ups.

    Bytes of a name that are not UTF-8 are escaped.

    Raises TableLimitError beyond `DEEPEST` levels, FieldError if the bytes cannot be decoded.
    """
    check_table(encoded)
    return _read_table(encoded, 0, len(encoded))


def decode_checked_table(encoded: bytes) -> dict[str, Value]:
    """Return the same for a table that `check_table` has validated."""
    return _read_table(encoded, 0, len(encoded))


# Both find the ends themselves, since `check_table` has validated them: calls of `span` took a third of the time.

def _read_table(encoded: bytes, at: int, end: int) -> dict[str, Value]:
    table: dict[str, Value] = {}
    while at < end:
        start = at + 2 + encoded[at]
        tag = encoded[start - 1]
        name = encoded[at + 1 : start - 1].decode(errors="backslashreplace")
        width = WIDTHS.get(tag)
        if width is None:
            width = length_at(encoded, start)[0]
            start += 4
        at = start + width
        table.setdefault(name, READERS[tag](encoded, start, at))
    return table


def _read_array(encoded: bytes, at: int, end: int) -> list[Value]:
    values: list[Value] = []
    while at < end:
        tag = encoded[at]
        start = at + 1
        width = WIDTHS.get(tag)
        if width is None:
            width = length_at(encoded, start)[0]
            start += 4
        at = start + width
        values.append(READERS[tag](encoded, start, at))
    return values


def long_string(encoded: bytes) -> str | LongString:
    """Return the value of a long string: text if it is UTF-8."""
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return LongString(encoded)


def _read_decimal(encoded: bytes, start: int, end: int) -> Decimal:
    places, digits = DECIMAL.unpack_from(encoded, start)
    return Decimal(f"{digits}E-{places}")


def _read_integer(encoded: bytes, start: int, end: int) -> int:
    return int.from_bytes(encoded[start:end], "big", signed=True)


def _read_long(encoded: bytes, start: int, end: int) -> int:
    number = _read_integer(encoded, start, end)
    return Long(number) if fits_in_32_bits(number) else number


def _typed_reader(kind: type[TypedInt], layout: struct.Struct) -> _Reader:
    return lambda encoded, start, end: kind(layout.unpack_from(encoded, start)[0])


READERS: dict[int, _Reader] = {
    **{tag[0]: _typed_reader(kind, layout) for kind, (tag, layout) in TYPED.items()},
    ord("I"): _read_integer,
    ord("l"): _read_long,
    ord("L"): _read_long,
    ord("t"): lambda encoded, start, end: encoded[start] != 0,
    ord("f"): lambda encoded, start, end: Float(FLOATS[ord("f")].unpack_from(encoded, start)[0]),
    ord("d"): lambda encoded, start, end: float(FLOATS[ord("d")].unpack_from(encoded, start)[0]),
    ord("D"): _read_decimal,
    ord("V"): lambda encoded, start, end: None,
    LONG_STRING: lambda encoded, start, end: long_string(encoded[start:end]),
    BYTES: lambda encoded, start, end: encoded[start:end],
    ARRAY: _read_array,
    TABLE: _read_table,
}
