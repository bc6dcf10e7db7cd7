"""The values that travel through the broker: a message, its route, and the properties that the broker reads.

A message keeps its content (header frame and body frames) as the bytes that arrived, so that a delivery writes them
again without decoding. `Route` and `MessageProperties` are shared by all messages that were published with equal method
arguments or equal property bytes, so a message is four references.

Invariants: none of these values changes once it is in a queue. `Message.number` always rises, in publish order, and is
used once, so it is the message's position in every queue that it was routed to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import msgspec

FRAME_OVERHEAD = 8                      # frame header and end byte
LONGEST_SHORT_STRING = 255              # bytes
HARD_BODY_LIMIT = 512 * 1024 * 1024     # the upper limit of the setting
LARGE_BODY = 1 << 20                    # a larger body is written to the store before its message is recorded
_FRAME_HEAD = struct.Struct(">BHI")
_HEADER_FRAME = struct.Struct(">BHIHHQ")
_END = b"\xce"
BODY_OFFSET_IN_HEADER_FRAME = _HEADER_FRAME.size


class Route(msgspec.Struct, frozen=True, eq=False):
    """The exchange and routing key that a message was published with, also as they are encoded in a delivery.

    `packed_names` is both names as short strings. `channel` and `frame_max` are the channel number and the largest
    frame size of the content frames of messages with this route.
    """

    exchange: str
    routing_key: str
    packed_names: bytes
    channel: int
    frame_max: int


class MessageProperties(msgspec.Struct, frozen=True, eq=False):
    """The properties that the broker itself reads; all others are opaque.

    `flaw` is the reply text that refuses a publish with these properties, or "". `expiration_ms` is None without an
    expiration. `headers` is the encoded header table, b"" without one.
    """

    persistent: bool = False
    priority: int | None = None
    expiration_ms: int | None = None
    reply_to: str | None = None
    user_id: str | None = None
    extra_keys: tuple[str, ...] = ()        # CC and BCC: the message is routed by each of them, as by the routing key
    has_bcc: bool = False
    headers: bytes = b""
    flaw: str = ""
    deaths_are_merged: bool = False         # whether `x-death` surely has one counted entry for each queue and reason

    @property
    def is_special(self) -> bool:
        """Whether a publish with these properties needs more than routing and enqueueing."""
        return bool(self.extra_keys or self.has_bcc or self.flaw or self.reply_to or self.user_id is not None)


class Message(msgspec.Struct, eq=False, gc=False):
    """A published message.

    `content` is its header frame and body frames, whole, with the number `route.channel`; `body_size` is in bytes. The
    content is empty in an unacked message whose content is on disk only; see `reference_to`.
    """

    number: int
    route: Route
    facts: MessageProperties
    content: bytes
    body_size: int
    holders: int = 0        # number of durable queues for which the store keeps it, if more than one

    @property
    def properties(self) -> bytes:
        """The property flags and values, as received."""
        size = _HEADER_FRAME.unpack_from(self.content)[2]
        # A content that was received into its own buffer is a bytearray.
        return bytes(self.content[BODY_OFFSET_IN_HEADER_FRAME : 7 + size])

    @property
    def body_start(self) -> int:
        """Return where the first body frame begins in the content."""
        return 7 + int(_HEADER_FRAME.unpack_from(self.content)[2]) + 1

    def content_with(self, properties: bytes) -> bytes:
        """Return the content with these properties; the body frames are copied once, unchanged."""
        return b"".join((
            header_frame(self.route.channel, properties, self.body_size),
            memoryview(self.content)[self.body_start :]))

    def take_content_with(self, properties: bytes) -> tuple[bytes, int]:
        """Return the same as `content_with`, for a message that is not in a queue yet, and how many bytes were copied.

        The message must not be used any more: a large content gets its new header in place if possible.
        """
        content: bytes | bytearray = self.content
        if isinstance(content, bytearray):
            header = header_frame(self.route.channel, properties, self.body_size)
            start = self.body_start
            try:
                content[:start] = header        # moves nothing if the new header is shorter
            except BufferError:
                pass        # a memoryview of the content exists
            else:
                return cast(bytes, content), len(content) if len(header) > start else 0
        return self.content_with(properties), len(content)

    def copy_as(self, number: int, route: Route, facts: MessageProperties, content: bytes) -> Message:
        """Return a message with the same body under another number; `content` has the same body too."""
        return Message(number, route, facts, content, self.body_size)

    def with_stored_body(self, stored_body: StoredBody) -> StoredMessage:
        """Return the same message, whose body is in the store now."""
        return StoredMessage(
            self.number, self.route, self.facts, self.content, self.body_size, self.holders, stored_body=stored_body)

    def renumbered(self, number: int) -> Message:
        """Return the same message under another number."""
        return self.copy_as(number, self.route, self.facts, self.content)

    @property
    def body(self) -> bytes:
        """The body, joined from its frames."""
        content, start = self.content, self.body_start
        if start == len(content):
            return b""
        size = _FRAME_HEAD.unpack_from(content, start)[2]
        if start + size + FRAME_OVERHEAD == len(content):
            return content[start + 7 : -1]
        body = bytearray(self.body_size)
        target, at = memoryview(body), 0
        for piece in self.body_pieces(self.body_size):      # each is copied once
            target[at : at + len(piece)] = piece
            at += len(piece)
        return cast(bytes, body)

    def body_pieces(self, most: int) -> Iterator[memoryview]:
        """Yield the body in order, as views of the content of at most `most` bytes; no view crosses a frame."""
        content, start = self.content, self.body_start
        view = memoryview(content)
        while start < len(content):
            end = start + 7 + int(_FRAME_HEAD.unpack_from(content, start)[2])
            for at in range(start + 7, end, most):
                yield view[at : min(at + most, end)]
            start = end + 1


class StoredBody:
    """A large body that the store has, in parts, from number `body_id` on; 0 before the first part is written.

    The store keeps the parts as long as a row of a message has this body, or a message in memory: then this object
    exists. With its last reference it calls `release`, in any thread. `checksums` has the CRC-32 of each part.
    """

    __slots__ = ("body_id", "size", "checksums", "_release")

    def __init__(
        self, size: int, release: Callable[[int], None], body_id: int = 0, checksums: Sequence[int] = ()
    ) -> None:
        self.body_id = body_id
        self.size = size
        self.checksums = [*checksums]
        self._release = release

    def __del__(self) -> None:
        if self.body_id:
            self._release(self.body_id)


class StoredMessage(Message, eq=False, gc=False, kw_only=True):
    """A message whose large body is in the store already, whether the message has been recorded or not.

    Messages with equal bodies, in other queues or under other numbers, may share one.
    """

    stored_body: StoredBody

    def copy_as(self, number: int, route: Route, facts: MessageProperties, content: bytes) -> Message:
        """See `Message.copy_as`."""
        return StoredMessage(number, route, facts, content, self.body_size, stored_body=self.stored_body)


_NO_ROUTE = Route("", "", b"\0\0", 0, 0)
_STORED_FACTS: dict[int | None, MessageProperties] = {}        # by priority, of which there are 256


def reference_to(message: Message) -> Message:
    """Return a message without content that stands for a stored one: it has the same number, size and priority."""
    priority = message.facts.priority
    facts = _STORED_FACTS.get(priority)
    if facts is None:
        facts = _STORED_FACTS[priority] = MessageProperties(persistent=True, priority=priority)
    return Message(message.number, _NO_ROUTE, facts, b"", message.body_size)


def pack_short_string(text: str) -> bytes:
    """Encode a short string: one byte of length, then UTF-8. Raises ValueError beyond 255 bytes. Spec: §4.2.5.3."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def named_like(route: Route, exchange: str, routing_key: str) -> Route:
    """Return a route with these names and the frames of `route`. Names are cut to 255 bytes, the most of a delivery."""
    exchange, routing_key = _as_short_string(exchange), _as_short_string(routing_key)
    names = pack_short_string(exchange) + pack_short_string(routing_key)
    return Route(exchange, routing_key, names, route.channel, route.frame_max)


def _as_short_string(text: str) -> str:
    return text.encode()[:LONGEST_SHORT_STRING].decode(errors="ignore")


def route_of(names: bytes, channel: int, frame_max: int) -> Route:
    """Return the route of an exchange and routing key, both short strings. Raises ValueError if they are not text."""
    end = 1 + names[0]
    return Route(names[1:end].decode(), names[end + 1 :].decode(), names, channel, frame_max)


def pack_content(channel: int, frame_max: int, properties: bytes, body: bytes) -> bytes:
    """Return the header frame and body frames of a content, none larger than `frame_max`.

    `properties` is flags and values as bytes. An empty body has no body frame. Spec: §4.2.6.
    """
    step = frame_max - FRAME_OVERHEAD
    if len(body) <= step:
        before, after = frames_around(channel, properties, len(body))
        return b"".join((before, body, after))
    parts: list[bytes | memoryview] = [header_frame(channel, properties, len(body))]
    view = memoryview(body)       # copied once
    for start in range(0, len(body), step):
        piece = view[start : start + step]
        parts += (_FRAME_HEAD.pack(3, channel, len(piece)), piece, _END)
    return b"".join(parts)


def content_of_pieces(
    channel: int, frame_max: int, properties: bytes, body_size: int, read: Callable[[int], bytes]
) -> bytearray:
    """Return the same as `pack_content`, for a body that is read in pieces: `read` returns the next so many bytes."""
    step = frame_max - FRAME_OVERHEAD
    header = header_frame(channel, properties, body_size)
    content = bytearray(len(header) + body_size + -(-body_size // step) * FRAME_OVERHEAD)
    content[: len(header)] = header
    at = len(header)
    for left in range(body_size, 0, -step):
        piece = read(min(step, left))
        end = at + 7 + len(piece)
        _FRAME_HEAD.pack_into(content, at, 3, channel, len(piece))
        content[at + 7 : end] = piece
        content[end] = 0xCE
        at = end + 1
    return content


def frames_around(channel: int, properties: bytes, body_size: int) -> tuple[bytes, bytes]:
    """Return what precedes and follows a body of this size that fits into one frame; see `pack_content`."""
    header = header_frame(channel, properties, body_size)
    return (header + _FRAME_HEAD.pack(3, channel, body_size), _END) if body_size else (header, b"")


def header_frame(channel: int, properties: bytes, body_size: int) -> bytes:
    """Return the header frame of a content; `properties` is flags and values as bytes. Spec: §4.2.6.1."""
    return _HEADER_FRAME.pack(2, channel, 12 + len(properties), 60, 0, body_size) + properties + _END
