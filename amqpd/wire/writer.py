"""Commands out, octets: the frames of the hot path, packed without pamqp and without its limits on names.

Owns nothing. A delivery is four parts: a front made once for each consumer and route, the delivery tag, a back made
once, and the content as it arrived. The rare methods are packed in `wire/methods.py`.

Spec: §4.2; basic.deliver, basic.get-ok, basic.return, basic.ack.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, cast

from amqpd.message import FRAME_OVERHEAD, Message, Route, header_frame, pack_content

HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_METHOD_HEAD = struct.Struct(">BHIHH")
_ANSWER = struct.Struct(">BHIHHQBB")
_FRAME_HEAD = struct.Struct(">BHI")
_END = b"\xce"
_RETURN_CODE = struct.Struct(">H")
_TAG = struct.Struct(">Q")
_COUNT = struct.Struct(">I")
_NO_ROUTE = _RETURN_CODE.pack(312) + b"\x08NO_ROUTE"
SHARED = 64 * 1024      # octets of a content, from which on copies for other channels share the body
LEAST_PIECE = 1_024     # average octets in a piece of a body, else it is copied: each piece costs some 250

pack_tag = _TAG.pack


class DeliveryHead(NamedTuple):
    """The octets of a basic.deliver around its delivery tag, for one consumer and one route."""

    front: bytes
    back: bytes
    back_redelivered: bytes
    content_fits: bool          # the content frames can be sent unchanged


def delivery_head(channel: int, frame_max: int, consumer_tag: bytes, route: Route) -> DeliveryHead:
    """Return the head of every delivery of this route to this consumer; `consumer_tag` is a packed short string."""
    size = 4 + len(consumer_tag) + 9 + len(route.packed_names)
    back = route.packed_names + b"\xce"
    return DeliveryHead(
        _METHOD_HEAD.pack(1, channel, size, 60, 60) + consumer_tag,
        b"\x00" + back,
        b"\x01" + back,
        channel == route.channel and route.frame_max <= frame_max,
    )


def refit_content(message: Message, channel: int, frame_max: int) -> bytes:
    """Return the content frames of a message, numbered for this channel and cut for this frame-max."""
    content, route = message.content, message.route
    if len(content) > frame_max and route.frame_max > frame_max:
        return pack_content(channel, frame_max, message.properties, message.body)
    if channel == route.channel:
        return content
    parts: list[bytes] = []
    start = 0
    while start < len(content):
        kind, _, size = _FRAME_HEAD.unpack_from(content, start)
        stop = start + size + FRAME_OVERHEAD
        parts += (_FRAME_HEAD.pack(kind, channel, size), content[start + 7 : stop])
        start = stop
    return b"".join(parts)


def content_pieces(message: Message, channel: int, frame_max: int, properties: bytes | None = None) -> list[bytes]:
    """Return the content frames as `refit_content`, in pieces; `properties` replaces the message's own, if given.

    The pieces of a large content share the octets of its body, so that it is in memory only once for all receivers.
    """
    content, start = message.content, message.body_start
    frames = (len(content) - start - message.body_size) // FRAME_OVERHEAD
    if len(content) < SHARED or (frames + message.body_size // frame_max) * LEAST_PIECE > message.body_size:
        if properties is None:
            return [refit_content(message, channel, frame_max)]
        return [pack_content(channel, frame_max, properties, message.body)]
    if properties is None:
        if channel == message.route.channel and message.route.frame_max <= frame_max:
            return [content]
        properties = message.properties
    octets = memoryview(content)
    step = frame_max - FRAME_OVERHEAD
    before = header_frame(channel, properties, message.body_size)
    pieces: list[bytes] = []
    while start < len(content):
        stop = start + 7 + _FRAME_HEAD.unpack_from(content, start)[2]
        for at in range(start + 7, stop, step):
            piece = cast(bytes, octets[at : min(at + step, stop)])      # it is only sent
            pieces += (before + _FRAME_HEAD.pack(3, channel, len(piece)), piece)
            before = _END
        start = stop + 1
    pieces.append(_END)
    return pieces


def pack_get_ok(channel: int, tag: int, *, redelivered: bool, route: Route, left: int) -> bytes:
    """Pack the method frame of a basic.get-ok; `left` is how many messages are still ready. The content follows."""
    return b"".join((
        _METHOD_HEAD.pack(1, channel, 4 + 9 + len(route.packed_names) + 4, 60, 71),
        _TAG.pack(tag),
        b"\x01" if redelivered else b"\x00",
        route.packed_names,
        _COUNT.pack(left),
        b"\xce",
    ))


def pack_return(channel: int, route: Route) -> bytes:
    """Pack the method frame of a basic.return with NO_ROUTE. The content follows."""
    size = 4 + len(_NO_ROUTE) + len(route.packed_names)
    return b"".join((_METHOD_HEAD.pack(1, channel, size, 60, 50), _NO_ROUTE, route.packed_names, b"\xce"))


def pack_confirm(channel: int, sequence: int, *, multiple: bool) -> bytes:
    """Pack a basic.ack to a publisher."""
    return _ANSWER.pack(1, channel, 13, 60, 80, sequence, multiple, 0xCE)


def pack_refusal(channel: int, sequence: int) -> bytes:
    """Pack a basic.nack to a publisher. It has the requeue bit, as RabbitMQ's; clients ignore it."""
    return _ANSWER.pack(1, channel, 13, 60, 120, sequence, 2, 0xCE)
