"""Field tables by value: the arguments of methods and the headers of messages.

Owns the bytes of a table, without the four that say its length, and the values they stand for. Decoding
loses nothing a client can notice: a string that is not UTF-8 stays bytes, a timestamp stays a number. A
number that a plain int or float would not be written as is of a type of its own, and equals others by value.
Headers that must otherwise stay as they came are spliced, not decoded and encoded again.

Always true: whatever the bytes, the only exception is FieldError. `check_table` is the guard at the door;
what it lets through, every other function here reads without an error. How many fields a table has is limited
by the frame that it came in, and not at all once it is here: each dead-lettering adds to the headers.

Spec: §4.2.5.5; the types are those of RabbitMQ docs/amqp-0-9-1-errata, which differ from the printed ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from math import isfinite
from typing import Any, Union

DEEPEST = 32            # levels of tables and arrays, the outermost included
LONGEST_NAME = 255      # bytes of an entry's name

_CUT_SHORT = "table ends within a field"
_LENGTH = struct.Struct(">I")
_SIGNED_32 = struct.Struct(">i")
_SIGNED_64 = struct.Struct(">q")
_DECIMAL = struct.Struct(">Bi")
_FLOATS = {ord("f"): struct.Struct(">f"), ord("d"): struct.Struct(">d")}
_length_at = _LENGTH.unpack_from
_from_octets = int.from_bytes


class FieldError(ValueError):
    """Bytes that are no field table, or a value that has no place in one. The text may go to the peer."""


class TableLimitError(FieldError):
    """A table that is well formed, but nested too deep."""


class TypedInt(int):
    """An integer whose type on the wire is not the one that a plain int is written with."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    __str__ = int.__repr__


class Byte(TypedInt):
    """8 bits, signed."""


class UnsignedByte(TypedInt):
    """8 bits."""


class Short(TypedInt):
    """16 bits, signed."""


class UnsignedShort(TypedInt):
    """16 bits."""


class UnsignedInt(TypedInt):
    """32 bits."""


class Long(TypedInt):
    """64 bits, signed. What needs more than 32 of them is read as a plain int, since that is written the same."""


class Timestamp(TypedInt):
    """Seconds since 1970 as the peer wrote them, 0 to 2^64 - 1; many write milliseconds."""


class Float(float):
    """A number of 32 bits in floating point; one that was never read from a table is rounded when written."""

    def __repr__(self) -> str:
        return f"Float({self})"

    __str__ = float.__repr__


class LongString(bytes):
    """A long string that is not UTF-8."""

    def __repr__(self) -> str:
        return f"LongString({super().__repr__()})"


class Encoded(bytes):
    """A value as it stands in a table, after its byte for the type, which is `tag`; only written, never read."""

    tag: bytes

    def __new__(cls, tag: bytes, octets: bytes) -> Encoded:
        """Take the bytes as they are."""
        encoded = super().__new__(cls, octets)
        encoded.tag = tag
        return encoded


Value = Union[None, bool, int, float, str, bytes, Decimal, list["Value"], dict[str, "Value"]]
"""TypedInt, Float and LongString are among them."""


# Walking: finding where values begin and end, without decoding them

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
_LONG_STRING, _OCTETS, _ARRAY, _TABLE = b"SxAF"
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


def check_table(octets: bytes) -> None:
    """Walk a table as it came from a peer: lengths, types, finite numbers, nesting.

    Raises TableLimitError beyond `DEEPEST`, FieldError where it does not decode.
    """
    at, end, has_names = 0, len(octets), True
    around: list[tuple[int, bool]] = []     # the containers around the one at hand: where it ends, whether a table
    try:
        while True:
            while at >= end:
                if at > end:
                    raise FieldError(_CUT_SHORT)
                if not around:
                    return
                end, has_names = around.pop()
            if has_names:
                at += 1 + octets[at]
            tag = octets[at]
            at += 1
            if tag == _LONG_STRING or tag == _OCTETS:
                at += 4 + _length_at(octets, at)[0]
            elif tag in _UNCHECKED_WIDTHS:
                at += _UNCHECKED_WIDTHS[tag]
            elif tag == _TABLE or tag == _ARRAY:
                around.append((end, has_names))
                if len(around) >= DEEPEST:
                    raise TableLimitError(f"table nested deeper than {DEEPEST} levels")
                start, outer_end = at + 4, end
                end, has_names = start + _length_at(octets, at)[0], tag == _TABLE
                if end > outer_end:
                    raise FieldError(_CUT_SHORT)
                at = start
            elif tag in _FLOATS:
                if not isfinite(_FLOATS[tag].unpack_from(octets, at)[0]):
                    raise FieldError("floating-point field that is not a finite number")
                at += _FLOATS[tag].size
            else:
                raise FieldError(f"unknown field type {chr(tag)!r}")
    except (IndexError, struct.error):
        raise FieldError(_CUT_SHORT) from None


def _span(octets: bytes, at: int) -> tuple[int, int]:
    """Where the value whose type byte stands at `at` begins and ends; IndexError past the end."""
    tag = octets[at]
    width = _WIDTHS.get(tag)
    if width is not None:
        return at + 1, at + 1 + width
    if tag not in _TYPE_NAMES:
        raise FieldError(f"unknown field type {chr(tag)!r}")
    start = at + 5
    return start, start + int.from_bytes(octets[at + 1 : start], "big")


def _entries(octets: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each entry of the outermost level."""
    at, size = 0, len(octets)
    try:
        while at < size:
            value_at = at + 1 + octets[at]
            end = _span(octets, value_at)[1]
            if end > size:
                raise FieldError(_CUT_SHORT)
            yield octets[at + 1 : value_at], at, end
            at = end
    except IndexError:
        raise FieldError(_CUT_SHORT) from None


# Reading

_Reader = Callable[[bytes, int, int], Value]


def decode_table(octets: bytes) -> dict[str, Value]:
    """The values of a table. Of two entries with one name the first counts, as in RabbitMQ's look-ups.

    A name that is not UTF-8 is shown escaped.

    Raises TableLimitError beyond `DEEPEST`, FieldError where the bytes do not decode.
    """
    check_table(octets)
    return _read_table(octets, 0, len(octets))


# Both find the ends by themselves, since `check_table` has been there: as calls of `_span` that took a third of it.

def _read_table(octets: bytes, at: int, end: int) -> dict[str, Value]:
    table: dict[str, Value] = {}
    while at < end:
        start = at + 2 + octets[at]
        tag = octets[start - 1]
        name = octets[at + 1 : start - 1].decode(errors="backslashreplace")
        width = _WIDTHS.get(tag)
        if width is None:
            width = _length_at(octets, start)[0]
            start += 4
        at = start + width
        table.setdefault(name, _READERS[tag](octets, start, at))
    return table


def _read_array(octets: bytes, at: int, end: int) -> list[Value]:
    values: list[Value] = []
    while at < end:
        tag = octets[at]
        start = at + 1
        width = _WIDTHS.get(tag)
        if width is None:
            width = _length_at(octets, start)[0]
            start += 4
        at = start + width
        values.append(_READERS[tag](octets, start, at))
    return values


def long_string(octets: bytes) -> str | LongString:
    """The value of a long string: text if it is UTF-8."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return LongString(octets)


def _read_decimal(octets: bytes, start: int, end: int) -> Decimal:
    places, digits = _DECIMAL.unpack_from(octets, start)
    return Decimal(f"{digits}E-{places}")


def _read_integer(octets: bytes, start: int, end: int) -> int:
    return int.from_bytes(octets[start:end], "big", signed=True)


def _read_long(octets: bytes, start: int, end: int) -> int:
    number = _read_integer(octets, start, end)
    return Long(number) if _fits_in_32_bits(number) else number


def _typed_reader(kind: type[TypedInt], layout: struct.Struct) -> _Reader:
    return lambda octets, start, end: kind(layout.unpack_from(octets, start)[0])


def _fits_in_32_bits(number: int) -> bool:
    return -(1 << 31) <= number < 1 << 31


_READERS: dict[int, _Reader] = {
    **{tag[0]: _typed_reader(kind, layout) for kind, (tag, layout) in _TYPED.items()},
    ord("I"): _read_integer,
    ord("l"): _read_long,
    ord("L"): _read_long,
    ord("t"): lambda octets, start, end: octets[start] != 0,
    ord("f"): lambda octets, start, end: Float(_FLOATS[ord("f")].unpack_from(octets, start)[0]),
    ord("d"): lambda octets, start, end: float(_FLOATS[ord("d")].unpack_from(octets, start)[0]),
    ord("D"): _read_decimal,
    ord("V"): lambda octets, start, end: None,
    _LONG_STRING: lambda octets, start, end: long_string(octets[start:end]),
    _OCTETS: lambda octets, start, end: octets[start:end],
    _ARRAY: _read_array,
    _TABLE: _read_table,
}


# Writing

_Writer = Callable[[Any], bytes]


def encode_table(table: Mapping[str, Value]) -> bytes:
    """The bytes of a table. Plain ints become `I` where 32 bits hold them, else `l`; other types have one tag each.

    Raises FieldError for a name of more than 255 bytes, a value of another type or one that its type cannot
    hold, and for nesting beyond `DEEPEST`.
    """
    return _write_table(table, 1)


def _write_table(table: Mapping[str, Value], level: int) -> bytes:
    return b"".join([_write_name(name) + _write_value(value, level) for name, value in table.items()])


def _write_name(name: str) -> bytes:
    octets = _utf8(name)
    if len(octets) > LONGEST_NAME:
        raise FieldError(f"field name of more than {LONGEST_NAME} bytes")
    return bytes((len(octets),)) + octets


def _write_value(value: Value, level: int) -> bytes:
    for kind in type(value).__mro__:
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(value)
    if level >= DEEPEST:
        raise TableLimitError(f"table nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        return _sized(b"F", _write_table(value, level + 1))
    if isinstance(value, list):
        return _sized(b"A", b"".join([_write_value(element, level + 1) for element in value]))
    raise FieldError(f"a {type(value).__name__} cannot be a field")


def _sized(tag: bytes, octets: bytes) -> bytes:
    return tag + _LENGTH.pack(len(octets)) + octets


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FieldError("text that UTF-8 cannot hold") from None


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


def type_name(value: Value) -> str:
    """The type of a value in RabbitMQ's words, as its refusals use them: ``longstr``, ``signedint``, ``table``.

    Raises FieldError for what cannot be in a table.
    """
    if isinstance(value, (list, dict)):     # not written, which takes as long as it is large
        return "array" if isinstance(value, list) else "table"
    return _TYPE_NAMES[_write_value(value, 1)[0]]


# Splicing: reading and changing single entries of a table whose other bytes stay as they are

def find(octets: bytes, name: str, default: Value = None) -> Value:
    """The value of the first entry of this name on the outermost level, or `default`.

    Raises FieldError where what is walked over, or the value, does not decode.
    """
    entry = _first_entry(octets, name)
    return default if entry is None else next(iter(decode_table(entry).values()))


def find_type(octets: bytes, name: str) -> str | None:
    """As `find`, but the name of the entry's type, whatever its value."""
    entry = _first_entry(octets, name)
    return None if entry is None else _TYPE_NAMES[entry[1 + entry[0]]]


def _first_entry(octets: bytes, name: str) -> bytes | None:
    wanted = _utf8(name)
    for found, start, end in _entries(octets):
        if found == wanted:
            return octets[start:end]
    return None


def without_keys(octets: bytes, names: Collection[str]) -> bytes:
    """The table without any entry of these names. Raises FieldError where it does not decode."""
    unwanted = {_utf8(name) for name in names}
    return b"".join([octets[start:end] for name, start, end in _entries(octets) if name not in unwanted])


def with_entries(octets: bytes, entries: Mapping[str, Value]) -> bytes:
    """Return the table with each of these values where the first entry of its name was, or at the end.

    Further entries of these names go. Raises FieldError as `encode_table`, and where the table does not decode.
    """
    written = {_utf8(name): encode_table({name: value}) for name, value in entries.items()}
    parts: list[bytes] = []
    for found, start, end in _entries(octets):
        entry = written.get(found)
        if entry is None:
            parts.append(octets[start:end])
        else:
            parts.append(entry)
            written[found] = b""
    return b"".join((*parts, *written.values()))


def find_octets(octets: bytes, names: Collection[bytes]) -> dict[bytes, tuple[str, bytes]]:
    """Return of each of these names that the table has the type of its first entry and the bytes of its value.

    Of strings, tables and arrays the length is left out. Raises FieldError where the table does not decode.
    """
    found: dict[bytes, tuple[str, bytes]] = {}
    at, size = 0, len(octets)
    try:
        while at < size:
            value_at = at + 1 + octets[at]
            name = octets[at + 1 : value_at]
            tag = octets[value_at]
            width = _WIDTHS.get(tag)
            if width is None:
                start, at = _span(octets, value_at)
            else:
                start = value_at + 1
                at = start + width
            if name in names and name not in found:
                found[name] = _TYPE_NAMES[tag], octets[start:at]
    except IndexError:
        raise FieldError(_CUT_SHORT) from None
    if at > size:
        raise FieldError(_CUT_SHORT)
    return found


def read_value(kind: str, octets: bytes) -> Value:
    """Return the value that `find_octets` has found."""
    return _READERS[_TAGS[kind]](octets, 0, len(octets))


def tables_in(array: bytes, names: Collection[bytes]) -> Iterator[tuple[bytes, dict[bytes, tuple[str, bytes]]]]:
    """Yield of each element of an array that is a table its bytes, and of these names what `find_octets` finds.

    Raises FieldError where it does not decode.
    """
    # In one function: there may be thousands of tables, each with a field or two.
    at, size = 0, len(array)
    try:
        while at < size:
            tag = array[at]
            if tag != _TABLE:
                at = _span(array, at)[1]
                continue
            first = at + 5
            at = first + _from_octets(array[at + 1 : first], "big")
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
                    value_at = start + _from_octets(array[start - 4 : start], "big")
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
    """Return the array of tables whose bytes are these."""
    return Encoded(b"A", _sized(b"", b"".join([_sized(b"F", table) for table in tables])))
