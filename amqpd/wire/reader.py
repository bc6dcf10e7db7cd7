"""Octets in, commands out: cuts whole commands from what a socket gave, and refuses what is not a frame.

Owns the receive buffer and half-received contents of one connection. Knows frames and the layout of
basic.publish, basic.ack and contents; every other method it hands on as it stands. It does not know whether
a channel is open or a queue exists.

Publishes and acks are the hot path, so they come in runs: publishers mostly repeat themselves, and a publish
whose frames up to the body equal those of the one before costs one comparison instead of a parse.

A content on its way in costs what has come of it, and not what was announced: its place grows to twice of what is
there at most, but for a little that all connections share. Many small body frames are kept as few larger ones.

Always true between calls:
- at most one incomplete frame is kept, never more than `frame_max` octets of it;
- a channel is in `_contents` exactly while a content has begun on it and is not whole;
- `_gathered` is the octets of body in `_contents`, those of a frame that is on its way in included, and has been
  counted in `intake`.

Spec: §2.3.5, §4.2; the wording of refusals is RabbitMQ's (`rabbit_reader`, `rabbit_command_assembler`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator
from typing import NamedTuple, cast

from amqpd.erlang import describe_frame
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.message import FRAME_OVERHEAD, HARD_BODY_LIMIT

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
BASIC = 60
PUBLISH = (BASIC << 16) | 40
ACK = (BASIC << 16) | 80
CONTENT_CLASS = BASIC << 16             # class 60 and weight 0, read as one number
MOST_MISSES = 4                         # heads in a row that were not repeated; then nobody looks until the next read
MOST_HEADS = 256                        # remembered on a connection
LARGE_BODY = 64 * 1024                  # octets still to come, from which on the socket writes them into their place
GATHERED_LIMIT = 64 * 1024 * 1024       # octets of half-received contents on one connection
ROOM_AHEAD = 1024 * 1024                # octets that are made room for before they come, for one content
MOST_ROOM = 4 * 1024 * 1024             # octets that are made room for at once: a few milliseconds
MOST_ROOM_AHEAD = 16 * 1024 * 1024      # and for all contents of all connections
SMALL_FRAME = 4_096 - FRAME_OVERHEAD    # octets of body; what is kept as a smaller frame takes in the next ones
MOST_FRAMES = 1_000                     # in a row without a command, until `Frames` tells of them

_frame_head = struct.Struct(">BHI").unpack_from
_method_head = struct.Struct(">BHII").unpack_from
_content_head = struct.Struct(">BBHIIQ").unpack_from     # from the end octet of the method frame on
_body_head = struct.Struct(">BBHI").unpack_from          # from the end octet of the header frame on
_content_header = struct.Struct(">HHQ").unpack_from
_ack_head = struct.Struct(">BHII")
_acks = struct.Struct(">11sQBB")
_ack_arguments = struct.Struct(">QB")
_size_at = struct.Struct(">I").pack_into


# Publishes in a row with equal method arguments, equal properties and equally long bodies: the octets of the
# arguments from the ticket on, those of the properties, the size of a body, and the content frames of each.
PublishGroup = tuple[bytes, bytes, int, list[bytes]]


class Publishes(NamedTuple):
    """A run of whole publishes on one channel."""

    channel: int
    groups: list[PublishGroup]


class Acks(NamedTuple):
    """A run of basic.ack on one channel: delivery tag and the `multiple` bit of each."""

    channel: int
    tags: list[tuple[int, int]]


class Method(NamedTuple):
    """Any other method, not yet decoded."""

    channel: int
    payload: bytes


class TooLarge(NamedTuple):
    """A content over `max_body_size` was announced; its body frames will be skipped."""

    channel: int
    body_size: int


class Unwanted(NamedTuple):
    """A publish is whole that was not wanted when it began: its content has not been kept."""

    channel: int


class Frames(NamedTuple):
    """So many frames have been read and make no command yet: nothing is to be done but to count the work."""

    channel: int
    total: int


Command = Publishes | Acks | Method | TooLarge | Unwanted | Frames


class Intake:
    """What all connections together have half received. `octets` are of bodies, `room_ahead` those not even begun."""

    def __init__(self) -> None:
        self.octets = 0
        self.room_ahead = 0


# What follows from the octets of a content's head: its properties, the size of its body, and its length.
_Head = tuple[bytes, int, int]
# The same for a whole publish: its channel, method frame and arguments, and what follows for its content.
_Turn = tuple[int, bytes, bytes, bytes, int, int]


class _Content:
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


def _all_wanted(channel: int, arguments: bytes) -> bool:
    """Every publish is wanted."""
    return True


class Reader:
    """Cuts the commands of one connection. `frame_max` is raised to what was negotiated after tune-ok.

    `is_wanted` is asked, by channel and arguments, when a publish begins that is not whole.
    """

    def __init__(
        self, frame_max: int, max_body_size: int, open_channels: Container[int],
        is_wanted: Callable[[int, bytes], bool] = _all_wanted, intake: Intake | None = None,
    ) -> None:
        self.frame_max = frame_max
        self.max_body_size = max_body_size
        self._open_channels = open_channels
        self._is_wanted = is_wanted
        self._intake = intake or Intake()
        self._tail = bytearray()
        self._needed = 0
        self._heads: dict[bytes, _Head] = {}        # of contents
        self._turns: dict[bytes, _Turn] = {}        # heads of whole publishes that take turns
        self._remembers = True
        self._repeats = 0           # contents whose head was remembered, since the heads were last forgotten
        self._contents: dict[int, _Content] = {}
        self._gathered = 0
        self._body_channel = 0      # of the body frame that is coming in piece by piece
        self._body_missing = 0      # octets it still lacks, end octet included; 0 if there is none

    def commands(self, data: bytes | memoryview) -> Iterator[Command]:
        """The commands that are whole with these octets, in order; what is left waits for the next call.

        Lazily, so that a command can change what the next ones are held against. Raises ConnectionException
        at the place where the octets stop making sense; everything before it has been handed out by then.
        """
        if self._body_missing:
            taken, command = self._body_pieces(data)
            data = bytes(data[taken:])      # whoever asked may go on later, when the buffer has been used again
            if command is not None:
                yield command
        yield from self._commands(data)

    def skip_contents(self) -> None:
        """Forget what has come of contents, and keep nothing that is still to come of them."""
        for content in self._contents.values():
            self._intake.room_ahead -= content.room_ahead
            content.room_ahead = 0
            content.frames = bytearray()
            content.is_wanted = content.is_skipped = True
        self._intake.octets -= self._gathered
        self._gathered = 0

    def close(self) -> None:
        """Forget all that has come and made no command: nothing more will come."""
        self.skip_contents()
        self._contents.clear()
        self._tail.clear()
        self._heads.clear()
        self._turns.clear()
        self._body_missing = 0
        self._is_wanted = _all_wanted

    @property
    def is_inside_content(self) -> bool:
        """Whether a content has begun and is not whole."""
        return bool(self._contents)

    def direct_room(self) -> memoryview | None:
        """Where the socket may write the next octets itself, while most of a large body is still to come.

        Then `direct_commands` takes the place of `commands`.
        """
        if not self._body_missing:
            return None
        content = self._contents[self._body_channel]
        left = content.left(self._body_missing)
        if content.is_skipped or left < LARGE_BODY:
            return None
        if len(content.frames) - content.filled < LARGE_BODY:
            self._make_room(content, left)
        room = content.room
        return room if len(room) >= LARGE_BODY else None

    def _make_room(self, content: _Content, left: int) -> None:
        """Make room for as much as is there already, but not much at once, since it is filled with zeros first.

        Where little is there, room is made for more, while that is little in all.
        """
        intake = self._intake
        intake.room_ahead -= content.room_ahead
        content.room_ahead = 0
        if content.filled < ROOM_AHEAD and intake.room_ahead < MOST_ROOM_AHEAD:
            content.room_ahead = min(left, ROOM_AHEAD)
            intake.room_ahead += content.room_ahead
        content.grow(min(left, max(min(content.filled, MOST_ROOM), content.room_ahead)))

    def direct_commands(self, size: int) -> Iterator[Command]:
        """As `commands`, after the socket has written that many octets into `direct_room`."""
        content = self._contents[self._body_channel]
        data = content.room[:size]
        taken, command = self._body_pieces(data, is_in_place=True)
        others = bytes(data[taken:])
        del data
        if command is not None:
            yield command
        yield from self._commands(others)

    def _commands(self, data: bytes | memoryview) -> Iterator[Command]:
        octets = self._with_tail(data)
        position = frames = 0
        while octets is not None:
            if frames >= MOST_FRAMES:
                yield Frames(0, frames)
                frames = 0
            try:
                kind, channel, size, method = _method_head(octets, position)
            except struct.error:
                kind = method = 0       # shorter than a method: a heartbeat, or not whole yet
            if kind == METHOD and method == PUBLISH and channel not in self._contents:
                groups, position = self._publishes(octets, position, channel)
                if groups:
                    yield Publishes(channel, groups)
                    continue
            elif kind == METHOD and method == ACK and channel not in self._contents and size == 13:
                tags, position = self._acks(octets, position, channel)
                if tags:
                    yield Acks(channel, tags)
                    continue
            stop = self._frame_stop(octets, position)
            if (stop is None or octets[stop - 1] == FRAME_END) and self._is_body_due(octets, position):
                position += self._begin_body_frame(octets, position)
                taken, command = self._body_pieces(memoryview(octets)[position:])
                position += taken
                if self._body_missing:
                    return
            elif stop is None:
                self._tail += memoryview(octets)[position:]
                return
            else:
                command = self._frame(octets, position, stop)
                position = stop
            if command is None:
                frames += 1
            else:
                yield command

    def _with_tail(self, data: bytes | memoryview) -> bytes | None:
        """What was left before and what came now, or None while the frame at the front is still not whole."""
        if not self._tail:
            return bytes(data)
        self._tail += data
        if len(self._tail) < self._needed:
            return None
        octets = bytes(self._tail)
        self._tail.clear()
        return octets

    def _publishes(self, octets: bytes, position: int, channel: int) -> tuple[list[PublishGroup], int]:
        """The whole publishes in a row from here on, and where they end.

        Stops without complaint at anything else, an error included: the frames are then looked at one by one.
        """
        groups: list[PublishGroup] = []
        limit, misses = self.frame_max, 0
        frame = arguments = b""     # of the publish before
        heads, turns = self._heads, self._turns
        try:
            while True:
                if frame and octets.startswith(frame, position):
                    header = position + len(frame)
                else:
                    kind, number, size, method = _method_head(octets, position)
                    if method != PUBLISH or number != channel or kind != METHOD or size > limit:
                        break
                    header = position + size + FRAME_OVERHEAD
                    frame = octets[position:header]
                    arguments = frame[11:-1]
                # The header frame and the head of the body frame, if as long as the first octets say: seen before?
                key = octets[header - 1 : header + 15 + octets[header + 6]]
                known = heads.get(key)
                if known is None:
                    known = self._head(octets, header, channel)
                    if known is None:
                        break
                    self._remember(key, known)
                else:
                    self._repeats += 1
                properties, body_size, length = known
                stop = header + length
                if octets[stop - 1] != FRAME_END:
                    break
                contents = [octets[header:stop]]
                groups.append((arguments, properties, body_size, contents))
                if misses > MOST_MISSES:
                    # Heads that take turns are mostly equally long: then one look tells all of a publish.
                    head = octets[position : stop - body_size - 1]
                    if body_size and self._remembers:
                        if len(turns) >= MOST_HEADS:
                            turns.clear()
                        turns[head] = channel, frame, arguments, properties, body_size, length
                    size, position = len(head), stop
                    while (turn := turns.get(octets[position : position + size])) is not None and turn[0] == channel:
                        _, frame, arguments, properties, body_size, length = turn
                        header = position + len(frame)
                        stop = header + length
                        if octets[stop - 1] != FRAME_END:
                            break
                        groups.append((arguments, properties, body_size, [octets[header:stop]]))
                        position = stop
                    continue
                # The whole publish again, but for its body? Then a comparison is all it takes.
                head = octets[position : stop - body_size - 1 if body_size else stop]
                length, header = stop - position, header - position
                position = stop
                misses += 1
                while octets.startswith(head, position):
                    stop = position + length
                    if octets[stop - 1] != FRAME_END:
                        break
                    contents.append(octets[position + header : stop])
                    position = stop
                    misses = 0
        except (struct.error, IndexError):
            pass        # the last one is not whole yet
        return groups, position

    def _head(self, octets: bytes, header: int, channel: int) -> _Head | None:
        """What a content of at most one body frame is made of, from where its header frame begins.

        None where it is not one, or is wrong; struct.error where it is not whole yet.
        """
        end, kind, number, header_size, class_id, body_size = _content_head(octets, header - 1)
        if (end != FRAME_END or kind != HEADER or number != channel or class_id != CONTENT_CLASS
                or not 14 <= header_size <= self.frame_max or body_size > self.max_body_size):
            return None
        body = header + header_size + FRAME_OVERHEAD
        length = body - header
        if body_size:
            end, kind, number, size = _body_head(octets, body - 1)
            if (end != FRAME_END or kind != BODY or number != channel or size != body_size
                    or size > self.frame_max):
                return None
            length += size + FRAME_OVERHEAD
        return octets[header + 19 : body - 1], body_size, length

    def _remember(self, key: bytes, head: _Head) -> None:
        """Note the head of a content; a publisher whose heads are never the same again is not asked any more."""
        properties, body_size, _ = head
        if not body_size or len(key) != len(properties) + 28 or not self._remembers:
            return
        if len(self._heads) == MOST_HEADS:
            self._heads.clear()
            self._remembers = self._repeats >= MOST_HEADS
            self._repeats = 0
        self._heads[key] = head

    def _acks(self, octets: bytes, position: int, channel: int) -> tuple[list[tuple[int, int]], int]:
        """The whole acks in a row from here on, and where they end."""
        head = _ack_head.pack(METHOD, channel, 13, ACK)
        stop = position + (len(octets) - position) // _acks.size * _acks.size
        tags: list[tuple[int, int]] = []
        for front, tag, multiple, end in _acks.iter_unpack(memoryview(octets)[position:stop]):
            if front != head or end != FRAME_END:
                break
            tags.append((tag, multiple & 1))
        return tags, position + len(tags) * _acks.size

    def _frame_stop(self, octets: bytes, position: int) -> int | None:
        """Where the frame at `position` ends, or None if it is not whole; `_needed` then says how much it takes."""
        if len(octets) - position < 7:
            self._needed = 7
            return None
        kind, _, size = _frame_head(octets, position)
        if size > self.frame_max:
            raise ConnectionException(
                ReplyCode.FRAME_ERROR,
                f"{describe_frame(kind, b'')}: {{frame_too_large,{size},{self.frame_max - FRAME_OVERHEAD}}}",
                method=(0, 0),
            )
        self._needed = size + FRAME_OVERHEAD
        if len(octets) - position < self._needed:
            return None
        return position + self._needed

    def _is_body_due(self, octets: bytes, position: int) -> bool:
        """Return whether a body frame begins here and is in turn; its octets are then taken as they come.

        So a large body is copied once, straight into its content, however small the pieces it arrives in.
        """
        if len(octets) - position < 7:
            return False
        kind, channel, size = _frame_head(octets, position)
        content = self._contents.get(channel)
        return kind == BODY and content is not None and content.properties is not None and 0 < size <= content.missing

    def _begin_body_frame(self, octets: bytes | memoryview, position: int) -> int:
        """Begin a body frame that is due. Return how many of its octets are not kept: its head, or none."""
        _, channel, size = _frame_head(octets, position)
        content = self._contents[channel]
        self._body_channel = channel
        self._body_missing = size + FRAME_OVERHEAD
        if content.is_skipped:
            content.missing -= size
            return 0
        self._gathered += size
        self._intake.octets += size
        limit = max(GATHERED_LIMIT, self.max_body_size)
        if self._gathered > limit:
            raise ConnectionException(
                ReplyCode.RESOURCE_ERROR, f"half-received contents of this connection exceed {limit} octets",
                method=(60, 40))
        is_first = content.missing == content.body_size
        if content.begin_frame(size, self.frame_max):
            self._body_missing -= 7
            return 7
        if is_first and (left := content.left(self._body_missing)) >= LARGE_BODY:
            self._make_room(content, left)
        return 0

    def _body_pieces(
        self, data: bytes | memoryview, *, is_in_place: bool = False
    ) -> tuple[int, Command | None]:
        """Take what belongs to the body that is coming in: how much that was, and the command it makes, if any.

        What it leaves begins with a frame, unless it takes all.
        """
        channel, begun, position, frames = self._body_channel, 0, 0, 0
        content = self._contents[channel]
        while True:
            piece = data[position : position + self._body_missing]
            if is_in_place:
                content.filled += len(piece)
            elif not content.is_skipped:
                content.add(piece)
            position += len(piece)
            self._body_missing -= len(piece)
            if self._body_missing:
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
            kind, number, size = _frame_head(data, position)
            if kind != BODY or number != channel or not 0 < size <= min(content.missing, self.frame_max):
                return begun + position, None
            not_kept = self._begin_body_frame(data, position)
            position += not_kept
            if not_kept and is_in_place:
                # What follows does not stand where it belongs any more.
                data, begun, position, is_in_place = bytes(data[position:]), begun + position, 0, False

    def _frame(self, octets: bytes, position: int, stop: int) -> Command | None:
        """One frame by itself; the command it completes, if any."""
        kind, channel, size = _frame_head(octets, position)
        payload = octets[position + 7 : stop - 1]
        if octets[stop - 1] != FRAME_END:
            raise ConnectionException(
                ReplyCode.FRAME_ERROR,
                f"{describe_frame(kind, payload)}: {{invalid_frame_end_marker,{octets[stop - 1]}}}",
                method=(0, 0),
            )
        if kind == METHOD:
            return self._method(channel, payload)
        if kind == HEARTBEAT and not payload:
            if channel != 0:
                raise _unexpected(describe_frame(kind, payload))
            return None
        if kind not in (HEADER, BODY):
            raise ConnectionException(
                ReplyCode.FRAME_ERROR, f"{describe_frame(kind, payload)}: unknown_frame", method=(0, 0))
        if channel == 0:
            raise _unexpected(describe_frame(kind, payload))
        content = self._contents.get(channel)
        if content is None:
            if channel not in self._open_channels:
                return Method(channel, payload)
            raise _unexpected("expected method frame, got non method frame instead")
        if content.properties is None:
            return self._content_header(channel, content, kind, payload, octets[position:stop])
        if kind != BODY or size > content.missing:
            raise _unexpected(*_due(content))
        return None     # an empty one: allowed, but some clients cannot read it, so it does not travel on

    def _method(self, channel: int, payload: bytes) -> Command | None:
        content = self._contents.get(channel)
        if content is not None:
            raise _unexpected(*_due(content))
        if payload[:4] != PUBLISH.to_bytes(4, "big") or channel not in self._open_channels:
            return Method(channel, payload)
        arguments = payload[4:]
        self._contents[channel] = _Content(arguments, is_wanted=self._is_wanted(channel, arguments))
        return None

    def _content_header(
        self, channel: int, content: _Content, kind: int, payload: bytes, frame: bytes
    ) -> Command | None:
        if kind != HEADER:
            raise _unexpected(*_due(content))
        if len(payload) < 14:
            raise ConnectionException(
                ReplyCode.FRAME_ERROR, f"{describe_frame(kind, payload)}: unknown_frame", method=(0, 0))
        class_id, weight, body_size = _content_header(payload)
        if class_id != BASIC:
            raise _unexpected(
                f"expected content header for class 60, got one for class {class_id} instead", (60, 40))
        if weight:
            raise _unexpected(*_due(content))
        if body_size > HARD_BODY_LIMIT:
            raise ConnectionException(
                ReplyCode.FRAME_ERROR,
                f"content of {body_size} octets announced, at most {HARD_BODY_LIMIT} are possible", method=(60, 40))
        content.properties = payload[12:]
        content.body_size = content.missing = body_size
        if body_size > self.max_body_size:
            content.is_wanted = content.is_skipped = True
            return TooLarge(channel, body_size)
        if content.is_wanted:
            content.add(frame)
        return None if body_size else self._whole(channel, content)

    def _whole(self, channel: int, content: _Content) -> Command | None:
        del self._contents[channel]
        if not content.is_wanted:
            return Unwanted(channel)
        if content.is_skipped:
            return None
        self._gathered -= content.body_size
        self._intake.octets -= content.body_size
        self._intake.room_ahead -= content.room_ahead
        assert content.properties is not None
        return Publishes(channel, [(content.arguments, content.properties, content.body_size, [content.whole()])])


def _due(content: _Content) -> tuple[str, tuple[int, int]]:
    """What RabbitMQ says when something else comes where a part of this content is due."""
    if content.properties is None:
        return "expected content header for class 60, got non content header frame instead", (60, 40)
    return "expected content body, got non content body frame instead", (60, 40)


def _unexpected(text: str, method: tuple[int, int] = (0, 0)) -> ConnectionException:
    return ConnectionException(ReplyCode.UNEXPECTED_FRAME, text, method=method)
