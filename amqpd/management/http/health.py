"""The routes of health checks: 200 if all is well, 503 with the reason if not.

RabbitMQ docs/monitoring (health checks), docs/http-api-reference.
"""

from __future__ import annotations

from typing import Any

from pamqp.commands import Basic, Queue

from amqpd.identity import NODE_NAME
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, bad_request, not_authorised, not_found
from amqpd.management.http.context import ChannelClosed
from amqpd.management.http.nodes import listeners
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route

OK = {"status": "ok"}
SINGLE_NODE = {"status": "ok", "reason": "single node cluster"}
ALIVENESS_QUEUE = "aliveness-test"
PROTOCOLS = {
    "amqp": "amqp", "amqp091": "amqp", "amqp0.9.1": "amqp", "amqp-091": "amqp", "amqps": "amqp/ssl",
    "amqp/ssl": "amqp/ssl", "amqp091s": "amqp/ssl", "http": "http", "https": "https"}
LOCAL_NAMES = {"disk": "disk space"}
DAYS = {"day": 1, "days": 1, "week": 7, "weeks": 7, "month": 30, "months": 30, "year": 365, "years": 365}


def failed(reason: str, **more: Any) -> Answer:
    """Return 503, with the reason."""
    return Answer(503, {"status": "failed", "reason": reason, **more})


async def test_aliveness(request: Request) -> Any:
    """Publish a message to a queue that is declared for it, and get it back. Raises HttpError."""
    request.vhost()
    try:
        async with request.context.connect(request.user, request.names["vhost"]) as channel:
            await channel.call(Queue.Declare(0, ALIVENESS_QUEUE))
            await channel.publish(Basic.Publish(0, "", ALIVENESS_QUEUE, mandatory=True), b"\0\0", b"test_message")
            content = await channel.get(ALIVENESS_QUEUE, no_ack=True)
    except ChannelClosed as error:
        raise not_authorised("Access refused.") if error.is_connection or error.code == 403 else bad_request(
            error.text) from None
    return OK if content is not None else failed("the test message did not come back")


def check_node(request: Request) -> Any:
    """Check for alarms. Raises HttpError: 404 for another node."""
    if request.names.get("node", NODE_NAME) != NODE_NAME:
        raise not_found()
    return check_alarms(request)


def check_alarms(request: Request) -> Any:
    """Check for alarms."""
    return _no_alarms(request, "in the cluster", {})


def check_local_alarms(request: Request) -> Any:
    """Check for alarms of this node, which are all there are; RabbitMQ names one of them differently here."""
    return _no_alarms(request, "on the node", LOCAL_NAMES)


def _no_alarms(request: Request, where: str, names: dict[str, str]) -> Any:
    alarms = request.context.node.alarms.statistics()["alarms"]
    if not alarms:
        return OK
    return failed(f"There are alarms in effect {where}", alarms=[
        {"node": alarm["node"], "resource": names.get(alarm["resource"], alarm["resource"])} for alarm in alarms])


def check_nothing(request: Request) -> Any:
    """Answer that all is well: a broker that can answer serves clients, and all its vhosts run."""
    return OK


def check_cluster(request: Request) -> Any:
    """Answer that no other node is needed."""
    return SINGLE_NODE


def check_port(request: Request) -> Any:
    """Check that the broker listens on a port. Raises HttpError: 400."""
    try:
        port = int(request.names["port"])
    except ValueError:
        raise bad_request("Invalid port") from None
    ports = sorted({one["port"] for one in listeners(request)})
    return {"status": "ok", "port": port} if port in ports else failed(
        "No active listener", missing=port, ports=ports)


def check_protocol(request: Request) -> Any:
    """Check that the broker listens for a protocol."""
    asked = request.names["protocol"]
    protocol = PROTOCOLS.get(asked.lower(), asked)
    protocols = sorted({one["protocol"] for one in listeners(request)})
    return {"status": "ok", "protocol": protocol} if protocol in protocols else failed(
        "No active listener", missing=asked, protocols=protocols)


def check_certificates(request: Request) -> Any:
    """Check that no certificate expires within a time. Raises HttpError: 400."""
    try:
        within = int(request.names["within"])
    except ValueError:
        raise bad_request("Invalid expiration value.") from None
    if request.names["unit"] not in DAYS:
        raise bad_request("Time unit not recognised. Supported units: days, weeks, months, years.")
    most_days = within * DAYS[request.names["unit"]]
    expired = [one for one in request.context.node.certificates() if one["days_left"] < most_days]
    return failed("Certificates expiring", expired=expired) if expired else OK


def _check(path: str, handler: Any, summary: str) -> Route:
    return Route(method="GET", path=f"/api/health/checks/{path}", handler=handler, access=Access.LOGIN, summary=summary)


ROUTES = [
    Route(method="GET", path="/api/aliveness-test/{vhost}", handler=test_aliveness, access=Access.VHOST,
          summary="Publish a message and get it back"),
    *(Route(method="GET", path=path, handler=check_node, access=Access.LOGIN, summary="No alarms are in effect")
      for path in ("/api/healthchecks/node", "/api/healthchecks/node/{node}")),
    _check("alarms", check_alarms, "No alarms are in effect"),
    _check("local-alarms", check_local_alarms, "No alarms are in effect"),
    _check("virtual-hosts", check_nothing, "All vhosts run"),
    _check("is-in-service", check_nothing, "The broker serves clients"),
    _check("ready-to-serve-clients", check_nothing, "The broker serves clients"),
    _check("below-node-connection-limit", check_nothing, "More clients can connect"),
    _check("metadata-store/initialized", check_nothing, "The store is open"),
    _check("metadata-store/initialized/with-data", check_nothing, "The store is open"),
    _check("node-is-mirror-sync-critical", check_cluster, "No other node is needed"),
    _check("node-is-quorum-critical", check_cluster, "No other node is needed"),
    _check("quorum-queues-without-elected-leaders/all-vhosts", check_nothing, "All quorum queues have a leader"),
    _check("port-listener/{port}", check_port, "The broker listens on a port"),
    _check("protocol-listener/{protocol}", check_protocol, "The broker listens for a protocol"),
    _check("certificate-expiration/{within}/{unit}", check_certificates, "No certificate expires within a time"),
]
