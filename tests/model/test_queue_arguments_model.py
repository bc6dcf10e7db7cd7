"""Queues with random arguments and random operations: dead letters go where they should, once, also across restarts.

There are three queues in one vhost: `source`, and `target` and `other`, which get its dead letters; `target` may have
limits too, and dead-letter messages back. The model knows where each message is: ready, unacked, waiting to be
dead-lettered, or removed, and then why. Each message that is added or removed is an event that the model checks: it was
at the head of a queue that was too long, or had expired, or had failed too often, or a client rejected it. In the end
the queues and the journal must have exactly the messages of the model.

The tests run twice: on a fake journal, which at every step also knows what a crash would leave, and on a store.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from enum import Enum, auto
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from amqpd.broker.access import Operator
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    PolicyDefinition,
    QueueDefinition,
)
from amqpd.broker.ports import Journal as JournalPort
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.dead_letters import DeadLetters
from amqpd.broker.queue.page_limits import PageLimits
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.pages import OnDisk, Removed
from amqpd.broker.queue.queue import Outcome, Queue, note_holders
from amqpd.broker.vhost import Vhost
from amqpd.fields import decode_table
from amqpd.message import Message, pack_content, pack_short_string
from amqpd.properties import read_properties
from amqpd.store.journal import Journal
from amqpd.store.port import Recovered
from amqpd.store.sqlite.store import Store
from tests.support.journals import RecordingJournal
from tests.support.page_stores import PageStoreInMemory, stored
from tests.support.profiles import PROFILE
from tests.support.samples import FRAME_MAX, route
from tests.support.sizes import sized
from tests.support.subscribers import PLENTY, ListSubscriber, SharedRoom, answered

START_MS = 1_800_000_000_000
DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX = "drop-head", "reject-publish", "reject-publish-dlx"
NAMES = ("source", "target", "other")
SMALL_PAGES = PageLimits(messages=2, fewest_messages=1)      # so that a few messages make several pages
OPERATOR = Operator()
FANOUT = ("target", "other")            # what the exchange `dead_letter_queues` is bound to


# What is drawn

def sometimes(*values: Any) -> st.SearchStrategy[Any]:
    """None as often as not."""
    return st.sampled_from([None] * len(values) + list(values))


NUMBERS = {
    "message-ttl": sometimes(0, 1, 30, 1_500),
    "max-length": sometimes(0, 1, 2, 4),
    "max-length-bytes": sometimes(0, 9, 25),
    "overflow": sometimes(DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX),
}
DEAD_LETTER_QUEUES: st.SearchStrategy[dict[str, str]] = st.sampled_from([
    {},
    {"dead-letter-exchange": ""},
    {"dead-letter-exchange": "", "dead-letter-routing-key": "target"},
    {"dead-letter-exchange": "", "dead-letter-routing-key": "source"},
    {"dead-letter-exchange": "graves"},
    {"dead-letter-exchange": "graves", "dead-letter-routing-key": "k"},
    {"dead-letter-exchange": "nowhere"},
])
SURE = {"overflow": REJECT_PUBLISH, "dead-letter-strategy": "at-least-once"}


def without_nones(**rules: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table of what was drawn."""
    return st.fixed_dictionaries(rules).map(
        lambda found: {key.replace("_", "-"): value for key, value in found.items() if value is not None})


def as_arguments(rules: dict[str, Any]) -> dict[str, Any]:
    """Return rules as arguments of a client."""
    return {f"x-{key}": value for key, value in rules.items()}


@st.composite
def queue_arguments(draw: st.DrawFn) -> tuple[bool, dict[str, Any]]:
    """Whether a queue is durable, and its arguments."""
    rules = draw(without_nones(
        **{key.replace("-", "_"): values for key, values in NUMBERS.items()},
        delivery_limit=sometimes(-1, 0, 1, 3), single_active_consumer=sometimes(True, False)))
    rules |= draw(DEAD_LETTER_QUEUES)
    if draw(st.sampled_from([False, False, True])):
        if "dead-letter-exchange" in rules and draw(st.sampled_from([True, True, False])):
            rules |= SURE
        elif rules.get("overflow") == REJECT_PUBLISH_DLX:
            del rules["overflow"]
        return True, as_arguments(rules | {"queue-type": "quorum"})
    priority = draw(sometimes(0, 1, 5))
    if priority is not None:
        rules["max-priority"] = priority
    return draw(st.booleans()), as_arguments(rules)


class Draft(NamedTuple):
    """A message before it has a number."""

    size: int
    persistent: bool
    priority: int | None
    expiration_ms: int | None

    def properties(self) -> bytes:
        """Delivery mode, priority and expiration, encoded without amqpd."""
        flags, values = 1 << 12, bytes((2 if self.persistent else 1,))
        if self.priority is not None:
            flags, values = flags | 1 << 11, values + bytes((self.priority,))
        if self.expiration_ms is not None:
            flags, values = flags | 1 << 8, values + pack_short_string(str(self.expiration_ms))
        return struct.pack(">H", flags) + values


DRAFTS = st.lists(
    st.builds(
        Draft, st.sampled_from([8, 8, 10, 20, 30]), st.booleans(), sometimes(0, 1, 2, 9), sometimes(0, 1, 40, 5_000)),
    min_size=1, max_size=6)


# What the model knows

class State(Enum):
    """Where a message is within its queue."""

    READY = auto()
    UNACKED = auto()
    MORTAL = auto()      # it has left, but is kept until its copies are safe


class Death(NamedTuple):
    """An entry of `x-death`."""

    queue: str
    reason: str
    count: int
    exchange: str
    routing_key: str
    expiration_ms: int | None


class Held:
    """A message in one queue. Ends are by the wall clock; the store keeps the first, a restart may shorten it."""

    def __init__(self, message: Message, end: int | None, deaths: tuple[Death, ...]) -> None:
        self.message = message
        self.end = self.stored_end = end
        self.state = State.READY
        self.was_out = False
        self.failures = 0
        self.deaths = deaths


class Copy(NamedTuple):
    """A dead letter on its way. `died` is its queue and message; with `is_sure`, it is kept there until then."""

    target: str
    message: Message
    exchange: str
    routing_key: str
    deaths: tuple[Death, ...]
    died: tuple[str, int]
    is_sure: bool


Model = dict[str, dict[int, Held]]      # by queue name and message number


def with_death(held: Held, queue: str, reason: str) -> tuple[Death, ...]:
    """Return the deaths of a message with one more, newest first."""
    message = held.message
    for death in held.deaths:
        if (death.queue, death.reason) == (queue, reason):
            return death._replace(count=death.count + 1), *(other for other in held.deaths if other is not death)
    new = Death(
        queue, reason, 1, message.route.exchange, message.route.routing_key, message.facts.expiration_ms)
    return new, *held.deaths


def comes_back_by_itself(deaths: Sequence[Death], queue: str) -> bool:
    """Return whether no client has rejected it since it died in this queue."""
    for death in deaths:
        if death.reason == "rejected":
            return False
        if death.queue == queue:
            return True
    return False


def is_full(rules: Any, ready: int, octets: int, size: int) -> bool:
    """Whether the limits forbid a body of this size among so many messages of so many octets."""
    return (rules.max_length is not None and ready + 1 > rules.max_length) or (
        rules.max_length_bytes is not None and octets + size > rules.max_length_bytes)


# What is watched

class WatchedQueue(Queue):
    """A queue that reports each published message to the machine, and each dropped one, dead-lettered or not."""

    machine: QueueArgumentsMachine

    def publish(self, run: Sequence[Message], *, is_timed: bool = False) -> Outcome:
        """See `Queue`."""
        self.machine.comes(self, run)
        outcome = super().publish(run, is_timed=is_timed)
        self.machine.has_come(self, outcome.refused)
        return outcome


class WatchedDeadLetters(DeadLetters):
    """Those of such a queue."""

    queue: WatchedQueue

    def drop(self, run: Sequence[Message], reason: str) -> int:
        """See `DeadLetters`."""
        self.queue.machine.dies(self.queue, run, reason)
        return super().drop(run, reason)

    def send(self, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        """See `DeadLetters`."""
        if not is_stored:
            self.queue.machine.dies(self.queue, run, reason)
        super().send(run, reason, is_stored=is_stored)

    def drop_removed(self, removed: Removed, reason: str) -> None:
        """See `DeadLetters`: what is on disk and goes nowhere is dropped without being loaded."""
        if self.is_wanted:
            super().drop_removed(removed, reason)
            return
        machine = self.queue.machine
        for part in removed:
            if isinstance(part, OnDisk):
                machine.dies(self.queue, machine.messages(self.queue, part.numbers), reason)
            super().drop_removed([part], reason)


class WatchedVhost(Vhost):
    """Makes such queues."""

    machine: QueueArgumentsMachine

    def _new_queue(self, definition: QueueDefinition, owner: object | None) -> Queue:
        with mock.patch("amqpd.broker.queue.queue.DeadLetters", WatchedDeadLetters):
            queue = WatchedQueue(
                definition, self._journal, owner=owner, rules=self.followers.rules_of(definition), clock=self._clock,
                sink=self.dead_letters, unused=self.topology.remove_queue, page_store=self._page_store,
                worklist=self.worklist)
        queue.machine = self.machine
        assert isinstance(queue.dead_letters, WatchedDeadLetters)
        queue.dead_letters.queue = queue
        return queue


class WatchedSubscriber(ListSubscriber):
    """A subscriber that reports each delivery to the machine."""

    def __init__(self, machine: QueueArgumentsMachine, line: SharedRoom, number: int) -> None:
        super().__init__(line, address=(number, 1))
        self.machine = machine

    def deliver(self, consumer: Consumer, run: Sequence[Message]) -> None:
        """See broker/queue/consumer.py."""
        self.machine.delivered(consumer, run)
        super().deliver(consumer, run)


class Double:
    """What survives, by a journal double."""

    def __init__(self) -> None:
        self.recording = RecordingJournal()
        self.journal: JournalPort = self.recording
        self.first_number = 1
        self.marks: dict[int, set[int]] = {}        # as the last clean stop was told

    def commit(self) -> int:
        """What was recorded is safe; the batch it was in."""
        return self.recording.commit()

    def restart(
        self, last_number: int, redelivered: dict[int, list[int]] | None, bounds: dict[int, int]
    ) -> Recovered:
        """Start again; `redelivered` None is after a crash."""
        kept = self.recording.safe
        self.recording = RecordingJournal(kept)
        self.journal = self.recording
        self.first_number = max([last_number, *kept.watermarks.values()]) + 1      # as a store's numbers begin
        if redelivered is not None:
            self.marks = {queue: set(numbers) for queue, numbers in redelivered.items()}
            kept.watermarks = dict(bounds)
        told = {queue: marks & kept.messages[queue].keys() for queue, marks in self.marks.items()
                if queue in kept.messages}
        bounds = dict(kept.watermarks)
        return Recovered(
            kept.in_order(), {
                queue: stored([held[number] for number in sorted(held)], kept.expiries[queue])
                for queue, held in kept.messages.items()},
            told, bounds, kept.deliveries, 0, redelivered is not None)

    def read(self, numbers: list[int]) -> list[Message]:
        """The messages of these numbers."""
        return self.recording.read(numbers)

    def end(self) -> None:
        """Do nothing: there are no files."""


class Disk:
    """What survives, by the store."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="amqpd-"))
        self._open()

    def _open(self) -> None:
        self.store = Store.open(self.directory, durability="process", now=START_MS // 1_000)
        self.filling = Journal()
        self.journal: JournalPort = self.filling
        self.first_number = self.store.first_number
        self.recovered = self.store.load(read_properties)

    def commit(self) -> int:
        """Commit the batch, and return its number."""
        batch = self.filling.take()
        batch.check()
        self.store.commit(batch)
        self.store.check()
        return batch.number

    def restart(
        self, last_number: int, redelivered: dict[int, list[int]] | None, bounds: dict[int, int]
    ) -> Recovered:
        """Start again; `redelivered` None is after a crash."""
        if redelivered is None:
            self.store.abandon()
        else:
            self.store.close(redelivered, bounds)
        self._open()
        return self.recovered

    def read(self, numbers: list[int]) -> list[Message]:
        """The messages of these numbers."""
        return self.store.fetch(numbers)

    def end(self) -> None:
        """Close the files."""
        self.store.abandon()
        shutil.rmtree(self.directory)


class QueueArgumentsMachine(RuleBasedStateMachine):
    """The vhost with its three queues, two connections with a channel each, and the model of both."""

    survivor: type[Double] | type[Disk] = Double

    def __init__(self) -> None:
        super().__init__()
        self.disk = self.survivor()
        self.wall = START_MS
        self.bodies = count(1)
        self.tags = count(1)
        self.lines = [SharedRoom(), SharedRoom()]
        self.held: Model = {name: {} for name in NAMES}
        self.safe: Model = {name: {} for name in NAMES}
        self.copies: list[Copy] = []
        self.arguments: dict[str, tuple[bool, dict[str, Any]]] = {}
        self.rejecting: set[int] = set()
        self.poisonous: set[int] = set()
        self.arriving: set[int] = set()
        self.steps_before_moving = 0
        self.next_number = self.disk.first_number
        self.start([])

    def teardown(self) -> None:
        self.disk.end()

    # Starting and stopping

    def start(self, definitions: Iterable[Any]) -> None:
        """A vhost of these definitions, as a new process has it: with a monotonic clock of its own."""
        self.clock = Clock(self.wall % 1_000, self.wall)
        self.page_store = PageStoreInMemory(self.disk.read, page_limits=SMALL_PAGES)
        self.page_store.safe_number = self.page_store.taken_number = self.next_number
        self.vhost = WatchedVhost(
            "/", self.disk.journal, self.take_number, self.take_number, self.clock, self.page_store)
        self.vhost.machine = self
        self.vhost.restore(definitions)
        self.channels = [WatchedSubscriber(self, line, number) for number, line in enumerate(self.lines)]
        self.consumers: list[Consumer] = []
        self.active: dict[str, Consumer] = {}       # of queues with a single active consumer
        self.owed: dict[tuple[str, int], Consumer] = {}
        self.copies = []

    def take_number(self) -> int:
        self.next_number += 1
        return self.next_number

    @initialize(
        source=queue_arguments(), resting=st.one_of(st.just((True, {})), queue_arguments()), durable=st.booleans(),
        drafts=DRAFTS)
    def begin(self, source: Any, resting: Any, durable: bool, drafts: list[Draft]) -> None:
        self.arguments = {"source": source, "target": resting, "other": (durable, {})}
        self.declare()
        self.save()
        self.publish_to(("source",), drafts)

    def declare(self) -> None:
        """Declare what is not there; what is there is equivalent."""
        self.vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "graves", "fanout", durable=True))
        for name, (durable, arguments) in self.arguments.items():
            definition = QueueDefinition(0, "/", name, durable=durable, arguments=arguments)
            self.vhost.declare_queue(OPERATOR, definition, owner=self)
        for name in FANOUT:
            self.vhost.bind(OPERATOR, BindingDefinition("/", "graves", "queue", name), owner=self)

    @property
    def queues(self) -> dict[str, Queue]:
        return self.vhost.queues

    def save(self) -> None:
        """A commit, as the committer does it."""
        self.move_dead_letters()
        self.page_store.committed_batch = self.disk.commit()
        self.page_store.safe_number = self.page_store.taken_number = self.next_number
        self.safe = {
            name: {number: copy(held) for number, held in held_here.items() if self.survives(name, held)}
            for name, held_here in self.held.items()}

    def survives(self, name: str, held: Held) -> bool:
        return self.queues[name].definition.durable and held.message.facts.persistent

    def move_dead_letters(self) -> None:
        self.vhost.worklist.work_off()
        assert not self.vhost.dead_letters.has_work
        assert not any(queue.dead_letters.aside for queue in self.queues.values()), "an error kept one from being moved"
        assert all(one.is_sure for one in self.copies), "a dead letter has not come"
        self.steps_before_moving = 0

    def end_step(self) -> None:
        """What a step made room for is handed out; dead letters are moved, unless the loop's turn goes on."""
        for line in self.lines:
            line.unblock()
        for queue in self.queues.values():
            queue.dispatch()
        self.read_on()
        if self.steps_before_moving:
            self.steps_before_moving -= 1
        else:
            self.move_dead_letters()

    def read_on(self) -> None:
        """Serve the readers of the page store, in turns, until none has anything to read."""
        fetched = -1
        while fetched != self.page_store.fetched:
            fetched = self.page_store.fetched
            self.page_store.serve()

    @rule(steps=st.integers(1, 3))
    def make_the_pass_longer(self, steps: int) -> None:
        self.steps_before_moving = steps

    @rule()
    def commit(self) -> None:
        self.save()

    @rule(downtime=st.sampled_from([0, 0, 25, 2_000, -20]))
    def stop_and_start(self, downtime: int) -> None:
        for consumer in self.consumers:
            consumer.queue.unsubscribe(consumer)
        self.consumers.clear()
        for name in NAMES:
            self.give_back(name, [number for queue, number in self.owed if queue == name])
        self.save()
        durable = [queue for queue in self.queues.values() if queue.definition.durable]
        told = {queue.definition.number: list(queue.redelivery.numbers) for queue in durable}
        self.restart(downtime, told, {queue.definition.number: queue.redelivery.bound for queue in durable})

    @rule(downtime=st.sampled_from([0, 0, 25, 2_000, -20]))
    def crash_and_start(self, downtime: int) -> None:
        self.restart(downtime, None, {})

    def restart(self, downtime: int, told: dict[int, list[int]] | None, bounds: dict[int, int]) -> None:
        self.wall += downtime
        recovered = self.disk.restart(self.next_number, told, bounds)
        assert recovered.damaged == 0
        self.next_number = max(self.next_number, self.disk.first_number)
        self.start(recovered.definitions)
        self.held, self.safe = self.safe, {}
        for queue in self.queues.values():
            number = queue.definition.number
            found = recovered.messages[number]
            self.comes_back(queue, self.disk.read(found.numbers.tolist()))
            if told is None:
                self.looks_delivered(
                    queue, recovered.redelivered_to.get(number, 0), recovered.redelivered.get(number, set()))
            queue.restore(
                found, recovered.redelivered.get(number, set()), recovered.redelivered_to.get(number, 0),
                recovered.deliveries.get(number, {}))
        self.read_on()
        self.vhost.worklist.work_off()
        self.declare()
        self.save()

    def comes_back(self, queue: Queue, messages: Sequence[Message]) -> None:
        """Check a restart: all stored messages are ready, and no expiry is later than before."""
        held_here = self.held[queue.name]
        found = [message.number for message in messages]
        assert found == sorted(held_here), f"lost or doubled by a restart: {found} of {held_here} in {queue.name}"
        for message in messages:
            held = held_here[message.number]
            assert message.body == held.message.body and message.properties == held.message.properties
            held.message = message
            held.state = State.READY
            if held.stored_end is not None:
                held.end = self.expiry_of(queue, message)
                held.end = held.stored_end if held.end is None else min(held.stored_end, held.end)

    def looks_delivered(self, queue: Queue, bound: int, marks: set[int]) -> None:
        """Check after a crash that all delivered messages are redelivered, and few others."""
        for number, held in self.held[queue.name].items():
            assert number <= bound or number in marks or not held.was_out, "it was delivered, and nobody knows"
            held.was_out = number <= bound or number in marks

    def expiry_of(self, queue: Queue, message: Message) -> int | None:
        """When a message that comes now ends."""
        lives = [ms for ms in (queue.rules.message_ttl_ms, message.facts.expiration_ms) if ms is not None]
        return self.wall + min(lives) if lives else None

    # What clients do

    @rule(drafts=DRAFTS, names=st.sampled_from([("source",)] * 4 + [("target",), ("source", "target")]))
    def publish(self, drafts: list[Draft], names: tuple[str, ...]) -> None:
        self.publish_to(names, drafts)
        self.end_step()

    def publish_to(self, names: tuple[str, ...], drafts: list[Draft]) -> None:
        """As a session does it: the whole run into one queue, then into the next."""
        where = route(names[0])
        run = []
        for draft in drafts:
            body = b"%08d" % next(self.bodies)
            content = pack_content(1, FRAME_MAX, draft.properties(), body.ljust(draft.size))
            run.append(Message(self.take_number(), where, read_properties(draft.properties()), content, draft.size))
        queues = [self.queues[name] for name in names]
        for message in run:
            note_holders(queues, [message])
        for queue in queues:
            outcome = queue.publish(run, is_timed=any(draft.expiration_ms is not None for draft in drafts))
            took = [message for message in run if message not in outcome.refused]
            is_kept = queue.definition.durable and any(message.facts.persistent for message in took)
            assert bool(outcome.batch) == is_kept

    @rule(
        name=st.sampled_from(["source", "source", "target"]), channel=st.integers(0, 1), prefetch=st.integers(0, 3),
        no_ack=st.sampled_from([False, False, True]), priority=st.integers(0, 1))
    def subscribe(self, name: str, channel: int, prefetch: int, no_ack: bool, priority: int) -> None:
        if len(self.consumers) >= 5:
            return
        consumer = Consumer(
            f"c{next(self.tags)}", self.queues[name], self.channels[channel], no_ack=no_ack, prefetch=prefetch,
            unacked_limit=6, arguments={"x-priority": priority})
        self.queues[name].subscribe(consumer)
        self.consumers.append(consumer)
        self.active.setdefault(name, consumer)
        self.end_step()

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        consumer = data.draw(st.sampled_from(self.consumers))
        name = consumer.queue.name
        consumer.queue.unsubscribe(consumer)
        self.consumers.remove(consumer)
        if self.active[name] is consumer:
            del self.active[name]
            others = [other for other in self.consumers if other.queue.name == name]
            if others:
                self.active[name] = max(others, key=lambda other: other.priority)
        self.end_step()

    @rule(line=st.integers(0, 1), room=st.sampled_from([0, -50, 1, 200, 500, PLENTY, PLENTY]))
    def change_room(self, line: int, room: int) -> None:
        self.lines[line].room = room
        self.end_step()

    @rule(name=st.sampled_from(NAMES), no_ack=st.booleans())
    def get(self, name: str, no_ack: bool) -> None:
        queue = self.queues[name]
        first = next(iter(self.in_line(queue)), None)
        try:
            message = queue.get(no_ack=no_ack)
        except MessageNotLoaded:
            self.save()     # a watermark has to be on disk first
            first = next(iter(self.in_line(queue)), None)
            message = queue.get(no_ack=no_ack)
        assert (message and message.number) == (first and first.message.number)
        if message is not None:
            self.goes_out(queue, message, Consumer("", queue, self.channels[0], no_ack=no_ack))
            if no_ack:
                queue.forget(message)
        self.end_step()

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        name, numbers = self.some_owed(data)
        run = self.answered(name, numbers)
        for number in numbers:
            del self.held[name][number]
        self.queues[name].settle(run)
        self.end_step()

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        name, numbers = self.some_owed(data)
        self.rejecting = set(numbers)
        self.queues[name].reject(self.answered(name, numbers))
        assert not self.rejecting
        self.end_step()

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        self.give_back(*self.some_owed(data))
        self.end_step()

    def give_back(self, name: str, numbers: list[int]) -> None:
        queue = self.queues[name]
        run = self.answered(name, numbers)
        limit = queue.rules.delivery_limit
        for number in numbers:
            held = self.held[name][number]
            held.failures += 1
            if limit is not None and held.failures > limit:
                self.poisonous.add(number)
            else:
                held.state = State.READY
        if run:
            queue.requeue(run)
        assert not self.poisonous

    def some_owed(self, data: st.DataObject) -> tuple[str, list[int]]:
        name = data.draw(st.sampled_from(sorted({name for name, _ in self.owed})))
        numbers = sorted(number for queue, number in self.owed if queue == name)
        return name, data.draw(st.lists(st.sampled_from(numbers), min_size=1, unique=True))

    def answered(self, name: str, numbers: list[int]) -> list[Message]:
        for number in numbers:
            consumer = self.owed.pop((name, number))
            if consumer.tag:
                assert isinstance(consumer.subscriber, WatchedSubscriber)
                answered(consumer, 1)
                consumer.subscriber.outstanding -= 1
        return [self.held[name][number].message for number in numbers]

    @rule(name=st.sampled_from(NAMES))
    def purge(self, name: str) -> None:
        ready = self.in_line(self.queues[name])
        assert self.vhost.purge_queue(OPERATOR, name, self).count == len(ready)
        for held in ready:
            del self.held[name][held.message.number]
        self.end_step()

    # What else happens

    @rule(disk=st.sampled_from(["takes", "takes", "is slow", "is full"]))
    def run_out_of_memory(self, disk: str) -> None:
        """All that can go to disk does, whether the disk takes what it is given now, later, or not at all."""
        for queue in self.queues.values():
            queue.pager.page_out(1 << 20)
        if disk != "is slow":
            self.page_store.write_spill_files(fails=disk == "is full")
        self.end_step()

    @rule(milliseconds=st.sampled_from([1, 5, 29, 40, 1_000, 6_000]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.clock.advance(self.clock.now_ms + milliseconds)
        assert self.clock.wall_ms == self.wall
        self.end_step()

    @rule(
        pattern=st.sampled_from(["^source$", "^target$", ""]), numbers=without_nones(
            **{key.replace("-", "_"): values for key, values in NUMBERS.items()}),
        dead_route=DEAD_LETTER_QUEUES, limit=sometimes(0, 2), is_operator=st.booleans(), is_sure=st.booleans())
    def set_policy(
        self, pattern: str, numbers: dict[str, Any], dead_route: dict[str, str], limit: int | None, is_operator: bool,
        is_sure: bool,
    ) -> None:
        definition = dict(numbers)
        if not is_operator:
            definition |= dead_route
            definition |= {"dead-letter-strategy": "at-least-once"} if is_sure else {}
        if limit is not None:
            definition["delivery-limit"] = limit
        if definition:
            self.vhost.followers.set_policy(
                PolicyDefinition("/", "the one", pattern, definition, is_operator=is_operator, apply_to="all"))
        self.end_step()

    @rule()
    def clear_policies(self) -> None:
        for is_operator in (False, True):
            if list(self.vhost.policies.listed(is_operator=is_operator)):
                self.vhost.followers.clear_policy("the one", is_operator=is_operator)
        self.end_step()

    # What the queues tell

    def comes(self, queue: Queue, run: Sequence[Message]) -> None:
        """These are being published here, by a client or as dead letters."""
        held_here = self.held[queue.name]
        for message in run:
            assert message.number not in held_here
            assert all(message.number > number for number in held_here), "numbers do not rise"
            end = self.expiry_of(queue, message)
            held_here[message.number] = Held(message, end, self.deaths_on_arrival(queue, message))
        self.arriving = {message.number for message in run}

    def deaths_on_arrival(self, queue: Queue, message: Message) -> tuple[Death, ...]:
        """Check that the headers of a dead letter have the deaths of the model, and that nothing else changed."""
        if not message.facts.headers:
            return ()
        headers = decode_table(message.facts.headers)
        told = tuple(self.told(headers["x-death"]))
        place = next((
            place for place, one in enumerate(self.copies)
            if one.target == queue.name and one.deaths == told and one.message.body == message.body), None)
        assert place is not None, "a dead letter that nobody waits for"
        found = self.copies.pop(place)
        assert all(
            one.is_sure or one.target != queue.name or one.died[0] != found.died[0] for one in self.copies[:place]
        ), "out of the order in which they died in one queue"
        before, now = found.message, message.facts
        assert (message.route.exchange, message.route.routing_key) == (found.exchange, found.routing_key)
        old = before.facts
        assert (now.persistent, now.priority, now.expiration_ms) == (old.persistent, old.priority, None)
        first = told[-1] if len(told) == 1 else None
        if first is not None:
            assert headers["x-first-death-queue"] == first.queue
            assert headers["x-first-death-reason"] == first.reason
            assert headers["x-first-death-exchange"] == first.exchange
        if found.is_sure and not any(one.died == found.died for one in self.copies):
            assert self.held[found.died[0]].pop(found.died[1]).state is State.MORTAL
        if found.is_sure:
            self.must_fit(queue, message)
        return told

    def told(self, entries: Any) -> Iterator[Death]:
        for entry in entries:
            assert abs(entry["time"] * 1_000 - self.wall) < 10**7
            expiration = entry.get("original-expiration")
            key, = entry["routing-keys"]
            yield Death(
                entry["queue"], entry["reason"], entry["count"], entry["exchange"], key,
                None if expiration is None else int(expiration))

    def must_fit(self, queue: Queue, message: Message) -> None:
        """What is kept until it is safe somewhere else is not sent where it is refused."""
        if queue.rules.overflow != DROP_HEAD:
            assert not is_full(queue.rules, len(queue.ready), queue.ready.body_bytes, message.body_size)

    def has_come(self, queue: Queue, refused: Sequence[Message]) -> None:
        """What was refused found the queue full, and is nowhere in it."""
        numbers = {message.number for message in refused}
        assert numbers <= self.arriving
        assert not refused or queue.rules.overflow != DROP_HEAD
        held_here = self.held[queue.name]
        for number in numbers:
            held_here.pop(number, None)
        ready = self.in_line(queue)
        octets = sum(held.message.body_size for held in ready)
        for message in refused:
            assert is_full(queue.rules, len(ready), octets, message.body_size), "refused without need"
        taken = [held for held in ready if held.message.number in self.arriving]
        if queue.rules.overflow != DROP_HEAD and taken:
            assert not is_full(queue.rules, len(ready) - 1, octets, 0), "taken beyond the limits"
        self.arriving = set()

    def dies(self, queue: Queue, run: Sequence[Message], reason: str) -> None:
        """These leave, for a reason that has to hold."""
        for message in run:
            number = message.number
            held = self.held[queue.name][number]
            if reason == "rejected":
                self.rejecting.remove(number)
                assert held.state is State.UNACKED
            elif reason == "delivery_limit":
                self.poisonous.remove(number)
                assert held.state is State.UNACKED
            elif reason == "expired":
                assert held.state is State.READY
                assert held.end is not None and held.end <= self.wall, "ended early"
            elif queue.rules.overflow == REJECT_PUBLISH_DLX:
                assert number in self.arriving
            else:
                self.check_drop(queue, held)
            self.send_on(queue, held, reason)

    def check_drop(self, queue: Queue, held: Held) -> None:
        rules, ready = queue.rules, self.in_line(queue)
        assert rules.overflow == DROP_HEAD
        assert ready[0] is held, "dropped from the middle"
        octets = sum(other.message.body_size for other in ready)
        assert is_full(rules, len(ready) - 1, octets, 0), "dropped without need"

    def send_on(self, queue: Queue, held: Held, reason: str) -> None:
        """Note where copies of a dead message have to come."""
        rules, message = queue.rules, held.message
        deaths = with_death(held, queue.name, reason)
        key = message.route.routing_key if rules.dead_letter_routing_key is None else rules.dead_letter_routing_key
        targets: tuple[str, ...] = ()
        if rules.dead_letter_exchange == "":
            targets = (key,) if key in NAMES else ()
        elif rules.dead_letter_exchange == "graves":
            targets = FANOUT
        targets = tuple(name for name in targets if name in self.queues)
        if reason != "rejected":
            targets = tuple(name for name in targets if not comes_back_by_itself(deaths, name))
        is_sure = rules.is_at_least_once and bool(targets)
        for name in targets:
            assert rules.dead_letter_exchange is not None
            self.copies.append(Copy(
                name, message, rules.dead_letter_exchange, key, deaths, (queue.name, message.number), is_sure))
        if is_sure:
            held.state = State.MORTAL
        else:
            del self.held[queue.name][message.number]

    def delivered(self, consumer: Consumer, run: Sequence[Message]) -> None:
        """The consumer was to have these, in this order, before all that still wait."""
        queue = consumer.queue
        assert consumer in self.consumers
        if queue.rules.single_active_consumer:
            assert consumer is self.active[queue.name], "not the active consumer"
        places = [self.place(queue, message) for message in run]
        came_just_now = {message.number for message in run} <= self.arriving
        assert places == sorted(places) or (came_just_now and not queue.ready), "out of order"
        waiting = self.messages(queue, queue.ready.numbers())
        assert not waiting or max(places) < min(self.place(queue, message) for message in waiting)
        for message in run:
            self.goes_out(queue, message, consumer)

    def goes_out(self, queue: Queue, message: Message, consumer: Consumer) -> None:
        held = self.held[queue.name][message.number]
        assert (held.message.content, held.message.facts.headers) == (message.content, message.facts.headers)
        held.message = message
        assert held.state is State.READY, "delivered twice"
        is_new = message.number in self.arriving
        assert held.end is None or self.wall < held.end or (is_new and held.end == self.wall), "delivered after its end"
        assert queue.redelivery.is_redelivered(message) == held.was_out, "redelivered is wrong"
        assert queue.redelivery.deliveries.get(message.number, 0) == held.failures
        if consumer.no_ack:
            del self.held[queue.name][message.number]
            return
        held.state, held.was_out = State.UNACKED, True
        self.owed[queue.name, message.number] = consumer

    # What always holds

    def messages(self, queue: Queue, numbers: Iterable[int]) -> list[Message]:
        """Messages of a queue, as the model has them."""
        return [self.held[queue.name][number].message for number in numbers]

    def place(self, queue: Queue, message: Message) -> tuple[int, int]:
        """Where in the order of a queue a message stands."""
        return -min(message.facts.priority or 0, queue.rules.max_priority), message.number

    def in_line(self, queue: Queue) -> list[Held]:
        """What is ready, in order."""
        ready = [held for held in self.held[queue.name].values() if held.state is State.READY]
        return sorted(ready, key=lambda held: self.place(queue, held.message))

    @invariant()
    def all_hold_their_own_promises(self) -> None:
        self.vhost.check()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        for name, queue in self.queues.items():
            ready = self.in_line(queue)
            assert queue.ready.numbers() == [held.message.number for held in ready]
            unacked = [number for number, held in self.held[name].items() if held.state is State.UNACKED]
            assert queue.unacked == len(unacked)
            assert sorted(unacked) == sorted(number for owing, number in self.owed if owing == name)

    @invariant()
    def nothing_waits_beyond_its_end_or_the_limits(self) -> None:
        for queue in self.queues.values():
            ready = self.in_line(queue)
            assert all(held.end is None or held.end > self.wall for held in ready), "waits after its end"
            if queue.rules.overflow == DROP_HEAD:
                octets = sum(held.message.body_size for held in ready)
                assert not ready or not is_full(queue.rules, len(ready) - 1, octets, 0)

    @invariant()
    def the_journal_has_what_must_survive(self) -> None:
        if not isinstance(self.disk, Double) or self.vhost.dead_letters.has_work:
            return
        now = self.disk.recording.now
        for name, queue in self.queues.items():
            kept = {number: held for number, held in self.held[name].items() if self.survives(name, held)}
            number = queue.definition.number
            assert now.messages.get(number, {}).keys() == kept.keys()
            assert now.expiries.get(number, {}) == {
                number: held.stored_end for number, held in kept.items() if held.stored_end is not None}
            assert now.deliveries.get(number, {}) == {
                number: held.failures for number, held in kept.items() if held.failures}


class StoreArgumentsMachine(QueueArgumentsMachine):
    """The same on a store."""

    survivor = Disk


pytestmark = pytest.mark.timeout(300)       # 400 programs on a busy machine
TestQueueArguments = QueueArgumentsMachine.TestCase
TestQueueArgumentsOnDisk = StoreArgumentsMachine.TestCase
if PROFILE != "deep":
    TestQueueArguments.settings = settings(max_examples=sized(50, 400), stateful_step_count=30)
    TestQueueArgumentsOnDisk.settings = settings(max_examples=sized(20, 120), stateful_step_count=25)
