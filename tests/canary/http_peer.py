"""The attacker's client of the management API, and an honest one beside it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.canary.shape import World

ANSWER_S = 3.0          # to an honest request beside an attack; the bound is for a busy machine
PAUSE_S = 0.1           # between two honest requests


def authorization(user: str, password: str) -> str:
    """The header with a login."""
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def connected(world: World) -> socket.socket:
    """Connect TCP to the management API alone."""
    assert world.http_port, "the port of the management API is not known"
    return socket.create_connection((world.address.host, world.http_port), timeout=30)


def head(world: World, method: str, path: str, *headers: str, login: bool = True) -> bytes:
    """A request up to its body."""
    logins = (authorization(world.address.user, world.address.password), ) if login else ()
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *logins, *headers, "", "")).encode()


def asked(world: World, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Send one request on a connection of its own; return the status and the body."""
    data = b"" if body is None else json.dumps(body).encode()
    kind = ("Content-Type: application/json", f"Content-Length: {len(data)}") if data else ()
    with connected(world) as client:
        client.sendall(head(world, method, path, *kind) + data)
        return answer_of(client)


def answer_of(client: socket.socket) -> tuple[int, bytes]:
    """Read one answer. Raises OSError, http.client.HTTPException: the connection was closed instead."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status, answer.read()


@contextlib.contextmanager
def honest_requests(world: World) -> Iterator[None]:
    """Ask the API over and over, beside the attack, each time on a new connection; fail if an answer takes too long.

    A connection that is refused because there are too many clients is tried again, as programs do, in the same time.
    """
    took, lost = list[float](), [0]
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(PAUSE_S):
            begun = time.monotonic()
            while time.monotonic() < begun + 2 * ANSWER_S:
                try:
                    status, _ = asked(world, "GET", "/api/whoami")
                except (OSError, http.client.HTTPException):
                    lost[0] += 1
                    time.sleep(PAUSE_S)
                    continue
                assert status == 200, status
                break
            took.append(time.monotonic() - begun)

    honest = threading.Thread(target=ask)
    honest.start()
    try:
        yield
    finally:
        is_over.set()
        honest.join()
    assert took, "nobody was answered"
    world.note(f"{len(took)} honest requests, the slowest {max(took):.2f} s, {lost[0]} connections lost")
    assert max(took) < ANSWER_S, f"an honest request took {max(took):.1f} s"
