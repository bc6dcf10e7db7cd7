"""How values are encoded: the type byte, size and name of each type, and the limits of a table."""

from __future__ import annotations

import struct

from amqpd.fields.values import (
    Byte,
    Long,
    Short,
    Timestamp,
    TypedInt,
    UnsignedByte,
    UnsignedInt,
    UnsignedShort,
)

DEEPEST = 32            # levels of nested tables and arrays, including the outermost
LONGEST_NAME = 255      # bytes of an entry's name

CUT_SHORT = "table ends within a field"
NOT_UTF_8 = "text that UTF-8 cannot hold"
LENGTH = struct.Struct(">I")
length_at = LENGTH.unpack_from
SIGNED_64 = struct.Struct(">q")
DECIMAL = struct.Struct(">Bi")
FLOATS = {ord("f"): struct.Struct(">f"), ord("d"): struct.Struct(">d")}

_TYPES = {
    "t": ("bool", 1), "b": ("byte", 1), "B": ("unsignedbyte", 1), "s": ("short", 2), "u": ("unsignedshort", 2),
    "I": ("signedint", 4), "i": ("unsignedint", 4), "l": ("long", 8), "L": ("long", 8), "f": ("float", 4),
    "d": ("double", 8), "D": ("decimal", 5), "T": ("timestamp", 8), "V": ("void", 0),
    "S": ("longstr", None), "x": ("binary", None), "A": ("array", None), "F": ("table", None),
}
TYPE_NAMES = {ord(tag): name for tag, (name, _) in _TYPES.items()}
TAGS = {name: tag for tag, name in TYPE_NAMES.items()}
WIDTHS = {ord(tag): width for tag, (_, width) in _TYPES.items() if width is not None}
UNCHECKED_WIDTHS = {tag: width for tag, width in WIDTHS.items() if tag not in FLOATS}
LONG_STRING, BYTES, ARRAY, TABLE = b"SxAF"
TYPED: dict[type[TypedInt], tuple[bytes, struct.Struct]] = {
    Byte: (b"b", struct.Struct(">b")),
    UnsignedByte: (b"B", struct.Struct(">B")),
    Short: (b"s", struct.Struct(">h")),
    UnsignedShort: (b"u", struct.Struct(">H")),
    UnsignedInt: (b"i", struct.Struct(">I")),
    Long: (b"l", SIGNED_64),
    Timestamp: (b"T", struct.Struct(">Q")),
}
INTEGERS = frozenset([TYPE_NAMES[ord("I")], *[TYPE_NAMES[tag[0]] for tag, _ in TYPED.values()]])     # by type name


def fits_in_32_bits(number: int) -> bool:
    """Return whether a signed integer of 32 bits can hold the number."""
    return -(1 << 31) <= number < 1 << 31
