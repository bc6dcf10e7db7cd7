"""The page of the node: certificates, backup of the store, checks, settings and feature flags."""

from __future__ import annotations

from typing import Any

import msgspec

from amqpd.identity import NODE_NAME
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done
from amqpd.management.page.navigation import rights_of
from amqpd.management.page.overview import CONFIRMS
from amqpd.management.page.shown import Shown, form, page, path_of
from amqpd.management.refusal import Refusal

SOON_DAYS = 30      # in which a certificate expires, so that it is shown as a warning
PAGE = "/node"


async def show_node(request: Request) -> Shown:
    """Show the node. Only administrators see its settings and checks. Raises HttpError."""
    return await _shown(request)


async def _shown(request: Request, found: Form | None = None) -> Shown:
    is_admin = rights_of(request.user).administrates
    values: dict[str, Any] = {
        "node": await request.ask("GET", "/api/nodes" + path_of(NODE_NAME)),
        "certificates": await request.ask("GET", "/api/amqpd/certificates"), "soon": SOON_DAYS,
        "confirms": CONFIRMS, "latest": None,
        "settings": {}, "flags": [], "findings": None, "form": found or Form()}
    if is_admin:
        values["latest"] = (await request.ask("GET", "/api/amqpd/backup"))["latest"]
        values["settings"] = _flat(await request.ask("GET", "/api/amqpd/environment"))
        values["flags"] = await request.ask("GET", "/api/feature-flags")
        if request.query.get("checks") == "1":
            values["findings"] = msgspec.to_builtins(await request.ask("GET", "/api/amqpd/doctor"))
    return Shown("node.html", values, "node", 422 if found else 200)


def _flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Return settings by their whole keys, such as `limits.max_queues`."""
    found: dict[str, str] = {}
    for key, value in dict(settings.get("amqpd", settings) if not prefix else settings).items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    return found


async def make_backup(request: Request) -> Shown | Answer:
    """Begin to copy the store to a file; the page shows how far it is. Raises HttpError."""
    found = Form(request)
    to = found.text("to", required="Enter the path of a new file on the broker's machine.")
    if found.is_valid and not to.startswith("/"):
        found.errors["to"] = "Enter an absolute path, which begins with /."
    if found.is_valid:
        try:
            await request.ask("POST", "/api/amqpd/backup", body={"to": to, "wait": False})
        except (HttpError, Refusal) as error:
            found.errors["to"] = error.reason if isinstance(error, HttpError) else str(error)
    if not found.is_valid:
        return await _shown(request, found)
    return done(f"The store is copied to {to}.", to=PAGE)


ROUTES = [
    page(PAGE, show_node, "The node", access=Access.MONITORING),
    form(PAGE + "/backup", make_backup, "Begin a backup", access=Access.ADMINISTRATOR),
]
