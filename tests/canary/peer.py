"""A client for attacks: a blocking socket, methods that are packed beforehand, and a thread that always reads.

Answers of the broker are kept for the caller. Deliveries, confirms and returns are only counted, by name. A wait ends
with `Refused` if the broker closes the channel or the connection, with `Gone` if the TCP connection ends, and with
`TimeoutError` if nothing arrives.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from conformance import methods
from conformance.client import PROTOCOL_HEADER, method_frame, plain_response
from conformance.fields import pack, unpack
from tests.canary.packing import FRAME_MAX, channel_open, get, qos

HEAD = struct.Struct(">BHI")
IDS = struct.Struct(">HH")
TAG = struct.Struct(">Q")
UNASKED = {
    methods.BASIC_ACK, methods.BASIC_NACK, methods.BASIC_DELIVER, methods.BASIC_GET_OK, methods.BASIC_GET_EMPTY,
    methods.BASIC_RETURN, methods.BASIC_CANCEL, methods.CONNECTION_BLOCKED, methods.CONNECTION_UNBLOCKED}
CLOSES = (methods.CHANNEL_CLOSE, methods.CONNECTION_CLOSE)
CAPABILITIES = {"basic.nack": True, "publisher_confirms": True, "consumer_cancel_notify": True}

Answer = tuple[int, tuple[int, int], bytes]     # channel, ids, arguments


class Refused(Exception):
    """The broker closed the channel or the connection, and said why."""


class Gone(ConnectionError):
    """TCP has ended."""


class Address:
    """Where a broker is, and as whom to log in."""

    def __init__(self, host: str, port: int, user: str, password: str, vhost: str) -> None:
        self.host, self.port, self.user, self.password, self.vhost = host, port, user, password, vhost


class Peer:
    """An open connection, with channel 1 open. With `reads=False` nothing is read once it is."""

    def __init__(
        self, address: Address, *, reads: bool = True, heartbeat: int = 0, timeout_s: float = 120.0,
        receive_buffer: int = 0,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.counts: Counter[str] = Counter()
        self.last_tag = 0
        self.captured = b""             # the payload of the header frame that came last
        self.last_heard = time.monotonic()
        self.longest_silence = 0.0
        self.is_gone = False
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._received = bytearray()
        self._news = threading.Condition()
        self.socket = self._connect(receive_buffer)
        shake_hands(self.socket, address, heartbeat)
        self.socket.settimeout(timeout_s)
        self.socket.sendall(channel_open(1))
        read_until(self.socket, methods.CHANNEL_OPEN_OK)
        if reads:
            self.read_on()

    def _connect(self, receive_buffer: int) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(self.timeout_s)
        connection.connect((self.address.host, self.address.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    # Saying

    def send(self, octets: bytes) -> Peer:
        """Send these octets; Gone when the broker has closed TCP."""
        try:
            self.socket.sendall(octets)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Gone("the broker ended TCP while we sent") from error
        return self

    def call(self, octets: bytes, wanted: tuple[int, int]) -> bytes:
        """Send, and return the arguments of the answer."""
        self.send(octets)
        return self.hear(wanted)

    def hear(self, wanted: tuple[int, int], within_s: float | None = None) -> bytes:
        """The arguments of the next answer, which must be this method."""
        try:
            answer = self._answers.get(timeout=self.timeout_s if within_s is None else within_s)
        except queue.Empty:
            raise TimeoutError(f"no {methods.name(*wanted)} came") from None
        if answer is None:
            self._answers.put(None)
            raise Gone(f"the broker ended TCP instead of saying {methods.name(*wanted)}")
        channel, ids, arguments = answer
        if ids in CLOSES and ids != wanted:
            code, text, *_ = unpack("2s22", arguments)
            raise Refused(f"{methods.name(*ids)} on channel {channel}: {code} {text}")
        assert ids == wanted, f"expected {methods.name(*wanted)}, got {methods.name(*ids)}"
        return arguments

    def sync(self) -> Peer:
        """Wait until the broker has worked off what was sent on channel 1 before."""
        self.call(qos(0), methods.BASIC_QOS_OK)
        return self

    def sync_channels(self, count: int) -> None:
        """Take the answers of so many channels that were opened."""
        for _ in range(count):
            self.hear(methods.CHANNEL_OPEN_OK)

    def capture_get(self, queue_name: str) -> bytes:
        """Get a message from a queue, and return the payload of its header frame."""
        self.captured = b""
        deadline = time.monotonic() + self.timeout_s
        while not self.captured and time.monotonic() < deadline:
            self.send(get(queue_name, no_ack=True)).sync()
        return self.captured

    def close(self) -> None:
        """End the connection politely."""
        goodbye = pack("2s22", 200, "bye", 0, 0)
        self.call(method_frame(0, *methods.CONNECTION_CLOSE, goodbye), methods.CONNECTION_CLOSE_OK)

    def await_count(self, name: str, count: int, within_s: float | None = None) -> None:
        """Wait until so many of these methods have come; Gone or TimeoutError if they do not."""
        with self._news:
            is_there = self._news.wait_for(
                lambda: self.counts[name] >= count or self.is_gone, self.timeout_s if within_s is None else within_s)
            if self.counts[name] < count:
                state = "TCP has ended" if self.is_gone else "time is up"
                raise (Gone if is_there else TimeoutError)(f"{self.counts[name]} of {count} {name}: {state}")

    def await_confirms(self, count: int) -> None:
        """Wait until messages up to this one have been confirmed."""
        deadline = time.monotonic() + self.timeout_s
        while self.last_tag < count:
            assert time.monotonic() < deadline, f"{self.last_tag} of {count} are confirmed"
            time.sleep(0.01)

    def drop(self) -> None:
        """End TCP without a word."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    # Hearing

    def read_on(self) -> None:
        """Read from now on, in a thread."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.settimeout(None)
            while octets := self.socket.recv(1 << 18):
                now = time.monotonic()
                self.longest_silence = max(self.longest_silence, now - self.last_heard)
                self.last_heard = now
                self._received += octets
                self._take_frames()
        self.is_gone = True
        self._answers.put(None)
        with self._news:
            self._news.notify_all()

    def _take_frames(self) -> None:
        received, at = self._received, 0
        while len(received) >= at + 7:
            kind, channel, size = HEAD.unpack_from(received, at)
            if len(received) < at + size + 8:
                break
            if kind == 1:
                self._take_method(channel, at + 7, size)
            elif kind == 2:
                self.captured = bytes(received[at + 7:at + 7 + size])
            at += size + 8
        del received[:at]
        with self._news:
            self._news.notify_all()

    def _take_method(self, channel: int, at: int, size: int) -> None:
        ids = IDS.unpack_from(self._received, at)
        self.counts[methods.name(*ids)] += 1
        if ids not in UNASKED:
            self._answers.put((channel, ids, bytes(self._received[at + 4:at + size])))
        elif ids == methods.BASIC_DELIVER:
            self.last_tag = TAG.unpack_from(self._received, at + 5 + self._received[at + 4])[0]
        elif ids in (methods.BASIC_GET_OK, methods.BASIC_ACK):
            self.last_tag = TAG.unpack_from(self._received, at + 4)[0]


def shake_hands(connection: socket.socket, address: Address, heartbeat: int = 0) -> None:
    """Go from a connected socket to an open connection."""
    connection.sendall(PROTOCOL_HEADER)
    read_until(connection, methods.CONNECTION_START)
    connection.sendall(start_ok(address.user, address.password))
    read_until(connection, methods.CONNECTION_TUNE)
    connection.sendall(
        method_frame(0, *methods.CONNECTION_TUNE_OK, pack("242", 2_047, FRAME_MAX, heartbeat))
        + method_frame(0, *methods.CONNECTION_OPEN, pack("sso", address.vhost, "", 0)))
    read_until(connection, methods.CONNECTION_OPEN_OK)


def start_ok(user: str, password: str) -> bytes:
    """Pack connection.start-ok with PLAIN."""
    properties = {"product": "canary", "capabilities": CAPABILITIES}
    return method_frame(0, *methods.CONNECTION_START_OK, pack(
        "TsLs", properties, "PLAIN", plain_response(user, password), "en_US"))


def read_until(connection: socket.socket, wanted: tuple[int, int]) -> bytes:
    """Read frame by frame up to this method, and return its arguments."""
    while True:
        kind, _, size = HEAD.unpack(read_exactly(connection, 7))
        payload = read_exactly(connection, size + 1)
        if kind == 1 and (ids := IDS.unpack_from(payload)) == wanted:
            return payload[4:-1]
        if kind == 1 and ids in CLOSES:
            code, text, *_ = unpack("2s22", payload[4:-1])
            raise Refused(f"{methods.name(*ids)}: {code} {text}")


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Read so many octets; Gone if TCP ends before."""
    octets = b""
    while len(octets) < size:
        more = connection.recv(size - len(octets))
        if not more:
            raise Gone("the broker ended TCP")
        octets += more
    return octets


def batches(make: Callable[[int], bytes], count: int, size: int = 500) -> list[bytes]:
    """The octets of `make(0)` to `make(count - 1)`, joined in pieces that a single send takes."""
    return [b"".join(make(number) for number in range(start, min(start + size, count)))
            for start in range(0, count, size)]
