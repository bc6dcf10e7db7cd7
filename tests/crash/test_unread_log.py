"""A broker whose log output nobody reads: it serves its clients, and later logs how many lines were dropped."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pamqp.commands import Queue

from tests.crash.broker_process import SABOTAGED, START_LIMIT_S, BrokerProcess
from tests.crash.crash_client import Client

CONNECTIONS = 300       # each is worth three lines of the log, of which a pipe of 64 KiB takes some 500
DROPPED = re.compile(r"(\d+) log messages dropped: the log was not read")


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """Return the two ends of a full pipe: the one for reading first."""
    inlet, outlet = os.pipe()
    os.set_blocking(outlet, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(outlet, bytes(4_096))
    os.set_blocking(outlet, True)
    yield inlet, outlet
    for descriptor in (inlet, outlet):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def free_port() -> int:
    """Return a port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def wait_until_it_listens(port: int) -> None:
    """Return once something listens there."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=START_LIMIT_S).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the broker never listened"
            time.sleep(0.05)


def test_a_broker_serves_and_stops_though_nobody_reads_what_it_says(
    full_pipe: tuple[int, int], tmp_path: Path
) -> None:
    port = free_port()
    with BrokerProcess(
        tmp_path / "data", tmp_path / "log", listen=f"127.0.0.1:{port}", level="info", output=full_pipe[1]
    ) as broker:
        wait_until_it_listens(port)
        witness = Client(port)
        for _ in range(CONNECTIONS):
            Client(port).close()
        witness.call(Queue.Declare(0, "orders", durable=True))
        witness.close()
        assert broker.stop() == 0


def test_what_was_left_out_is_told_once_somebody_reads(full_pipe: tuple[int, int], tmp_path: Path) -> None:
    port = free_port()
    heard: list[bytes] = []

    def read() -> None:
        while octets := os.read(full_pipe[0], 65_536):
            heard.append(octets)

    with BrokerProcess(
        tmp_path / "data", tmp_path / "log", listen=f"127.0.0.1:{port}", level="info", output=full_pipe[1],
        command=(*SABOTAGED, "small_backlog"),
    ) as broker:
        wait_until_it_listens(port)
        for _ in range(20):
            Client(port).close()
        os.close(full_pipe[1])
        reader = threading.Thread(target=read)
        reader.start()
        Client(port).close()
        assert broker.stop() == 0
        reader.join()
    lines = b"".join(heard).lstrip(b"\0").decode().splitlines()
    dropped = [match for match in map(DROPPED.search, lines) if match]
    assert dropped and int(dropped[0][1]) > 0
    assert lines[-1].endswith("stopped") or lines[-2].endswith("stopped")
