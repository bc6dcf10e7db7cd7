"""Binding the addresses of the listeners, and the error if an address is not available."""

from __future__ import annotations

import asyncio
import os
import socket
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EMFILE

import pytest

from amqpd.server import addresses


def test_a_free_port_is_found_and_then_in_use() -> None:
    async def main() -> None:
        first, = await addresses.bind("127.0.0.1", 0)
        with first:
            first.listen()
            with pytest.raises(OSError) as caught:
                await addresses.bind(*first.getsockname())
            assert caught.value.errno == EADDRINUSE

    asyncio.run(main())


def test_no_socket_stays_open_where_one_address_of_a_host_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            opened.append(self)

    async def main(port: int) -> None:
        async def found(*_: object, **__: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        with pytest.raises(OSError):
            await addresses.bind("localhost", port)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(addresses.socket, "socket", Recorded)
        asyncio.run(main(taken.getsockname()[1]))
    ours = [one for one in opened if one.type == socket.SOCK_STREAM and one.family == socket.AF_INET]
    assert len(ours) == 2 and all(one.fileno() == -1 for one in ours)


@pytest.mark.parametrize(("error", "port", "line"), [
    (OSError(EADDRINUSE, ""), 5672, "Address already in use; stop the program that uses it, or choose another address "
                                    "with --listen HOST:PORT"),
    (OSError(EACCES, ""), 80, "Permission denied; ports below 1024 need privileges: choose a higher port with --listen "
                              "HOST:PORT, or grant the right (on Linux: CAP_NET_BIND_SERVICE)"),
    (OSError(EADDRNOTAVAIL, ""), 5672, f"{os.strerror(EADDRNOTAVAIL)}; this machine has no such address: use one that "
                                       "it has, or 0.0.0.0 for all, with --listen HOST:PORT"),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 5672,
     "Name or service not known; use a host name that can be resolved, or an IP address of this machine"),
    (OSError(EMFILE, ""), 5672, f"{os.strerror(EMFILE)}; choose another address with --listen HOST:PORT"),
])
def test_the_remedy_fits_the_reason(error: OSError, port: int, line: str) -> None:
    assert addresses.describe_failure("h:1", port, error) == f"cannot listen on h:1: {line}"
