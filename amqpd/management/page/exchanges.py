"""The pages of exchanges: the list, and one exchange with its bindings in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.bindings import DEFAULT_EXCHANGE, exchange_name
from amqpd.management.http.request import Request
from amqpd.management.page.bindings import from_exchange, to_exchange
from amqpd.management.page.forms import Form, done
from amqpd.management.page.lists import Column, Listing, Record, vhost_filter
from amqpd.management.page.shown import Shown, form, page, path_of

TYPES = ("direct", "fanout", "topic", "headers")
RESERVED = "amq."
IN_PATH = "/exchanges/{vhost}/{exchange}"
MEANINGS = {
    "direct": "A message goes to what is bound with exactly its routing key.",
    "fanout": "A message goes to everything that is bound; routing keys do not matter.",
    "topic": "A message goes to what is bound with a pattern that fits its routing key: * is one word, # any number.",
    "headers": "A message goes to what is bound with arguments that fit its headers.",
}
OF_DEFAULT = "A message goes to the queue whose name is its routing key. Nothing else can be bound."


def path_to(vhost: str, name: str) -> str:
    """Return the path of the page of an exchange; the default one is `amq.default` there."""
    return path_of("exchanges", vhost, name or DEFAULT_EXCHANGE)


def _to_exchange(record: Record) -> str:
    return path_to(record["vhost"], record["name"])


COLUMNS: Sequence[Column] = (
    Column("name", "Name", "exchange", link=_to_exchange),
    Column("vhost", "Vhost"),
    Column("type", "Type"),
    Column("message_stats.publish_in_details.rate", "In", "rate", hint="Messages published to it, per second"),
    Column("message_stats.publish_out_details.rate", "Out", "rate",
           hint="Messages that it routed to queues, per second, once for each queue"),
    Column("message_stats.publish_in", "In, total", "number", is_shown=False),
    Column("message_stats.publish_out", "Out, total", "number", is_shown=False),
    Column("durable", "Durable", "yes"),
    Column("auto_delete", "Auto-delete", "yes", is_shown=False),
    Column("internal", "Internal", "yes", is_shown=False),
    Column("policy", "Policy"),
    Column("arguments", "Arguments", "json", is_shown=False, is_sorted=False),
)


async def list_exchanges(request: Request) -> Shown:
    """Show the exchanges of the vhosts that the user sees, or of one."""
    vhost = request.query.get("vhost", "")
    listing = Listing(
        request, "/exchanges", COLUMNS, noun="exchange", filters=[vhost_filter(request)],
        empty="Clients declare exchanges when they start. To make one by hand, choose Declare an exchange.")
    await listing.load(request, "/api/exchanges" + (path_of(vhost) if vhost else ""))
    return Shown("exchanges.html", {"listing": listing, "form": Form(), **_choices(request)}, "exchanges")


def _choices(request: Request) -> dict[str, Any]:
    return {"types": TYPES, "vhosts": sorted(vhost.name for vhost in request.visible_vhosts())}


async def declare_exchange(request: Request) -> Shown | Answer:
    """Declare an exchange, or show the form with what is wrong. One that is there already is left as it is."""
    found = Form(request)
    vhost = found.choice("vhost", _choices(request)["vhosts"])
    name = found.text("name", required="Enter a name.")
    if name.startswith(RESERVED):
        found.errors["name"] = f"Names that begin with {RESERVED} are the broker's own: choose another."
    kind = found.choice("type", TYPES)
    arguments = found.json_object("arguments")
    if alternate := found.text("alternate_exchange"):
        arguments["alternate-exchange"] = alternate
    if found.is_valid:
        body = {"type": kind, "arguments": arguments, **{
            flag: found.flag(flag) for flag in ("durable", "auto_delete", "internal")}}
        try:
            await request.ask("PUT", "/api" + path_to(vhost, name), body=body)
        except HttpError as error:
            found.refused(error, "name" if error.status == 401 else "")
    if not found.is_valid:
        return Shown("exchanges.html", {"form": found, "listing": None, **_choices(request)}, "exchanges", 422)
    return done(f"Exchange {name} is declared.", to=path_to(vhost, name))


async def read(request: Request) -> dict[str, Any]:
    """Return what the pages of one exchange share. Raises HttpError."""
    vhost, name = request.names["vhost"], exchange_name(request.names["exchange"])
    api = "/api" + path_to(vhost, name)
    exchange = await request.ask("GET", api)
    policy = await _policy(request, vhost, exchange.get("policy", ""))
    alternate, origin = exchange["arguments"].get("alternate-exchange"), "its arguments"
    if alternate is None and policy is not None:
        alternate, origin = policy["definition"].get("alternate-exchange"), f"policy {policy['name']}"
    return {
        "exchange": exchange, "api": api, "address": path_to(vhost, name), "title": name or "Default exchange",
        "policy": policy, "alternate": alternate if isinstance(alternate, str) else None, "origin": origin,
        "meaning": MEANINGS.get(exchange["type"], "") if name else OF_DEFAULT,
        "is_own": bool(name) and not name.startswith(RESERVED)}


async def _policy(request: Request, vhost: str, name: str) -> dict[str, Any] | None:
    """Return a policy; for users who may not read policies, only its name."""
    if not name:
        return None
    try:
        found: dict[str, Any] = await request.ask("GET", "/api" + path_of("policies", vhost, name))
    except HttpError as error:
        if error.status not in (401, 404):      # 404: it has been deleted meanwhile
            raise
        return {"name": name, "definition": {}}
    return found


async def show_exchange(request: Request) -> Shown:
    """Show one exchange with the bindings from it. Raises HttpError."""
    values = await read(request)
    listing = await from_exchange(request, values["address"], values["api"])
    return Shown("exchange.html", {**values, "listing": listing, "form": Form(), "part": "from"}, "exchanges")


async def show_sources(request: Request) -> Shown:
    """Show one exchange with the bindings to it. Raises HttpError."""
    values = await read(request)
    listing = await to_exchange(request, values["address"] + "/sources", values["api"])
    return Shown("exchange.html", {**values, "listing": listing, "form": Form(), "part": "to"}, "exchanges")


async def delete_exchange(request: Request) -> Answer:
    """Delete an exchange with its bindings. Raises HttpError."""
    vhost, name = request.names["vhost"], request.names["exchange"]
    await request.ask("DELETE", "/api" + path_of("exchanges", vhost, name))
    return done(f"Exchange {name} is deleted.", to="/exchanges")


ROUTES = [
    page("/exchanges", list_exchanges, "The exchanges"),
    form("/exchanges", declare_exchange, "Declare an exchange"),
    page(IN_PATH, show_exchange, "An exchange", access=Access.VHOST),
    page(IN_PATH + "/sources", show_sources, "What is bound to an exchange", access=Access.VHOST),
    form(IN_PATH + "/delete", delete_exchange, "Delete an exchange", access=Access.VHOST),
]
