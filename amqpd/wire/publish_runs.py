"""Cuts publishes in a row with as little work as possible, since most publishers repeat themselves.

A publish whose frames up to the body equal those of the previous one costs one comparison instead of a parse, and heads
that alternate cost one dictionary look-up. Anything unexpected is left to the reader, frame by frame.

Spec: basic.publish, §4.2.6.
"""

from __future__ import annotations

import struct

from amqpd.message import FRAME_OVERHEAD
from amqpd.wire.commands import PublishGroup
from amqpd.wire.contents import BASIC, BODY, FRAME_END, HEADER

METHOD = 1
PUBLISH = (BASIC << 16) | 40
CONTENT_CLASS = BASIC << 16             # class 60 and weight 0, read as one number
MOST_MISSES = 4                         # heads in a row that did not repeat; then no cache until the next read
MOST_HEADS = 256                        # cached for one connection

method_head = struct.Struct(">BHII").unpack_from
_content_head = struct.Struct(">BBHIIQ").unpack_from     # from the end octet of the method frame
_body_head = struct.Struct(">BBHI").unpack_from          # from the end octet of the header frame

# What follows from the octets of a content's head: its properties, the size of its body, its length, and its channel.
_Head = tuple[bytes, int, int, int]
# The same for a whole publish: its channel, method frame and arguments, and what follows for its content.
_Turn = tuple[int, bytes, bytes, bytes, int, int]


class PublishRuns:
    """Cuts the complete publishes of one connection."""

    def __init__(self, max_body_size: int) -> None:
        self.max_body_size = max_body_size
        self._heads: dict[bytes, _Head] = {}        # of contents
        self._turns: dict[bytes, _Turn] = {}        # heads of whole publishes that alternate
        self._remembers = True
        self._repeats = 0           # contents whose head was cached, since the cache was last cleared

    def cut(
        self, octets: bytes, position: int, channel: int, frame_max: int
    ) -> tuple[list[PublishGroup], int]:
        """Return the complete publishes in a row from here on, and where they end.

        Stops without an error at anything else, also at an invalid frame: the reader then takes frames one by one.
        """
        groups: list[PublishGroup] = []
        misses = 0
        frame = arguments = b""     # of the previous publish
        heads, turns = self._heads, self._turns
        try:
            while True:
                if frame and octets.startswith(frame, position):
                    header = position + len(frame)
                else:
                    kind, number, size, method = method_head(octets, position)
                    if method != PUBLISH or number != channel or kind != METHOD or size > frame_max:
                        break
                    header = position + size + FRAME_OVERHEAD
                    frame = octets[position:header]
                    arguments = frame[11:-1]
                # Is the header frame with the head of the body frame cached, if it is as long as the first octets say?
                key = octets[header - 1 : header + 15 + octets[header + 6]]
                known = heads.get(key)
                if known is None or known[3] != channel:    # the content may be on another channel than the method
                    known = self._head(octets, header, channel, frame_max)
                    if known is None:
                        break
                    self._remember(key, known)
                else:
                    self._repeats += 1
                properties, body_size, length, _ = known
                stop = header + length
                if octets[stop - 1] != FRAME_END:
                    break
                contents = [octets[header:stop]]
                groups.append((arguments, properties, body_size, contents))
                if misses > MOST_MISSES:
                    # Heads that alternate mostly have equal lengths: then one look-up identifies a whole publish.
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
                # The same publish again, except for its body? Then one comparison is enough.
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
            pass        # the last one is incomplete
        return groups, position

    def _head(self, octets: bytes, header: int, channel: int, frame_max: int) -> _Head | None:
        """Return the head of a content with at most one body frame, from the beginning of its header frame.

        None if it is another frame or invalid; struct.error if it is incomplete.
        """
        end, kind, number, header_size, class_id, body_size = _content_head(octets, header - 1)
        if (end != FRAME_END or kind != HEADER or number != channel or class_id != CONTENT_CLASS
                or not 14 <= header_size <= frame_max or body_size > self.max_body_size):
            return None
        body = header + header_size + FRAME_OVERHEAD
        length = body - header
        if body_size:
            end, kind, number, size = _body_head(octets, body - 1)
            if (end != FRAME_END or kind != BODY or number != channel or size != body_size
                    or size > frame_max):
                return None
            length += size + FRAME_OVERHEAD
        return octets[header + 19 : body - 1], body_size, length, channel

    def _remember(self, key: bytes, head: _Head) -> None:
        """Cache the head of a content; a publisher whose heads never repeat is no longer cached."""
        properties, body_size, _, _ = head
        if not body_size or len(key) != len(properties) + 28 or not self._remembers:
            return
        if len(self._heads) == MOST_HEADS:
            self._heads.clear()
            self._remembers = self._repeats >= MOST_HEADS
            self._repeats = 0
        self._heads[key] = head

    def clear(self) -> None:
        """Clear the cache."""
        self._heads.clear()
        self._turns.clear()
