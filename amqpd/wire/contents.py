"""Half-received contents of one connection: headers and bodies on their way in, frame by frame.

A content on its way in costs what has come of it, and not what was announced: its place grows to twice of what is
there at most, but for a little that all connections share. Many small body frames are kept as few larger ones. A large
body is copied once, straight into its content, however small the pieces are that it arrives in; most of it the socket
itself writes there.

Always true between calls:
- a channel is in `by_channel` exactly while a content has begun on it and is not whole;
- `_gathered` is the octets of body in `by_channel`, those of a frame that is on its way in included, and has been
  counted in `intake`.

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
LARGE_BODY = 64 * 1024                  # octets still to come, from which on the socket writes them into their place
GATHERED_LIMIT = 64 * 1024 * 1024       # octets of half-received contents on one connection
ROOM_AHEAD = 1024 * 1024                # octets that are made room for before they come, for one content
MOST_ROOM = 4 * 1024 * 1024             # octets that are made room for at once: a few milliseconds
MOST_ROOM_AHEAD = 16 * 1024 * 1024      # and for all contents of all connections
SMALL_FRAME = 4_096 - FRAME_OVERHEAD    # octets of body; what is kept as a smaller frame takes in the next ones
MOST_FRAMES = 1_000                     # in a row without a command, until `Frames` tells of them

frame_head = struct.Struct(">BHI").unpack_from
_content_header = struct.Struct(">HHQ").unpack_from
_size_at = struct.Struct(">I").pack_into


class Intake:
    """What all connections together have half received. `octets` are of bodies, `room_ahead` those not even begun."""

    def __init__(self) -> None:
        self.octets = 0
        self.room_ahead = 0


class Content:
    """A content on its way in, frame by frame."""

    __slots__ = ("arguments", "is_wanted", "properties", "body_size", "missing", "is_skipped", "frames", "filled",
                 "room_ahead", "_frame_at", "_frame_size")

    def __init__(self, arguments: bytes, *, is_wanted: bool) -> None:
        self.arguments = arguments
        self.is_wanted = is_wanted
        self.properties: bytes | None = None
        self.body_size = 0
        self.missing = 0                # octets of body that no frame has announced yet
        self.is_skipped = not is_wanted
        self.frames = bytearray()       # header frame and body frames, as far as `filled`
        self.filled = 0
        self.room_ahead = 0             # counted in the intake
        self._frame_at = 0              # where the last body frame that is kept begins
        self._frame_size = 0            # and its octets of body; 0 without one

    def begin_frame(self, size: int, frame_max: int) -> bool:
        """A body frame of this size begins. Return whether the one before takes it in: then its head is not kept."""
        self.missing -= size
        if 0 < self._frame_size < SMALL_FRAME and self._frame_size + size <= frame_max - FRAME_OVERHEAD:
            self._frame_size += size
            _size_at(self.frames, self._frame_at + 3, self._frame_size)
            self.filled -= 1            # the end octet of the one before
            return True
        self._frame_at, self._frame_size = self.filled, size
        return False

    def left(self, frame_missing: int) -> int:
        """Return the octets that are still to come, if its frames go on as large as this one, and none is taken in."""
        frame_size = max(self._frame_size, SMALL_FRAME)
        return frame_missing + self.missing + -(-self.missing // frame_size) * FRAME_OVERHEAD

    def grow(self, room: int) -> None:
        """Make room for so many octets, if it is worth while. What is there already stays where it is, as a rule."""
        if room < LARGE_BODY:
            return
        if self.filled < LARGE_BODY:        # to move that costs less than to put so many zeros behind it
            frames = bytearray(self.filled + room)
            frames[: self.filled] = memoryview(self.frames)[: self.filled]
            self.frames = frames
            return
        more = bytes(self.filled + room - len(self.frames))
        try:
            self.frames += more
        except BufferError:         # somebody still has a view of it
            self.frames = bytearray(memoryview(self.frames)[: self.filled]) + bytes(room)

    def add(self, piece: bytes | memoryview) -> None:
        """Take octets of its frames."""
        stop = self.filled + len(piece)
        self.frames[self.filled : stop] = piece
        self.filled = stop

    @property
    def room(self) -> memoryview:
        """Where the next octets of its frames belong, in room that was made for them."""
        return memoryview(self.frames)[self.filled :]

    def whole(self) -> bytes:
        """Header frame and body frames. Nobody changes a large one any more: its bytearray serves as it is."""
        if self.body_size >= LARGE_BODY and self.filled == len(self.frames):
            return cast(bytes, self.frames)
        return bytes(memoryview(self.frames)[: self.filled])


class Contents:
    """What has come of the contents that are not whole yet.

    `body_missing` are the octets that a body frame still lacks of which a part has come, its end octet included; 0
    without one. Bodies of at most `gathered_limit` octets, or one of `max_body_size`, may be half received.
    """

    def __init__(self, max_body_size: int, intake: Intake, gathered_limit: int) -> None:
        self.by_channel: dict[int, Content] = {}
        self.body_missing = 0
        self._max_body_size = max_body_size
        self._intake = intake
        self._gathered = 0
        self._gathered_limit = max(gathered_limit, max_body_size)
        self._body_channel = 0      # of the body frame that is coming in piece by piece

    # A content begins

    def begin(self, channel: int, arguments: bytes, *, is_wanted: bool) -> None:
        """A publish has come whose content is not whole; one that is not wanted is skipped."""
        self.by_channel[channel] = Content(arguments, is_wanted=is_wanted)

    def take_frame(self, channel: int, content: Content, kind: int, payload: bytes, frame: bytes) -> Command | None:
        """Take a frame of a content that is no body frame in turn: its header, or an empty body frame.

        Raises ConnectionException for anything else.
        """
        if content.properties is None:
            return self._take_header(channel, content, kind, payload, frame)
        if kind != BODY or len(payload) > content.missing:
            raise unexpected_frame(*content_due(content))
        return None     # an empty one: allowed, but some clients cannot read it, so it does not travel on

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
        """Return where the socket may write the next octets itself, while most of a large body is still to come."""
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
        """Make room for as much as is there already, but not much at once, since it is filled with zeros first.

        Where little is there, room is made for more, while that is little in all.
        """
        intake = self._intake
        intake.room_ahead -= content.room_ahead
        content.room_ahead = 0
        if content.filled < ROOM_AHEAD and intake.room_ahead < MOST_ROOM_AHEAD:
            content.room_ahead = min(left, ROOM_AHEAD)
            intake.room_ahead += content.room_ahead
        room = max(min(content.filled, MOST_ROOM), content.room_ahead)
        # A little more, if that is all of it: else everything would be moved again for the heads of its frames.
        content.grow(left if left - room < LARGE_BODY else room)

    def place(self, size: int) -> memoryview:
        """Return the octets that the socket has written into `direct_room`."""
        return self.by_channel[self._body_channel].room[:size]

    def is_body_due(self, octets: bytes, position: int) -> bool:
        """Return whether a body frame begins here and is in turn; its octets are then taken as they come.

        So a large body is copied once, straight into its content, however small the pieces it arrives in.
        """
        if len(octets) - position < 7:
            return False
        kind, channel, size = frame_head(octets, position)
        content = self.by_channel.get(channel)
        return kind == BODY and content is not None and content.properties is not None and 0 < size <= content.missing

    def begin_body_frame(self, octets: bytes | memoryview, position: int, frame_max: int) -> int:
        """Begin a body frame that is due. Return how many of its octets are not kept: its head, or none."""
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
                f"half-received contents of this connection exceed {self._gathered_limit} octets", method=(60, 40))
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
        """Take what belongs to the body that is coming in: how much that was, and the command it makes, if any.

        What it leaves begins with a frame, unless it takes all.
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
                # What follows does not stand where it belongs any more.
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
        """Forget what has come of contents, and keep nothing that is still to come of them."""
        for content in self.by_channel.values():
            self._intake.room_ahead -= content.room_ahead
            content.room_ahead = 0
            content.frames = bytearray()
            content.is_wanted = content.is_skipped = True
        self._intake.octets -= self._gathered
        self._gathered = 0

    def close(self) -> None:
        """Forget all of them: nothing more will come."""
        self.skip()
        self.by_channel.clear()
        self.body_missing = 0


def content_due(content: Content) -> tuple[str, tuple[int, int]]:
    """Return what RabbitMQ says when something else comes where a part of this content is due."""
    if content.properties is None:
        return "expected content header for class 60, got non content header frame instead", (60, 40)
    return "expected content body, got non content body frame instead", (60, 40)


def unexpected_frame(text: str, method: tuple[int, int] = (0, 0)) -> ConnectionException:
    """Return the refusal of a frame that is not due."""
    return ConnectionException(ReplyCode.UNEXPECTED_FRAME, text, method=method)
