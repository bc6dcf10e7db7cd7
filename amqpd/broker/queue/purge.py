"""Drop all ready messages of a queue, in slices. Spec: queue.purge."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from amqpd.broker.queue.pages import Cleared, OnDisk, Page
from amqpd.broker.queue.records import QueueRecords
from amqpd.broker.worklist import PIECE, Waiters, Worklist
from amqpd.message import Message


class Purge:
    """A purge in progress: the `count` of messages, and the journal's batch that makes it durable, or 0."""

    def __init__(self, count: int, worklist: Worklist) -> None:
        self.count = count
        self.batch = 0
        self.is_done = False
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when it is done

    def settle_in_pieces(self, removed: Cleared, records: QueueRecords) -> Iterator[None]:
        """Settle these messages, which have left the queue, in slices."""
        missing, done = self.count, 0
        try:
            for piece in chain.from_iterable(map(_pieces_of, removed)):
                if isinstance(piece, OnDisk):
                    done += len(piece.numbers)
                    batch = records.settled_on_disk(piece)
                else:
                    done += len(piece)
                    batch = records.settled(piece)
                self.batch = max(self.batch, batch)
                if done >= PIECE and missing > done:
                    missing, done = missing - done, 0
                    yield
        finally:
            self.is_done = True
            self._waiters.release()


def _pieces_of(part: list[Message] | Page) -> Iterator[list[Message] | OnDisk]:
    """Yield messages that have left the FIFO a piece at a time, so that each piece can be freed."""
    if isinstance(part, Page):
        numbers = part.on_disk.numbers
        for start in range(0, len(numbers), PIECE):
            yield OnDisk(numbers[start : start + PIECE], part.spill_file)
        return
    while part:
        piece = part[-PIECE:]
        del part[-PIECE:]
        yield piece
