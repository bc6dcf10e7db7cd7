"""Fetch messages by their numbers while the broker runs, and set those aside that turn out to be damaged."""

from __future__ import annotations

import logging
import time
from binascii import crc32
from collections.abc import Sequence
from typing import cast

import psycopg

from amqpd.broker.queue.segment import number_of
from amqpd.message import Message, content_of_pieces
from amqpd.store.postgres.block_index import BlockIndex
from amqpd.store.postgres.body_parts import BodyParts
from amqpd.store.postgres.counts import MessageCounts
from amqpd.store.postgres.database import Database
from amqpd.store.postgres.places import queues_of
from amqpd.store.postgres.recovery import set_aside
from amqpd.store.postgres.texts import numbers as listed_numbers
from amqpd.store.rows.listing import listed
from amqpd.store.rows.message_rows import checksum_of_parts
from amqpd.store.rows.reading import CHANNEL, FRAME_MAX, MessageReader, Parts
from amqpd.wording import counted

# The size of a body in parts stands in place of the body.
_SELECT = """
    SELECT number, exchange, routing_key, properties, checksum, body, body_id, body_size FROM message_rows
    WHERE number = ANY(%s::bigint[]) ORDER BY number"""

logger = logging.getLogger(__name__)


class MessageFetcher:
    """Fetches messages from single rows and from message blocks."""

    def __init__(
        self, database: Database, blocks: BlockIndex, parts: BodyParts, reader: MessageReader, counts: MessageCounts
    ) -> None:
        self._database = database
        self._blocks = blocks
        self._parts = parts
        self._reader = reader
        self._counts = counts

    def fetch(self, wanted: Sequence[int]) -> list[Message]:
        """Return the messages of these numbers, which rise, in order; without damaged ones. Raises StoreError."""
        in_blocks, single = self._blocks.split(wanted)
        messages, damaged = self._fetch_single_rows(single)
        damaged_blocks = []
        for first, bits in in_blocks.items():
            found = self._reader.read_block(first, *self._blocks.read(first)[1:], bits)
            messages += found
            if len(found) < bits.bit_count():
                damaged_blocks.append(first)
        if damaged or damaged_blocks:
            self._set_aside(damaged, damaged_blocks)
        if damaged_blocks:      # what is sound there has rows of its own now
            left = sorted({*wanted}.difference([message.number for message in messages], damaged))
            more, damaged = self._fetch_single_rows(left)
            messages += more
            if damaged:
                self._set_aside(damaged, [])
        if len(in_blocks) + bool(single) > 1:
            messages.sort(key=number_of)
        return messages

    def _fetch_single_rows(self, wanted: Sequence[int]) -> tuple[list[Message], list[int]]:
        if not wanted:
            return [], []
        bodies: dict[int, int] = {}
        rows = []
        for number, exchange, key, properties, checksum, body, body_id, size in self._database.read(
                _SELECT, (listed_numbers(wanted),)):
            if body_id is not None:
                bodies[number], body = body_id, size
            rows.append((number, exchange, key, properties, checksum, body))

        def read_large(
            number: int, properties: bytes, size: int, sum_before: int, checksum: int
        ) -> tuple[bytes, Parts | None]:
            return self._read_parts(bodies[number], properties, size, sum_before, checksum)

        return self._reader.read_rows(rows, read_large, psycopg.Error)

    def _read_parts(
        self, body_id: int, properties: bytes, size: int, sum_before: int, checksum: int
    ) -> tuple[bytes, Parts | None]:
        parts = self._parts.read(body_id)
        checksums = [*map(crc32, parts)]
        if sum(map(len, parts)) != size or checksum_of_parts(sum_before, checksums) != checksum:
            raise ValueError("parts of the body are missing or damaged")
        body, at = memoryview(b"".join(parts)), 0

        def read(count: int) -> bytes:
            nonlocal at
            at += count
            return bytes(body[at - count : at])

        return cast(bytes, content_of_pieces(CHANNEL, FRAME_MAX, properties, size, read)), (body_id, checksums)

    def _set_aside(self, damaged: list[int], damaged_blocks: list[int]) -> None:
        """Move these messages, and what is damaged of these blocks, to the table `damaged`."""
        now, before = int(time.time()), self._counts.damaged
        queues = queues_of(self._database, damaged, damaged_blocks)
        statements = set_aside(damaged, now)
        for first in damaged_blocks:
            statements += self._blocks.dissolve(first, now, self._reader.can_read)[0]
        self._database.run([*statements, *self._blocks.write()])
        self._parts.leave(damaged)
        self._counts.count()
        self.warn_of_damage(self._counts.damaged - before, queues)

    def warn_of_damage(self, count: int, queues: Sequence[str]) -> None:
        """Log that messages were set aside, if any were."""
        if count:
            logger.warning(
                "%s%s will not be delivered: moved to the table 'damaged' of %s", counted(count, "damaged message"),
                f" of {listed(queues)}" if queues else "", self._database.address.place)
