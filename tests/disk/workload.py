"""Random small work on a store, as a broker does it, and what a later start must find.

A `Workload` keeps the states that were confirmed and the state that was begun, to compare them with what a later start
finds. On a recording disk it marks both, so that for each moment the allowed states are known.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from amqpd.broker.definitions import BindingDefinition, Defined, Definition, Deleted, QueueDefinition
from amqpd.message import Message
from amqpd.store.errors import StoreFull
from amqpd.store.journal import Journal
from amqpd.store.port import Durability
from amqpd.store.sqlite.limits import LARGEST_WAL, StoreLimits
from amqpd.store.rows.message_blocks import BlockLimits
from amqpd.store.sqlite.store import Store
from tests.store.store_samples import NOW, contents
from tests.store.store_samples import load as load_whole
from tests.store.store_samples import message, queue, settle
from tests.support.disk import Act, Disk

MOST_QUEUES = 4
SIZES = (0, 20, 20, 300, 300, 3_000, 15_000)
LARGE_BODY = 2_500      # bytes, so that the larger ones of these are written before their messages, in parts
PART_BYTES = 4_000


class Held(NamedTuple):
    """A message in a queue, as it must come back."""

    message: tuple[int, str, str, bytes, bytes]
    expires_at: int | None
    deliveries: int


class State(NamedTuple):
    """What a start must find; `redelivered` are the places of what may have been delivered."""

    definitions: tuple[Definition, ...] = ()
    messages: tuple[tuple[tuple[int, int], Held], ...] = ()
    redelivered: frozenset[tuple[int, int]] = frozenset()


EMPTY = State()


class Begun(NamedTuple):
    """A request to the store that leads to this state; None for a start, which changes no message."""

    state: State | None


class Confirmed(NamedTuple):
    """A state that the store has confirmed."""

    state: State


def load(store: Store) -> tuple[State, int]:
    """Return what a start restores, and how many damaged messages there are."""
    recovered = load_whole(store)
    held = {}
    for number, run in recovered.messages.items():
        assert [m.number for m in run] == sorted({m.number for m in run}), "out of order, or twice in a queue"
        for m, content in zip(run, contents(run)):
            held[number, m.number] = Held(
                content, recovered.expiries.get(number, {}).get(m.number),
                recovered.deliveries.get(number, {}).get(m.number, 0))
    redelivered = {(number, one) for number, numbers in recovered.redelivered.items() for one in numbers}
    found = State(_in_order(recovered.definitions), tuple(sorted(held.items())), frozenset(redelivered))
    return found, recovered.damaged


def _in_order(definitions: Iterable[Definition]) -> tuple[Definition, ...]:
    return tuple(sorted(definitions, key=lambda definition: (type(definition).__name__, str(definition))))


def acceptable(acts: Iterable[Act], before: State = EMPTY) -> list[State]:
    """What may be found after these acts: what was confirmed last, and what was begun since."""
    states = [before]
    for act in acts:
        if act.kind == "mark":
            state = act.value.state or states[0]
            states = [state] if isinstance(act.value, Confirmed) else [*states, state]
    return states


class Workload:
    """Brokers one after the other on a directory; `random` decides what they do.

    `state` is what is confirmed; `published` has, by number, all messages since the last start.
    """

    def __init__(
        self, directory: Path, seed: object, disk: Disk | None = None, *, largest_wal: int = LARGEST_WAL
    ) -> None:
        self.directory = directory
        self.random = random.Random(repr(seed))
        self.state = EMPTY
        self.begun: State | None = None
        self.is_open = self.is_loaded = False
        self._disk = disk
        # Two messages of a batch share a row already, so that some do, and some do not.
        self._limits = StoreLimits(
            largest_wal=largest_wal, large_body=LARGE_BODY, part_bytes=PART_BYTES, blocks=BlockLimits(fewest=2))
        self._queues: dict[int, QueueDefinition] = {}
        self._bindings: list[BindingDefinition] = []
        self._held: dict[tuple[int, int], Held] = {}
        self.published: dict[int, Message] = {}
        self._seen: frozenset[tuple[int, int]] = frozenset()
        self._watermarks: dict[int, int] = {}

    # Start and stop

    def open(self, durability: Durability = "power") -> State:
        """Start a broker; return what it restored, with which the work continues."""
        self._begin(None)
        self.is_loaded = False
        self.store = Store.open(self.directory, durability=durability, now=NOW, limits=self._limits)
        self.is_open = True
        found, set_aside = load(self.store)
        assert not set_aside, "a message was set aside"
        assert all(number < self.store.first_number for number in self.published), "a number might be used twice"
        self._queues = {d.number: d for d in found.definitions if isinstance(d, QueueDefinition)}
        self._bindings = [d for d in found.definitions if isinstance(d, BindingDefinition)]
        self._held = dict(found.messages)
        self._seen, self._watermarks = found.redelivered, {}
        self.published = {held.message[0]: message(held.message[0], held.message[4]) for held in self._held.values()}
        self._next_number = self.store.first_number
        self.journal = Journal(part_bytes=PART_BYTES)
        self.journal.bodies.release = self.store.release_body
        self._confirm(found)
        self.is_loaded = True
        return found

    def close(self) -> None:
        """Stop cleanly; some messages count as delivered."""
        told = frozenset(place for place in self._held if place in self._seen or self.random.random() < 0.3)
        self._begin(self.state._replace(redelivered=told))
        self.store.close({number: {one for queue, one in told if queue == number} for number in self._queues})
        self.is_open = self.is_loaded = False
        self._confirm(self.state._replace(redelivered=told))

    def abandon(self) -> None:
        """End as after a failure."""
        self.is_open = self.is_loaded = False
        self.store.abandon()

    # Work

    def commit_some(self, count: int) -> None:
        """Record and commit so many batches; after a full disk the same one again."""
        for _ in range(count):
            self.fill()
            self.commit()

    def commit(self) -> None:
        """Commit what the journal holds."""
        self._begin(self._now())
        batch = self.journal.take()
        try:
            self.store.commit(batch)
        except StoreFull:
            self.store.commit(batch)
        self._confirm(self._now())
        with suppress(StoreFull):
            self.store.checkpoint_if_due()

    def fill(self) -> None:
        """Record a batch: something of each kind, or of some."""
        while len(self._queues) < 2:
            self._declare()
        choose = self.random.random
        if choose() < 0.15:
            self._declare() if len(self._queues) < MOST_QUEUES else self._delete()
        self._publish(self.random.choice((1, 2, 3, 4, 20)))
        if self._held and choose() < 0.6:
            self._settle()
        if self._held and choose() < 0.4:
            self._requeue()
        if self._held and choose() < 0.3:
            self._watermark()

    def _now(self) -> State:
        definitions = _in_order([*self._queues.values(), *self._bindings])
        redelivered = frozenset(
            (queue, number) for queue, number in self._held
            if (queue, number) in self._seen or number <= self._watermarks.get(queue, 0))
        return State(definitions, tuple(sorted(self._held.items())), redelivered)

    def _begin(self, state: State | None) -> None:
        self.begun = state
        if self._disk is not None:
            self._disk.mark(Begun(state))

    def _confirm(self, state: State) -> None:
        self.state, self.begun = state, None
        if self._disk is not None:
            self._disk.mark(Confirmed(state))

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number

    def _declare(self) -> None:
        definition = queue(self._take_number())
        binding = BindingDefinition("/", "amq.topic", "queue", definition.name, f"key-{definition.number}")
        self._queues[definition.number] = definition
        self._bindings.append(binding)
        self.journal.changed(Defined(definition))
        self.journal.changed(Defined(binding))

    def _delete(self) -> None:
        gone = self._queues.pop(self.random.choice(sorted(self._queues)))
        binding = next(binding for binding in self._bindings if binding.destination == gone.name)
        self._bindings.remove(binding)
        self.journal.changed(Deleted(binding))
        self.journal.changed(Deleted(gone))
        self._held = {place: held for place, held in self._held.items() if place[0] != gone.number}

    def _publish(self, count: int) -> None:
        numbers = self.random.sample(sorted(self._queues), self.random.choice((1, 1, 2)))
        holders = len(numbers) if len(numbers) > 1 else 0
        run = [self._message(holders) for _ in range(count)]
        run = [self._write(m) if m.body_size > LARGE_BODY and self.random.random() < 0.5 else m for m in run]
        for number in numbers:
            expiries = {m.number: NOW * 1000 + m.number % 1000 for m in run if self.random.random() < 0.2}
            self.journal.published(self._queues[number], run, expiries or None)
            for m, content in zip(run, contents(run)):
                self._held[number, m.number] = Held(content, expiries.get(m.number), 0)

    def _write(self, sent: Message) -> Message:
        """Write the body of a message that is about to be published; some are dropped on the way, and begun again.

        Some messages are recorded without it after all, so that nothing needs the parts.
        """
        body = self.journal.write_body(sent)
        if self.random.random() < 0.2:
            self._write_piece()
            body.end()
            body = self.journal.write_body(sent)
        while not body.is_done:
            self._write_piece()
        if self.random.random() < 0.1:
            return sent
        return sent.with_stored_body(body.stored)

    def _write_piece(self) -> None:
        piece = self.journal.bodies.next_piece()
        assert piece is not None
        try:
            self.store.write_body(piece)
        except StoreFull:
            self.store.write_body(piece)
        piece.end()
        with suppress(StoreFull):
            self.store.checkpoint_if_due()

    def _message(self, holders: int) -> Message:
        body = self.random.randbytes(self.random.choice(SIZES))
        made = message(self._take_number(), body, holders=holders)
        self.published[made.number] = made
        return made

    def _some(self) -> tuple[QueueDefinition, list[Message]]:
        number, _ = self.random.choice(sorted(self._held))
        numbers = [one for queue_number, one in sorted(self._held) if queue_number == number]
        first = self.random.randrange(len(numbers))
        return self._queues[number], [self.published[one] for one in numbers[first : first + 4]]

    def _settle(self) -> None:
        definition, run = self._some()
        settle(self.journal, definition, run)
        for m in run:
            del self._held[definition.number, m.number]

    def _watermark(self) -> None:
        number, last = self.random.choice(sorted(self._held))
        if last > self._watermarks.get(number, 0):
            self._watermarks[number] = last
            self.journal.watermark_raised(self._queues[number], last)

    def _requeue(self) -> None:
        definition, run = self._some()
        for m in run:
            held = self._held[definition.number, m.number]
            self._held[definition.number, m.number] = held._replace(deliveries=held.deliveries + 1)
        self.journal.requeued(
            definition, {m.number: self._held[definition.number, m.number].deliveries for m in run})
