"""The broker as a service: sockets that are passed to it, and what its manager is told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.broker_process import ROOT

TAKE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.executable, [sys.executable, "-m", "amqpd", *sys.argv[3:]])
"""


def command(passed: socket.socket, name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", TAKE, str(passed.fileno()), name, "--memory", "--management", "none", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("AMQPD_")} | {
        "PYTHONPATH": str(ROOT), **more}


def told(manager: socket.socket) -> list[str]:
    return manager.recv(4_096).decode().split("\n")


def test_a_broker_serves_at_a_passed_socket_and_tells_its_manager(tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), 10)      # it waits for the broker
        process = subprocess.Popen(
            command(passed, "amqpd.socket"), pass_fds=[passed.fileno()], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, cwd=ROOT,
            env=environment(NOTIFY_SOCKET=manager.getsockname(), WATCHDOG_USEC="60000000"))
    with process, client, manager:
        assert process.stdout is not None and f" ready amqp=127.0.0.1:{port} data=memory" in process.stdout.readline()
        assert told(manager) == ["READY=1", f"STATUS=serving clients at 127.0.0.1:{port}"]
        assert told(manager) == ["WATCHDOG=1"]
        client.sendall(b"AMQP\x00\x00\x09\x01")
        assert client.recv(1) == b"\x01"
        process.send_signal(signal.SIGTERM)
        assert told(manager) == ["STOPPING=1", "STATUS=closing the connections of clients"]
        assert process.wait(10) == 0


@pytest.mark.parametrize("name, family, fault", [
    ("amqp", socket.AF_UNIX, "the passed socket 3 (amqp) is not one of TCP: let its unit have ListenStream=PORT"),
    ("amqps", socket.AF_INET, "tls.certificate"),
])
def test_a_passed_socket_that_cannot_be_served_ends_the_start(
    name: str, family: socket.AddressFamily, fault: str
) -> None:
    with socket.socket(family) as passed:
        passed.bind("" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        done = subprocess.run(
            command(passed, name), pass_fds=[passed.fileno()], capture_output=True, text=True, timeout=30, cwd=ROOT,
            env=environment())
    assert done.returncode == 78 and fault in done.stderr and "Traceback" not in done.stderr


def test_an_open_passed_socket_needs_a_user_like_an_open_listener() -> None:
    with socket.socket() as passed:
        passed.bind(("0.0.0.0", 0))
        done = subprocess.run(
            command(passed, ""), pass_fds=[passed.fileno()], capture_output=True, text=True, timeout=30, cwd=ROOT,
            env=environment())
    assert done.returncode == 78 and "0.0.0.0" in done.stderr
