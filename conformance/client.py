"""A client that works with single frames on a blocking socket, so that it can also send invalid ones.

It owns the socket, reassembles contents, and keeps methods that arrive while it waits for another one. It knows nothing
of queues; `channel` does. Each wait ends after `timeout`: with `Silence` if the broker sends nothing, with `Closed` if
it closed the TCP connection, and with an AssertionError that shows what arrived if that was something else.
"""
from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar, Iterable, NamedTuple
from urllib.parse import unquote, urlsplit

from conformance import methods
from conformance.channel import Channel
from conformance.fields import LongString, encode_table, pack, unpack
from conformance.methods import (
    BASIC_ACK, BASIC_CANCEL, BASIC_DELIVER, BASIC_GET_OK, BASIC_NACK, BASIC_QOS, BASIC_QOS_OK, BASIC_RETURN,
    CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CONNECTION_BLOCKED, CONNECTION_CLOSE, CONNECTION_CLOSE_OK, CONNECTION_OPEN,
    CONNECTION_OPEN_OK, CONNECTION_START, CONNECTION_START_OK, CONNECTION_TUNE, CONNECTION_TUNE_OK,
    CONNECTION_UNBLOCKED)

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
FRAME_OVERHEAD = 8

WITH_CONTENT = {BASIC_RETURN, BASIC_DELIVER, BASIC_GET_OK}
UNASKED = {BASIC_RETURN, BASIC_DELIVER, BASIC_ACK, BASIC_NACK, BASIC_CANCEL, CONNECTION_BLOCKED, CONNECTION_UNBLOCKED}

CAPABILITIES = {
    "publisher_confirms": True, "exchange_exchange_bindings": True, "basic.nack": True, "consumer_cancel_notify": True,
    "connection.blocked": True, "authentication_failure_close": True}


class Closed(ConnectionError):
    """The broker dropped TCP."""


class Silence(AssertionError):
    """Nothing came in time."""


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    channel: int
    payload: bytes


@dataclass
class Method:
    """A method frame, and its content where it carries one."""

    channel: int
    class_id: int
    method_id: int
    args: bytes
    header: bytes | None = None
    body: bytes = b""

    @property
    def ids(self) -> tuple[int, int]:
        """Class and method id."""
        return self.class_id, self.method_id

    @property
    def is_complete(self) -> bool:
        """Whether all content that belongs to it has come."""
        if self.ids not in WITH_CONTENT:
            return True
        return self.header is not None and len(self.body) == struct.unpack_from(">Q", self.header, 4)[0]

    def decode(self, layout: str) -> tuple:
        """The arguments, see `fields` for layouts."""
        return unpack(layout, self.args)

    def __str__(self) -> str:
        return f"{methods.name(*self.ids)} on channel {self.channel}, arguments {self.args!r}"


class BrokerUrl(NamedTuple):
    """The parts of an amqp:// URL."""

    host: str
    port: int
    user: str
    password: str
    vhost: str


def parse_url(url: str) -> BrokerUrl:
    """The parts of an amqp url; no path, or only its slash, means vhost `/`."""
    parts = urlsplit(url)
    return BrokerUrl(parts.hostname or "127.0.0.1", parts.port or 5672, unquote(parts.username or "guest"),
                     unquote(parts.password or "guest"), unquote(parts.path[1:]) or "/")


def without_password(url: str) -> str:
    """Return the url as it may be shown."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


def smaller_limit(own: int, brokers: int) -> int:
    """Return the limit that holds for both; 0 is none."""
    return min(own, brokers) if own and brokers else own or brokers


class Client:
    """A connection. With `connect` it is open when the constructor returns, else not even the socket is.

    `capabilities` are those declared in client-properties; None declares all that RabbitMQ acts on, {} none.
    `timeout` is how many seconds any wait may last. `compares_texts` is a setting for all clients: whether reply texts
    must be RabbitMQ's, or any text will do.
    """

    compares_texts: ClassVar[bool] = True

    def __init__(self, url: str, *, frame_max: int = 131072, channel_max: int = 2047, heartbeat: int = 0,
                 capabilities: dict | None = None, connect: bool = True, timeout: float = 10) -> None:
        self.url = parse_url(url)
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.heartbeat = heartbeat
        self.capabilities = CAPABILITIES if capabilities is None else capabilities
        self.timeout = timeout
        self.socket: socket.socket | None = None
        self.server_properties: dict[str, Any] = {}
        self._received = b""
        self._incomplete: dict[int, Method] = {}
        self._kept: deque[Method] = deque()
        self._channels = 0
        self._is_open = False
        if connect:
            self.handshake()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The handshake, step by step

    def handshake(self) -> None:
        """All steps from socket to open-ok."""
        self.open_socket()
        self.greet()
        channel_max, frame_max, _ = self.log_in()
        self.channel_max = smaller_limit(self.channel_max, channel_max)
        self.frame_max = smaller_limit(self.frame_max, frame_max)
        self.tune()
        self.open_vhost()

    def open_socket(self) -> None:
        """Connect TCP, and send nothing."""
        self.socket = socket.create_connection((self.url.host, self.url.port), timeout=self.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def greet(self, header: bytes = PROTOCOL_HEADER) -> Method:
        """Send the protocol header, return connection.start."""
        self.send(header)
        start = self.expect(0, *CONNECTION_START)
        self.server_properties = start.decode("ooTLL")[2]
        return start

    def client_properties(self) -> dict[str, Any]:
        """Return the default client properties of start-ok."""
        return {"product": "conformance", "capabilities": self.capabilities}

    def send_start_ok(self, mechanism: str = "PLAIN", response: bytes | None = None, *, locale: str = "en_US",
                      properties: dict | None = None) -> None:
        """Send start-ok; the default response is PLAIN's, for the user of the url."""
        if response is None:
            response = plain_response(self.url.user, self.url.password)
        properties = self.client_properties() if properties is None else properties
        self.send_method(0, *CONNECTION_START_OK, pack("TsLs", properties, mechanism, response, locale))

    def log_in(self, mechanism: str = "PLAIN", response: bytes | None = None, **others: Any) -> tuple[int, int, int]:
        """Send start-ok, return the broker's channel-max, frame-max and heartbeat."""
        self.send_start_ok(mechanism, response, **others)
        return self.expect(0, *CONNECTION_TUNE).decode("242")

    def tune(self) -> None:
        """Send tune-ok with this client's own values."""
        self.send_method(0, *CONNECTION_TUNE_OK, pack("242", self.channel_max, self.frame_max, self.heartbeat))

    def open_vhost(self, vhost: str | None = None) -> None:
        """Send connection.open and await open-ok."""
        self.send_open(vhost)
        self.expect(0, *CONNECTION_OPEN_OK)
        self._is_open = True

    def send_open(self, vhost: str | None = None) -> None:
        """Send connection.open for a vhost, by default the url's."""
        self.send_method(0, *CONNECTION_OPEN, pack("sso", self.url.vhost if vhost is None else vhost, "", 0))

    def channel(self, number: int | None = None) -> Channel:
        """An opened channel, on the next number unless one is given."""
        self._channels += 1
        return Channel(self, self._channels if number is None else number).open()

    def close(self) -> None:
        """Close politely if the connection is open, then close the socket."""
        if self._is_open and self.socket is not None:
            with contextlib.suppress(OSError, AssertionError):
                self.send_method(0, *CONNECTION_CLOSE, pack("2s22", 200, "bye", 0, 0))
                self._wait_for_close_ok()
        self.drop()

    def drop(self) -> None:
        """Close the socket without a word."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _wait_for_close_ok(self) -> None:
        while self.read().ids not in (CONNECTION_CLOSE, CONNECTION_CLOSE_OK):
            pass

    # Sending

    def send(self, raw: bytes) -> None:
        """Send these octets; Closed when the broker is gone."""
        try:
            self.socket.sendall(raw)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed("the broker dropped TCP while we sent") from error

    def send_frame(self, kind: int, channel: int, payload: bytes) -> None:
        """Send one well-formed frame."""
        self.send(frame(kind, channel, payload))

    def send_method(self, channel: int, class_id: int, method_id: int, args: bytes = b"") -> None:
        """Send one method frame."""
        self.send(method_frame(channel, class_id, method_id, args))

    def send_content(self, channel: int, header: bytes, body: bytes) -> None:
        """Send a content header, and the body in as few frames as frame-max allows."""
        self.send(content_frames(channel, header, body, self.frame_max))

    # Reading

    def read_frame(self, within: float | None = None) -> Frame:
        """The next frame of any kind, heartbeats too; Closed or Silence when there is none."""
        deadline = time.monotonic() + (self.timeout if within is None else within)
        kind, channel, size = struct.unpack(">BHI", self._take(7, deadline))
        payload, end = self._take(size, deadline), self._take(1, deadline)
        assert end == FRAME_END, f"frame of type {kind} on channel {channel} ends with {end!r}"
        return Frame(kind, channel, payload)

    def read_octets(self, size: int) -> bytes:
        """The next octets, before frames are spoken."""
        return self._take(size, time.monotonic() + self.timeout)

    def read(self, within: float | None = None) -> Method:
        """The next method with its content, kept ones first; heartbeats are skipped."""
        if self._kept:
            return self._kept.popleft()
        return self._read_method(within)

    def expect(self, channel: int, class_id: int, method_id: int) -> Method:
        """The next method on this channel, which must be this one. Methods on other channels are kept."""
        return self.await_method(channel, [(class_id, method_id)], keep=())

    def await_method(self, channel: int, wanted: Iterable[tuple[int, int]], *,
                     keep: Iterable[tuple[int, int]] = UNASKED) -> Method:
        """The first of the wanted methods on this channel.

        Methods on other channels, and those in `keep` on this one, stay readable in their order.
        """
        passed: list[Method] = []
        try:
            while True:
                method = self.read()
                if method.channel == channel and method.ids in wanted:
                    return method
                in_the_way = method.channel == channel or method.ids == CONNECTION_CLOSE
                assert not in_the_way or method.ids in keep, f"expected {described(wanted)}, got {method}"
                passed.append(method)
        except Silence:
            raise Silence(f"expected {described(wanted)} on channel {channel}, got nothing "
                          f"but {[str(method) for method in passed]}") from None
        except Closed:
            raise Closed(f"expected {described(wanted)} on channel {channel}, TCP was closed") from None
        finally:
            self._kept.extendleft(reversed(passed))

    def sync(self, channel: int) -> list[Method]:
        """A harmless round trip; returns what arrived on this channel before its answer."""
        self.send_method(channel, *BASIC_QOS, pack("42o", 0, 0, 0))
        answer = self.await_method(channel, [BASIC_QOS_OK])
        assert not answer.args
        return self.take_kept(channel)

    def take_kept(self, channel: int, ids: tuple[int, int] | None = None) -> list[Method]:
        """What arrived on this channel while something else was awaited: all of it, or these methods alone."""
        taken: list[Method] = []
        left: deque[Method] = deque()
        for method in self._kept:
            (taken if method.channel == channel and ids in (None, method.ids) else left).append(method)
        self._kept = left
        return taken

    def nothing(self, seconds: float = 0.3) -> None:
        """Nothing but heartbeats arrives for so long."""
        with contextlib.suppress(Silence):
            method = self.read(within=seconds)
            raise AssertionError(f"expected nothing, got {method}")

    # Ends

    def expect_channel_close(self, channel: int, code: int | tuple[int, ...], text: str | re.Pattern,
                             class_id: int | None = None, method_id: int | None = None) -> None:
        """Expect that the broker closes this channel, and answer close-ok. A pattern must match the whole text."""
        close = self.await_method(channel, [CHANNEL_CLOSE])
        check_close(close, code, text, class_id, method_id)
        self.send_method(channel, *CHANNEL_CLOSE_OK)

    def expect_connection_close(self, code: int | tuple[int, ...], text: str | re.Pattern,
                                class_id: int | None = None, method_id: int | None = None) -> None:
        """Expect that the broker closes the connection; answer close-ok. A pattern must match the whole text."""
        close = self.await_method(0, [CONNECTION_CLOSE])
        check_close(close, code, text, class_id, method_id)
        with contextlib.suppress(Closed):
            self.send_method(0, *CONNECTION_CLOSE_OK)

    def expect_dropped(self, within: float = 10) -> None:
        """The broker drops TCP, saying nothing but heartbeats before."""
        try:
            method = self.read(within=within)
        except Closed:
            return
        except Silence:
            raise AssertionError(f"TCP is still open after {within} s") from None
        raise AssertionError(f"expected TCP to be dropped, got {method}")

    def expect_dropped_or_closed(self, *codes: int, within: float = 10) -> None:
        """Expect that the broker closes TCP, or closes the connection with one of these codes: both are allowed."""
        try:
            method = self.read(within=within)
        except Closed:
            return
        assert method.ids == CONNECTION_CLOSE, f"expected connection.close or the end of TCP, got {method}"
        code, text, *_ = method.decode("2s22")
        assert code in codes and text, f"expected one of {codes}, got {code} {text!r}"
        with contextlib.suppress(Closed):
            self.send_method(0, *CONNECTION_CLOSE_OK)

    # Octets to methods

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            self._received += self._receive(deadline)
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _receive(self, deadline: float) -> bytes:
        self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            received = self.socket.recv(1 << 18)
        except TimeoutError:
            raise Silence(f"nothing came, but these octets {self._received!r}") from None
        except ConnectionResetError as error:
            raise Closed("the broker reset TCP") from error
        finally:
            self.socket.settimeout(self.timeout)
        if not received:
            raise Closed("the broker closed TCP")
        return received

    def _read_method(self, within: float | None) -> Method:
        deadline = time.monotonic() + (self.timeout if within is None else within)
        while True:
            method = self._take_frame(self.read_frame(deadline - time.monotonic()))
            if method is not None and method.is_complete:
                self._incomplete.pop(method.channel, None)
                self._is_open = self._is_open and method.ids not in (CONNECTION_CLOSE, CONNECTION_CLOSE_OK)
                return method

    def _take_frame(self, received: Frame) -> Method | None:
        """The method that this frame begins or continues."""
        if received.kind == HEARTBEAT:
            return None
        if received.kind == METHOD:
            assert received.channel not in self._incomplete, f"method within a content: {received}"
            method = Method(received.channel, *struct.unpack_from(">HH", received.payload), received.payload[4:])
            if not method.is_complete:
                self._incomplete[received.channel] = method
            return method
        assert received.channel in self._incomplete, f"content without a method: {received}"
        method = self._incomplete[received.channel]
        if received.kind == HEADER:
            assert method.header is None, f"second header: {received}"
            method.header = received.payload
        else:
            method.body += received.payload
        return method


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A frame's octets."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END


def method_frame(channel: int, class_id: int, method_id: int, args: bytes = b"") -> bytes:
    """A method frame's octets."""
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + args)


def content_frames(channel: int, header: bytes, body: bytes, frame_max: int) -> bytes:
    """A header frame and as few body frames as frame-max allows."""
    largest = frame_max - FRAME_OVERHEAD
    parts = (body[start:start + largest] for start in range(0, len(body), largest))
    return frame(HEADER, channel, header) + b"".join(frame(BODY, channel, part) for part in parts)


def plain_response(user: str, password: str) -> bytes:
    """PLAIN: no authorisation id, user, password."""
    return f"\0{user}\0{password}".encode()


def amqplain_response(user: str, password: str) -> bytes:
    """AMQPLAIN: a field table without its length."""
    return encode_table({"LOGIN": LongString(user), "PASSWORD": LongString(password)})[4:]


def described(wanted: Iterable[tuple[int, int]]) -> str:
    """Method names for a message."""
    return " or ".join(methods.name(*ids) for ids in wanted)


def check_close(close: Method, code: int | tuple[int, ...], text: str | re.Pattern, class_id: int | None,
                method_id: int | None) -> None:
    """Compare a close method with what was expected of it; None is not compared, several codes are equally right."""
    got_code, got_text, *got_ids = close.decode("2s22")
    codes = code if isinstance(code, tuple) else (code,)
    same_text = text.fullmatch(got_text) if isinstance(text, re.Pattern) else text == got_text
    same_text = same_text or not Client.compares_texts
    assert got_code in codes and same_text, f"expected {code} {text!r}, got {got_code} {got_text!r}"
    for expected, got in zip((class_id, method_id), got_ids):
        assert expected in (None, got), f"{got_text!r} blames {methods.name(*got_ids)}, not {class_id}.{method_id}"
