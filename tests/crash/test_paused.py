"""A broker that was suspended for a while, as in a paused virtual machine or a laptop; here by SIGSTOP.

Clients that went on sending stay connected. A client that is really dead is detected when the broker has run for the
usual time again.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pamqp.commands import Basic, Queue

from tests.crash.broker_process import BrokerProcess
from tests.crash.crash_client import Client, Refused

HEARTBEAT_S = 1
PAUSE_S = 5.0
NOTICED_S = 60.0        # far more than 2.5 intervals: how long a test waits for what must come


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker that runs, and runs on at the end of the test."""
    with BrokerProcess(tmp_path / "data", tmp_path / "log").wait_until_ready() as broker:
        yield broker
        broker.signal(signal.SIGCONT)


def pause(broker: BrokerProcess, clients: list[Client]) -> None:
    """Stop the process for a while; these clients send heartbeats meanwhile, and afterwards."""
    broker.signal(signal.SIGSTOP)
    beat_for(PAUSE_S, clients)
    broker.signal(signal.SIGCONT)
    beat_for(3 * HEARTBEAT_S, clients)


def beat_for(seconds: float, clients: list[Client]) -> None:
    """Let these clients send a heartbeat every half interval."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for client in clients:
            client.beat()
        time.sleep(HEARTBEAT_S / 2)


def test_who_kept_sending_survives_a_pause(broker: BrokerProcess) -> None:
    clients = [Client(broker.port, heartbeat_s=HEARTBEAT_S) for _ in range(20)]
    pause(broker, clients)
    for number, client in enumerate(clients):
        client.call(Queue.Declare(0, f"queue {number}", exclusive=True))
        client.close()
    assert "no work for" in broker.log_path.read_text()


def test_a_handshake_survives_a_pause(broker: BrokerProcess, tmp_path: Path) -> None:
    with BrokerProcess(
        tmp_path / "other", tmp_path / "other log", variables={"AMQPD_LIMITS_HANDSHAKE_TIMEOUT_S": "3"}
    ).wait_until_ready() as other:
        with socket.create_connection(("127.0.0.1", other.port), timeout=NOTICED_S) as client:
            other.signal(signal.SIGSTOP)
            time.sleep(PAUSE_S)
            client.sendall(b"AMQP\x00\x00\x09\x01")
            other.signal(signal.SIGCONT)
            assert client.recv(1) == b"\x01"


def test_who_has_died_is_noticed_after_a_pause(broker: BrokerProcess) -> None:
    dead, witness = Client(broker.port, heartbeat_s=HEARTBEAT_S), Client(broker.port)
    dead.call(Queue.Declare(0, "held", exclusive=True))
    pause(broker, [])
    with contextlib.closing(witness):
        until = time.monotonic() + NOTICED_S
        while True:
            try:
                witness.call(Queue.Declare(0, "held", passive=True))
            except Refused as refusal:
                if refusal.code == 404:
                    break
                witness.open_channel()
            assert time.monotonic() < until, "the dead client keeps its queue"
            time.sleep(0.1)
    assert "missed heartbeats from client" in broker.log_path.read_text()
    dead.drop()


def test_a_queue_that_was_used_during_a_pause_does_not_expire(broker: BrokerProcess) -> None:
    with contextlib.closing(Client(broker.port)) as client:
        client.call(Queue.Declare(0, "idle", arguments={"x-expires": 2_000}))
        broker.signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        client.send(Basic.Get(0, "idle"))
        broker.signal(signal.SIGCONT)
        assert client.take(NOTICED_S).method.name == "Basic.GetEmpty"    # type: ignore[union-attr]  # it has come
