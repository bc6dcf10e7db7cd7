"""PROXY headers: which are good, what they claim, who may send one, and what a session sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Queue

from amqpd.config import Config, Limits, Listener, Network
from amqpd.server.proxy_protocol import SIGNATURE, Claim, Header, ProxyError
from amqpd.server.runtime import Runtime
from tests.crash.crash_client import Client
from tests.server.test_tls import LOOPS, Files, context, files, loop, port_of, serve, sessions
from tests.support.loops import until

__all__ = ["files", "loop"]     # fixtures
FOUR = Claim(("192.0.2.1", 40_000), ("198.51.100.7", 5_672))
SIX = Claim(("2001:db8::1", 40_000), ("2001:db8::2", 5_672))


def header_2(command: int, family: int, addresses: bytes, version: int = 2) -> bytes:
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family, len(addresses)) + addresses


def addresses(claim: Claim, kind: socket.AddressFamily, more: bytes = b"") -> bytes:
    packed = [socket.inet_pton(kind, address) for address, _ in claim]
    return b"".join(packed) + struct.pack(">HH", claim.peer[1], claim.host[1]) + more


IN_4, IN_6 = addresses(FOUR, socket.AF_INET), addresses(SIX, socket.AF_INET6)
TLV = b"\x04\x00\x03abc"
GOOD: dict[str, tuple[bytes, Claim | None]] = {
    "1, IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 5672\r\n", FOUR),
    "1, IPv6": (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 40000 5672\r\n", SIX),
    "1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "1, unknown with more": (b"PROXY UNKNOWN ffff:: whatever\r\n", None),
    "1, the longest": (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", None),
    "1, the least ports": (b"PROXY TCP4 192.0.2.1 198.51.100.7 0 65535\r\n",
                           Claim((FOUR.peer[0], 0), (FOUR.host[0], 65_535))),
    "2, IPv4": (header_2(1, 0x11, IN_4), FOUR),
    "2, IPv6": (header_2(1, 0x21, IN_6), SIX),
    "2, with more": (header_2(1, 0x11, IN_4 + TLV), FOUR),
    "2, the longest": (header_2(1, 0x11, IN_4 + bytes(508)), FOUR),
    "2, local": (header_2(0, 0, b""), None),
    "2, local with addresses": (header_2(0, 0x11, IN_4), None),
    "2, unspecified": (header_2(1, 0, b"x" * 9), None),
    "2, a UNIX socket": (header_2(1, 0x31, bytes(216)), None),
    "2, UDP": (header_2(1, 0x12, IN_4), None),
}
BAD = {
    "AMQP": b"AMQP\x00\x00\x09\x01",
    "TLS": b"\x16\x03\x01\x02\x00",
    "another case": b"proxy TCP4 192.0.2.1 198.51.100.7 40000 5672\r\n",
    "1, another family": b"PROXY UDP4 192.0.2.1 198.51.100.7 40000 5672\r\n",
    "1, nothing": b"PROXY \r\n",
    "1, no ports": b"PROXY TCP4 192.0.2.1 198.51.100.7\r\n",
    "1, more words": b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 5672 1\r\n",
    "1, two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.7 40000 5672\r\n",
    "1, no address": b"PROXY TCP4 192.0.2.256 198.51.100.7 40000 5672\r\n",
    "1, a zone": b"PROXY TCP6 fe80::1%eth0 2001:db8::2 40000 5672\r\n",
    "1, another version": b"PROXY TCP4 2001:db8::1 2001:db8::2 40000 5672\r\n",
    "1, a large port": b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 5672\r\n",
    "1, a signed port": b"PROXY TCP4 192.0.2.1 198.51.100.7 +4000 5672\r\n",
    "1, a port of other digits": "PROXY TCP4 192.0.2.1 198.51.100.7 ٤ 5672\r\n".encode(),
    "1, too long": b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    "1, no end": b"PROXY TCP4 " + b"1" * 200,
    "2, another version": header_2(1, 0x11, IN_4, version=1),
    "2, another command": header_2(2, 0x11, IN_4),
    "2, another family": header_2(1, 0x41, IN_4),
    "2, another transport": header_2(1, 0x13, IN_4),
    "2, too short": header_2(1, 0x11, IN_4[:-1]),
    "2, too short for IPv6": header_2(1, 0x21, IN_4),
    "2, too long": header_2(1, 0x11, IN_4 + bytes(509)),
    "2, another signature": SIGNATURE[:-1] + b"\r" + header_2(1, 0x11, IN_4)[12:],
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("step", [1, 5, 1_000])
def test_a_good_header_claims_what_it_says_and_takes_nothing_after_it(name: str, step: int) -> None:
    octets, claim = GOOD[name]
    header, left, taken = Header(), octets + b"AMQP\x00\x00\x09\x01", 0
    while not header.is_complete:
        taken += header.take(left[taken:taken + step])
    assert (header.claim, taken) == (claim, len(octets))


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("step", [1, 5, 1_000])
def test_a_bad_header_is_an_error(name: str, step: int) -> None:
    header, left = Header(), BAD[name] + bytes(600)
    with pytest.raises(ProxyError):
        while not header.is_complete:
            left = left[header.take(left[:step]):]


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=100).map(lambda octets: SIGNATURE + octets),
                 st.binary(max_size=100).map(lambda octets: b"PROXY TCP4 " + octets)), st.integers(1, 600))
def test_no_input_is_more_than_an_error(octets: bytes, step: int) -> None:
    header = Header()
    with contextlib.suppress(ProxyError):
        while octets and not header.is_complete:
            taken = header.take(octets[:step])
            assert 0 < taken <= min(step, len(octets))
            octets = octets[taken:]


# A whole broker

class ProxiedClient(Client):
    """A client that begins with this, and goes on by TLS if it has a context."""

    def __init__(self, port: int, begin: bytes, tls: ssl.SSLContext | None = None, pieces: int = 1) -> None:
        self._begins_with, self._tls, self._pieces = begin, tls, pieces
        super().__init__(port)

    def _shake_hands(self) -> None:
        step = -(-len(self._begins_with) // self._pieces)
        for start in range(0, len(self._begins_with), step or 1):
            self._socket.sendall(self._begins_with[start:start + step])
        if self._tls is not None:
            self._socket = self._tls.wrap_socket(self._socket, server_hostname="localhost")
        super()._shake_hands()


def config(*networks: str, **more: Any) -> Config:
    return Config(**{
        "memory": True, "listeners": (Listener("127.0.0.1:0"),), "loopback_users": (),
        "proxy_protocol_from": tuple(map(Network, networks or ("127.0.0.0/8",))), **more})


@pytest.mark.parametrize("name", GOOD)
def test_a_session_sees_whom_the_proxy_speaks_for(loop: str, name: str) -> None:
    octets, claim = GOOD[name]

    def talk(runtime: Runtime) -> None:
        with ProxiedClient(runtime.addresses[0][1], octets, pieces=3) as client:
            client.call(Queue.Declare(0, "q"))
            session, = sessions(runtime)
            listed = session.statistics()
            if claim is None:
                assert listed.peer_host == "127.0.0.1" and listed.port == runtime.addresses[0][1]
            else:
                assert (listed.peer_host, listed.peer_port, listed.host, listed.port) == (*claim.peer, *claim.host)
            assert not session.state.is_local

    serve(config(), talk, loop)


def test_the_header_comes_before_tls(files: Files, loop: str) -> None:
    def talk(runtime: Runtime) -> None:
        with ProxiedClient(port_of(runtime), GOOD["2, IPv4"][0], context()) as client:
            client.call(Queue.Declare(0, "q"))
            session, = sessions(runtime)
            assert session.name == "192.0.2.1:40000 -> 198.51.100.7:5672" and session.state.tls is not None

    serve(config(tls=files.tls()), talk, loop)


@contextlib.contextmanager
def ended() -> Iterator[None]:
    with pytest.raises(ConnectionError):
        yield


@pytest.mark.parametrize("name, is_let_in", [
    ("1, unknown", False), ("2, local", False), ("1, IPv4", False), ("a client on the proxy's machine", True)])
def test_guest_gets_in_only_if_the_claimed_client_is_local(name: str, is_let_in: bool) -> None:
    octets = GOOD[name][0] if name in GOOD else b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 5672\r\n"

    def talk(runtime: Runtime) -> None:
        with contextlib.nullcontext() if is_let_in else ended():
            ProxiedClient(runtime.addresses[0][1], octets).close()

    serve(config(loopback_users=("guest",), limits=Limits(login_failure_delay_s=0)), talk)


@pytest.mark.parametrize("name", ["AMQP", "1, nothing", "2, too long"])
def test_a_malformed_header_ends_the_connection_with_a_line(
    loop: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(runtime: Runtime) -> None:
        with socket.create_connection(("127.0.0.1", runtime.addresses[0][1])) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, BAD[name])
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b""
        assert runtime._listeners is not None and not runtime._listeners._sockets

    serve(config(), talk, loop)
    assert caplog.text.count("closing: PROXY header: it ") == 1


def test_a_header_that_does_not_come_in_time_ends_the_connection(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(runtime: Runtime) -> None:
        with socket.create_connection(("127.0.0.1", runtime.addresses[0][1])) as client:
            client.setblocking(False)
            client.sendall(b"PROXY TCP4 ")
            assert await asyncio.get_running_loop().sock_recv(client, 100) == b""

    serve(config(limits=Limits(handshake_timeout_s=0.1)), talk, loop)
    assert "closing: PROXY header: none came in time" in caplog.text


def test_a_check_of_health_leaves_no_line(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(runtime: Runtime) -> None:
        listeners = runtime._listeners
        assert listeners is not None
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", runtime.addresses[0][1]))
            await until(lambda: len(listeners._proxies) == 1)
            client.close()
            await until(lambda: not listeners._sockets)

    serve(config(), talk, loop)
    assert not caplog.records


def test_who_is_not_listed_claims_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def talk(runtime: Runtime) -> None:
        with Client(runtime.addresses[0][1]):
            assert sessions(runtime)[0].state.is_local
        with pytest.raises((ConnectionError, KeyError, AssertionError, ValueError)):
            ProxiedClient(runtime.addresses[0][1], GOOD["1, IPv4"][0])

    serve(config("10.0.0.0/8", "127.0.0.2", "2001:db8::/32"), talk)
    assert "not an AMQP 0-9-1 client: it began with b'PROXY TC'" in caplog.text


def test_a_stop_does_not_wait_for_a_header(loop: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with Runtime(config()) as runtime:
                client = socket.create_connection(("127.0.0.1", runtime.addresses[0][1]))
                listeners = runtime._listeners
                assert listeners is not None
                await until(lambda: len(listeners._proxies) == 1)
            client.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


def test_clients_of_one_proxy_are_counted_by_their_own_addresses(loop: str) -> None:
    async def talk(runtime: Runtime) -> None:
        listeners = runtime._listeners
        assert listeners is not None
        held = []
        for last in (1, 1, 1, 2, 2):
            client = socket.create_connection(("127.0.0.1", runtime.addresses[0][1]))
            client.sendall(b"PROXY TCP4 192.0.2.%d 192.0.2.9 4000 5672\r\n" % last)
            held.append(client)
        await until(lambda: len(sessions(runtime)) == 4 and listeners._waiting_count == 1)
        assert [*listeners._waiting] == ["192.0.2.1"]
        for client in held:
            client.close()
        await until(lambda: not listeners._sockets)

    serve(config(limits=Limits(max_unauthenticated_per_address=2)), talk, loop)


def test_headers_that_are_awaited_count_among_clients_before_login(loop: str) -> None:
    async def talk(runtime: Runtime) -> None:
        listeners = runtime._listeners
        assert listeners is not None
        held = [socket.create_connection(("127.0.0.1", runtime.addresses[0][1])) for _ in range(3)]
        await until(lambda: len(listeners._proxies) == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert listeners._sockets == 2
        held[0].close()
        await until(lambda: listeners._sockets == 2 and len(listeners._proxies) == 2)
        held[2].sendall(GOOD["1, IPv4"][0])
        await until(lambda: len(sessions(runtime)) == 1)
        for client in held:
            client.close()
        await until(lambda: not listeners._sockets)

    serve(config(limits=Limits(max_unauthenticated=2)), talk, loop)
