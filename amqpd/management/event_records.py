"""The broker's events as records, with the names and the properties of RabbitMQ's event exchange.

Owns the names and the shapes, and no state. Tables of arguments and client properties are JSON objects, as in
RabbitMQ's HTTP API; the messages of its event exchange have them as Erlang terms.

RabbitMQ docs/event-exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpd.broker.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.events import Event
from amqpd.broker.statistics import ConnectionStatistics
from amqpd.identity import NODE_NAME
from amqpd.management.json_values import plain
from amqpd.management.listings import pid

Record = dict[str, Any]

WITHOUT_ACTOR = ("alarm.", "user.authentication.")      # events that RabbitMQ knows no user of


def event_record(event: Event) -> Record:
    """Return an event as a record."""
    make = _RECORDS.get(event.name) or _BY_TYPE[type(event.subject)]
    record = {"event": event.name, "timestamp_in_ms": event.at_ms, **make(event)}
    if event.name == "queue.created":
        record["owner_pid"] = _owner_pid(event.facts["owner"])
    if not event.name.startswith(WITHOUT_ACTOR):
        record["user_who_performed_action"] = event.by
    return record


def plain_value(value: Any) -> Any:
    """Return a field value as JSON has it; a decimal number is a text, which has all its digits."""
    return plain(value, decimal=str)


# Connections, channels and consumers

def _connection_created(event: Event) -> Record:
    found: ConnectionStatistics = event.subject
    return _connection(event) | {
        "user": found.user,
        "vhost": found.vhost,
        "host": found.host,
        "port": found.port,
        "peer_host": found.peer_host,
        "peer_port": found.peer_port,
        "type": "network",
        "protocol": "AMQP 0-9-1",
        "ssl": found.tls is not None,
        "auth_mechanism": found.auth_mechanism,
        "channel_max": found.channel_max,
        "frame_max": found.frame_max,
        "timeout": found.heartbeat_s,
        "connected_at": found.connected_at_ms,
        "user_provided_name": plain_value(found.client_properties.get("connection_name", "")),
    }


def _connection(event: Event) -> Record:
    found: ConnectionStatistics = event.subject
    return {
        "name": found.name,
        "pid": pid(event.facts["connection_number"]),
        "node": NODE_NAME,
        "client_properties": plain_value(found.client_properties),
    }


def _channel(event: Event) -> Record:
    facts = event.facts
    return {
        "name": f"{facts['connection']} ({facts['channel_number']})",
        "number": facts["channel_number"],
        "pid": pid(facts["connection_number"], facts["channel_number"]),
        "connection": pid(facts["connection_number"]),
        "user": facts["user"],
        "vhost": facts["vhost"],
    }


def _consumer(event: Event) -> Record:
    consumer = event.subject
    return {
        "consumer_tag": consumer.tag,
        "queue": consumer.queue.name,
        "vhost": event.facts["vhost"],
        "channel": pid(event.facts["connection_number"], event.facts["channel_number"]),
    }


def _consumer_created(event: Event) -> Record:
    consumer = event.subject
    return _consumer(event) | {
        "ack_required": not consumer.no_ack,
        "exclusive": consumer.exclusive,
        "prefetch_count": consumer.prefetch,
        "arguments": plain_value(consumer.arguments),
    }


def _login(event: Event) -> Record:
    facts = event.facts
    peer, _, host = facts["connection"].partition(" -> ")
    record = {
        "name": facts["user"],
        "connection_name": facts["connection"],
        "connection_type": "network",
        "peer_host": peer.rpartition(":")[0],
        "peer_port": int(peer.rpartition(":")[2] or 0),
        "host": host.rpartition(":")[0],
        "protocol": "AMQP 0-9-1",
        "auth_mechanism": facts["mechanism"],
        "ssl": facts["is_tls"],
    }
    return record | {"error": facts["error"]} if "error" in facts else record


# Definitions

def _named(event: Event) -> Record:
    """Return what a deletion tells: the name, and the vhost of what is in one."""
    vhost = getattr(event.subject, "vhost", None)
    return {"name": event.subject.name} | ({} if vhost is None else {"vhost": vhost})


def _of_queue(event: Event) -> Record:
    queue: QueueDefinition = event.subject
    return _named(event) | {
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "exclusive": queue.exclusive,
        "arguments": plain_value(queue.arguments),
    }


def _owner_pid(owner: object) -> str:
    """Return the pid of the connection that owns an exclusive queue, or ""."""
    number = getattr(owner, "number", None)
    return "" if number is None else pid(number)


def _of_exchange(event: Event) -> Record:
    exchange: ExchangeDefinition = event.subject
    return _named(event) | {
        "type": exchange.type,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": plain_value(exchange.arguments),
    }


def _of_binding(event: Event) -> Record:
    binding: BindingDefinition = event.subject
    return {
        "source_name": binding.source,
        "source_kind": "exchange",
        "destination_name": binding.destination,
        "destination_kind": binding.destination_type,
        "routing_key": binding.routing_key,
        "arguments": plain_value(binding.arguments),
        "vhost": binding.vhost,
    }


def _of_vhost(event: Event) -> Record:
    vhost: VhostDefinition = event.subject
    return _named(event) | {
        "description": vhost.description,
        "tags": list(vhost.tags),
        "default_queue_type": vhost.default_queue_type or "undefined",
    }


def _of_permission(event: Event) -> Record:
    permission: PermissionDefinition | TopicPermissionDefinition = event.subject
    record = {"user": permission.user, "vhost": permission.vhost}
    if isinstance(permission, TopicPermissionDefinition):
        record["exchange"] = permission.exchange
    else:
        record["configure"] = permission.configure
    return record | {"write": permission.write, "read": permission.read}


def _permission_deleted(event: Event) -> Record:
    record = _of_permission(event)
    return {name: record[name] for name in ("user", "vhost", "exchange") if name in record}


def _of_policy(event: Event) -> Record:
    policy: PolicyDefinition = event.subject
    return _named(event) | {
        "pattern": policy.pattern,
        "definition": policy.definition,
        "priority": policy.priority,
        "apply-to": policy.apply_to,
        "is_operator": policy.is_operator,
    }


def _of_parameter(event: Event) -> Record:
    parameter: ParameterDefinition = event.subject
    return _named(event) | {"component": parameter.component}


def _of_global_parameter(event: Event) -> Record:
    return _named(event) | {"component": "global"}


def _of_user_limits(event: Event) -> Record:
    return {"name": "limits", "username": event.subject.name, **event.subject.limits}


_BY_TYPE: dict[type, Callable[[Event], Record]] = {
    QueueDefinition: _of_queue,
    ExchangeDefinition: _of_exchange,
    BindingDefinition: _of_binding,
    VhostDefinition: _of_vhost,
    UserDefinition: _named,
    PermissionDefinition: _of_permission,
    TopicPermissionDefinition: _of_permission,
    PolicyDefinition: _of_policy,
    # Without values, which may have a password.
    ParameterDefinition: _of_parameter,
    GlobalParameterDefinition: _of_global_parameter,
}
_RECORDS: dict[str, Callable[[Event], Record]] = {
    "connection.created": _connection_created,
    "connection.closed": _connection,
    "channel.created": _channel,
    "channel.closed": _channel,
    "consumer.created": _consumer_created,
    "consumer.deleted": _consumer,
    "user.authentication.success": _login,
    "user.authentication.failure": _login,
    "user.tags.set": lambda event: _named(event) | {"tags": list(event.subject.tags)},
    "user.limits.set": _of_user_limits,
    "user.limits.cleared": _of_user_limits,
    "vhost.limits.set": lambda event: _named(event) | event.subject.value,
    "queue.deleted": _named,
    "queue.paused": _named,         # RabbitMQ has no such event
    "queue.resumed": _named,
    "exchange.deleted": _named,
    "vhost.deleted": _named,
    "permission.deleted": _permission_deleted,
    "topic.permission.deleted": _permission_deleted,
    "policy.cleared": _named,
    "operator.policy.cleared": _named,
    "alarm.set": lambda event: {"source": event.facts["source"], "node": NODE_NAME},
    "alarm.cleared": lambda event: {"source": event.facts["source"], "node": NODE_NAME},
}
