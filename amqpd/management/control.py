"""The control socket in the data directory, over which amqpctl talks to the running broker.

Owns the socket and the shape of the answers. Only the owner of the socket can open it, so there is no login. Requests
and answers are JSON, one object a line; a client may send several requests, one after the other:

    {"command": "purge_queue", "arguments": {"vhost": "/", "queue": "orders"}}
    {"ok": true, "result": null}
    {"ok": false, "error": "Queue not found", "exit_code": 64}

What may be larger than a line follows it: a body after a request with `size`, its number of bytes; and the result after
an answer that has `size` instead of `result`. A command that follows what happens is answered with `"stream": true`,
and then with a record a line, until the client sends anything or closes.

Always true: a change that was answered with "ok" is on disk. There are sixteen clients at most: a new client replaces
the client that has been idle longest. A client that does not read its answer is disconnected after a while.
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
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from amqpd.broker.actor import Actor, acting
from amqpd.exit_codes import EXIT_BUG, EXIT_DATA, EXIT_TEMPORARY, EXIT_USAGE
from amqpd.management.commands import Commands
from amqpd.management.definitions_json.parsing import MOST_BYTES
from amqpd.management.refusal import Refusal
from amqpd.management.streams import Stream

log = logging.getLogger("amqpd.control")

LONGEST_REQUEST = 64 * 1024
MOST_CLIENTS = 16               # descriptors are kept for them, see server/resources.py
MOST_STREAMS = 8                # so that there is room for other commands
ANSWER_LIMIT_S = 30.0           # within which a client has to read its answer
PIECE = 64 * 1024
MOST_SKIPPED = 256              # pieces that are read and discarded of a request that is too long
SECRETS, SECRET = frozenset({"password", "value"}), "***"     # the value of a parameter may have a URI with a password
LONGEST_LOGGED = 200            # characters of an argument
PEER_CREDENTIALS = struct.Struct("3i")


class Request(msgspec.Struct):
    """A command and its arguments by name. `size` is the number of bytes that follow: the argument `body`."""

    command: str
    arguments: dict[str, Any] = {}
    size: int = 0


class Control:
    """Answers requests on the control socket.

    `wait_committed` returns once everything recorded before the call is on disk. `begin` is called before each command:
    it tells the broker the time, and how late the event loop is. A client has `answer_limit_s` to read its answer.
    """

    def __init__(
        self, commands: Commands, wait_committed: Callable[[], Awaitable[None]],
        begin: Callable[[], None] = lambda: None, *, answer_limit_s: float = ANSWER_LIMIT_S,
    ) -> None:
        self._answer_limit_s = answer_limit_s
        self._commands = commands
        self._begin = begin
        self._wait_committed = wait_committed
        self._clients: set[asyncio.StreamWriter] = set()
        self._idle: dict[asyncio.StreamWriter, None] = {}       # clients without an open request, longest idle first
        self._streams: dict[Stream[Any], asyncio.StreamWriter] = {}

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Answer at this path until the block ends, then close all clients and remove the socket.

        A socket without a listener was left by a crash, and is replaced. Raises OSError: EADDRINUSE if a running broker
        answers there, or the error of bind(), for example for a path that is too long for a socket.
        """
        listener = bind_private(path)
        server = await asyncio.start_unix_server(self._talk, sock=listener, limit=LONGEST_REQUEST)
        try:
            yield
        finally:
            server.close()
            for stream, writer in self._streams.items():
                stream.close()
                writer.transport.abort()        # its reader may be slow, and nobody waits for it
            for client in self._clients:
                client.close()
            path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            if not self._make_room():
                self._write(writer, _failure("too many clients are connected to the control socket: try again",
                                             EXIT_TEMPORARY))
                return
            peer = writer.get_extra_info("socket")
            operator, actor = describe_peer(peer), actor_at(peer)
            while line := await self._next_request(reader, writer):
                body = await self._read_body(line, reader, writer)
                if body is None:
                    return
                with acting(actor):
                    answer = await self.answer(line, operator, body)
                if isinstance(answer.get("result"), Stream):
                    await self._stream(answer["result"], reader, writer)
                    return
                await self._send(writer, answer)
        except TimeoutError:
            log.warning("control socket client did not read its answer, or send all of its request, within %g s",
                        self._answer_limit_s)
            writer.transport.abort()
        except ConnectionError:
            log.warning("control socket client disconnected before it was answered")
        except asyncio.CancelledError:
            pass        # the process ends, and asyncio 3.11 would log a traceback for this task
        finally:
            self._clients.discard(writer)
            writer.close()

    def _make_room(self) -> bool:
        """Return whether one more client can be served; if need be, close the client that has been idle longest."""
        if len(self._clients) > MOST_CLIENTS:
            if not self._idle:
                return False
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.close()
        return True

    async def _next_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Return the next line, or b"" at the end of input. A line that is too long is answered; return b""."""
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
        """Discard the rest of a request, so that the sender can read the answer; give up after a time and a size."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._answer_limit_s):
                for _ in range(MOST_SKIPPED):
                    piece = await reader.read(PIECE)
                    if not piece or b"\n" in piece:
                        return

    async def _read_body(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        """Return what follows a request; None if it is too long, which is answered. Raises TimeoutError."""
        try:
            size = msgspec.json.decode(line, type=Request).size
        except msgspec.DecodeError:
            return b""
        if size > MOST_BYTES:
            self._write(writer, _failure(f"a file may have at most {MOST_BYTES >> 20} MiB", EXIT_DATA))
            await self._skip_the_rest(reader)
            return None
        body = bytearray()
        while len(body) < size:
            async with asyncio.timeout(self._answer_limit_s):
                piece = await reader.read(min(PIECE, size - len(body)))
            if not piece:
                raise ConnectionResetError
            body += piece
        return bytes(body)

    async def _send(self, writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
        """Write an answer, and after it the result if that is bytes. Raises TimeoutError if the client does not read.
        """
        result = answer.get("result")
        body = result if isinstance(result, bytes) else b""
        self._write(writer, {"ok": True, "size": len(body)} if isinstance(result, bytes) else answer)
        for start in (*range(0, len(body), PIECE), len(body)):
            writer.write(body[start:start + PIECE])
            async with asyncio.timeout(self._answer_limit_s):
                await writer.drain()

    async def _stream(
        self, stream: Stream[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Write the records of a stream until the client says something or closes, however slowly it reads."""
        if len(self._streams) >= MOST_STREAMS:
            stream.close()
            await self._send(writer, _failure(
                f"{MOST_STREAMS} clients follow what happens already: end one of them, or try later", EXIT_TEMPORARY))
            return
        self._streams[stream] = writer
        end = asyncio.ensure_future(reader.read(1))
        end.add_done_callback(lambda _: stream.close())
        try:
            self._write(writer, {"ok": True, "stream": True})
            async with stream:
                async for record in stream:
                    self._write(writer, record)
                    await writer.drain()
        finally:
            del self._streams[stream]
            end.cancel()

    def _write(self, writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
        writer.write(msgspec.json.encode(answer) + b"\n")

    async def answer(self, request: bytes, operator: str = "an operator", body: bytes = b"") -> dict[str, Any]:
        """Carry out a request and return the answer, once everything it changed is on disk. Never raises.

        `body` is what followed the request. A change by an operator is logged with the operator's name.
        """
        try:
            asked = msgspec.json.decode(request, type=Request)
            result = await self._carry_out(asked, operator, body)
        except msgspec.DecodeError as error:
            return _failure(f"not understood: {error}", EXIT_DATA)
        except Refusal as refusal:
            return _failure(str(refusal), refusal.exit_code)
        except Exception as error:
            log.exception("internal error")
            return _failure(f"internal error: {type(error).__name__}", EXIT_BUG)
        return {"ok": True, "result": result}

    async def _carry_out(self, request: Request, operator: str, body: bytes) -> Any:
        changes = self._commands.changes
        command = (changes.get(request.command) or self._commands.lookups.get(request.command)
                   or self._commands.streams.get(request.command))
        if command is None:
            raise Refusal(f"this amqpd has no command '{request.command}'", EXIT_USAGE)
        arguments = request.arguments
        if request.command in self._commands.with_body:
            arguments = {**arguments, "body": body}
        arguments = _checked(request.command, command, arguments)
        self._begin()
        audit = self._commands.audit
        if request.command == "stop":
            audit.record(request.command, request.arguments)
            log.info("stopping: amqpctl stop, by %s", operator)
        result = command(**arguments)
        if inspect.isawaitable(result):
            result = await result
        is_change = request.command in changes and not arguments.get("dry_run")
        if is_change or request.command in self._commands.acts:
            audit.record(request.command, request.arguments)
            await self._wait_committed()
            log.info("amqpctl %s, by %s", describe_request(request), operator)
        return result


def _checked(name: str, command: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a command, of the types that it declares. Raises Refusal."""
    try:
        inspect.signature(command).bind(**arguments)
    except TypeError as error:
        raise Refusal(f"{name}: {error}", EXIT_USAGE) from None
    kinds = _kinds_of(getattr(command, "__func__", command))
    checked = {}
    for argument, value in arguments.items():
        try:
            checked[argument] = msgspec.convert(value, kinds.get(argument, Any))
        except msgspec.ValidationError as error:
            raise Refusal(f"{name}: {argument}: {error}", EXIT_USAGE) from None
    return checked


@cache
def _kinds_of(command: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(command)


def describe_request(request: Request) -> str:
    """Return a request as an operator types it, with shortened arguments and without passwords."""
    told = [f"{name}={SECRET if name in SECRETS else _shortened(str(value))}"
            for name, value in request.arguments.items() if value is not None]
    return " ".join([request.command, *told])


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_LOGGED else f"{text[:LONGEST_LOGGED]}…"


def describe_peer(connection: Any) -> str:
    """Describe the client of a Unix socket: its user and process where the system tells them (Linux does)."""
    actor = actor_at(connection)
    return f"user {actor.user} ({actor.address})" if actor.address else "the owner of the control socket"


def actor_at(connection: Any) -> Actor:
    """Return who is at the other end of a Unix socket: the user of the system, and the process as the address."""
    if not hasattr(socket, "SO_PEERCRED"):
        return Actor("", "", "control")
    pid, uid, _ = PEER_CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size))
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Actor(name, f"pid {pid}", "control")


def _failure(text: str, exit_code: int) -> dict[str, Any]:
    return {"ok": False, "error": text, "exit_code": exit_code}


def bind_private(path: Path) -> socket.socket:
    """Return a listening socket at this path that only its owner can open. Raises as `Control.listening`."""
    if _answers(path):
        raise OSError(EADDRINUSE, "another amqpd is listening", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)       # before listen(), so that nobody else can have connected
    except BaseException:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.connect(str(path))
        return True
    return False
