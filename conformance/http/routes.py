"""Every route of RabbitMQ 3.10's management API, with the methods it takes, as its dispatcher lists them."""
from __future__ import annotations

import re
from typing import NamedTuple

READ, CHANGE, FACTORY = ("GET",), ("GET", "PUT", "DELETE"), ("GET", "POST")


class Route(NamedTuple):
    """A path with its variable parts, and its methods but HEAD and OPTIONS."""

    path: str
    methods: tuple[str, ...]


ROUTES = (
    Route("/overview", READ),
    Route("/cluster-name", ("GET", "PUT")),
    Route("/nodes", READ),
    Route("/nodes/:node", READ),
    Route("/nodes/:node/memory", READ),
    Route("/nodes/:node/memory/relative", READ),
    Route("/nodes/:node/memory/ets", READ),
    Route("/nodes/:node/memory/ets/relative", READ),
    Route("/nodes/:node/memory/ets/:filter", READ),
    Route("/nodes/:node/memory/ets/:filter/relative", READ),
    Route("/extensions", READ),
    Route("/all-configuration", FACTORY),
    Route("/definitions", FACTORY),
    Route("/definitions/:vhost", FACTORY),
    Route("/parameters", READ),
    Route("/parameters/:component", READ),
    Route("/parameters/:component/:vhost", READ),
    Route("/parameters/:component/:vhost/:name", CHANGE),
    Route("/global-parameters", READ),
    Route("/global-parameters/:name", CHANGE),
    Route("/policies", READ),
    Route("/policies/:vhost", READ),
    Route("/policies/:vhost/:name", CHANGE),
    Route("/operator-policies", READ),
    Route("/operator-policies/:vhost", READ),
    Route("/operator-policies/:vhost/:name", CHANGE),
    Route("/vhost-limits", READ),
    Route("/vhost-limits/:vhost", READ),
    Route("/vhost-limits/:vhost/:limit", ("PUT", "DELETE")),
    Route("/connections", READ),
    Route("/connections/:connection", ("GET", "DELETE")),
    Route("/connections/username/:user", ("GET", "DELETE")),
    Route("/connections/:connection/channels", READ),
    Route("/channels", READ),
    Route("/channels/:channel", READ),
    Route("/consumers", READ),
    Route("/consumers/:vhost", READ),
    Route("/exchanges", READ),
    Route("/exchanges/:vhost", READ),
    Route("/exchanges/:vhost/:exchange", CHANGE),
    Route("/exchanges/:vhost/:exchange/publish", ("POST",)),
    Route("/exchanges/:vhost/:exchange/bindings/source", READ),
    Route("/exchanges/:vhost/:exchange/bindings/destination", READ),
    Route("/queues", READ),
    Route("/queues/:vhost", READ),
    Route("/queues/:vhost/:queue", CHANGE),
    Route("/queues/:vhost/:queue/bindings", READ),
    Route("/queues/:vhost/:queue/contents", ("DELETE",)),
    Route("/queues/:vhost/:queue/get", ("POST",)),
    Route("/queues/:vhost/:queue/actions", ("POST",)),
    Route("/bindings", READ),
    Route("/bindings/:vhost", READ),
    Route("/bindings/:vhost/e/:exchange/q/:queue", FACTORY),
    Route("/bindings/:vhost/e/:exchange/q/:queue/:props", ("GET", "DELETE")),
    Route("/bindings/:vhost/e/:exchange/e/:target", FACTORY),
    Route("/bindings/:vhost/e/:exchange/e/:target/:props", ("GET", "DELETE")),
    Route("/vhosts", READ),
    Route("/vhosts/:vhost", CHANGE),
    Route("/vhosts/:vhost/start/:node", ("POST",)),
    Route("/vhosts/:vhost/permissions", READ),
    Route("/vhosts/:vhost/topic-permissions", READ),
    Route("/vhosts/:vhost/connections", READ),
    Route("/vhosts/:vhost/channels", READ),
    Route("/users", READ),
    Route("/users/without-permissions", READ),
    Route("/users/bulk-delete", ("POST",)),
    Route("/users/:user", CHANGE),
    Route("/users/:user/permissions", READ),
    Route("/users/:user/topic-permissions", READ),
    Route("/user-limits", READ),
    Route("/user-limits/:user", READ),
    Route("/user-limits/:user/:limit", ("PUT", "DELETE")),
    Route("/feature-flags", READ),
    Route("/feature-flags/:flag/enable", ("PUT",)),
    Route("/whoami", READ),
    Route("/permissions", READ),
    Route("/permissions/:vhost/:user", CHANGE),
    Route("/topic-permissions", READ),
    Route("/topic-permissions/:vhost/:user", CHANGE),
    Route("/topic-permissions/:vhost/:user/:exchange", CHANGE),
    Route("/aliveness-test/:vhost", READ),
    Route("/healthchecks/node", READ),
    Route("/healthchecks/node/:node", READ),
    Route("/health/checks/alarms", READ),
    Route("/health/checks/local-alarms", READ),
    Route("/health/checks/certificate-expiration/:within/:unit", READ),
    Route("/health/checks/port-listener/:port", READ),
    Route("/health/checks/protocol-listener/:protocol", READ),
    Route("/health/checks/virtual-hosts", READ),
    Route("/health/checks/node-is-mirror-sync-critical", READ),
    Route("/health/checks/node-is-quorum-critical", READ),
    Route("/reset", ("DELETE",)),
    Route("/reset/:node", ("DELETE",)),
    Route("/rebalance/queues", ("POST",)),
    Route("/auth", READ),
    Route("/auth/attempts/:node", ("GET", "DELETE")),
    Route("/auth/attempts/:node/source", ("GET", "DELETE")),
    Route("/login", ("POST",)),
)

# What stands for each variable part, unless a caller knows better.
EXAMPLES = {
    "node": "{node}", "filter": "management", "vhost": "shapes", "component": "vhost-limits", "name": "nothing",
    "limit": "max-queues", "connection": "nothing", "user": "shapes-nobody", "channel": "nothing",
    "exchange": "amq.direct", "queue": "q", "target": "amq.fanout", "props": "~", "flag": "quorum_queue",
    "within": "1", "unit": "days", "port": "{amqp_port}", "protocol": "amqp091"}
PART = re.compile(r":([a-z]+)")


def filled(path: str, **values: str) -> str:
    """Return a path with its variable parts filled."""
    return PART.sub(lambda part: {**EXAMPLES, **values}[part[1]], path)
