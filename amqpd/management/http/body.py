"""The bodies of requests: JSON objects, read key by key with RabbitMQ's rules and texts.

RabbitMQ takes the texts "true" and "false" for truth values, and numbers in texts where it expects numbers; it ignores
keys that it does not know.

`rabbit_mgmt_util`, `rabbit_mgmt_format`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from amqpd.errors import AmqpException, ReplyCode
from amqpd.fields import DEEPEST, FieldError, Long, encode_table
from amqpd.management.http.answers import HttpError, bad_request
from amqpd.management.http.request import Request

LINE = 80               # longer lists of what is missing are broken by Erlang
MOST_NESTED, MOST_VALUES = 64, 20_000
SHORT = 1 << 20         # bytes of a body, up to which its shape is known from its length
LONGEST_TABLE = 131_072         # a frame of AMQP has no room for more
NOTHING = msgspec.Raw()
LONG = 1 << 63


class Body:
    """The body of a request. Raises HttpError, 400, if it is not a JSON object; an empty one is an empty object."""

    def __init__(self, request: Request) -> None:
        self.values = _decode(request.body)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def require(self, *names: str) -> None:
        """Check that all these keys are there. Raises HttpError: 400, with those that are missing."""
        missing = [f"{{key_missing,{name}}}" for name in names if name not in self.values]
        if missing:
            text = f"[{','.join(missing)}]"
            raise bad_request(text if len(text) <= LINE else f"[{(','+chr(10)+' ').join(missing)}]")

    def boolean(self, name: str, default: bool = False) -> bool:
        """Return a truth value. Raises HttpError: 400."""
        value = self.values.get(name, default)
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
        raise bad_request(["not_boolean", value])

    def integer(self, name: str, default: int = 0) -> int:
        """Return a whole number, which may be in a text. Raises HttpError: 400."""
        value = self.values.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        try:
            if isinstance(value, str):
                return int(value)
        except ValueError:
            pass
        raise bad_request(["not_integer", value])

    def text(self, name: str, default: str = "") -> str:
        """Return a text; a number is one. Raises HttpError: 400."""
        value = self.values.get(name, default)
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        raise bad_request(["not_string", name])

    def table(self, name: str) -> dict[str, Any]:
        """Return a field table; an empty list is an empty one. Raises HttpError: 400."""
        value = self.values.get(name, {})
        if value == []:
            return {}
        if not isinstance(value, dict):
            raise bad_request(f"{name} must be an object")
        return field_table(value)


def _decode(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body) if len(body) <= SHORT else _decode_long(body)
    except (ValueError, RecursionError):    # also of bytes that are not UTF-8
        raise bad_request("not_json") from None
    if isinstance(found, str):
        raise bad_request("invalid payload: the request body JSON-decoded to a string. "
                          "Is the input doubly-JSON-encoded?")
    if not isinstance(found, dict):
        raise bad_request("not_json")
    _check_shape(found, MOST_VALUES, MOST_NESTED)
    return found


class _Long(msgspec.Struct):
    """The keys of the bodies that may be long; only texts in them may be."""

    routing_key: msgspec.Raw = NOTHING
    payload: msgspec.Raw = NOTHING
    payload_encoding: msgspec.Raw = NOTHING
    properties: msgspec.Raw = NOTHING
    command: msgspec.Raw = NOTHING
    arguments: msgspec.Raw = NOTHING
    body: msgspec.Raw = NOTHING


def _decode_long(body: bytes) -> dict[str, Any]:
    """Return a long body: what is long must be text, since a million small objects would take seconds.

    Raises HttpError: 400, and ValueError.
    """
    found: dict[str, Any] = {}
    for name, raw in msgspec.structs.asdict(msgspec.json.decode(body, type=_Long)).items():
        given = memoryview(raw)
        if not given:
            continue
        if len(given) > SHORT and bytes(given[:1]) != b'"':
            raise bad_request(f"{name} has more than {SHORT >> 10} KiB")
        found[name] = msgspec.json.decode(raw)
    return found


def _check_shape(found: Any, most: int, deepest: int) -> None:
    """Check that a value has no more values in it than this, and is not nested deeper. Raises HttpError: 400."""
    level, depth, count = [found], 0, 0
    while level:
        depth += 1
        if depth > deepest:
            raise bad_request(f"nested deeper than {deepest} levels")
        inside: list[Any] = []
        for value in level:
            inner = value.values() if isinstance(value, dict) else value
            count += len(inner)
            if count > most:
                raise bad_request(f"more than {most} values")
            inside += [one for one in inner if isinstance(one, (dict, list))]
        level = inside


def field_table(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object as a field table, with RabbitMQ's types for its values. Raises HttpError: 400."""
    _check_shape(found, MOST_VALUES, DEEPEST)
    table = {name: _field(value) for name, value in found.items()}
    try:
        size = len(encode_table(table))
    except FieldError as error:
        raise bad_request(str(error)) from None
    if size > LONGEST_TABLE:
        raise bad_request(f"a table may have at most {LONGEST_TABLE} bytes, as in AMQP: this one has {size}")
    return table


def _field(value: Any) -> Any:
    if value is None:
        raise bad_request("null_not_allowed")
    if isinstance(value, bool) or isinstance(value, (str, float)):
        return value
    if isinstance(value, int):
        if not -LONG <= value < LONG:
            raise bad_request(f"the number {value} does not fit into 64 bits")
        return Long(value)
    if isinstance(value, list):
        return [_field(inner) for inner in value]
    return {name: _field(inner) for name, inner in value.items()}


def refused(error: AmqpException) -> HttpError:
    """Return the error for a declaration that the broker refuses: with a channel's error text, without its name."""
    if error.code == ReplyCode.ACCESS_REFUSED:
        return HttpError(401, "not_authorised", "Access refused.")
    if error.code == ReplyCode.NOT_FOUND:
        return HttpError(404, "not_found", error.text)
    return bad_request(error.text)
