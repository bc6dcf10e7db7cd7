"""The routes about the API and its user, and the one for amqpctl."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from amqpd.broker.passwords import hash_known_password
from amqpd.identity import RABBITMQ_VERSION
from amqpd.management.http.access import Access
from amqpd.management.http.answers import REALM, Answer, bad_request
from amqpd.management.http.body import Body
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.http.sessions import set_cookie, token_of
from amqpd.management.streams import Stream


MOST_FIELDS = 10
MOST_COMMAND, MOST_FORM = 16 << 20, 16 << 10


class Command(msgspec.Struct):
    """A command of amqpctl and its arguments by name; what follows it on the control socket is `body`, in base64."""

    command: str
    arguments: dict[str, Any] = {}
    body: str = ""


def whoami(request: Request) -> Any:
    """Return the name and the tags of the user who asks."""
    definition = request.user.definition
    return {"name": definition.name, "tags": list(definition.tags)}


def version(request: Request) -> Any:
    """Return the version of RabbitMQ whose behaviour the broker has."""
    return RABBITMQ_VERSION


async def log_in(request: Request) -> Any:
    """Begin a session with the user and the password of a form; the answer sets its cookie."""
    form = dict(parse_qsl(request.body.decode(errors="replace"), max_num_fields=MOST_FIELDS))
    given = form.get("username", ""), form.get("password", "")
    user = await request.context.login(*given, request.address, request.is_tls)
    if user is None:
        return Answer(401, {"error": "not_authorized", "reason": "Login failed"}, {"www-authenticate": REALM})
    token = request.context.sessions.begin(user)
    return Answer(body="ok", headers={"set-cookie": set_cookie(token, is_tls=request.is_tls)})


def log_out(request: Request) -> Answer:
    """End the session of the cookie, if there is one."""
    token = token_of(request.headers.get("cookie", ""), is_tls=request.is_tls)
    if token is not None:
        request.context.sessions.end(token)
    return Answer(204, headers={"set-cookie": set_cookie("", is_tls=request.is_tls)})


async def hash_password(request: Request) -> Any:
    """Return a password as a hash that can be set for a user."""
    stored = await asyncio.to_thread(hash_known_password, request.names["password"])
    return {"ok": stored[0]}


def document(request: Request) -> Any:
    """Send a browser to the description of the routes."""
    return Answer(301, headers={"location": f"{request.context.path_prefix.rstrip('/')}/api/openapi.json"})


def extensions(request: Request) -> Any:
    """Return the extensions of RabbitMQ's page; there are none."""
    return []


async def run_command(request: Request) -> Any:
    """Carry out a command of amqpctl, and answer as on the control socket; a result of bytes is base64 in `body`."""
    asked = Body(request)
    asked.require("command")
    try:
        body = base64.b64decode(asked.text("body"), validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("body is not base64") from None
    operator = f"user {request.user.name} (management API, {request.address})"
    line = msgspec.json.encode({"command": asked.text("command"), "arguments": asked.values.get("arguments", {})})
    answer = await request.context.command(line, operator, body)
    result = answer.get("result")
    if isinstance(result, Stream):
        return Answer(stream=_lines(result), on_end=result.close)
    if isinstance(result, bytes):
        return {"ok": True, "body": base64.b64encode(result).decode()}
    return answer


async def _lines(stream: Stream[Any]) -> AsyncIterator[bytes]:
    """Yield the answer and the records of a stream, one a line, as on the control socket."""
    async with stream:
        yield b'{"ok":true,"stream":true}\n'
        async for record in stream:
            yield msgspec.json.encode(record) + b"\n"


ROUTES = [
    Route(method="GET", path="/api", handler=document, access=Access.ANYONE,
          summary="Where the description of the routes is"),
    Route(method="GET", path="/api/whoami", handler=whoami, access=Access.LOGIN,
          summary="The user who asks, and the user's tags"),
    Route(method="GET", path="/api/version", handler=version, access=Access.LOGIN,
          summary="The version of RabbitMQ whose behaviour the broker has"),
    Route(method="GET", path="/api/extensions", handler=extensions, access=Access.LOGIN,
          summary="RabbitMQ's extensions of the page: none"),
    Route(method="POST", path="/api/login", handler=log_in, access=Access.ANYONE, takes_forms=True,
          is_audited=False, most_body=MOST_FORM,
          summary="Begin a session with a user and a password; the answer sets its cookie"),
    Route(method="POST", path="/api/logout", handler=log_out, access=Access.ANYONE, summary="End the session"),
    Route(method="GET", path="/api/auth/hash_password/{password}", handler=hash_password, access=Access.ADMINISTRATOR,
          summary="A password as a hash"),
    Route(method="POST", path="/api/amqpctl", handler=run_command, access=Access.ADMINISTRATOR, body=Command,
          is_audited=False, most_body=MOST_COMMAND, summary="Carry out a command of amqpctl"),
]
