"""The end of a broker: within ten seconds after a signal, whatever its clients do, and at once if its disk fails.

A signal works even if the event loop is busy, and a watchdog outside the loop ends a stop that takes too long. If the
disk fails, nothing more is confirmed, and clients get 541 before the process ends with exit code 74.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pamqp.commands import Basic, Confirm, Queue

from tests.crash.broker_process import COMMAND, SABOTAGED, BrokerProcess
from tests.crash.crash_client import Client, Refused, pack_content

PERSISTENT = Basic.Properties(delivery_mode=2)
STOP_S, FAIL_S = 10.0, 5.0
FAILURE = "cannot use /data/amqpd.db (disk I/O error): check its disk and its permissions"
EXIT_IO = 74


def start(folder: Path, *command: str) -> BrokerProcess:
    """A broker in this folder; without one, the real one."""
    return BrokerProcess(folder / "data", folder / "log", command=command or COMMAND).wait_until_ready()


def says_nothing(client: Client) -> None:
    """A client that is just there, and never answers anything."""


def never_reads(client: Client) -> None:
    """A client that has far more delivered than its socket takes."""
    client.call(Queue.Declare(0, "orders"))
    for _ in range(40):
        client.publish("", "orders", pack_content(Basic.Properties(), bytes(1 << 20))[0])
    client.send(Basic.Consume(0, "orders", "c", False, True))


@pytest.mark.parametrize("behave", [says_nothing, never_reads])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_cleanly_within_ten_seconds(
    behave: Callable[[Client], None], signum: int, tmp_path: Path
) -> None:
    with start(tmp_path) as broker:
        client, watcher = Client(broker.port), Client(broker.port)
        with contextlib.closing(watcher):
            behave(client)
            watcher.call(Queue.Declare(0, "others", durable=True))
            started_at = time.monotonic()
            assert broker.stop(signum) == 0
            took_s = time.monotonic() - started_at
            client.drop()
    print(f"stopped in {took_s:.1f} s beside a client that {behave.__name__.replace('_', ' ')}")
    assert took_s < STOP_S


def test_a_stop_that_hangs_ends_as_a_crash(tmp_path: Path) -> None:
    with start(tmp_path, *SABOTAGED, "hanging_disk") as broker:
        client = Client(broker.port)
        client.call(Queue.Declare(0, "orders", durable=True))
        client.publish("", "orders", pack_content(PERSISTENT, b"body")[0])
        client.call(Basic.Qos())
        assert broker.stop() == 128 + signal.SIGTERM
        client.drop()
    assert "the stop takes too long: ending as in a crash" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_heard_and_ends_though_the_loop_is_busy(signum: int, tmp_path: Path) -> None:
    with start(tmp_path, *SABOTAGED, "busy_loop") as broker:
        client = Client(broker.port)
        client.send(Queue.Declare(0, "busy"))
        assert not broker.has_ended_within(0.5)
        assert broker.stop(signum) == 128 + signal.SIGTERM
        client.drop()
    assert "the stop takes too long: ending as in a crash" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_busy_broker_at_once(signum: int, tmp_path: Path) -> None:
    with BrokerProcess(
        tmp_path / "data", tmp_path / "log", command=(*SABOTAGED, "busy_loop"), level="info"
    ).wait_until_ready() as broker:
        client = Client(broker.port)
        client.send(Queue.Declare(0, "busy"))
        broker.signal(signal.SIGTERM)
        broker.wait_for_line("stopping: SIGTERM")
        assert broker.stop(signum) == 128 + signum
        client.drop()


def test_an_end_before_the_broker_is_ready_is_that_of_a_crash(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data", tmp_path / "log", command=(*SABOTAGED, "slow_start")) as broker:
        broker.wait_for_line("starting slowly")
        assert broker.stop() == 128 + signal.SIGTERM


def confirms_after_failure(folder: Path, fault: str) -> list[str]:
    """Return what three clients receive from a broker whose disk fails during the publish of the first one."""
    heard: list[str] = []
    with start(folder, *SABOTAGED, fault) as broker:
        publisher, declarer, watcher, mute = (Client(broker.port) for _ in range(4))
        publisher.call(Queue.Declare(0, "orders", durable=True))
        publisher.call(Confirm.Select())
        publisher.publish("", "orders", pack_content(PERSISTENT, b"body")[0])
        publisher.call(Basic.Qos())
        declarer.send(Queue.Declare(0, "late", durable=True))
        started_at = time.monotonic()
        for client in (publisher, declarer, watcher):
            try:
                arrived = client.take(2.0)
                heard.append(arrived.method.name if arrived else "nothing")
            except Refused as refusal:
                heard.append(str(refusal))
        if broker.has_ended_within(FAIL_S):
            heard.append(f"exit {broker.wait()}")
            print(f"ended {time.monotonic() - started_at:.1f} s after its disk had failed")
        for client in (publisher, declarer, watcher, mute):
            client.drop()
    return heard


def test_a_disk_that_fails_ends_the_broker_and_confirms_nothing(tmp_path: Path) -> None:
    told = "Connection.Close: 541 INTERNAL_ERROR - the store has failed"
    assert confirms_after_failure(tmp_path, "broken_disk") == [told, told, told, f"exit {EXIT_IO}"]
    lines = (tmp_path / "log").read_text().splitlines()
    assert f"amqpd: {FAILURE}" in lines and "Traceback" not in "".join(lines)


def test_a_broker_that_goes_on_is_caught(tmp_path: Path) -> None:
    assert confirms_after_failure(tmp_path, "broken_disk_goes_on")[0] == "Basic.Ack"


def test_the_weaker_promise_is_shown_at_the_start(tmp_path: Path) -> None:
    with BrokerProcess(
        tmp_path / "data", tmp_path / "log", variables={"AMQPD_DURABILITY": "process"}
    ).wait_until_ready() as broker:
        assert broker.stop() == 0
    assert 'durability = "process": confirmed messages survive the end of the process, but not' in (
        tmp_path / "log").read_text()
