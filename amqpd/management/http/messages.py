"""The routes that publish a message, and get messages of a queue, as an AMQP client of the user does.

RabbitMQ docs/http-api-reference (publish, get); `rabbit_mgmt_wm_exchange_publish`, `rabbit_mgmt_wm_queue_get`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from pamqp.commands import Basic

from amqpd.management.http.access import Access
from amqpd.management.http.answers import HttpError, bad_request, not_authorised
from amqpd.management.http.bindings import exchange_name
from amqpd.management.http.body import Body
from amqpd.management.http.context import ChannelClosed, Content
from amqpd.management.http.properties_json import decode_properties, encode_properties
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.refusal import LONGEST_NAME

# How messages that were got are answered: whether they are acknowledged or rejected, and whether they are put back.
ACK_MODES = {
    "ack_requeue_true": (False, True), "ack_requeue_false": (True, False), "reject_requeue_true": (False, True),
    "reject_requeue_false": (False, False)}
MOST_BODY = 16 << 20
ENCODINGS = ("auto", "base64")
MOST_GOT, MOST_BYTES = 5_000, 32 << 20      # messages, and bytes of bodies, in one answer


class NewMessage(msgspec.Struct):
    """A message to publish."""

    routing_key: str
    payload: str
    payload_encoding: str = "string"
    properties: dict[str, Any] = {}


class Get(msgspec.Struct):
    """How many messages to get, and what to do with them afterwards."""

    count: int
    ackmode: str
    encoding: str
    truncate: int = 0


async def publish(request: Request) -> Any:
    """Publish a message, and return whether a queue has it. Raises HttpError."""
    if not request.has_vhost:
        raise not_authorised("Access refused.")
    body = Body(request)
    body.require("routing_key", "properties", "payload", "payload_encoding")
    properties = body.values["properties"]
    if not isinstance(properties, dict):
        raise bad_request("properties must be an object")
    payload, encoded = _payload(body), encode_properties(properties)
    method = Basic.Publish(mandatory=True)
    # Set here, since the library takes only ASCII letters as the name of an exchange.
    method.exchange = _short("exchange", exchange_name(request.names["exchange"]))
    method.routing_key = _short("routing_key", body.text("routing_key"))
    try:
        async with request.context.connect(request.user, request.names["vhost"]) as channel:
            return {"routed": await channel.publish(method, encoded, payload)}
    except ChannelClosed as error:
        if error.is_connection:
            raise not_authorised("Access refused.") from None
        raise bad_request(f"{error.code} {error.text}") from None


def _short(name: str, text: str) -> str:
    if len(text.encode(errors="surrogatepass")) > LONGEST_NAME:
        raise bad_request(f"{name} should be at most {LONGEST_NAME} bytes")
    return text


def _payload(body: Body) -> bytes:
    payload, encoding = body.values["payload"], body.values["payload_encoding"]
    if not isinstance(payload, str):
        raise bad_request("payload_not_string")
    if encoding == "string":
        return payload.encode(errors="surrogatepass")
    if encoding != "base64":
        raise bad_request(["unsupported_encoding", encoding])
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(["not_base64", payload]) from None


async def get(request: Request) -> Any:
    """Get messages of a queue: at most `count`, and not more than fit into an answer. Raises HttpError."""
    if not request.has_vhost:
        raise not_authorised("Access refused.")
    body = Body(request)
    body.require("ackmode", "count", "encoding")
    count, mode, encoding = body.integer("count"), body.values["ackmode"], body.values["encoding"]
    truncate = body.integer("truncate") if "truncate" in body else None
    if encoding not in ENCODINGS:
        raise bad_request("Unsupported encoding. Please use auto or base64.")
    if not isinstance(mode, str) or mode not in ACK_MODES:
        raise bad_request(f"ackmode must be one of {', '.join(ACK_MODES)}")
    queue = _short("queue", request.names["queue"])
    found: list[Content] = []
    size, is_acked, is_requeued = 0, *ACK_MODES[mode]
    try:
        async with request.context.connect(request.user, request.names["vhost"]) as channel:
            # As on RabbitMQ, a negative count has no end but the queue's.
            while len(found) < (count if count >= 0 else MOST_GOT) and len(found) < MOST_GOT and size < MOST_BYTES:
                content = await channel.get(queue)
                if content is None:
                    break
                found.append(content)
                size += len(content.body)
            if found:
                last = found[-1].method.delivery_tag
                channel.send(Basic.Ack(last, True) if is_acked else Basic.Nack(last, True, is_requeued))
    except ChannelClosed as error:
        raise _refused(error) from None
    return [_record(content, encoding, truncate) for content in found]


def _refused(error: ChannelClosed) -> HttpError:
    if error.code == 404:
        return HttpError(404, "not_found", error.text)
    if error.is_connection:
        return not_authorised("Access refused.")
    return not_authorised(error.text) if error.code == 403 else bad_request(f"{error.code} {error.text}")


def _record(content: Content, encoding: str, truncate: int | None) -> dict[str, Any]:
    method = content.method
    payload, shown_as = _shown(content.body, encoding, truncate)
    return {
        "payload_bytes": len(content.body),
        "redelivered": method.redelivered,
        "exchange": method.exchange,
        "routing_key": method.routing_key,
        "message_count": method.message_count,
        "properties": decode_properties(content.properties) or [],
        "payload": payload,
        "payload_encoding": shown_as,
    }


def _shown(body: bytes, encoding: str, truncate: int | None) -> tuple[str, str]:
    """Return a body, or its first bytes, as a text if it is one, else in base64; and which of the two."""
    cut = body if truncate is None else body[:max(0, truncate)]
    if encoding == "auto":
        try:
            return cut.decode(), "string"
        except UnicodeDecodeError:
            pass
    return base64.b64encode(cut).decode(), "base64"


ROUTES = [
    Route(method="POST", path="/api/exchanges/{vhost}/{exchange}/publish", handler=publish, access=Access.VHOST,
          body=NewMessage, most_body=MOST_BODY, is_audited=False,
          summary="Publish a message; the answer tells whether a queue has it"),
    Route(method="POST", path="/api/queues/{vhost}/{queue}/get", handler=get, access=Access.VHOST, body=Get,
          is_audited=False, summary="Get messages of a queue"),
]
