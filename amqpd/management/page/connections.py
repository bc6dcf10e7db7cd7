"""The pages of connections: the list, and one connection with its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amqpd.management.http.access import is_administrator
from amqpd.management.http.answers import Answer
from amqpd.management.http.request import Request
from amqpd.management.page import bulk, channels
from amqpd.management.page.client_acts import REASON, close, reason_of
from amqpd.management.page.forms import Form, done
from amqpd.management.page.lists import Column, Listing, Record
from amqpd.management.page.shown import Shown, form, page, path_of


def _to_connection(record: Record) -> str:
    return path_of("connections", record["name"])


COLUMNS: Sequence[Column] = (
    Column("name", "Name", link=_to_connection, hint="The addresses of the client and of the broker"),
    Column("user_provided_name", "Client", hint="The name that the client gave its connection"),
    Column("user", "User"),
    Column("vhost", "Vhost"),
    Column("state", "State", "state"),
    Column("ssl", "TLS", "yes"),
    Column("channels", "Channels", "number"),
    Column("recv_oct_details.rate", "From client", "flow", hint="Bytes per second"),
    Column("send_oct_details.rate", "To client", "flow", hint="Bytes per second"),
    Column("recv_oct", "Received", "size", is_shown=False),
    Column("send_oct", "Sent", "size", is_shown=False),
    Column("connected_at", "Connected", "ago"),
    Column("peer_host", "Peer", is_shown=False),
    Column("auth_mechanism", "Login by", is_shown=False),
    Column("timeout", "Heartbeat in s", "number", is_shown=False),
    Column("client_properties.product", "Product", is_shown=False),
    Column("client_properties.version", "Version", is_shown=False),
)
# Of the client properties, those that stand apart; `capabilities` becomes a line of its own.
CAPABILITIES = "capabilities"


async def load(request: Request) -> Listing:
    """Return the list of connections that the address asks for. Raises HttpError."""
    vhost = request.query.get("vhost", "")
    listing = Listing(
        request, "/connections", COLUMNS, noun="connection",
        searched="Address, user or client", filters=[channels.vhost_filter(request)],
        needs=("name", "user"),
        empty="A client connects with an AMQP address, such as amqp://guest:guest@localhost/.")
    return await listing.load(
        request, "/api" + (path_of("vhosts", vhost, "connections") if vhost else "/connections"))


async def list_connections(request: Request) -> Shown:
    """Show the connections that the user sees: all, or the user's own."""
    return Shown("connections.html", {
        "listing": await load(request), "offered": bulk.actions_for(request, "connections")}, "connections")


async def show_connection(request: Request) -> Shown:
    """Show one connection with its channels. Raises HttpError."""
    name = request.names["connection"]
    path, api = path_of("connections", name), "/api" + path_of("connections", name)
    connection = await request.ask("GET", api)
    listing = Listing(
        request, path, channels.OF_CONNECTION, noun="channel", needs=("name", "number", "confirm", "transactional"),
        sort="number", empty="The client has opened none yet.")
    await listing.load(request, api + "/channels")
    properties = dict(connection.get("client_properties") or {})
    capabilities = properties.pop(CAPABILITIES, None)
    values: dict[str, Any] = {
        "connection": connection, "listing": listing, "api": api, "reason": REASON,
        "properties": properties,
        "capabilities": sorted(name for name, has in capabilities.items() if has is True)
        if isinstance(capabilities, dict) else [],
        "may_close": is_administrator(request.user) or connection["user"] == request.user.name}
    return Shown("connection.html", values, "connections")


async def close_connection(request: Request) -> Answer:
    """Close a connection with a reason. Raises HttpError."""
    name = request.names["connection"]
    await close(request, name, reason_of(Form(request)))
    return done(f"Connection {name} is closed.", to="/connections")


ROUTES = [
    page("/connections", list_connections, "The connections"),
    page("/connections/{connection}", show_connection, "A connection"),
    form("/connections/{connection}/close", close_connection, "Close a connection", is_for_watchers=True),
]
