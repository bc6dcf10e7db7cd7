"""The state of a queue's messages besides their order: expiries, redelivery, counts, and what the journal recorded.

Owns the number of unacked messages of the queue, and of those that the store keeps. A message that leaves the queue for
good is settled here, for whatever reason: it is forgotten in memory and, if it is kept on disk, in the journal.

Always true between calls: the journal has recorded `kept_on_disk` messages as published and not as settled. After the
deletion has been recorded, nothing more is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amqpd.broker.arguments import type_of_queue
from amqpd.broker.clock import Clock
from amqpd.broker.counts import Totals, Values
from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.ports import Journal, PageStore
from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.pages import OnDisk
from amqpd.broker.queue.redelivery import Redelivery
from amqpd.broker.queue.statistics import QueueCounts
from amqpd.broker.queue.watermark import DeliveryWatermark
from amqpd.message import Message, reference_to


class QueueRecords:
    """The records of one queue. Methods that record return the journal's batch, or 0 if nothing is written."""

    __slots__ = (
        "definition", "counts", "totals", "queue_type", "deadlines", "redelivery", "watermark", "unacked",
        "has_released", "kept_on_disk", "is_closed", "_journal", "_clock", "_page_store")

    def __init__(
        self, definition: QueueDefinition, journal: Journal, clock: Clock, page_store: PageStore,
        totals: Totals | None = None,
    ) -> None:
        self.definition = definition
        self.counts = QueueCounts()
        self.totals = totals or Totals()        # of the vhost
        self.queue_type = type_of_queue(definition.arguments)
        self.deadlines = Deadlines()
        self.redelivery = Redelivery()
        self.watermark = DeliveryWatermark(definition, journal, page_store) if definition.durable else None
        self.unacked = 0            # messages that consumers and basic.get have not answered
        self.has_released = False   # whether the content of an unacked message has ever been released
        self.kept_on_disk = 0       # messages of the queue, ready or not, that the store keeps or will keep
        self.is_closed = False      # the deletion of the queue is recorded
        self._journal = journal
        self._clock = clock
        self._page_store = page_store

    # What is counted

    def tell_delivered(self) -> Values:
        """Add to the totals of the vhost what was delivered since the last call; return the counts of the queue."""
        return self.counts.tell(self.totals, self.queue_type)

    def count_dropped(self, reason: str, strategy: str, count: int) -> None:
        """Count messages that the queue dropped for this reason; `strategy` is RabbitMQ's name of what becomes of them.
        """
        self.counts.dropped[reason] += count
        self.totals.add_dropped(self.queue_type, reason, strategy, count)

    # What is kept

    def keeps(self, message: Message) -> bool:
        """Return whether this queue keeps the message on disk."""
        return self.definition.durable and message.facts.persistent

    def kept(self, run: Iterable[Message]) -> list[Message]:
        """Return those of these messages that this queue keeps on disk."""
        return [message for message in run if message.facts.persistent] if self.definition.durable else []

    def is_stored(self, message: Message) -> bool:
        """Return whether the message is committed, so that it can be fetched from the store."""
        return self.keeps(message) and message.number <= self._page_store.safe_number

    def release(self, message: Message) -> Message | None:
        """Return a reference to an unacked message whose content is on disk; None if it is not on disk yet."""
        if not self.is_stored(message):
            return None
        if self.deadlines:
            self.deadlines.release(message)
        self.has_released = True
        return reference_to(message)

    def batch_of(self, run: Iterable[Message]) -> int:
        """Return the current batch if any of these is kept on disk, else 0."""
        return self._journal.batch if self.kept(run) else 0

    @property
    def current_batch(self) -> int:
        """The journal's current batch, or 0."""
        return self._journal.batch

    def restore(
        self, numbers: Sequence[int], redelivered: set[int], redelivered_to: int, deliveries: Mapping[int, int]
    ) -> None:
        """Restore, at start, the numbers of the stored messages, in order, and their earlier deliveries."""
        self.redelivery.restore(redelivered, redelivered_to, deliveries)
        self.kept_on_disk += len(numbers)
        if self.watermark is not None and numbers:
            self.watermark.restore(redelivered_to, numbers[-1])

    # What is recorded

    def published(self, run: Sequence[Message], expiries: Mapping[Message, int]) -> int:
        """Record a run of new messages; `expiries` are in ms of the broker's clock."""
        if self.watermark is None:
            return 0
        kept = [message for message in run if message.facts.persistent]
        if not kept:
            return 0
        self.watermark.published(kept[-1].number)
        self.kept_on_disk += len(kept)
        stored = None
        if expiries:
            to_stored = self._clock.to_stored
            stored = {message.number: to_stored(expiries[message]) for message in kept if message in expiries}
        return self._journal.published(self.definition, kept, stored)

    def requeued(self, run: Sequence[Message]) -> None:
        """Count and record one more failed delivery of these."""
        self.redelivery.count_failures(run)
        deliveries = self.redelivery.deliveries
        counts = {message.number: deliveries[message.number] for message in self.kept(run)}
        if counts and not self.is_closed:
            self._journal.requeued(self.definition, counts)

    def settled(self, run: Sequence[Message], *, is_answered: bool = False) -> int:
        """Remove messages for good; `is_answered` says that a consumer has acked them."""
        if self.is_closed:
            return 0
        self.counts.settled += len(run)
        if self.redelivery.numbers:
            self.redelivery.forget([message.number for message in run])
        if self.deadlines:
            self.deadlines.forget(run)
        if self.watermark is None:
            return 0
        return self._record_settled(
            [message.number for message in run if message.facts.persistent], is_answered=is_answered)

    def settled_on_disk(self, on_disk: OnDisk) -> int:
        """Remove for good messages that were on disk, and have left the FIFO."""
        if on_disk.spill_file is not None:
            on_disk.spill_file.forget(on_disk.numbers)
        if self.is_closed:
            return 0
        self.counts.settled += len(on_disk.numbers)
        if self.redelivery.numbers:
            self.redelivery.forget(on_disk.numbers)
        return self._record_settled(on_disk.stored)

    def _record_settled(self, numbers: list[int], *, is_answered: bool = False) -> int:
        if not numbers or not self.definition.durable:
            return 0
        self.kept_on_disk -= len(numbers)
        return self._journal.settled(self.definition, numbers, is_answered=is_answered)

    # The end

    def close(self) -> None:
        """Stop recording: the deletion of the queue is recorded."""
        self.is_closed = True

    def let_go(self) -> list[list[Any] | dict[Any, Any] | set[Any]]:
        """Return collections that may be very large, and that a deleted queue does not need."""
        return [*self.deadlines.let_go(), self.redelivery.numbers, self.redelivery.deliveries]

    def check(self, ready: Iterable[Message]) -> None:
        """Assert what must hold between calls; `ready` are the messages in memory."""
        self.deadlines.check(ready)
        assert self.kept_on_disk >= sum(map(self.keeps, ready)), "more is on disk than is known of"
