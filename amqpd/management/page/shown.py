"""What handlers of the web page return, and how its routes are written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Handler, Query, Route
from amqpd.management.page.navigation import require_changes

HTML = "text/html; charset=utf-8"
MOST_FORM = 1 << 20


class Shown(msgspec.Struct):
    """A template and its values. `section` is the entry of the navigation that the page belongs to, by its key.

    If the browser asked for a part of the page, by the id of an element, and the template has a block of that name,
    only the block is sent; so a page is kept up to date, and a form comes back with its errors.
    """

    template: str
    values: dict[str, Any] = {}
    section: str = ""
    status: int = 200
    headers: Mapping[str, str] = {}


def part_of(request: Request) -> str:
    """Return the id of the element that a script asks for, or nothing if the whole page is asked for."""
    is_part = request.headers.get("hx-request") == "true"
    return request.headers.get("hx-target", "").partition("#")[2] if is_part else ""


def page(
    path: str, handler: Handler, summary: str, *, access: Access = Access.LOGIN, query: tuple[Query, ...] = (),
) -> Route:
    """Return the route of a page. `access` is that of the routes of the API that it asks."""
    return Route(method="GET", path=path, handler=handler, access=access, summary=summary, query=query)


def form(
    path: str, handler: Handler, summary: str, *, access: Access = Access.LOGIN, most_body: int = MOST_FORM,
    body: type[bytes] | None = None, is_for_watchers: bool = False,
) -> Route:
    """Return the route that a form is sent to. What it asks of the API is in the audit log, the form is not.

    With `body`, the form has a file. Users who only watch are refused, unless it `is_for_watchers`.
    """
    if access is not Access.ANYONE and not is_for_watchers:
        handler = partial(_for_those_who_change, handler)
    return Route(method="POST", path=path, handler=handler, access=access, summary=summary, takes_forms=True,
                 body=body, is_audited=False, most_body=most_body)


async def _for_those_who_change(handler: Handler, request: Request) -> Any:
    """Carry out a form, unless its user only watches. Raises HttpError: 401."""
    require_changes(request)
    result = handler(request)
    return await result if inspect.isawaitable(result) else result


def path_of(*segments: object, **query: object) -> str:
    """Return a path of these segments, each encoded whole, with a query; what is None or empty is left out of it."""
    given = [(name, value) for name, value in query.items() if value not in (None, "")]
    path = "/" + "/".join(quote(str(segment), safe="", errors="surrogatepass") for segment in segments)
    return path + ("?" + urlencode(given) if given else "")


def to(address: str) -> Answer:
    """Return the answer that sends a browser to an address, which it asks for with GET."""
    return Answer(303, headers={"location": address})
