"""Field tables: the arguments of methods and the headers of messages, encoded and as Python values.

Owns the encoding of a table, without its four bytes of length. Decoding loses nothing that a client can notice: a
string that is not UTF-8 stays bytes, a timestamp stays a number. A number that a plain int or float would encode
differently has a type of its own, and compares by value. Headers that otherwise stay unchanged are edited in their
encoded form, not decoded and encoded again.

Always true: for any bytes, the only exception is FieldError. `check_table` validates a table from a client; all other
functions here read such a table without an error. The frame limits the number of fields in a table from a client; the
broker may add more, since each dead-lettering adds headers.

Spec: §4.2.5.5; the types are those of RabbitMQ docs/amqp-0-9-1-errata, which differ from the printed ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from math import isfinite
from typing import Any, Union

DEEPEST = 32            # levels of nested tables and arrays, including the outermost
LONGEST_NAME = 255      # bytes of an entry's name

_CUT_SHORT = "table ends within a field"
_NOT_UTF_8 = "text that UTF-8 cannot hold"
_SIZES = [bytes((size,)) for size in range(LONGEST_NAME + 1)]
_LENGTH = struct.Struct(">I")
_SIGNED_32 = struct.Struct(">i")
_SIGNED_64 = struct.Struct(">q")
_DECIMAL = struct.Struct(">Bi")
_FLOATS = {ord("f"): struct.Struct(">f"), ord("d"): struct.Struct(">d")}
_length_at = _LENGTH.unpack_from
_from_bytes = int.from_bytes


class FieldError(ValueError):
    """Bytes that are not a field table, or a value that a table cannot hold. The text may be sent to the client."""


class TableLimitError(FieldError):
    """A valid table that is nested too deep."""


class TypedInt(int):
    """An integer whose encoding differs from that of a plain int."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    __str__ = int.__repr__


class Byte(TypedInt):
    """A signed integer of 8 bits."""


class UnsignedByte(TypedInt):
    """An unsigned integer of 8 bits."""


class Short(TypedInt):
    """A signed integer of 16 bits."""


class UnsignedShort(TypedInt):
    """An unsigned integer of 16 bits."""


class UnsignedInt(TypedInt):
    """An unsigned integer of 32 bits."""


class Long(TypedInt):
    """A signed integer of 64 bits that fits into 32. A larger one is read as a plain int, which is encoded the same."""


class Timestamp(TypedInt):
    """Seconds since 1970 as the client wrote them, 0 to 2^64 - 1; many clients write milliseconds."""


class Float(float):
    """A floating-point number of 32 bits. A value that was not read from a table is rounded when it is encoded."""

    def __repr__(self) -> str:
        return f"Float({self})"

    __str__ = float.__repr__


class LongString(bytes):
    """A long string that is not UTF-8."""

    def __repr__(self) -> str:
        return f"LongString({super().__repr__()})"


class Encoded(bytes):
    """An encoded value without its type byte, which is `tag`. It can be written into a table, but is never read."""

    tag: bytes

    def __new__(cls, tag: bytes, encoded: bytes) -> Encoded:
        """Use the bytes as they are."""
        made = super().__new__(cls, encoded)
        made.tag = tag
        return made


Value = Union[None, bool, int, float, str, bytes, Decimal, list["Value"], dict[str, "Value"]]
"""A value of a field table; TypedInt, Float and LongString are included."""


# Walking: find where values begin and end, without decoding them

_TYPES = {
    "t": ("bool", 1), "b": ("byte", 1), "B": ("unsignedbyte", 1), "s": ("short", 2), "u": ("unsignedshort", 2),
    "I": ("signedint", 4), "i": ("unsignedint", 4), "l": ("long", 8), "L": ("long", 8), "f": ("float", 4),
    "d": ("double", 8), "D": ("decimal", 5), "T": ("timestamp", 8), "V": ("void", 0),
    "S": ("longstr", None), "x": ("binary", None), "A": ("array", None), "F": ("table", None),
}
_TYPE_NAMES = {ord(tag): name for tag, (name, _) in _TYPES.items()}
_TAGS = {name: tag for tag, name in _TYPE_NAMES.items()}
_WIDTHS = {ord(tag): width for tag, (_, width) in _TYPES.items() if width is not None}
_UNCHECKED_WIDTHS = {tag: width for tag, width in _WIDTHS.items() if tag not in _FLOATS}
_LONG_STRING, _BYTES, _ARRAY, _TABLE = b"SxAF"
_TYPED: dict[type[TypedInt], tuple[bytes, struct.Struct]] = {
    Byte: (b"b", struct.Struct(">b")),
    UnsignedByte: (b"B", struct.Struct(">B")),
    Short: (b"s", struct.Struct(">h")),
    UnsignedShort: (b"u", struct.Struct(">H")),
    UnsignedInt: (b"i", struct.Struct(">I")),
    Long: (b"l", _SIGNED_64),
    Timestamp: (b"T", struct.Struct(">Q")),
}
INTEGERS = frozenset([_TYPE_NAMES[ord("I")], *[_TYPE_NAMES[tag[0]] for tag, _ in _TYPED.values()]])     # by type name


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
                    raise FieldError(_CUT_SHORT)
                if not around:
                    return
                end, has_names = around.pop()
            if has_names:
                at += 1 + encoded[at]
            tag = encoded[at]
            at += 1
            if tag == _LONG_STRING or tag == _BYTES:
                at += 4 + _length_at(encoded, at)[0]
            elif tag in _UNCHECKED_WIDTHS:
                at += _UNCHECKED_WIDTHS[tag]
            elif tag == _TABLE or tag == _ARRAY:
                around.append((end, has_names))
                if len(around) >= DEEPEST:
                    raise TableLimitError(f"table nested deeper than {DEEPEST} levels")
                start, outer_end = at + 4, end
                end, has_names = start + _length_at(encoded, at)[0], tag == _TABLE
                if end > outer_end:
                    raise FieldError(_CUT_SHORT)
                at = start
            elif tag in _FLOATS:
                if not isfinite(_FLOATS[tag].unpack_from(encoded, at)[0]):
                    raise FieldError("floating-point field that is not a finite number")
                at += _FLOATS[tag].size
            else:
                raise FieldError(f"unknown field type {chr(tag)!r}")
    except (IndexError, struct.error):
        raise FieldError(_CUT_SHORT) from None


def _span(encoded: bytes, at: int) -> tuple[int, int]:
    """Return where the value whose type byte is at `at` begins and ends. Raises IndexError past the end."""
    tag = encoded[at]
    width = _WIDTHS.get(tag)
    if width is not None:
        return at + 1, at + 1 + width
    if tag not in _TYPE_NAMES:
        raise FieldError(f"unknown field type {chr(tag)!r}")
    start = at + 5
    return start, start + int.from_bytes(encoded[at + 1 : start], "big")


def _entries(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each entry of the outermost level."""
    at, size = 0, len(encoded)
    try:
        while at < size:
            value_at = at + 1 + encoded[at]
            end = _span(encoded, value_at)[1]
            if end > size:
                raise FieldError(_CUT_SHORT)
            yield encoded[at + 1 : value_at], at, end
            at = end
    except IndexError:
        raise FieldError(_CUT_SHORT) from None


# Reading

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


# Both find the ends themselves, since `check_table` has validated them: calls of `_span` took a third of the time.

def _read_table(encoded: bytes, at: int, end: int) -> dict[str, Value]:
    table: dict[str, Value] = {}
    while at < end:
        start = at + 2 + encoded[at]
        tag = encoded[start - 1]
        name = encoded[at + 1 : start - 1].decode(errors="backslashreplace")
        width = _WIDTHS.get(tag)
        if width is None:
            width = _length_at(encoded, start)[0]
            start += 4
        at = start + width
        table.setdefault(name, _READERS[tag](encoded, start, at))
    return table


def _read_array(encoded: bytes, at: int, end: int) -> list[Value]:
    values: list[Value] = []
    while at < end:
        tag = encoded[at]
        start = at + 1
        width = _WIDTHS.get(tag)
        if width is None:
            width = _length_at(encoded, start)[0]
            start += 4
        at = start + width
        values.append(_READERS[tag](encoded, start, at))
    return values


def long_string(encoded: bytes) -> str | LongString:
    """Return the value of a long string: text if it is UTF-8."""
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return LongString(encoded)


def _read_decimal(encoded: bytes, start: int, end: int) -> Decimal:
    places, digits = _DECIMAL.unpack_from(encoded, start)
    return Decimal(f"{digits}E-{places}")


def _read_integer(encoded: bytes, start: int, end: int) -> int:
    return int.from_bytes(encoded[start:end], "big", signed=True)


def _read_long(encoded: bytes, start: int, end: int) -> int:
    number = _read_integer(encoded, start, end)
    return Long(number) if _fits_in_32_bits(number) else number


def _typed_reader(kind: type[TypedInt], layout: struct.Struct) -> _Reader:
    return lambda encoded, start, end: kind(layout.unpack_from(encoded, start)[0])


def _fits_in_32_bits(number: int) -> bool:
    return -(1 << 31) <= number < 1 << 31


_READERS: dict[int, _Reader] = {
    **{tag[0]: _typed_reader(kind, layout) for kind, (tag, layout) in _TYPED.items()},
    ord("I"): _read_integer,
    ord("l"): _read_long,
    ord("L"): _read_long,
    ord("t"): lambda encoded, start, end: encoded[start] != 0,
    ord("f"): lambda encoded, start, end: Float(_FLOATS[ord("f")].unpack_from(encoded, start)[0]),
    ord("d"): lambda encoded, start, end: float(_FLOATS[ord("d")].unpack_from(encoded, start)[0]),
    ord("D"): _read_decimal,
    ord("V"): lambda encoded, start, end: None,
    _LONG_STRING: lambda encoded, start, end: long_string(encoded[start:end]),
    _BYTES: lambda encoded, start, end: encoded[start:end],
    _ARRAY: _read_array,
    _TABLE: _read_table,
}


# Writing

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
            parts += sizes[len(encoded)], encoded, _write_value(value, level) if writer is None else writer(value)
    except UnicodeEncodeError:
        raise FieldError(_NOT_UTF_8) from None
    except IndexError:
        raise FieldError(f"field name of more than {LONGEST_NAME} bytes") from None
    return b"".join(parts)


def _write_value(value: Value, level: int) -> bytes:
    if isinstance(value, (dict, list)):
        if level >= DEEPEST:
            raise TableLimitError(f"table nested deeper than {DEEPEST} levels")
        if isinstance(value, dict):
            return _sized(b"F", _write_table(value, level + 1))
        return _sized(b"A", b"".join([_write_value(element, level + 1) for element in value]))
    for kind in type(value).__mro__:
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(value)
    raise FieldError(f"a {type(value).__name__} cannot be a field")


def _sized(tag: bytes, encoded: bytes) -> bytes:
    return tag + _LENGTH.pack(len(encoded)) + encoded


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FieldError(_NOT_UTF_8) from None


def _write_integer(value: int) -> bytes:
    if _fits_in_32_bits(value):
        return b"I" + _SIGNED_32.pack(value)
    if -(1 << 63) <= value < 1 << 63:
        return b"l" + _SIGNED_64.pack(value)
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
            return tag + _FLOATS[tag[0]].pack(value)
    raise FieldError("floating-point field that is not a finite number")


def _write_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 9 or len(digits) > 10:
        raise FieldError("decimal beyond 32 bits or 255 places")
    number = int("".join(map(str, digits))) * 10 ** max(exponent, 0) * (-1 if sign else 1)
    if not _fits_in_32_bits(number):
        raise FieldError("decimal beyond 32 bits or 255 places")
    return b"D" + _DECIMAL.pack(max(-exponent, 0), number)


_WRITERS: dict[type, _Writer] = {
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _write_integer,
    **{kind: _typed_writer(tag, layout) for kind, (tag, layout) in _TYPED.items()},
    float: lambda value: _write_floating(b"d", value),
    Float: lambda value: _write_floating(b"f", value),
    str: lambda value: _sized(b"S", _utf8(value)),
    LongString: lambda value: _sized(b"S", value),
    Encoded: lambda value: value.tag + value,
    bytes: lambda value: _sized(b"x", value),
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
        elif isinstance(value, Float) and find(encode_table({"": value}), "") != value:
            return False
    return True


def type_name(value: Value) -> str:
    """Return the type of a value in RabbitMQ's words, for error texts: ``longstr``, ``signedint``, ``table``.

    Raises FieldError for a value that a table cannot hold.
    """
    if isinstance(value, (list, dict)):     # not encoded, since the cost depends on the size
        return "array" if isinstance(value, list) else "table"
    return _TYPE_NAMES[_write_value(value, 1)[0]]


# Editing: read and change single entries of a table, while its other bytes stay as they are

def find(encoded: bytes, name: str, default: Value = None) -> Value:
    """Return the value of the first entry of this name on the outermost level, or `default`.

    Raises FieldError if the value, or an entry before it, cannot be decoded.
    """
    entry = _first_entry(encoded, name)
    return default if entry is None else next(iter(decode_table(entry).values()))


def find_type(encoded: bytes, name: str) -> str | None:
    """Return the name of the type of the entry that `find` returns, or None."""
    entry = _first_entry(encoded, name)
    return None if entry is None else _TYPE_NAMES[entry[1 + entry[0]]]


def _first_entry(encoded: bytes, name: str) -> bytes | None:
    wanted = _utf8(name)
    for found, start, end in _entries(encoded):
        if found == wanted:
            return encoded[start:end]
    return None


def without_keys(encoded: bytes, names: Collection[str]) -> bytes:
    """Return the table without the entries of these names. Raises FieldError if it cannot be decoded."""
    unwanted = {_utf8(name) for name in names}
    return b"".join([encoded[start:end] for name, start, end in _entries(encoded) if name not in unwanted])


def with_entries(encoded: bytes, entries: Mapping[str, Value]) -> bytes:
    """Return the table with these entries, each in the place of the first entry of its name, or at the end.

    Further entries of these names are removed. Raises FieldError as `encode_table`, and if the table cannot be decoded.
    """
    written = {_utf8(name): encode_table({name: value}) for name, value in entries.items()}
    parts: list[bytes] = []
    for found, start, end in _entries(encoded):
        entry = written.get(found)
        if entry is None:
            parts.append(encoded[start:end])
        else:
            parts.append(entry)
            written[found] = b""
    return b"".join((*parts, *written.values()))


def find_encoded(encoded: bytes, names: Collection[bytes]) -> dict[bytes, tuple[str, bytes]]:
    """Return the first entry of each of these names: the type and the encoded value, by name.

    The encoded value of a string, table or array has no length field. Raises FieldError if the table cannot be decoded.
    """
    found: dict[bytes, tuple[str, bytes]] = {}
    at, size = 0, len(encoded)
    try:
        while at < size:
            value_at = at + 1 + encoded[at]
            name = encoded[at + 1 : value_at]
            tag = encoded[value_at]
            width = _WIDTHS.get(tag)
            if width is None:
                start, at = _span(encoded, value_at)
            else:
                start = value_at + 1
                at = start + width
            if name in names and name not in found:
                found[name] = _TYPE_NAMES[tag], encoded[start:at]
    except IndexError:
        raise FieldError(_CUT_SHORT) from None
    if at > size:
        raise FieldError(_CUT_SHORT)
    return found


def read_value(kind: str, encoded: bytes) -> Value:
    """Return the value of an entry that `find_encoded` has found."""
    return _READERS[_TAGS[kind]](encoded, 0, len(encoded))


def tables_in(array: bytes, names: Collection[bytes]) -> Iterator[tuple[bytes, dict[bytes, tuple[str, bytes]]]]:
    """Yield each table in an array: its bytes, and the entries of these names as `find_encoded` returns them.

    Raises FieldError if the array cannot be decoded.
    """
    # One function for speed: there may be thousands of tables, each with a field or two.
    at, size = 0, len(array)
    try:
        while at < size:
            tag = array[at]
            if tag != _TABLE:
                at = _span(array, at)[1]
                continue
            first = at + 5
            at = first + _from_bytes(array[at + 1 : first], "big")
            if at > size:
                break
            found: dict[bytes, tuple[str, bytes]] = {}
            value_at = first
            while value_at < at:
                name_at = value_at + 1
                value_at = name_at + array[value_at]
                name = array[name_at:value_at]
                tag = array[value_at]
                width = _WIDTHS.get(tag)
                start = value_at + 1
                if width is not None:
                    value_at = start + width
                elif tag in _TYPE_NAMES:
                    start += 4
                    value_at = start + _from_bytes(array[start - 4 : start], "big")
                else:
                    raise FieldError(f"unknown field type {chr(tag)!r}")
                if name in names and name not in found:
                    found[name] = _TYPE_NAMES[tag], array[start:value_at]
            if value_at > at:
                raise FieldError(_CUT_SHORT)
            yield array[first:at], found
    except IndexError:
        raise FieldError(_CUT_SHORT) from None
    if at > size:
        raise FieldError(_CUT_SHORT)


def array_of_tables(tables: Iterable[bytes]) -> Encoded:
    """Return the array of these encoded tables."""
    return Encoded(b"A", _sized(b"", b"".join([_sized(b"F", table) for table in tables])))
