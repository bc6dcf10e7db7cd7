"""A broker with its management API for a module of tests, in a thread of its own, and a client for it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from amqpd.config import Config, Limits, Listener, Management
from amqpd.server.runtime import Runtime

FREE = Listener("127.0.0.1:0")
GUEST = ("guest", "guest")


class Reply(NamedTuple):
    """The answer to a request; `body` is decoded if it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any


def basic(user: tuple[str, str]) -> str:
    """Return the header `Authorization` for a user and a password."""
    return "Basic " + base64.b64encode(":".join(user).encode()).decode()


class Api:
    """Asks the management API as one user at a time; paths begin behind `/api`."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        self.runtime = runtime
        self.loop = loop
        self.port = runtime.http_addresses[0][1]
        self.amqp_port = runtime.addresses[0][1]

    def ask(
        self, method: str, path: str, body: Any = None, *, user: tuple[str, str] | None = GUEST,
        headers: Mapping[str, str | None] | None = None, prefix: str = "/api",
    ) -> Reply:
        """Send one request on a connection of its own; a header that is None is left out."""
        sent = dict(headers or {})
        if user is not None:
            sent.setdefault("Authorization", basic(user))
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(client):
            client.request(method, prefix + path, data, {
                name: value for name, value in sent.items() if value is not None})
            answer = client.getresponse()
            content = answer.read()
        kind = answer.headers.get("content-type", "")
        return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()},
                     json.loads(content) if content and kind.startswith("application/json") else content)

    def get(self, path: str, **named: Any) -> Any:
        """Return the body of an answer with status 200."""
        reply = self.ask("GET", path, **named)
        assert reply.status == 200, reply
        return reply.body

    def put(self, path: str, body: Any = None, **named: Any) -> int:
        """Return the status of a PUT."""
        return self.ask("PUT", path, {} if body is None else body, **named).status

    def delete(self, path: str, **named: Any) -> int:
        """Return the status of a DELETE."""
        return self.ask("DELETE", path, **named).status


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Api]:
    """Run a broker in memory, with free ports, until the block ends."""
    config = Config(listeners=(FREE,), limits=Limits(login_failure_delay_s=0.0),
                    **{"memory": True, "management": Management(listeners=(FREE,)), **settings})
    started: Future[Api] = Future()

    async def run() -> None:
        try:
            async with Runtime(config) as runtime:
                started.set_result(Api(runtime, asyncio.get_running_loop()))
                await runtime.wait_until_stopping()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    api = started.result(20)
    try:
        yield api
    finally:
        api.loop.call_soon_threadsafe(api.runtime.stop)
        thread.join(20)
