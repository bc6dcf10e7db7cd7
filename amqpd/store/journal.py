"""What the broker recorded since the last commit: the batch that fills while another one is written.

Owns the numbers of batches, which rise from 1 by one. A record takes no time, and none can fail but by a mistake of
ours: nobody knows then whether it is whole, so nothing more is written, and the broker stops. When a batch is taken,
and what its number means to publishers, is for `server/committer.py`; how it is written, for the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amqpd.broker.definitions import Change, ExchangeDefinition, QueueDefinition
from amqpd.broker.hold import Hold, NoHold
from amqpd.message import Message
from amqpd.store.batch import Batch
from amqpd.store.body_writes import PART_BYTES, BodyQueue, BodyWrite
from amqpd.store.pending_confirms import PendingConfirms


class Journal:
    """The journal of a broker with a store: `broker.ports.Journal` on one side, batches on the other.

    Large bodies are written in parts of `part_bytes`, as the store counts them.
    """

    def __init__(self, *, part_bytes: int = PART_BYTES) -> None:
        self.pending_confirms = PendingConfirms()
        self.hold = Hold()
        self.bodies = BodyQueue(part_bytes=part_bytes)
        self.failure: Exception | None = None       # why nothing may be written any more
        self._filling = Batch(1)
        self._unfinished = 0        # vhosts

    @property
    def filling(self) -> Batch:
        """The batch that records join now, to look at."""
        return self._filling

    @property
    def batch(self) -> int:
        """The number of the batch that fills."""
        return self._filling.number

    def changed(self, change: Change) -> int:
        """Record a change of the definitions; of an exchange or queue that is not durable nothing is kept."""
        definition = change.definition
        if isinstance(definition, (ExchangeDefinition, QueueDefinition)) and not definition.durable:
            return 0
        try:
            self._filling.change(change)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def unfinished(self, is_unfinished: bool) -> int:
        """Record whether bindings are left in a vhost whose queue or exchange has been recorded as deleted."""
        self._unfinished += 1 if is_unfinished else -1
        try:
            self._filling.set_unfinished(self._unfinished)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def published(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> int:
        """Record that these persistent messages, whose numbers rise, are in this durable queue, and when they expire
        in it, if they do.

        A message of several durable queues has `holders` set before, and is recorded for each of them before
        the next batch is taken.
        """
        try:
            if self.bodies.to_be_recorded:
                self._note_written(run)
            self._filling.publish(queue, run, expiries)
            self.pending_confirms.published(queue.number, run)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def _note_written(self, run: Sequence[Message]) -> None:
        """Let the messages of this run whose bodies are in the store already have these."""
        for message in run:
            body = self.bodies.to_be_recorded.get(message.number)
            if body is not None:
                self._filling.written[message.number] = body
                body.note_recorded()

    def write_body(self, message: Message) -> BodyWrite:
        """Write the body of this message, which is about to be published, before the message is recorded."""
        return self.bodies.add(message)

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """Record how often these messages, back in this queue, have been delivered."""
        try:
            self._filling.requeue(queue, counts)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """Record that messages of this queue, up to this number, may have been handed out."""
        try:
            self._filling.watermark(queue, number)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """Record that the messages of these numbers have left this queue for good.

        `is_answered` says that a consumer has taken them over, so that nobody is owed them any more.
        """
        try:
            self._filling.settle(queue, numbers)
            if is_answered:
                self.pending_confirms.answered(queue.number, numbers)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def clock_set(self, behind_ms: int) -> int:
        """Record that the wall clock was set: how far the store's clock is behind it now."""
        try:
            self._filling.set_clock(behind_ms)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def fail(self, error: Exception) -> None:
        """Let no batch be written any more: memory may differ from what was recorded, by this mistake of ours."""
        self.failure = self.failure or error

    def take(self) -> Batch:
        """The batch so far, which nothing joins any more; the next one fills from now on."""
        batch = self._filling
        self._filling = Batch(batch.number + 1)
        self.pending_confirms.taken()
        self.hold.taken()
        return batch

    def nothing_waits(self) -> None:
        """Note that the batch that fills is empty, so that nobody need wait for it."""
        self.pending_confirms.nothing_waits()
        self.hold.taken()


class MemoryJournal:
    """The journal of a broker that keeps everything in memory: there is never anything to wait for."""

    batch = 0

    def __init__(self) -> None:
        self.hold = NoHold()

    def changed(self, change: Change) -> int:
        """Nothing is kept."""
        return 0

    def unfinished(self, is_unfinished: bool) -> int:
        """Nothing is kept."""
        return 0

    def published(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> int:
        """Nothing is kept."""
        return 0

    def write_body(self, message: Message) -> None:
        """Nothing is kept."""
        return None

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """Nothing is kept."""
        return 0

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """Nothing is kept."""
        return 0

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """Nothing is kept."""
        return 0

    def fail(self, error: Exception) -> None:
        """Nothing is kept that memory could differ from."""
