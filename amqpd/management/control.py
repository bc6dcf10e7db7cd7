"""The control socket in the data directory, over which amqpctl talks to the running broker.

Owns the socket, and the answers' shape. Only the socket's owner can open it, so nobody logs in. Requests and answers
are JSON, an object a line; a client may send one after the other:

    {"command": "purge_queue", "arguments": {"vhost": "/", "queue": "orders"}}
    {"ok": true, "result": null}
    {"ok": false, "error": "Queue not found", "exit_code": 64}

Always true: a change that was answered with "ok" is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from errno import EADDRINUSE
from pathlib import Path
from typing import Any

import msgspec

from amqpd.management.commands import EXIT_DATA, EXIT_USAGE, Commands, Refusal

log = logging.getLogger("amqpd.control")

SOCKET_NAME = "control.sock"
EXIT_BUG = 70
LONGEST_REQUEST = 64 * 1024


class Request(msgspec.Struct):
    """A command, and what it is given by name."""

    command: str
    arguments: dict[str, Any] = {}


class Control:
    """Answers requests. `wait_committed` returns once all that was recorded before its call is on disk.

    `begin` is called before a command is carried out: the broker is told how late it is.
    """

    def __init__(
        self, commands: Commands, wait_committed: Callable[[], Awaitable[None]],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._commands = commands
        self._begin = begin
        self._wait_committed = wait_committed
        self._talks: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Answer at this path until the block ends, then end all talks and leave nothing there.

        A socket that nobody answers at is what a crash has left, and is replaced. Raises OSError: EADDRINUSE where
        a running broker answers, or what binding says, as for a path longer than sockets' may be.
        """
        listener = bind_private(path)
        server = await asyncio.start_unix_server(self._talk, sock=listener, limit=LONGEST_REQUEST)
        try:
            yield
        finally:
            server.close()
            for talk in self._talks:
                talk.close()
            path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks.add(writer)
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self.answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            log.warning("a talk on the control socket was broken off")
        except asyncio.CancelledError:
            pass        # the process ends, and asyncio 3.11 would log a traceback for this task
        finally:
            self._talks.discard(writer)
            writer.close()

    async def answer(self, request: bytes) -> dict[str, Any]:
        """What a request is answered with, once all that it changed is on disk. Never raises."""
        try:
            asked = msgspec.json.decode(request, type=Request)
            result = await self._carry_out(asked)
        except msgspec.DecodeError as error:
            return {"ok": False, "error": f"not understood: {error}", "exit_code": EXIT_DATA}
        except Refusal as refusal:
            return {"ok": False, "error": str(refusal), "exit_code": refusal.exit_code}
        except Exception as error:
            log.exception("internal error")
            return {"ok": False, "error": f"internal error: {type(error).__name__}", "exit_code": EXIT_BUG}
        return {"ok": True, "result": result}

    async def _carry_out(self, request: Request) -> Any:
        changes = self._commands.changes
        command = changes.get(request.command) or self._commands.lookups.get(request.command)
        if command is None:
            raise Refusal(f"this amqpd has no command '{request.command}'", EXIT_USAGE)
        try:
            inspect.signature(command).bind(**request.arguments)
        except TypeError as error:
            raise Refusal(f"{request.command}: {error}", EXIT_USAGE) from None
        self._begin()
        result = command(**request.arguments)
        if inspect.isawaitable(result):
            result = await result
        if request.command in changes:
            await self._wait_committed()
        return result


def bind_private(path: Path) -> socket.socket:
    """A socket at this path that only its owner can open; see `Control.listening` for the errors."""
    if _answers(path):
        raise OSError(EADDRINUSE, "another amqpd answers", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)       # before anybody listens, so nobody can have come in
    except BaseException:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.connect(str(path))
        return True
    return False
