"""The control socket in the data directory, over which amqpctl talks to the running broker.

Owns the socket, and the answers' shape. Only the socket's owner can open it, so nobody logs in. Requests and answers
are JSON, an object a line; a client may send one after the other:

    {"command": "purge_queue", "arguments": {"vhost": "/", "queue": "orders"}}
    {"ok": true, "result": null}
    {"ok": false, "error": "Queue not found", "exit_code": 64}

Always true: a change that was answered with "ok" is on disk. There are sixteen clients at most: who has been idle for
longest goes for a newcomer, and one that does not read its answer goes after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from errno import EADDRINUSE
from pathlib import Path
from typing import Any

import msgspec

from amqpd.exit_codes import EXIT_BUG, EXIT_DATA, EXIT_TEMPORARY, EXIT_USAGE
from amqpd.management.commands import Commands
from amqpd.management.refusal import Refusal

log = logging.getLogger("amqpd.control")

LONGEST_REQUEST = 64 * 1024
MOST_CLIENTS = 16               # descriptors are kept for them, see server/resources.py
ANSWER_LIMIT_S = 30.0           # for an answer to be read
PIECE = 64 * 1024
MOST_SKIPPED = 256              # pieces of a request that is too long
SECRETS, SECRET = frozenset({"password"}), "***"
LONGEST_LOGGED = 200            # characters of an argument
PEER_CREDENTIALS = struct.Struct("3i")


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
        self._clients: set[asyncio.StreamWriter] = set()
        self._idle: dict[asyncio.StreamWriter, None] = {}       # those that have not asked anything, longest first

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
            for client in self._clients:
                client.close()
            path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            if not self._make_room():
                self._write(writer, _failure("too many are connected to the control socket: try again",
                                             EXIT_TEMPORARY))
                return
            operator = describe_peer(writer.get_extra_info("socket"))
            while line := await self._next_request(reader, writer):
                self._write(writer, await self.answer(line, operator))
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    await writer.drain()
        except TimeoutError:
            log.warning("a client of the control socket did not read its answer within %g s", ANSWER_LIMIT_S)
            writer.transport.abort()
        except ConnectionError:
            log.warning("a client of the control socket has gone before it had its answer")
        except asyncio.CancelledError:
            pass        # the process ends, and asyncio 3.11 would log a traceback for this task
        finally:
            self._clients.discard(writer)
            writer.close()

    def _make_room(self) -> bool:
        """Return whether there is a place for one more; whoever has been idle for longest makes room for it."""
        if len(self._clients) > MOST_CLIENTS:
            if not self._idle:
                return False
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.close()
        return True

    async def _next_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Return the next line, or nothing if there is none, or if it is too long: that is answered."""
        self._idle[writer] = None
        try:
            return await reader.readline()
        except ValueError:
            self._write(writer, _failure(f"a request may have at most {LONGEST_REQUEST} bytes", EXIT_DATA))
            await self._skip_the_rest(reader)
            return b""
        finally:
            self._idle.pop(writer, None)

    async def _skip_the_rest(self, reader: asyncio.StreamReader) -> None:
        """Read what is still sent of a request, or its sender would not hear the answer; but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_LIMIT_S):
                for _ in range(MOST_SKIPPED):
                    piece = await reader.read(PIECE)
                    if not piece or b"\n" in piece:
                        return

    def _write(self, writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
        writer.write(msgspec.json.encode(answer) + b"\n")

    async def answer(self, request: bytes, operator: str = "an operator") -> dict[str, Any]:
        """Carry out a request and return the answer, once all that it changed is on disk. Never raises.

        What an operator has changed is logged with their name.
        """
        try:
            asked = msgspec.json.decode(request, type=Request)
            result = await self._carry_out(asked, operator)
        except msgspec.DecodeError as error:
            return _failure(f"not understood: {error}", EXIT_DATA)
        except Refusal as refusal:
            return _failure(str(refusal), refusal.exit_code)
        except Exception as error:
            log.exception("internal error")
            return _failure(f"internal error: {type(error).__name__}", EXIT_BUG)
        return {"ok": True, "result": result}

    async def _carry_out(self, request: Request, operator: str) -> Any:
        changes = self._commands.changes
        command = changes.get(request.command) or self._commands.lookups.get(request.command)
        if command is None:
            raise Refusal(f"this amqpd has no command '{request.command}'", EXIT_USAGE)
        try:
            inspect.signature(command).bind(**request.arguments)
        except TypeError as error:
            raise Refusal(f"{request.command}: {error}", EXIT_USAGE) from None
        self._begin()
        if request.command == "stop":
            log.info("stopping: amqpctl stop, by %s", operator)
        result = command(**request.arguments)
        if inspect.isawaitable(result):
            result = await result
        if request.command in changes:
            await self._wait_committed()
        if request.command in changes or request.command in self._commands.acts:
            log.info("amqpctl %s, by %s", describe_request(request), operator)
        return result


def describe_request(request: Request) -> str:
    """Return a request as it is typed, without passwords, and each argument shortened."""
    told = [f"{name}={SECRET if name in SECRETS else _shortened(str(value))}"
            for name, value in request.arguments.items()]
    return " ".join([request.command, *told])


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_LOGGED else f"{text[:LONGEST_LOGGED]}…"


def describe_peer(connection: Any) -> str:
    """Return who is at the other end of a Unix socket: user and process where the system tells (Linux does)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return "the owner of the control socket"
    pid, uid, _ = PEER_CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size))
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return f"user {name} (pid {pid})"


def _failure(text: str, exit_code: int) -> dict[str, Any]:
    return {"ok": False, "error": text, "exit_code": exit_code}


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
