"""Keep a large field table as its bytes: as Python's objects it can take sixteen times the memory that a client sent.

Clients may give queues, exchanges, bindings and consumers arguments of any size. What the broker reads of them is a few
names that RabbitMQ knows; the rest is kept to be shown, compared and stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from amqpd.fields import FieldError, Value, decode_table, encode_table

SMALL = 512       # bytes of a table that is not worth packing
MOST_AT_HAND = 32   # entries


class PackedTable(Mapping[str, Value]):
    """A field table that is decoded whenever it is read, but for what the broker reads itself.

    That are the entries of single values whose names begin with `x-`, and `alternate-exchange`.
    """

    __slots__ = ("_encoded", "_at_hand", "_has_all_at_hand", "_length")

    def __init__(self, encoded: bytes) -> None:
        """Raises FieldError if the bytes cannot be decoded."""
        table = decode_table(encoded)
        known = [name for name in table if _is_known(name)]
        self._encoded = encoded
        self._length = len(table)
        self._at_hand = {
            name: table[name] for name in known[:MOST_AT_HAND] if not isinstance(table[name], (dict, list))}
        self._has_all_at_hand = len(self._at_hand) == len(known)

    def __getitem__(self, name: str) -> Value:
        if name in self._at_hand:
            return self._at_hand[name]
        if self._has_all_at_hand and _is_known(name):
            raise KeyError(name)
        return self.unpacked()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.unpacked())

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"PackedTable({self.unpacked()!r})"

    def items(self) -> Any:
        """Return names and values, decoded once for all of them."""
        return self.unpacked().items()

    def unpacked(self) -> dict[str, Value]:
        """Return the table as a dict of its own."""
        return decode_table(self._encoded)


def _is_known(name: str) -> bool:
    return name.startswith("x-") or name == "alternate-exchange"


def read_table(encoded: bytes) -> Mapping[str, Value]:
    """Return the values of a table, packed if it is large. Raises FieldError if the bytes cannot be decoded."""
    return decode_table(encoded) if len(encoded) <= SMALL else PackedTable(encoded)


def packed_if_large(table: dict[str, Value], size: int) -> Mapping[str, Value]:
    """Return this table, packed if it is large; `size` is how many bytes it takes, about.

    A table whose bytes would not be the same table stays as it is: a name that is not UTF-8 may have become too long.
    """
    if size > SMALL:
        with suppress(FieldError):
            packed = PackedTable(encode_table(table))
            if packed == table:
                return packed
    return table
