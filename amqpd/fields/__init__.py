"""Field tables: the arguments of methods and the headers of messages, encoded and as Python values.

Owns the encoding of a table, without its four bytes of length. `values` has the Python types and the errors, `layout`
the type bytes and sizes. `walking` validates encoded tables, `reading` and `writing` convert them, and `editing`
changes single entries.

Decoding loses nothing that a client can notice: a string that is not UTF-8 stays bytes, a timestamp stays a number. A
number that a plain int or float would encode differently has a type of its own, and compares by value. Headers that
otherwise stay unchanged are edited in their encoded form, not decoded and encoded again.

Always true: for any bytes, the only exception is FieldError. `check_table` validates a table from a client; all other
functions here read such a table without an error. The frame limits the number of fields in a table from a client; the
broker may add more, since each dead-lettering adds headers.

Spec: §4.2.5.5; the types are those of RabbitMQ docs/amqp-0-9-1-errata, which differ from the printed ones.
"""

from __future__ import annotations

from amqpd.fields.editing import (
    array_of_tables,
    find,
    find_encoded,
    find_type,
    read_value,
    tables_in,
    with_entries,
    without_keys,
)
from amqpd.fields.layout import DEEPEST, INTEGERS, LONGEST_NAME
from amqpd.fields.reading import decode_checked_table, decode_table, long_string
from amqpd.fields.values import (
    Byte,
    Encoded,
    FieldError,
    Float,
    Long,
    LongString,
    Short,
    TableLimitError,
    Timestamp,
    TypedInt,
    UnsignedByte,
    UnsignedInt,
    UnsignedShort,
    Value,
)
from amqpd.fields.walking import check_table
from amqpd.fields.writing import encode_table, is_read_back, type_name

__all__ = [
    "array_of_tables", "Byte", "check_table", "decode_checked_table", "decode_table", "DEEPEST", "encode_table",
    "Encoded", "FieldError", "find", "find_encoded", "find_type", "Float", "INTEGERS", "is_read_back", "Long",
    "long_string", "LONGEST_NAME", "LongString", "read_value", "Short", "TableLimitError", "tables_in", "Timestamp",
    "type_name", "TypedInt", "UnsignedByte", "UnsignedInt", "UnsignedShort", "Value", "with_entries", "without_keys"]
