"""What systemd and others like it expect of a service: messages about its state, a watchdog, and passed sockets.

All of it is in variables of the environment, and without them nothing happens. No library is needed.

systemd: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from amqpd.config import Config, Listener
from amqpd.exit_codes import EXIT_CONFIG
from amqpd.server.addresses import describe_address
from amqpd.server.startup import StartError

NOTIFY, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
FDS, FDS_PID, FD_NAMES = "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"
FIRST_FD = 3
AMQPS_NAMES = ("amqps", "amqpd-tls")        # FileDescriptorName= of a socket unit
HTTP_NAMES = ("http", "amqpd-http")
METRICS_NAMES = ("metrics", "amqpd-metrics")


class Service:
    """The messages to the service manager. `environ` tells where it listens."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get(NOTIFY, "")
        self._path = "\0" + path[1:] if path.startswith("@") else path
        is_ours = environ.get(WATCHDOG_PID, "") in ("", str(os.getpid()))
        text = environ.get(WATCHDOG, "")
        self._watchdog_s = int(text) / 1e6 if is_ours and text.isascii() and text.isdigit() else 0.0

    def tell(self, *lines: str) -> None:
        """Send such lines as `READY=1`; a manager that does not listen is not waited for."""
        if not self._path:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._path)

    def ready(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Tell that clients are served."""
        self.tell("READY=1", f"STATUS=serving clients at {', '.join(map(describe_address, addresses))}")

    def stopping(self) -> None:
        """Tell that the stop has begun."""
        self.tell("STOPPING=1", "STATUS=closing the connections of clients")

    async def keep_alive(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Tell the watchdog that the event loop runs, twice in its time; return at once if there is no watchdog."""
        while self._watchdog_s:
            self.tell("WATCHDOG=1")
            await sleep(self._watchdog_s / 2)


class Passed(NamedTuple):
    """Sockets that were passed to the process, already bound, by their listeners."""

    amqp: Mapping[Listener, socket.socket] = {}
    amqps: Mapping[Listener, socket.socket] = {}
    http: Mapping[Listener, socket.socket] = {}
    metrics: Mapping[Listener, socket.socket] = {}

    @property
    def by_listener(self) -> Mapping[Listener, socket.socket]:
        """Return all of them."""
        return {**self.amqp, **self.amqps, **self.http, **self.metrics}

    def used_in(self, config: Config) -> Config:
        """Return the configuration with these listeners in place of those of the same kind."""
        if self.amqp:
            config = replace(config, listeners=tuple(self.amqp))
        if self.amqps:
            config = replace(config, tls=replace(config.tls, listeners=tuple(self.amqps)))
        if self.http:
            config = replace(config, management=replace(config.management, listeners=tuple(self.http)))
        if self.metrics:
            config = replace(config, management=replace(config.management, metrics_listeners=tuple(self.metrics)))
        return config


def take_passed_sockets(environ: MutableMapping[str, str] = os.environ) -> Passed:
    """Return the sockets that were passed to this process, and forget the variables, which are for nobody else.

    Raises StartError for one that no clients of ours can connect to.
    """
    pid, count, names = [environ.pop(name, "") for name in (FDS_PID, FDS, FD_NAMES)]
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return Passed()
    amqp, amqps, http, metrics = [dict[Listener, socket.socket]() for _ in Passed._fields]
    kinds = {**dict.fromkeys(AMQPS_NAMES, amqps), **dict.fromkeys(HTTP_NAMES, http),
             **dict.fromkeys(METRICS_NAMES, metrics)}
    given = names.split(":")
    for place in range(int(count)):
        name = given[place] if place < len(given) else ""
        one = _socket_of(FIRST_FD + place, name)
        kinds.get(name, amqp)[Listener(describe_address(one.getsockname()[:2]))] = one
    return Passed(amqp, amqps, http, metrics)


def _socket_of(descriptor: int, name: str) -> socket.socket:
    os.set_inheritable(descriptor, False)
    try:
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(
            f"the passed descriptor {descriptor} is not a socket: {error.strerror}", EXIT_CONFIG) from None
    if found.family not in (socket.AF_INET, socket.AF_INET6) or found.type != socket.SOCK_STREAM:
        raise StartError(
            f"the passed socket {descriptor}{f' ({name})' if name else ''} is not one of TCP: let its unit have "
            "ListenStream=PORT or ListenStream=ADDRESS:PORT", EXIT_CONFIG)
    found.setblocking(False)
    return found
