"""The addresses that clients connect to: bind them before anything is created, and describe why that fails.

A bound socket does not accept clients yet. It reserves the address, so that a start without the address fails before
there is a data directory, and it costs nothing if the start fails later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EPERM
from typing import Any

FIRST_UNPRIVILEGED_PORT = 1024
LISTEN_OPTION, TLS_LISTEN_OPTION = "--listen HOST:PORT", "--tls-listen HOST:PORT"
CLUSTER_OPTION = "--cluster-listen HOST:PORT"
MANAGEMENT_OPTION, METRICS_OPTION = "--management HOST:PORT", "--metrics HOST:PORT"


async def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of this host; port 0 takes a free port. Raises OSError; then none is open."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as opened:
        sockets = [
            _bind(opened.enter_context(socket.socket(family, kind, protocol)), address)
            for family, kind, protocol, _, address in dict.fromkeys(found)]
        opened.pop_all()
    return sockets


def unresolved(host: str, port: int) -> OSError | None:
    """Return why a host cannot be resolved, or None."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error
    return None


def _bind(unbound: socket.socket, address: Any) -> socket.socket:
    unbound.setblocking(False)
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if unbound.family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    unbound.bind(address)
    return unbound


def describe_address(address: tuple[str, int]) -> str:
    """Return an address as it is written in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe_failure(listener: str, port: int, error: OSError, option: str = LISTEN_OPTION) -> str:
    """Return one line about an address that cannot be bound: the address, the reason, and the remedy."""
    if isinstance(error, socket.gaierror):
        return (f"cannot listen on {listener}: {error.strerror}; use a host name that can be resolved, or an "
                "IP address of this machine")
    reason = os.strerror(error.errno or 0)
    if error.errno == EADDRINUSE:
        remedy = f"stop the program that uses it, or choose another address with {option}"
    elif error.errno in (EACCES, EPERM) and port < FIRST_UNPRIVILEGED_PORT:
        remedy = (f"ports below {FIRST_UNPRIVILEGED_PORT} need privileges: choose a higher port with {option}, "
                  "or grant the right (on Linux: CAP_NET_BIND_SERVICE)")
    elif error.errno == EADDRNOTAVAIL:
        remedy = (f"this machine has no such address: use one that it has, or 0.0.0.0 for all, with {option}")
    else:
        remedy = f"choose another address with {option}"
    return f"cannot listen on {listener}: {reason}; {remedy}"
