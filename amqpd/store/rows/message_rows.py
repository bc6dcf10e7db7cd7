"""Messages as rows of the table `message_rows`, and their checksums.

Owns which columns hold what. A message whose row is in the store is read back by `reading.py`.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce

import msgspec

from amqpd.message import BODY_OFFSET_IN_HEADER_FRAME, FRAME_OVERHEAD, Message, StoredBody, StoredMessage
from amqpd.store.batch import QueueChanges

BODY_PIECE = 256 << 10      # bytes of it at once

MessageRow = tuple[int, "int | None", str, str, bytes, bytes, int]
EntryRow = tuple[int, int]
State = tuple["int | None", int]

MESSAGE_COLUMNS = ("number", "queue", "exchange", "routing_key", "properties", "body", "checksum")
ENTRY_COLUMNS = ("queue", "number")
PARTS_COLUMNS = ("body_id", "body_size")        # of a message whose body is in parts
STATE_COLUMNS = ("expires_at", "deliveries")     # of a message in a queue; most have neither


class LargeBody(msgspec.Struct, gc=False):
    """A body that is never put together: it is written into its row in pieces. See `statements.insert_large`."""

    message: Message

    @property
    def size(self) -> int:
        """Return its bytes."""
        return self.message.body_size

    def pieces(self) -> Iterator[memoryview]:
        """Return it in order."""
        return self.message.body_pieces(BODY_PIECE)


LargeRow = tuple[int, "int | None", str, str, bytes, LargeBody | StoredBody, int]

_CHECKSUM = struct.Struct(">I")
sizes_at = struct.Struct(">3xI4xQ").unpack_from      # of a header frame: its payload's, and the body's


def names_of(exchange: bytes, routing_key: bytes) -> bytes:
    """Return both as short strings. Raises TypeError, ValueError if one of them cannot be a short string."""
    return bytes((len(exchange),)) + exchange + bytes((len(routing_key),)) + routing_key


def _add_to_checksum(checksum: int, piece: memoryview) -> int:
    return crc32(piece, checksum)


def checksum_of(exchange: bytes, routing_key: bytes, properties: bytes, body: bytes) -> int:
    """Return the checksum of a message with a row of its own. Raises ValueError for names that are too long."""
    return crc32(body, crc32(properties, crc32(names_of(exchange, routing_key))))


def checksum_of_parts(before: int, checksums: Iterable[int]) -> int:
    """Return the checksum of a message whose body is in parts: `before` is that of its names and properties."""
    return crc32(b"".join(map(_CHECKSUM.pack, checksums)), before)


def message_rows(
    published: Mapping[int, Mapping[int, Message]], large_body: int
) -> tuple[list[MessageRow], list[LargeRow], list[EntryRow]]:
    """Return the rows of messages, which are given by queue and number, those with large bodies, and the entries.

    A message has one row, and an entry for each queue if it is in several. A body is large if it has more than
    `large_body` bytes, or is in the store already.
    """
    rows: list[MessageRow] = []
    large: list[LargeRow] = []
    entries: list[EntryRow] = []
    shared: dict[int, Message] = {}
    for queue, pending in published.items():
        several = [message for message in pending.values() if message.holders]
        single = [m for m in pending.values() if not m.holders] if several else pending.values()
        rows += _rows_of(single, queue, large, large_body)
        shared.update([(message.number, message) for message in several])
        entries += [(queue, message.number) for message in several]
    rows += _rows_of(shared.values(), None, large, large_body)
    return rows, large, entries


def size_of_large(rows: Iterable[LargeRow]) -> int:
    """Return how many bytes of bodies are to be written with these."""
    return sum([body.size for _, _, _, _, _, body, _ in rows if isinstance(body, LargeBody)])


def with_states(
    rows: Iterable[MessageRow], large: Iterable[LargeRow], entries: Iterable[EntryRow],
    queues: Mapping[int, QueueChanges],
) -> tuple[list[tuple[*MessageRow, *State]], list[tuple[*LargeRow, *State]], list[tuple[*EntryRow, *State]]]:
    """Return the same rows with STATE_COLUMNS as well, from what a batch does to these queues."""

    def state_of(queue: int | None, number: int) -> State:
        if queue is None:       # in several: its entries have them
            return None, 0
        changes = queues[queue]
        return changes.expiries.get(number), changes.deliveries.get(number, 0)

    return (
        [(*row, *state_of(row[1], row[0])) for row in rows], [(*row, *state_of(row[1], row[0])) for row in large],
        [(*entry, *state_of(*entry)) for entry in entries])


def _rows_of(
    messages: Iterable[Message], queue: int | None, large: list[LargeRow], large_body: int
) -> list[MessageRow]:
    """Return the rows of these messages; those of large ones go into `large`."""
    rows: list[MessageRow] = []
    last_route = last_properties = None
    for message in messages:
        content, route = message.content, message.route
        size, body_size = sizes_at(content)
        properties = content[BODY_OFFSET_IN_HEADER_FRAME : size + 7]
        if route is not last_route or properties != last_properties:    # most are as the one before them
            sum_before = crc32(properties, crc32(route.packed_names))
            last_route, last_properties = route, properties
        if body_size > large_body or isinstance(message, StoredMessage):
            large.append((message.number, queue, route.exchange, route.routing_key, properties, *(
                (message.stored_body, checksum_of_parts(sum_before, message.stored_body.checksums))
                if isinstance(message, StoredMessage) else
                (LargeBody(message), reduce(_add_to_checksum, message.body_pieces(BODY_PIECE), sum_before)))))
            continue
        is_in_one = len(content) - size - 8 - FRAME_OVERHEAD == body_size       # frame
        body = content[size + 7 + FRAME_OVERHEAD : -1] if is_in_one else message.body
        rows.append((
            message.number, queue, route.exchange, route.routing_key, properties, body, crc32(body, sum_before)))
    return rows
