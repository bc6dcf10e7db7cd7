"""The wall clock is set between two runs of the broker, and during a run; messages wait meanwhile.

During a run, expiries depend on a monotonic clock; over a restart, on the wall clock, but the rest of a time to live is
never more than the whole. The history knows by how much the wall clock of each run is wrong, and so when each message
may be delivered, and when it may have expired.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Basic, Confirm, Exchange, Queue

from tests.crash.broker_process import SABOTAGED, BrokerProcess
from tests.crash.crash_client import Client, pack_content
from tests.crash.witness import Witness, rules_of
from tests.history import History, judge_book
from tests.history.book import Book

RUNS = int(os.environ.get("KILLS", 24)) // 2 or 1
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
SHIFTS_MS = (0, 0, 150, -150, 600, -600, 5_000, -5_000, 3_600_000, -3_600_000, 86_400_000, -86_400_000)
TTLS_MS = (None, 0, 50, 300, 1_000, 4_000, 60_000, 3_600_000)
SHORT_MS = 2_000
DEAD, DLX = "dead", "dead letters"
QUEUES: dict[str, dict[str, Any]] = {
    "jobs": {"x-dead-letter-exchange": DLX},
    "short": {"x-dead-letter-exchange": DLX, "x-message-ttl": 400},
    DEAD: {},
}


class Clockwork:
    """One directory, and a broker on it whose wall clock is set for each run."""

    def __init__(self, directory: Path, fault: str = "") -> None:
        self.history = History(directory / "history.jsonl")
        self._rng = random.Random(SEED)
        self._directory = directory
        self._fault = fault
        self._names = itertools.count(1)

    def run(self, runs: int) -> Book:
        """So many runs, and a last one in which everything is taken out."""
        for number in range(runs + 1):
            shift_ms = self._rng.choice(SHIFTS_MS)
            self.history.note("invoke", "start", shift_ms=shift_ms)
            faults = f"shifted_clock={shift_ms}" + (f"+{self._fault}" if self._fault else "")
            with BrokerProcess(
                self._directory / "data", self._directory / "broker.log", command=(*SABOTAGED, faults)
            ) as broker:
                port = broker.wait_until_ready().port
                self.history.note("ok", "start")
                witness = Witness.connect(self.history, f"client {next(self._names)}", port)
                if number == runs:
                    self.drain(witness)
                else:
                    self.live(witness)
                    self._end(broker, witness)
        self.history.flush()
        return Book(self.history.events)

    def _end(self, broker: BrokerProcess, witness: Witness) -> None:
        if self._rng.random() < 0.3:
            witness.close()
            self.history.note("invoke", "stop")
            self.history.note("ok", "stop", code=broker.stop())
        else:
            self.history.note("invoke", "kill")
            broker.kill()
            self.history.note("ok", "kill")
            witness.lost(ConnectionResetError("the broker was killed"))

    def live(self, witness: Witness) -> None:
        """Check the queues, publish, get some messages and requeue most of them."""
        declare(witness)
        for name in QUEUES:
            witness.take_all(name, is_mortal=True)
        for _ in range(40):
            to = self._rng.choice(("jobs", "jobs", "short"))
            witness.publish("", to, (to,), b"x" * 50, ttl_ms=self._rng.choice(TTLS_MS))
            event = witness.get(self._rng.choice(list(QUEUES))) if self._rng.random() < 0.3 else None
            if event and self._rng.random() < 0.8:
                witness.nack(event.tag, requeue=self._rng.random() < 0.8)
            time.sleep(0.005)
        while witness.unconfirmed:
            assert witness.take(10), "no confirm came"

    def drain(self, witness: Witness) -> None:
        """Take everything out."""
        declare(witness)
        for name in QUEUES:
            witness.drain(name, is_mortal=True)
        witness.close()


def declare(witness: Witness) -> None:
    """What there is; the dead letters of both go to one queue."""
    witness.change("declare", Exchange.Declare(0, DLX, "fanout", durable=True), "exchange", DLX)
    for name, arguments in QUEUES.items():
        method = Queue.Declare(0, name, durable=True, arguments=arguments)
        witness.change("declare", method, "queue", name, rules=rules_of(method), dead_to=(DEAD,) if arguments else ())
    witness.change("bind", Queue.Bind(0, DEAD, DLX), "binding", f"{DLX} -> {DEAD}")


def expired(book: Book) -> list[str]:
    """The messages that expired after a restart."""
    return [id for (id, _, deaths), deliveries in book.copies.items() if deaths
            and deliveries[0].event.deaths[0].reason == "expired"
            and deliveries[0].life is not book.publishes[id].channel.life]


@pytest.mark.timeout(60 + 10 * RUNS)
def test_no_message_is_late_or_early_when_the_clock_jumps_between_runs(tmp_path: Path) -> None:
    clockwork = Clockwork(tmp_path)
    book = clockwork.run(RUNS)
    findings = judge_book(book)
    print(f"seed {SEED}: {RUNS} runs, {len(book.publishes)} messages, {len(expired(book))} expired after a restart, "
          f"{len(findings)} findings", *map(str, findings[:20]), sep="\n")
    assert not findings, f"the history is {clockwork.history.path}"
    assert len(expired(book)) > RUNS


@pytest.mark.timeout(120)
def test_no_message_is_late_or_early_when_the_clock_jumps_meanwhile(tmp_path: Path) -> None:
    clockwork = Clockwork(tmp_path)
    clockwork.history.note("invoke", "start")
    with BrokerProcess(tmp_path / "data", tmp_path / "broker.log", command=(*SABOTAGED, "restless_clock")) as broker:
        port = broker.wait_until_ready().port
        clockwork.history.note("ok", "start")
        for number in range(4):
            witness = Witness.connect(clockwork.history, f"client {number}", port)
            clockwork.live(witness)
            witness.close()
        clockwork.drain(Witness.connect(clockwork.history, "drain", port))
    clockwork.history.flush()
    assert not judge_book(Book(clockwork.history.events)), f"the history is {clockwork.history.path}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", ["gives_time_again", "ends_at_restart"])
def test_a_broken_broker_is_caught(tmp_path: Path, fault: str) -> None:
    findings = judge_book(Clockwork(tmp_path, fault).run(6))
    print(f"seed {SEED}", *map(str, findings[:20]), sep="\n")
    assert 16 in {finding.line for finding in findings}


@pytest.mark.parametrize("shift_ms", [86_400_000, -86_400_000], ids=["forward", "back"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_a_clock_that_is_set_while_the_broker_runs_moves_no_expiry_over_a_restart(
    tmp_path: Path, shift_ms: int, *, is_killed: bool
) -> None:
    """Of what was published before and after the clock was set, what has an hour is there, and the rest is gone."""
    is_set = tmp_path / "set"
    command = (*SABOTAGED, f"clock_is_set={shift_ms},{is_set}")
    for life in range(3):
        with BrokerProcess(tmp_path / "data", tmp_path / "log", command=command) as broker:
            with Client(broker.wait_until_ready().port) as client:
                if life:
                    kept = []
                    while arrived := client.get("jobs"):
                        kept.append(arrived.body)
                    assert kept == [b"before", b"after"] * life
                client.call(Queue.Declare(0, "jobs", durable=True))
                client.call(Confirm.Select())
                publish_both(client, b"before")
                if life == 0:
                    is_set.touch()
                publish_both(client, b"after")
            if is_killed:
                broker.kill()
            else:
                assert broker.stop() == 0
        time.sleep(SHORT_MS / 1000 + 0.1)


def publish_both(client: Client, body: bytes) -> None:
    """Publish one message that outlives a restart, and one that does not."""
    for expiration in (3_600_000, SHORT_MS):
        properties = Basic.Properties(delivery_mode=2, expiration=str(expiration))
        client.publish("", "jobs", pack_content(properties, body)[0])
        arrived = client.take(10)
        assert arrived and isinstance(arrived.method, Basic.Ack)
