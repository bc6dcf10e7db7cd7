"""kill -9 during dead-lettering: a dead letter is moved exactly once.

Three queues lose messages, one by rejection, one by expiry and one by overflow, to an exchange with two queues. After
each kill every confirmed message is either in its own queue or once in each of the two others; a message whose confirm
did not arrive may be missing.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Basic, Confirm, Exchange, Queue
from pamqp.header import ContentHeader

from tests.crash.broker_process import COMMAND, SABOTAGED, BrokerProcess
from tests.crash.crash_client import Client, Refused, pack_content

KILLS = int(os.environ.get("KILLS", 50))
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
LONGEST_RUN_S = 0.5
WINDOW = 50
PUBLISHERS = 2
DLX = "dead letters"
TARGETS = ("dead left", "dead right")
SOURCES: dict[str, dict[str, Any]] = {
    "rejected": {},
    "expired": {"x-message-ttl": 20},
    "maxlen": {"x-max-length": 10},
}       # named after the reason that x-death gives


class Mortals:
    """All messages of one life of the broker: where each was published, and which were confirmed."""

    def __init__(self, rng: random.Random) -> None:
        self.sources: dict[int, str] = {}
        self.confirmed: set[int] = set()
        self.failures: list[str] = []
        self._rng = rng
        self._lock = threading.Lock()

    def new(self) -> tuple[int, str]:
        """The next message's id and its queue."""
        with self._lock:
            id = len(self.sources) + 1
            self.sources[id] = self._rng.choice(list(SOURCES))
            return id, self.sources[id]

    def publish(self, client: Client) -> None:
        """Publish, and read confirms, until the broker is gone."""
        client.call(Confirm.Select())
        first, unconfirmed = 1, deque[int]()
        while True:
            if len(unconfirmed) < WINDOW:
                id, queue = self.new()
                unconfirmed.append(id)
                properties = Basic.Properties(message_id=str(id), delivery_mode=2)
                client.publish("", queue, pack_content(properties, b"x" * (id % 5_000))[0])
            arrived = client.take(0 if len(unconfirmed) < WINDOW else 0.01)
            if arrived:
                count = arrived.method.delivery_tag - first + 1
                self.confirmed.update(unconfirmed.popleft() for _ in range(count))
                first += count

    def reject(self, client: Client) -> None:
        """Reject what is to be rejected, one by one or many at once; never returns."""
        client.call(Basic.Qos(0, 20))
        client.call(Basic.Consume(0, "rejected"))
        last = 0
        while True:
            arrived = client.take(0.01)
            if arrived:
                last = arrived.method.delivery_tag
            if last and (arrived is None or last % 7 == 0):
                client.send(Basic.Nack(last, True, False))
                last = 0

    def check(self, client: Client, holder: Client) -> int:
        """Check every queue; return the number of dead letters. Raises AssertionError for a misplaced message.

        Messages in the sources stay unacked until the targets are read, so that none is dead-lettered meanwhile.
        """
        alive = Counter(id for source in SOURCES for id, _ in take_all(holder, source))
        deaths = [dict(take_all(client, target)) for target in TARGETS]
        assert deaths[0].keys() == deaths[1].keys(), f"only in one target: {deaths[0].keys() ^ deaths[1].keys()}"
        dead = deaths[0]
        assert not alive.keys() & dead.keys(), f"alive and dead: {alive.keys() & dead.keys()}"
        assert not [id for id, copies in alive.items() if copies > 1], "alive twice"
        lost = {id: self.sources[id] for id in self.confirmed - alive.keys() - dead.keys()}
        assert not lost, f"confirmed, and neither alive nor dead: {lost}"
        wrong = {id: reason for id, reason in dead.items() if reason != self.sources[id]}
        assert not wrong, f"died of something else: {wrong}"
        return len(dead)


def take_all(client: Client, queue: str) -> list[tuple[int, str]]:
    """Id and reason of death of all that is in a queue, to be given back with the channel; no id twice."""
    found = []
    while arrived := client.get(queue):
        header = ContentHeader()
        header.unmarshal(arrived.header)
        deaths: Any = (header.properties.headers or {}).get("x-death", [])
        assert len(deaths) < 2, f"died more than once: {deaths}"
        found.append((int(header.properties.message_id or 0), deaths[0]["reason"] if deaths else ""))
    assert len(dict(found)) == len(found), f"{queue} has a message twice"
    return found


def declare(client: Client) -> None:
    """The sources, the exchange and the targets, with nothing in them."""
    client.call(Exchange.Declare(0, DLX, "fanout", durable=True))
    for target in TARGETS:
        client.call(Queue.Declare(0, target, durable=True))
        client.call(Queue.Bind(0, target, DLX))
    for source, arguments in SOURCES.items():
        client.call(Queue.Declare(0, source, durable=True, arguments={"x-dead-letter-exchange": DLX, **arguments}))
    for queue in (*SOURCES, *TARGETS):
        client.call(Queue.Purge(0, queue))


def live(broker: BrokerProcess, mortals: Mortals, seconds: float) -> None:
    """Publish and dead-letter messages until the broker is killed."""
    has_ended = threading.Event()

    def work(task: Any) -> None:
        try:
            with Client(broker.port) as client:
                task(client)
        except (OSError, Refused, AssertionError) as error:
            if not has_ended.is_set() or not isinstance(error, OSError):
                mortals.failures.append(repr(error))

    tasks = [mortals.publish] * PUBLISHERS + [mortals.reject]
    threads = [threading.Thread(target=work, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    has_ended.wait(seconds)
    has_ended.set()
    broker.kill()
    for thread in threads:
        thread.join()


def kill_while_messages_die(directory: Path, *, kills: int, command: tuple[str, ...] = COMMAND) -> Counter[str]:
    """Kill a broker so often, check each time, and return figures. Raises AssertionError for a misplaced message."""
    rng = random.Random(SEED)
    figures: Counter[str] = Counter()
    mortals = Mortals(rng)
    for life in range(kills + 1):
        with BrokerProcess(directory / "data", directory / "broker.log", command=command) as broker:
            broker.wait_until_ready()
            with Client(broker.port) as client, Client(broker.port) as holder:
                if life:
                    figures["died"] += mortals.check(client, holder)
            with Client(broker.port) as client:
                declare(client)
            if life < kills:
                mortals = Mortals(rng)
                live(broker, mortals, rng.uniform(0.05, LONGEST_RUN_S))
                figures["confirmed"] += len(mortals.confirmed)
                assert not mortals.failures
    return figures


@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_message_is_alive_or_dead_and_never_both_nor_neither(tmp_path: Path) -> None:
    figures = kill_while_messages_die(tmp_path, kills=KILLS)
    print(f"seed {SEED}: {KILLS} kills, {dict(figures)}, nothing in two places or in none")
    assert figures["confirmed"] > KILLS and figures["died"] > KILLS


@pytest.mark.timeout(120)
def test_a_broker_that_moves_in_two_steps_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="alive and dead|only in one target|neither alive nor dead|twice"):
        kill_while_messages_die(tmp_path, kills=20, command=(*SABOTAGED, "commits_in_halves"))
