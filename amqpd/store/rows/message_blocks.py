"""Several messages in one row: what a block of them is, how its row is made, and how it is read.

A row a message costs several times what the message is worth to the disk. So those that one batch brings to one
queue share rows, as far as nothing has to be known of each: no expiry, no priority, no other queue. A block is written
once. What becomes of its messages stands beside it, in a few bytes of flags, until all have left.

A block has a head for each message, in the order of their numbers, and then what was published:
- `heads`: for each, in big-endian bytes: its number less that of the first (2), where its record begins in
  `contents` (4), the bytes of exchange (1), routing key (1), properties (2) and body (4), and the CRC-32 of
  its record (4), which starts from the first of these numbers;
- `contents`: the records, each of exchange and routing key as short strings, then the header frame and the body
  frame, if there is one, as they came. So a delivery needs no more than a slice of it;
- `flags`: by number less that of the first a byte each: `+` if it waits, `R` if it has been with somebody too,
  `-` if it has left, or never was there. They differ in two bits at least; any other byte is taken for `+`.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Container, Iterator, Mapping
from itertools import pairwise

import msgspec

from amqpd.message import BODY_OFFSET_IN_HEADER_FRAME, FRAME_OVERHEAD, Message
from amqpd.store.rows.message_rows import checksum_of, sizes_at

FEWEST = 16                 # messages of a block: fewer get rows of their own
SPAN = 1_024                # of the numbers of a block
MOST_BYTES = 32 << 10       # of its contents, about: a view reads all of them for each message
LARGEST = 2 << 10           # bytes of a message in a block


class BlockLimits(msgspec.Struct, frozen=True):
    """From when on messages share a row, and how many: `span` is of their numbers, `most_bytes` about of the contents.

    A `span` beyond SPAN could not be read back.
    """

    fewest: int = FEWEST
    span: int = SPAN
    most_bytes: int = MOST_BYTES


HEAD = struct.Struct(">HIBBHII")
_PLACE_AND_SIZE = struct.Struct(">H8xI4x")

# Bytes of flags, and the digits of a number that has a bit for each message.
_TO_FLAGS = bytes.maketrans(b"01", b"-+")
_WAITING = bytes(48 + (byte != ord("-")) for byte in range(256))
_REDELIVERED = bytes(48 + (byte == ord("R")) for byte in range(256))

BlockRow = tuple[int, int, int, int, int, bytes, bytes]
BLOCK_COLUMNS = ("first", "last", "queue", "count", "bytes", "heads", "contents")


def pack_blocks(
    queue: int, messages: Mapping[int, Message], marked: Container[int], limits: BlockLimits = BlockLimits()
) -> tuple[list[BlockRow], Mapping[int, Message]]:
    """Return the rows of blocks of these messages, which are given by number, and those that need rows of their own.

    Of `marked` messages something else is to be kept.
    """
    fewest, span, most_bytes = limits.fewest, limits.span, limits.most_bytes
    rows: list[BlockRow] = []
    if len(messages) < fewest:
        return rows, messages
    single: dict[int, Message] = {}
    block: list[Message] = []
    heads: list[bytes] = []
    records: list[bytes] = []
    first = size = body_bytes = 0

    def end_block() -> None:
        if len(block) >= fewest:
            rows.append((first, block[-1].number, queue, len(block), body_bytes, b"".join(heads), b"".join(records)))
        else:
            single.update([(message.number, message) for message in block])
        for column in (block, heads, records):
            column.clear()

    for number, message in sorted(messages.items()):
        content, names = message.content, message.route.packed_names
        payload, body_size = sizes_at(content)
        frames = FRAME_OVERHEAD + payload + (FRAME_OVERHEAD + body_size if body_size else 0)
        if (frames > LARGEST or frames != len(content)      # not in one frame
                or message.holders or message.facts.priority or number in marked):
            single[number] = message
            continue
        if size >= most_bytes or number - first >= span or not block:
            end_block()
            first, size, body_bytes = number, 0, 0
        record = names + content
        block.append(message)
        records.append(record)
        exchange_size, place = names[0], number - first
        heads.append(HEAD.pack(
            place, size, exchange_size, len(names) - 2 - exchange_size, payload - 12, body_size,
            crc32(record, place)))
        size += len(record)
        body_bytes += body_size
    end_block()
    return rows, single


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of a block, taken apart; of one that is not sound anything may be wrong."""

    place: int
    exchange: bytes
    routing_key: bytes
    properties: bytes
    body: bytes
    checksum: int
    is_sound: bool

    @property
    def row_checksum(self) -> int:
        """The checksum it has in a row of its own; of what is not sound the one that does not fit."""
        return checksum_of(
            self.exchange, self.routing_key, self.properties, self.body) if self.is_sound else self.checksum


def records_of(heads: bytes, contents: bytes) -> Iterator[Record]:
    """Return the messages of a block, sound and damaged ones."""
    for place, start, exchange_size, key_size, properties_size, size, checksum in iter_heads(heads):
        names_end = start + exchange_size + key_size + 2
        properties_end = names_end + BODY_OFFSET_IN_HEADER_FRAME + properties_size
        end = properties_end + (1 + FRAME_OVERHEAD + size if size else 1)
        is_sound = crc32(contents[start:end], place) == checksum and are_sizes_of(
            contents[start:properties_end], exchange_size, key_size, properties_size, size)
        yield Record(
            place, contents[start + 1 : start + 1 + exchange_size], contents[names_end - key_size : names_end],
            contents[properties_end - properties_size : properties_end],
            contents[end - 1 - size : end - 1] if size else b"", checksum, is_sound)


def taken_apart(
    first: int, heads: bytes, contents: bytes, waiting: int, redelivered: int
) -> Iterator[tuple[int, Record, int]]:
    """Yield the messages of a damaged block, with their numbers and whether they have been delivered.

    The number of a damaged message may be damaged too, so it is computed from the message's place in the block.
    """
    for at, record in enumerate(records_of(heads, contents)):
        if not record.is_sound:
            yield first + at, record, 0
        elif waiting >> record.place & 1:
            yield first + record.place, record, redelivered >> record.place & 1


def iter_heads(heads: bytes) -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Iterate over the fields of each head, without an incomplete one at the end."""
    return HEAD.iter_unpack(heads[: len(heads) // HEAD.size * HEAD.size])


def are_sizes_of(
    before_body: bytes, exchange_size: int, key_size: int, properties_size: int, body_size: int
) -> bool:
    """Return whether the sizes in a head are those of the record itself, up to the end of the properties."""
    at = exchange_size + key_size + 2
    return (before_body[0], before_body[1 + exchange_size], *sizes_at(before_body, at)) == (
        exchange_size, key_size, properties_size + 12, body_size)


def places_and_sizes(heads: bytes) -> list[tuple[int, int]]:
    """Return for each message, in order, its number minus that of the first, and the size of its body in bytes.

    Raises ValueError for heads that no block can have.
    """
    if not heads or len(heads) % HEAD.size:
        raise ValueError("there are no such heads")
    found = list(_PLACE_AND_SIZE.iter_unpack(heads))
    if found[0][0] or found[-1][0] >= SPAN or any(one[0] >= next_[0] for one, next_ in pairwise(found)):
        raise ValueError("its numbers do not rise")
    return found


# Flags, and the same as numbers that have a bit for each message

def pack_flags(waiting: int, redelivered: int) -> bytes:
    """Return the flags of the messages that wait, some of which have been delivered."""
    flags = bytearray(f"{waiting:b}".encode()[::-1].translate(_TO_FLAGS))
    at = 0
    while redelivered >> at:
        if redelivered >> at & 1:
            flags[at] = ord("R")
        at += 1
    return bytes(flags)


def unpack_flags(flags: bytes) -> tuple[int, int]:
    """Return which messages wait, and which have been delivered, as bits."""
    digits = flags[::-1] or b"-"
    return int(digits.translate(_WAITING), 2), int(digits.translate(_REDELIVERED), 2)
