"""A proxy between a store and its server, which cuts connections at a chosen octet, or lets nothing through."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards to a port. `cut_after` is how many more octets pass to the server, or None; then all is cut at once.

    With `answers_pass` False, what the server says after that is not passed on: a commit may take place unseen.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.cut_after: int | None = None
        self.cuts_answers = False
        self.refuses = False
        self.passed = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Close all connections."""
        with self._lock:
            found, self._open = self._open, []
        for one in found:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open += [client, server]
            threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
            threading.Thread(target=self._to_client, args=(server, client), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                left = self.cut_after
                if left is not None:
                    if len(data) >= left:
                        server.sendall(data[:left])
                        self.cut_after = None
                        self.cut()
                        return
                    self.cut_after = left - len(data)
                self.passed += len(data)
                server.sendall(data)
        self._end(client, server)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if self.cuts_answers:
                    self.cuts_answers = False
                    self.cut()
                    return
                client.sendall(data)
        self._end(server, client)

    def _end(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
