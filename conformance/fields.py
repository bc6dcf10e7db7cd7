"""Encode and decode method arguments, field tables with explicit types, and content headers.

Layouts are written as in the appendix of the specification: `s` shortstr, `L` longstr, `o` octet, `2` `4` `8` unsigned
integers of that many octets, `T` table. Strings are decoded as UTF-8; invalid octets become surrogates, so that
encoding a decoded value gives the same octets.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Any, ClassVar

INTEGERS = {"o": ">B", "2": ">H", "4": ">I", "8": ">Q"}


def octets(text: str | bytes) -> bytes:
    """The octets of a string; bytes are taken as they are, UTF-8 or not."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def string(raw: bytes) -> str:
    """The reverse of `octets`."""
    return raw.decode("utf-8", "surrogateescape")


def shortstr(text: str | bytes) -> bytes:
    """One length octet, then at most 255 octets."""
    return struct.pack(">B", len(octets(text))) + octets(text)


def longstr(text: str | bytes) -> bytes:
    """Four length octets, then the string."""
    return struct.pack(">I", len(octets(text))) + octets(text)


def bits(*flags: bool) -> int:
    """Flags packed into an octet, the first one lowest."""
    return sum(bool(flag) << position for position, flag in enumerate(flags))


def pack(layout: str, *values: Any) -> bytes:
    """Method arguments in this layout."""
    assert len(layout) == len(values), f"{len(values)} values for layout {layout!r}"
    writers = {"s": shortstr, "L": longstr, "T": encode_table}
    return b"".join(struct.pack(INTEGERS[kind], value) if kind in INTEGERS else writers[kind](value)
                    for kind, value in zip(layout, values))


def unpack(layout: str, raw: bytes) -> tuple:
    """Method arguments read in this layout; every octet must be used."""
    cursor = Cursor(raw)
    values = tuple(cursor.read(kind) for kind in layout)
    assert not cursor.rest(), f"arguments {raw!r} are longer than layout {layout!r}"
    return values


class Cursor:
    """Reads values from octets, one after the other."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.position = 0

    def take(self, size: int) -> bytes:
        """The next `size` octets."""
        taken = self.raw[self.position:self.position + size]
        assert len(taken) == size, f"{self.raw!r} ends within a value"
        self.position += size
        return taken

    def rest(self) -> bytes:
        """All octets that are left."""
        return self.take(len(self.raw) - self.position)

    def number(self, form: str) -> Any:
        """One number in this form of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def read(self, kind: str) -> Any:
        """One value of a layout; tables come as plain Python values."""
        if kind == "s":
            return string(self.take(self.number(">B")))
        if kind == "L":
            return string(self.take(self.number(">I")))
        if kind == "T":
            return plain_table(self.typed_pairs())
        return self.number(INTEGERS[kind])

    def typed_pairs(self) -> list[tuple[str, "Typed"]]:
        """A table as pairs in the order of the wire, values with their types."""
        body = Cursor(self.take(self.number(">I")))
        pairs = []
        while body.position < len(body.raw):
            key = body.read("s")
            pairs.append((key, body.typed()))
        return pairs

    def typed(self) -> "Typed":
        """One field value, after its type octet."""
        octet = self.take(1)
        assert octet in TYPES, f"type octet {octet!r} is none of RabbitMQ's"
        return TYPES[octet].read(self)


@dataclass(frozen=True)
class Typed:
    """A field value with its type; subclasses are named after the types."""

    value: Any = None
    octet: ClassVar[bytes]
    form: ClassVar[str]

    def encode(self) -> bytes:
        """Type octet and value."""
        return self.octet + struct.pack(self.form, self.value)

    @classmethod
    def read(cls, cursor: Cursor) -> "Typed":
        """The value after its type octet."""
        return cls(cursor.number(cls.form))

    def plain(self) -> Any:
        """The Python value without its type."""
        return self.value


class Boolean(Typed):
    """One octet, 0 or 1."""

    octet, form = b"t", ">?"


class SignedByte(Typed):
    """8 bits, signed."""

    octet, form = b"b", ">b"


class UnsignedByte(Typed):
    """8 bits, unsigned."""

    octet, form = b"B", ">B"


class SignedShort(Typed):
    """16 bits, signed: RabbitMQ's meaning of `s`, which the specification gives to short strings."""

    octet, form = b"s", ">h"


class UnsignedShort(Typed):
    """16 bits, unsigned."""

    octet, form = b"u", ">H"


class SignedInt(Typed):
    """32 bits, signed."""

    octet, form = b"I", ">i"


class UnsignedInt(Typed):
    """32 bits, unsigned."""

    octet, form = b"i", ">I"


class Long(Typed):
    """64 bits, signed."""

    octet, form = b"l", ">q"


class UpperLong(Typed):
    """64 bits under the octet `L`, signed for RabbitMQ although the specification says unsigned."""

    octet, form = b"L", ">q"


class Float(Typed):
    """32-bit floating point."""

    octet, form = b"f", ">f"


class Double(Typed):
    """64-bit floating point."""

    octet, form = b"d", ">d"


class Timestamp(Typed):
    """Seconds since 1970, 64 bits."""

    octet, form = b"T", ">Q"


class Void(Typed):
    """No value at all."""

    octet = b"V"

    def encode(self) -> bytes:
        return self.octet

    @classmethod
    def read(cls, cursor: Cursor) -> "Void":
        return cls()


@dataclass(frozen=True)
class Decimal(Typed):
    """`value` divided by ten to the power of `scale`."""

    scale: int = 0
    octet: ClassVar[bytes] = b"D"

    def encode(self) -> bytes:
        return self.octet + struct.pack(">BI", self.scale, self.value)

    @classmethod
    def read(cls, cursor: Cursor) -> "Decimal":
        scale, value = struct.unpack(">BI", cursor.take(5))
        return cls(value, scale)

    def plain(self) -> "Decimal":
        return self


class LongString(Typed):
    """Octets with a 32-bit length, UTF-8 by custom."""

    octet = b"S"

    def encode(self) -> bytes:
        return self.octet + longstr(self.value)

    @classmethod
    def read(cls, cursor: Cursor) -> "LongString":
        return cls(cursor.read("L"))


class ByteArray(Typed):
    """Octets with a 32-bit length."""

    octet = b"x"

    def encode(self) -> bytes:
        return self.octet + longstr(self.value)

    @classmethod
    def read(cls, cursor: Cursor) -> "ByteArray":
        return cls(cursor.take(cursor.number(">I")))


class Array(Typed):
    """A list of values, each with its own type."""

    octet = b"A"

    def encode(self) -> bytes:
        return self.octet + longstr(b"".join(typed(value).encode() for value in self.value))

    @classmethod
    def read(cls, cursor: Cursor) -> "Array":
        body = Cursor(cursor.take(cursor.number(">I")))
        values = []
        while body.position < len(body.raw):
            values.append(body.typed())
        return cls(values)

    def plain(self) -> list:
        return [value.plain() for value in self.value]


class Table(Typed):
    """A nested table: a dict, or pairs in the order of the wire."""

    octet = b"F"

    def encode(self) -> bytes:
        return self.octet + encode_table(self.value)

    @classmethod
    def read(cls, cursor: Cursor) -> "Table":
        return cls(cursor.typed_pairs())

    def plain(self) -> dict:
        return plain_table(self.value)


ALL_TYPES = (Boolean, SignedByte, UnsignedByte, SignedShort, UnsignedShort, SignedInt, UnsignedInt, Long, UpperLong,
             Float, Double, Timestamp, Void, Decimal, LongString, ByteArray, Array, Table)
TYPES: dict[bytes, type[Typed]] = {kind.octet: kind for kind in ALL_TYPES}


def typed(value: Any) -> Typed:
    """A plain Python value as the type clients send for it; typed values stay as they are."""
    if isinstance(value, Typed):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return SignedInt(value) if -2 ** 31 <= value < 2 ** 31 else Long(value)
    defaults = {type(None): Void, bool: Boolean, float: Double, str: LongString, bytes: LongString,
                list: Array, dict: Table}
    return defaults[type(value)](value)


def encode_table(table: dict | list) -> bytes:
    """A table with its length, from a dict or from pairs; pairs may repeat a key."""
    pairs = table.items() if isinstance(table, dict) else table
    return longstr(b"".join(shortstr(key) + typed(value).encode() for key, value in pairs))


def decode_table(raw: bytes) -> list[tuple[str, Typed]]:
    """A table with its length as typed pairs, in the order of the wire."""
    cursor = Cursor(raw)
    pairs = cursor.typed_pairs()
    assert not cursor.rest(), f"octets after the table {raw!r}"
    return pairs


def plain_table(pairs: list[tuple[str, Typed]]) -> dict[str, Any]:
    """Typed pairs as a dict of plain Python values."""
    return {key: value.plain() for key, value in pairs}


@dataclass(frozen=True)
class Properties:
    """The fourteen properties of a message, in the order of their flags from bit 15 down; None is absent."""

    content_type: str | bytes | None = None
    content_encoding: str | bytes | None = None
    headers: dict | list | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | bytes | None = None
    reply_to: str | bytes | None = None
    expiration: str | bytes | None = None
    message_id: str | bytes | None = None
    timestamp: int | None = None
    type: str | bytes | None = None
    user_id: str | bytes | None = None
    app_id: str | bytes | None = None
    cluster_id: str | bytes | None = None

    layout: ClassVar[str] = "ssToossss8ssss"

    def values(self) -> list:
        """All fourteen, in the order of their flags."""
        return [getattr(self, field.name) for field in fields(self)]

    def encode(self) -> bytes:
        """Flags, then the properties that are present."""
        flags, raw = 0, b""
        for position, (kind, value) in enumerate(zip(self.layout, self.values())):
            if value is not None:
                flags |= 1 << 15 - position
                raw += pack(kind, value)
        return struct.pack(">H", flags) + raw

    @classmethod
    def decode(cls, raw: bytes) -> "Properties":
        """Properties from flags and values; headers become a plain dict."""
        cursor = Cursor(raw)
        flags = cursor.number(">H")
        values = [cursor.read(kind) if flags & 1 << 15 - position else None
                  for position, kind in enumerate(cls.layout)]
        assert not cursor.rest(), f"octets after the properties {raw!r}"
        return cls(*values)


def content_header(size: int, properties: Properties | None = None, *, class_id: int = 60, weight: int = 0) -> bytes:
    """A content header's payload."""
    return struct.pack(">HHQ", class_id, weight, size) + (properties or Properties()).encode()


def header_properties(header: bytes) -> Properties:
    """The properties in a content header's payload."""
    return Properties.decode(header[12:])
