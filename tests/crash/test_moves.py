"""kill -9 while an operator moves messages and retries dead letters: each message is in one queue, once.

The same messages go back and forth between three queues: by `move` to a queue and to an exchange, and by `retry` from
the dead letters to where they died. Each life of the broker is killed at some moment of such a command, and the next
one is asked what is in its queues.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Basic, Confirm, Exchange, Queue

from amqpd.ctl import client as control
from amqpd.identity import CONTROL_SOCKET
from amqpd.program import Failure
from tests.crash.broker_process import COMMAND, SABOTAGED, BrokerProcess
from tests.crash.crash_client import Client, pack_content

KILLS = int(os.environ.get("KILLS", 50))
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
MESSAGES = 1_500
LARGEST_BODY = 20_000
LONGEST_MOVE_S = 0.25

# By source: commands that take everything out of it.
COMMANDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "work": [("move", {"to_queue": "dead"}), ("move", {"to_exchange": "e", "routing_key": "other"})],
    "other": [("move", {"to_queue": "dead"})],
    "dead": [("retry", {})],
}


class Operator:
    """Asks a broker by its control socket."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / CONTROL_SOCKET

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the result of a command."""
        return control.ask(self.path, command, {"vhost": "/", **arguments}, timeout_s=60)

    def found(self, queue: str) -> list[str]:
        """The ids of all messages in a queue."""
        ids: list[str] = []
        page: dict[str, Any] = {"cursor": None}
        while not ids or page["cursor"] is not None:
            page = self.ask("peek", queue=queue, count=1_000, truncate=0, cursor=page["cursor"])
            ids += [one["properties"]["message_id"] for one in page["messages"]]
            if not page["messages"]:
                break
        return ids

    def move(self, queue: str, command: str, arguments: dict[str, Any]) -> None:
        """Ask for a move of everything, whatever becomes of it."""
        try:
            self.ask(command, queue=queue, everything=True, **arguments)
        except Failure:
            pass        # the broker has been killed


def fill(broker: BrokerProcess, rng: random.Random) -> None:
    """Declare the queues, and let all messages die in `work`."""
    with Client(broker.port) as client:
        client.call(Exchange.Declare(0, "e", "direct", durable=True))
        for queue, arguments in {
            "dead": {}, "other": {}, "work": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
        }.items():
            client.call(Queue.Declare(0, queue, durable=True, arguments=arguments))
        client.call(Queue.Bind(0, "other", "e", "other"))
        client.call(Confirm.Select())
        for number in range(MESSAGES):
            properties = Basic.Properties(message_id=str(number), delivery_mode=2)
            client.publish("", "work", pack_content(properties, rng.randbytes(rng.randrange(LARGEST_BODY)))[0])
        client.call(Basic.Consume(0, "work"))
        last = 0
        while last < MESSAGES:
            arrived = client.take(1)
            if arrived is not None and isinstance(arrived.method, Basic.Deliver):
                last = arrived.method.delivery_tag
        client.send(Basic.Nack(0, True, False))


def kill_during_moves(directory: Path, *, kills: int, command: tuple[str, ...] = COMMAND) -> Counter[str]:
    """Kill a broker so often, check each time, and return figures. Raises AssertionError for a misplaced message."""
    rng = random.Random(SEED)
    figures: Counter[str] = Counter()
    operator, source = Operator(directory / "data"), ""
    for life in range(kills + 1):
        with BrokerProcess(directory / "data", directory / "broker.log", command=command) as broker:
            broker.wait_until_ready()
            if not life:
                fill(broker, rng)
                wait_for(lambda: len(operator.found("dead")) == MESSAGES)
            places = {queue: operator.found(queue) for queue in COMMANDS}
            check(places)
            if source:
                figures["interrupted"] += 0 < len(places[source]) < figures["of"]
                figures["completed"] += not places[source]
            if life == kills:
                break
            source = max(places, key=lambda queue: len(places[queue]))
            figures["of"] = len(places[source])
            work = threading.Thread(target=operator.move, args=(source, *rng.choice(COMMANDS[source])))
            work.start()
            time.sleep(rng.uniform(0, LONGEST_MOVE_S))
            broker.kill()
            work.join()
    return figures


def check(places: dict[str, list[str]]) -> None:
    """Each message is in one queue, once. Raises AssertionError."""
    copies = Counter([number for found in places.values() for number in found])
    lost = [number for number in range(MESSAGES) if str(number) not in copies]
    assert not lost, f"in no queue: {lost[:10]}"
    doubled = [number for number, count in copies.items() if count > 1]
    assert not doubled, f"in two queues, or twice in one: {doubled[:10]}"


def wait_for(condition: Any) -> None:
    """Wait until this is true, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_moved_message_is_in_one_place(tmp_path: Path) -> None:
    figures = kill_during_moves(tmp_path, kills=KILLS)
    print(f"seed {SEED}: {KILLS} kills, {dict(figures)}, nothing in two places or in none")
    assert figures["interrupted"] > KILLS // 10


@pytest.mark.timeout(120)
def test_a_broker_that_moves_in_two_steps_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="in no queue|in two queues"):
        kill_during_moves(tmp_path, kills=20, command=(*SABOTAGED, "commits_in_halves"))


TABLES = "message_rows entries message_blocks block_flags body_parts queue_rows damaged audit_log meta".split()


def dump(directory: Path) -> list[Any]:
    """Every row of the store, as a crash now would leave it."""
    copy = directory.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in ("amqpd.db", "amqpd.db-wal"):
        if (directory / name).exists():
            shutil.copy(directory / name, copy / name)
    with closing(sqlite3.connect(copy / "amqpd.db")) as store:
        return [store.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]


def test_a_look_leaves_every_row_of_the_store_as_it_was(tmp_path: Path) -> None:
    """Also where most messages are on disk only; nothing is delivered, so a clean stop marks none as redelivered."""
    memory = {"AMQPD_LIMITS_MESSAGE_MEMORY": "100000"}
    with BrokerProcess(tmp_path / "data", tmp_path / "log", variables=memory) as broker:
        broker.wait_until_ready()
        operator = Operator(tmp_path / "data")
        fill(broker, random.Random(SEED))
        wait_for(lambda: len(operator.found("dead")) == MESSAGES)
        columns = ["name", "messages", "messages_paged_out"]
        before, listed = dump(tmp_path / "data"), operator.ask("list_queues", columns=columns)["rows"]
        assert dict((name, paged_out) for name, _, paged_out in listed)["dead"] > MESSAGES // 2
        assert operator.ask("peek", queue="dead", offset=700, count=50)["next_offset"] == 750
        assert not operator.ask("peek", queue="dead", filter={"header": ["no"]}, scan=100_000)["messages"]
        for command in ("move", "delete_messages"):
            arguments = {"to_queue": "other"} if command == "move" else {}
            told = operator.ask(command, queue="dead", everything=True, dry_run=True, **arguments)
            assert told["matched"] == MESSAGES
        got, cursor = 0, None
        while got < MESSAGES:
            part = operator.ask("export_messages", queue="dead", cursor=cursor)
            got, cursor = got + len(part["messages"]), part["cursor"]
        assert dump(tmp_path / "data") == before
        assert operator.ask("list_queues", columns=columns)["rows"] == listed
        broker.stop()
    assert [row[2] for row in dump(tmp_path / "data")[0]] == [row[2] for row in before[0]]
