"""The objects of a broker as records, with RabbitMQ's names of the columns.

Owns the names and the shapes, and no state: each record is made when it is asked for. A field table becomes a list of
[name, type, value], as in rabbitmqctl's JSON, since plain JSON would lose the types.

RabbitMQ docs/man/rabbitmqctl.8 (the columns of the list commands).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from amqpd.broker.access import RIGHTS, User
from amqpd.broker.broker import Broker
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.statistics import ConnectionStatistics
from amqpd.broker.vhost import Vhost
from amqpd.fields import Float, TypedInt, type_name
from amqpd.identity import NODE_NAME
from amqpd.management import queue_usage

Record = dict[str, Any]


# Columns that RabbitMQ has and amqpd does not, or does not count: empty, as RabbitMQ shows a value it does not know.
NOT_OF_QUEUES = dict.fromkeys(
    ("slave_pids", "synchronised_slave_pids", "leader", "online", "members", "disk_writes"), "")
WITHOUT_TLS = {"ssl": False} | dict.fromkeys(("ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash"), "")
WITHOUT_CERTIFICATE = dict.fromkeys(("peer_cert_issuer", "peer_cert_subject", "peer_cert_validity"), "")


def pid(connection: int, channel: int = 0) -> str:
    """Return the token for a connection or one of its channels, in the shape of an Erlang process id.

    The token of a queue has the queue's number in the place of the channel's, and connection 0.
    """
    return f"<{NODE_NAME}.1.{connection}.{channel}>"


def queues(
    broker: Broker, vhost: Vhost, columns: Collection[str], most_counted: int = queue_usage.MOST_COUNTED
) -> Iterator[Record]:
    """Yield the queues of a vhost; of `queue_usage.COLUMNS` only those that are asked for are computed.

    Up to `most_counted` unacknowledged messages of the vhost are visited for them.
    """
    wants_queue_usage = not queue_usage.COLUMNS.isdisjoint(columns)
    runs = queue_usage.unacked_runs(broker, vhost, most_counted) if wants_queue_usage else None
    owners = {id(connection.owner): pid(key) for key, connection in broker.connections.items()}
    for queue in vhost.queues.values():
        definition = queue.definition
        applied = vhost.policies.of_queue(definition)
        held = queue_usage.queue_usage(queue, runs) if wants_queue_usage else {}
        statistics = queue.statistics()
        yield held | _consumers_of(queue) | NOT_OF_QUEUES | {
            "name": queue.name,
            "pid": pid(0, definition.number),
            "type": definition.arguments.get("x-queue-type", "classic"),
            "state": "paused" if definition.is_paused else "running",
            "durable": definition.durable,
            "auto_delete": definition.auto_delete,
            "exclusive": definition.exclusive,
            "arguments": field_table(definition.arguments),
            "policy": applied.policy.name if applied.policy else "",
            "operator_policy": applied.operator_policy.name if applied.operator_policy else "",
            "effective_policy_definition": field_table(applied.effective),
            "owner_pid": owners.get(id(queue.owner), ""),
            "messages": statistics.ready + statistics.unacked,
            "messages_ready": statistics.ready,
            "messages_unacknowledged": statistics.unacked,
            "messages_set_aside": statistics.set_aside,
            "message_bytes_ready": statistics.ready_bytes,
            "consumers": statistics.consumers,
            "published": statistics.published,
            "delivered": statistics.delivered,
            "got": statistics.got,
            "redelivered": statistics.redelivered,
            "settled": statistics.settled,
            "acked": statistics.acked,
            "purged": statistics.purged,
            "expired": statistics.expired,
            "rejected": statistics.rejected,
            "over_length": statistics.over_length,
            "over_delivery_limit": statistics.over_delivery_limit,
            "dead_lettered": statistics.dead_lettered,
            "disk_reads": queue.pager.read_total,
        }


def _consumers_of(queue: Queue) -> Record:
    """Return the columns on a queue's consumers. `consumer_utilisation` is not measured and stays empty."""
    exclusive = next((consumer for consumer in queue.consumers if consumer.exclusive), None)
    capacity = "" if queue.consumers else 0
    return {
        "exclusive_consumer_pid": pid(*exclusive.subscriber.address) if exclusive else "",
        "exclusive_consumer_tag": exclusive.tag if exclusive else "",
        "single_active_consumer_tag": queue.dispatcher.active.tag if queue.dispatcher.active else "",
        "consumer_capacity": capacity,
        "consumer_utilisation": capacity,
    }


def exchanges(vhost: Vhost) -> Iterator[Record]:
    """Yield the exchanges of a vhost, also the default exchange, named ""."""
    for exchange in vhost.exchanges.values():
        definition = exchange.definition
        policy = vhost.policies.of_exchange(exchange.name).policy
        yield {
            "name": exchange.name,
            "type": definition.type,
            "durable": definition.durable,
            "auto_delete": definition.auto_delete,
            "internal": definition.internal,
            "arguments": field_table(definition.arguments),
            "policy": policy.name if policy else "",
        }


def bindings(vhost: Vhost) -> Iterator[Record]:
    """Yield the bindings of a vhost; first those of every queue to the default exchange. Spec: §3.1.3.1."""
    for name in vhost.queues:
        yield _binding("", "queue", name, name, {})
    for binding in vhost.bindings():
        yield _binding(
            binding.source, binding.destination_type, binding.destination, binding.routing_key, binding.arguments)


def _binding(source: str, kind: str, destination: str, routing_key: str, arguments: Mapping[str, Any]) -> Record:
    return {
        "source_name": source,
        "source_kind": "exchange",
        "destination_name": destination,
        "destination_kind": kind,
        "routing_key": routing_key,
        "arguments": field_table(arguments),
    }


def connections(broker: Broker) -> Iterator[Record]:
    """Yield every open connection."""
    for key, connection in broker.connections.items():
        statistics = connection.statistics()
        yield tls_columns(statistics) | {
            "pid": pid(key),
            "name": statistics.name,
            "user": statistics.user,
            "vhost": statistics.vhost,
            "peer_host": statistics.peer_host,
            "peer_port": statistics.peer_port,
            "host": statistics.host,
            "port": statistics.port,
            "protocol": "AMQP 0-9-1",
            "auth_mechanism": statistics.auth_mechanism,
            "state": statistics.state,
            "channels": statistics.channels,
            "channel_max": statistics.channel_max,
            "frame_max": statistics.frame_max,
            "timeout": statistics.heartbeat_s,
            "client_properties": field_table(statistics.client_properties),
            "user_provided_name": statistics.client_properties.get("connection_name", ""),
            "connected_at": statistics.connected_at_ms,
            "recv_oct": statistics.received_bytes,
            "send_oct": statistics.sent_bytes,
            "recv_cnt": statistics.received_count,
            "send_cnt": statistics.sent_count,
            "send_pend": statistics.unsent_bytes,
        }


def tls_columns(statistics: ConnectionStatistics) -> Record:
    """Return the columns on TLS and on the client's certificate."""
    record = dict(WITHOUT_TLS | WITHOUT_CERTIFICATE)
    if (tls := statistics.tls) is not None:
        record |= {
            "ssl": True,
            "ssl_protocol": tls.protocol,
            "ssl_key_exchange": tls.key_exchange,
            "ssl_cipher": tls.cipher,
            "ssl_hash": tls.hash,
        }
    if (certificate := statistics.peer_certificate) is not None:
        record |= {
            "peer_cert_issuer": certificate.issuer,
            "peer_cert_subject": certificate.subject,
            "peer_cert_validity": f"{_utc(certificate.not_before)} - {_utc(certificate.not_after)}",
        }
    return record


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def channels(broker: Broker) -> Iterator[Record]:
    """Yield every open channel."""
    for key, connection in broker.connections.items():
        for statistics in connection.channel_statistics():
            yield {
                "pid": pid(key, statistics.number),
                "connection": pid(key),
                "name": statistics.name,
                "number": statistics.number,
                "user": statistics.user,
                "vhost": statistics.vhost,
                "consumer_count": statistics.consumers,
                "prefetch_count": statistics.prefetch,
                "global_prefetch_count": statistics.shared_prefetch,
                "messages_unacknowledged": statistics.unacked,
                "messages_unconfirmed": statistics.unconfirmed,
                "messages_uncommitted": statistics.uncommitted,
                "acks_uncommitted": statistics.uncommitted_acks,
                "replies_dropped": statistics.dropped_replies,
                "confirm": statistics.has_confirms,
                "transactional": statistics.is_transactional,
            }


def consumers(vhost: Vhost) -> Iterator[Record]:
    """Yield the consumers of a vhost, queue by queue."""
    for queue in vhost.queues.values():
        for consumer in queue.consumers:
            yield {
                "queue_name": queue.name,
                "channel_pid": pid(*consumer.subscriber.address),
                "consumer_tag": consumer.tag,
                "ack_required": not consumer.no_ack,
                "prefetch_count": consumer.prefetch,
                "active": queue.dispatcher.active in (None, consumer),
                "activity_status": _activity_status(queue, consumer),
                "messages_unacknowledged": consumer.in_flight,
                "unacked_limit_reached": consumer.is_at_unacked_limit,
                "arguments": field_table(consumer.arguments),
            }


def _activity_status(queue: Queue, consumer: Consumer[Queue]) -> str:
    if queue.dispatcher.active is None:
        return "up"
    return "single_active" if consumer is queue.dispatcher.active else "waiting"


def users(broker: Broker) -> Iterator[Record]:
    """Yield the users."""
    for user in broker.users.values():
        yield {"user": user.name, "tags": list(user.definition.tags)}


def permissions(broker: Broker, vhost: Vhost) -> Iterator[Record]:
    """Yield the permissions in a vhost."""
    for user in broker.users.values():
        permission = user.permissions.get(vhost.name)
        if permission is not None:
            yield {name: getattr(permission, name) for name in ("user", *RIGHTS)}


def topic_permissions(broker: Broker, vhost: Vhost) -> Iterator[Record]:
    """Yield the topic permissions in a vhost."""
    for user in broker.users.values():
        for permission in user.topic_permissions.values():
            if permission.vhost == vhost.name:
                yield {name: getattr(permission, name) for name in ("user", "exchange", "write", "read")}


def user_topic_permissions(user: User) -> Iterator[Record]:
    """Yield the topic permissions of a user."""
    for permission in user.topic_permissions.values():
        yield {name: getattr(permission, name) for name in ("vhost", "exchange", "write", "read")}


def user_permissions(user: User) -> Iterator[Record]:
    """Yield the permissions of a user, vhost by vhost."""
    for permission in user.permissions.values():
        yield {name: getattr(permission, name) for name in ("vhost", *RIGHTS)}


def policies(vhost: Vhost, *, is_operator: bool) -> Iterator[Record]:
    """Yield the users' policies or the operator policies, lowest priority first; definitions are JSON."""
    for policy in vhost.policies.listed(is_operator=is_operator):
        yield {
            "vhost": policy.vhost,
            "name": policy.name,
            "pattern": policy.pattern,
            "apply-to": policy.apply_to,
            "definition": json.dumps(
                policy.definition, ensure_ascii=False, separators=(",", ":"), sort_keys=True),
            "priority": policy.priority,
        }


def vhosts(broker: Broker) -> Iterator[Record]:
    """Yield the vhosts."""
    for definition in broker.vhost_definitions.values():
        yield {
            "name": definition.name,
            "description": definition.description,
            "tags": list(definition.tags),
            "default_queue_type": definition.default_queue_type or "undefined",
            "protected_from_deletion": definition.protected_from_deletion,
            "tracing": broker.vhosts[definition.name].taps.firehose is not None,
            "cluster_state": {NODE_NAME: "running"},
        }


def field_table(table: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Return a field table in a form that JSON can hold, with RabbitMQ's names of the types."""
    return [(name, *_typed(value)) for name, value in table.items()]


def _typed(value: Any) -> tuple[str, Any]:
    shown: Any = value
    if isinstance(value, Mapping):
        shown = field_table(value)
    elif isinstance(value, list):
        shown = [_typed(item) for item in value]
    elif isinstance(value, bytes):
        shown = value.decode(errors="backslashreplace")
    elif isinstance(value, TypedInt):
        shown = int(value)
    elif isinstance(value, Float):
        shown = float(value)
    elif isinstance(value, Decimal):
        shown = str(value)
    return type_name(value), shown
