"""kill -9 while a queue or exchange with very many bindings is deleted: afterwards all bindings are there, or none."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from pamqp.base import Frame
from pamqp.commands import Exchange, Queue

from tests.crash.broker_process import SABOTAGED, BrokerProcess
from tests.crash.crash_client import Client, exists, routes

KILLS = int(os.environ.get("KILLS", 2))
MOST_KILLS = 20 + KILLS     # until one has come in the middle
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
BINDINGS = 2_000            # removed in some ten commits, each of which takes a while
LONGEST_S = 1.0

DELETE: dict[str, Frame] = {"queue": Queue.Delete(0, "q"), "exchange": Exchange.Delete(0, "x")}
FIND: dict[str, Frame] = {
    "queue": Queue.Declare(0, "q", passive=True), "exchange": Exchange.Declare(0, "x", passive=True)}


def declare(client: Client) -> None:
    """A queue bound to an exchange by very many keys, as far as they are not there."""
    client.call(Exchange.Declare(0, "x", "direct", durable=True))
    client.call(Queue.Declare(0, "q", durable=True))
    for number in range(BINDINGS):
        client.send(Queue.Bind(0, "q", "x", f"k{number}", nowait=True))
    client.call(Queue.Bind(0, "q", "amq.topic", "k"))


def bindings_in(data: Path, copy: Path) -> int:
    """Return the number of bindings in a store that no broker has open."""
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.sock"))
    with closing(sqlite3.connect(copy / "amqpd.db")) as connection:
        count: int = connection.execute("SELECT count(*) FROM bindings WHERE source = 'x'").fetchone()[0]
    shutil.rmtree(copy)
    return count


@pytest.mark.timeout(300 + 20 * KILLS)
@pytest.mark.parametrize("what", ["queue", "exchange"])
def test_what_is_deleted_is_there_after_a_kill_with_all_its_bindings_or_not_at_all(tmp_path: Path, what: str) -> None:
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    data, log, copy = tmp_path / "data", tmp_path / "log", tmp_path / "copy"
    kills = cut_short = 0
    while kills < KILLS or not cut_short:
        kills += 1
        assert kills < MOST_KILLS, "no kill comes in the middle"
        with BrokerProcess(data, log, command=(*SABOTAGED, "slow_disk"), level="error").wait_until_ready() as broker:
            client = Client(broker.port)
            declare(client)
            client.send(DELETE[what])
            time.sleep(rng.uniform(0, LONGEST_S))
            broker.kill()
            client.drop()
        cut_short += 0 < bindings_in(data, copy) < BINDINGS
        with BrokerProcess(data, log, level="error").wait_until_ready() as broker:
            with Client(broker.port) as client:
                is_there = exists(client, FIND[what])
            if is_there:
                with Client(broker.port) as client:
                    assert all(routes(client, "x", f"k{number}") for number in (0, BINDINGS // 2, BINDINGS - 1))
            assert broker.stop() == 0
        assert bindings_in(data, copy) == (BINDINGS if is_there else 0)
    assert not log.read_bytes()
