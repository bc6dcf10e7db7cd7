"""Packed methods that canary and attackers send often; on channel 1 unless a comment says otherwise."""

from __future__ import annotations

from typing import Any

from conformance import methods
from conformance.client import BODY, HEADER, frame, method_frame
from conformance.fields import Properties, bits, content_header, pack

FRAME_MAX = 131_072
PERSISTENT = Properties(delivery_mode=2)
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"


def queue_declare(
    queue: str, arguments: dict[str, Any] | None = None, *, passive: bool = False, durable: bool = False,
    exclusive: bool = False, auto_delete: bool = False, nowait: bool = False, channel: int = 1,
) -> bytes:
    """Pack queue.declare."""
    flags = bits(passive, durable, exclusive, auto_delete, nowait)
    return method_frame(channel, *methods.QUEUE_DECLARE, pack("2soT", 0, queue, flags, arguments or {}))


def queue_delete(queue: str, *, nowait: bool = False, channel: int = 1) -> bytes:
    """Pack queue.delete, without conditions."""
    return method_frame(channel, *methods.QUEUE_DELETE, pack("2so", 0, queue, bits(False, False, nowait)))


def queue_purge(queue: str, *, nowait: bool = False) -> bytes:
    """Pack queue.purge."""
    return method_frame(1, *methods.QUEUE_PURGE, pack("2so", 0, queue, bits(nowait)))


def queue_bind(
    queue: str, exchange: str, key: str = "", arguments: dict[str, Any] | None = None, *, nowait: bool = True
) -> bytes:
    """Pack queue.bind."""
    return method_frame(1, *methods.QUEUE_BIND, pack(
        "2sssoT", 0, queue, exchange, key, bits(nowait), arguments or {}))


def queue_unbind(queue: str, exchange: str, key: str = "") -> bytes:
    """Pack queue.unbind, which always has an answer."""
    return method_frame(1, *methods.QUEUE_UNBIND, pack("2sssT", 0, queue, exchange, key, {}))


def exchange_declare(
    exchange: str, kind: str = "fanout", arguments: dict[str, Any] | None = None, *, durable: bool = False,
    nowait: bool = True,
) -> bytes:
    """Pack exchange.declare."""
    return method_frame(1, *methods.EXCHANGE_DECLARE, pack(
        "2ssoT", 0, exchange, kind, bits(False, durable, False, False, nowait), arguments or {}))


def exchange_delete(exchange: str, *, nowait: bool = True) -> bytes:
    """Pack exchange.delete, without conditions."""
    return method_frame(1, *methods.EXCHANGE_DELETE, pack("2so", 0, exchange, bits(False, nowait)))


def exchange_bind(destination: str, source: str, key: str = "", *, nowait: bool = True) -> bytes:
    """Pack exchange.bind."""
    return method_frame(1, *methods.EXCHANGE_BIND, pack("2sssoT", 0, destination, source, key, bits(nowait), {}))


def publish(
    exchange: str, key: str, body: bytes = b"", properties: Properties | None = None, *, mandatory: bool = False,
    channel: int = 1,
) -> bytes:
    """Pack basic.publish with its content."""
    method = method_frame(channel, *methods.BASIC_PUBLISH, pack("2sso", 0, exchange, key, bits(mandatory)))
    return method + content(body, properties, channel=channel)


def content(body: bytes, properties: Properties | None = None, *, channel: int = 1) -> bytes:
    """Pack a content: its header, and its body in frames as large as may be."""
    step = FRAME_MAX - 8
    return frame(HEADER, channel, content_header(len(body), properties)) + b"".join(
        frame(BODY, channel, body[at:at + step]) for at in range(0, len(body), step))


def consume(
    queue: str, tag: str = "", *, no_ack: bool = False, nowait: bool = False, channel: int = 1,
    arguments: dict[str, Any] | None = None,
) -> bytes:
    """Pack basic.consume."""
    return method_frame(channel, *methods.BASIC_CONSUME, pack(
        "2ssoT", 0, queue, tag, bits(False, no_ack, False, nowait), arguments or {}))


def cancel(tag: str, *, nowait: bool = True) -> bytes:
    """Pack basic.cancel."""
    return method_frame(1, *methods.BASIC_CANCEL, pack("so", tag, bits(nowait)))


def get(queue: str, *, no_ack: bool = False) -> bytes:
    """Pack basic.get."""
    return method_frame(1, *methods.BASIC_GET, pack("2so", 0, queue, bits(no_ack)))


def ack(tag: int, *, multiple: bool = False, channel: int = 1) -> bytes:
    """Pack basic.ack."""
    return method_frame(channel, *methods.BASIC_ACK, pack("8o", tag, bits(multiple)))


def nack(tag: int, *, multiple: bool = False, requeue: bool = False) -> bytes:
    """Pack basic.nack."""
    return method_frame(1, *methods.BASIC_NACK, pack("8o", tag, bits(multiple, requeue)))


def reject(tag: int, *, requeue: bool = False) -> bytes:
    """Pack basic.reject."""
    return method_frame(1, *methods.BASIC_REJECT, pack("8o", tag, bits(requeue)))


def recover() -> bytes:
    """Pack basic.recover with requeue."""
    return method_frame(1, *methods.BASIC_RECOVER, pack("o", 1))


def qos(count: int, *, is_global: bool = False, channel: int = 1) -> bytes:
    """Pack basic.qos."""
    return method_frame(channel, *methods.BASIC_QOS, pack("42o", 0, count, bits(is_global)))


def confirm_select(channel: int = 1) -> bytes:
    """Pack confirm.select."""
    return method_frame(channel, *methods.CONFIRM_SELECT, b"\0")


def channel_open(channel: int) -> bytes:
    """Pack channel.open."""
    return method_frame(channel, *methods.CHANNEL_OPEN, b"\0")


def channel_close(channel: int) -> bytes:
    """Pack channel.close."""
    return method_frame(channel, *methods.CHANNEL_CLOSE, pack("2s22", 200, "bye", 0, 0))


def tx_select() -> bytes:
    """Pack tx.select."""
    return method_frame(1, *methods.TX_SELECT)


def tx_commit() -> bytes:
    """Pack tx.commit."""
    return method_frame(1, *methods.TX_COMMIT)


def tx_rollback() -> bytes:
    """Pack tx.rollback."""
    return method_frame(1, *methods.TX_ROLLBACK)
