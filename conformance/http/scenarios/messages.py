"""Messages are published, fetched and purged over HTTP, in every form and wrongly."""
from __future__ import annotations

from typing import Any

from conformance.http.clients import Clients
from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, vhost_made
from conformance.http.steps import Act, Request, Step, delete, get, post, put

V = VHOST
GET = f"/queues/{V}/q/get"
PUBLISH = f"/exchanges/{V}/amq.default/publish"
PROPERTIES = {
    "content_type": "text/plain", "content_encoding": "utf-8",
    "headers": {"n": 1, "t": "x", "l": [1, 2], "o": {"a": True}},
    "delivery_mode": 2, "priority": 3, "correlation_id": "c", "reply_to": "r", "expiration": "60000",
    "message_id": "m", "timestamp": 1_700_000_000, "type": "t", "user_id": "{me}", "app_id": "a", "cluster_id": "k"}


def message(**changes: Any) -> dict[str, Any]:
    """Return a body for publish; None leaves a key out."""
    whole = {"properties": {}, "routing_key": "q", "payload": "hello", "payload_encoding": "string"} | changes
    return {key: value for key, value in whole.items() if value is not None}


def fetched(**changes: Any) -> Request:
    """Return a request that gets messages from queue q."""
    whole = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"} | changes
    return post(GET, {key: value for key, value in whole.items() if value is not None}, exact=True)


def odd_messages(clients: Clients) -> None:
    """Publish over AMQP what JSON cannot hold as it is."""
    clients.connect("publisher", V)
    channel = clients.open("publisher", "publisher")
    channel.confirm_select()
    clients.publish("publisher", "", "q", body=b"\xff\xfe")
    clients.publish("publisher", "", "q", body="é".encode())
    clients.publish("publisher", "", "q", body=b"")
    clients.publish("publisher", "", "q", body=b"0123456789",
                    headers={"b": b"\xff", "none": None, "deep": [[1], {"a": 2}]})
    channel.confirms(4)


STEPS: tuple[Step, ...] = (
    # Publish
    post(PUBLISH, message(), exact=True),
    post(PUBLISH, message(routing_key="nowhere"), exact=True),
    post(PUBLISH, message(payload="aGk=", payload_encoding="base64"), exact=True),
    post(PUBLISH, message(properties=PROPERTIES), exact=True),
    post(PUBLISH, message(properties={"user_id": "somebody"})),
    post(PUBLISH, message(properties={"priority": "high"})),
    post(PUBLISH, message(properties={"priority": "3"})),
    post(PUBLISH, message(properties={"priority": 300})),
    post(PUBLISH, message(properties={"delivery_mode": "2"}), exact=True),
    post(PUBLISH, message(properties={"delivery_mode": 9})),
    post(PUBLISH, message(properties={"expiration": "soon"})),
    post(PUBLISH, message(properties={"expiration": 1000})),
    post(PUBLISH, message(properties={"headers": "text"})),
    post(PUBLISH, message(properties={"nonsense": 1}), exact=True),
    post(PUBLISH, message(properties=[])),
    post(PUBLISH, message(properties="text")),
    post(PUBLISH, message(payload="not base64!", payload_encoding="base64")),
    post(PUBLISH, message(payload_encoding="nonsense")),
    post(PUBLISH, message(payload=1)),
    post(PUBLISH, message(payload={"a": 1})),
    post(PUBLISH, message(routing_key=1)),
    post(PUBLISH, message(properties=None)),
    post(PUBLISH, message(routing_key=None)),
    post(PUBLISH, message(payload=None)),
    post(PUBLISH, message(payload_encoding=None)),
    post(PUBLISH, {}),
    post(PUBLISH),
    post(PUBLISH, b"{"),
    post(f"/exchanges/{V}/nothing/publish", message()),
    post("/exchanges/nothing/amq.default/publish", message()),
    post(f"/exchanges/{V}/internal/publish", message()),
    post(f"/exchanges/{V}/amq.fanout/publish", message(), exact=True),
    # Get
    delete(f"/queues/{V}/q/contents"),
    fetched(),
    post(PUBLISH, message(payload="one"), exact=True),
    post(PUBLISH, message(payload="two", properties=PROPERTIES), exact=True),
    post(PUBLISH, message(payload="three", properties={"headers": {}}), exact=True),
    fetched(ackmode="ack_requeue_true", count=10),
    fetched(ackmode="reject_requeue_true", count=1),
    fetched(ackmode="ack_requeue_true", count=2, encoding="base64"),
    fetched(ackmode="ack_requeue_true", truncate=2),
    fetched(ackmode="ack_requeue_true", truncate=0),
    fetched(count=0),
    fetched(count="many"),
    fetched(count=None),
    fetched(ackmode=None),
    fetched(encoding=None),
    fetched(ackmode="nonsense"),
    fetched(encoding="nonsense"),
    fetched(truncate="x"),
    post(GET, {"count": 1, "requeue": "true", "encoding": "auto"}),
    post(GET, {}),
    post(GET),
    post(GET, b"{"),
    post(f"/queues/{V}/nothing/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}),
    post("/queues/nothing/q/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}),
    fetched(count=2),
    fetched(count="1"),
    post(PUBLISH, message(), exact=True),
    fetched(ackmode="reject_requeue_false", count=10),
    post(PUBLISH, message(), exact=True),
    fetched(count=-1),
    fetched(),
    Act("messages that JSON cannot hold", odd_messages),
    fetched(ackmode="ack_requeue_true", count=10),
    fetched(count=10, truncate=3),
    post(f"/queues/{V}/jobs/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}, exact=True),
    post(f"/exchanges/{V}/amq.default/publish", message(routing_key="jobs"), exact=True),
    post(f"/queues/{V}/jobs/get", {"count": 1, "ackmode": "reject_requeue_true", "encoding": "auto"}),
    # Purge
    post(PUBLISH, message(), exact=True),
    delete(f"/queues/{V}/q/contents"),
    get(f"/queues/{V}/q/contents"),
    fetched(),
)

SCENARIO = Scenario(
    "messages", "Messages are published, fetched and purged over HTTP, in every form and wrongly.", STEPS,
    prepare=(*vhost_made(), put(f"/queues/{V}/q", {"durable": True}),
             put(f"/queues/{V}/jobs", {"durable": True, "arguments": {"x-queue-type": "quorum"}}),
             put(f"/exchanges/{V}/internal", {"type": "fanout", "internal": True})),
    cleanup=everything_deleted())
