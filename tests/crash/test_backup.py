"""`amqpd store …` beside a running broker: backups under load, and refused commands."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pika
import pytest

from amqpd.store.sqlite.limits import LARGEST_WAL
from tests.crash.broker_process import COMMAND, ROOT, SABOTAGED, BrokerProcess

LARGE = 33      # messages of a mebibyte: the log has just been written back, and holds what comes then
PERSISTENT = pika.BasicProperties(delivery_mode=2)


class Load:
    """Publishers with confirms, and consumers, one of which never acks, until they are stopped."""

    def __init__(self, port: int, log: Path) -> None:
        self._log = log
        self.largest_log = 0
        self._parameters = pika.ConnectionParameters("127.0.0.1", port)
        self._stop = threading.Event()
        self.confirmed: list[str] = []
        self.published: set[str] = set()
        self.delivered: list[str] = []
        self.slowest_s = 0.0
        with pika.BlockingConnection(self._parameters) as connection:
            channel = connection.channel()
            channel.exchange_declare("both", "fanout", durable=True)
            for name in ("first", "second"):
                channel.queue_declare(name, durable=True)
                channel.queue_bind(name, "both")
            channel.queue_declare("drained", durable=True)
            channel.confirm_delivery()
            for number in range(2, 3 * LARGE, 3):       # so that a backup takes a while
                body = f"large-{number}-".ljust(1 << 20, "x")
                channel.basic_publish("", "first", body, PERSISTENT)
                self.confirmed.append(body)
                self.published.add(body)
        self._threads = [threading.Thread(target=self._publish, args=(name,)) for name in "abc"]
        self._threads.append(threading.Thread(target=self._consume))
        for thread in self._threads:
            thread.start()

    def _publish(self, name: str) -> None:
        with pika.BlockingConnection(self._parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            number = 0
            while not self._stop.is_set():
                number += 1
                body = f"{name}-{number}-".ljust(2_000, "x")
                exchange, key = [("both", ""), ("", "drained"), ("", "first")][number % 3]
                began = time.monotonic()
                self.published.add(body)
                channel.basic_publish(exchange, key, body, PERSISTENT)
                self.confirmed.append(body)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _consume(self) -> None:
        with pika.BlockingConnection(self._parameters) as connection:
            connection.channel().basic_get("first")     # and is never answered
            channel = connection.channel()
            while not self._stop.is_set():
                method, _, body = channel.basic_get("drained")
                if method is not None:
                    self.delivered.append(body.decode())
                    channel.basic_ack(method.delivery_tag)

    def wait_for(self, count: int) -> None:
        """Return when so many have been confirmed."""
        limit = time.monotonic() + 30
        while len(self.confirmed) < count:
            assert time.monotonic() < limit and all(thread.is_alive() for thread in self._threads)
            self.largest_log = max(self.largest_log, self._log.stat().st_size)
            self._stop.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def amqpd(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "store", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=50)


def drain(port: int) -> dict[str, list[tuple[str, bool]]]:
    """Body and `redelivered` of all messages, by queue."""
    found: dict[str, list[tuple[str, bool]]] = {}
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        channel = connection.channel()
        for name in ("first", "second", "drained"):
            found[name] = []
            while (answer := channel.basic_get(name, auto_ack=True))[0] is not None:
                found[name].append((answer[2].decode(), answer[0].redelivered))
    return found


def back_up_under_load(tmp_path: Path, command: tuple[str, ...]) -> tuple[Load, list[str]]:
    """Make `backup` of a broker that is busy; the load, which has ended, and what was confirmed before."""
    with BrokerProcess(tmp_path / "data", tmp_path / "log", command=command).wait_until_ready() as broker:
        load = Load(broker.port, tmp_path / "data" / "amqpd.db-wal")
        try:
            load.wait_for(600)
            before = [*load.confirmed]
            load.slowest_s = 0.0
            done = amqpd("backup", "--data-dir", tmp_path / "data", tmp_path / "backup")
            slowest_s = load.slowest_s
            load.wait_for(len(load.confirmed) + 10)
        finally:
            load.stop()
        assert done.returncode == 0, done.stderr
        assert broker.stop() == 0
    load.slowest_s = slowest_s
    return load, before


def expect_whole(found: dict[str, list[tuple[str, bool]]], load: Load, before: list[str]) -> None:
    """Check that the backup has each message once that was confirmed before it and not delivered."""
    queues = {"1": ("drained",), "2": ("first",), "0": ("first", "second")}
    for name, messages in found.items():
        counts = Counter(body for body, _ in messages)
        assert max(counts.values(), default=1) == 1, "a message is there twice"
        assert counts.keys() <= load.published
        missing = [
            body for body in before if name in queues[str(int(body.split("-")[1]) % 3)]
            and body not in counts and body not in load.delivered]
        assert not missing, f"{len(missing)} confirmed messages are not in the backup"
        assert all(redelivered for _, redelivered in messages)


def test_a_backup_under_load_has_all_that_was_confirmed_before(tmp_path: Path) -> None:
    load, before = back_up_under_load(tmp_path, COMMAND)
    restored = amqpd("restore", "--data-dir", tmp_path / "elsewhere", tmp_path / "backup")
    assert restored.returncode == 0, restored.stderr
    with BrokerProcess(tmp_path / "elsewhere", tmp_path / "log").wait_until_ready() as broker:
        found = drain(broker.port)
        expect_whole(found, load, before)
        assert broker.stop() == 0
    assert 0 < load.largest_log <= LARGEST_WAL + (2 << 20)
    print(f"\n{len(before)} confirmed before the backup, {len(load.confirmed)} in all, {sum(map(len, found.values()))} "
          f"messages restored, lost 0; the slowest confirm meanwhile took {load.slowest_s * 1000:.0f} ms")


def test_a_backup_without_the_log_would_be_caught(tmp_path: Path) -> None:
    """Teeth of the test above."""
    load, before = back_up_under_load(tmp_path, (*SABOTAGED, "backup_without_log"))
    with BrokerProcess(tmp_path / "backup", tmp_path / "log").wait_until_ready() as broker:
        with pytest.raises((AssertionError, pika.exceptions.ChannelClosedByBroker)):
            expect_whole(drain(broker.port), load, before)


def test_a_running_brokers_store_is_told_of_and_otherwise_left_alone(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data", tmp_path / "log").wait_until_ready() as broker:
        told = amqpd("info", "--data-dir", tmp_path / "data")
        assert "state:      in use by a running broker\n" in told.stdout
        assert "durability: power\n" in told.stdout
        for command in (("check",), ("compact",), ("salvage", tmp_path / "new"), ("restore", tmp_path / "data")):
            refused = amqpd(*command, "--data-dir", tmp_path / "data")
            assert refused.returncode == 75, refused
            assert refused.stderr.count("\n") == 1 and "is held by a running broker" in refused.stderr
        again = amqpd("backup", "--data-dir", tmp_path / "data", tmp_path / "data")
        assert again.returncode == 74 and "is there already" in again.stderr
        assert broker.stop() == 0
    assert not (tmp_path / "new").exists()
