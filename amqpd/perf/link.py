"""A connection whose set-up is done: a socket that never waits, and what publishers and consumers share."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable

from pamqp.base import Frame
from pamqp.commands import Channel, Connection

from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.perf.batches import next_frame
from amqpd.perf.client import CHANNEL, METHOD, Client, Ended, Refused, method_of
from amqpd.perf.failure import RunFailure
from amqpd.wire.methods import decode_method, encode_method

READ_BYTES = 1 << 18
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_read_buffer = bytearray(READ_BYTES)


class Link(ABC):
    """One connection in the loop of a worker. `now_ns` is the monotonic clock."""

    def __init__(self, client: Client, now_ns: Callable[[], int]) -> None:
        self.client = client
        self.now_ns = now_ns
        self.is_blocked = False         # the broker has an alarm, and says so
        self.buffer = bytearray(client.rest())
        self._unsent = bytearray()
        client.socket.setblocking(False)

    @property
    def wants_to_write(self) -> bool:
        """Whether bytes wait for room in the socket."""
        return bool(self._unsent)

    def put(self, data: bytes | memoryview) -> bool:
        """Send the bytes, now or as soon as there is room; return whether all of them are sent."""
        if self._unsent:
            self._unsent += data
            return False
        sent = self._send(data)
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
        return not self._unsent

    def flush(self) -> bool:
        """Send what waits; return whether all of it is sent."""
        while self._unsent and (sent := self._send(self._unsent)):
            del self._unsent[:sent]
        return not self._unsent

    def read(self) -> None:
        """Read all that has arrived and act on it. Raises RunFailure if the broker has ended the connection."""
        while True:
            try:
                size = self.client.socket.recv_into(_read_buffer)
            except _NOT_NOW:
                return
            except OSError as error:
                raise self.failure(error.strerror or str(error)) from None
            if not size:
                raise self.failure("the connection was closed without a reason")
            with memoryview(_read_buffer) as view:
                self.buffer += view[:size]
            self.take()
            if size < READ_BYTES and not self._has_more():
                return

    def failure(self, reason: str) -> RunFailure:
        """Return the error that ends the run."""
        return RunFailure(
            f"{self.client.address.place} ended the run: {reason}; its log tells more", EXIT_UNAVAILABLE)

    @abstractmethod
    def take(self) -> None:
        """Act on what the buffer has, and remove it from there."""

    def take_frame(self, at: int) -> int | None:
        """Act on the frame at this place of the buffer; return where it ends, or None if it is incomplete."""
        frame = next_frame(self.buffer, at)
        if frame is None:
            return None
        kind, payload, stop = frame
        if kind == METHOD:
            method = decode_method(payload)
            if isinstance(method, (Connection.Blocked, Connection.Unblocked)):
                self.is_blocked = isinstance(method, Connection.Blocked)
            elif isinstance(method, (Connection.Close, Channel.Close)):
                raise self.failure(f"{method.reply_code} {method.reply_text}")
            else:
                self.on_method(method)
        return stop

    def on_method(self, method: Frame) -> None:
        """Act on a method that is not about the connection. Contents after it are skipped."""

    def ask(self, method: Frame) -> None:
        """Send a method whose answer comes to `on_method`."""
        self.put(encode_method(CHANNEL, method))

    def end(self, timeout_s: float) -> None:
        """Wait until the broker has taken in all that was sent, and close the connection."""
        socket = self.client.socket
        try:
            socket.settimeout(timeout_s)
            socket.sendall(self._unsent)
            self.client.give_back(self.buffer)
            self.client.call(method_of(Channel.Close, reply_code=200), Channel.CloseOk)
        except (OSError, Ended, Refused, RunFailure):
            pass        # the connection has ended already, and the run has its result
        self.client.close()

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self.client.socket.send(data)
        except _NOT_NOW:
            return 0
        except OSError as error:
            self._read_reason()
            raise self.failure(error.strerror or str(error)) from None

    def _read_reason(self) -> None:
        """Act on what the broker may have said before it ended the connection."""
        try:
            size = self.client.socket.recv_into(_read_buffer)
        except (OSError, ValueError):
            return
        with memoryview(_read_buffer) as view:
            self.buffer += view[:size]
        self.take()

    def _has_more(self) -> bool:
        socket = self.client.socket
        return isinstance(socket, ssl.SSLSocket) and socket.pending() > 0
