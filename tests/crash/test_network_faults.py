"""Some clients have faulty connections to a running broker, while others work undisturbed.

Clients behind proxies publish and consume over connections that are slow, cut into pieces, closed or silent; others use
the same queues over good connections. The history of all of them is checked: nothing confirmed is lost; `redelivered`,
acks and expiries are right. A silent client is disconnected after two and a half heartbeats, and its messages are
delivered to others.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Queue

from tests.crash.broker_process import COMMAND, SABOTAGED, BrokerProcess
from tests.crash.crash_client import Refused
from tests.crash.proxy import Line, Proxy
from tests.crash.witness import Witness, rules_of
from tests.history import Finding, History, judge_book
from tests.history.book import NEVER, Book
from tests.history.events import US

SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
HEARTBEAT_S = 2
ROUND_S, AFTER_S = 7.0, 1.5
HELD = 3                            # deliveries that a client on a bad line has not answered yet
PAUSE_S = 0.005                     # between two acts of a client
PATIENCE_S = 3.0                    # of a client on a bad line
ANSWERED_WITHIN_US = 3 * US         # on a good line, whatever the others do
READ_WITHIN_US = US // 2            # after the broker has sent it, on a busy machine

LINES = (
    Line("a delay", delay_s=0.02),
    Line("a long delay", delay_s=0.2),
    Line("slices", slice=50),
    Line("one octet at a time", slice=1),
    Line("a kilobyte a second", rate=1_000, slice=100),
    Line("cut in the handshake", breaks_after=300),
    *(Line(f"cut after {octets}", breaks_after=octets) for octets in (2_000, 5_001, 12_002, 30_003)),
    *(Line(f"reset after {octets}", breaks_after=octets, breaks_by="reset") for octets in (900, 4_004, 9_005, 20_006)),
    *(Line(f"silent after {octets}", breaks_after=octets, breaks_by="silence") for octets in (3_007, 6_008, 9_009)),
    Line("slices, then silent", slice=30, breaks_after=6_010, breaks_by="silence"),
    Line("a delay, then cut", delay_s=0.05, breaks_after=4_011),
    Line("a delay, then a reset", delay_s=0.05, breaks_after=6_012, breaks_by="reset"),
    Line("slow, then silent", rate=4_000, slice=100, breaks_after=5_013, breaks_by="silence"),
    Line("one octet at a time, then cut", slice=1, breaks_after=5_014),
)
QUEUES: dict[str, dict[str, Any]] = {"jobs": {}, "timed": {"x-message-ttl": 300}}
AT_ONCE = 11


class Network:
    """One running broker, clients with good connections, and others with faulty ones."""

    def __init__(self, directory: Path, *, command: tuple[str, ...] = COMMAND) -> None:
        self.history = History(directory / "history.jsonl")
        self.failures: list[str] = []
        self.runs = self.broken = 0
        self._rng = random.Random(SEED)
        self._ended = threading.Event()
        self._directory = directory
        self._command = command

    def run(self, lines: tuple[Line, ...]) -> Book:
        """All these lines, some at a time, then a while without any; what happened."""
        self.history.note("invoke", "start")
        with BrokerProcess(self._directory / "data", self._directory / "broker.log", command=self._command) as broker:
            port = broker.wait_until_ready().port
            self.history.note("ok", "start")
            self._declare(port)
            good = [threading.Thread(target=self._work, args=(port, f"good {number}")) for number in range(3)]
            start(good)
            for first in range(0, len(lines), AT_ONCE):
                some = lines[first:first + AT_ONCE]
                bad = [threading.Thread(target=self._suffer, args=(port, line)) for line in some]
                start(bad)
                join(bad)
            self.history.note("ok", "fault")
            time.sleep(AFTER_S)
            self._ended.set()
            join(good)
            drainer = Witness.connect(self.history, "drain", port)
            for name in QUEUES:
                drainer.drain(name, is_mortal=name == "timed")
            drainer.close()
        self.history.flush()
        return Book(self.history.events)

    def _declare(self, port: int) -> None:
        witness = Witness.connect(self.history, "declare", port)
        for name, arguments in QUEUES.items():
            declare = Queue.Declare(0, name, durable=True, arguments=arguments)
            witness.change("declare", declare, "queue", name, rules=rules_of(declare))
        witness.close()

    def _work(self, port: int, name: str) -> None:
        """On a good line: publish, take, answer, and never be disturbed."""
        witness = Witness.connect(self.history, name, port, heartbeat_s=HEARTBEAT_S)
        try:
            witness.consume("jobs", prefetch=20)
            held: list[int] = []
            while not self._ended.is_set():
                self._act(witness, held)
                event = witness.get("timed")
                if event:
                    witness.ack(event.tag)
            deadline = time.monotonic() + 5
            while witness.unconfirmed and time.monotonic() < deadline:
                witness.take(0.1)
            witness.close()
        except (OSError, Refused) as error:
            witness.lost(error)
            self.failures.append(f"{name}: {error!r}")

    def _suffer(self, port: int, line: Line) -> None:
        """On a bad line: the same, until it ends or the time is over."""
        proxy = Proxy(self.history, line.name, line, port, seed=self._rng.getrandbits(32))
        self.runs += 1
        until = time.monotonic() + ROUND_S
        try:
            witness = Witness.connect(
                self.history, line.name, proxy.port, heartbeat_s=HEARTBEAT_S, timeout_s=PATIENCE_S)
            try:
                witness.consume("jobs", prefetch=5)
                held: list[int] = []
                while time.monotonic() < until:
                    self._act(witness, held, keeps=HELD)
                if proxy.is_broken:
                    raise TimeoutError("nobody is heard any more")
                witness.close()
            except (OSError, Refused) as error:
                witness.lost(error)
        except (OSError, Refused) as error:
            if not proxy.is_broken:
                self.failures.append(f"{line.name}: {error!r}")
        finally:
            self.broken += proxy.is_broken
            proxy.close()

    def _act(self, witness: Witness, held: list[int], *, keeps: int = 0) -> None:
        """Publish from time to time; ack, nack or reject a delivery if more than `keeps` are unacked."""
        time.sleep(PAUSE_S)
        if len(witness.unconfirmed) < 10 and self._rng.random() < 0.5:
            to = "timed" if self._rng.random() < 0.3 else "jobs"
            witness.publish("", to, (to,), self._rng.randbytes(self._rng.choice((0, 10, 200))))
        event = witness.take(0.02)
        witness.client.beat()
        if event and event.act == "deliver":
            held.append(event.tag)
        if len(held) > keeps:
            die, tag = self._rng.random(), held.pop(0)
            if die < 0.7:
                witness.ack(tag)
            elif die < 0.95:
                witness.nack(tag, multiple=True, requeue=True)
            else:
                witness.reject(tag)


def start(threads: list[threading.Thread]) -> None:
    """Start them all."""
    for thread in threads:
        thread.start()


def join(threads: list[threading.Thread]) -> None:
    """Wait for them all."""
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a client did not end"


def slowest_answer_us(book: Book) -> float:
    """How long a publisher on a good line had to wait."""
    return max(publish.answered - publish.event.time for publish in book.publishes.values()
               if publish.channel.key[0].startswith("good"))


def waits_after_silence(book: Book) -> list[float]:
    """How long it took, in µs, until each message that was with a client when it fell silent was with another."""
    silent = {event.connection: event.time for event in book.events if event.act == "silence"}
    waits = []
    for deliveries in book.copies.values():
        for at, delivery in enumerate(deliveries):
            since = silent.get(delivery.channel.key[0])
            if since and delivery.time < since and not delivery.outcome:
                waits.append(min([later.time for later in deliveries[at + 1:]], default=NEVER) - since)
    return waits


def report(network: Network, book: Book, findings: list[Finding]) -> str:
    """Figures, and all that is wrong."""
    silent = sum(event.act == "silence" for event in book.events)
    confirmed = sum(publish.answer == "ok" for publish in book.publishes.values())
    return "\n".join([
        f"seed {SEED}: {network.runs} bad lines, {network.broken} broke, {silent} of them by silence, "
        f"{confirmed} confirmed, "
        f"slowest answer on a good line {slowest_answer_us(book) / 1000:.0f} ms, "
        f"back from silence after {[round(wait / US, 2) for wait in waits_after_silence(book)]} s, "
        f"{len(findings)} findings",
        *map(str, findings[:20]), *network.failures])


@pytest.mark.timeout(150)
def test_bad_lines_harm_nobody_and_break_no_promise(tmp_path: Path) -> None:
    network = Network(tmp_path)
    book = network.run(LINES)
    findings = judge_book(book)
    print(report(network, book, findings))
    assert not network.failures
    assert not findings, f"the history is {network.history.path}"
    assert network.runs >= 20 and network.broken > network.runs / 2
    waits = waits_after_silence(book)
    assert waits and max(waits) < 2.5 * HEARTBEAT_S * US + READ_WITHIN_US
    assert slowest_answer_us(book) < ANSWERED_WITHIN_US


@pytest.mark.timeout(150)
def test_a_broker_that_misses_nobody_is_caught(tmp_path: Path) -> None:
    network = Network(tmp_path, command=(*SABOTAGED, "never_misses_a_heartbeat"))
    book = network.run(tuple(line for line in LINES if line.breaks_by == "silence"))
    findings = judge_book(book)
    print(report(network, book, findings))
    assert 31 in {finding.line for finding in findings}
