"""The table of all routes of the web page. A module of pages is added here."""

from __future__ import annotations

from amqpd.management.http.routes import Route
from amqpd.management.page import (
    bindings, bulk, channels, connections, consumers, dead_letters, definitions, exchanges, journals, limits, messages,
    node, overview, policies, publishing, queues, rights, signing_in, topology, tracing, users, vhosts)


def page_routes() -> list[Route]:
    """Return the routes of all pages."""
    rooms = (signing_in, overview, queues, connections, channels, consumers, bulk, users, rights, vhosts, limits,
             policies, definitions, journals, node, exchanges, bindings, tracing, topology, dead_letters,
             messages, publishing)
    return [route for room in rooms for route in room.ROUTES]
