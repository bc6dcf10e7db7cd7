"""Octets in, commands out: cuts complete commands from the octets of a socket, and refuses invalid frames.

Owns the receive buffer of one connection. Knows frames and the layout of basic.publish, basic.ack and contents; every
other method is passed on undecoded. It does not know whether a channel is open or a queue exists.

Publishes and acks are the hot path, so they come in runs: see `publish_runs.py`. Incomplete contents are in
`contents.py`.

Always true between calls: at most one incomplete frame is kept, never more than `frame_max` octets of it.

Spec: §2.3.5, §4.2; the wording of refusals is RabbitMQ's (`rabbit_reader`, `rabbit_command_assembler`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator

from amqpd.erlang import describe_frame
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.message import FRAME_OVERHEAD
from amqpd.wire.commands import Acks, Command, Frames, Method, Publishes
from amqpd.wire.contents import (
    BASIC,
    BODY,
    FRAME_END,
    GATHERED_LIMIT,
    HEADER,
    MOST_FRAMES,
    Contents,
    Intake,
    content_due,
    frame_head,
    unexpected_frame,
)
from amqpd.wire.methods import shown
from amqpd.wire.publish_runs import METHOD, PUBLISH, PublishRuns, method_head

HEARTBEAT = 8
ACK = (BASIC << 16) | 80

_ack_head = struct.Struct(">BHII")
_acks = struct.Struct(">11sQBB")


def _all_wanted(channel: int, arguments: bytes) -> bool:
    """Want every publish."""
    return True


class Reader:
    """Cuts the commands of one connection. `frame_max` is raised to the negotiated value after tune-ok.

    `is_wanted` is called with channel and arguments when an incomplete publish begins. `gathered_limit` is how many
    octets of incomplete bodies are allowed, unless a single body may be larger.
    """

    def __init__(
        self, frame_max: int, max_body_size: int, open_channels: Container[int],
        is_wanted: Callable[[int, bytes], bool] = _all_wanted, intake: Intake | None = None,
        gathered_limit: int = GATHERED_LIMIT,
    ) -> None:
        self.frame_max = frame_max
        self._open_channels = open_channels
        self._is_wanted = is_wanted
        self._tail = bytearray()
        self._needed = 0
        self._contents = Contents(max_body_size, intake or Intake(), gathered_limit)
        self._publish_runs = PublishRuns(max_body_size)

    def commands(self, data: bytes | memoryview) -> Iterator[Command]:
        """Yield the commands that are complete with these octets, in order; the rest is kept for the next call.

        Lazily, so that a command can change how the next ones are checked. Raises ConnectionException at the first
        invalid octets, after everything before them has been yielded.
        """
        if self._contents.body_missing:
            taken, command = self._contents.take_body(data, self.frame_max)
            data = bytes(data[taken:])      # the caller may go on after the buffer has been reused
            if command is not None:
                yield command
        yield from self._commands(data)

    def skip_contents(self) -> None:
        """Drop what has arrived of contents, and skip what is still to come of them."""
        self._contents.skip()

    def close(self) -> None:
        """Drop all octets that have made no command: nothing more will arrive."""
        self._contents.close()
        self._tail.clear()
        self._publish_runs.clear()
        self._is_wanted = _all_wanted

    @property
    def is_inside_content(self) -> bool:
        """Whether a content is incomplete."""
        return bool(self._contents.by_channel)

    def direct_room(self) -> memoryview | None:
        """Return where the socket may write the next octets itself, while most of a large body is still missing.

        Then `direct_commands` takes the place of `commands`.
        """
        return self._contents.direct_room()

    def direct_commands(self, size: int) -> Iterator[Command]:
        """Do as `commands`, after the socket has written that many octets into `direct_room`."""
        data = self._contents.place(size)
        taken, command = self._contents.take_body(data, self.frame_max, is_in_place=True)
        others = bytes(data[taken:])
        del data
        if command is not None:
            yield command
        yield from self._commands(others)

    def _commands(self, data: bytes | memoryview) -> Iterator[Command]:
        octets, contents = self._with_tail(data), self._contents
        by_channel = contents.by_channel
        position = frames = 0
        while octets is not None:
            if frames >= MOST_FRAMES:
                yield Frames(0, frames)
                frames = 0
            try:
                kind, channel, size, method = method_head(octets, position)
            except struct.error:
                kind = method = 0       # shorter than a method: a heartbeat, or incomplete
            if kind == METHOD and method == PUBLISH and channel not in by_channel:
                groups, position = self._publish_runs.cut(octets, position, channel, self.frame_max)
                if groups:
                    yield Publishes(channel, groups)
                    continue
            elif kind == METHOD and method == ACK and channel not in by_channel and size == 13:
                tags, position = self._acks(octets, position, channel)
                if tags:
                    yield Acks(channel, tags)
                    continue
            stop = self._frame_stop(octets, position)
            if (stop is None or octets[stop - 1] == FRAME_END) and contents.is_body_due(octets, position):
                position += contents.begin_body_frame(octets, position, self.frame_max)
                taken, command = contents.take_body(memoryview(octets)[position:], self.frame_max)
                position += taken
                if contents.body_missing:
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
        """Return the kept octets and the new ones together, or None while the first frame is still incomplete."""
        if not self._tail:
            return bytes(data)
        self._tail += data
        if len(self._tail) < self._needed:
            return None
        octets = bytes(self._tail)
        self._tail.clear()
        return octets

    def _acks(self, octets: bytes, position: int, channel: int) -> tuple[list[tuple[int, int]], int]:
        """Return the complete acks in a row from here on, and where they end."""
        head = _ack_head.pack(METHOD, channel, 13, ACK)
        stop = position + (len(octets) - position) // _acks.size * _acks.size
        tags: list[tuple[int, int]] = []
        for front, tag, multiple, end in _acks.iter_unpack(memoryview(octets)[position:stop]):
            if front != head or end != FRAME_END:
                break
            tags.append((tag, multiple & 1))
        return tags, position + len(tags) * _acks.size

    def _frame_stop(self, octets: bytes, position: int) -> int | None:
        """Return where the frame at `position` ends, or None if it is incomplete; `_needed` is then set to its size."""
        if len(octets) - position < 7:
            self._needed = 7
            return None
        kind, _, size = frame_head(octets, position)
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

    def _frame(self, octets: bytes, position: int, stop: int) -> Command | None:
        """Take one frame by itself; return the command that it completes, if any."""
        kind, channel, size = frame_head(octets, position)
        payload = octets[position + 7 : stop - 1]
        if octets[stop - 1] != FRAME_END:
            raise ConnectionException(
                ReplyCode.FRAME_ERROR,
                f"{describe_frame(kind, shown(payload))}: {{invalid_frame_end_marker,{octets[stop - 1]}}}",
                method=(0, 0),
            )
        if kind == METHOD:
            return self._method(channel, payload)
        if kind == HEARTBEAT and not payload:
            if channel != 0:
                raise unexpected_frame(describe_frame(kind, payload))
            return None
        if kind not in (HEADER, BODY):
            raise ConnectionException(
                ReplyCode.FRAME_ERROR, f"{describe_frame(kind, payload)}: unknown_frame", method=(0, 0))
        if channel == 0:
            raise unexpected_frame(describe_frame(kind, payload))
        content = self._contents.by_channel.get(channel)
        if content is None:
            if channel not in self._open_channels:
                return Method(channel, payload)
            raise unexpected_frame("expected method frame, got non method frame instead")
        return self._contents.take_frame(channel, content, kind, payload, octets[position:stop])

    def _method(self, channel: int, payload: bytes) -> Command | None:
        content = self._contents.by_channel.get(channel)
        if content is not None:
            raise unexpected_frame(*content_due(content))
        if payload[:4] != PUBLISH.to_bytes(4, "big") or channel not in self._open_channels:
            return Method(channel, payload)
        arguments = payload[4:]
        self._contents.begin(channel, arguments, is_wanted=self._is_wanted(channel, arguments))
        return None
