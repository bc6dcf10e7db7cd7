"""Values as rows and back: definitions, their arguments, and messages on their way in.

Owns which columns hold what, and the text that arguments are kept as. The columns of a definition are named
as its fields; only what is durable is kept, so being durable needs no column.
"""

from __future__ import annotations

import json
import struct
from binascii import crc32
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import reduce
from math import isfinite
from types import MappingProxyType
from typing import Any

import msgspec

from amqpd.broker.definitions import (
    Arguments,
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.store.body_writes import BodyWrite
from amqpd.fields import Byte, Float, Long, LongString, Short, Timestamp, UnsignedByte, UnsignedInt, UnsignedShort
from amqpd.message import BODY_OFFSET_IN_HEADER_FRAME, FRAME_OVERHEAD, LARGE_BODY, Message

BODY_PIECE = 256 << 10      # bytes of it at once

MessageRow = tuple[int, "int | None", str, str, bytes, bytes, int]
LargeRow = tuple[int, "int | None", str, str, bytes, "LargeBody | BodyWrite", int]
EntryRow = tuple[int, int]
State = tuple["int | None", int]

MESSAGE_COLUMNS = ("number", "queue", "exchange", "routing_key", "properties", "body", "checksum")
ENTRY_COLUMNS = ("queue", "number")
PARTS_COLUMNS = ("body_id", "body_size")        # of a message whose body is in parts
STATE_COLUMNS = ("expires_at", "deliveries")     # of a message in a queue; most have neither


# Arguments

_TAGS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    Byte: ("byte", int, Byte),
    UnsignedByte: ("unsignedbyte", int, UnsignedByte),
    Short: ("short", int, Short),
    UnsignedShort: ("unsignedshort", int, UnsignedShort),
    UnsignedInt: ("unsignedint", int, UnsignedInt),
    Long: ("long", int, Long),
    Timestamp: ("timestamp", int, Timestamp),
    Float: ("float", float, Float),
    LongString: ("longstr", LongString.hex, lambda text: LongString(bytes.fromhex(text))),
    bytes: ("binary", bytes.hex, bytes.fromhex),
    Decimal: ("decimal", str, Decimal),
}
_UNTAG = {name: read for name, _, read in _TAGS.values()} | {"double": float}


def pack_arguments(arguments: Arguments) -> str:
    """Arguments as JSON, equal for arguments equal in value and type in whatever order; nothing is lost.

    What JSON lacks stands as ``{"$type": …, "value": …}``: numbers of other types than signedint, long beyond
    32 bits and double, a double that is no number, timestamp, decimal, and longstr and binary in hexadecimal
    digits; so does a table that has a name ``$type`` itself.
    """
    plain = {name: _to_json(value) for name, value in sorted(arguments.items())}
    return json.dumps(_guarded(plain), ensure_ascii=False)


def unpack_arguments(text: str) -> Arguments:
    """The arguments that `pack_arguments` made this text of."""
    arguments: Arguments = _from_json(json.loads(text))
    return arguments


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return _guarded({name: _to_json(inner) for name, inner in value.items()})
    if isinstance(value, list):
        return [_to_json(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return _tagged("double", repr(value))
    tag = _TAGS.get(type(value))
    return value if tag is None else _tagged(tag[0], tag[1](value))


def _guarded(table: dict[str, Any]) -> dict[str, Any]:
    return _tagged("table", table) if "$type" in table else table


def _tagged(name: str, value: Any) -> dict[str, Any]:
    return {"$type": name, "value": value}


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$type")
    if kind not in (None, "table"):
        return _UNTAG[kind](value["value"])
    table = value["value"] if kind else value
    return {name: _from_json(inner) for name, inner in table.items()}


# Definitions

class Table(msgspec.Struct, frozen=True):
    """Where one kind of definition is kept. `implied` fields are the same for every row, and have no column."""

    kind: Callable[..., Definition]
    name: str
    key: tuple[str, ...]
    others: tuple[str, ...] = ()
    implied: Mapping[str, Any] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row, in order."""
        return self.key + self.others

    @property
    def upsert(self) -> str:
        """The statement that keeps a definition, in the place of one with the same identity."""
        updates = ", ".join([f"{column} = excluded.{column}" for column in self.others])
        return (
            f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({', '.join('?' * len(self.columns))}) "
            f"ON CONFLICT ({', '.join(self.key)}) DO " + (f"UPDATE SET {updates}" if updates else "NOTHING"))

    @property
    def delete(self) -> str:
        """The statement that deletes the definition with this key."""
        return f"DELETE FROM {self.name} WHERE " + " AND ".join([f"{column} = ?" for column in self.key])

    @property
    def select(self) -> str:
        """The query for all of them."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name} ORDER BY {', '.join(self.key)}"

    def key_of(self, definition: Definition) -> list[Any]:
        """What identifies this definition."""
        return [_to_column(definition, column) for column in self.key]

    def row_of(self, definition: Definition) -> list[Any]:
        """The row of this definition."""
        return [_to_column(definition, column) for column in self.columns]

    def definition_of(self, row: Iterable[Any]) -> Definition:
        """The definition in this row."""
        values = {
            column: _FROM_COLUMN[column](value) if column in _FROM_COLUMN else value
            for column, value in zip(self.columns, row)}
        return self.kind(**values, **self.implied)


_TO_COLUMN: dict[str, Callable[[Any], str]] = {
    "arguments": pack_arguments,
    "definition": pack_arguments,
    "tags": json.dumps,
}
_FROM_COLUMN: dict[str, Callable[[Any], Any]] = {
    "arguments": unpack_arguments,
    "definition": unpack_arguments,
    "tags": lambda text: tuple(json.loads(text)),
    "auto_delete": bool,
    "internal": bool,
    "is_operator": bool,
}


def _to_column(definition: Definition, column: str) -> Any:
    value = getattr(definition, column)
    return _TO_COLUMN[column](value) if column in _TO_COLUMN else value


_DURABLE = {"durable": True}

# In the order that `Broker.restore` needs: what hangs on something comes after it.
TABLES: dict[type, Table] = {
    VhostDefinition: Table(VhostDefinition, "vhosts", ("name",), ("description", "tags")),
    UserDefinition: Table(UserDefinition, "users", ("name",), ("password_hash", "hashing_algorithm", "tags")),
    PermissionDefinition: Table(
        PermissionDefinition, "permissions", ("user", "vhost"), ("configure", "write", "read")),
    PolicyDefinition: Table(
        PolicyDefinition, "policies", ("vhost", "is_operator", "name"),
        ("pattern", "definition", "priority", "apply_to")),
    ExchangeDefinition: Table(
        ExchangeDefinition, "exchanges", ("vhost", "name"), ("type", "auto_delete", "internal", "arguments"), _DURABLE),
    QueueDefinition: Table(
        QueueDefinition, "queue_rows", ("number",), ("vhost", "name", "auto_delete", "arguments"), _DURABLE),
    BindingDefinition: Table(
        BindingDefinition, "bindings",
        ("vhost", "source", "destination_type", "destination", "routing_key", "arguments")),
}


# Messages

class LargeBody(msgspec.Struct, gc=False):
    """A body that is never put together: it is written into its row in pieces. See `statements.insert_large`."""

    message: Message

    @property
    def size(self) -> int:
        """Return its bytes."""
        return self.message.body_size

    def pieces(self) -> Iterator[memoryview]:
        """Return it in order."""
        return self.message.body_pieces(BODY_PIECE)


_CHECKSUM = struct.Struct(">I")
sizes_at = struct.Struct(">3xI4xQ").unpack_from      # of a header frame: its payload's, and the body's


def names_of(exchange: bytes, routing_key: bytes) -> bytes:
    """Both as short strings. Raises TypeError, ValueError for what is none."""
    return bytes((len(exchange),)) + exchange + bytes((len(routing_key),)) + routing_key


def _add_to_checksum(checksum: int, piece: memoryview) -> int:
    return crc32(piece, checksum)


def checksum_of(exchange: bytes, routing_key: bytes, properties: bytes, body: bytes) -> int:
    """The checksum of a message that has a row of its own. Raises ValueError for names that are too long."""
    return crc32(body, crc32(properties, crc32(names_of(exchange, routing_key))))


def checksum_of_parts(before: int, checksums: Iterable[int]) -> int:
    """Return the checksum of a message whose body is in parts: `before` is that of its names and properties."""
    return crc32(b"".join(map(_CHECKSUM.pack, checksums)), before)


def message_rows(
    published: Mapping[int, Mapping[int, Message]], written: Mapping[int, BodyWrite] = MappingProxyType({})
) -> tuple[list[MessageRow], list[LargeRow], list[EntryRow]]:
    """Return the rows of messages, which are given by queue and number, those with large bodies, and the entries.

    A message has one row, and an entry for each queue if it is in several. Bodies that have been `written` already are
    given by message number.
    """
    rows: list[MessageRow] = []
    large: list[LargeRow] = []
    entries: list[EntryRow] = []
    shared: dict[int, Message] = {}
    for queue, pending in published.items():
        several = [message for message in pending.values() if message.holders]
        single = [m for m in pending.values() if not m.holders] if several else pending.values()
        rows += _rows_of(single, queue, large, written)
        shared.update([(message.number, message) for message in several])
        entries += [(queue, message.number) for message in several]
    rows += _rows_of(shared.values(), None, large, written)
    return rows, large, entries


def size_of_large(rows: Iterable[LargeRow]) -> int:
    """Return how many bytes of bodies are to be written with these."""
    return sum([body.size for _, _, _, _, _, body, _ in rows if isinstance(body, LargeBody)])


def with_states(
    rows: Iterable[MessageRow], large: Iterable[LargeRow], entries: Iterable[EntryRow],
    expiries: Mapping[int, Mapping[int, int]], deliveries: Mapping[int, Mapping[int, int]],
) -> tuple[list[tuple[*MessageRow, *State]], list[tuple[*LargeRow, *State]], list[tuple[*EntryRow, *State]]]:
    """The same rows with STATE_COLUMNS as well, from what is known by queue and number."""
    none: Mapping[int, int] = {}

    def state_of(queue: int | None, number: int) -> State:
        if queue is None:       # in several: its entries have them
            return None, 0
        return expiries.get(queue, none).get(number), deliveries.get(queue, none).get(number, 0)

    return (
        [(*row, *state_of(row[1], row[0])) for row in rows], [(*row, *state_of(row[1], row[0])) for row in large],
        [(*entry, *state_of(*entry)) for entry in entries])


def _rows_of(
    messages: Iterable[Message], queue: int | None, large: list[LargeRow], written: Mapping[int, BodyWrite]
) -> list[MessageRow]:
    """Return the rows of these messages; those of large ones go into `large`."""
    rows: list[MessageRow] = []
    last_route = last_properties = None
    for message in messages:
        content, route = message.content, message.route
        size, body_size = sizes_at(content)
        properties = content[BODY_OFFSET_IN_HEADER_FRAME : size + 7]
        if route is not last_route or properties != last_properties:    # most are as the one before them
            sum_before = crc32(properties, crc32(route.octets))
            last_route, last_properties = route, properties
        if body_size > LARGE_BODY:
            body_write = written.get(message.number)
            large.append((message.number, queue, route.exchange, route.routing_key, properties, *(
                (LargeBody(message), reduce(_add_to_checksum, message.body_pieces(BODY_PIECE), sum_before))
                if body_write is None else (body_write, checksum_of_parts(sum_before, body_write.checksums)))))
            continue
        is_in_one = len(content) - size - 8 - FRAME_OVERHEAD == body_size       # frame
        body = content[size + 7 + FRAME_OVERHEAD : -1] if is_in_one else message.body
        rows.append((
            message.number, queue, route.exchange, route.routing_key, properties, body, crc32(body, sum_before)))
    return rows
