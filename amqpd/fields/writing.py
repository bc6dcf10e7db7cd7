"""Encode tables, and name the types of values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from decimal import Decimal
from math import isfinite
from typing import Any

from amqpd.fields.layout import (
    DECIMAL,
    DEEPEST,
    FLOATS,
    LENGTH,
    LONGEST_NAME,
    NOT_UTF_8,
    SIGNED_64,
    TYPE_NAMES,
    TYPED,
    fits_in_32_bits,
)
from amqpd.fields.reading import decode_table, long_string
from amqpd.fields.values import Encoded, FieldError, Float, LongString, TableLimitError, TypedInt, Value

_SIZES = [bytes((size,)) for size in range(LONGEST_NAME + 1)]
_SIGNED_32 = struct.Struct(">i")
_Writer = Callable[[Any], bytes]


def encode_table(table: Mapping[str, Value]) -> bytes:
    """Encode a table. Plain ints become `I` if they fit into 32 bits, else `l`; the other types have one tag each.

    Raises FieldError for a name of more than 255 bytes, for a value of another type or beyond the range of its type,
    and for nesting beyond `DEEPEST`.
    """
    return _write_table(table, 1)


def _write_table(table: Mapping[str, Value], level: int) -> bytes:
    # One loop for speed: a start of the broker encodes all large tables.
    writers, sizes = _WRITERS, _SIZES
    parts: list[bytes] = []
    try:
        for name, value in table.items():
            encoded = name.encode()
            writer = writers.get(type(value))
            parts += sizes[len(encoded)], encoded, write_value(value, level) if writer is None else writer(value)
    except UnicodeEncodeError:
        raise FieldError(NOT_UTF_8) from None
    except IndexError:
        raise FieldError(f"field name of more than {LONGEST_NAME} bytes") from None
    return b"".join(parts)


def write_value(value: Value, level: int) -> bytes:
    """Encode a value with its type byte, at this level of nesting. Raises FieldError as `encode_table`."""
    if isinstance(value, (dict, list)):
        if level >= DEEPEST:
            raise TableLimitError(f"table nested deeper than {DEEPEST} levels")
        if isinstance(value, dict):
            return sized(b"F", _write_table(value, level + 1))
        return sized(b"A", b"".join([write_value(element, level + 1) for element in value]))
    for kind in type(value).__mro__:
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(value)
    raise FieldError(f"a {type(value).__name__} cannot be a field")


def sized(tag: bytes, encoded: bytes) -> bytes:
    """Return encoded bytes behind the type byte and their length."""
    return tag + LENGTH.pack(len(encoded)) + encoded


def utf8(text: str) -> bytes:
    """Encode a text. Raises FieldError if UTF-8 cannot hold it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FieldError(NOT_UTF_8) from None


def _write_integer(value: int) -> bytes:
    if fits_in_32_bits(value):
        return b"I" + _SIGNED_32.pack(value)
    if -(1 << 63) <= value < 1 << 63:
        return b"l" + SIGNED_64.pack(value)
    raise FieldError("integer beyond 64 bits")


def _typed_writer(tag: bytes, layout: struct.Struct) -> _Writer:
    def write(value: TypedInt) -> bytes:
        try:
            return tag + layout.pack(value)
        except struct.error:
            raise FieldError(f"{value!r} is beyond its type") from None
    return write


def _write_floating(tag: bytes, value: float) -> bytes:
    if isfinite(value):
        with suppress(OverflowError):
            return tag + FLOATS[tag[0]].pack(value)
    raise FieldError("floating-point field that is not a finite number")


def _write_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 9 or len(digits) > 10:
        raise FieldError("decimal beyond 32 bits or 255 places")
    number = int("".join(map(str, digits))) * 10 ** max(exponent, 0) * (-1 if sign else 1)
    if not fits_in_32_bits(number):
        raise FieldError("decimal beyond 32 bits or 255 places")
    return b"D" + DECIMAL.pack(max(-exponent, 0), number)


_WRITERS: dict[type, _Writer] = {
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _write_integer,
    **{kind: _typed_writer(tag, layout) for kind, (tag, layout) in TYPED.items()},
    float: lambda value: _write_floating(b"d", value),
    Float: lambda value: _write_floating(b"f", value),
    str: lambda value: sized(b"S", utf8(value)),
    LongString: lambda value: sized(b"S", value),
    Encoded: lambda value: value.tag + value,
    bytes: lambda value: sized(b"x", value),
    Decimal: _write_decimal,
    type(None): lambda value: b"V",
}


def is_read_back(table: Mapping[str, Value]) -> bool:
    """Return whether `encode_table`, if it can write this table, writes bytes that are read as an equal one.

    A long string that is UTF-8 becomes text, and a floating-point number of 32 bits is rounded.
    """
    return _are_read_back(table.values())


def _are_read_back(values: Collection[Value]) -> bool:
    for value in values:
        if isinstance(value, (dict, list)):
            if not _are_read_back(value if isinstance(value, list) else value.values()):
                return False
        elif isinstance(value, LongString):
            if long_string(value) != value:
                return False
        elif isinstance(value, Float) and decode_table(encode_table({"": value}))[""] != value:
            return False
    return True


def type_name(value: Value) -> str:
    """Return the type of a value in RabbitMQ's words, for error texts: ``longstr``, ``signedint``, ``table``.

    Raises FieldError for a value that a table cannot hold.
    """
    if isinstance(value, (list, dict)):     # not encoded, since the cost depends on the size
        return "array" if isinstance(value, list) else "table"
    return TYPE_NAMES[write_value(value, 1)[0]]
