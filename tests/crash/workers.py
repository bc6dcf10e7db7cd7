"""The clients that keep the broker busy until it is killed: publishers, consumers, and one that declares and deletes.

Each is a thread with its own connections. Its witness writes down what it does; nothing is checked here.
"""

from __future__ import annotations

import itertools
import random
import threading
import traceback
from collections.abc import Collection
from typing import Any

from pamqp.base import Frame
from pamqp.commands import Exchange, Queue

from tests.crash.crash_client import Refused
from tests.crash.witness import Witness, rules_of
from tests.history.events import History

STOPPED = 320                           # the reply code of a broker that is being stopped
MOST_WAITING = 1_500                    # entries in queues beyond which publishers pause
LARGEST_BODY = 3 << 20          # some are written to the store in parts, before their messages
RECEIPT_EVERY = 30                      # answers
DEAD = ("dead left", "dead right")
FANOUT, TOPIC, DLX = "both", "by topic", "dead letters"
DYING: dict[str, Any] = {"x-dead-letter-exchange": DLX}

# Queues whose messages go nowhere come last: a census looks at them first.
QUEUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "left": {},
    "right": {},
    "topical": {},
    "urgent": {"x-max-priority": 5},
    "short": {"x-message-ttl": 40} | DYING,
    "small": {"x-max-length": 20} | DYING,
    "strict": {"x-max-length": 20, "x-overflow": "reject-publish"},
    "single": {"x-single-active-consumer": True},
    "mortal": DYING,
    **{name: {} for name in DEAD},
}
MORTAL = ("short", "mortal")            # where messages end by themselves
TRANSIENT_QUEUE = "transient"

Way = tuple[str, str, tuple[str, ...]]      # exchange, routing key, the queues it leads to
WAYS: tuple[Way, ...] = (
    (FANOUT, "", ("left", "right")),
    (TOPIC, "a.b.c", ("topical",)),
    *(("", name, (name,)) for name in ("plain", "urgent", "short", "small", "strict", "single", "mortal")),
)
Key = tuple[str, str]                       # kind and name; a binding's is "exchange -> queue"
STATIC: tuple[tuple[str, Key, Frame], ...] = (
    *(("declare", ("exchange", name), Exchange.Declare(0, name, type, durable=True))
      for name, type in ((FANOUT, "fanout"), (TOPIC, "topic"), (DLX, "fanout"))),
    *(("declare", ("queue", name), Queue.Declare(0, name, durable=True, arguments=arguments))
      for name, arguments in QUEUES.items()),
    *(("bind", ("binding", f"{exchange} -> {queue}"), Queue.Bind(0, queue, exchange, key))
      for exchange, queue, key in (
        (FANOUT, "left", ""), (FANOUT, "right", ""), (TOPIC, "topical", "a.#"), *((DLX, name, "") for name in DEAD))),
    ("declare", ("queue", TRANSIENT_QUEUE), Queue.Declare(0, TRANSIENT_QUEUE)),
)


def declare_static(witness: Witness) -> None:
    """Declare and bind all that is there in every life."""
    for act, (kind, name), method in STATIC:
        what: dict[str, Any] = {}
        if isinstance(method, Queue.Declare):
            what = {"rules": rules_of(method), "dead_to": DEAD if "x-dead-letter-exchange" in method.arguments else ()}
        witness.change(act, method, kind, name, **what)


class Work:
    """What all workers of one life share. `end` is called when a moment has come, or something is wrong."""

    def __init__(self, history: History, port: int, rng: random.Random, there: Collection[Key], backlog: int) -> None:
        self.history = history
        self.port = port
        self.rng = rng
        self.there = set(there)             # of what changes, what is known to be there
        self.backlog = backlog              # entries published and not answered, about
        self.failures: list[str] = []
        self.ended = threading.Event()      # from here on losing the broker is in order
        self.due = threading.Event()        # it is time
        self.confirms = self.declarations = 0
        self.most_confirms = self.most_declarations = float("inf")

    def fail(self, text: str) -> None:
        """A client met with something that should not be."""
        self.failures.append(text)
        self.due.set()

    def on_confirm(self) -> None:
        """Note that a publisher has received a confirm."""
        self.confirms += 1
        if self.confirms >= self.most_confirms:
            self.due.set()

    def on_declaration(self) -> None:
        """Note that the definer has received an answer."""
        self.declarations += 1
        if self.declarations >= self.most_declarations:
            self.due.set()


class Worker(threading.Thread):
    """A client that works until the broker is killed."""

    _numbers = itertools.count(1)

    def __init__(self, work: Work, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.work = work
        self.rng = random.Random(work.rng.random())

    def run(self) -> None:
        """Work on one connection after the other; only the end of the broker excuses the end of one."""
        while not self.work.ended.is_set():
            try:
                witness = Witness.connect(self.work.history, f"{self.name}/{next(self._numbers)}", self.work.port)
            except (OSError, Refused) as error:
                return self.excuse(error)
            try:
                self.live(witness)
                witness.close()
            except (OSError, Refused) as error:
                witness.lost(error)
                return self.excuse(error)
            except Exception as error:
                witness.lost(error)
                return self.work.fail(f"{self.name}: {traceback.format_exc()}")

    def excuse(self, error: Exception) -> None:
        """Complain, unless the broker has ended or is ending."""
        if not self.work.ended.is_set() or (isinstance(error, Refused) and error.code != STOPPED):
            self.work.fail(f"{self.name}: {error!r}")

    def live(self, witness: Witness) -> None:
        """What is done on one connection; it is closed in the end."""
        raise NotImplementedError

    def body(self) -> bytes:
        """Often nothing or little, at times a mebibyte."""
        die = self.rng.random()
        if die < 0.1:
            return b""
        most = 1_000 if die < 0.85 else 10_000 if die < 0.98 else 100_000 if die < 0.998 else LARGEST_BODY
        return self.rng.randbytes(self.rng.randint(1, most))


class Publisher(Worker):
    """Publishes in all ways, with at most `window` unconfirmed."""

    def __init__(self, work: Work, name: str, window: int) -> None:
        super().__init__(work, name)
        self._window = window

    def live(self, witness: Witness) -> None:
        """Publish while the backlog is small, and read answers; open a new channel from time to time."""
        while True:
            may_publish = len(witness.unconfirmed) < self._window and self.work.backlog < MOST_WAITING
            if may_publish:
                self.publish(witness)
            event = witness.take(0 if may_publish else 0.01)
            if event and event.act == "publish":
                self.work.on_confirm()
            if self.rng.random() < 0.001:
                witness.close_channel()
            if self.rng.random() < 0.002:
                witness.count(self.rng.choice(("small", "strict")), is_at_rest=False)

    def publish(self, witness: Witness) -> None:
        """One message, of any kind."""
        if self.rng.random() < 0.01:
            witness.publish("", "nowhere", (), self.body(), mandatory=True)
            return
        exchange, key, to = self.rng.choice(WAYS)
        self.work.backlog += len(to)
        witness.publish(
            exchange, key, to, self.body(), persistent=self.rng.random() < 0.9,
            priority=self.rng.choice((None, 0, 1, 5, 9)),
            ttl_ms=self.rng.choice((20, 60_000)) if to == ("mortal",) and self.rng.random() < 0.3 else None)


class Consumer(Worker):
    """Answers what it is given in every way there is, and publishes a receipt now and then.

    The receipt's confirm proves the answers before it: they were in the same batch or an earlier one.
    """

    def __init__(self, work: Work, name: str, queues: tuple[str, ...]) -> None:
        super().__init__(work, name)
        self._queues = queues
        self._waiting: list[int] = []
        self._unproved = 0

    def live(self, witness: Witness) -> None:
        """Consume until it is time for another connection."""
        while True:
            self._waiting.clear()
            for queue in self._queues:
                witness.consume(queue, prefetch=self.rng.choice((1, 10, 100)))
            while (die := self.rng.random()) > 0.003:
                self.take_one(witness)
            if die < 0.001:
                return
            witness.close_channel()

    def take_one(self, witness: Witness) -> None:
        """Read the next delivery, and ack the deliveries so far if it is time."""
        event = witness.take(0.02)
        if event and event.act == "deliver":
            self._waiting.append(event.tag)
        if event is None or self.rng.random() < 0.2:
            self.answer(witness)
        if self._unproved >= RECEIPT_EVERY:
            self._unproved = 0
            self.work.backlog += 1
            witness.publish("", "plain", ("plain",))

    def answer(self, witness: Witness) -> None:
        """Answer all that waits, many at once or one by one."""
        waiting, self._waiting = self._waiting, []
        self._unproved += len(waiting)
        self.work.backlog -= len(waiting)
        die = self.rng.random()
        if waiting and die < 0.5:
            if die < 0.4:
                witness.ack(waiting[-1], multiple=True)
            else:
                witness.nack(waiting[-1], multiple=True, requeue=die < 0.47)
            return
        for tag in waiting:
            die = self.rng.random()
            if die < 0.7:
                witness.ack(tag)
            elif die < 0.85:
                witness.nack(tag, requeue=die < 0.8)
            else:
                witness.reject(tag, requeue=die < 0.9)


class Definer(Worker):
    """Declares and deletes queues, exchanges and bindings of a small stock of names."""

    NAMES = tuple(f"changing {number}" for number in range(4))

    def live(self, witness: Witness) -> None:
        """Change one definition after the other; a new queue gets a message that is deleted with it."""
        while True:
            name = self.rng.choice(self.NAMES)
            if self.rng.random() < 0.7:
                self.change_queue(witness, name)
            else:
                self.change_exchange(witness, name)
            self.work.on_declaration()

    def change_queue(self, witness: Witness, name: str) -> None:
        """Declare it and publish to it, or delete it, or change a binding."""
        if ("queue", name) not in self.work.there:
            declare = Queue.Declare(0, name, durable=True)
            witness.change("declare", declare, "queue", name, rules=rules_of(declare))
            self.work.there.add(("queue", name))
            witness.publish("", name, (name,), self.body())
            while witness.unconfirmed:
                assert witness.take(10), "no confirm came"
        elif self.rng.random() < 0.4:
            witness.change("delete", Queue.Delete(0, name), "queue", name)
            self.forget(("queue", name))
        else:
            self.change_binding(witness, name)

    def change_binding(self, witness: Witness, queue: str) -> None:
        """Bind, or unbind."""
        exchange = self.rng.choice(self.NAMES)
        key = "binding", f"{exchange} -> {queue}"
        if ("exchange", exchange) not in self.work.there:
            self.change_exchange(witness, exchange)
        elif key in self.work.there:
            witness.change("unbind", Queue.Unbind(0, queue, exchange, queue), *key)
            self.work.there.discard(key)
        else:
            witness.change("bind", Queue.Bind(0, queue, exchange, queue), *key)
            self.work.there.add(key)

    def change_exchange(self, witness: Witness, name: str) -> None:
        """Declare, or delete."""
        if ("exchange", name) in self.work.there:
            witness.change("delete", Exchange.Delete(0, name), "exchange", name)
            self.forget(("exchange", name))
        else:
            witness.change("declare", Exchange.Declare(0, name, "direct", durable=True), "exchange", name)
            self.work.there.add(("exchange", name))

    def forget(self, key: Key) -> None:
        """It is gone, with every binding it was an end of."""
        end = 0 if key[0] == "exchange" else 1
        self.work.there -= {key} | {
            one for one in self.work.there if one[0] == "binding" and one[1].split(" -> ")[end] == key[1]}


def workers(work: Work) -> list[Worker]:
    """Eight publishers, eight consumers and a definer."""
    windows = (1, 1, 10, 10, 100, 100, 1_000, 1_000)
    names = tuple(QUEUES)
    shares = [tuple(work.rng.sample(names, work.rng.randint(2, 4))) for _ in range(7)]
    taken = {name for share in shares for name in share}
    shares.append(tuple(name for name in names if name not in taken) or names[:2])
    return [
        *(Publisher(work, f"publisher {number}", window) for number, window in enumerate(windows)),
        *(Consumer(work, f"consumer {number}", queues) for number, queues in enumerate(shares)),
        Definer(work, "definer"),
    ]
