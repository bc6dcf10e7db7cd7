"""Messages as records that JSON can hold, with the names of RabbitMQ's HTTP API: `payload`, `properties` and so on."""

from __future__ import annotations

import asyncio
import base64
from codecs import getincrementaldecoder
from typing import Any

from amqpd.broker.queue.queue import Queue
from amqpd.management.event_records import plain_value
from amqpd.message import Message
from amqpd.properties import all_properties

PIECE = 3 << 18     # bytes that are encoded at once; a multiple of three
LIGHT_PROPERTIES = 4 << 10      # bytes that are decoded in the event loop: a few milliseconds

Record = dict[str, Any]


async def queued_record(queue: Queue, message: Message, truncate: int) -> Record:
    """Return a message of a queue with at most `truncate` bytes of its body, which are encoded in slices."""
    body = body_start(message, truncate)
    payload = _text_of(message, body)
    return {
        "id": message.number,
        "exchange": message.route.exchange,
        "routing_key": message.route.routing_key,
        "redelivered": queue.redelivery.is_redelivered(message),
        "delivery_count": queue.redelivery.deliveries.get(message.number, 0),
        "persistent": message.facts.persistent,
        "properties": await _properties(message),
        "payload_bytes": message.body_size,
        "payload_encoding": "base64" if payload is None else "string",
        "payload": await _in_base64(body) if payload is None else payload,
        "truncated": len(body) < message.body_size,
    }


async def _properties(message: Message) -> Record:
    """Return the properties by name; long ones are decoded in a thread, which leaves the event loop to clients."""
    if len(message.properties) <= LIGHT_PROPERTIES:
        return properties_record(message)
    return await asyncio.to_thread(properties_record, message)


async def _in_base64(body: bytes) -> str:
    pieces = []
    for start in range(0, len(body), PIECE):
        pieces.append(base64.b64encode(body[start : start + PIECE]).decode())
        await asyncio.sleep(0)
    return "".join(pieces)


def _text_of(message: Message, body: bytes) -> str | None:
    """Return the beginning of a body as text, without a character that is cut at its end; None if it is not UTF-8."""
    try:
        return getincrementaldecoder("utf-8")().decode(body, final=len(body) == message.body_size)
    except UnicodeDecodeError:
        return None


def payload_record(message: Message, most_bytes: int) -> Record:
    """Return the body, cut after `most_bytes`: as text if all of it is UTF-8, else as base64."""
    body = body_start(message, most_bytes)
    payload, encoding = _text_of(message, body), "string"
    if payload is None:
        payload, encoding = base64.b64encode(body).decode(), "base64"
    return {"payload_bytes": message.body_size, "payload": payload, "payload_encoding": encoding}


def body_start(message: Message, most_bytes: int) -> bytes:
    """Return the first bytes of a body, or all of it."""
    if message.body_size <= most_bytes:
        return bytes(message.body)
    start = bytearray()
    for piece in message.body_pieces(max(1, most_bytes)):
        start += piece[: most_bytes - len(start)]
        if len(start) >= most_bytes:
            break
    return bytes(start)


def properties_record(message: Message) -> Record:
    """Return the properties by name; headers are an object."""
    found: Record = plain_value(all_properties(message.properties))
    return found
