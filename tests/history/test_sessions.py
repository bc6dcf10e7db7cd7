"""Sessions and the broker without sockets, disk or clock; the history of their clients is checked.

Publishers and consumers work while batches are committed from time to time, connections break, and the broker is
restored from what was committed: hundreds of runs a minute, the same ones for the same seed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpd.broker.queue.queue import Queue
from amqpd.message import Message
from tests.crash.crash_client import Arrived, Client
from tests.crash.witness import Witness
from tests.crash.workers import DEAD, MORTAL, QUEUES, WAYS, declare_static
from tests.history import judge
from tests.history.events import History
from tests.support.journals import RecordingJournal
from tests.support.talk import START_MS, Stage

NUMBERS_A_LIFE = 1_000_000


class TalkingClient(Client):
    """A client whose socket is a session of its own. Waiting for an answer, it has the batch committed."""

    password = "secret guest"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._heartbeat_s, self._timeout_s, self._capabilities = 0, 0.0, {"connection.blocked": False}
        self._is_patient = True
        self._taken = 0
        self.talk = stage.stranger()
        self._begin()
        self._shake_hands()

    def take(self, timeout_s: float = 0.0) -> Arrived | None:
        """See crash_client.py; nobody waits here."""
        self._is_patient = False
        try:
            return super().take(timeout_s)
        finally:
            self._is_patient = True

    def drop(self) -> None:
        """The socket is gone."""
        self.talk.lose()

    def _hang_up(self) -> None:
        """Nothing is left to close."""

    def _write(self, octets: bytes) -> None:
        self.talk.octets(octets)

    def _fill(self, size: int, deadline: float) -> None:
        for may_commit in (True, True, False):
            self._received += self.talk.sent[self._taken:]
            self._taken = len(self.talk.sent)
            if len(self._received) >= size:
                return
            if may_commit and (self._is_patient or self._stage.page_store.is_waited_for):
                self._stage.commit()
        raise TimeoutError("the session says nothing")


class SimulatedHistory(History):
    """Events by the stage's clock, each a microsecond after the one before."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))
        self.stage = Stage()
        self.begun_ms = 0           # when the stage's clock began

    @property
    def now(self) -> int:
        """See events.py."""
        ours = (self.begun_ms + self.stage.now_ms - START_MS) * 1000
        return max(ours, self.events[-1].time + 1 if self.events else 0)


class Simulation:
    """One broker after the other, and their clients."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.history = SimulatedHistory()
        self.publishers: list[Witness] = []
        self.consumers: dict[Witness, list[int]] = {}
        self.lives = self.names = 0
        self.live(RecordingJournal())

    @property
    def stage(self) -> Stage:
        return self.history.stage

    def live(self, journal: RecordingJournal) -> None:
        """Start a broker with this state. Its clock begins again, so the wall clock jumps back to the beginning."""
        begun_ms = self.history.now // 1000 + 1
        self.history.note("invoke", "start", shift_ms=-begun_ms)
        self.history.stage = Stage(
            piece=self.rng.choice((0, 0, 7)), journal=journal, first_number=1 + self.lives * NUMBERS_A_LIFE)
        self.history.begun_ms = begun_ms
        self.history.note("ok", "start")
        self.lives += 1
        self.publishers.clear()
        self.consumers.clear()
        declarer = self.connect()
        declare_static(declarer)
        if self.lives > 1 and self.rng.random() < 0.5:
            for name in reversed(QUEUES):
                declarer.take_all(name, is_mortal=name in MORTAL)
        declarer.close()
        self.stage.commits_at_once = False
        self.publishers += [self.connect() for _ in range(2)]

    def connect(self) -> Witness:
        self.names += 1
        return Witness(self.history, f"client {self.names}", TalkingClient(self.stage))

    def crash(self) -> None:
        self.history.note("invoke", "kill")
        self.live(RecordingJournal(self.stage.journal.safe.copy()))

    def step(self) -> None:
        """Something happens, a millisecond later."""
        self.wait(1)
        die = self.rng.random()
        consumer = self.rng.choice(list(self.consumers)) if self.consumers else None
        if die < 0.4:
            self.publish(self.rng.choice(self.publishers))
        elif die < 0.47:
            self.consume(self.connect())
        elif die < 0.9 and consumer:
            self.answer(consumer)
        elif die < 0.92 and consumer:
            self.leave(consumer)
        elif die < 0.97:
            self.stage.commit()
        elif die < 0.985:
            self.stage.commit()
            self.hear_all()
            self.wait(self.rng.choice((10, 50, 300)))
        elif die < 0.99:
            self.crash()

    def wait(self, milliseconds: int) -> None:
        """Let the clock run."""
        self.stage.now_ms += milliseconds
        self.stage.broker.clock.advance(self.stage.now_ms)
        self.stage.end_turn()

    def publish(self, witness: Witness) -> None:
        """Publish one message of any kind, and read the answers to earlier ones."""
        exchange, key, to = self.rng.choice((*WAYS, ("", "nowhere", ())))
        witness.publish(
            exchange, key, to, self.rng.randbytes(self.rng.choice((0, 1, 100))),
            persistent=self.rng.random() < 0.9, priority=self.rng.choice((None, 0, 1, 5, 9)), mandatory=not to,
            ttl_ms=self.rng.choice((0, 20, 60_000)) if to == ("mortal",) and self.rng.random() < 0.5 else None)
        while witness.take():
            pass

    def consume(self, witness: Witness) -> None:
        """Become a consumer of two queues."""
        for queue in self.rng.sample(list(QUEUES), 2):
            witness.consume(queue, prefetch=self.rng.choice((1, 3, 100)))
        self.consumers[witness] = []

    def answer(self, consumer: Witness) -> None:
        """Read some, answer some."""
        waiting = self.consumers[consumer]
        for _ in range(self.rng.randrange(4)):
            event = consumer.take()
            if event and event.act == "deliver":
                waiting.append(event.tag)
        if waiting:
            die, tag = self.rng.random(), self.rng.choice(waiting)
            waiting[:] = [one for one in waiting if one > tag or (die > 0.3 and one != tag)]
            if die < 0.2:
                consumer.ack(tag, multiple=True)
            elif die < 0.3:
                consumer.nack(tag, multiple=True, requeue=die < 0.25)
            elif die < 0.7:
                consumer.ack(tag)
            else:
                consumer.reject(tag, requeue=die < 0.85)

    def leave(self, consumer: Witness) -> None:
        """Close the channel, or the connection, or break off."""
        die = self.rng.random()
        if die < 0.4:
            consumer.close_channel()
            self.consume(consumer)
            return
        del self.consumers[consumer]
        if die < 0.7:
            consumer.close()
        else:
            self.history.note("invoke", "fault", connection=consumer.name)
            consumer.lost(ConnectionResetError())
            self.history.note("ok", "fault", connection=consumer.name)

    def hear_all(self) -> None:
        """Nobody leaves anything unread."""
        for consumer, waiting in self.consumers.items():
            while event := consumer.take():
                if event.act == "deliver":
                    waiting.append(event.tag)

    def drain(self) -> None:
        """All consumers leave, and everything is taken out."""
        self.stage.commit()
        for consumer in self.consumers:
            consumer.close()
        witness = self.connect()
        for name in (*(name for name in QUEUES if name not in DEAD), *DEAD):
            witness.drain(name, is_mortal=name in MORTAL)
            self.wait(1)
        witness.close()


def findings_of(seed: int, steps: int) -> list[str]:
    """What is wrong with one simulation."""
    simulation = Simulation(seed)
    for _ in range(steps):
        simulation.step()
    simulation.drain()
    return [str(finding) for finding in judge(simulation.history.events)]


@pytest.mark.timeout(180)
@settings(max_examples=settings().max_examples // 4)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 300))
def test_clients_are_told_nothing_that_breaks_a_promise(seed: int, steps: int) -> None:
    assert not findings_of(seed, steps)


def test_a_broken_queue_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Queue, run: list[Message]) -> None:
        requeue(self, run)
        self.redelivery.numbers.difference_update([message.number for message in run])

    requeue = Queue.requeue
    monkeypatch.setattr(Queue, "requeue", forgetful)
    assert any(text.startswith("6 ") for seed in range(10) for text in findings_of(seed, 200))
