"""Journals for tests: one records and knows what a crash would leave, one refuses, one fails.

`RecordingJournal` also checks the rules of `broker/ports.py` for callers of a journal: only durable queues and
persistent messages are recorded, what is settled or requeued was published, an expiry is published with its message,
delivery counts rise, and nothing is recorded for a queue that is not declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amqpd.broker.audit_entry import AuditEntry
from amqpd.broker.deferral import Deferral
from amqpd.broker.definitions import (
    BindingDefinition,
    Change,
    Defined,
    Definition,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.hold import Hold
from amqpd.fields import encode_table
from amqpd.message import Message
from amqpd.store.body_writes import BodyQueue, BodyWrite
from amqpd.store.pending_confirms import PendingConfirms
from amqpd.store.restoring import split_leftovers

_ORDER = (
    VhostDefinition, UserDefinition, PermissionDefinition, TopicPermissionDefinition, GlobalParameterDefinition,
    ParameterDefinition, PolicyDefinition, ExchangeDefinition, QueueDefinition, BindingDefinition)
_OF_USER = (PermissionDefinition, TopicPermissionDefinition)
_OF_VHOST = (
    *_OF_USER, ParameterDefinition, PolicyDefinition, ExchangeDefinition, QueueDefinition, BindingDefinition)


class Kept:
    """What the disk would hold: definitions by identity, and messages by the number of their queue.

    `expiries` and `deliveries` are by queue and message number, of the messages that have one.
    """

    def __init__(self) -> None:
        self.definitions: dict[tuple[object, ...], Definition] = {}
        self.messages: dict[int, dict[int, Message]] = {}
        self.expiries: dict[int, dict[int, int]] = {}
        self.deliveries: dict[int, dict[int, int]] = {}
        self.watermarks: dict[int, int] = {}
        self.unfinished = 0

    @property
    def _by_queue(self) -> tuple[dict[int, dict[int, Any]], ...]:
        return self.messages, self.expiries, self.deliveries

    def copy(self) -> Kept:
        """The same, to be changed on its own."""
        other = Kept()
        other.definitions = dict(self.definitions)
        other.messages = {number: dict(kept) for number, kept in self.messages.items()}
        other.expiries = {number: dict(kept) for number, kept in self.expiries.items()}
        other.watermarks = dict(self.watermarks)
        other.unfinished = self.unfinished
        other.deliveries = {number: dict(kept) for number, kept in self.deliveries.items()}
        return other

    def change(self, change: Change) -> None:
        """Apply a change of the definitions; see `broker/definitions.py`."""
        definition = change.definition
        if isinstance(change, Defined):
            self.definitions[identity(definition)] = definition
            if isinstance(definition, QueueDefinition):
                for kept in self._by_queue:
                    kept.setdefault(definition.number, {})      # it may be there: then it is paused or resumed
            return
        assert self.definitions.pop(identity(definition), None) is not None, f"{definition} was not there to delete"
        if isinstance(definition, QueueDefinition):
            for kept in self._by_queue:
                del kept[definition.number]
        elif isinstance(definition, VhostDefinition):
            for other in self.definitions.values():
                if isinstance(other, QueueDefinition) and other.vhost == definition.name:
                    for kept in self._by_queue:
                        del kept[other.number]
            self._forget(lambda other: isinstance(other, _OF_VHOST) and other.vhost == definition.name)
        elif isinstance(definition, UserDefinition):
            self._forget(lambda other: isinstance(other, _OF_USER) and other.user == definition.name)

    def _forget(self, is_gone: Any) -> None:
        self.definitions = {key: value for key, value in self.definitions.items() if not is_gone(value)}

    def bodies(self, queue: str) -> list[bytes]:
        """The bodies in a queue, in order."""
        return [
            message.body
            for definition in self.definitions.values()
            if isinstance(definition, QueueDefinition) and definition.name == queue
            for _, message in sorted(self.messages[definition.number].items())
        ]

    def in_order(self) -> list[Definition]:
        """The definitions, in the order in which a broker takes them back."""
        found = sorted(self.definitions.values(), key=lambda definition: _ORDER.index(type(definition)))
        return split_leftovers(found)[0] if self.unfinished else found


def identity(definition: Definition) -> tuple[object, ...]:
    match definition:
        case VhostDefinition() | UserDefinition() | GlobalParameterDefinition():
            return type(definition), definition.name
        case PermissionDefinition():
            return type(definition), definition.user, definition.vhost
        case TopicPermissionDefinition():
            return type(definition), definition.user, definition.vhost, definition.exchange
        case ParameterDefinition():
            return type(definition), definition.vhost, definition.component, definition.name
        case PolicyDefinition():
            return type(definition), definition.vhost, definition.is_operator, definition.name
        case ExchangeDefinition():
            return type(definition), definition.vhost, definition.name
        case QueueDefinition():
            return type(definition), definition.number
        case _:
            return (
                type(definition), definition.vhost, definition.source, definition.destination_type,
                definition.destination, definition.routing_key, encode_table(definition.arguments))


class RecordingJournal:
    """Remembers everything; `commit` ends a batch. `now` is what was recorded, `safe` what was committed of it."""

    def __init__(self, kept: Kept | None = None) -> None:
        self.batch = 1
        self.now = kept or Kept()
        self.safe = self.now.copy()
        self.entries: list[AuditEntry] = []
        self.changes: list[Change] = []
        self.pending_confirms = PendingConfirms()
        self.hold = Hold()
        self.deferral = Deferral(self._join)
        self._deferred = Kept()         # messages that are in `now`, and not in the current batch yet
        self._still_there = Kept()      # messages that are not in `now`, and still in the current batch
        self.answered: list[tuple[str, int]] = []       # by queue: what consumers have taken over
        self.failure: Exception | None = None
        self.is_empty = True
        self.bodies: BodyQueue | None = None        # where large bodies are written before their messages are recorded

    def changed(self, change: Change) -> int:
        """See broker/ports.py."""
        definition = change.definition
        if isinstance(definition, (ExchangeDefinition, QueueDefinition)):
            assert definition.durable, f"{definition} is not durable"
        self.changes.append(change)
        self.now.change(change)
        return self._joined()

    def audited(self, entry: AuditEntry) -> int:
        """See broker/ports.py."""
        self.entries.append(entry)
        return self._joined()

    def unfinished(self, is_unfinished: bool) -> int:
        """See broker/ports.py."""
        self.now.unfinished += 1 if is_unfinished else -1
        assert self.now.unfinished >= 0, "a deletion is finished that was not begun"
        return self._joined()

    def published(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> int:
        """See broker/ports.py."""
        kept = self._kept(queue)
        numbers = [message.number for message in run]
        assert numbers == sorted(numbers), "published out of order"
        for message in run:
            assert message.facts.persistent, f"message {message.number} is not persistent"
            assert message.number not in kept, f"message {message.number} is published twice"
            kept[message.number] = message
            if self.deferral.is_on:
                self._deferred.messages.setdefault(queue.number, {})[message.number] = message
        if not self.deferral.is_on:
            self.pending_confirms.published(queue.number, run)
        assert (expiries or {}).keys() <= {message.number for message in run}, "what is not published cannot expire"
        self.now.expiries[queue.number].update(expiries or {})
        return self._joined()

    def write_body(self, message: Message) -> BodyWrite | None:
        """See broker/ports.py."""
        assert message.facts.persistent
        return None if self.bodies is None else self.bodies.add(message)

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """See broker/ports.py."""
        assert counts.keys() <= self._kept(queue).keys(), f"messages were requeued that are not in {queue}"
        deliveries = self.now.deliveries[queue.number]
        for number, count in counts.items():
            assert count > deliveries.get(number, 0), f"message {number} was requeued with a count of {count} again"
        deliveries.update(counts)
        return self._joined()

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """See broker/ports.py."""
        kept = self._kept(queue)
        for number in numbers:
            message = kept.pop(number, None)
            assert message is not None, f"message {number} was not there to settle"
            unwritten = self._deferred.messages.get(queue.number, {}).pop(number, None)
            if self.deferral.is_on and unwritten is None:
                self._still_there.messages.setdefault(queue.number, {})[number] = message
            self.now.expiries[queue.number].pop(number, None)
            self.now.deliveries[queue.number].pop(number, None)
        if is_answered:
            self.pending_confirms.answered(queue.number, numbers)
            self.answered += [(queue.name, number) for number in numbers]
        return self._joined()

    def _join(self) -> None:
        """Let what was deferred join the current batch."""
        if self._deferred.messages or self._still_there.messages:
            self._joined()
        self._deferred, self._still_there = Kept(), Kept()

    @property
    def first_deferred(self) -> int | None:
        """See store/journal.py."""
        return min([number for kept in self._deferred.messages.values() for number in kept], default=None)

    def _without_deferred(self) -> Kept:
        """What the current batch has of all that was recorded."""
        found = self.now.copy()
        for queue, messages in self._deferred.messages.items():
            for number in messages if queue in found.messages else ():
                for kept in found._by_queue:
                    kept[queue].pop(number, None)
        for queue, messages in self._still_there.messages.items():
            if queue in found.messages:
                found.messages[queue] |= messages
        return found

    def _kept(self, queue: QueueDefinition) -> dict[int, Message]:
        assert queue.durable, f"{queue} is not durable"
        assert queue.number in self.now.messages, f"{queue} is not declared, or not any more"
        return self.now.messages[queue.number]

    def _joined(self) -> int:
        self.is_empty = False
        return self.batch

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """See broker/ports.py."""
        self._kept(queue)
        assert number > self.now.watermarks.get(queue.number, 0), f"the watermark of {queue} does not rise"
        self.now.watermarks[queue.number] = number
        return self._joined()

    def fail(self, error: Exception) -> None:
        """See broker/ports.py."""
        self.failure = self.failure or error

    def read(self, numbers: Sequence[int]) -> list[Message]:
        """The messages of these numbers, as a store would give them back once it has been written."""
        kept = {number: message for queue in self.safe.messages.values() for number, message in queue.items()}
        return [kept[number] for number in numbers if number in kept]

    def nothing_waits(self) -> None:
        """Note that the batch is empty, so that nothing has to wait for it."""
        self.pending_confirms.nothing_waits()
        self.hold.taken()

    def commit(self) -> int:
        """End the batch, and return its number."""
        assert not self.hold.is_on, "a batch is committed that is kept"
        self.safe = self._without_deferred()
        self.pending_confirms.taken()
        self.pending_confirms.committed()
        self.hold.taken()
        self.is_empty = True
        self.batch += 1
        return self.batch - 1


class RefusingJournal:
    """For what must not be recorded at all."""

    def changed(self, change: Change) -> int:
        """Refuse."""
        raise AssertionError(f"{change} was recorded")

    def audited(self, entry: AuditEntry) -> int:
        """Refuse."""
        raise AssertionError(f"{entry} was recorded")

    def unfinished(self, is_unfinished: bool) -> int:
        """Refuse."""
        raise AssertionError("a deletion was recorded")

    def published(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> int:
        """Refuse."""
        raise AssertionError(f"messages of {queue} were recorded")

    def write_body(self, message: Message) -> None:
        """Refuse."""
        raise AssertionError("a body was written")

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """Refuse."""
        raise AssertionError(f"requeued messages of {queue} were recorded")

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """Refuse."""
        raise AssertionError(f"a watermark of {queue} was recorded")

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """Refuse."""
        raise AssertionError(f"settled messages of {queue} were recorded")

    def fail(self, error: Exception) -> None:
        """Refuse."""
        raise error


class FailingJournal(RecordingJournal):
    """A journal whose next record raises an unexpected exception when `is_broken` is set."""

    is_broken = False

    def _joined(self) -> int:
        if self.is_broken:
            raise RuntimeError("the journal is broken")
        return super()._joined()
