"""What a file of RabbitMQ defines and amqpd does not have: streams, exchanges of plugins, and bindings to them.

They are kept as parameters of their vhost, so that they are stored, deleted with the vhost, listed by
`list_parameters`, and exported again in their places. Each value is the object of the file without its vhost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from amqpd.broker.definitions import ParameterDefinition

# By the name of the list in the file.
KEPT = {
    "queues": "amqpd-kept-queues",
    "exchanges": "amqpd-kept-exchanges",
    "bindings": "amqpd-kept-bindings",
}


def keep(section: str, vhost: str, values: Mapping[str, Any]) -> ParameterDefinition:
    """Return the parameter that keeps an object of this list."""
    value = {key: values[key] for key in sorted(values) if key != "vhost"}
    return ParameterDefinition(vhost, KEPT[section], name_of(section, value), value)


def name_of(section: str, values: Mapping[str, Any]) -> str:
    """Return the name of an object of this list; bindings, which have none, have a hash of what they are."""
    if section != "bindings":
        name: str = values["name"]
        return name
    identity = [
        values.get("source"), values.get("destination_type", "queue"), values.get("destination"),
        values.get("routing_key") or "", values.get("arguments") or {}]
    return hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()
