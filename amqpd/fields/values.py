"""The Python types of the values of a field table, and the errors."""

from __future__ import annotations

from decimal import Decimal
from typing import Union


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
