"""The properties of messages as JSON, as the management API takes them to publish and sends them for a message.

Encoded as in a content header. Spec: §4.2.6.1; `rabbit_mgmt_format` (to_basic_properties).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

from amqpd.fields import decode_table, encode_table
from amqpd.management.http.answers import bad_request
from amqpd.management.http.body import field_table
from amqpd.management.json_values import plain

# Each property with its kind, in the order of their bits, from the highest.
PROPERTIES = (
    ("content_type", "text"), ("content_encoding", "text"), ("headers", "table"), ("delivery_mode", "octet"),
    ("priority", "octet"), ("correlation_id", "text"), ("reply_to", "text"), ("expiration", "text"),
    ("message_id", "text"), ("timestamp", "long"), ("type", "text"), ("user_id", "text"), ("app_id", "text"),
    ("cluster_id", "text"))
FIRST_BIT = 15
NUMBERS = {"octet": struct.Struct(">B"), "long": struct.Struct(">Q")}
LENGTH = struct.Struct(">I")


def encode_properties(found: Mapping[str, Any]) -> bytes:
    """Return the properties that a JSON object has, encoded; other keys are ignored. Raises HttpError: 400."""
    flags, values = 0, []
    for position, (name, kind) in enumerate(PROPERTIES):
        if name in found:
            flags |= 1 << (FIRST_BIT - position)
            values.append(_encode(name, kind, found[name]))
    return flags.to_bytes(2, "big") + b"".join(values)


def _encode(name: str, kind: str, value: Any) -> bytes:
    if kind == "table":
        if not isinstance(value, dict):
            raise bad_request(["not_table", name])
        encoded = encode_table(field_table(value))
        return LENGTH.pack(len(encoded)) + encoded
    if kind in NUMBERS:
        layout = NUMBERS[kind]
        if not isinstance(value, int) or isinstance(value, bool):
            raise bad_request(["not_int", name])
        return layout.pack(value % (1 << (8 * layout.size)))      # as RabbitMQ, which cuts a number off
    if not isinstance(value, str):
        raise bad_request(["not_string", name])
    text = value.encode(errors="surrogatepass")
    if len(text) > 255:
        raise bad_request(f"{name} has more than 255 bytes")
    return bytes([len(text)]) + text


def decode_properties(encoded: bytes) -> dict[str, Any]:
    """Return encoded properties as a JSON object. They have been accepted before."""
    flags, at, found = int.from_bytes(encoded[:2], "big"), 2, dict[str, Any]()
    for position, (name, kind) in enumerate(PROPERTIES):
        if not flags & 1 << (FIRST_BIT - position):
            continue
        if kind == "table":
            start = at + LENGTH.size
            at = start + LENGTH.unpack_from(encoded, at)[0]
            found[name] = plain(decode_table(encoded[start:at]), text=_text)
        elif kind in NUMBERS:
            found[name] = NUMBERS[kind].unpack_from(encoded, at)[0]
            at += NUMBERS[kind].size
        else:
            start, at = at + 1, at + 1 + encoded[at]
            found[name] = encoded[start:at].decode(errors="backslashreplace")
    return found


def _text(value: bytes) -> str:
    """Return bytes as RabbitMQ shows them where they are no text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"Not UTF-8, base64 is: {base64.b64encode(value).decode()}"
