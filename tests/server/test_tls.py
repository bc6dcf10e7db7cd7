"""TLS listeners of whole brokers: who gets in, what is told of them, and what is logged of those who do not."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from msgspec.structs import replace
from pamqp.commands import Basic, Queue

from amqpd.config import Config, File, Limits, Listener, Passphrase, Tls, TlsName
from amqpd.server.certificates import CertificateError, Certificates, read
from amqpd.server.runtime import Runtime
from amqpd.server.startup import StartError
from tests.crash.crash_client import Client, pack_content
from tests.support.loops import until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
CA = trustme.CA(organization_name="Example", key_type=trustme.KeyType.ECDSA)
OTHER_CA = trustme.CA(key_type=trustme.KeyType.ECDSA)
ECDSA = trustme.KeyType.ECDSA
TOO_EARLY, TOO_LATE = datetime.datetime(2001, 1, 1), datetime.datetime(2002, 1, 1)


class TlsClient(Client):
    """A client that speaks TLS, with this context."""

    def __init__(self, port: int, context: ssl.SSLContext, server: str = "localhost") -> None:
        self._context = context
        self._server = server
        super().__init__(port)

    def _shake_hands(self) -> None:
        self._socket = self._context.wrap_socket(self._socket, server_hostname=self._server)
        super()._shake_hands()

    @property
    def tls(self) -> ssl.SSLSocket:
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket


class Files:
    """Files of certificates in a folder, and the settings that name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put("server", CA.issue_cert("localhost", "127.0.0.1", key_type=ECDSA))
        CA.cert_pem.write_to_path(str(folder / "ca.pem"))

    def put(self, name: str, certificate: trustme.LeafCert) -> None:
        (self.folder / f"{name}.key").write_bytes(certificate.private_key_pem.bytes())
        (self.folder / f"{name}.pem").write_bytes(certificate.cert_chain_pems[0].bytes())

    def file(self, name: str) -> File:
        return File(self.folder / name)

    def tls(self, **settings: Any) -> Tls:
        return Tls(**{
            "listeners": (Listener("127.0.0.1:0"),), "certificate": self.file("server.pem"),
            "key": self.file("server.key"), "ca": self.file("ca.pem"), **settings})

    def config(self, **settings: Any) -> Config:
        return Config(memory=True, listeners=(Listener("127.0.0.1:0"),), tls=self.tls(**settings))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serve(config: Config, talk: Callable[[Runtime], Any], loop: str = "uvloop") -> None:
    """Run a broker, and meanwhile `talk` in a thread; or as a coroutine."""
    async def main() -> None:
        async with asyncio.timeout(40), Runtime(config) as runtime:
            if asyncio.iscoroutinefunction(talk):
                await talk(runtime)
            else:
                await asyncio.to_thread(talk, runtime)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


def port_of(runtime: Runtime) -> int:
    return runtime.tls_addresses[0][1]


def context(client: trustme.LeafCert | None = None, ca: trustme.CA = CA) -> ssl.SSLContext:
    """What a client trusts, and its certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(made)
    if client is not None:
        client.configure_cert(made)
    return made


def sessions(runtime: Runtime) -> list[Any]:
    assert runtime._listeners is not None
    return list(runtime._listeners.turn.protocols)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """The broker ends the connection, during or after the handshake."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        yield


# Messages

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_of_all_sizes_go_through(files: Files, loop: str, version: ssl.TLSVersion) -> None:
    bodies = [os.urandom(size) for size in (0, 1, 300, 16_384, 70_000, 2_000_000, 5)]

    def talk(runtime: Runtime) -> None:
        trusting = context()
        trusting.maximum_version = version
        with TlsClient(port_of(runtime), trusting) as client:
            client.call(Queue.Declare(0, "q"))
            for body in bodies:
                client.publish("", "q", pack_content(Basic.Properties(), body)[0])
            for body in bodies:
                arrived = client.get("q")
                assert arrived is not None and arrived.body == body
            assert client.close()

    serve(files.config(), talk, loop)


def test_a_plain_listener_beside_it_works_as_before(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        with Client(runtime.addresses[0][1]) as client:
            client.call(Queue.Declare(0, "q"))
        with TlsClient(port_of(runtime), context()) as client:
            client.call(Queue.Declare(0, "q", passive=True))

    serve(files.config(), talk)


def test_a_broker_may_have_tls_listeners_only(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        assert runtime.addresses == []
        TlsClient(port_of(runtime), context()).close()

    serve(Config(memory=True, listeners=(), tls=files.tls()), talk)


def test_the_client_reads_the_last_output_and_the_end_of_tls(files: Files, loop: str) -> None:
    def talk(runtime: Runtime) -> None:
        client = TlsClient(port_of(runtime), context())
        with pytest.raises(Exception, match="NOT_ALLOWED|FRAME_ERROR|UNEXPECTED_FRAME|COMMAND_INVALID|CHANNEL_ERROR"):
            client._write(b"\x01\x00\x09\x00\x00\x00\x04\x00\x3c\x00\x0a\xce")
            client.take(10.0)
        assert client.tls.recv(100) == b""
        client.drop()

    serve(files.config(), talk, loop)


def test_a_client_that_does_not_read_is_not_delivered_more_than_its_buffer_holds(files: Files, loop: str) -> None:
    bodies = [os.urandom(1 << 19) for _ in range(40)]

    def talk(runtime: Runtime) -> None:
        with TlsClient(port_of(runtime), context()) as client:
            client.call(Queue.Declare(0, "q"))
            for body in bodies:
                client.publish("", "q", pack_content(Basic.Properties(), body)[0])
            client.call(Queue.Declare(0, "q", passive=True))
            session, = sessions(runtime)
            client.send(Basic.Consume(0, "q", "c", False, True))
            while session.state.is_writable:
                time.sleep(0)
            limit = session.state.settings.outgoing_limit
            assert session.state.unsent() + session.outbox.size <= 2 * limit + (1 << 20)
            assert session.broker.vhosts["/"].queues["q"].statistics().ready > 10
            client._expect("Basic.ConsumeOk")
            arrived = [client.take(10.0) for _ in bodies]
            assert [one.body for one in arrived if one is not None] == bodies

    serve(files.config(), talk, loop)


def test_a_client_that_an_alarm_blocks_is_read_only_a_little(files: Files, loop: str) -> None:
    """What waits in the socket stays there, and arrives once the alarm is over."""
    def talk(runtime: Runtime) -> None:
        listeners = runtime._listeners
        assert listeners is not None
        turn, body = listeners.turn, os.urandom(1 << 19)
        with TlsClient(port_of(runtime), context()) as client:
            client.call(Queue.Declare(0, "q"))
            session, = sessions(runtime)
            turn.alarm = "memory"
            sender = threading.Thread(target=lambda: [
                client.publish("", "q", pack_content(Basic.Properties(), body)[0]) for _ in range(20)])
            sender.start()
            while session.is_read:
                time.sleep(0)
            assert session.traffic.received_bytes < 1 << 20
            asyncio.run_coroutine_threadsafe(cleared(turn), listeners._loop).result(10)
            sender.join(20)
            assert not sender.is_alive()
            assert client.call(Queue.Declare(0, "q", passive=True)).message_count == 20

    async def cleared(turn: Any) -> None:
        turn.set_alarm("")

    serve(files.config(), talk, loop)


# Who gets in

CLIENTS: dict[str, Callable[[], ssl.SSLContext]] = {
    "none": context,
    "good": lambda: context(CA.issue_cert("shop@example.org", common_name="shop", key_type=ECDSA)),
    "other CA": lambda: context(OTHER_CA.issue_cert("shop", key_type=ECDSA)),
    "expired": lambda: context(CA.issue_cert(
        "shop", key_type=ECDSA, not_before=TOO_EARLY, not_after=TOO_LATE)),
}


@pytest.mark.parametrize("asked, client, problem", [
    ("none", "none", ""), ("none", "good", ""), ("none", "other CA", ""),
    ("optional", "none", ""), ("optional", "good", ""),
    ("optional", "other CA", "the client's certificate is not accepted: unable to get local issuer certificate"),
    ("optional", "expired", "the client's certificate is not accepted: certificate has expired"),
    ("required", "none", 'the client sent no certificate (tls.client_certificates = "required")'),
    ("required", "good", ""),
    ("required", "other CA", "the client's certificate is not accepted: unable to get local issuer certificate"),
    ("required", "expired", "the client's certificate is not accepted: certificate has expired"),
])
def test_the_certificate_of_a_client_decides_whether_it_gets_in(
    files: Files, caplog: pytest.LogCaptureFixture, asked: str, client: str, problem: str
) -> None:
    def talk(runtime: Runtime) -> None:
        with refused() if problem else contextlib.nullcontext():
            with TlsClient(port_of(runtime), CLIENTS[client]()):
                certificate = sessions(runtime)[0].state.peer_certificate
                assert (certificate is not None) == (asked != "none" and client == "good")

    serve(files.config(client_certificates=asked), talk)
    told = [record.getMessage() for record in caplog.records if "TLS:" in record.getMessage()]
    assert [line.partition("): TLS: ")[2] for line in told] == [problem] * bool(problem)


def test_the_names_of_a_client_are_known_from_its_certificate(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        client = CA.issue_cert("shop@example.org", "shop.example.org", "10.0.0.1", common_name="shop",
                               organization_name="A, B", key_type=ECDSA)
        with TlsClient(port_of(runtime), context(client)):
            state = sessions(runtime)[0].state
            found = state.peer_certificate
            assert (found.common_name, found.san_dns, found.san_email, found.san_ip) == (
                "shop", ("shop.example.org",), ("shop@example.org",), ("10.0.0.1",))
            assert found.subject.startswith("CN=shop,OU=") and found.subject.endswith(",O=A\\, B")
            assert "O=Example" in found.issuer
            assert (state.tls.protocol, state.tls.key_exchange, state.tls.hash) == ("tlsv1.3", "any", "aead")
            assert state.tls.cipher in ("aes_256_gcm", "aes_128_gcm", "chacha20_poly1305")
            listed = sessions(runtime)[0].statistics()
            assert (listed.tls, listed.peer_certificate) == (state.tls, found)

    serve(files.config(client_certificates="optional"), talk)


@pytest.mark.parametrize("cipher, told", [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", ("ecdhe_ecdsa", "aes_256_gcm", "aead")),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", ("ecdhe_ecdsa", "chacha20_poly1305", "aead")),
])
def test_an_older_cipher_is_told_in_its_parts(files: Files, cipher: str, told: tuple[str, ...]) -> None:
    def talk(runtime: Runtime) -> None:
        old = context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers(cipher)
        with TlsClient(port_of(runtime), old):
            tls = sessions(runtime)[0].state.tls
            assert (tls.protocol, tls.key_exchange, tls.cipher, tls.hash) == ("tlsv1.2", *told)

    serve(files.config(), talk)


def test_a_plain_connection_has_no_tls(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        with Client(runtime.addresses[0][1]):
            state = sessions(runtime)[0].state
            assert (state.tls, state.peer_certificate) == (None, None)

    serve(files.config(), talk)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("most, least", [(ssl.TLSVersion.TLSv1_1, "1.2"), (ssl.TLSVersion.TLSv1_2, "1.3")])
def test_an_older_version_than_the_least_is_refused(
    files: Files, caplog: pytest.LogCaptureFixture, most: ssl.TLSVersion, least: str
) -> None:
    def talk(runtime: Runtime) -> None:
        old = context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = most
        with refused():
            TlsClient(port_of(runtime), old)

    serve(files.config(min_version=least), talk)
    assert "the client offers no version of TLS that is allowed here (tls.min_version)" in caplog.text


def test_a_client_that_does_not_trust_the_server_says_why(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    def talk(runtime: Runtime) -> None:
        with refused():
            TlsClient(port_of(runtime), context(ca=OTHER_CA))
        with refused():
            TlsClient(port_of(runtime), context(), "elsewhere.example.org")

    serve(files.config(), talk)
    assert "the client does not trust the CA of this server's certificate (tls.certificate)" in caplog.text
    assert "the client does not accept this server's certificate (tls.certificate)" in caplog.text


# Names

def test_the_certificate_is_chosen_by_the_name_that_the_client_asks_for(files: Files) -> None:
    for name in ("one.example.org", "*.example.net"):
        files.put(name, CA.issue_cert(name, key_type=ECDSA))
    names = tuple(
        TlsName(name=name, certificate=files.file(f"{name}.pem"), key=files.file(f"{name}.key"))
        for name in ("one.example.org", "*.example.net"))

    def talk(runtime: Runtime) -> None:
        for name in ("localhost", "one.example.org", "ONE.example.org", "a.example.net", "127.0.0.1"):
            TlsClient(port_of(runtime), context(), name).close()
        with refused():
            TlsClient(port_of(runtime), context(), "two.example.org")

    serve(files.config(names=names), talk)


# Those that speak something else, or nothing

@pytest.mark.parametrize("begin, advice", [
    (b"AMQP\x00\x00\x09\x01", "let the client use TLS (amqps), or connect it to a listener without TLS"),
    (b"GET / HTTP/1.1\r\n\r\n", "this port speaks AMQP over TLS, not HTTP"),
    (b"\x00", "not a TLS client: it began with b'\\x00'"),
])
def test_who_speaks_no_tls_is_closed_and_told_of(
    files: Files, caplog: pytest.LogCaptureFixture, begin: bytes, advice: str
) -> None:
    def talk(runtime: Runtime) -> None:
        with socket.create_connection(("127.0.0.1", port_of(runtime)), timeout=10) as client:
            client.sendall(begin)
            assert client.recv(100) == b""

    serve(files.config(), talk)
    assert advice in caplog.text


def test_tls_at_a_plain_port_is_told_of(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    def talk(runtime: Runtime) -> None:
        with refused():
            TlsClient(runtime.addresses[0][1], context())

    serve(files.config(), talk)
    assert "it speaks TLS: connect it to a listener for TLS (tls.listeners)" in caplog.text


def test_who_leaves_during_the_handshake_is_forgotten(files: Files, loop: str) -> None:
    async def talk(runtime: Runtime) -> None:
        for said in (b"", b"\x16", b"\x16\x03\x01\x02\x00"):
            with socket.create_connection(("127.0.0.1", port_of(runtime))) as client:
                client.sendall(said)
                await until(lambda: len(sessions(runtime)) == 1)
            await until(lambda: not sessions(runtime))

    serve(files.config(), talk, loop)


def test_a_handshake_that_takes_too_long_ends(files: Files, loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(runtime: Runtime) -> None:
        with socket.create_connection(("127.0.0.1", port_of(runtime))) as client:
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 100) == b""

    settings = files.config()
    serve(replace(settings, limits=Limits(tls_handshake_timeout_s=0.1)), talk, loop)
    assert "): TLS: no handshake within 0.1 s" in caplog.text


def test_a_stop_does_not_wait_for_a_handshake(files: Files, loop: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with Runtime(files.config()) as runtime:
                client = socket.create_connection(("127.0.0.1", port_of(runtime)))
                await until(lambda: len(sessions(runtime)) == 1)
            client.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


# Files that cannot be used

def encrypted(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization as form
    key = form.load_pem_private_key((files.folder / "server.key").read_bytes(), None)
    (files.folder / "server.key").write_bytes(key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret")))


FAULTS: dict[str, tuple[Callable[[Files], object], dict[str, Any], str]] = {
    "no certificate": (
        lambda files: (files.folder / "server.pem").unlink(), {}, "tls.certificate: {}/server.pem does not exist"),
    "no key": (lambda files: (files.folder / "server.key").unlink(), {}, "tls.key: {}/server.key does not exist"),
    "a directory": (
        lambda files: None, {"key": File("/")}, "tls.key: / cannot be read: Is a directory; correct the path"),
    "another key": (
        lambda files: (files.folder / "server.key").write_bytes(CA.issue_cert("x").private_key_pem.bytes()), {},
        "tls.key: {}/server.key does not match the certificate in {}/server.pem"),
    "another key of the same kind": (
        lambda files: (files.folder / "server.key").write_bytes(
            CA.issue_cert("x", key_type=ECDSA).private_key_pem.bytes()), {},
        "tls.key: {}/server.key does not match the certificate in {}/server.pem"),
    "not PEM": (
        lambda files: (files.folder / "server.pem").write_text("hello"), {},
        "tls.certificate: {}/server.pem has no certificate in PEM format"),
    "a key that is none": (
        lambda files: (files.folder / "server.key").write_text("hello"), {},
        "tls.key: {}/server.key has no private key in PEM format"),
    "an encrypted key": (
        encrypted, {}, "tls.key: {}/server.key is encrypted; set tls.key_password, or decrypt it"),
    "a wrong password": (
        encrypted, {"key_password": Passphrase("wrong")},
        "tls.key: {}/server.key cannot be decrypted with tls.key_password; correct the password"),
    "no CA": (
        lambda files: (files.folder / "ca.pem").unlink(), {"client_certificates": "optional"},
        "tls.ca: {}/ca.pem does not exist"),
    "a CA that is none": (
        lambda files: (files.folder / "ca.pem").write_text("x"), {"client_certificates": "optional"},
        "tls.ca: {}/ca.pem has no certificate in PEM format"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_used_stops_the_start_with_one_line(files: Files, name: str) -> None:
    spoil, settings, line = FAULTS[name]
    spoil(files)
    with pytest.raises(StartError) as caught:
        serve(files.config(**settings), lambda runtime: None)
    assert str(caught.value).startswith(line.replace("{}", str(files.folder)))
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_all_files_that_cannot_be_read_are_told_at_once_with_their_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Tls(certificate=File("no.pem"), key=File("no.key"), ca=File("no-ca.pem"), client_certificates="required")
    with pytest.raises(CertificateError) as caught:
        read(settings)
    assert [problem.partition(" does not exist; ")[0] for problem in caught.value.problems] == [
        f"tls.certificate: {tmp_path}/no.pem", f"tls.key: {tmp_path}/no.key", f"tls.ca: {tmp_path}/no-ca.pem"]


def test_what_is_wrong_in_files_is_told_at_once(files: Files) -> None:
    (files.folder / "server.pem").write_text("hello")
    (files.folder / "ca.pem").write_text("hello")
    other = TlsName(name="b", where="tls.names.b", certificate=files.file("server.pem"), key=files.file("server.key"))
    with pytest.raises(CertificateError) as caught:
        read(files.tls(names=(other,)))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "tls.certificate", "tls.names.b.certificate"]
    with pytest.raises(CertificateError, match="tls.ca: .*ca.pem has no certificate in PEM format") as caught:
        read(files.tls(client_certificates="optional", names=(other,)))
    assert len(caught.value.problems) == 1


def test_an_encrypted_key_is_used_with_its_password(files: Files) -> None:
    encrypted(files)
    serve(files.config(key_password=Passphrase("secret")),
          lambda runtime: TlsClient(port_of(runtime), context()).close())


@pytest.mark.parametrize("days, warned", [(-3, "expired on"), (10, "expires in 9 days"), (31, "")])
def test_a_certificate_that_expires_is_a_warning(
    files: Files, caplog: pytest.LogCaptureFixture, days: int, warned: str
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    files.put("server", CA.issue_cert(
        "localhost", key_type=ECDSA, not_before=now - datetime.timedelta(90), not_after=now + datetime.timedelta(days)))
    serve(files.config(), lambda runtime: None)
    told = [record.getMessage() for record in caplog.records if "tls.certificate" in record.getMessage()]
    assert len(told) == bool(warned) and warned in "".join(told)


# Files that change

def name_of(port: int) -> str:
    """The name in the certificate that a new client is shown."""
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with context().wrap_socket(plain, server_hostname="127.0.0.1") as client:
            found: Any = client.getpeercert()
            return str(dict(part[0] for part in found["subject"]).get("commonName"))


def named(name: str) -> trustme.LeafCert:
    return CA.issue_cert("127.0.0.1", "localhost", common_name=name, key_type=ECDSA)


def test_changed_files_are_read_again_once_they_stay_the_same_and_no_connection_is_cut(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.put("server", named("old"))
    caplog.set_level("INFO")

    def talk(runtime: Runtime) -> None:
        certificates = runtime._certificates
        assert certificates is not None
        with TlsClient(port_of(runtime), context()) as client:
            client.call(Queue.Declare(0, "q"))
            certificates.look()
            files.put("server", named("newer"))
            certificates.look()
            assert name_of(port_of(runtime)) == "old", "the key may not be written yet"
            certificates.look()
            assert name_of(port_of(runtime)) == "newer"
            client.call(Queue.Declare(0, "q", passive=True))
            certificates.look()

    serve(files.config(), talk)
    assert caplog.text.count("the certificates have been read again, for new connections") == 1


def test_files_that_cannot_be_used_change_nothing(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.put("server", named("old"))

    def talk(runtime: Runtime) -> None:
        again = runtime.read_certificates_again
        assert again is not None
        (files.folder / "server.pem").write_text("half a certif")
        again()
        assert name_of(port_of(runtime)) == "old"
        (files.folder / "server.pem").unlink()
        again()
        assert name_of(port_of(runtime)) == "old"
        files.put("server", named("new"))
        again()
        assert name_of(port_of(runtime)) == "new"

    serve(files.config(), talk)
    assert "the certificates stay as they were: tls.certificate: " in caplog.text
    assert "server.pem does not exist" in caplog.text


def test_a_ca_that_is_taken_out_is_not_trusted_any_more(files: Files) -> None:
    (files.folder / "ca.pem").write_bytes(CA.cert_pem.bytes() + OTHER_CA.cert_pem.bytes())
    other = context(OTHER_CA.issue_cert("shop", key_type=ECDSA))

    def talk(runtime: Runtime) -> None:
        again = runtime.read_certificates_again
        assert again is not None
        with TlsClient(port_of(runtime), other) as before:
            (files.folder / "ca.pem").write_bytes(CA.cert_pem.bytes())
            again()
            with refused():
                TlsClient(port_of(runtime), other)
            before.call(Queue.Declare(0, "q"))

    serve(files.config(client_certificates="required"), talk)


def test_a_broker_without_tls_has_no_certificates_to_read() -> None:
    serve(Config(memory=True, listeners=(Listener("127.0.0.1:0"),)),
          lambda runtime: print(runtime.read_certificates_again is None or pytest.fail("it has")))


def test_the_expiry_is_listed_and_warned_of_once_a_day(
    files: Files, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    files.put("server", CA.issue_cert(
        "localhost", "127.0.0.1", key_type=ECDSA, not_after=now + datetime.timedelta(days=10, hours=1)))
    certificates = Certificates(files.tls())
    listed, = certificates.listed()
    assert (listed["setting"], listed["file"]) == ("tls.certificate", str(files.folder / "server.pem"))
    assert (listed["names"], listed["days_left"]) == (["localhost", "127.0.0.1"], 10)
    certificates.look()
    assert "expires" not in caplog.text
    later = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    certificates.look()
    certificates.look()
    assert caplog.text.count("expires in 9 days") == 1
