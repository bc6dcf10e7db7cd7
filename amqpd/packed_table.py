"""Keep a large field table as its bytes: as Python's objects it can take sixteen times the memory that a client sent.

Clients may give queues, exchanges, bindings and consumers arguments of any size. What the broker reads of them is a few
names that RabbitMQ knows; the rest is kept to be shown, compared and stored.

Always true: a look-up of a known name costs the same, however large the table is, and whether it has the name or not,
unless the value itself is a large table or array. All other look-ups, and any iteration, decode the whole table: the
broker does that only for a request of this size, and for a command that shows the table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from amqpd.fields import (
    FieldError,
    Value,
    check_table,
    decode_checked_table,
    decode_table,
    encode_table,
    find_encoded,
    is_read_back,
    read_value,
)

SMALL = 512       # bytes of a table that is not worth packing
KNOWN = frozenset((
    "alternate-exchange", "x-cancel-on-ha-failover", "x-consumer-timeout", "x-dead-letter-exchange",
    "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-delivery-limit", "x-expires", "x-initial-cluster-size",
    "x-match", "x-max-age", "x-max-in-memory-bytes", "x-max-in-memory-length", "x-max-length", "x-max-length-bytes",
    "x-max-priority", "x-message-ttl", "x-overflow", "x-priority", "x-queue-leader-locator", "x-queue-master-locator",
    "x-queue-mode", "x-queue-type", "x-queue-version", "x-quorum-initial-group-size", "x-single-active-consumer",
    "x-stream-max-segment-size-bytes", "x-stream-offset",
))
_KNOWN_BY_BYTES = {name.encode(): name for name in KNOWN}
_CONTAINERS = ("table", "array")


class _Large:
    """Stands for the value of a known name that is a table or array of more than `SMALL` bytes."""


_LARGE = _Large()


class PackedTable(Mapping[str, Value]):
    """A field table whose entries of known names are decoded; the others are decoded whenever they are read."""

    __slots__ = ("_encoded", "_known")

    def __init__(self, encoded: bytes, known: Mapping[str, Value | _Large]) -> None:
        """`encoded` is valid; `known` are the entries of known names."""
        self._encoded = encoded
        self._known = known

    @property
    def known(self) -> Collection[str]:
        """The known names that it has, in order."""
        return self._known.keys()

    @property
    def known_size(self) -> int:
        """The number of bytes to read if all values of known names that are large are looked up, about."""
        size = 0
        for value in self._known.values():
            if isinstance(value, _Large):
                return len(self._encoded)
            if isinstance(value, (str, bytes)):
                size += len(value)
        return size

    def __getitem__(self, name: str) -> Value:
        if name in KNOWN:
            value = self._known[name]
            if not isinstance(value, _Large):
                return value
        return self.unpacked()[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name, or the default."""
        return self[name] if name in self else default

    def __contains__(self, name: object) -> bool:
        return name in (self._known if name in KNOWN else self.unpacked())

    def __iter__(self) -> Iterator[str]:
        return iter(self.unpacked())

    def __len__(self) -> int:
        return len(self.unpacked())

    def __bool__(self) -> bool:
        return bool(self._encoded)

    def __repr__(self) -> str:
        return f"PackedTable({self.unpacked()!r})"

    def with_known(self, name: str, value: Value) -> PackedTable:
        """Return the table with one more entry, of a known name that it does not have."""
        return PackedTable(self._encoded + encode_table({name: value}), {**self._known, name: value})

    def items(self) -> Any:
        """Return names and values, decoded once for all of them."""
        return self.unpacked().items()

    def unpacked(self) -> dict[str, Value]:
        """Return the table as a dict of its own."""
        return decode_checked_table(self._encoded)


def known_names(table: Mapping[str, Value]) -> Collection[str]:
    """Return the names in a table, in order; if it is large, only the known ones."""
    return table.known if isinstance(table, PackedTable) else table


def with_known(table: Mapping[str, Value], name: str, value: Value) -> Mapping[str, Value]:
    """Return a table with one more entry, of a known name that it does not have."""
    return table.with_known(name, value) if isinstance(table, PackedTable) else {**table, name: value}


def read_table(encoded: bytes) -> Mapping[str, Value]:
    """Return the values of a table, packed if it is large. Raises FieldError if the bytes cannot be decoded."""
    if len(encoded) <= SMALL:
        return decode_table(encoded)
    check_table(encoded)
    known: dict[str, Value | _Large] = {}
    for name, (kind, value) in find_encoded(encoded, _KNOWN_BY_BYTES).items():
        is_large = kind in _CONTAINERS and len(value) > SMALL
        known[_KNOWN_BY_BYTES[name]] = _LARGE if is_large else read_value(kind, value)
    return PackedTable(encoded, known)


def packed_if_large(table: dict[str, Value], size: int, *, is_exact: bool = False) -> Mapping[str, Value]:
    """Return this table, packed if it is large; `size` is how many bytes it takes, about.

    A table whose bytes would not be the same table stays as it is: a name that is not UTF-8 may have become too long.
    `is_exact` says that `fields.is_read_back` need not be asked.
    """
    if size > SMALL:
        with suppress(FieldError):
            if is_exact or is_read_back(table):
                names = sorted([name for name in KNOWN if name in table])
                return PackedTable(encode_table(table), {name: _at_hand(table[name]) for name in names})
    return table


def _at_hand(value: Value) -> Value | _Large:
    is_large = isinstance(value, (dict, list)) and len(encode_table({"": value})) > SMALL
    return _LARGE if is_large else value
