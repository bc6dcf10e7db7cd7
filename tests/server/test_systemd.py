"""What a service manager is told, and sockets that it passes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqpd.config import Config, Listener
from amqpd.server import systemd
from amqpd.server.startup import StartError
from amqpd.server.systemd import Passed, Service, take_passed_sockets


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that a service manager listens at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.settimeout(10)
        yield one


def told(manager: socket.socket) -> list[str]:
    return manager.recv(4_096).decode().split("\n")


def test_without_a_manager_nothing_is_told_and_nothing_waits(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"WATCHDOG_USEC": "x"}):
        service = Service(environ)
        service.ready([("127.0.0.1", 5672)])
        service.stopping()
        asyncio.run(service.keep_alive())


def test_a_manager_at_an_abstract_address_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")       # the kernel chooses an abstract one
        Service({"NOTIFY_SOCKET": "@" + manager.getsockname()[1:].decode()}).ready([("::1", 5672), ("127.0.0.1", 1)])
        assert told(manager) == ["READY=1", "STATUS=serving clients at [::1]:5672, 127.0.0.1:1"]


@pytest.mark.parametrize(
    "pid, is_ours", [("", True), (str(os.getpid()), True), ("1", False)], ids=["none", "ours", "other"])
def test_the_watchdog_is_told_twice_in_its_time(manager: socket.socket, pid: str, is_ours: bool) -> None:
    service = Service({
        "NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": pid})
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        assert told(manager) == ["WATCHDOG=1"]
        if len(waits) == 3:
            raise TimeoutError

    with contextlib.suppress(TimeoutError):
        asyncio.run(service.keep_alive(sleep))
    assert waits == ([5.0] * 3 if is_ours else [])


def test_passed_sockets_take_the_place_of_listeners_of_their_kind() -> None:
    amqp, amqps = Listener("0.0.0.0:1"), Listener("0.0.0.0:2")
    with socket.socket() as one:
        assert Passed().used_in(Config()) == Config()
        config = Passed({amqp: one}).used_in(Config())
        assert (config.listeners, config.tls.listeners, config.management.is_default) == ((amqp,), (), True)
        passed = Passed(amqps={amqps: one}, http={amqp: one}, metrics={amqps: one})
        config = passed.used_in(Config())
        assert (config.listeners, config.tls.listeners) == (Config().listeners, (amqps,))
        assert (config.management.listeners, config.management.metrics_listeners) == ((amqp,), (amqps,))
        assert passed.by_listener.keys() == {amqp, amqps}


def test_a_passed_socket_is_for_no_other_program_and_a_file_is_none(tmp_path: Path) -> None:
    with socket.socket() as one:
        descriptor = os.dup(one.fileno())
        os.set_inheritable(descriptor, True)
        with systemd._socket_of(descriptor, "") as taken:
            assert not os.get_inheritable(descriptor) and not taken.getblocking()
    with (tmp_path / "file").open("w") as file, pytest.raises(StartError, match="is not a socket"):
        systemd._socket_of(file.fileno(), "")


@pytest.mark.parametrize("environ", [
    {}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}],
    ids=["none", "other", "no number"])
def test_sockets_for_another_process_are_not_taken(environ: dict[str, str]) -> None:
    assert take_passed_sockets(environ) == Passed({}, {}, {}, {}) and not environ
