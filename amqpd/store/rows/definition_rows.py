"""Definitions as rows and back: vhosts, users, permissions, parameters, policies, exchanges and so on.

Owns which columns hold what, and the text that arguments are kept as. The columns of a definition have the names of
its fields. Only durable definitions are kept, so being durable needs no column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

import msgspec

from amqpd.broker.definitions import (
    Arguments,
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.fields import Byte, Float, Long, LongString, Short, Timestamp, UnsignedByte, UnsignedInt, UnsignedShort
from amqpd.packed_table import packed_if_large

# Columns of definitions that have numbers; the others have text.
NUMBERS = {"number", "auto_delete", "internal", "is_operator", "priority", "protected_from_deletion", "is_paused"}
# Tables of what goes with a vhost, and with a user.
OF_VHOST = ("permissions", "topic_permissions", "parameters", "policies", "exchanges", "queue_rows", "bindings")
OF_USER = ("permissions", "topic_permissions")


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
_PLAIN = frozenset((bool, int, str, type(None)))     # types that JSON has
_UNTAG = {name: read for name, _, read in _TAGS.values()} | {"double": float}


def pack_arguments(arguments: Arguments) -> str:
    """Return arguments as JSON, without a loss. Arguments with equal values and types give equal text, in any order.

    Values that JSON does not have are ``{"$type": …, "value": …}``: numbers of types other than signedint, long beyond
    32 bits and double; a double that is infinite or not a number; timestamp and decimal; longstr and binary, in
    hexadecimal digits; and a table that has a key ``$type`` itself.
    """
    plain = {
        name: value if type(value) in _PLAIN else _to_json(value) for name, value in sorted(arguments.items())}
    return json.dumps(_guarded(plain), ensure_ascii=False)


def unpack_arguments(text: str) -> Arguments:
    """Return the arguments from which `pack_arguments` made this text."""
    arguments: Arguments = _unpack(text)
    if not isinstance(arguments, dict):
        return arguments
    # These are the types of which a value may be read back as another one.
    is_exact = not ('"longstr"' in text or '"float"' in text or "\\u" in text)
    return packed_if_large(arguments, len(text), is_exact=is_exact)


def _unpack(text: str) -> Any:
    values = json.loads(text)
    # Of a large text the search costs a hundredth. In a store that was edited a tag may be written with an escape.
    return _from_json(values) if "$type" in text or "\\u" in text else values


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
    return {name: inner if type(inner) in _PLAIN else _from_json(inner) for name, inner in table.items()}


# Definitions

class Table(msgspec.Struct, frozen=True):
    """The table of one kind of definition. `implied` fields have the same value in every row, and no column."""

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
        """The statement that inserts a definition, or replaces the one with the same key."""
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
        """The query for all definitions of this kind."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name} ORDER BY {', '.join(self.key)}"

    def key_of(self, definition: Definition) -> list[Any]:
        """Return the values of the key columns of this definition."""
        return [_to_column(definition, column) for column in self.key]

    def row_of(self, definition: Definition) -> list[Any]:
        """Return the row of this definition."""
        return [_to_column(definition, column) for column in self.columns]

    def definition_of(self, row: Iterable[Any]) -> Definition:
        """Return the definition in this row."""
        values = {
            column: _FROM_COLUMN[column](value) if column in _FROM_COLUMN else value
            for column, value in zip(self.columns, row)}
        return self.kind(**values, **self.implied)


_TO_COLUMN: dict[str, Callable[[Any], str]] = {
    "arguments": pack_arguments,
    "definition": pack_arguments,
    "tags": json.dumps,
    "limits": json.dumps,
    "value": lambda value: json.dumps(value, ensure_ascii=False),
}
_FROM_COLUMN: dict[str, Callable[[Any], Any]] = {
    "arguments": unpack_arguments,
    "definition": _unpack,
    "tags": lambda text: tuple(json.loads(text)),
    "limits": json.loads,
    "value": json.loads,
    "protected_from_deletion": bool,
    "auto_delete": bool,
    "internal": bool,
    "is_operator": bool,
    "is_paused": bool,
}


def _to_column(definition: Definition, column: str) -> Any:
    value = getattr(definition, column)
    return _TO_COLUMN[column](value) if column in _TO_COLUMN else value


_DURABLE = {"durable": True}

# In the order that `Broker.restore` needs: what hangs on something comes after it.
TABLES: dict[type, Table] = {
    VhostDefinition: Table(VhostDefinition, "vhosts", ("name",), (
        "description", "tags", "default_queue_type", "protected_from_deletion")),
    UserDefinition: Table(
        UserDefinition, "users", ("name",), ("password_hash", "hashing_algorithm", "tags", "scram_sha256", "limits")),
    PermissionDefinition: Table(
        PermissionDefinition, "permissions", ("user", "vhost"), ("configure", "write", "read")),
    TopicPermissionDefinition: Table(
        TopicPermissionDefinition, "topic_permissions", ("user", "vhost", "exchange"), ("write", "read")),
    GlobalParameterDefinition: Table(GlobalParameterDefinition, "global_parameters", ("name",), ("value",)),
    ParameterDefinition: Table(
        ParameterDefinition, "parameters", ("vhost", "component", "name"), ("value",)),
    PolicyDefinition: Table(
        PolicyDefinition, "policies", ("vhost", "is_operator", "name"),
        ("pattern", "definition", "priority", "apply_to")),
    ExchangeDefinition: Table(
        ExchangeDefinition, "exchanges", ("vhost", "name"), ("type", "auto_delete", "internal", "arguments"), _DURABLE),
    QueueDefinition: Table(
        QueueDefinition, "queue_rows", ("number",), ("vhost", "name", "auto_delete", "arguments", "is_paused"),
        _DURABLE),
    BindingDefinition: Table(
        BindingDefinition, "bindings",
        ("vhost", "source", "destination_type", "destination", "routing_key", "arguments")),
}


# Reading

def definition_of(table: Table, row: Sequence[object]) -> Definition | None:
    """Return the definition in a row, or None where that holds something else."""
    if any(isinstance(value, int) != (column in NUMBERS) or not isinstance(value, (int, str))
           for column, value in zip(table.columns, row)):
        return None
    try:
        definition = table.definition_of(row)
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError):
        return None
    tables = [getattr(definition, name, {}) for name in ("arguments", "definition", "limits")]
    return definition if all(isinstance(value, Mapping) for value in tables) else None
