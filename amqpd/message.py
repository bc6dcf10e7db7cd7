"""The values that travel: a message, where it was published to, and what its properties ask of the broker.

A message keeps its content (header frame and body frames) as the bytes that arrived, so that a delivery
writes them again without decoding anything. `Route` and `MessageProperties` are shared by all messages that were
published with equal method arguments or equal property bytes, so a message is four references.

Invariants: none of these values changes once it is in a queue; `Message.number` rises for ever, in publish
order, and is used once, so it is the message's position in every queue it was routed to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import cast

import msgspec

FRAME_OVERHEAD = 8                      # frame head and end byte
LONGEST_SHORT_STRING = 255              # bytes
HARD_BODY_LIMIT = 512 * 1024 * 1024     # no setting goes beyond it
LARGE_BODY = 1 << 20                    # beyond which a body is written to the store before its message is recorded
_FRAME_HEAD = struct.Struct(">BHI")
_HEADER_FRAME = struct.Struct(">BHIHHQ")
_END = b"\xce"
BODY_OFFSET_IN_HEADER_FRAME = _HEADER_FRAME.size


class Route(msgspec.Struct, frozen=True, eq=False):
    """Where a message was published: exchange and routing key, also as they stand in a delivery.

    `octets` is both names as short strings; `channel` and `frame_max` say how the content frames of the
    messages of this route are numbered and cut.
    """

    exchange: str
    routing_key: str
    octets: bytes
    channel: int
    frame_max: int


class MessageProperties(msgspec.Struct, frozen=True, eq=False):
    """What the broker itself reads from a message's properties; all else is opaque.

    `flaw` holds the reply text a publish with these properties is refused with, or "".
    `expiration_ms` is None without an expiration; `headers` holds the bytes of the header table, b"" without.
    """

    persistent: bool = False
    priority: int | None = None
    expiration_ms: int | None = None
    reply_to: str | None = None
    user_id: str | None = None
    extra_keys: tuple[str, ...] = ()        # CC and BCC: routed to as if each were the routing key
    has_bcc: bool = False
    headers: bytes = b""
    flaw: str = ""
    deaths_are_merged: bool = False         # as far as is known: `x-death` has one counted entry a queue and reason

    @property
    def is_special(self) -> bool:
        """Whether a publish with these properties needs more than being put into its queues."""
        return bool(self.extra_keys or self.has_bcc or self.flaw or self.reply_to or self.user_id is not None)


class Message(msgspec.Struct, eq=False, gc=False):
    """One published message.

    `content` is its header frame and body frames, whole, as on `route.channel`; `body_size` is in bytes. It is empty
    in an unacked message whose content is on disk only; see `reference_to`.
    """

    number: int
    route: Route
    facts: MessageProperties
    content: bytes
    body_size: int
    holders: int = 0        # durable queues the store keeps it in, while that is more than one

    @property
    def properties(self) -> bytes:
        """The property flags and values, as received."""
        size = _HEADER_FRAME.unpack_from(self.content)[2]
        # A content that was read into place is a bytearray.
        return bytes(self.content[BODY_OFFSET_IN_HEADER_FRAME : 7 + size])

    @property
    def body_start(self) -> int:
        """Return where the first body frame begins in the content, if there is one."""
        return 7 + int(_HEADER_FRAME.unpack_from(self.content)[2]) + 1

    def content_with(self, properties: bytes) -> bytes:
        """Return the content with these properties; the body frames are copied once, as they are."""
        return b"".join((
            header_frame(self.route.channel, properties, self.body_size),
            memoryview(self.content)[self.body_start :]))

    def take_content_with(self, properties: bytes) -> tuple[bytes, int]:
        """Return the same as `content_with` for a message that nobody has yet, and how many bytes were copied.

        The message must not be used any more: a large content gets its new header in place, where it can.
        """
        content: bytes | bytearray = self.content
        if isinstance(content, bytearray):
            header = header_frame(self.route.channel, properties, self.body_size)
            start = self.body_start
            try:
                content[:start] = header        # which moves nothing where the header has become shorter
            except BufferError:
                pass        # somebody looks at it
            else:
                return cast(bytes, content), len(content) if len(header) > start else 0
        return self.content_with(properties), len(content)

    @property
    def body(self) -> bytes:
        """The body, put together from its frames."""
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
        """Return the body in order, as views of the content of at most so many bytes; no view crosses a frame."""
        content, start = self.content, self.body_start
        view = memoryview(content)
        while start < len(content):
            end = start + 7 + int(_FRAME_HEAD.unpack_from(content, start)[2])
            for at in range(start + 7, end, most):
                yield view[at : min(at + most, end)]
            start = end + 1


_NO_ROUTE = Route("", "", b"\0\0", 0, 0)
_STORED_FACTS: dict[int | None, MessageProperties] = {}        # by priority, of which there are 256


def reference_to(message: Message) -> Message:
    """Return what stands for a message that the store keeps: its number, size and priority, without the content."""
    priority = message.facts.priority
    facts = _STORED_FACTS.get(priority)
    if facts is None:
        facts = _STORED_FACTS[priority] = MessageProperties(persistent=True, priority=priority)
    return Message(message.number, _NO_ROUTE, facts, b"", message.body_size)


def pack_short_string(text: str) -> bytes:
    """A short string: one byte of length, then UTF-8. Raises ValueError beyond 255 bytes. Spec: §4.2.5.3."""
    octets = text.encode()
    return bytes((len(octets),)) + octets


def route_of(names: bytes, channel: int, frame_max: int) -> Route:
    """The route of an exchange and a routing key as short strings. Raises ValueError where they are no text."""
    end = 1 + names[0]
    return Route(names[1:end].decode(), names[end + 1 :].decode(), names, channel, frame_max)


def pack_content(channel: int, frame_max: int, properties: bytes, body: bytes) -> bytes:
    """The header frame and body frames of a content, cut so that no frame is larger than `frame_max`.

    `properties` is flags and values as bytes. An empty body has no body frame. Spec: §4.2.6.
    """
    step = frame_max - FRAME_OVERHEAD
    if len(body) <= step:
        before, after = frames_around(channel, properties, len(body))
        return b"".join((before, body, after))
    parts: list[bytes | memoryview] = [header_frame(channel, properties, len(body))]
    octets = memoryview(body)       # which is copied once
    for start in range(0, len(body), step):
        piece = octets[start : start + step]
        parts += (_FRAME_HEAD.pack(3, channel, len(piece)), piece, _END)
    return b"".join(parts)


def content_of_pieces(
    channel: int, frame_max: int, properties: bytes, body_size: int, read: Callable[[int], bytes]
) -> bytearray:
    """Return the same as `pack_content`, of a body in pieces: `read` returns as many bytes as it is asked."""
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
    """What stands before and after a body of this size that fits one frame; see `pack_content`."""
    header = header_frame(channel, properties, body_size)
    return (header + _FRAME_HEAD.pack(3, channel, body_size), _END) if body_size else (header, b"")


def header_frame(channel: int, properties: bytes, body_size: int) -> bytes:
    """Return the header frame of a content; `properties` is flags and values as bytes. Spec: §4.2.6.1."""
    return _HEADER_FRAME.pack(2, channel, 12 + len(properties), 60, 0, body_size) + properties + _END
