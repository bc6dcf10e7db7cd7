"""A blocking AMQP client for the crash tests: one connection, one channel, for one thread.

Owns its socket and the frames on it; it does not know what the tests check. It uses pamqp's methods, so that it shares
no code with the broker, and keeps contents as the bytes that arrived, so that each changed bit is detected.

A wait ends with `OSError` if the broker is gone, with `Refused` if it closed the channel or the connection, and with
`TimeoutError` if nothing arrived.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import deque
from typing import Any, NamedTuple

from pamqp import frame, header
from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue

CHANNEL = 1
FRAME_MAX = 131_072
METHOD, HEADER, BODY = 1, 2, 3
FRAME_OVERHEAD = 8
FRAME_END = b"\xce"
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"
WITH_CONTENT = (Basic.Deliver, Basic.GetOk, Basic.Return)
_HEAD = struct.Struct(">BHI")


class Refused(Exception):
    """The broker closed the channel, or the connection, with this code."""

    def __init__(self, method: Channel.Close | Connection.Close) -> None:
        super().__init__(f"{method.name}: {method.reply_code} {method.reply_text}")
        self.code = method.reply_code
        self.text = method.reply_text


class Arrived(NamedTuple):
    """A method, and what came with it: the content header's payload and the body."""

    method: Any             # one of pamqp's classes
    header: bytes = b""
    body: bytes = b""


class Client:
    """An open connection with channel 1 open."""

    password = "guest"

    def __init__(
        self, port: int, *, timeout_s: float = 10.0, hears_blocked: bool = False, heartbeat_s: int = 0
    ) -> None:
        self._timeout_s = timeout_s
        self._capabilities = {"connection.blocked": hears_blocked}
        self._heartbeat_s = heartbeat_s
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begin()
        try:
            self._shake_hands()
        except BaseException:
            self._hang_up()
            raise

    def _begin(self) -> None:
        self._received = bytearray()
        self._arrived: deque[Arrived] = deque()
        self._incomplete: list[Any] = []        # method, header payload, body octets, body size

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shake_hands(self) -> None:
        self._write(frame.marshal(header.ProtocolHeader(), 0))
        self._expect("Connection.Start")
        properties = {"product": "amqpd crash test", "capabilities": self._capabilities}
        login = f"\0guest\0{self.password}"
        self._send(0, Connection.StartOk(properties, "PLAIN", login, "en_US"))
        self.heartbeat_offered: int = self._expect("Connection.Tune").method.heartbeat
        self._send(0, Connection.TuneOk(2047, FRAME_MAX, self._heartbeat_s))
        self._send(0, Connection.Open("/"))
        self._expect("Connection.OpenOk")
        self.open_channel()

    def open_channel(self) -> None:
        """Open channel 1, the first time or after it was closed."""
        self._send(CHANNEL, Channel.Open())
        self._expect("Channel.OpenOk")

    def close(self) -> bool:
        """Close the connection cleanly if the broker still answers; return whether it did."""
        is_answered = False
        with contextlib.suppress(OSError, Refused):
            self._send(0, Connection.Close(200, "bye", 0, 0))
            self._expect("Connection.CloseOk")
            is_answered = True
        self._hang_up()
        return is_answered

    def drop(self) -> None:
        """Close the socket without a word."""
        self._hang_up()

    def _hang_up(self) -> None:
        self._socket.close()

    # Out

    def send(self, method: Frame) -> None:
        """Send a method on the channel."""
        self._send(CHANNEL, method)

    def beat(self) -> None:
        """Send a heartbeat."""
        self._write(HEARTBEAT)

    def call(self, method: Frame) -> Any:
        """Send a method and return its answer; what comes before that stays to be taken. Raises Refused."""
        self.send(method)
        return self._expect(*method.valid_responses).method

    def get(self, queue: str) -> Arrived | None:
        """Get one message, which is unacked then; None if the queue is empty."""
        self.send(Basic.Get(0, queue, False))
        answer = self._expect(*Basic.Get.valid_responses)
        return answer if isinstance(answer.method, Basic.GetOk) else None

    def publish(self, exchange: str, routing_key: str, content: bytes, *, mandatory: bool = False) -> None:
        """Publish a content that `pack_content` made."""
        method = Basic.Publish(0, exchange, routing_key, mandatory)
        self._write(frame.marshal(method, CHANNEL) + content)

    def _send(self, channel: int, method: Frame) -> None:
        self._write(frame.marshal(method, channel))

    def _write(self, octets: bytes) -> None:
        self._socket.settimeout(self._timeout_s)
        self._socket.sendall(octets)

    # In

    def take(self, timeout_s: float = 0.0) -> Arrived | None:
        """The next method, if one comes in time. Raises Refused."""
        if self._arrived:
            return self._arrived.popleft()
        with contextlib.suppress(TimeoutError):
            return self._read(time.monotonic() + timeout_s)
        return None

    def left(self) -> list[Arrived]:
        """What has been read and not taken."""
        left = list(self._arrived)
        self._arrived.clear()
        return left

    def _expect(self, *names: str) -> Arrived:
        deadline = time.monotonic() + self._timeout_s
        while (arrived := self._read(deadline)).method.name not in names:
            self._arrived.append(arrived)
        return arrived

    def _read(self, deadline: float) -> Arrived:
        """The next method with all that belongs to it. Raises Refused, TimeoutError, OSError."""
        while True:
            kind, payload, octets = self._read_frame(deadline)
            if kind == METHOD:
                self._incomplete = [frame.unmarshal(octets)[2], b"", b"", 0]
            elif kind == HEADER:
                self._incomplete[1:] = payload, b"", struct.unpack_from(">Q", payload, 4)[0]
            elif kind == BODY:
                self._incomplete[2] += payload
            else:
                continue
            method, content_header, body, size = self._incomplete
            if not isinstance(method, WITH_CONTENT) or (content_header and len(body) == size):
                self._check(method)
                return Arrived(method, content_header, body)

    def _check(self, method: Frame) -> None:
        if isinstance(method, Channel.Close):
            self.send(Channel.CloseOk())
            raise Refused(method)
        if isinstance(method, Connection.Close):
            with contextlib.suppress(OSError):
                self._send(0, Connection.CloseOk())
            raise Refused(method)

    def _read_frame(self, deadline: float) -> tuple[int, bytes, bytes]:
        """Kind, payload and the whole of the next frame."""
        self._fill(_HEAD.size, deadline)
        kind, _, size = _HEAD.unpack_from(self._received)
        self._fill(size + FRAME_OVERHEAD, deadline)
        octets = bytes(self._received[:size + FRAME_OVERHEAD])
        del self._received[:size + FRAME_OVERHEAD]
        assert octets[-1:] == FRAME_END, f"a frame ends with {octets[-1:]!r}"
        return kind, octets[_HEAD.size:-1], octets

    def _fill(self, size: int, deadline: float) -> None:
        while len(self._received) < size:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.0001))
            octets = self._socket.recv(1 << 18)
            if not octets:
                raise ConnectionResetError("the broker is gone")
            self._received += octets


def exists(client: Client, passive_declare: Queue.Declare | Exchange.Declare) -> bool:
    """Whether there is such a queue or exchange."""
    try:
        client.call(passive_declare)
    except Refused as refusal:
        assert refusal.code == 404, refusal
        client.open_channel()
        return False
    return True


def routes(client: Client, exchange: str, routing_key: str) -> bool:
    """Whether a publish with this key reaches a queue; what it leaves there is transient."""
    content, _ = pack_content(Basic.Properties(message_id="0"), b"")
    client.publish(exchange, routing_key, content, mandatory=True)
    client.call(Basic.Qos())
    return client.take() is None


def pack_content(properties: Basic.Properties, body: bytes) -> tuple[bytes, bytes]:
    """The frames of a content, and the payload of its header frame alone."""
    head = header.ContentHeader(0, len(body), properties).marshal()
    frames = _frame(HEADER, head)
    step = FRAME_MAX - FRAME_OVERHEAD
    return frames + b"".join(_frame(BODY, body[at:at + step]) for at in range(0, len(body), step)), head


def _frame(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, CHANNEL, len(payload)) + payload + FRAME_END
