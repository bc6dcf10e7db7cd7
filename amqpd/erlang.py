"""Values in Erlang's syntax, as RabbitMQ prints them in error texts and lists.

The texts are those of RabbitMQ, with two exceptions: a long text stays on one line, where RabbitMQ breaks it, and the
texts are always UTF-8, where RabbitMQ sends bytes from 160 up unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from amqpd.fields import type_name

SHOWN_BYTES = 16

# The characters of Latin-1 that Erlang takes for printable; the control characters among them have escapes.
_PRINTABLE = bytes((*range(8, 14), 27, *range(32, 127), *range(160, 256)))
_ESCAPES = str.maketrans({
    "\b": r"\b", "\t": r"\t", "\n": r"\n", "\v": r"\v", "\f": r"\f", "\r": r"\r", "\x1b": r"\e",
    '"': r"\"", "\\": r"\\",
})


def erlang_binary(binary: bytes) -> str:
    """Return a binary as Erlang's ``~p`` prints it: ``<<"abc">>`` if all of it is printable text, else ``<<97,0>>``."""
    return f"<<{_quoted(binary) or _numbers(binary)}>>"


def erlang_bytes(binary: bytes) -> str:
    """Return a binary as Erlang's ``~w`` prints it: always ``<<97,98,99>>``."""
    return f"<<{_numbers(binary)}>>"


def erlang_string(binary: bytes) -> str:
    """Return a list of characters as Erlang's ``~p`` prints it: ``"abc"`` if all is printable, else ``[97,0]``."""
    return _quoted(binary) or f"[{_numbers(binary)}]"


def describe_frame(kind: int, payload: bytes) -> str:
    """Describe a frame for an error text: ``type 1, all octets = <<0,60>>``, or the first 16 of a longer payload."""
    extent = "all" if len(payload) <= SHOWN_BYTES else f"first {SHOWN_BYTES}"
    return f"type {kind}, {extent} octets = {erlang_binary(payload[:SHOWN_BYTES])}"


def _quoted(binary: bytes) -> str:
    """Return a quoted string, or "" if Erlang would not take the bytes for text, or they are not UTF-8."""
    if not binary or binary.translate(None, _PRINTABLE):
        return ""
    try:
        return f'"{binary.decode().translate(_ESCAPES)}"'
    except UnicodeDecodeError:
        return ""


def _numbers(binary: bytes) -> str:
    return ",".join(map(str, binary))


# Values

def field_term(value: Any) -> str:
    """Return a value of a field table as RabbitMQ prints it, an Erlang term: ``<<"text">>``, ``true``, ``undefined``.

    Two values have the same term exactly if RabbitMQ calls two arguments equivalent: integers of any width, but not
    1000 and 1000.0, nor 1 and true.
    """
    match value:
        case None:
            return "undefined"
        case bool():
            return "true" if value else "false"
        case float():
            return _float_term(value)
        case Decimal():
            places = -int(value.as_tuple().exponent)
            return f"{{{places},{int(value.scaleb(places))}}}"
        case str():
            return _binary_term(value.encode())
        case bytes():
            return _binary_term(value)
        case list():
            return "[" + ",".join(f"{{{type_name(element)},{field_term(element)}}}" for element in value) + "]"
        case dict():
            return "[" + ",".join(
                f"{{{field_term(name)},{type_name(field)},{field_term(field)}}}" for name, field in value.items()
            ) + "]"
        case _:
            return f"{value:d}"


def _float_term(value: float) -> str:
    """Return the fewest digits that identify this number, with an exponent if that is shorter."""
    number = Decimal(str(value))
    positional = f"{number:f}"
    mantissa, exponent = f"{number.normalize():e}".split("e")
    return min(_with_point(positional), f"{_with_point(mantissa)}e{int(exponent)}", key=len)


def _with_point(digits: str) -> str:
    return digits if "." in digits else digits + ".0"


def _binary_term(binary: bytes) -> str:
    try:
        text = binary.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        return f"<<{','.join(map(str, binary))}>>"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}">>'


def json_term(value: Any) -> str:
    """Return a value of JSON as RabbitMQ prints it, an Erlang term: ``#{<<"a">> => [1,null]}``."""
    match value:
        case None:
            return "null"
        case list():
            return f"[{','.join(map(json_term, value))}]"
        case dict():
            return f"#{{{','.join([f'{json_term(key)} => {json_term(inner)}' for key, inner in value.items()])}}}"
        case str() | int() | float():
            return field_term(value)
        case _:
            return str(value)       # a date, which a TOML file may contain


def listed_table_term(entries: Sequence[tuple[str, str, Any]]) -> str:
    """Return a field table as rabbitmqctl lists it: ``[{"x-max-length",5}]``; entries are name, type and value."""
    terms = [f"{{{json.dumps(name, ensure_ascii=False)},{_listed_term(kind, value)}}}" for name, kind, value in entries]
    return f"[{','.join(terms)}]"


def _listed_term(kind: str, value: Any) -> str:
    if kind == "table":
        return listed_table_term(value)
    if kind == "array":
        return f"[{','.join(_listed_term(*item) for item in value)}]"
    return "undefined" if value is None else json.dumps(value, ensure_ascii=False)
