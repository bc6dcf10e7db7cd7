"""The contents that one connection is receiving: headers and bodies, frame by frame.

An incomplete content takes memory for the octets that arrived, not for the size that was announced: its buffer grows to
at most twice what has arrived, apart from a small amount that all connections share. Many small body frames are
combined into fewer larger ones. A large body is copied once, straight into its content, even if it arrives in small
pieces; the socket itself writes most of it there.

Always true between calls:
- a channel is in `by_channel` exactly while a content has begun on it and is not complete;
- `_gathered` is the octets of body in `by_channel`, including those of an incomplete frame, and they are counted in
  `intake`.

Spec: §4.2.6; the wording of refusals is RabbitMQ's (`rabbit_reader`, `rabbit_command_assembler`).
"""

from __future__ import annotations

import struct
from typing import cast

from amqpd.erlang import describe_frame
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.message import FRAME_OVERHEAD, HARD_BODY_LIMIT
from amqpd.wire.commands import Command, Frames, Publishes, TooLarge, Unwanted

HEADER, BODY = 2, 3
FRAME_END = 0xCE
BASIC = 60
LARGE_BODY = 64 * 1024                  # octets still missing, from which on the socket writes into the content itself
GATHERED_LIMIT = 64 * 1024 * 1024       # octets of incomplete contents on one connection
ROOM_AHEAD = 1024 * 1024                # octets reserved before they arrive, for one content
MOST_ROOM = 4 * 1024 * 1024             # octets reserved at once: takes a few milliseconds
MOST_ROOM_AHEAD = 16 * 1024 * 1024      # and for all contents of all connections
SMALL_FRAME = 4_096 - FRAME_OVERHEAD    # octets of body; a smaller frame is combined with the next ones
MOST_FRAMES = 1_000                     # in a row without a command, until `Frames` reports them

frame_head = struct.Struct(">BHI").unpack_from
_content_header = struct.Struct(">HHQ").unpack_from
_size_at = struct.Struct(">I").pack_into


class Intake:
    """What all connections together are receiving: `octets` of bodies, and `room_ahead`, reserved but not received."""

    def __init__(self) -> None:
        self.octets = 0
        self.room_ahead = 0


class Content:
    """A content that is being received, frame by frame."""

    __slots__ = ("arguments", "is_wanted", "properties", "body_size", "missing", "is_skipped", "frames", "filled",
                 "room_ahead", "_frame_at", "_frame_size")

    def __init__(self, arguments: bytes, *, is_wanted: bool) -> None:
        self.arguments = arguments
        self.is_wanted = is_wanted
        self.properties: bytes | None = None
        self.body_size = 0
        self.missing = 0                # octets of body for which no frame has begun
        self.is_skipped = not is_wanted
        self.frames = bytearray()       # header frame and body frames, up to `filled`
        self.filled = 0
        self.room_ahead = 0             # the part that is counted in the intake
        self._frame_at = 0              # where the last kept body frame begins
        self._frame_size = 0            # and its octets of body; 0 without a frame

    def begin_frame(self, size: int, frame_max: int) -> bool:
        """Begin a body frame of this size. Return whether it extends the previous frame: then its head is dropped."""
        self.missing -= size
        if 0 < self._frame_size < SMALL_FRAME and self._frame_size + size <= frame_max - FRAME_OVERHEAD:
            self._frame_size += size
            _size_at(self.frames, self._frame_at + 3, self._frame_size)
            self.filled -= 1            # the end octet of the previous frame
            return True
        self._frame_at, self._frame_size = self.filled, size
        return False

    def left(self, frame_missing: int) -> int:
        """Return the octets still to come, if all further frames are as large as this one and none is combined."""
        frame_size = max(self._frame_size, SMALL_FRAME)
        return frame_missing + self.missing + -(-self.missing // frame_size) * FRAME_OVERHEAD

    def grow(self, room: int) -> None:
        """Make room for so many octets, if that pays. What has arrived stays in place, as a rule."""
        if room < LARGE_BODY:
            return
        if self.filled < LARGE_BODY:        # moving so little is cheaper than filling the room with zeros
            frames = bytearray(self.filled + room)
            frames[: self.filled] = memoryview(self.frames)[: self.filled]
            self.frames = frames
        else:
            more = bytes(self.filled + room - len(self.frames))
            try:
                self.frames += more
            except BufferError:         # a view of it exists
                self.frames = bytearray(memoryview(self.frames)[: self.filled]) + bytes(room)

    def add(self, piece: bytes | memoryview) -> None:
        """Add octets of its frames."""
        stop = self.filled + len(piece)
        self.frames[self.filled : stop] = piece
        self.filled = stop

    @property
    def room(self) -> memoryview:
        """Return where the next octets of its frames belong, in room that has been made for them."""
        return memoryview(self.frames)[self.filled :]

    def whole(self) -> bytes:
        """Return header frame and body frames. A large one is returned as its bytearray, which no longer changes."""
        if self.body_size >= LARGE_BODY and self.filled == len(self.frames):
            return cast(bytes, self.frames)
        return bytes(memoryview(self.frames)[: self.filled])


class Contents:
    """The incomplete contents of one connection.

    `body_missing` is the octets that an incomplete body frame lacks, including its end octet; 0 without such a frame.
    Bodies of at most `gathered_limit` octets in all, or one of `max_body_size`, may be incomplete at a time.
    """

    def __init__(self, max_body_size: int, intake: Intake, gathered_limit: int) -> None:
        self.by_channel: dict[int, Content] = {}
        self.body_missing = 0
        self._max_body_size = max_body_size
        self._intake = intake
        self._gathered = 0
        self._gathered_limit = max(gathered_limit, max_body_size)
        self._body_channel = 0      # of the incomplete body frame

    # A content begins

    def begin(self, channel: int, arguments: bytes, *, is_wanted: bool) -> None:
        """Begin the content of a publish; a content that is not wanted is skipped."""
        self.by_channel[channel] = Content(arguments, is_wanted=is_wanted)

    def take_frame(self, channel: int, content: Content, kind: int, payload: bytes, frame: bytes) -> Command | None:
        """Take a frame of a content that is not a body frame in turn: its header, or an empty body frame.

        Raises ConnectionException for any other frame.
        """
        if content.properties is None:
            return self._take_header(channel, content, kind, payload, frame)
        if kind != BODY or len(payload) > content.missing:
            raise unexpected_frame(*content_due(content))
        return None     # an empty body frame: allowed, but dropped, since some clients cannot read it

    def _take_header(self, channel: int, content: Content, kind: int, payload: bytes, frame: bytes) -> Command | None:
        if kind != HEADER:
            raise unexpected_frame(*content_due(content))
        if len(payload) < 14:
            raise ConnectionException(
                ReplyCode.FRAME_ERROR, f"{describe_frame(kind, payload)}: unknown_frame", method=(0, 0))
        class_id, weight, body_size = _content_header(payload)
        if class_id != BASIC:
            raise unexpected_frame(
                f"expected content header for class 60, got one for class {class_id} instead", (60, 40))
        if weight:
            raise unexpected_frame(*content_due(content))
        if body_size > HARD_BODY_LIMIT:
            raise ConnectionException(
                ReplyCode.FRAME_ERROR,
                f"content of {body_size} octets announced, at most {HARD_BODY_LIMIT} are possible", method=(60, 40))
        content.properties = payload[12:]
        content.body_size = content.missing = body_size
        if body_size > self._max_body_size:
            content.is_wanted = content.is_skipped = True
            return TooLarge(channel, body_size)
        if content.is_wanted:
            content.add(frame)
        return None if body_size else self._whole(channel, content)

    # Bodies

    def direct_room(self) -> memoryview | None:
        """Return where the socket may write the next octets itself, while most of a large body is still missing."""
        if not self.body_missing:
            return None
        content = self.by_channel[self._body_channel]
        left = content.left(self.body_missing)
        if content.is_skipped or left < LARGE_BODY:
            return None
        if len(content.frames) - content.filled < LARGE_BODY:
            self._make_room(content, left)
        room = content.room
        return room if len(room) >= LARGE_BODY else None

    def _make_room(self, content: Content, left: int) -> None:
        """Make room for as much as has arrived already, but not for much at once, since the room is filled with zeros.

        A small content gets more room ahead, as long as all connections together have little.
        """
        intake = self._intake
        intake.room_ahead -= content.room_ahead
        content.room_ahead = 0
        if content.filled < ROOM_AHEAD and intake.room_ahead < MOST_ROOM_AHEAD:
            content.room_ahead = min(left, ROOM_AHEAD)
            intake.room_ahead += content.room_ahead
        room = max(min(content.filled, MOST_ROOM), content.room_ahead)
        # A little more, if that completes the body: else everything would be moved again for the heads of its frames.
        content.grow(left if left - room < LARGE_BODY else room)

    def place(self, size: int) -> memoryview:
        """Return the octets that the socket has written into `direct_room`."""
        return self.by_channel[self._body_channel].room[:size]

    def is_body_due(self, octets: bytes, position: int) -> bool:
        """Return whether a body frame begins here and is in turn; its octets are then taken as they arrive.

        So a large body is copied once, straight into its content, even if it arrives in small pieces.
        """
        if len(octets) - position < 7:
            return False
        kind, channel, size = frame_head(octets, position)
        content = self.by_channel.get(channel)
        return kind == BODY and content is not None and content.properties is not None and 0 < size <= content.missing

    def begin_body_frame(self, octets: bytes | memoryview, position: int, frame_max: int) -> int:
        """Begin the body frame that is in turn. Return how many of its octets are not kept: its head, or none."""
        _, channel, size = frame_head(octets, position)
        content = self.by_channel[channel]
        self._body_channel = channel
        self.body_missing = size + FRAME_OVERHEAD
        if content.is_skipped:
            content.missing -= size
            return 0
        self._gathered += size
        self._intake.octets += size
        if self._gathered > self._gathered_limit:
            raise ConnectionException(
                ReplyCode.RESOURCE_ERROR,
                f"half-received contents of this connection exceed {self._gathered_limit} bytes "
                "(limits.incomplete_bodies_size)", method=(60, 40))
        is_first = content.missing == content.body_size
        if content.begin_frame(size, frame_max):
            self.body_missing -= 7
            return 7
        if is_first and (left := content.left(self.body_missing)) >= LARGE_BODY:
            self._make_room(content, left)
        return 0

    def take_body(
        self, data: bytes | memoryview, frame_max: int, *, is_in_place: bool = False
    ) -> tuple[int, Command | None]:
        """Take the octets of the incomplete body; return their number, and the command that they complete, if any.

        The rest of `data` begins with a frame, if there is a rest.
        """
        channel, begun, position, frames = self._body_channel, 0, 0, 0
        content = self.by_channel[channel]
        while True:
            piece = data[position : position + self.body_missing]
            if is_in_place:
                content.filled += len(piece)
            elif not content.is_skipped:
                content.add(piece)
            position += len(piece)
            self.body_missing -= len(piece)
            if self.body_missing:
                return begun + position, None
            if piece[-1] != FRAME_END:
                raise ConnectionException(
                    ReplyCode.FRAME_ERROR,
                    f"{describe_frame(BODY, b'')}: {{invalid_frame_end_marker,{piece[-1]}}}", method=(0, 0))
            if not content.missing:
                return begun + position, self._whole(channel, content)
            frames += 1
            if frames == MOST_FRAMES:
                return begun + position, Frames(channel, frames)
            if len(data) - position < 7:
                return begun + position, None
            kind, number, size = frame_head(data, position)
            if kind != BODY or number != channel or not 0 < size <= min(content.missing, frame_max):
                return begun + position, None
            not_kept = self.begin_body_frame(data, position, frame_max)
            position += not_kept
            if not_kept and is_in_place:
                # The octets that follow are no longer in their final place.
                data, begun, position, is_in_place = bytes(data[position:]), begun + position, 0, False

    def _whole(self, channel: int, content: Content) -> Command | None:
        del self.by_channel[channel]
        if not content.is_wanted:
            return Unwanted(channel)
        if content.is_skipped:
            return None
        self._gathered -= content.body_size
        self._intake.octets -= content.body_size
        self._intake.room_ahead -= content.room_ahead
        assert content.properties is not None
        return Publishes(channel, [(content.arguments, content.properties, content.body_size, [content.whole()])])

    # The end

    def skip(self) -> None:
        """Drop what has arrived of contents, and skip what is still to come of them."""
        for content in self.by_channel.values():
            self._intake.room_ahead -= content.room_ahead
            content.room_ahead = 0
            content.frames = bytearray()
            content.is_wanted = content.is_skipped = True
        self._intake.octets -= self._gathered
        self._gathered = 0

    def close(self) -> None:
        """Drop all contents: nothing more will arrive."""
        self.skip()
        self.by_channel.clear()
        self.body_missing = 0


def content_due(content: Content) -> tuple[str, tuple[int, int]]:
    """Return RabbitMQ's text for another frame where a part of this content is expected."""
    if content.properties is None:
        return "expected content header for class 60, got non content header frame instead", (60, 40)
    return "expected content body, got non content body frame instead", (60, 40)


def unexpected_frame(text: str, method: tuple[int, int] = (0, 0)) -> ConnectionException:
    """Return the exception that refuses an unexpected frame."""
    return ConnectionException(ReplyCode.UNEXPECTED_FRAME, text, method=method)
