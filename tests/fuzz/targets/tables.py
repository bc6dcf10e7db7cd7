"""Field tables: read, written again, searched, and edited in their encoded form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpd import fields
from amqpd.fields import FieldError
from amqpd.packed_table import KNOWN, SMALL, PackedTable, packed_if_large, read_table
from tests.fuzz.targets.target import Target

NAMES = ("a", "count", "x-death")
PADDING = b"\x03padS" + SMALL.to_bytes(4, "big") + bytes(SMALL)


def run(data: bytes) -> None:
    """Read a table; all else that reads tables reads this one too, or refuses it too."""
    try:
        table = fields.decode_table(data)
    except FieldError as error:
        assert str(error)
        for edit in EDITS:
            refusal_of(lambda edit=edit: edit(data))    # type: ignore[misc]
        return
    for value in table.values():
        assert isinstance(fields.type_name(value), str)
    look_at_packed(data)
    packed_if_large(table, 1_000)
    for edit in EDITS:
        edit(data)
    for name in NAMES:
        assert same(fields.find(data, name, "none"), table.get(name, "none"))
        assert (fields.find_type(data, name) is None) == (name not in table)
    written = refusal_of(lambda: fields.encode_table(table))
    # A name that is not UTF-8 is escaped, and may become too long.
    assert isinstance(written, bytes) or written == "field name of more than 255 bytes", written
    if isinstance(written, bytes):
        assert same(fields.decode_table(written), table)


def look_at_packed(data: bytes) -> None:
    """Read a table that is large enough to be kept as its bytes."""
    table, packed = fields.decode_table(data + PADDING), read_table(data + PADDING)
    assert isinstance(packed, PackedTable) and same(dict(packed.items()), table) and len(packed) == len(table)
    assert list(packed.known) == [name for name in table if name in KNOWN]
    for name in (*NAMES, *packed.known):
        assert same(packed.get(name, "none"), table.get(name, "none"))


def edited(data: bytes) -> None:
    """Remove and replace entries."""
    rest = fields.without_keys(data, NAMES)
    if not has_fault(rest):
        assert not any(name in fields.decode_table(rest) for name in NAMES)
    changed = fields.with_entries(data, {"count": fields.Long(7), "new": "text"})
    if not has_fault(changed):
        assert fields.decode_table(changed)["count"] == 7


def searched(data: bytes) -> None:
    """Find entries, and those of the tables in an array."""
    names = [name.encode() for name in NAMES]
    for kind, encoded in fields.find_encoded(data, names).values():
        if kind == "array":
            for table, found in fields.tables_in(encoded, names):
                assert not found or table
        elif kind not in ("table", "float", "double"):
            fields.read_value(kind, encoded)


EDITS: tuple[Callable[[bytes], Any], ...] = (edited, searched, lambda data: fields.find(data, "count"))


def has_fault(data: bytes) -> bool:
    """Return whether a table is refused."""
    try:
        fields.check_table(data)
    except FieldError:
        return True
    return False


def refusal_of(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or the text with which it refuses."""
    try:
        return call()
    except FieldError as error:
        return str(error)


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of equal types, all that is in them included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


VALUES = (b"t\x01", b"b\xff", b"B\xff", b"s\xff\xff", b"u\xff\xff", b"I\xff\xff\xff\xff", b"i\xff\xff\xff\xff",
          b"l" + b"\xff" * 8, b"L" + b"\x7f" * 8, b"f\0\0\0\0", b"d" + bytes(8), b"D\x02\0\0\0\x01", b"T" + b"\xff" * 8,
          b"V", b"S\0\0\0\x03abc", b"S\0\0\0\x02\xff\xfe", b"x\0\0\0\x01a", b"A\0\0\0\x02t\0", b"F\0\0\0\x03\x01a",
          b"F\0\0\0\x04\x01at\0")


def seeds() -> list[bytes]:
    """Return tables with each kind of value, nested ones, and deaths of messages."""
    nested = b""
    for level in range(33):
        nested = b"\x01aF" + len(nested).to_bytes(4, "big") + nested
    death = b"\x05countl" + bytes(7) + b"\x01\x05queueS\0\0\0\x01q\x06reasonS\0\0\0\x07expired"
    deaths = b"".join(b"F" + len(death).to_bytes(4, "big") + death for _ in range(2))
    return [b"", *(b"\x01a" + value for value in VALUES), nested, nested[7:], nested[6:],
            b"\x07x-deathA" + len(deaths).to_bytes(4, "big") + deaths,
            b"".join(b"\x04x-%02d" % number + value for number, value in enumerate(VALUES)),
            b"\x01aV\x01at\x01", b"\xff" + b"\xfe" * 255 + b"V", b"\x01a" + b"A\0\0\0\x05" * 2 + b"V"]


TARGET = Target(
    run, seeds, [*VALUES, b"\x05count", b"\x07x-death", b"\x0cx-max-length", b"\x05queue", b"\x06reason", b"\x01a"],
    steps=100, memory=6_000, lengths=(4,), share=50)
