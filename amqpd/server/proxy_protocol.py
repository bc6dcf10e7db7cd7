"""The PROXY protocol, versions 1 and 2: a proxy tells in a header whom it speaks for, before anything else is sent.

Owns the sockets whose header has not been read. A header is expected from the listed addresses only, and from those
always: everybody else could claim to be anybody. Nothing after the header is taken from the socket, so that the rest,
TLS or not, is read as if there were no proxy.

haproxy.org/download/1.8/doc/proxy-protocol.txt; RabbitMQ docs/networking (proxy protocol).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEGIN_1 = b"PROXY "
MOST_1, MOST_2 = 107, 536       # bytes of a header, by version
FIXED_2 = 16                    # bytes of a header of version 2 before the addresses
LOCAL, PROXY = 0, 1             # commands of version 2
TCP_4, TCP_6 = 0x11, 0x21       # families of version 2
ADDRESS_BYTES = {TCP_4: 4, TCP_6: 16}

Address = tuple[str, int]


class ProxyError(Exception):
    """A header that is none; the text says why, and is one of few."""


class Claim(NamedTuple):
    """The addresses in a header: of the client, and what it connected to."""

    peer: Address
    host: Address


class Header:
    """A header that is being read. `claim` is None if the proxy speaks for itself, or does not know the client."""

    def __init__(self) -> None:
        self.is_complete = False
        self.claim: Claim | None = None
        self._read = b""

    def take(self, seen: bytes) -> int:
        """Return how many of these bytes, the next ones, belong to the header. Raises ProxyError."""
        data = self._read + seen
        size = _size_2(data) if SIGNATURE.startswith(data[:len(SIGNATURE)]) else _size_1(data)
        if size is None or len(data) < size:
            self._read = data
            return len(seen)
        taken = size - len(self._read)
        self.claim = (_read_2 if data[0] == SIGNATURE[0] else _read_1)(data[:size])
        self.is_complete = True
        return taken


def _size_1(data: bytes) -> int | None:
    """Return the size of a header of version 1, a line; None if its end is not there yet. Raises ProxyError."""
    if data[:len(BEGIN_1)] != BEGIN_1[:len(data)]:
        raise ProxyError("it does not begin with one, and its address is listed in proxy_protocol_from")
    end = data.find(b"\r\n", 0, MOST_1)
    if end < 0:
        if len(data) >= MOST_1:
            raise ProxyError(f"it has no end within {MOST_1} bytes")
        return None
    return end + 2


def _read_1(line: bytes) -> Claim | None:
    """Return the claim of a header of version 1. Raises ProxyError."""
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    version = {b"TCP4": 4, b"TCP6": 6}.get(words[1])
    if version is None or len(words) != 6:
        raise ProxyError("it is malformed")
    try:
        texts = [word.decode("ascii") for word in words[2:]]
        addresses = [ipaddress.ip_address(text) for text in texts[:2]]
    except ValueError:
        raise ProxyError("it has an address that is none") from None
    if any(address.version != version or "%" in str(address) for address in addresses):
        raise ProxyError("it has an address that is none")
    ports = [int(text) if text.isdigit() and len(text) <= 5 else -1 for text in texts[2:]]
    if not all(0 <= port <= 65_535 for port in ports):
        raise ProxyError("it has a port that is none")
    return Claim((str(addresses[0]), ports[0]), (str(addresses[1]), ports[1]))


def _size_2(data: bytes) -> int | None:
    """Return the size of a header of version 2; None if too little of it is there. Raises ProxyError."""
    if len(data) < FIXED_2:
        return None
    size = FIXED_2 + int.from_bytes(data[14:16], "big")
    if size > MOST_2:
        raise ProxyError(f"it is larger than {MOST_2} bytes")
    return size


def _read_2(header: bytes) -> Claim | None:
    """Return the claim of a header of version 2; what follows the addresses is ignored. Raises ProxyError."""
    version, command, family = header[12] >> 4, header[12] & 15, header[13]
    if version != 2 or command not in (LOCAL, PROXY) or family >> 4 > 3 or family & 15 > 2:
        raise ProxyError("it is malformed")
    if command == LOCAL or family not in ADDRESS_BYTES:
        return None
    size, rest = ADDRESS_BYTES[family], header[FIXED_2:]
    if len(rest) < 2 * size + 4:
        raise ProxyError("it is malformed")
    peer, host, ports = rest[:size], rest[size:2 * size], rest[2 * size:]
    return Claim((str(ipaddress.ip_address(peer)), int.from_bytes(ports[:2], "big")),
                 (str(ipaddress.ip_address(host)), int.from_bytes(ports[2:4], "big")))


class Waiting(NamedTuple):
    """A socket whose header is being read, and what to call once it is complete, or the socket is to be closed."""

    header: Header
    timer: asyncio.TimerHandle
    name: str
    on_header: Callable[[Claim | None], None]
    on_closed: Callable[[], None]


class Proxies:
    """Reads the headers of connections from `networks`, each within `limit_s`.

    Without networks no header is expected from anybody. `on_failed` logs a text and its arguments.
    """

    def __init__(
        self, networks: Iterable[str], limit_s: float, loop: asyncio.AbstractEventLoop,
        on_failed: Callable[..., None],
    ) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]
        self._limit_s = limit_s
        self._loop = loop
        self._on_failed = on_failed
        self._waiting: dict[socket.socket, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def has(self, address: str) -> bool:
        """Return whether this is the address of a proxy."""
        if not self._networks:
            return False
        found = ipaddress.ip_address(address.partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)

    def read(
        self, connection: socket.socket, name: str, on_header: Callable[[Claim | None], None],
        on_closed: Callable[[], None],
    ) -> None:
        """Read the header of a socket, then call `on_header`; or `on_closed`, which has to close the socket."""
        timer = self._loop.call_later(self._limit_s, partial(self._fail, connection, "none came in time"))
        self._waiting[connection] = Waiting(Header(), timer, name, on_header, on_closed)
        self._loop.add_reader(connection, self._look, connection)

    def _look(self, connection: socket.socket) -> None:
        waiting = self._waiting[connection]
        try:
            seen = connection.recv(MOST_2, socket.MSG_PEEK)
            taken = waiting.header.take(seen) if seen else 0
            connection.recv(taken)
        except (BlockingIOError, InterruptedError):
            return
        except ProxyError as error:
            self._fail(connection, str(error))
            return
        except OSError:
            seen = b""
        if not seen:            # the proxy has closed it, as a check of health does
            self._end(connection).on_closed()
        elif waiting.header.is_complete:
            self._end(connection).on_header(waiting.header.claim)

    def _fail(self, connection: socket.socket, reason: str) -> None:
        waiting = self._end(connection)
        self._on_failed(f"%s: closing: PROXY header: {reason}", waiting.name)
        waiting.on_closed()

    def _end(self, connection: socket.socket) -> Waiting:
        waiting = self._waiting.pop(connection)
        waiting.timer.cancel()
        self._loop.remove_reader(connection)
        return waiting

    def stop(self) -> None:
        """Close all sockets whose header has not been read."""
        for connection in list(self._waiting):
            self._end(connection).on_closed()
