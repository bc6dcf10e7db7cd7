"""Fetch messages by their numbers while the broker runs, and set those aside that turn out to be damaged."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from amqpd.broker.queue.segment import number_of
from amqpd.message import Message
from amqpd.store.sqlite.block_index import BlockIndex
from amqpd.store.sqlite.body_parts import BodyParts
from amqpd.store.sqlite.counts import MessageCounts
from amqpd.store.sqlite.database import Database
from amqpd.store.sqlite.places import queues_of
from amqpd.store.rows.listing import listed
from amqpd.store.rows.reading import MessageReader
from amqpd.store.sqlite.reading import fetch
from amqpd.store.sqlite.recovery import set_aside
from amqpd.wording import counted

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

    def fetch(self, numbers: Sequence[int]) -> list[Message]:
        """Return the messages of these numbers, which rise, in order; without damaged ones. Raises StoreError."""
        with self._database.guarded() as connection:
            in_blocks, single = self._blocks.split(numbers)
            messages, damaged = fetch(connection, self._reader, single)
            damaged_blocks = []
            for first, bits in in_blocks.items():
                found = self._reader.read_block(first, *self._blocks.read(first)[1:], bits)
                messages += found
                if len(found) < bits.bit_count():
                    damaged_blocks.append(first)
        if damaged or damaged_blocks:
            self._set_aside(damaged, damaged_blocks)
        if damaged_blocks:
            messages += self._fetch_single_rows(sorted({*numbers}.difference([m.number for m in messages], damaged)))
        if len(in_blocks) + bool(single) > 1:
            messages.sort(key=number_of)
        return messages

    def _fetch_single_rows(self, numbers: list[int]) -> list[Message]:
        """Fetch messages of damaged blocks that were not damaged themselves, and now have rows of their own."""
        with self._database.guarded() as connection:
            messages, damaged = fetch(connection, self._reader, numbers)
        if damaged:
            self._set_aside(damaged, [])
        return messages

    def _set_aside(self, damaged: list[int], damaged_blocks: list[int]) -> None:
        """Move these messages, and what is damaged of these blocks, to the table `damaged`."""
        now, before = int(time.time()), self._counts.damaged
        with self._database.transaction() as connection:
            queues = queues_of(connection, damaged, damaged_blocks)
            set_aside(connection, damaged, now)
            self._parts.leave(damaged)
            for first in damaged_blocks:
                self._blocks.dissolve(first, now, self._reader.can_read)
            self._blocks.write()
            self._counts.count(connection)
        self.warn_of_damage(self._counts.damaged - before, queues)

    def warn_of_damage(self, count: int, queues: Sequence[str]) -> None:
        """Log that messages were set aside, if any were."""
        if count:
            logger.warning(
                "%s%s will not be delivered: moved to the table 'damaged' of %s", counted(count, "damaged message"),
                f" of {listed(queues)}" if queues else "", self._database.path)
