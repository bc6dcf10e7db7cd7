"""Shared by several attacks: fill queues, read their lengths, wait for a length."""

from __future__ import annotations

import struct
import time

from conformance import methods
from conformance.fields import Cursor, Properties
from tests.canary.packing import publish, queue_declare
from tests.canary.peer import Peer, batches


def depth(peer: Peer, queue: str) -> int:
    """How many messages are ready in a queue."""
    cursor = Cursor(peer.call(queue_declare(queue, passive=True), methods.QUEUE_DECLARE_OK))
    cursor.read("s")
    return struct.unpack(">I", cursor.take(4))[0]


def await_depth(peer: Peer, queue: str, wanted: int, within_s: float = 60.0) -> None:
    """Wait until exactly so many messages are ready."""
    deadline = time.monotonic() + within_s
    while (found := depth(peer, queue)) != wanted:
        assert time.monotonic() < deadline, f"{found} messages in {queue} instead of {wanted}"
        time.sleep(0.05)


def declare(peer: Peer, queue: str, **options: object) -> None:
    """Declare a queue, with arguments of the wire in `arguments`."""
    peer.call(queue_declare(queue, **options), methods.QUEUE_DECLARE_OK)     # type: ignore[arg-type]  # passed on


def fill(peer: Peer, queue: str, count: int, body: bytes = b"x", properties: Properties | None = None) -> None:
    """Publish so many messages straight into a queue, and wait until they are there."""
    message = publish("", queue, body, properties)
    for octets in batches(lambda _: message, count, max(1, 200_000 // len(message))):
        peer.send(octets)
    peer.sync()


def fill_to_expire(peer: Peer, queue: str, count: int, body: bytes = b"x", delivery_mode: int = 1) -> None:
    """Publish so many messages that all expire at one moment, shortly after the last has been published."""
    begun = time.monotonic()
    fill(peer, queue, 2_000, body, Properties(delivery_mode=delivery_mode, expiration="1"))
    moment = time.monotonic() + (time.monotonic() - begun) * count / 2_000 * 1.5 + 0.5
    for start in range(0, count, 1_000):
        left_ms = max(int((moment - time.monotonic()) * 1_000), 1)
        properties = Properties(delivery_mode=delivery_mode, expiration=str(left_ms))
        peer.send(publish("", queue, body, properties) * min(1_000, count - start))
    peer.sync()


def dead_letter_to(queue: str, **others: object) -> dict[str, object]:
    """The arguments of a queue that dead-letters into another."""
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, **others}
