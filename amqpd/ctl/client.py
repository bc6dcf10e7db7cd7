"""The client of the control socket: it sends one JSON object a line, and reads the answer.

    {"command": "purge_queue", "arguments": {"vhost": "/", "queue": "orders"}}
    {"ok": true, "result": null}
    {"ok": false, "error": "Queue not found", "exit_code": 64}

Every error is a `Failure` that says what to do. RabbitMQ docs/cli for the exit codes.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

from amqpd.exit_codes import EXIT_TEMPORARY, EXIT_UNAVAILABLE
from amqpd.program import Failure

PIECE = 1 << 16
LOOK_S = 0.2


def ask(
    path: Path, command: str, arguments: dict[str, Any], *, timeout_s: float, until_gone: bool = False,
    meanwhile: Callable[[], None] | None = None, look_s: float = LOOK_S, body: bytes = b"",
) -> Any:
    """Send one request and return the result; with `until_gone`, wait until the broker has ended.

    `body` follows the request. A result that follows its answer is returned as bytes. Each wait takes at most
    `timeout_s`. With `meanwhile`, which is called every `look_s` seconds, the wait for the answer has no limit. Raises
    Failure: the refusal that was answered, 69 if no broker answers, 75 on a timeout.
    """
    size = {"size": len(body)} if body else {}
    with _sent(path, {"command": command, "arguments": arguments, **size}, body, timeout_s) as connection:
        while meanwhile is not None and not select([connection], [], [], look_s)[0]:
            meanwhile()
        answer, following = _read_answer(connection)
        if until_gone and answer:
            _read_answer(connection)
    _check(path, answer)
    return following if "size" in answer else answer["result"]


def follow(path: Path, command: str, arguments: dict[str, Any], *, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Send a request that is answered with a stream, and yield its records as they come.

    The first answer is waited for at most `timeout_s`, records without limit. Ends with the broker. Raises Failure as
    `ask` does.
    """
    with (_sent(path, {"command": command, "arguments": arguments}, b"", timeout_s) as connection,
          connection.makefile("rb") as lines):
        _check(path, json.loads(lines.readline() or b"{}"))
        connection.settimeout(None)
        for line in lines:
            yield json.loads(line)


@contextmanager
def _sent(path: Path, request: dict[str, Any], body: bytes, timeout_s: float) -> Iterator[socket.socket]:
    """Send a request and yield the connection. Raises Failure in place of an OSError, also of one in the block."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n" + body)
            yield connection
    except TimeoutError:
        raise Failure(f"no answer within {timeout_s:g} s from {path}", EXIT_TEMPORARY) from None
    except OSError as error:
        raise Failure(_remedy(path, error), EXIT_UNAVAILABLE) from None


def _check(path: Path, answer: dict[str, Any]) -> None:
    """Check the first line of an answer, which is {} if there was none. Raises Failure."""
    if not answer:
        raise Failure(f"amqpd ended before it answered at {path}", EXIT_UNAVAILABLE)
    if not answer["ok"]:
        raise Failure(answer["error"], answer["exit_code"])


def _read_answer(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Return the answer and what follows it; {} where the connection ends before it has all of both."""
    received = bytearray()
    while b"\n" not in received[-PIECE:] and (piece := connection.recv(PIECE)):
        received += piece
    line, end, rest = received.partition(b"\n")
    answer: dict[str, Any] = json.loads(line) if end else {}
    following = bytearray(rest)
    while len(following) < answer.get("size", 0):
        piece = connection.recv(PIECE)
        if not piece:
            return {}, b""
        following += piece
    return answer, bytes(following)


def _remedy(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return f"no amqpd is running at {path}; start it, or name its data directory with --data-dir"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} belongs to another user; run amqpctl as the user that runs amqpd"
    return f"cannot reach amqpd at {path}: {error.strerror or error}"
