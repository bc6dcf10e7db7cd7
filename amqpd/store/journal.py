"""What the broker recorded since the last commit: the batch that fills while another one is written.

Owns the numbers of batches, which rise from 1 by one, and what of a batch still needs to be written. Records
take no time. None of them can fail but by a mistake of ours: nobody knows then whether a record is whole, so nothing
more is written, and the broker stops. When a batch is taken, and what its number means to publishers, is for
`server/committer.py`; how it is written, for `store/sqlite/store.py`.

Always true of a batch:
- no message is both published and settled: one that was settled before it was written is in neither;
- only what is published has an expiry, and nothing that is settled has a delivery count;
- nothing is published, requeued or settled in a queue that a later change of the batch deleted;
- `count` is the number of changes, publishes, delivery counts, watermarks and settles it holds, and one for each of
  `clock_behind_ms` and `unfinished`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import repeat

from amqpd.broker.definitions import (
    Change,
    Deleted,
    ExchangeDefinition,
    QueueDefinition,
    VhostDefinition,
)
from amqpd.broker.hold import Hold, NoHold
from amqpd.message import Message
from amqpd.store.body_writes import BodyQueue, BodyWrite
from amqpd.store.pending_confirms import PendingConfirms


class Batch:
    """What one commit makes safe, all of it or nothing.

    By queue number, `published` holds messages by number, and `settled` message numbers; `expiries`, in ms since
    1970, and `deliveries`, by message number, are of those that have one; `watermarks` say up to which number messages
    may have been handed out. `written` has the bodies that are in the store already, by message number, also those of
    messages that have left again. `weight` is the bytes of content that are to be written with it, about.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.changes: list[Change] = []
        self.published: dict[int, dict[int, Message]] = {}
        self.expiries: dict[int, dict[int, int]] = {}
        self.deliveries: dict[int, dict[int, int]] = {}
        self.settled: dict[int, list[int]] = {}
        self.watermarks: dict[int, int] = {}
        self.written: dict[int, BodyWrite] = {}
        self.clock_behind_ms: int | None = None     # where the wall clock was set
        self.unfinished: int | None = None          # vhosts in which bindings lead nowhere, if that changed
        self.count = 0
        self.weight = 0
        self._vhosts: dict[int, str] = {}       # of the queues above

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write; there may be confirms that wait for it all the same."""
        return not self.count

    def marked(self, queue_number: int) -> set[int]:
        """The messages of this queue that have an expiry or a delivery count."""
        return {*self.expiries.get(queue_number, ()), *self.deliveries.get(queue_number, ())}

    def change(self, change: Change) -> None:
        """Note a change; what waits in a queue that it deletes is forgotten."""
        self.changes.append(change)
        self.count += 1
        if not isinstance(change, Deleted):
            return
        definition = change.definition
        if isinstance(definition, QueueDefinition):
            self._forget(definition.number)
        elif isinstance(definition, VhostDefinition):
            for number in [number for number, vhost in self._vhosts.items() if vhost == definition.name]:
                self._forget(number)

    def _forget(self, queue_number: int) -> None:
        dropped = self.published.pop(queue_number, {})
        self.weight -= self._weight(dropped.values())
        self.count -= len(dropped) + len(self.settled.pop(queue_number, ()))
        self.count -= len(self.deliveries.pop(queue_number, ()))
        self.count -= self.watermarks.pop(queue_number, None) is not None
        self.expiries.pop(queue_number, None)
        self._vhosts.pop(queue_number, None)

    def publish(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> None:
        """Note that these messages are in this queue, and when they expire in it, if they do."""
        pending = self.published.setdefault(queue.number, {})
        pending.update(zip([message.number for message in run], run))
        if expiries:
            self.expiries.setdefault(queue.number, {}).update(expiries)
        self._vhosts[queue.number] = queue.vhost
        self.count += len(run)
        self.weight += self._weight(run)

    def requeue(self, queue: QueueDefinition, counts: Mapping[int, int]) -> None:
        """Note how often these messages, which are in this queue again, have been delivered."""
        deliveries = self.deliveries.setdefault(queue.number, {})
        self.count -= len(deliveries)
        deliveries.update(counts)
        self.count += len(deliveries)
        self._vhosts[queue.number] = queue.vhost

    def watermark(self, queue: QueueDefinition, number: int) -> None:
        """Note up to which number messages of this queue may have been handed out."""
        self.count += queue.number not in self.watermarks
        self.watermarks[queue.number] = number
        self._vhosts[queue.number] = queue.vhost

    def settle(self, queue: QueueDefinition, numbers: Sequence[int]) -> None:
        """Note that the messages of these numbers have left this queue, or forget that they were ever put there."""
        if self.expiries or self.deliveries:
            _drop(self.expiries, queue.number, numbers)
            self.count -= _drop(self.deliveries, queue.number, numbers)
        pending = self.published.get(queue.number)
        if pending:
            unwritten = [message for message in map(pending.pop, numbers, repeat(None)) if message is not None]
            self.count -= len(unwritten)
            self.weight -= self._weight(unwritten)
            if len(unwritten) == len(numbers):
                return
            done = {message.number for message in unwritten}
            numbers = [number for number in numbers if number not in done]
        self.settled.setdefault(queue.number, []).extend(numbers)
        self._vhosts[queue.number] = queue.vhost
        self.count += len(numbers)

    def set_clock(self, behind_ms: int) -> None:
        """Note how far the store's clock is behind the wall clock from now on."""
        self.count += self.clock_behind_ms is None
        self.clock_behind_ms = behind_ms

    def set_unfinished(self, vhosts: int) -> None:
        """Note in how many vhosts a deleted queue or exchange still has bindings."""
        self.count += self.unfinished is None
        self.unfinished = vhosts

    def _weight(self, messages: Collection[Message]) -> int:
        if self.written:
            messages = [message for message in messages if message.number not in self.written]
        # A message of several queues is written once, and comes here once for each of them.
        return sum([len(message.content) // (message.holders or 1) for message in messages])

    def check(self) -> None:
        """Assert what must hold between calls."""
        published = {(queue, number) for queue, pending in self.published.items() for number in pending}
        settled = [(queue, number) for queue, numbers in self.settled.items() for number in numbers]
        expiring = {(queue, number) for queue, ends in self.expiries.items() for number in ends}
        counted = [(queue, number) for queue, counts in self.deliveries.items() for number in counts]
        assert published.isdisjoint(settled), "a message is both published and settled"
        assert expiring <= published, "a message that is not published expires"
        assert not {*counted} & {*settled}, "a settled message has a delivery count"
        assert self.count == len(
            self.changes) + len(published) + len(counted) + len(settled) + len(self.watermarks) + (
            self.clock_behind_ms is not None) + (self.unfinished is not None), "the count is off"
        assert self.weight == sum(self._weight(pending.values()) for pending in self.published.values())
        noted = self.published.keys() | self.deliveries.keys() | self.settled.keys() | self.watermarks.keys()
        assert noted == self._vhosts.keys()


def _drop(values: dict[int, dict[int, int]], queue_number: int, numbers: Sequence[int]) -> int:
    """Forget the values of these messages; says how many had one."""
    held = values.get(queue_number)
    if not held:
        return 0
    before = len(held)
    for number in numbers:
        held.pop(number, None)
    return before - len(held)


class Journal:
    """The journal of a broker with a store: `broker.ports.Journal` on one side, batches on the other."""

    def __init__(self) -> None:
        self.pending_confirms = PendingConfirms()
        self.hold = Hold()
        self.bodies = BodyQueue()
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
