"""A faulty connection between a client and a broker: slow, cut into pieces, closed, or silent.

Owns two sockets and the threads between them. Each fault is noted in the history before it begins.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

from tests.history.events import History

MOST_AT_ONCE = 65_536


class Line(NamedTuple):
    """How bad it is."""

    name: str
    delay_s: float = 0
    rate: float = 0                     # octets a second; 0 for as fast as it goes
    slice: int = MOST_AT_ONCE           # octets that go at once, at most
    breaks_after: int = 0               # octets, both ways together; 0 for never
    breaks_by: Literal["cut", "reset", "silence"] = "cut"


class Proxy:
    """Takes one connection on `port`, and passes it on to the broker."""

    def __init__(self, history: History, connection: str, line: Line, broker_port: int, *, seed: int = 0) -> None:
        self._history = history
        self._connection = connection
        self._line = line
        self._broker_port = broker_port
        self._rng = random.Random(seed)
        self._passed = 0
        self._lock = threading.Lock()
        self._is_silent = False
        self.is_broken = False
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End the connection, if there is one, and the threads."""
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            self._ends.append(client)
            broker = socket.create_connection(("127.0.0.1", self._broker_port))
            self._ends.append(broker)
            for end in self._ends:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._threads.append(threading.Thread(target=self._pump, args=(client, broker), daemon=True))
            self._threads[-1].start()
            self._pump(broker, client)
            if self._is_silent:
                self._history.note("info", "gone", connection=self._connection)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Pass octets on until one side ends, or both have been ended."""
        with contextlib.suppress(OSError):
            while octets := source.recv(MOST_AT_ONCE):
                for piece in self._slices(octets):
                    self._wait(piece)
                    if self._breaks(len(piece)):
                        return
                    if not self._is_silent:
                        target.sendall(piece)
        if not self._is_silent:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)

    def _slices(self, octets: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(octets):
            size = self._rng.randint(1, self._line.slice)
            yield octets[at:at + size]
            at += size

    def _wait(self, piece: bytes) -> None:
        if not self._is_silent:
            time.sleep(self._line.delay_s + (len(piece) / self._line.rate if self._line.rate else 0))

    def _breaks(self, octets: int) -> bool:
        """Return whether the connection ends with these octets; a silent one continues to read."""
        line = self._line
        with self._lock:
            self._passed += octets
            if not line.breaks_after or self._passed < line.breaks_after or self.is_broken:
                return self.is_broken and not self._is_silent
            self.is_broken = True
            if line.breaks_by == "silence":
                self._history.note("info", "silence", connection=self._connection)
                self._is_silent = True
                return False
            self._history.note("invoke", "fault", connection=self._connection)
        for end in self._ends:
            self._end(end)
        return True

    def _end(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._line.breaks_by == "reset":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()
            else:
                end.shutdown(socket.SHUT_RDWR)
