"""The routes of consumers. RabbitMQ docs/http-api-reference (consumers)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.identity import NODE_NAME
from amqpd.management.http.access import Access
from amqpd.management.http.lists import Source, whole_list
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.json_values import plain


def record(broker: Broker, queue: Queue, consumer: Consumer[Queue]) -> dict[str, Any]:
    """Return a consumer as JSON has it."""
    active = queue.dispatcher.active
    return {
        "consumer_tag": consumer.tag,
        "queue": {"name": queue.name, "vhost": queue.definition.vhost},
        "channel_details": channel_details(broker, *consumer.subscriber.address),
        "ack_required": not consumer.no_ack,
        "exclusive": consumer.exclusive,
        "prefetch_count": consumer.prefetch,
        "active": active in (None, consumer),
        "activity_status": "up" if active is None else "single_active" if consumer is active else "waiting",
        "arguments": plain(consumer.arguments),
        "consumer_timeout": _timeout_ms(consumer),
        "messages_unacknowledged": consumer.in_flight,
    }


def _timeout_ms(consumer: Consumer[Queue]) -> int:
    """Return the limit for an answer that the consumer asked for; 0 for that of the broker."""
    asked = consumer.arguments.get("x-consumer-timeout", 0)
    return int(asked) if isinstance(asked, int) and not isinstance(asked, bool) else 0


def channel_details(broker: Broker, connection: int, channel: int) -> dict[str, Any]:
    """Return what lists tell of a channel; nothing if its connection has just ended."""
    found = broker.connections.get(connection)
    if found is None:
        return {}
    statistics = found.statistics()
    return {
        "name": f"{statistics.name} ({channel})",
        "number": channel,
        "user": statistics.user,
        "connection_name": statistics.name,
        "peer_host": statistics.peer_host,
        "peer_port": statistics.peer_port,
        "node": NODE_NAME,
    }


def list_consumers(request: Request) -> Any:
    """Return the consumers in the vhosts that the user sees."""
    visible = request.visible_vhosts()
    if "vhost" in request.names and not request.user_may_see(request.names["vhost"]):
        visible = []
    return whole_list(request, Source(
        consumers_of(visible), lambda one: one[1].tag, lambda one: record(request.broker, *one)))


def consumers_of(vhosts: Iterable[Vhost]) -> Iterator[tuple[Queue, Consumer[Queue]]]:
    """Yield the consumers in vhosts with their queues, which may come and go meanwhile."""
    for vhost in vhosts:
        for queue in [*vhost.queues.values()]:
            yield from ((queue, consumer) for consumer in [*queue.consumers])


ROUTES = [
    Route(method="GET", path="/api/consumers", handler=list_consumers, access=Access.LOGIN, is_list=True,
          summary="All consumers"),
    Route(method="GET", path="/api/consumers/{vhost}", handler=list_consumers, access=Access.LOGIN, is_list=True,
          summary="The consumers in a vhost"),
]
