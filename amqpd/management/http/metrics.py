"""The routes of Prometheus: /metrics, and what it has for each object.

In the management API, sums are for anyone. Names of objects are for users with the tag `monitoring`, who see all of
them anyway. On a listener for metrics alone everything is for anyone, as on RabbitMQ's.

RabbitMQ docs/prometheus.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Iterator

from msgspec.structs import replace

from amqpd import __version__
from amqpd.identity import NODE_NAME
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer
from amqpd.management.http.context import Context
from amqpd.management.http.nodes import cluster_name
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query, Route, Routes
from amqpd.management.metrics import Exposition, NodeFacts
from amqpd.management.metrics.text import CONTENT_TYPE

PART = 64 * 1024        # characters that are sent at once
DETAILED_QUERY = (
    Query("family", "a group of metrics, such as queue_coarse_metrics; may be repeated"),
    Query("vhost", "only objects in this vhost; may be repeated"))


def exposition(request: Request) -> Exposition:
    """Return the metrics of the broker."""
    context, cluster = request.context, cluster_name(request)
    return Exposition(context.broker, lambda: _facts(context, cluster), context.node.begin)


def _facts(context: Context, cluster: str) -> NodeFacts:
    statistics, node = context.statistics, context.node
    return NodeFacts(
        status=context.commands.lookups["status"](), node=statistics.node(), totals=statistics.totals,
        publishers=statistics.publishers, measures=statistics.measures, attempts=context.attempts,
        requests=context.requests, store=None if node.store_info is None else node.store_info(),
        build={"rabbitmq_version": node.rabbitmq_version, "prometheus_plugin_version": node.rabbitmq_version,
               "prometheus_client_version": "", "erlang_version": "", "amqpd_version": __version__,
               "python_version": platform.python_version()},
        identity={"rabbitmq_node": NODE_NAME, "rabbitmq_cluster": cluster, "rabbitmq_cluster_permanent_id": cluster})


async def _sent(parts: Iterator[str]) -> AsyncIterator[bytes]:
    """Yield the text in larger parts, with a turn of the event loop after each part that was made."""
    waiting, size = list[str](), 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PART:
            yield "".join(waiting).encode()
            waiting, size = [], 0
        if not part or len(part) > PART // 4:
            await asyncio.sleep(0)
    yield "".join(waiting).encode()


def _answer(parts: Iterator[str]) -> Answer:
    return Answer(stream=_sent(parts), media_type=CONTENT_TYPE)


def read_sums(request: Request) -> Answer:
    """Return metrics, summed over all objects."""
    return _answer(exposition(request).aggregated())


def read_each(request: Request) -> Answer:
    """Return metrics, with series for each object."""
    return _answer(exposition(request).per_object())


def read_groups(request: Request) -> Answer:
    """Return the groups of metrics that the query names, with series for each object."""
    vhosts = request.every("vhost")
    return _answer(exposition(request).detailed(request.every("family"), vhosts or None))


ROUTES = [
    Route(method="GET", path="/metrics", handler=read_sums, access=Access.ANYONE, is_text=True,
          summary="Metrics for Prometheus, summed over all objects"),
    Route(method="GET", path="/metrics/per-object", handler=read_each, access=Access.MONITORING, is_text=True,
          summary="Metrics for Prometheus, for each object"),
    Route(method="GET", path="/metrics/detailed", handler=read_groups, access=Access.MONITORING, is_text=True,
          query=DETAILED_QUERY, summary="Groups of metrics for Prometheus, for each object"),
]


def routes_of_listener(path: str, *, has_objects: bool) -> Routes:
    """Return the routes of a listener for metrics alone: those above for anyone, with `path` in place of /metrics.

    With `has_objects`, `path` itself has series for each object too.
    """
    routes = [replace(route, path=path + route.path.removeprefix("/metrics"), access=Access.ANYONE) for route in ROUTES]
    if has_objects:
        routes[0] = replace(routes[0], handler=read_each)
    return Routes(routes)
