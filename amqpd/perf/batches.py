"""The bytes of the hot path in batches: publishes, deliveries, acks and confirms.

Messages of one batch have equal sizes, so that a batch is a matrix: a row a message, and each byte of a row is a column
that is written or compared in one step (`rows[at::size]`). That costs a fraction of what packing each message costs,
so the client is not what is measured.

A body that has room for it begins with the time at which its message was published, in nanoseconds of the monotonic
clock, which all processes of the machine share.

Spec: §4.2; basic.publish, basic.deliver, basic.ack.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from pamqp.commands import Basic

from amqpd.message import pack_content
from amqpd.perf.client import BODY, CHANNEL, FRAME_HEAD, HEADER, METHOD, method_of
from amqpd.wire.methods import encode_method

STAMP = struct.Struct(">Q")
_ANSWER = struct.Struct(">BHIHHQBB")        # basic.ack and basic.nack, of clients and of brokers
_ACKS = struct.Struct(">11sQBB")
_ACK_HEAD = _ANSWER.pack(METHOD, CHANNEL, 13, 60, 80, 0, 0, 0xCE)[:11]
_DELIVER = b"\x00\x3c\x00\x3c"
_BODY_SIZE = struct.Struct(">Q")
_TAG_IN_ACK = 11
BLOCK_MESSAGES = 100
BLOCK_BYTES = 65_536
PERSISTENT, PRIORITY = 1 << 12, 1 << 11


def properties(*, is_persistent: bool, priority: int | None) -> bytes:
    """Return the flags and values of the properties of each message. Spec: §4.2.6.1."""
    flags, values = 0, b""
    if is_persistent:
        flags, values = flags | PERSISTENT, values + b"\x02"
    if priority is not None:
        flags, values = flags | PRIORITY, values + bytes((priority,))
    return struct.pack(">H", flags) + values


def write_column(rows: bytearray | memoryview, at: int, size: int, count: int, value: bytes) -> None:
    """Write the same bytes to one place of each row."""
    for position, byte in enumerate(value, at):
        rows[position : count * size : size] = bytes((byte,)) * count


class PublishBlock:
    """Equal publishes on one channel, ready to be sent; only the times in the bodies change."""

    def __init__(
        self, exchange: str, key: str, size: int, packed_properties: bytes, frame_max: int, *,
        is_mandatory: bool = False,
    ) -> None:
        method = encode_method(
            CHANNEL, method_of(Basic.Publish, exchange=exchange, routing_key=key, mandatory=is_mandatory))
        content = pack_content(CHANNEL, frame_max, packed_properties, os.urandom(min(size, 4096)).ljust(size, b"x"))
        self.row_size = len(method) + len(content)
        self.most = max(1, min(BLOCK_MESSAGES, BLOCK_BYTES // max(size, 1)))
        self._rows = bytearray((method + content) * self.most)
        # Behind the method come 20 bytes of the header frame besides the properties, and the head of a body frame.
        self._stamp_at = len(method) + 20 + len(packed_properties) + 7 if size >= STAMP.size else None

    def stamped(self, count: int, now_ns: int) -> memoryview:
        """Return the bytes of so many publishes, at most `most`, published now. They are valid until the next call."""
        if self._stamp_at is not None:
            write_column(self._rows, self._stamp_at, self.row_size, count, STAMP.pack(now_ns))
        return memoryview(self._rows)[: count * self.row_size]


def pack_acks(first: int, last: int) -> bytes:
    """Return a basic.ack for each delivery tag from the first to the last."""
    count, size = last - first + 1, _ACKS.size
    rows = bytearray((_ACK_HEAD + bytes(9) + b"\xce") * count)
    tags = struct.pack(f">{count}Q", *range(first, last + 1))
    for byte in range(8):
        rows[_TAG_IN_ACK + byte :: size] = tags[byte::8]
    return bytes(rows)


def pack_ack_up_to(tag: int) -> bytes:
    """Return one basic.ack for all deliveries up to this tag."""
    return _ANSWER.pack(METHOD, CHANNEL, 13, 60, 80, tag, 1, 0xCE)


def read_acks(data: bytearray, at: int) -> tuple[list[tuple[int, bool]], int]:
    """Return the whole basic.acks in a row from here on, tag and `multiple` of each, and where they end."""
    tags: list[tuple[int, bool]] = []
    stop = at + (len(data) - at) // _ACKS.size * _ACKS.size
    for head, tag, multiple, end in _ACKS.iter_unpack(bytes(data[at:stop])):
        if head != _ACK_HEAD or end != 0xCE:
            break
        tags.append((tag, bool(multiple & 1)))
    return tags, at + len(tags) * _ACKS.size


class Row(NamedTuple):
    """The form of deliveries whose frames have the same sizes.

    `columns` has the bytes that all of them share, with their places: these bytes tell where the frames begin and end.
    """

    size: int
    columns: Sequence[tuple[int, bytes]]
    tag_at: int
    stamp_at: int | None

    def count_in(self, data: bytearray, at: int) -> int:
        """Return how many deliveries of this form certainly begin at this place; it may be fewer than there are."""
        count = (len(data) - at) // self.size
        while count and not self._fits(data, at, count):
            count //= 2
        return count

    def _fits(self, data: bytearray, at: int, count: int) -> bool:
        size = self.size
        stop = at + count * size
        return all(data[at + place : stop : size] == byte * count for place, byte in self.columns)

    def tag(self, data: bytearray, at: int) -> int:
        """Return the delivery tag of the delivery that begins at this place."""
        return int(STAMP.unpack_from(data, at + self.tag_at)[0])

    def stamps(self, data: bytearray, at: int, count: int) -> list[int]:
        """Return the times at which so many messages were published; nothing if bodies have no room for them."""
        if self.stamp_at is None:
            return []
        form = struct.Struct(f">{self.stamp_at}xQ{self.size - self.stamp_at - 8}x")
        with memoryview(data) as view:
            return [stamp for stamp, in form.iter_unpack(view[at : at + count * self.size])]


def row_of(data: bytearray, at: int) -> Row | None:
    """Return the form of the delivery that begins at this place, or None if it is incomplete.

    Raises ValueError if it is not a delivery that begins there.
    """
    begin, missing = at, None
    columns: list[tuple[int, bytes]] = []
    tag_at, stamp_at = 0, None
    while missing is None or missing > 0:
        if len(data) < at + 7:
            return None
        kind, _, size = FRAME_HEAD.unpack_from(data, at)
        stop = at + size + 8
        expected = METHOD if at == begin else HEADER if missing is None else BODY
        if kind != expected or len(data) >= at + 11 and at == begin and data[at + 7 : at + 11] != _DELIVER:
            raise ValueError("not a delivery")
        if len(data) < stop:
            return None
        fixed = [at, *range(at + 3, at + 7), stop - 1]      # not the number of the channel
        if kind == METHOD:
            fixed += range(at + 7, at + 12)                 # the method, and how long the consumer tag is
            tag_at = at + 12 + data[at + 11] - begin
        elif kind == HEADER:
            missing = _BODY_SIZE.unpack_from(data, at + 11)[0]
            fixed += range(at + 11, at + 19)
        elif missing is not None:
            if stamp_at is None and size >= STAMP.size:
                stamp_at = at + 7 - begin
            missing -= size
        columns += [(place - begin, bytes(data[place : place + 1])) for place in fixed]
        at = stop
    return Row(at - begin, columns, tag_at, stamp_at)


def next_frame(data: bytearray, at: int) -> tuple[int, bytes, int] | None:
    """Return type and payload of the frame that begins at this place and where it ends, or None if it is incomplete."""
    if len(data) < at + 8:
        return None
    kind, _, size = FRAME_HEAD.unpack_from(data, at)
    stop = at + size + 8
    return None if len(data) < stop else (kind, bytes(data[at + 7 : stop - 1]), stop)
