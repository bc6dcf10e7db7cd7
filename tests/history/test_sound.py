"""Correct histories, made by a small model of a broker: the checker reports nothing.

The disk of the model is a snapshot: a crash undoes what happened since the last snapshot, and what a snapshot has is
confirmed. Deliveries stay unread for a while, clients disconnect with unread deliveries, and the wall clock is set at
restarts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.history import judge
from tests.history.events import Death, Rules
from tests.history.story import Story, Talk

MS = 1_000
QUEUES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": ((), {}),
    "fleeting": ((), {"durable": False}),
    "urgent": ((), {"max_priority": 3}),
    "short": (("dead",), {"ttl_ms": 40}),
    "small": (("dead", "grave"), {"max_length": 3}),
    "strict": ((), {"max_length": 3, "overflow": "reject-publish"}),
    "single": ((), {"single_active": True}),
    "mortal": (("dead", "grave"), {}),
    "dead": (("ashes",), {"ttl_ms": 100}),
    "ashes": ((), {}),
    "grave": ((), {}),
}
ROUTES = (("plain",), ("plain", "mortal"), ("urgent",), ("short",), ("small",), ("strict",), ("single",), ("mortal",),
          ("fleeting", "plain"), ())


@dataclass
class Entry:
    """A copy in a queue."""

    id: str
    place: int
    priority: int
    persistent: bool
    ttl: int | None = None          # µs
    wall_end: int = 0
    end: float = float("inf")
    deaths: tuple[Death, ...] = ()
    redelivered: bool = False


@dataclass
class Consumer:
    """Who takes from one queue, on a connection of its own."""

    talk: Talk
    queue: str
    prefetch: int
    sent: list[tuple[Entry, bool]] = field(default_factory=list)    # not read yet, and how it was flagged
    held: list[Entry] = field(default_factory=list)                 # read

    @property
    def has_credit(self) -> bool:
        return not self.prefetch or len(self.sent) + len(self.held) < self.prefetch


class PerfectBroker:
    """A broker that keeps all promises, and writes a history."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.story = Story()
        self.rules = {name: Rules(**rules) for name, (_, rules) in QUEUES.items()}
        self.ready: dict[str, list[Entry]] = {name: [] for name in QUEUES}
        self.disk: dict[str, list[Entry]] = {name: [] for name in QUEUES}
        self.publishers: list[Talk] = []
        self.consumers: list[Consumer] = []
        self.waiting: list[tuple[Talk, int, bool]] = []     # unanswered publishes: the last number, whether taken
        self.shift = self.places = 0
        self.declare()

    def declare(self) -> None:
        for name, (dead_to, rules) in QUEUES.items():
            self.story.declare(name, *dead_to, **rules)
        self.publishers = [self.story.connect() for _ in range(2)]

    # Queues

    def publish(self) -> None:
        talk, to = self.rng.choice(self.publishers), self.rng.choice(ROUTES)
        persistent, priority = self.rng.random() < 0.8, self.rng.randrange(6)
        ttl_ms = self.rng.choice((None, None, None, 0, 30, 60_000))
        id = talk.publish(*to, confirmed=False, persistent=persistent, priority=priority, ttl_ms=ttl_ms,
                          mandatory=not to)
        if not to:
            talk.note("info", "return", id=id)
        self.expire()
        refused = any(self.rules[name].overflow == "reject-publish" and len(self.ready[name]) >= 3 for name in to)
        self.waiting.append((talk, talk.published, not refused))
        for name in () if refused else to:
            self.enter(name, Entry(id, 0, min(priority, self.rules[name].max_priority), persistent), ttl_ms)

    def enter(self, name: str, entry: Entry, ttl_ms: int | None = None) -> None:
        ttls = [ttl for ttl in (ttl_ms, self.rules[name].ttl_ms) if ttl is not None]
        self.places += 1
        entry = replace(entry, place=self.places)
        if ttls:
            entry.ttl = min(ttls) * MS
            entry.end = self.story.now + entry.ttl
            entry.wall_end = self.story.now + entry.ttl + self.shift
        self.ready[name].append(entry)
        self.dispatch(name)
        most, overflow = self.rules[name].max_length, self.rules[name].overflow
        if most is not None and overflow == "drop-head":
            while len(self.ready[name]) > most:
                self.die(name, self.ready[name].pop(0), "maxlen")

    def die(self, name: str, entry: Entry, reason: str) -> None:
        for target in QUEUES[name][0]:
            deaths = (Death(name, reason, 1), *entry.deaths)
            self.enter(target, Entry(entry.id, 0, 0, entry.persistent, deaths=deaths))

    def expire(self) -> None:
        for name in QUEUES:
            while due := [entry for entry in self.ready[name] if entry.end <= self.story.now]:
                self.ready[name].remove(due[0])
                self.die(name, due[0], "expired")

    def dispatch(self, name: str) -> None:
        self.expire()
        consumers = [consumer for consumer in self.consumers if consumer.queue == name]
        if self.rules[name].single_active:
            consumers = consumers[:1]
        while self.ready[name] and (free := [consumer for consumer in consumers if consumer.has_credit]):
            entry = min(self.ready[name], key=lambda entry: (-entry.priority, entry.place))
            self.ready[name].remove(entry)
            self.rng.choice(free).sent.append((entry, entry.redelivered))
            entry.redelivered = True

    def back(self, name: str, entries: list[Entry]) -> None:
        self.ready[name] = sorted(self.ready[name] + entries, key=lambda entry: entry.place)

    # Clients

    def consume(self) -> None:
        consumer = Consumer(self.story.connect(), self.rng.choice(list(QUEUES)), self.rng.choice((0, 1, 3)))
        consumer.talk.consume(consumer.queue, prefetch=consumer.prefetch)
        self.consumers.append(consumer)
        self.dispatch(consumer.queue)

    def read(self, consumer: Consumer, *, most: int = 100) -> None:
        for entry, redelivered in consumer.sent[:most]:
            consumer.talk.deliver(entry.id, consumer.queue, *entry.deaths, redelivered=redelivered)
            consumer.held.append(entry)
        del consumer.sent[:most]

    def answer(self, consumer: Consumer) -> None:
        entry = consumer.held.pop(self.rng.randrange(len(consumer.held)))
        die = self.rng.random()
        if die < 0.6:
            consumer.talk.ack(entry.id)
        else:
            consumer.talk.nack(entry.id, requeue=die < 0.8)
            if die < 0.8:
                self.back(consumer.queue, [entry])
            else:
                self.expire()
                self.die(consumer.queue, entry, "rejected")
        self.dispatch(consumer.queue)

    def leave(self, consumer: Consumer) -> None:
        self.consumers.remove(consumer)
        consumer.talk.note("invoke", "channel")
        returned = consumer.held + [entry for entry, _ in consumer.sent]
        self.read(consumer, most=self.rng.randrange(3))
        self.back(consumer.queue, returned)
        self.dispatch(consumer.queue)
        consumer.talk.note("ok", "channel")

    # Disk

    def commit(self) -> None:
        self.expire()
        for name in QUEUES:
            entries = self.ready[name] + [entry for consumer in self.consumers if consumer.queue == name for entry in (
                *consumer.held, *(entry for entry, _ in consumer.sent))]
            self.disk[name] = [
                replace(entry) for entry in sorted(entries, key=lambda entry: entry.place)
                if entry.persistent and self.rules[name].durable]
        for talk, number, is_taken in self.waiting:
            if is_taken:
                talk.confirm(number)
            else:
                talk.refuse(number)
        self.waiting.clear()

    def crash(self) -> None:
        if self.rng.random() < 0.3:
            self.commit()
            self.story.note("invoke", "stop")
            self.story.note("ok", "stop")
        else:
            self.story.kill()
        for consumer in self.consumers:
            self.read(consumer, most=self.rng.randrange(3))
        self.story.wait(self.rng.choice((0, 0.05)))
        self.shift = self.rng.choice((0, 0, 3_600_000, -3_600_000)) * MS
        self.story.start(self.shift // MS)
        self.waiting.clear()
        self.consumers.clear()
        now = self.story.now
        for name in QUEUES:
            self.ready[name] = [replace(entry, redelivered=True) for entry in self.disk[name]]
            for entry in self.ready[name]:
                if entry.ttl is not None:
                    entry.end = now + min(entry.ttl, max(0, entry.wall_end - (now + self.shift)))
        self.declare()
        self.expire()
        self.commit()

    # The whole

    def steps(self, count: int) -> Iterator[None]:
        for _ in range(count):
            reading = [consumer for consumer in self.consumers if consumer.sent]
            holding = [consumer for consumer in self.consumers if consumer.held]
            self.step(self.rng.random(), reading, holding)
            yield

    def step(self, die: float, reading: list[Consumer], holding: list[Consumer]) -> None:
        if die < 0.35:
            self.publish()
        elif die < 0.45:
            self.consume()
        elif die < 0.6 and reading:
            self.read(self.rng.choice(reading), most=self.rng.randint(1, 3))
        elif die < 0.85 and holding:
            self.answer(self.rng.choice(holding))
        elif die < 0.9 and self.consumers:
            self.leave(self.rng.choice(self.consumers))
        elif die < 0.94:
            self.commit()
        elif die < 0.97:
            self.commit()
            for consumer in reading:
                self.read(consumer)
            self.story.wait(self.rng.choice((0.01, 0.1, 3)))
        else:
            self.crash()

    def drain(self) -> None:
        self.commit()
        for consumer in list(self.consumers):
            self.leave(consumer)
        for name in QUEUES:
            self.expire()
            taker = Consumer(self.story.connect(), name, 0)
            self.story.note("invoke", "drain", queue=name)
            taker.talk.note("ok", "count", queue=name, count=len(self.ready[name]), is_at_rest=True)
            taker.talk.consume(name)
            self.consumers.append(taker)
            self.dispatch(name)
            self.read(taker)
            while taker.held:
                taker.talk.ack(taker.held.pop().id)
            self.story.note("ok", "drain", queue=name)
        self.commit()


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 200))
def test_a_sound_history_passes(seed: int, count: int) -> None:
    broker = PerfectBroker(seed)
    for _ in broker.steps(count):
        pass
    broker.drain()
    assert not judge(broker.story.events)
