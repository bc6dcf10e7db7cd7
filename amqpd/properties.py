"""The properties of a content: read those that the broker needs, and change some without decoding the others.

Takes properties as they are encoded in a content header: two bytes of flags, then the values of the properties that are
present, in order. Properties that `MessageProperties` does not name are opaque and stay unchanged. As in RabbitMQ,
strings need not be UTF-8, and the two lowest flags have no meaning.

`session/publishing.py` checks the user-id and resolves a direct reply-to.

Spec: §4.2.6.1, basic class; which properties are refused, with which text and in which order, is RabbitMQ's
(`rabbit_basic`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping

from amqpd import fields
from amqpd.erlang import erlang_string
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.message import MessageProperties, pack_short_string

LONGEST_EXPIRATION_MS = 315_360_000_000     # ten years

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO = (
    1 << bit for bit in range(15, 8, -1))
EXPIRATION, MESSAGE_ID, TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID = (1 << bit for bit in range(8, 1, -1))

_ORDER = tuple(1 << bit for bit in range(15, 1, -1))
_WIDTHS = {DELIVERY_MODE: 1, PRIORITY: 1, TIMESTAMP: 8}
_OF_INTEREST = HEADERS | PRIORITY | REPLY_TO | EXPIRATION | USER_ID

_FLAGS = struct.Struct(">H")
_LENGTH = struct.Struct(">I")
_flags_at = _FLAGS.unpack_from
_length_at = _LENGTH.unpack_from
_integer = re.compile(rb"([+-]?[0-9]+)(.*)", re.DOTALL).fullmatch

# Most messages have only these properties; sharing the values saves time and memory.
_PLAIN = {1: MessageProperties(), 2: MessageProperties(persistent=True)}


# Reading

def read_properties(properties: bytes, *, is_from_peer: bool = True) -> MessageProperties:
    """Return the properties that the broker needs. `flaw` has the reason why RabbitMQ would refuse the publish.

    Raises ConnectionException: INTERNAL_ERROR without a text if they cannot be decoded, as RabbitMQ does;
    SYNTAX_ERROR for headers beyond the limits of `fields`, which hold only for properties from a client.
    """
    # One function for speed: every publish with properties that were not seen before comes here.
    priority = expiration_ms = reply_to = user_id = expiration = None
    extra_keys: tuple[str, ...] = ()
    mode, has_bcc, headers, flaw = 1, False, b"", ""
    try:
        flags: int = _flags_at(properties)[0]
        at = 2
        if flags & CONTENT_TYPE:
            at += 1 + properties[at]
        if flags & CONTENT_ENCODING:
            at += 1 + properties[at]
        if flags & HEADERS:
            start = at + 4
            at = start + _length_at(properties, at)[0]
            headers = properties[start:at]
            if is_from_peer:
                fields.check_table(headers)
        if flags & DELIVERY_MODE:
            mode = properties[at]
            at += 1
        if flags & PRIORITY:
            priority = properties[at]
            at += 1
        if flags & CORRELATION_ID:
            at += 1 + properties[at]
        if flags & REPLY_TO:
            start, at = at + 1, at + 1 + properties[at]
            reply_to = _text(properties[start:at])
        if flags & EXPIRATION:
            start, at = at + 1, at + 1 + properties[at]
            expiration = properties[start:at]
        if flags & MESSAGE_ID:
            at += 1 + properties[at]
        if flags & TIMESTAMP:
            at += 8
        if flags & TYPE:
            at += 1 + properties[at]
        if flags & USER_ID:
            start, at = at + 1, at + 1 + properties[at]
            user_id = _text(properties[start:at])
        if flags & APP_ID:
            at += 1 + properties[at]
        if flags & CLUSTER_ID:
            at += 1 + properties[at]
    except fields.TableLimitError as error:
        raise ConnectionException(ReplyCode.SYNTAX_ERROR, f"headers: {error}") from None
    except (IndexError, struct.error, fields.FieldError):
        at = -1
    if at != len(properties):
        raise ConnectionException(ReplyCode.INTERNAL_ERROR, method=(0, 0))
    if not flags & _OF_INTEREST and mode in _PLAIN:
        return _PLAIN[mode]
    if expiration is not None:
        expiration_ms, flaw = _read_expiration(expiration)
    if headers.find(b"CC") >= 0:
        extra_keys, has_bcc, copies_flaw = _read_copies(headers)
        flaw = flaw or copies_flaw
    if mode not in _PLAIN:
        flaw = flaw or f"invalid message: {{delivery_mode_unknown,{mode}}}"
    return MessageProperties(mode == 2, priority, expiration_ms, reply_to, user_id, extra_keys, has_bcc, headers, flaw)


def read_own_properties(properties: bytes) -> MessageProperties:
    """Read properties that the broker has built, or has accepted before: the limits for clients do not apply."""
    return read_properties(properties, is_from_peer=False)


def _text(encoded: bytes) -> str:
    return encoded.decode(errors="backslashreplace")


def _read_expiration(encoded: bytes) -> tuple[int | None, str]:
    """Return the milliseconds of an expiration, and what is wrong with it, or "". RabbitMQ docs/ttl."""
    integer = _integer(encoded)
    if integer is None:
        fault = "no_integer"
    elif integer[2]:
        fault = f"{{leftover_string,{erlang_string(integer[2])}}}"
    elif (expiration_ms := int(integer[1])) < 0:
        fault = f"{{value_negative,{expiration_ms}}}"
    elif expiration_ms > LONGEST_EXPIRATION_MS:
        fault = f"{{value_too_large,{expiration_ms}}}"
    else:
        return expiration_ms, ""
    return None, f"invalid expiration '{_text(encoded)}': {fault}"


def _read_copies(headers: bytes) -> tuple[tuple[str, ...], bool, str]:
    """Return the routing keys of CC and BCC, whether there is a BCC, and what is wrong with them, or "".

    Elements that are not long strings are ignored, as in RabbitMQ. RabbitMQ docs/sender-selected.
    """
    keys: list[str] = []
    for name in ("CC", "BCC"):
        found = fields.find_type(headers, name)
        if found not in ("array", None):
            return (), False, f'invalid message: {{unacceptable_type_in_header,"{name}",{found}}}'
        copies = fields.find(headers, name)
        for key in copies if isinstance(copies, list) else ():
            if isinstance(key, (str, fields.LongString)):
                keys.append(key if isinstance(key, str) else _text(key))
    return tuple(keys), found is not None, ""


_NAMES = dict(zip((1 << bit for bit in range(15, 1, -1)), (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id")))


def all_properties(properties: bytes) -> dict[str, fields.Value]:
    """Return the properties that are present, by RabbitMQ's names; a text that is not UTF-8 is escaped."""
    found: dict[str, fields.Value] = {}
    for flag, encoded in _values(properties).items():
        if flag == HEADERS:
            found["headers"] = fields.decode_checked_table(encoded[4:])
        elif flag in _WIDTHS:
            found[_NAMES[flag]] = int.from_bytes(encoded, "big")
        else:
            found[_NAMES[flag]] = _text(encoded[1:])
    return found


def properties_table(properties: bytes, *, with_headers: bool = True) -> fields.Encoded:
    """Return the properties as a field table, as RabbitMQ's firehose has them: in reverse order, headers unchanged.

    Strings become long strings, and numbers signed ones, of 64 bits if they need them. Headers can be left out.
    """
    values = _values(properties)
    table: dict[str, fields.Value] = {}
    for flag in reversed(values):
        encoded = values[flag]
        if flag == HEADERS:
            if with_headers:
                table["headers"] = fields.Encoded(b"F", encoded)
        elif flag in _WIDTHS:
            table[_NAMES[flag]] = min(int.from_bytes(encoded, "big"), (1 << 63) - 1)
        else:
            table[_NAMES[flag]] = fields.LongString(encoded[1:])
    encoded = fields.encode_table(table)
    return fields.Encoded(b"F", _LENGTH.pack(len(encoded)) + encoded)


def only_headers(headers: bytes) -> bytes:
    """Return the properties of a message that has only these headers, an encoded table."""
    return _FLAGS.pack(HEADERS) + _LENGTH.pack(len(headers)) + headers


# Editing encoded properties that `read_properties` has accepted

def with_reply_to(properties: bytes, value: str) -> bytes:
    """Return the properties with this reply-to, added or replaced. Raises ValueError beyond 255 bytes."""
    values = _values(properties)
    values[REPLY_TO] = pack_short_string(value)
    return _properties(values)


def original_expiration(properties: bytes) -> str | None:
    """Return the expiration that a message was published with, or None."""
    encoded = _values(properties).get(EXPIRATION)
    return None if encoded is None else _text(encoded[1:])


def read_timestamp(properties: bytes) -> int | None:
    """Return the publisher's timestamp in seconds since 1970, or None."""
    encoded = _values(properties).get(TIMESTAMP)
    return None if encoded is None else int.from_bytes(encoded, "big")


def without_expiration(properties: bytes) -> bytes:
    """Return the properties without an expiration."""
    values = _values(properties)
    values.pop(EXPIRATION, None)
    return _properties(values)


def without_headers(properties: bytes, names: Collection[str]) -> bytes:
    """Return the properties without the headers of these names; an empty header table stays, as in RabbitMQ."""
    values = _values(properties)
    if HEADERS in values:
        remaining = fields.without_keys(values[HEADERS][4:], names)
        values[HEADERS] = _LENGTH.pack(len(remaining)) + remaining
    return _properties(values)


def with_headers(properties: bytes, entries: Mapping[str, fields.Value]) -> bytes:
    """Return the properties with these headers, each in the place of the first header of its name, or at the end.

    Raises FieldError for a value that a table cannot hold.
    """
    values = _values(properties)
    table = values.get(HEADERS, b"")[4:]
    if any([name.encode() in table for name in entries]):
        table = fields.with_entries(table, entries)
    else:       # not decoded: a table may have thousands of headers
        table += fields.encode_table(entries)
    values[HEADERS] = _LENGTH.pack(len(table)) + table
    return _properties(values)


def _values(properties: bytes) -> dict[int, bytes]:
    """Return the encoded values of the properties that are present, by flag."""
    flags = _flags_at(properties)[0]
    values = {}
    at = 2
    for flag in _ORDER:
        if flags & flag:
            if flag == HEADERS:
                end = at + 4 + _length_at(properties, at)[0]
            else:
                end = at + (_WIDTHS.get(flag) or 1 + properties[at])
            values[flag] = properties[at:end]
            at = end
    return values


def _properties(values: Mapping[int, bytes]) -> bytes:
    return _FLAGS.pack(sum(values)) + b"".join([values[flag] for flag in _ORDER if flag in values])
