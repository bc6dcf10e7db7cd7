"""TLS of one client without a socket: what is passed on when, what is left, and what is too much."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from amqpd.server.tls_transport import OVERHEAD_ALLOWED, READ_BYTES, TlsTransport
from tests.support.loops import FakeLoop

CA = trustme.CA(key_type=trustme.KeyType.ECDSA)
CERTIFICATE = CA.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
SHARED = memoryview(bytearray(READ_BYTES))


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    context.num_tickets = 0
    return context


SERVER = server_context()


class Socket(asyncio.Transport):
    """The socket's transport: it keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.unsent = 0
        self.calls: list[str] = []

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write_eof(self) -> None:
        self.calls.append("eof")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & set(self.calls))

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


class Reader:
    """The protocol of the decrypted side: it takes reads of these sizes, in turn, and pauses when it is told to."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = bytearray()
        self.reads: list[int] = []
        self.is_full: list[bool] = []
        self.steps = 0
        self.sizes = [1 << 18]
        self.pauses = [False]
        self.is_at_end = False
        self.is_lost = False
        self._buffer = bytearray(1 << 18)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def read_size(self) -> int:
        return self.sizes[0]

    def get_buffer(self, sizehint: int) -> memoryview:
        self.sizes = self.sizes[1:] + self.sizes[:1]
        return memoryview(self._buffer)[:self.sizes[-1]]

    def note_read(self, nbytes: int, steps: int, *, is_full: bool) -> None:
        self.is_full.append(is_full)
        self.steps += steps

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]
        self.reads.append(nbytes)
        self.pauses = self.pauses[1:] + self.pauses[:1]
        if self.pauses[-1]:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self.is_at_end = True

    def pause_writing(self) -> None:
        self.transport = None

    def resume_writing(self) -> None:
        self.transport = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


class Connection:
    """A client of TLS, and the broker's side of it, whose input is given in reads as a loop would."""

    def __init__(self, context: ssl.SSLContext | None = None, *, shakes_hands: bool = True) -> None:
        self.loop = FakeLoop()
        self.socket = Socket()
        self.reader = Reader()
        self.failures: list[str] = []
        self.established = 0
        loop: Any = self.loop
        self.transport = TlsTransport(
            self.reader, SERVER, SHARED, loop, lambda connection: self._establish(),
            lambda text, *arguments: self.failures.append(text % arguments if arguments else text))
        self.transport.connection_made(self.socket)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        trusting = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        CA.configure_trust(trusting)
        self.client = trusting.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        if shakes_hands:
            self.shake_hands()

    def _establish(self) -> None:
        self.established += 1

    def shake_hands(self) -> None:
        for _ in range(3):
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            self.send(self.outgoing.read())
            self.hear()

    def hear(self) -> None:
        """Give the client what the broker has written."""
        self.incoming.write(bytes(self.socket.written))
        self.socket.written.clear()

    def say(self, octets: bytes) -> bytes:
        """The bytes on the wire for this."""
        self.client.write(octets)
        return self.outgoing.read()

    def send(self, octets: bytes) -> None:
        """Let the transport read these."""
        while octets and not self.socket.is_closing():
            if self.transport._is_paused:
                self.transport.resume_reading()
                self.loop.run_out()
                continue
            buffer = self.transport.get_buffer(-1)
            size = min(len(buffer), len(octets))
            buffer[:size] = octets[:size]
            self.transport.buffer_updated(size)
            octets = octets[size:]
        while self.transport._is_paused and not self.socket.is_closing():
            self.transport.resume_reading()
            self.loop.run_out()

    def heard(self) -> bytes:
        """What the client can decrypt now."""
        self.hear()
        found = b""
        try:
            while piece := self.client.read(1 << 18):
                found += piece
        except ssl.SSLWantReadError:
            pass
        return found


def test_a_handshake_establishes_the_connection_once() -> None:
    connection = Connection()
    assert connection.established == 1 and connection.client.version() == "TLSv1.3"
    assert all(timer.is_cancelled for timer in connection.loop.timers)


@given(
    data=st.binary(min_size=1, max_size=200), factor=st.sampled_from([1, 7, 500, 3_000]),
    sizes=st.lists(st.sampled_from([1, 7, 4_096, 16_384, 1 << 18]), min_size=1, max_size=5),
    pauses=st.lists(st.booleans(), min_size=1, max_size=4), cuts=st.lists(st.integers(1, 40_000), max_size=5))
def test_all_that_comes_is_passed_on_in_order_however_it_is_read(
    data: bytes, factor: int, sizes: list[int], pauses: list[bool], cuts: list[int]
) -> None:
    connection = Connection()
    connection.reader.sizes, connection.reader.pauses = sizes if max(sizes) > 7 else [*sizes, 4_096], pauses
    sent = data * factor
    wire = connection.say(sent)
    for cut in cuts:
        connection.send(wire[:cut])
        wire = wire[cut:]
    connection.send(wire)
    assert connection.reader.received == sent
    assert not connection.failures


def test_nothing_is_passed_on_while_reading_is_paused() -> None:
    connection = Connection()
    reader = connection.reader
    reader.sizes, reader.pauses = [4_096], [True]
    wire = connection.say(bytes(100_000))
    connection.transport.get_buffer(-1)
    SHARED[:len(wire)] = wire
    connection.transport.buffer_updated(len(wire))
    assert reader.reads == [4_096] and connection.socket.calls == ["pause"]
    connection.transport.resume_reading()
    assert reader.reads == [4_096], "the rest comes in a turn of its own"
    connection.loop.run_out()
    assert reader.reads == [4_096] * 2 and connection.socket.calls == ["pause"] * 2
    reader.pauses = [False]
    connection.transport.resume_reading()
    connection.loop.run_out()
    assert len(reader.received) == 100_000 and connection.socket.calls == ["pause"] * 2 + ["resume"]


def test_a_read_that_took_all_there_was_is_told_from_a_full_one() -> None:
    connection = Connection()
    connection.reader.sizes = [1 << 14]
    connection.send(connection.say(bytes(100)))
    assert connection.reader.is_full == [False]
    connection.send(connection.say(bytes(1 << 16)))
    assert connection.reader.is_full[1]
    assert connection.reader.steps == len(connection.reader.reads) >= 5, "each record is work"


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 1_000_000])
def test_what_is_written_arrives(size: int) -> None:
    connection = Connection()
    connection.transport.write(bytes(size))
    assert connection.heard() == bytes(size)
    connection.transport.writelines([b"a", b"b" * size, bytearray(b"c"), b"d"])
    assert connection.heard() == b"a" + b"b" * size + b"cd"


def test_small_pieces_share_a_record() -> None:
    connection = Connection()
    connection.transport.writelines([b"12345678"] * 100)
    assert len(connection.socket.written) < 850


def test_nothing_is_written_before_the_handshake_or_after_the_end() -> None:
    connection = Connection(shakes_hands=False)
    connection.transport.write(b"early")
    assert not connection.socket.written
    connection.shake_hands()
    connection.transport.abort()
    connection.transport.write(b"late")
    assert not connection.socket.written and connection.socket.calls == ["abort"]


def test_the_end_of_our_side_is_told_and_the_client_may_still_send() -> None:
    connection = Connection()
    connection.transport.write(b"last words")
    connection.transport.write_eof()
    assert connection.socket.calls == ["eof"]
    assert connection.heard() == b"last words"
    connection.send(connection.say(b"goodbye"))
    assert connection.reader.received == b"goodbye"


def test_the_end_of_the_clients_side_closes() -> None:
    connection = Connection()
    wire = connection.say(b"goodbye")
    with pytest.raises(ssl.SSLWantReadError):
        connection.client.unwrap()
    connection.send(wire + connection.outgoing.read())
    assert connection.reader.received == b"goodbye" and connection.reader.is_at_end
    assert connection.socket.calls == ["close"] and not connection.failures


def test_both_sides_may_end() -> None:
    connection = Connection()
    connection.transport.write_eof()
    connection.hear()
    assert connection.client.read(10) == b""
    connection.client.unwrap()
    connection.send(connection.outgoing.read())
    assert connection.reader.is_at_end and not connection.failures


def test_a_record_that_was_changed_on_the_way_ends_the_connection() -> None:
    connection = Connection()
    wire = bytearray(connection.say(b"hello"))
    wire[-1] ^= 1
    connection.send(bytes(wire))
    assert connection.failures == ["decryption failed or bad record mac"]
    assert connection.socket.calls == ["abort"] and not connection.reader.received


def test_a_handshake_that_takes_too_long_ends_after_the_input_had_a_chance() -> None:
    connection = Connection(shakes_hands=False)
    first, = connection.loop.timers
    assert first.delay_s == 5.0
    first.call()
    assert not connection.failures
    connection.loop.timers[1].call()
    assert connection.failures == ["no handshake within 5 s"] and connection.socket.calls == ["close"]


def test_a_lost_socket_ends_the_handshake() -> None:
    connection = Connection(shakes_hands=False)
    connection.transport.connection_lost(None)
    assert connection.loop.timers[0].is_cancelled and connection.reader.is_lost


# Bytes that are not data

class Forger:
    """Makes records of a client from the secret that it logs. RFC 8446 5.3, 7.1 to 7.3."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._begin()

    def _begin(self) -> None:
        self._key, self._iv = AESGCM(self._expand("key", 32)), self._expand("iv", 12)
        self._sequence = 0

    def _expand(self, label: str, length: int) -> bytes:
        full = b"tls13 " + label.encode()
        info = struct.pack(">HB", length, len(full)) + full + b"\0"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)

    def record(self, kind: int, content: bytes) -> bytes:
        nonce = int.from_bytes(self._iv, "big") ^ self._sequence
        self._sequence += 1
        head = struct.pack(">BHH", 23, 0x0303, len(content) + 17)
        return head + self._key.encrypt(nonce.to_bytes(12, "big"), content + bytes([kind]), head)

    def key_update(self, asks: bool) -> bytes:
        octets = self.record(22, b"\x18\x00\x00\x01" + bytes([asks]))
        self._secret = self._expand("traffic upd", 48)
        self._begin()
        return octets


@pytest.fixture
def forged(tmp_path: Path) -> Iterator[tuple[Connection, Forger]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.keylog_filename = str(tmp_path / "keys")
    connection = Connection(context)
    assert (connection.client.cipher() or ("",))[0] == "TLS_AES_256_GCM_SHA384"
    lines = [line.split() for line in (tmp_path / "keys").read_text().splitlines()]
    secret = next(words[2] for words in lines if words[0] == "CLIENT_TRAFFIC_SECRET_0")
    context.keylog_filename = None      # closes the file
    yield connection, Forger(bytes.fromhex(secret))


def test_a_key_update_now_and_then_is_fine(forged: tuple[Connection, Forger]) -> None:
    connection, forger = forged
    for _ in range(3_000):
        connection.send(forger.key_update(asks=True) + forger.record(23, b"a heartbeat"))
    assert connection.reader.received == b"a heartbeat" * 3_000 and not connection.failures


@pytest.mark.parametrize("asks", [False, True])
def test_a_flood_of_key_updates_ends_the_connection(forged: tuple[Connection, Forger], asks: bool) -> None:
    connection, forger = forged
    begin = forger.record(23, b"x")
    flood = b"".join(forger.key_update(asks) for _ in range(2 * OVERHEAD_ALLOWED // 27))
    connection.send(begin + flood)
    assert connection.failures == ["too many bytes that are not data, such as key updates"]
    assert connection.socket.calls == ["abort"]


def test_a_client_that_does_not_read_what_its_key_updates_are_answered_with_is_cut(
    forged: tuple[Connection, Forger]
) -> None:
    connection, forger = forged
    for unsent, is_cut in ((0, False), (1, True)):
        connection.socket.unsent = unsent
        for _ in range(3_000):
            connection.send(forger.key_update(asks=True) + forger.record(23, b"a heartbeat"))
        assert bool(connection.failures) is is_cut
    assert connection.failures == ["the client does not read the answers of TLS"]


def test_records_of_one_byte_are_fine_and_count_as_work(forged: tuple[Connection, Forger]) -> None:
    connection, forger = forged
    connection.send(b"".join(forger.record(23, b"x") for _ in range(10_000)))
    assert connection.reader.received == b"x" * 10_000 and not connection.failures
    assert connection.reader.steps >= 10_000


def test_renegotiation_is_refused() -> None:
    """OpenSSL's client asks for it when it is told to; here the option of the listeners' contexts is what counts."""
    from amqpd.config import File, Tls
    from amqpd.server.certificates import read

    with CA.cert_pem.tempfile() as _, CERTIFICATE.private_key_and_cert_chain_pem.tempfile() as pem:
        options = read(Tls(certificate=File(pem), key=File(pem))).context.options
    assert options & ssl.OP_NO_RENEGOTIATION and options & ssl.OP_NO_COMPRESSION


def test_socket_facts_are_those_of_the_socket() -> None:
    connection = Connection()
    with socket.socket() as one:
        connection.socket._extra["socket"] = one
        assert connection.transport.get_extra_info("socket") is one


# The first record

@pytest.mark.parametrize("step", [1, 4, 100])
def test_tls_begins_once_the_first_record_is_complete(step: int) -> None:
    connection = Connection(shakes_hands=False)
    with pytest.raises(ssl.SSLWantReadError):
        connection.client.do_handshake()
    hello = connection.outgoing.read()
    for start in range(0, len(hello) - 1, step):
        connection.send(hello[start:min(start + step, len(hello) - 1)])
        assert not connection.transport._has_begun and not connection.socket.written
    connection.send(hello[-1:])
    connection.hear()
    connection.shake_hands()
    connection.send(connection.say(b"hello"))
    assert connection.reader.received == b"hello"


@pytest.mark.parametrize("begin", [
    b"A", b"AMQP\0\0\x09\x01", b"\x16\x02", b"\x00", b"\x16AMQP", b"\x16\x03\x01\x40\x01"])
def test_what_begins_otherwise_is_closed_at_once(begin: bytes) -> None:
    connection = Connection(shakes_hands=False)
    connection.send(begin)
    failure, = connection.failures
    assert failure.startswith(f"not a TLS client: it began with {begin!r}") and connection.socket.calls == ["close"]


def test_a_hello_that_is_none_ends_the_connection() -> None:
    connection = Connection(shakes_hands=False)
    connection.send(b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff")
    assert len(connection.failures) == 1 and connection.socket.calls == ["close"]


@given(st.binary(max_size=300), st.booleans(), st.integers(1, 300))
def test_no_input_before_the_handshake_is_more_than_a_failure(octets: bytes, is_record: bool, step: int) -> None:
    connection = Connection(shakes_hands=False)
    sent = b"\x16\x03\x01" + len(octets).to_bytes(2, "big") + octets if is_record else octets
    for start in range(0, len(sent), step):
        connection.send(sent[start:start + step])
    assert len(connection.failures) <= 1 and not connection.established
