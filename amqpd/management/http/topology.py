"""The route that tells the topology of a vhost. RabbitMQ has none."""

from __future__ import annotations

from typing import Any

import msgspec

from amqpd.management.explaining.topology import MOST_DEPTH, MOST_NODES, Key, Node, TopologySurvey
from amqpd.management.http.access import Access
from amqpd.management.http.answers import bad_request, not_found
from amqpd.management.http.beyond import whole
from amqpd.management.http.bindings import exchange_name
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query, Route
from amqpd.management.http.statistics import wants_statistics

NODES = 300             # by default
RATES_AT_ONCE = 50      # nodes whose rates are read between two turns
Record = dict[str, Any]


async def read_topology(request: Request) -> Any:
    """Return exchanges, queues and what leads from one to another. Raises HttpError: 400, 404."""
    vhost, query = request.vhost(), request.query
    most, depth = whole(request, "most", NODES), whole(request, "depth", 2)
    if not 1 <= most <= MOST_NODES:
        raise bad_request(f"most: a number from 1 to {MOST_NODES}")
    if not 0 <= depth <= MOST_DEPTH:
        raise bad_request(f"depth: a number from 0 to {MOST_DEPTH}")
    around = _key(query["around"]) if query.get("around") else None

    async def pause() -> None:
        await request.context.turns.next()
        request.context.node.begin()

    found = await TopologySurvey(vhost, pause).look(
        name=query.get("name", ""), around=around, depth=depth, most=most)
    if around is not None and not found.nodes:
        raise not_found()
    nodes = []
    for place, node in enumerate(found.nodes):
        if place % RATES_AT_ONCE == RATES_AT_ONCE - 1:
            await pause()
        nodes.append(_record(request, node))
    return msgspec.to_builtins(found) | {"nodes": nodes}


def _key(text: str) -> Key:
    kind, _, name = text.partition(":")
    if kind == "queue":
        return Key("queue", name)
    if kind == "exchange":
        return Key("exchange", exchange_name(name))
    raise bad_request("around: exchange:NAME or queue:NAME")


def _record(request: Request, node: Node) -> Record:
    """Return a node, with its rates if they are kept, and the messages of a queue."""
    found: Record = msgspec.to_builtins(node)
    vhost, statistics = request.vhost(), request.context.statistics
    found["messages"] = None
    queue = vhost.queues.get(node.name) if node.kind == "queue" else None
    exchange = vhost.exchanges.get(node.name) if node.kind == "exchange" else None
    stats: Record = {}
    if queue is not None:
        found["messages"] = len(queue.ready) + queue.unacked
        if wants_statistics(request):
            stats = statistics.queue(queue).get("message_stats", {})
    elif exchange is not None and wants_statistics(request):
        stats = statistics.exchange(exchange).get("message_stats", {})
    into, out = ("publish", "deliver_get") if node.kind == "queue" else ("publish_in", "publish_out")
    return found | {"rate_in": _rate(stats, into), "rate_out": _rate(stats, out)}


def _rate(stats: Record, name: str) -> float:
    rate: float = stats.get(f"{name}_details", {}).get("rate", 0.0)
    return rate


ROUTES = [
    Route(method="GET", path="/api/vhosts/{vhost}/topology", handler=read_topology, access=Access.VHOST, query=(
          Query("name", "only what has this in its name, and what is linked with it"),
          Query("around", "`exchange:NAME` or `queue:NAME`: only what is near it"),
          Query("depth", f"how many arrows away, 2 by default, at most {MOST_DEPTH}"),
          Query("most", f"how many nodes, {NODES} by default, at most {MOST_NODES}")),
          summary="Exchanges, queues, and what leads from one to another"),
]
