"""Clients of public libraries over TLS, with passwords and with certificates, and behind a proxy that sends headers.

Node's amqplib takes part where Node.js finds it: `npm install amqplib`, and NODE_PATH names the folder node_modules.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from amqpd import ctl
from tests.crash.broker_process import BrokerProcess
from tests.crash.clients import CLIENTS, QUEUE, Login, UseClient, has_amqplib

PASSWORD = "p@ss/wörd%"
PROXY = "127.0.0.2"         # the proxy's own address; nobody else's connections begin with a header
OTHER_HOST = "127.0.0.3"    # the certificate does not have it
CLIENT = "192.0.2.7"        # what headers claim: whom the proxy speaks for, and what that client connected to
FRONT, FRONT_PORT = "198.51.100.7", 5671
CLIENT_PORTS = itertools.count(40_000)
BODIES = [b"", b"one", bytes(range(256)) * 10_000, *(bytes(size) for size in range(20))]
Tell = Callable[..., list[list[str]]]


def header(version: int, client_port: int) -> bytes:
    """Return a header of the PROXY protocol: who connected, and to what."""
    if version == 1:
        return f"PROXY TCP4 {CLIENT} {FRONT} {client_port} {FRONT_PORT}\r\n".encode()
    addresses = socket.inet_aton(CLIENT) + socket.inet_aton(FRONT) + struct.pack(">HH", client_port, FRONT_PORT)
    return b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack(">H", len(addresses)) + addresses


class Passage(socketserver.BaseRequestHandler):
    """One connection through the proxy."""

    server: HeaderProxy

    def handle(self) -> None:
        client: socket.socket = self.request
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with socket.create_connection(("127.0.0.1", self.server.broker_port), source_address=(PROXY, 0)) as broker:
            broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            broker.sendall(self.server.header)
            back = threading.Thread(target=self._pass_on, args=(broker, client))
            back.start()
            self._pass_on(client, broker)
            back.join()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65_536):
                target.sendall(octets)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class HeaderProxy(socketserver.ThreadingTCPServer):
    """A proxy that begins each connection to the broker with a header, and then passes on what it reads."""

    def __init__(self, host: str, broker_port: int, header: bytes) -> None:
        self.broker_port = broker_port
        self.header = header
        super().__init__((host, 0), Passage)


class Front(NamedTuple):
    """What clients of a proxy connect to, and whom the broker takes them for."""

    port: int
    client: tuple[str, int]
    name: str


@contextlib.contextmanager
def proxy(broker_port: int, *, version: int = 2, host: str = "127.0.0.1") -> Iterator[Front]:
    client_port = next(CLIENT_PORTS)
    with HeaderProxy(host, broker_port, header(version, client_port)) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield Front(running.server_address[1], (CLIENT, client_port), f"{CLIENT}:{client_port} -> {FRONT}:{FRONT_PORT}")
        running.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates in `tls`; in `other` those of another authority; in `mixed` a client's of the latter."""
    folder = tmp_path_factory.mktemp("clients")
    for name in ("tls", "other"):
        assert ctl.main(["-q", "make_certificates", str(folder / name), "--client", "shop"]) == 0
    shutil.copytree(folder / "other", folder / "mixed")
    shutil.copy(folder / "tls" / "ca.pem", folder / "mixed")
    return folder


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[BrokerProcess]:
    """A broker whose user `shop` logs in with a password or a certificate, and which trusts one proxy."""
    tls = folder / "tls"
    variables = {
        "AMQPD_TLS_LISTENERS": "127.0.0.1:0", "AMQPD_TLS_CERTIFICATE": str(tls / "server.pem"),
        "AMQPD_TLS_KEY": str(tls / "server.key"), "AMQPD_TLS_CA": str(tls / "ca.pem"),
        "AMQPD_TLS_CLIENT_CERTIFICATES": "optional", "AMQPD_AUTH_MECHANISMS": "PLAIN,EXTERNAL",
        "AMQPD_LOGIN_CERTIFICATE_NAME": "common_name", "AMQPD_PROXY_PROTOCOL_FROM": PROXY,
        "AMQPD_LIMITS_LOGIN_FAILURE_DELAY_S": "0", "AMQPD_DEFAULT_USER": "shop", "AMQPD_DEFAULT_PASSWORD": PASSWORD}
    started = BrokerProcess(folder / "data", folder / "log", variables=variables, level="info")
    with started.wait_until_ready() as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(params=CLIENTS)
def use(request: pytest.FixtureRequest) -> UseClient:
    if request.param == "amqplib" and not has_amqplib():
        pytest.skip("Node.js does not find amqplib: NODE_PATH names the folder node_modules that has it")
    return CLIENTS[request.param]


@pytest.fixture(autouse=True)
def no_leftovers(broker: BrokerProcess, folder: Path) -> Iterator[None]:
    """Delete the queue, with what a client that failed has left there."""
    yield
    ctl.main(["-q", "--data-dir", str(folder / "data"), "delete_queue", QUEUE])


@pytest.fixture
def tell(folder: Path, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Return what amqpctl prints, as a list of rows."""
    def tell(*arguments: str) -> list[list[str]]:
        assert ctl.main(["-s", "--data-dir", str(folder / "data"), *arguments]) == 0
        return [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    return tell


@pytest.mark.parametrize("mechanism", ["PLAIN", "EXTERNAL"])
def test_a_client_sends_and_receives_over_tls(
    broker: BrokerProcess, folder: Path, use: UseClient, tell: Tell, mechanism: str
) -> None:
    login = Login(broker.tls_port, tls=folder / "tls", password=PASSWORD if mechanism == "PLAIN" else None)
    with use(login, BODIES) as received:
        assert received == BODIES
        (name, *shown), = tell("list_connections", "name", "user", "auth_mechanism", "ssl", "peer_cert_subject")
    assert shown == ["shop", mechanism, "true", "CN=shop" if mechanism == "EXTERNAL" else ""]
    assert re.fullmatch(rf"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:{broker.tls_port}", name)
    assert_all_is_settled(broker, tell, name)


@pytest.mark.parametrize(("mechanism", "version"), [("PLAIN", 1), ("EXTERNAL", 2)])
def test_a_client_sends_and_receives_over_tls_and_through_a_proxy(
    broker: BrokerProcess, folder: Path, use: UseClient, tell: Tell, mechanism: str, version: int
) -> None:
    with proxy(broker.tls_port, version=version) as front:
        login = Login(front.port, tls=folder / "tls", password=PASSWORD if mechanism == "PLAIN" else None)
        with use(login, BODIES) as received:
            assert received == BODIES
            shown, = tell("list_connections", "name", "user", "auth_mechanism", "ssl", "peer_host", "peer_port")
    assert shown == [front.name, "shop", mechanism, "true", *map(str, front.client)]
    assert_all_is_settled(broker, tell, front.name)


@pytest.mark.parametrize("version", [1, 2])
def test_a_client_sends_and_receives_through_a_proxy_without_tls(
    broker: BrokerProcess, use: UseClient, tell: Tell, version: int
) -> None:
    with proxy(broker.port, version=version) as front, use(Login(front.port, password=PASSWORD), BODIES) as received:
        assert received == BODIES
        shown, = tell("list_connections", "name", "user", "auth_mechanism", "ssl", "peer_host", "peer_port")
    assert shown == [front.name, "shop", "PLAIN", "false", *map(str, front.client)]
    assert_all_is_settled(broker, tell, front.name)


@contextlib.contextmanager
def refused(text: str) -> Iterator[None]:
    """The client raises an error with this text, and does not connect."""
    with pytest.raises(Exception, match=text):
        yield
        pytest.fail("it connected")


def test_a_client_is_told_that_its_password_is_wrong(broker: BrokerProcess, folder: Path, use: UseClient) -> None:
    text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN"
    with proxy(broker.tls_port) as front:
        with refused(text), use(Login(front.port, tls=folder / "tls", password="wrong"), BODIES):
            pass
        broker.wait_for_line("state: starting): PLAIN login refused: user 'shop' - the password is wrong")


def test_a_client_trusts_no_other_authority(broker: BrokerProcess, folder: Path, use: UseClient) -> None:
    login = Login(broker.tls_port, tls=folder / "other", password=PASSWORD)
    with refused("self-signed certificate in certificate chain"), use(login, BODIES):
        pass


def test_a_client_trusts_no_other_host(broker: BrokerProcess, folder: Path, use: UseClient) -> None:
    with proxy(broker.tls_port, host=OTHER_HOST) as front:
        login = Login(front.port, OTHER_HOST, tls=folder / "tls", password=PASSWORD)
        with refused(f"(?i)(mismatch|not match).*{re.escape(OTHER_HOST)}"), use(login, BODIES):
            pass


def test_a_client_with_a_certificate_of_another_authority_is_told(
    broker: BrokerProcess, folder: Path, use: UseClient
) -> None:
    with refused("(?i)alert.unknown.ca"), use(Login(broker.tls_port, tls=folder / "mixed"), BODIES):
        pass
    # It may be another client's line: the log has each reason only once in ten seconds.
    broker.wait_for_line("): TLS: the client's certificate is not accepted")


def assert_all_is_settled(broker: BrokerProcess, tell: Tell, name: str) -> None:
    """The client has acked what it received, and closed its connection as the protocol has it."""
    assert tell("list_queues", "name", "messages", "consumers") == [[QUEUE, "0", "0"]]
    broker.wait_for_line(f"({name}", "closing AMQP connection", ": client closed it")
