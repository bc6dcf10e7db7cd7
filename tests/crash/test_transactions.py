"""kill -9 during transactions: each transaction is there completely or not at all.

Every worker has two queues, each with a copy of the same tokens in the same order. A transaction gets some tokens from
both, publishes their next generation to both, and acks the old ones. So at every moment, also after a restart, both
queues have the same tokens, once each, in the generation of the last commit that was answered or of the one after
it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pamqp.commands import Basic, Channel, Queue, Tx
from pamqp.header import ContentHeader

from tests.crash.broker_process import COMMAND, SABOTAGED, BrokerProcess
from tests.crash.crash_client import Client, Refused, pack_content

KILLS = int(os.environ.get("KILLS", 50))
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
WORKERS = 3
TOKENS = 12
LONGEST_RUN_S = 0.6
PERSISTENT = 2
SIZES = (0, 0, 10, 10, 5_000, 5_000, 50_000, 50_000, 1_200_000)     # of bodies
LONG_TRANSACTIONS, ACTS, LONGEST_COMMIT_S = 8, 5_000, 0.12


class Token(NamedTuple):
    """The content of a message."""

    name: int
    generation: int


class Transactor:
    """One worker: its two queues, and what the last commits did. A life of the broker is a call of `work`."""

    def __init__(self, number: int, seed: int) -> None:
        self.queues = f"left {number}", f"right {number}"
        self.commits = self.in_doubt = 0
        self.failures: list[str] = []
        self._rng = random.Random(seed)
        self._committed = dict.fromkeys(range(TOKENS), 0)
        self._asked: dict[int, int] = {}
        self._is_filled = False

    def prepare(self, client: Client) -> None:
        """Declare the queues and fill them, in one transaction, unless that has been done."""
        for queue in self.queues:
            client.call(Queue.Declare(0, queue, durable=True))
        if self._is_filled:
            return
        client.call(Tx.Select())
        for name in range(TOKENS):
            self._publish(client, Token(name, 0))
        client.call(Tx.Commit())
        self._is_filled = True
        client.call(Channel.Close(200, "", 0, 0))
        client.open_channel()

    def work(self, port: int, has_ended: threading.Event) -> None:
        """Pass tokens on until the broker is killed."""
        try:
            with Client(port) as client:
                client.call(Tx.Select())
                while True:
                    self._transact(client)
        except (OSError, Refused, AssertionError) as error:
            if not has_ended.is_set() or not isinstance(error, OSError):
                self.failures.append(f"{self.queues}: {error!r}")
                has_ended.set()

    def _transact(self, client: Client) -> None:
        taken = dict([self._take_and_replace(client) for _ in range(self._rng.randint(1, 5))])
        if self._rng.random() < 0.1:
            client.call(Tx.Rollback())
            client.call(Basic.Recover(True))
            return
        self._asked = taken
        client.call(Tx.Commit())
        self._committed |= taken
        self._asked = {}
        self.commits += 1

    def _take_and_replace(self, client: Client) -> tuple[int, int]:
        tokens = set()
        for queue in self.queues:
            arrived = client.get(queue)
            assert arrived, f"{queue} is empty"
            tokens.add(token_of(arrived.header))
            client.send(Basic.Ack(arrived.method.delivery_tag))
        assert len(tokens) == 1, f"{self.queues} give different tokens: {tokens}"
        token, = tokens
        following = Token(token.name, token.generation + 1)
        self._publish(client, following)
        return following

    def _publish(self, client: Client, token: Token) -> None:
        for queue in self.queues:
            properties = Basic.Properties(message_id=f"{token.name} {token.generation}", delivery_mode=PERSISTENT)
            content, _ = pack_content(properties, self._rng.randbytes(self._rng.choice(SIZES)))
            client.publish("", queue, content)

    def check(self, client: Client) -> None:
        """Compare both queues with what was committed; what was in doubt is known from here on."""
        left, right = (list(read_tokens(client, queue)) for queue in self.queues)
        assert left == right, f"{self.queues} disagree:\n{left}\n{right}"
        assert len(left) == TOKENS and dict(left).keys() == self._committed.keys(), f"not every token once: {left}"
        if self._asked:
            self.in_doubt += 1
        possible = (self._committed, self._committed | self._asked)
        assert dict(left) in possible, f"{left} is none of {possible}"
        self._committed, self._asked = dict(left), {}


def token_of(header: bytes) -> Token:
    """The token of a content header."""
    content_header = ContentHeader()
    content_header.unmarshal(header)
    name, generation = (content_header.properties.message_id or "").split()
    return Token(int(name), int(generation))


def read_tokens(client: Client, queue: str) -> Iterator[Token]:
    """Every token in a queue, in its order; they stay there."""
    while arrived := client.get(queue):
        yield token_of(arrived.header)
    client.call(Basic.Recover(True))


def kill_in_transactions(directory: Path, *, kills: int, command: tuple[str, ...] = COMMAND) -> list[Transactor]:
    """Kill a broker so often while every worker commits; AssertionError when a transaction is not whole."""
    rng = random.Random(SEED)
    transactors = [Transactor(number, rng.getrandbits(64)) for number in range(WORKERS)]
    for _ in range(kills):
        has_ended = threading.Event()
        with BrokerProcess(directory / "data", directory / "broker.log", command=command) as broker:
            broker.wait_until_ready()
            check_all(broker, transactors)
            threads = [threading.Thread(target=t.work, args=(broker.port, has_ended)) for t in transactors]
            for thread in threads:
                thread.start()
            has_ended.wait(rng.uniform(0.02, LONGEST_RUN_S))
            has_ended.set()
            broker.kill()
            for thread in threads:
                thread.join()
        assert not [failure for transactor in transactors for failure in transactor.failures]
    with BrokerProcess(directory / "data", directory / "broker.log", command=command) as broker:
        check_all(broker.wait_until_ready(), transactors)
    return transactors


def check_all(broker: BrokerProcess, transactors: list[Transactor]) -> None:
    """Let every worker check its queues."""
    for transactor in transactors:
        with Client(broker.port) as client:
            transactor.prepare(client)
            transactor.check(client)


@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_transaction_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    transactors = kill_in_transactions(tmp_path, kills=KILLS)
    commits, in_doubt = sum(t.commits for t in transactors), sum(t.in_doubt for t in transactors)
    print(f"seed {SEED}: {KILLS} kills, {commits} commits answered, {in_doubt} in doubt at a kill, none in halves")
    assert commits > KILLS and in_doubt


@pytest.mark.timeout(120)
def test_a_broker_that_commits_in_halves_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="disagree|not every token once|is none of"):
        kill_in_transactions(tmp_path, kills=20, command=(*SABOTAGED, "commits_in_halves"))


@pytest.mark.timeout(120)
def test_a_transaction_that_takes_many_turns_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    content, _ = pack_content(Basic.Properties(delivery_mode=PERSISTENT), b"x")
    for _ in range(LONG_TRANSACTIONS + 1):
        with BrokerProcess(tmp_path / "data", tmp_path / "broker.log") as broker, Client(
                broker.wait_until_ready().port) as client:
            counts = {client.call(Queue.Declare(0, queue, durable=True)).message_count for queue in ("left", "right")}
            assert len(counts) == 1 and min(counts) % ACTS == 0, f"a transaction in parts, seed {SEED}: {counts}"
            client.call(Tx.Select())
            for _ in range(ACTS):
                for queue in ("left", "right"):
                    client.publish("", queue, content)
            client.call(Basic.Qos())
            client.send(Tx.Commit())
            time.sleep(rng.uniform(0, LONGEST_COMMIT_S))
            broker.kill()


def test_a_queue_deleted_before_the_commit_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    with BrokerProcess(tmp_path / "data", log) as broker, Client(broker.wait_until_ready().port) as client:
        client.call(Queue.Declare(0, "orders", durable=True))
        client.call(Tx.Select())
        client.publish("", "orders", pack_content(Basic.Properties(delivery_mode=PERSISTENT), b"late")[0])
        client.call(Basic.Qos())
        with Client(broker.port) as other:
            other.call(Queue.Delete(0, "orders"))
        client.call(Tx.Commit())
        broker.kill()
    with BrokerProcess(tmp_path / "data", log) as broker:
        broker.wait_until_ready()
    assert log.read_text() == ""
