"""The page that answers "where would this message go": each step, with alternate exchanges and dead letters.

The address holds the question, so an answer can be kept as a bookmark. Nothing is published.
"""

from __future__ import annotations

from typing import Any

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.exchanges import IN_PATH, read
from amqpd.management.page.forms import Form
from amqpd.management.page.shown import Shown, page

MOST_SHOWN = 200        # steps on a page
ASKED = ("routing_key", "headers", "user")


async def trace(request: Request) -> Shown:
    """Show the form, and the way of the message if one is asked for. Raises HttpError."""
    values, found, route = await read(request), Form(), None
    found.values = {name: request.query[name] for name in ASKED if name in request.query}
    if found.values:
        route = await route_of(request, values["api"], found)
    return Shown("exchange.html", {
        **values, "listing": None, "form": Form(), "part": "route", "asked": found, "route": route,
        "most": MOST_SHOWN}, "exchanges", 200 if found.is_valid else 422)


async def route_of(request: Request, api: str, found: Form) -> dict[str, Any] | None:
    """Return the way of the message that a form describes; None if it cannot be published, which the form tells then.
    """
    body: dict[str, Any] = {"routing_key": found.text("routing_key"), "headers": found.json_object("headers"),
                            "most_steps": MOST_SHOWN}
    if user := found.text("user"):
        body["user"] = user
    if not found.is_valid:
        return None
    try:
        answer: dict[str, Any] = msgspec.to_builtins(await request.ask("POST", api + "/route", body=body), enc_hook=str)
    except HttpError as error:
        found.refused(error, "user" if user and error.status in (401, 404) else "")
        return None
    return answer


ROUTES = [page(IN_PATH + "/route", trace, "Where a message would go", access=Access.VHOST)]
