"""Accept clients at listening sockets: a few in a turn, and only while there is room for more.

Owns the sockets that it is given. Without room, and when the system has no descriptor left, accepting pauses; new
clients wait in the kernel's backlog meanwhile, and are not refused.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

from amqpd.server.sparing_log import SparingLog

log = logging.getLogger("amqpd.connection")

BACKLOG = 4_096
ACCEPTED_IN_A_TURN = 100        # this takes 1 ms, or 5 if they have gone; `server/listener.py` serves a few of them
PAUSE_S = 0.1


class Acceptor:
    """Accepts clients; `on_client` gets the socket and the address of each.

    `has_room` tells whether one more client can be accepted; `make_room` tries to make room when a client waits.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, has_room: Callable[[], bool], make_room: Callable[[], bool],
        on_client: Callable[[socket.socket, Any], None],
    ) -> None:
        self._loop = loop
        self._has_room = has_room
        self._make_room = make_room
        self._on_client = on_client
        self._listeners: list[socket.socket] = []
        self._pause: asyncio.TimerHandle | None = None
        self._sparing_log = SparingLog(log)

    def listen(self, sockets: Iterable[socket.socket]) -> None:
        """Accept clients at these bound sockets. Raises OSError; then none of them is used."""
        sockets = list(sockets)
        for bound in sockets:
            bound.listen(BACKLOG)
        self._listeners += sockets
        if self._pause is None:
            self._resume()

    def stop(self) -> None:
        """Stop accepting clients."""
        if self._pause is not None:
            self._pause.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket) -> None:
        """Accept some of the waiting clients; for the others the event loop calls again in its next turn."""
        if not self._make_room():
            self._wait()
            return
        for _ in range(ACCEPTED_IN_A_TURN):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._sparing_log.warning(
                    "cannot accept clients for now: %s", error.strerror or type(error).__name__)
                self._wait()
                return
            connection.setblocking(False)
            self._on_client(connection, peer)
            if not self._has_room():
                return

    def _wait(self) -> None:
        if self._pause is not None:
            return
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        self._pause = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
