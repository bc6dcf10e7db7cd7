"""Read and change single entries of an encoded table, while its other bytes stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from amqpd.fields.layout import CUT_SHORT, TABLE, TAGS, TYPE_NAMES, WIDTHS
from amqpd.fields.reading import READERS, decode_table
from amqpd.fields.values import Encoded, FieldError, Value
from amqpd.fields.walking import entries_of, span
from amqpd.fields.writing import encode_table, sized, utf8

_from_bytes = int.from_bytes


def find(encoded: bytes, name: str, default: Value = None) -> Value:
    """Return the value of the first entry of this name on the outermost level, or `default`.

    Raises FieldError if the value, or an entry before it, cannot be decoded.
    """
    entry = _first_entry(encoded, name)
    return default if entry is None else next(iter(decode_table(entry).values()))


def find_type(encoded: bytes, name: str) -> str | None:
    """Return the name of the type of the entry that `find` returns, or None."""
    entry = _first_entry(encoded, name)
    return None if entry is None else TYPE_NAMES[entry[1 + entry[0]]]


def _first_entry(encoded: bytes, name: str) -> bytes | None:
    wanted = utf8(name)
    for found, start, end in entries_of(encoded):
        if found == wanted:
            return encoded[start:end]
    return None


def without_keys(encoded: bytes, names: Collection[str]) -> bytes:
    """Return the table without the entries of these names. Raises FieldError if it cannot be decoded."""
    unwanted = {utf8(name) for name in names}
    return b"".join([encoded[start:end] for name, start, end in entries_of(encoded) if name not in unwanted])


def with_entries(encoded: bytes, entries: Mapping[str, Value]) -> bytes:
    """Return the table with these entries, each in the place of the first entry of its name, or at the end.

    Further entries of these names are removed. Raises FieldError as `encode_table`, and if the table cannot be decoded.
    """
    written = {utf8(name): encode_table({name: value}) for name, value in entries.items()}
    parts: list[bytes] = []
    for found, start, end in entries_of(encoded):
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
            width = WIDTHS.get(tag)
            if width is None:
                start, at = span(encoded, value_at)
            else:
                start = value_at + 1
                at = start + width
            if name in names and name not in found:
                found[name] = TYPE_NAMES[tag], encoded[start:at]
    except IndexError:
        raise FieldError(CUT_SHORT) from None
    if at > size:
        raise FieldError(CUT_SHORT)
    return found


def read_value(kind: str, encoded: bytes) -> Value:
    """Return the value of an entry that `find_encoded` has found."""
    return READERS[TAGS[kind]](encoded, 0, len(encoded))


def tables_in(array: bytes, names: Collection[bytes]) -> Iterator[tuple[bytes, dict[bytes, tuple[str, bytes]]]]:
    """Yield each table in an array: its bytes, and the entries of these names as `find_encoded` returns them.

    Raises FieldError if the array cannot be decoded.
    """
    # One function for speed: there may be thousands of tables, each with a field or two.
    at, size = 0, len(array)
    try:
        while at < size:
            tag = array[at]
            if tag != TABLE:
                at = span(array, at)[1]
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
                width = WIDTHS.get(tag)
                start = value_at + 1
                if width is not None:
                    value_at = start + width
                elif tag in TYPE_NAMES:
                    start += 4
                    value_at = start + _from_bytes(array[start - 4 : start], "big")
                else:
                    raise FieldError(f"unknown field type {chr(tag)!r}")
                if name in names and name not in found:
                    found[name] = TYPE_NAMES[tag], array[start:value_at]
            if value_at > at:
                raise FieldError(CUT_SHORT)
            yield array[first:at], found
    except IndexError:
        raise FieldError(CUT_SHORT) from None
    if at > size:
        raise FieldError(CUT_SHORT)


def array_of_tables(tables: Iterable[bytes]) -> Encoded:
    """Return the array of these encoded tables."""
    return Encoded(b"A", sized(b"", b"".join([sized(b"F", table) for table in tables])))
