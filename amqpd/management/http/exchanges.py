"""The routes of exchanges. RabbitMQ docs/http-api-reference (exchanges)."""

from __future__ import annotations

from typing import Any

import msgspec

from amqpd.broker.definitions import ExchangeDefinition
from amqpd.broker.exchange import Exchange
from amqpd.broker.vhost import Vhost
from amqpd.errors import AmqpException, ChannelException
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError, no_content, not_found, put
from amqpd.management.http.bindings import exchange_name
from amqpd.management.http.body import Body, refused
from amqpd.management.http.lists import Source, listed
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query, Route
from amqpd.management.http.statistics import STATISTICS_QUERY, ranges_of, wants_statistics
from amqpd.management.json_values import plain
from amqpd.management.statistics import Ranges

IN_PATH = "/api/exchanges/{vhost}/{exchange}"
NOBODY = "rmq-internal"         # RabbitMQ's name for itself, which it shows for everything it does not know


class NewExchange(msgspec.Struct):
    """An exchange to declare."""

    type: str = "direct"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, Any] = {}


def record(request: Request, vhost: Vhost, exchange: Exchange, ranges: Ranges | None) -> dict[str, Any]:
    """Return an exchange as JSON has it; without statistics if `ranges` is None."""
    definition = exchange.definition
    applied = vhost.policies.of_exchange(exchange.name)
    found = {
        "name": exchange.name,
        "vhost": vhost.name,
        "type": definition.type,
        "durable": definition.durable,
        "auto_delete": definition.auto_delete,
        "internal": definition.internal,
        "arguments": plain(definition.arguments),
        "user_who_performed_action": NOBODY,
    }
    if applied.policy is not None:
        found["policy"] = applied.policy.name
    return found if ranges is None else found | request.context.statistics.exchange(exchange, ranges)


def list_exchanges(request: Request) -> Any:
    """Return the exchanges of the vhosts that the user sees."""
    ranges = ranges_of(request) if wants_statistics(request) else None
    found = [(vhost, exchange) for vhost in request.visible_vhosts() for exchange in vhost.exchanges.values()]
    return listed(request, Source(
        found, lambda one: one[1].name, lambda one: record(request, one[0], one[1], ranges)))


def read_exchange(request: Request) -> Any:
    """Return one exchange. Raises HttpError: 404."""
    vhost, exchange = _named(request)
    return record(request, vhost, exchange, ranges_of(request)) | {"incoming": [], "outgoing": []}


def _named(request: Request) -> tuple[Vhost, Exchange]:
    vhost = request.vhost()
    exchange = vhost.exchanges.get(exchange_name(request.names["exchange"]))
    if exchange is None:
        raise not_found()
    return vhost, exchange


def declare_exchange(request: Request) -> Answer:
    """Declare an exchange. Raises HttpError."""
    vhost, name = request.vhost_to_change(), exchange_name(request.names["exchange"])
    body = Body(request)
    is_new = name not in vhost.exchanges
    definition = ExchangeDefinition(
        vhost.name, name, body.text("type", "direct"), durable=body.boolean("durable"),
        auto_delete=body.boolean("auto_delete"), internal=body.boolean("internal"), arguments=body.table("arguments"))
    try:
        vhost.declare_exchange(request.user, definition)
    except AmqpException as error:
        raise refused(error) from None
    return put(is_new)


def delete_exchange(request: Request) -> Answer:
    """Delete an exchange. Raises HttpError."""
    vhost, exchange = _named(request)
    if not exchange.name:
        raise HttpError(401, "not_authorised", "Access refused.")
    try:
        vhost.delete_exchange(request.user, exchange.name, if_unused=request.flag("if-unused"))
    except ChannelException as error:
        raise refused(error) from None
    return no_content()


ROUTES = [
    Route(method="GET", path="/api/exchanges", handler=list_exchanges, access=Access.LOGIN, is_list=True,
          query=STATISTICS_QUERY, summary="All exchanges"),
    Route(method="GET", path="/api/exchanges/{vhost}", handler=list_exchanges, access=Access.VHOST, is_list=True,
          query=STATISTICS_QUERY, summary="The exchanges of a vhost"),
    Route(method="GET", path=IN_PATH, handler=read_exchange, access=Access.VHOST, query=STATISTICS_QUERY,
          summary="An exchange; the default one is amq.default"),
    Route(method="PUT", path=IN_PATH, handler=declare_exchange, access=Access.VHOST, body=NewExchange,
          summary="Declare an exchange"),
    Route(method="DELETE", path=IN_PATH, handler=delete_exchange, access=Access.VHOST,
          query=(Query("if-unused", "true: only if nothing is bound to it"),), summary="Delete an exchange"),
]
