"""Record the broker's changes in a batch, which fills while the batch before it is written.

Owns the numbers of batches: 1, 2, 3 and so on. Recording takes no time, and fails only because of a bug. Then the batch
may be incomplete, so nothing more is written, and the broker stops. `server/committer.py` decides when a batch is
taken, and tells publishers that it is committed; the store writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amqpd.broker.audit_entry import AuditEntry
from amqpd.broker.deferral import Deferral, NoDeferral
from amqpd.broker.definitions import Change, Deleted, ExchangeDefinition, QueueDefinition
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
        self.deferral = Deferral(self._join_deferred)
        self.first_deferred: int | None = None      # the lowest number of a message whose record is deferred
        self.bodies = BodyQueue(part_bytes=part_bytes)
        self.failure: Exception | None = None       # the error after which nothing may be written
        self.watermark_count = 0
        self._filling = Batch(1)
        self._deferred = Batch(0)   # no batch of its own: its records will join one
        self._unfinished = 0        # vhosts

    @property
    def filling(self) -> Batch:
        """The batch that is being filled; callers only read it."""
        return self._filling

    @property
    def batch(self) -> int:
        """The number of the batch that is being filled."""
        return self._filling.number

    def changed(self, change: Change) -> int:
        """Record a change of the definitions; a queue or exchange that is not durable is not recorded."""
        definition = change.definition
        if isinstance(definition, (ExchangeDefinition, QueueDefinition)) and not definition.durable:
            return 0
        try:
            self._filling.change(change)
            if self.deferral.is_open and isinstance(change, Deleted):
                self._deferred.forget(change)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def audited(self, entry: AuditEntry) -> int:
        """Record an entry of the audit log."""
        try:
            self._filling.audit(entry)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def unfinished(self, is_unfinished: bool) -> int:
        """Record whether a vhost still has bindings of a queue or exchange whose deletion has been recorded."""
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
        """Record that these persistent messages are in this durable queue, with the expiries of those that expire.

        Message numbers rise. The `holders` of a message of several durable queues are set before this call, and the
        message is recorded for all of these queues before the next batch is taken.
        """
        try:
            if self.deferral.is_on:
                self._deferred.publish(queue, run, expiries)
                first = run[0].number
                self.first_deferred = first if self.first_deferred is None else min(first, self.first_deferred)
            else:
                self._filling.publish(queue, run, expiries)
                self.pending_confirms.published(queue.number, run)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def write_body(self, message: Message) -> BodyWrite:
        """Begin to write the body of this message before the message is published and recorded."""
        return self.bodies.add(message)

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """Record the delivery counts of messages that were requeued."""
        try:
            if self.deferral.is_open:
                counts = self._requeue_deferred(queue, counts)
            if counts:
                self._filling.requeue(queue, counts)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """Record that messages of this queue up to this number may have been delivered."""
        self.watermark_count += 1
        try:
            self._filling.watermark(queue, number)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """Record that the messages of these numbers have left this queue for good.

        `is_answered` says that a consumer has acked them, so that they may be confirmed to their publishers early.
        """
        try:
            if self.deferral.is_on:
                self._deferred.settle(queue, numbers)
            elif not self.deferral.is_open:
                self._filling.settle(queue, numbers)
            elif left := self._deferred.withdraw(queue, numbers):
                self._filling.settle(queue, left)
            if is_answered:
                self.pending_confirms.answered(queue.number, numbers)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def _requeue_deferred(self, queue: QueueDefinition, counts: Mapping[int, int]) -> Mapping[int, int]:
        """Defer those of these counts that must be; return the others."""
        deferred = self._deferred
        if self.deferral.is_on:
            deferred.requeue(queue, counts)
            return {}
        theirs = {number: count for number, count in counts.items() if deferred.publishes(queue, number)}
        if theirs:
            deferred.requeue(queue, theirs)
        return {number: count for number, count in counts.items() if number not in theirs}

    def _join_deferred(self) -> None:
        """Let the deferred records join the current batch."""
        deferred, self._deferred, self.first_deferred = self._deferred, Batch(0), None
        try:
            self._filling.join(deferred)
        except Exception as error:
            self.fail(error)
            raise

    def clock_set(self, behind_ms: int) -> int:
        """Record that the wall clock was set: how far the store's clock is behind it now."""
        try:
            self._filling.set_clock(behind_ms)
        except Exception as error:
            self.fail(error)
            raise
        return self._filling.number

    def fail(self, error: Exception) -> None:
        """Write no batch any more: because of this bug, memory may differ from what was recorded."""
        self.failure = self.failure or error

    def take(self) -> Batch:
        """Return the batch so far, and begin the next one."""
        batch = self._filling
        self._filling = Batch(batch.number + 1)
        self.pending_confirms.taken()
        self.hold.taken()
        return batch

    def nothing_waits(self) -> None:
        """Note that the batch is empty, so that nothing has to wait for it."""
        self.pending_confirms.nothing_waits()
        self.hold.taken()


class MemoryJournal:
    """The journal of a broker without a store. It records nothing, so there is never anything to wait for."""

    batch = watermark_count = 0
    hold = NoHold()
    deferral = NoDeferral()

    def changed(self, change: Change) -> int:
        """Record nothing."""
        return 0

    def audited(self, entry: AuditEntry) -> int:
        """Record nothing."""
        return 0

    def unfinished(self, is_unfinished: bool) -> int:
        """Record nothing."""
        return 0

    def published(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> int:
        """Record nothing."""
        return 0

    def write_body(self, message: Message) -> None:
        """Record nothing."""
        return None

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """Record nothing."""
        return 0

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """Record nothing."""
        return 0

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """Record nothing."""
        return 0

    def fail(self, error: Exception) -> None:
        """Do nothing: there is no record that memory could differ from."""
