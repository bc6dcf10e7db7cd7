"""kill -9, again and again, on one directory: the driver of the crash tests.

Owns the broker's process, the clients that keep it busy, and the moment of its death; what was promised is in
`ledger`. One run of the broker goes: start (sometimes killed at that already), census of all that is there, workers,
death. A census takes every message of every queue without answering, so that from then on each counts as delivered.

The seed decides everything but the scheduling: `python -m tests.crash.driver --kills 1000 --seed 7`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pamqp.commands import Basic, Channel, Confirm, Exchange, Queue
from pamqp.header import ContentHeader

from tests.crash.broker_process import COMMAND, BrokerProcess
from tests.crash.crash_client import Arrived, Client, Refused, pack_content
from tests.crash.ledger import Definitions, Key, Ledger, Publish, Seen, Standing, Violations, digest_of, without

CENSUS_LIMIT_S = 20.0
STOPPED = 320                           # the reply code of a broker that is being stopped
MOST_WAITING = 1_500                    # entries in queues beyond which publishers pause
LARGEST_BODY = 100 * 1024
RECEIPT_EVERY = 30                      # answers
DELIVERY_COUNT = "x-delivery-count"

QUEUES = ("plain", "left", "right", "topical")
FANOUT, TOPIC = "both", "by topic"
STATIC: tuple[tuple[Key, Exchange.Declare | Queue.Declare | Queue.Bind], ...] = (
    *((("queue", name), Queue.Declare(0, name, durable=True)) for name in QUEUES),
    (("exchange", FANOUT), Exchange.Declare(0, FANOUT, "fanout", durable=True)),
    (("exchange", TOPIC), Exchange.Declare(0, TOPIC, "topic", durable=True)),
    *((("binding", FANOUT, name), Queue.Bind(0, name, FANOUT)) for name in ("left", "right")),
    (("binding", TOPIC, "topical"), Queue.Bind(0, "topical", TOPIC, "a.#")),
)
TRANSIENT_QUEUE = "transient"

Way = tuple[str, str, tuple[str, ...]]      # exchange, routing key, the queues it leads to
WAYS: tuple[Way, ...] = (
    ("", "plain", ("plain",)),
    (FANOUT, "", ("left", "right")),
    (TOPIC, "a.b.c", ("topical",)),
)


class Moment(NamedTuple):
    """When a run ends: after this time, or already at this confirm or answered declaration."""

    seconds: float
    confirms: int = sys.maxsize
    declarations: int = sys.maxsize
    is_clean: bool = False


class Run:
    """One life of the broker, from ready to its end."""

    def __init__(self, driver: Driver, process: BrokerProcess, moment: Moment, seed: int) -> None:
        self.ledger = driver.ledger
        self.definitions = driver.definitions
        self.port = process.port
        self.rng = random.Random(seed)
        self.failures = driver.failures
        self._process = process
        self._moment = moment
        self._confirms = itertools.count(1)
        self._declarations = itertools.count(1)
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def has_ended(self) -> bool:
        """Whether losing the broker is in order."""
        return self._ended.is_set()

    def fail(self, text: str) -> None:
        """A client met with something that should not be."""
        self.failures.append(text)
        self.end()

    def on_confirm(self) -> None:
        """A publisher has just noted a confirm."""
        if next(self._confirms) == self._moment.confirms:
            self.end()

    def on_declaration(self) -> None:
        """The definer has just noted an answer."""
        if next(self._declarations) == self._moment.declarations:
            self.end()

    def end(self) -> None:
        """Kill the broker, or tell it to stop; once."""
        with self._lock:
            if self._ended.is_set():
                return
            self._ended.set()
            if self._moment.is_clean:
                code = self._process.stop()
                if code:
                    self.failures.append(f"a clean stop ended with exit code {code}")
            else:
                self._process.kill()

    def live(self, workers: list[Worker]) -> None:
        """Let the workers work until the moment has come and all of them have noticed."""
        for worker in workers:
            worker.start()
        self._ended.wait(self._moment.seconds)
        self.end()
        for worker in workers:
            worker.join(20)
            if worker.is_alive():
                self.failures.append(f"{worker.name} did not notice the end of the broker")


class Worker(threading.Thread):
    """A client that goes on until the broker dies."""

    def __init__(self, run: Run, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.life = run
        self.ledger = run.ledger
        self.rng = random.Random(run.rng.random())

    def run(self) -> None:
        """Work; only the end of the run excuses the end of the connection."""
        try:
            with Client(self.life.port) as client:
                self.work(client)
        except (OSError, Refused) as error:
            if not self.life.has_ended or (isinstance(error, Refused) and error.code != STOPPED):
                self.life.fail(f"{self.name}: {error!r}")
        except Exception:
            self.life.fail(f"{self.name}: {traceback.format_exc()}")

    def work(self, client: Client) -> None:
        """Never returns."""
        raise NotImplementedError


class Publishing:
    """A confirm channel: what is unconfirmed on it, and messages to publish."""

    def __init__(self, worker: Worker, client: Client) -> None:
        self._life = worker.life
        self._ledger = worker.ledger
        self._rng = worker.rng
        self._client = client
        self._source = f"{worker.name} at port {worker.life.port}"
        self._first = 1
        self.unconfirmed: deque[int] = deque()
        client.call(Confirm.Select())

    def publish(self, exchange: str, routing_key: str, queues: tuple[str, ...], *, persistent: bool = True) -> int:
        """Send a message of any size; the number that its confirm will have."""
        id = self._ledger.next_id()
        body = self._rng.randbytes(random_size(self._rng))
        properties = Basic.Properties(
            message_id=str(id), delivery_mode=2 if persistent else 1, content_type="application/octet-stream",
            headers={"source": self._source, "size": len(body), "table": {"deep": [1, None, True, "ä"]}})
        content, header = pack_content(properties, body)
        standings = dict.fromkeys(queues, Standing.UNCERTAIN)
        self._ledger.published(Publish(id, self._source, digest_of(header, body), persistent, standings))
        self.unconfirmed.append(id)
        self._client.publish(exchange, routing_key, content)
        return self._first + len(self.unconfirmed) - 1

    def on_confirm(self, method: Basic.Ack) -> int:
        """Note a confirm; up to which number everything is confirmed now."""
        count = method.delivery_tag - self._first + 1
        assert count == 1 or (method.multiple and 1 <= count <= len(self.unconfirmed)), f"wrong confirm {method!r}"
        self._first += count
        self._ledger.confirmed([self.unconfirmed.popleft() for _ in range(count)])
        self._life.on_confirm()
        return method.delivery_tag


class Publisher(Worker):
    """Publishes in all ways, with at most `window` unconfirmed."""

    def __init__(self, run: Run, name: str, window: int) -> None:
        super().__init__(run, name)
        self._window = window

    def work(self, client: Client) -> None:
        """Publish while there is room, hear confirms."""
        publishing = Publishing(self, client)
        while True:
            may_publish = len(publishing.unconfirmed) < self._window and self.ledger.backlog < MOST_WAITING
            if may_publish:
                exchange, routing_key, queues = self.rng.choice(WAYS)
                publishing.publish(exchange, routing_key, queues, persistent=self.rng.random() < 0.9)
            arrived = client.take(0 if may_publish else 0.01)
            if arrived:
                assert isinstance(arrived.method, Basic.Ack), f"instead of a confirm came {arrived.method!r}"
                publishing.on_confirm(arrived.method)


class Consumer(Worker):
    """Answers what it is given in every way there is, and publishes a receipt now and then.

    The receipt's confirm proves the answers before it: they were in the same batch or an earlier one.
    """

    def __init__(self, run: Run, name: str, queues: tuple[str, ...]) -> None:
        super().__init__(run, name)
        self._queues = queues
        self._waiting: list[tuple[int, str, int]] = []              # delivery tag, queue, id
        self._unproved: list[tuple[str, int]] = []                  # queue, id
        self._proofs: deque[tuple[int, list[tuple[str, int]]]] = deque()    # a receipt's number, what it proves

    def work(self, client: Client) -> None:
        """Consume, answer in runs of random length."""
        publishing = Publishing(self, client)
        client.call(Basic.Qos(0, self.rng.choice((1, 10, 100))))
        for queue in self._queues:
            client.call(Basic.Consume(0, queue, queue))
        while True:
            arrived = client.take(0.02)
            if arrived is None:
                self._answer(client)
            elif isinstance(arrived.method, Basic.Ack):
                self._prove(publishing.on_confirm(arrived.method))
            else:
                self._note_delivery(arrived)
                if self.rng.random() < 0.2:
                    self._answer(client)
            if len(self._unproved) >= RECEIPT_EVERY:
                self._proofs.append((publishing.publish("", "plain", ("plain",)), self._unproved))
                self._unproved = []

    def _note_delivery(self, arrived: Arrived) -> None:
        method = arrived.method
        assert isinstance(method, Basic.Deliver), f"instead of a delivery came {method!r}"
        tag, queue, seen = method.delivery_tag or 0, method.consumer_tag or "", seen_of(arrived)
        self.ledger.delivered(queue, seen, is_stopping=self.life.has_ended)
        self._waiting.append((tag, queue, seen.id))

    def _answer(self, client: Client) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and self.rng.random() < 0.5:
            self._settle(waiting)
            client.send(Basic.Ack(waiting[-1][0], True))
            return
        for tag, queue, id in waiting:
            die = self.rng.random()
            if die < 0.1:
                client.send(Basic.Nack(tag, False, True) if die < 0.07 else Basic.Reject(tag, True))
                continue
            self._settle([(tag, queue, id)])
            client.send(Basic.Ack(tag) if die < 0.9 else Basic.Reject(tag, False))

    def _settle(self, answered: list[tuple[int, str, int]]) -> None:
        for _, queue, id in answered:
            self.ledger.settling(queue, (id,))
            self._unproved.append((queue, id))

    def _prove(self, confirmed: int) -> None:
        while self._proofs and self._proofs[0][0] <= confirmed:
            for queue, id in self._proofs.popleft()[1]:
                self.ledger.settled(queue, (id,))


class Definer(Worker):
    """Declares and deletes queues, exchanges and bindings of a small stock of names."""

    NAMES = tuple(f"changing {number}" for number in range(4))

    def work(self, client: Client) -> None:
        """Change one thing after the other; what is declared anew gets a message that dies with it."""
        publishing = Publishing(self, client)
        while True:
            name = self.rng.choice(self.NAMES)
            if self.rng.random() < 0.7:
                self._change_queue(client, publishing, name)
            else:
                self._change_exchange(client, name)
            self.life.on_declaration()

    def _change_queue(self, client: Client, publishing: Publishing, name: str) -> None:
        definitions, key = self.life.definitions, ("queue", name)
        if not definitions.is_there(key):
            self._do(client, Queue.Declare(0, name, durable=True), {key: True})
            publishing.publish("", name, (name,))
            self._await_confirms(client, publishing)
        elif self.rng.random() < 0.4:
            self._do(client, Queue.Delete(0, name), without(key, definitions))
            self.ledger.dropped(name)
        else:
            self._change_binding(client, name)

    def _change_binding(self, client: Client, queue: str) -> None:
        definitions, exchange = self.life.definitions, self.rng.choice(self.NAMES)
        key = ("binding", exchange, queue)
        if not definitions.is_there(("exchange", exchange)):
            self._change_exchange(client, exchange)
        elif definitions.is_there(key):
            self._do(client, Queue.Unbind(0, queue, exchange, queue), {key: False})
        else:
            self._do(client, Queue.Bind(0, queue, exchange, queue), {key: True})

    def _change_exchange(self, client: Client, name: str) -> None:
        definitions, key = self.life.definitions, ("exchange", name)
        if definitions.is_there(key):
            self._do(client, Exchange.Delete(0, name), without(key, definitions))
        else:
            self._do(client, Exchange.Declare(0, name, "direct", durable=True), {key: True})

    def _do(self, client: Client, method: Queue.Declare | Queue.Delete | Queue.Bind | Queue.Unbind
            | Exchange.Declare | Exchange.Delete, effects: dict[Key, bool]) -> None:
        self.life.definitions.asked(effects)
        client.call(method)
        self.life.definitions.done(effects)

    def _await_confirms(self, client: Client, publishing: Publishing) -> None:
        while publishing.unconfirmed:
            arrived = client.take(10)
            assert arrived and isinstance(arrived.method, Basic.Ack), f"instead of a confirm came {arrived!r}"
            publishing.on_confirm(arrived.method)


class Driver:
    """Many runs on one directory. `failures` are what clients met with, `violations` what the books found."""

    def __init__(
        self, directory: Path, *, seed: int, command: tuple[str, ...] = COMMAND, longest_run_s: float = 1.5
    ) -> None:
        self.seed = seed
        self.violations = Violations()
        self.ledger = Ledger(self.violations)
        self.definitions = Definitions(self.violations)
        self.failures: list[str] = []
        self.kills = self.early_kills = self.clean_stops = 0
        self.slowest_start_s = 0.0
        self._rng = random.Random(seed)
        self._command = command
        self._longest_run_s = longest_run_s
        self._data_dir = directory / "data"
        self._log_path = directory / "broker.log"
        self._start_s = 0.3
        self._began = time.monotonic()

    # The whole

    def run(self, kills: int) -> None:
        """Kill the broker so often, drain every queue, stop and start it cleanly, and find nothing.

        The first thing that is wrong ends it.
        """
        while self.kills < kills and not self.is_broken:
            self._live_once()
        if not self.is_broken:
            self._drain()
        self._check_log()

    def run_until(self, violation: str, *, most_kills: int) -> None:
        """Kill the broker until it has broken its promise in this way, whatever else is wrong."""
        while not self.violations.counts[violation] and self.kills < most_kills:
            self._live_once()

    def _live_once(self) -> None:
        self._kill_early()
        with self._started() as process:
            self._live(process)

    @property
    def is_broken(self) -> bool:
        """Whether there is something to report."""
        return bool(self.failures or self.violations.counts)

    def report(self) -> str:
        """Figures, and all that is wrong."""
        figures = self.ledger.figures
        lines = [
            f"seed {self.seed}: {self.kills} kills, {self.early_kills} of them while starting, "
            f"{self.clean_stops} clean stops, {time.monotonic() - self._began:.0f} s, "
            f"slowest start {self.slowest_start_s:.2f} s",
            "confirmed lost {lost}, never-published seen {never}".format(
                lost=self.violations.counts["lost"], never=self.violations.counts["never published"]),
            ", ".join(f"{name} {count}" for name, count in sorted(figures.items()))
            + f", declarations answered {self.definitions.answered}",
        ]
        lines += [f"VIOLATION {kind}: {count}" for kind, count in self.violations.counts.items()]
        return "\n".join(lines + self.violations.texts + self.failures)

    # Deaths

    def _kill_early(self) -> None:
        """One time in ten, and the first time, kill the broker while it starts, once or several times."""
        while self.kills == 0 or self._rng.random() < 0.1:
            process = BrokerProcess(self._data_dir, self._log_path, command=self._command)
            if process.has_ended_within(self._rng.uniform(0, self._start_s)):
                self.failures.append(f"the broker ended by itself with exit code {process.wait()}")
            process.kill()
            self.kills += 1
            self.early_kills += 1

    @contextmanager
    def _started(self) -> Iterator[BrokerProcess]:
        with BrokerProcess(self._data_dir, self._log_path, command=self._command) as process:
            process.wait_until_ready()
            self._start_s = process.start_s
            self.slowest_start_s = max(self.slowest_start_s, process.start_s)
            yield process

    def _next_moment(self) -> Moment:
        seconds = self._rng.uniform(0.05, self._longest_run_s)
        kind = self._rng.random()
        if kind < 0.4:
            return Moment(seconds)
        if kind < 0.75:
            return Moment(self._longest_run_s, confirms=self._rng.randint(1, 400))
        if kind < 0.9:
            return Moment(self._longest_run_s, declarations=self._rng.randint(1, 60))
        return Moment(seconds, is_clean=True)

    def _live(self, process: BrokerProcess) -> None:
        with Client(process.port) as client:
            self._take_census(client)
            self._declare(client)
        moment = self._next_moment()
        run = Run(self, process, moment, self._rng.getrandbits(64))
        run.live([
            *(Publisher(run, f"publisher {number}", window) for number, window in enumerate((1, 10, 100, 1000))),
            *(Consumer(run, f"consumer {number}", QUEUES[number - 2:][:2] or QUEUES[:2]) for number in range(4)),
            Definer(run, "definer"),
        ])
        self.kills += not moment.is_clean
        self.clean_stops += moment.is_clean

    # The census

    def _declare(self, client: Client) -> None:
        for key, method in STATIC:
            self.definitions.asked({key: True})
            client.call(method)
            self.definitions.done({key: True})
        client.call(Queue.Declare(0, TRANSIENT_QUEUE))

    def _take_census(self, client: Client) -> None:
        """Find out what there is, and have the books compare."""
        queues = [*QUEUES, *Definer.NAMES]
        found = {name for name in queues if exists(client, Queue.Declare(0, name, passive=True))}
        keys: set[Key] = {("queue", name) for name in found}
        keys |= {("exchange", name) for name in (FANOUT, TOPIC, *Definer.NAMES)
                 if exists(client, Exchange.Declare(0, name, passive=True))}
        for name in queues:
            if name not in found:
                self.ledger.dropped(name)
        if exists(client, Queue.Declare(0, TRANSIENT_QUEUE, passive=True)):
            self.violations.note("transient", "a transient queue outlived a restart")
        self.ledger.recovered({name: read_all(client, name) for name in found})
        keys |= self._bindings(client, keys)
        self.definitions.recovered(keys)

    def _bindings(self, client: Client, there: set[Key]) -> set[Key]:
        """The bindings that route; those of the static exchanges show by what their queues hold."""
        found = {key for key, _ in STATIC if key[0] == "binding" and ("exchange", key[1]) in there}
        for exchange, queue in itertools.product(Definer.NAMES, repeat=2):
            if ("exchange", exchange) in there and ("queue", queue) in there and routes(client, exchange, queue):
                found.add(("binding", exchange, queue))
        return found

    def _drain(self) -> None:
        """Take everything out, delete what came and went, stop, start, and find nothing."""
        with self._started() as process:
            with Client(process.port) as client:
                self._take_census(client)
                for name in (name for name in Definer.NAMES if self.definitions.is_there(("queue", name))):
                    client.call(Queue.Delete(0, name))
                    self.ledger.dropped(name)
                    self.definitions.done(without(("queue", name), self.definitions))
                for name in (name for name in QUEUES if self.definitions.is_there(("queue", name))):
                    ids = [seen.id for seen in read_all(client, name, settle=True)]
                    self.ledger.settling(name, ids)
                    self.ledger.settled(name, ids)
            self._expect_clean_stop(process)
        with self._started() as process:
            with Client(process.port) as client:
                self._take_census(client)
            self._expect_clean_stop(process)
        if self.ledger.left:
            self.failures.append(f"{self.ledger.left} messages are left after the drain")

    def _expect_clean_stop(self, process: BrokerProcess) -> None:
        code = process.stop()
        if code:
            self.failures.append(f"a clean stop ended with exit code {code}")

    def _check_log(self) -> None:
        log = self._log_path.read_text()
        if "Traceback" in log or "damaged" in log:
            self.failures.append(f"the broker's log has this to say:\n{log[-4000:]}")


# What clients do

def random_size(rng: random.Random) -> int:
    """A body's size in octets: often nothing or little, at times 100 KiB."""
    die = rng.random()
    if die < 0.1:
        return 0
    return rng.randint(1, 1_000 if die < 0.8 else 10_000 if die < 0.97 else LARGEST_BODY)


def seen_of(arrived: Arrived) -> Seen:
    """The copy that a delivery or a get-ok brought; a count of deliveries is not part of what was published."""
    method, content_header, octets = arrived.method, ContentHeader(), arrived.header
    assert isinstance(method, (Basic.Deliver, Basic.GetOk))
    content_header.unmarshal(octets)
    properties = content_header.properties
    if (properties.headers or {}).pop(DELIVERY_COUNT, None) is not None:
        octets = content_header.marshal()
    return Seen(int(properties.message_id or 0), bool(method.redelivered), digest_of(octets, arrived.body))


def exists(client: Client, passive_declare: Queue.Declare | Exchange.Declare) -> bool:
    """Whether there is such a queue or exchange."""
    try:
        client.call(passive_declare)
    except Refused as refusal:
        assert refusal.code == 404, refusal
        client.open_channel()
        return False
    return True


def routes(client: Client, exchange: str, routing_key: str) -> bool:
    """Whether a publish with this key reaches a queue; what it leaves there is transient."""
    content, _ = pack_content(Basic.Properties(message_id="0"), b"")
    client.publish(exchange, routing_key, content, mandatory=True)
    client.call(Basic.Qos())
    return client.take() is None


def read_all(client: Client, queue: str, *, settle: bool = False) -> list[Seen]:
    """Every ready message of a queue, in its order; they go back to it, unless they are to be settled."""
    expected = client.call(Queue.Declare(0, queue, passive=True)).message_count
    tag = client.call(Basic.Consume(0, queue)).consumer_tag
    found: list[Seen] = []
    deadline = time.monotonic() + CENSUS_LIMIT_S
    while len(found) < expected and time.monotonic() < deadline:
        arrived = client.take(1)
        if arrived:
            found.append(seen_of(arrived))
    if settle and found:
        client.send(Basic.Ack(0, True))
    client.call(Basic.Cancel(tag))
    while arrived := client.take():
        found.append(seen_of(arrived))
    assert len(found) == expected, f"queue {queue} has {expected} messages and gives {len(found)}"
    client.call(Channel.Close(200, "", 0, 0))
    client.open_channel()
    return found


def main() -> int:
    """As many kills as asked for; what is wrong, and the broker's log, stays in the directory named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="amqpd-kill9-"))
    driver = Driver(directory, seed=options.seed)
    print(f"seed {options.seed}, directory {directory}", flush=True)
    driver.run(options.kills)
    print(driver.report())
    return int(driver.is_broken)


if __name__ == "__main__":
    sys.exit(main())
