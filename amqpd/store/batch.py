"""What one commit makes safe, all of it or nothing: changes of definitions, and of each queue's messages.

The journal fills a batch while the store writes the one before. Whatever leaves a batch before it is written is not
written at all: a message that was settled, a queue that was deleted.

Always true of a batch:
- no message is both published and settled: one that was settled before it was written is in neither;
- only what is published has an expiry, and nothing that is settled has a delivery count;
- nothing is published, requeued or settled in a queue that a later change of the batch deleted;
- `count` is the number of changes, entries of the audit log, publishes, delivery counts, watermarks and settles it
  holds, and one for each of `clock_behind_ms` and `unfinished`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import repeat

import msgspec

from amqpd.broker.audit_entry import AuditEntry
from amqpd.broker.definitions import Change, Deleted, QueueDefinition, VhostDefinition
from amqpd.message import Message


class QueueChanges(msgspec.Struct):
    """What a batch does to the messages of one queue; all but `settled` by message number.

    `published` are new; `expiries`, in ms since 1970, are of those of them that have one; `deliveries` are delivery
    counts of messages that were requeued; `settled` have left the queue. Messages up to `watermark` may have been
    delivered.
    """

    vhost: str
    published: dict[int, Message] = {}
    expiries: dict[int, int] = {}
    deliveries: dict[int, int] = {}
    settled: list[int] = []
    watermark: int | None = None

    @property
    def count(self) -> int:
        """Return how many publishes, delivery counts, watermarks and settles these are."""
        return len(self.published) + len(self.deliveries) + len(self.settled) + (self.watermark is not None)

    def join(self, later: QueueChanges) -> None:
        """Add changes that are later than these, but whose numbers need not be above those of these."""
        self.deliveries.update(later.deliveries)
        left = later.settled
        if left:
            self.forget_states(left)
            pop = self.published.pop
            left = [number for number in left if pop(number, None) is None]
        if later.published:
            self.published = dict(sorted([*self.published.items(), *later.published.items()]))
            self.expiries.update(later.expiries)
        self.settled += left

    def forget_states(self, numbers: Sequence[int]) -> int:
        """Forget expiries and delivery counts of these messages; return how many had a delivery count."""
        expiries, deliveries = self.expiries, self.deliveries
        before = len(deliveries)
        for number in numbers:
            expiries.pop(number, None)
            deliveries.pop(number, None)
        return before - len(deliveries)


class Batch:
    """One batch. `changes` of definitions come before what `queues` has, by queue number.

    `weight` is about how many bytes of content are to be written with the batch.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.changes: list[Change] = []
        self.audited: list[AuditEntry] = []
        self.queues: dict[int, QueueChanges] = {}
        self.clock_behind_ms: int | None = None     # where the wall clock was set
        self.unfinished: int | None = None          # vhosts in which bindings lead nowhere, if that changed
        self.count = 0
        self.weight = 0

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to write; there may be confirms that wait for it all the same."""
        return not self.count

    def _of(self, queue: QueueDefinition) -> QueueChanges:
        changes = self.queues.get(queue.number)
        if changes is None:
            changes = self.queues[queue.number] = QueueChanges(queue.vhost)
        return changes

    def change(self, change: Change) -> None:
        """Note a change of a definition; forget what it makes pointless in the queues that it deletes."""
        self.changes.append(change)
        self.count += 1
        if isinstance(change, Deleted):
            self.forget(change)

    def forget(self, change: Deleted) -> None:
        """Forget what this deletion makes pointless."""
        definition = change.definition
        if isinstance(definition, QueueDefinition):
            self._forget(definition.number)
        elif isinstance(definition, VhostDefinition):
            for number in [number for number, queue in self.queues.items() if queue.vhost == definition.name]:
                self._forget(number)

    def audit(self, entry: AuditEntry) -> None:
        """Note an entry of the audit log."""
        self.audited.append(entry)
        self.count += 1

    def _forget(self, queue_number: int) -> None:
        dropped = self.queues.pop(queue_number, None)
        if dropped is not None:
            self.weight -= self._weight(dropped.published.values())
            self.count -= dropped.count

    def publish(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> None:
        """Note that these messages are in this queue, and when they expire in it, if they do."""
        changes = self._of(queue)
        changes.published.update(zip([message.number for message in run], run))
        if expiries:
            changes.expiries.update(expiries)
        self.count += len(run)
        self.weight += self._weight(run)

    def requeue(self, queue: QueueDefinition, counts: Mapping[int, int]) -> None:
        """Note how often these messages, which are in this queue again, have been delivered."""
        deliveries = self._of(queue).deliveries
        self.count -= len(deliveries)
        deliveries.update(counts)
        self.count += len(deliveries)

    def watermark(self, queue: QueueDefinition, number: int) -> None:
        """Note up to which number messages of this queue may have been delivered."""
        changes = self._of(queue)
        self.count += changes.watermark is None
        changes.watermark = number

    def settle(self, queue: QueueDefinition, numbers: Sequence[int]) -> None:
        """Note that these messages have left this queue, or forget those that were published in this batch."""
        changes = self._of(queue)
        numbers = self._withdraw(changes, numbers)
        changes.settled.extend(numbers)
        self.count += len(numbers)

    def withdraw(self, queue: QueueDefinition, numbers: Sequence[int]) -> Sequence[int]:
        """Forget those of these messages that were published in this batch; return the others."""
        changes = self.queues.get(queue.number)
        return numbers if changes is None else self._withdraw(changes, numbers)

    def _withdraw(self, changes: QueueChanges, numbers: Sequence[int]) -> Sequence[int]:
        if changes.expiries or changes.deliveries:
            self.count -= changes.forget_states(numbers)
        pending = changes.published
        if not pending:
            return numbers
        unwritten = [message for message in map(pending.pop, numbers, repeat(None)) if message is not None]
        self.count -= len(unwritten)
        self.weight -= self._weight(unwritten)
        if len(unwritten) == len(numbers):
            return ()
        done = {message.number for message in unwritten}
        return [number for number in numbers if number not in done]

    def publishes(self, queue: QueueDefinition, number: int) -> bool:
        """Return whether this message is published to this queue in this batch."""
        changes = self.queues.get(queue.number)
        return changes is not None and number in changes.published

    def join(self, later: Batch) -> None:
        """Add what another batch does to messages, which is later than what this one does; it must not be used again.

        Definitions are not added.
        """
        for number, changes in later.queues.items():
            known = self.queues.get(number)
            if known is None:
                self.queues[number] = changes
                self.count += changes.count
                self.weight += self._weight(changes.published.values())
                continue
            self.count -= known.count
            self.weight -= self._weight(known.published.values())
            known.join(changes)
            self.count += known.count
            self.weight += self._weight(known.published.values())

    def set_clock(self, behind_ms: int) -> None:
        """Note how far the store's clock is behind the wall clock from now on."""
        self.count += self.clock_behind_ms is None
        self.clock_behind_ms = behind_ms

    def set_unfinished(self, vhosts: int) -> None:
        """Note in how many vhosts a deleted queue or exchange still has bindings."""
        self.count += self.unfinished is None
        self.unfinished = vhosts

    def _weight(self, messages: Collection[Message]) -> int:
        # A message of several queues is written once, and comes here once for each of them. Any other type of message
        # has its body in the store.
        return sum([len(message.content) // (message.holders or 1) for message in messages if type(message) is Message])

    def check(self) -> None:
        """Assert what must hold between calls."""
        for changes in self.queues.values():
            assert changes.published.keys().isdisjoint(changes.settled), "a message is both published and settled"
            assert changes.expiries.keys() <= changes.published.keys(), "a message that is not published expires"
            assert changes.deliveries.keys().isdisjoint(changes.settled), "a settled message has a delivery count"
        of_queues = sum([changes.count for changes in self.queues.values()])
        assert self.count == len(self.changes) + len(self.audited) + of_queues + (
            self.clock_behind_ms is not None) + (self.unfinished is not None), "the count is off"
        assert self.weight == sum([self._weight(changes.published.values()) for changes in self.queues.values()])
