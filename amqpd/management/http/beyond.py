"""What the routes that RabbitMQ does not have share: they carry out the commands of amqpctl for a user."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from amqpd.broker.worklist import nothing
from amqpd.errors import AmqpException
from amqpd.exit_codes import EXIT_TEMPORARY, EXIT_UNAVAILABLE
from amqpd.management.http.answers import EVENT_STREAM, Answer, HttpError, bad_request
from amqpd.management.http.body import Body
from amqpd.management.http.lists import encode
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query
from amqpd.management.refusal import Refusal
from amqpd.management.streams import Stream

LEAST_HEARTBEAT_S = 0.01
HEARTBEAT_S = 15.0          # without an event, a line is sent, so that nobody in between takes the client for dead
MOST_FOLLOWED_S = 3_600.0   # then the client asks again
RIGHTS_S = 1.0              # at most, between two checks whether the user may still follow
RETRY_MS = 2_000            # after which browsers ask again
LONGEST_NUMBER = 20

FOLLOWING = (
    Query("seconds", f"end after so many seconds, at most and by default {MOST_FOLLOWED_S:g}"),
    Query("heartbeat", f"send a line after so many seconds without an event, {HEARTBEAT_S:g} by default"))

Kind = TypeVar("Kind", bound=msgspec.Struct)


class Value(msgspec.Struct, forbid_unknown_fields=True):
    """Whether something is on."""

    value: bool


async def carry_out(request: Request, command: str, **arguments: Any) -> Any:
    """Return the result of a command of amqpctl. Raises HttpError for one that is refused."""
    commands = request.context.commands
    method = commands.changes.get(command) or commands.lookups.get(command) or commands.streams[command]
    try:
        result = method(**arguments)
        return await result if inspect.isawaitable(result) else result
    except Refusal as refusal:
        raise error_of(refusal) from None


def error_of(refusal: Refusal) -> HttpError:
    """Return the error for a command that is refused."""
    if refusal.exit_code == EXIT_UNAVAILABLE:
        return HttpError(404, "not_found", str(refusal))
    if refusal.exit_code == EXIT_TEMPORARY:
        return HttpError(503, "unavailable", str(refusal))
    return bad_request(str(refusal))


def body_as(request: Request, kind: type[Kind]) -> Kind:
    """Return the body of a request. Raises HttpError: 400, also for keys that are not known."""
    try:
        return msgspec.convert(Body(request).values, kind)
    except msgspec.ValidationError as error:
        raise bad_request(f"the body: {error}") from None


def whole(request: Request, name: str, default: int) -> int:
    """Return a whole number of the query. Raises HttpError: 400."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.removeprefix("-").isdecimal() and len(text) <= LONGEST_NUMBER):
        raise bad_request(f"{name}: a whole number, not {text[:80]}")
    return int(text)


def fraction(request: Request, name: str, default: float) -> float:
    """Return a number of the query. Raises HttpError: 400."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise bad_request(f"{name}: a number, not {text[:80]}")
    return found


def followed(request: Request, stream: Stream[Any], check: Callable[[], object] = nothing) -> Answer:
    """Return the records of a stream as server-sent events, until the client goes or may not follow any more.

    `check` raises HttpError or AmqpException once the user has no right to what is followed.
    """
    if request.method == "HEAD":
        stream.close()
        return Answer(media_type=EVENT_STREAM)
    try:
        seconds = min(max(0.0, fraction(request, "seconds", MOST_FOLLOWED_S)), MOST_FOLLOWED_S)
        heartbeat_s = min(max(LEAST_HEARTBEAT_S, fraction(request, "heartbeat", HEARTBEAT_S)), MOST_FOLLOWED_S)
    except HttpError:
        stream.close()
        raise
    events = _events(stream, seconds, heartbeat_s, partial(_may_go_on, request, check))
    return Answer(media_type=EVENT_STREAM, stream=events, on_end=stream.close)


def _may_go_on(request: Request, check: Callable[[], object]) -> bool:
    """Return whether the user may still follow: the user exists, and has the rights of the route and to the messages.
    """
    try:
        request.authorize()
        check()
    except (HttpError, AmqpException):
        return False
    return True


async def _events(
    stream: Stream[Any], seconds: float, heartbeat_s: float, may_go_on: Callable[[], bool]
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    now, check_s = loop.time(), min(RIGHTS_S, heartbeat_s)
    end, next_check, next_heartbeat = now + seconds, now + check_s, now + heartbeat_s
    following: asyncio.Future[Any] | None = None
    try:
        yield b"retry: %d\n\n" % RETRY_MS
        while (now := loop.time()) < end:
            if now >= next_check:
                if not may_go_on():
                    return
                next_check = now + check_s
            following = following or asyncio.ensure_future(anext(stream))
            done, _ = await asyncio.wait({following}, timeout=max(0.0, min(next_check, next_heartbeat) - now))
            if not done:
                if loop.time() >= next_heartbeat:
                    yield b":\n\n"
                    next_heartbeat = loop.time() + heartbeat_s
                continue
            try:
                record = following.result()
            except StopAsyncIteration:
                return
            following = None
            next_heartbeat = loop.time() + heartbeat_s
            yield b"data: " + encode(record) + b"\n\n"
    finally:
        stream.close()
        if following is not None:
            following.cancel()
