"""One request from its arrival to its answer: login, rights, the handler, and what every answer has.

The web page is served here too: its routes ask the routes of the API inside the process, as their user (`Request.ask`).

Always true: a request that has no route is answered like any other; no answer tells what went wrong inside; a request
that another site's page has caused in a browser changes nothing; a page shows and does only what the API would show its
user and do for them.

RabbitMQ docs/management; OWASP cheat sheets on cross-site request forgery and security headers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from amqpd.broker.access import User
from amqpd.broker.actor import Actor, acting
from amqpd.errors import ChannelException, ConnectionException
from amqpd.management.http.access import Access, check_access
from amqpd.management.http.answers import (
    EVENT_STREAM,
    JSON,
    REALM,
    Answer,
    HttpError,
    bad_request,
    not_authorised,
    not_found,
    not_logged_in,
)
from amqpd.management.http.body import Body
from amqpd.management.http.context import Context
from amqpd.management.http.lists import encode, pick
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Match, Route, Routes
from amqpd.management.http.sessions import token_of
from amqpd.management.refusal import Refusal

log = logging.getLogger("amqpd.http")

MOST_PARAMETERS = 100
LONGEST_LENGTH = 18             # digits of a Content-Length
AT_ONCE = 256 * 1024            # bytes of an answer that are written in one turn
OF_BROWSERS = ("origin", "sec-fetch-site", "sec-fetch-mode", "cookie", "referer")       # headers
METHODS = ("HEAD", "GET", "PUT", "POST", "DELETE", "OPTIONS")
ACCEPTED = frozenset({"*/*", "application/*", JSON, "application/bert"})
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "accept, accept-encoding, origin",
}
STRICT_TRANSPORT = "max-age=31536000"


class Page(Protocol):
    """The web page: its routes, and what its answers have that those of the API have not; see management/page."""

    routes: Routes
    headers: Mapping[str, str]

    def answer(self, asked: Request, result: Any) -> Awaitable[Answer]:
        """Return the answer with what a handler returned."""

    def refused(self, asked: Request, error: HttpError) -> Awaitable[Answer]:
        """Return the answer to a request that is refused, for a reader."""


class Application:
    """The ASGI application of the management API, and of the web page if there is one."""

    def __init__(self, context: Context, routes: Routes, page: Page | None = None) -> None:
        self._context = context
        self._routes = routes
        self._page = page
        self._prefix = context.path_prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. ASGI: HTTP connection scope."""
        request = HttpRequest(scope, receive)
        try:
            answer = await self._answer(request)
        except ClientDisconnect:
            return
        requests = self._context.requests
        requests[answer.status] = requests.get(answer.status, 0) + 1
        try:
            await self._response(answer, scope)(scope, receive, send)
        finally:
            if answer.on_end is not None:
                answer.on_end()

    async def _answer(self, request: HttpRequest) -> Answer:
        try:
            return await self._route(request)
        except HttpError as error:
            return error.answer()
        except ClientDisconnect:
            raise
        except (ChannelException, ConnectionException) as error:
            return refused_by_broker(error).answer()
        except Refusal as refusal:
            return bad_request(str(refusal)).answer()
        except Exception:
            log.exception("internal error: %s %s", request.method, request.url.path)
            return Answer(500, {"error": "internal_server_error", "reason": "an error inside; the log has it"})

    async def _route(self, request: HttpRequest) -> Answer:
        if "content-length" in request.headers and "transfer-encoding" in request.headers:
            raise bad_request("a request has either Content-Length or Transfer-Encoding, not both")
        path = request.scope["raw_path"].decode("latin-1")
        if not path.startswith(self._prefix):
            raise not_found()
        path = path.removeprefix(self._prefix)
        match = self._routes.find(path)
        if match is None and self._page is not None and not path.startswith("/api/"):
            return await self._show(request, self._page, path)
        if match is None:
            raise not_found()
        route = _route_of(match, request.method)
        return route if isinstance(route, Answer) else await self._handle(request, match, route, path)

    async def _handle(self, request: HttpRequest, match: Match, route: Route, path: str) -> Answer:
        taken = ACCEPTED | {EVENT_STREAM} if route.is_stream else ACCEPTED
        if not route.is_text and not accepts(request.headers.get("accept", ""), taken):
            return Answer(406)
        user = None
        if route.access is not Access.ANYONE:
            try:
                user = await self._log_in(request)
            except UnreadableLogin:
                return Answer(400)
            if user is None:
                return Answer(401, None if "authorization" not in request.headers else {
                    "error": "not_authorized", "reason": "Login failed"}, {"www-authenticate": REALM})
        asked = await self._admit(request, match, route, user)
        result = await self._carry_out(asked, route, path)
        if isinstance(result, Answer):
            return result
        return Answer(body=pick(result, asked.query.get("columns")) if isinstance(result, dict) else result)

    async def _show(self, request: HttpRequest, page: Page, path: str) -> Answer:
        """Return a page of the web page. Whoever has not logged in, or may not see it, is told so by a page too."""
        asked, match = self._asked(request, {}, None), page.routes.find(path)
        try:
            if match is None:
                with contextlib.suppress(UnreadableLogin):
                    asked.login = await self._log_in(request)
                raise not_found()
            route = _route_of(match, request.method)
            if isinstance(route, Answer):
                return route
            if route.access is not Access.ANYONE:
                with contextlib.suppress(UnreadableLogin):
                    asked.login = await self._log_in(request)
                if asked.login is None:
                    raise not_logged_in()
            asked = await self._admit(request, match, route, asked.login)
            asked.ask = partial(self._ask, asked)
            answer = await page.answer(asked, await self._carry_out(asked, route, path))
        except (ChannelException, ConnectionException) as error:
            answer = await page.refused(asked, refused_by_broker(error))
        except Refusal as refusal:
            answer = await page.refused(asked, bad_request(str(refusal)))
        except HttpError as error:
            answer = await page.refused(asked, error)
        answer.headers = {**page.headers, **answer.headers}
        return answer

    async def _ask(
        self, asker: Request, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return what a route of the API answers to the user of a page, decoded. Raises HttpError, and as its handler.

        `headers` are sent besides those that the page was asked for with.
        """
        match = self._routes.find(path)
        assert match is not None and method in match.routes, f"{method} {path}"
        route, given = match.routes[method], dict(query or {})
        authorize = partial(self._authorize, asker.login, route, match.names.get("vhost"))
        authorize()
        asked = Request(
            context=self._context, method=method, names=match.names, query=given, pairs=list(given.items()),
            headers={**asker.headers, **(headers or {})}, body=b"" if body is None else encode(body), login=asker.login,
            address=asker.address, base_url=asker.base_url, authorize=authorize, is_of_page=True)
        result = await self._carry_out(asked, route, path)
        if not isinstance(result, Answer):
            return pick(result, given.get("columns")) if isinstance(result, dict) else result
        return await _decoded(result)

    def _asked(self, request: HttpRequest, names: Mapping[str, str], user: User | None) -> Request:
        return Request(
            context=self._context, method=request.method, names=names, **_query(request),
            headers=dict(request.headers), login=user, address=request.client.host if request.client else "",
            base_url=f"{request.url.scheme}://{request.url.netloc}{self._prefix}",
            path=request.scope["raw_path"].decode("latin-1"))

    async def _admit(self, request: HttpRequest, match: Match, route: Route, user: User | None) -> Request:
        """Return the request with its body, if its user may send it. Raises HttpError."""
        if route.is_change:
            check_origin(request, forms=route.forms)
        authorize = partial(self._authorize, user, route, match.names.get("vhost"))
        authorize()         # before anything is read that a user without rights sends
        body = await _read(request, route.most_body) if route.is_change else b""
        await self._context.turns.next()
        authorize()         # again, since the body may have taken a minute
        self._context.node.begin()
        asked = self._asked(request, match.names, user)
        asked.body, asked.authorize = body, authorize
        return asked

    async def _carry_out(self, asked: Request, route: Route, path: str) -> Any:
        """Return what the handler of a route returns; what it has changed is on disk then."""
        user = "" if asked.login is None else asked.login.name
        with acting(Actor(user, asked.address, "http")):
            result = route.handler(asked)
            if inspect.isawaitable(result):
                result = await result
            if route.is_change and route.is_audited and is_change(result):
                self._audit(asked, route, path)
        if route.is_change:
            await self._context.node.wait_committed()
        return result

    def _authorize(self, user: User | None, route: Route, vhost: str | None) -> None:
        """Check that the user still exists and may use the route; None is anyone. Raises HttpError: 401."""
        broker = self._context.broker
        if user is None:
            return
        if broker.users.get(user.name) is not user:
            raise not_authorised("the user has been deleted")
        check_access(user, route.access, vhost, is_known=vhost in broker.vhosts)

    def _audit(self, asked: Request, route: Route, path: str) -> None:
        """Record a change in the audit log."""
        try:
            detail = Body(asked).values if not route.forms else {}
        except HttpError:
            detail = {}
        self._context.broker.audit.record(f"{asked.method} {path}", detail)

    async def _log_in(self, request: HttpRequest) -> User | None:
        """Return the user of the header Authorization or, without it, of a session. Raises UnreadableLogin."""
        is_tls, header = request.url.scheme == "https", request.headers.get("authorization")
        address = request.client.host if request.client else ""
        if header is None:
            token = token_of(request.headers.get("cookie", ""), is_tls=is_tls)
            return None if token is None else self._context.sessions.user_of(token)
        credentials = basic_credentials(header)
        if credentials is None:
            return None
        return await self._context.login(*credentials, address, is_tls)

    def _response(self, answer: Answer, scope: Scope) -> Response:
        headers = {"date": formatdate(usegmt=True), **HEADERS, **answer.headers}
        if scope["scheme"] == "https":
            headers["strict-transport-security"] = STRICT_TRANSPORT
        if answer.stream is not None:
            return StreamingResponse(answer.stream, answer.status, headers, answer.media_type)
        if answer.pieces:
            size = sum(map(len, answer.pieces))
            if size > AT_ONCE:
                return StreamingResponse(
                    _sent_in_parts(answer.pieces), answer.status, {**headers, "content-length": str(size)},
                    answer.media_type)
            return Response(b"".join(answer.pieces), answer.status, headers, answer.media_type)
        body = answer.body
        if body is None:
            return Response(None, answer.status, headers)
        content = body if isinstance(body, bytes) else encode(body)
        return Response(content, answer.status, headers, answer.media_type)


def _route_of(match: Match, method: str) -> Route | Answer:
    """Return the route for a method, or the answer to OPTIONS and to methods that the path does not have."""
    route = match.routes.get("GET" if method == "HEAD" else method)
    if route is not None and method != "OPTIONS":
        return route
    methods = {*match.routes, "OPTIONS", *(("HEAD",) if "GET" in match.routes else ())}
    allowed = ", ".join(method for method in METHODS if method in methods)
    return Answer(200 if method == "OPTIONS" else 405, headers={"allow": allowed})


async def _decoded(answer: Answer) -> Any:
    """Return what an answer of the API has in its body. Raises HttpError for one of an error."""
    if answer.stream is not None:
        body: Any = b"".join([piece async for piece in answer.stream])
    else:
        body = b"".join(answer.pieces) if answer.pieces else answer.body
    if isinstance(body, bytes) and answer.media_type == JSON:
        body = msgspec.json.decode(body)
    if answer.status >= 400:
        found = body if isinstance(body, dict) else {}
        raise HttpError(answer.status, found.get("error", "error"), found.get("reason", ""))
    return body


async def _sent_in_parts(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield parts that are large enough to be written, and small enough for one turn of the event loop."""
    part, size = list[bytes](), 0
    for piece in pieces:
        part.append(piece)
        size += len(piece)
        if size >= AT_ONCE:
            yield b"".join(part)
            part, size = [], 0
            await asyncio.sleep(0)
    yield b"".join(part)


def is_change(result: Any) -> bool:
    """Return whether something has changed, by what a handler returns."""
    return not isinstance(result, Answer) or result.status < 400 and result.is_change


def refused_by_broker(error: ChannelException | ConnectionException) -> HttpError:
    """Return the error for what the broker refuses: 401 for a right that is missing, 400 for everything else."""
    text = str(error)
    return not_authorised(text) if error.code == 403 else bad_request(text)


def accepts(header: str, accepted: Collection[str] = ACCEPTED) -> bool:
    """Return whether an Accept header allows one of these types; whoever asks for RabbitMQ's `application/bert` gets
    JSON too.
    """
    kinds = {part.partition(";")[0].strip().lower() for part in header.split(",")} - {""}
    return not kinds or not kinds.isdisjoint(accepted)


class UnreadableLogin(Exception):
    """A header that is not USER:PASSWORD in base64. As RabbitMQ's, the answer is 400 without a body."""


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Return user and password of an Authorization header, None of another scheme. RFC 7617.

    Raises UnreadableLogin.
    """
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, separator, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:      # no base64, or not ASCII, or a text that is not UTF-8
        separator = ""
    if not separator:
        raise UnreadableLogin
    return user, password


def check_origin(request: HttpRequest, *, forms: Collection[str] = ()) -> None:
    """Check that a change does not come from another site's page. Raises HttpError: 403.

    A browser sends JSON to another site only after asking that site, and names the page's own site in `Origin`. Some
    HTTP clients send a body without any type: they may, if nothing in the request comes from a browser.
    """
    headers = request.headers
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise _forbidden("the request comes from another site's page")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise _forbidden(f"the origin {origin} is another site")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if "content-type" not in headers and not any(name in headers for name in OF_BROWSERS):
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and kind != JSON and kind not in forms:
        raise _forbidden("a change needs the header 'Content-Type: application/json'")


def _forbidden(reason: str) -> HttpError:
    return HttpError(403, "forbidden", reason)


async def _read(request: HttpRequest, most: int) -> bytes:
    """Return the body. Raises HttpError: 413 if it is too large, at once if the request says so."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and (len(length) > LONGEST_LENGTH or int(length) > most):
        raise _too_large(most)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> HttpError:
    return HttpError(413, "payload_too_large", f"a body may have at most {most >> 10} KiB")


def _query(request: HttpRequest) -> dict[str, Any]:
    """Return the query as a request has it: the last value of each parameter, and all pairs."""
    try:
        pairs = parse_qsl(
            request.url.query, keep_blank_values=True, max_num_fields=MOST_PARAMETERS, errors="replace")
    except ValueError:
        raise bad_request(f"a query may have at most {MOST_PARAMETERS} parameters") from None
    return {"query": dict(pairs), "pairs": pairs}
