"""The table of all routes of the management API."""

from __future__ import annotations

from amqpd.management.http import (
    bindings,
    connections,
    consumers,
    definitions,
    exchanges,
    general,
    health,
    messages,
    metrics,
    nodes,
    openapi,
    operating,
    parameters,
    permissions,
    policies,
    previews,
    queued,
    queues,
    topology,
    users,
    vhosts,
)
from amqpd.management.http.routes import Routes


def all_routes() -> Routes:
    """Return the table."""
    rooms = (general, nodes, health, exchanges, queues, bindings, messages, connections, consumers, vhosts, users,
             permissions, policies, previews, parameters, definitions, metrics, queued, operating, topology)
    routes = [route for room in rooms for route in room.ROUTES]
    routes.append(openapi.route_of(routes))     # which describes itself too
    return Routes(routes)
