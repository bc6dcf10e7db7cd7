"""What an import would change: the plan of a file, compared with the broker. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from amqpd.broker.broker import Broker
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
from amqpd.broker.passwords import password_matches
from amqpd.management.definitions_json.plan import AnyDefinition, Plan

MOST_PASSWORDS = 50     # that are checked, each takes about 0.1 s; of further ones it is not known
PASSWORD = "password"
# Fields that are one thing for an operator, and of which no value may be told.
OF_PASSWORDS = frozenset({"password_hash", "hashing_algorithm", "scram_sha256"})


class Change(msgspec.Struct):
    """What would become of one definition: `change` is "added", "changed" or "same", `fields` has what differs."""

    kind: str
    vhost: str
    name: str
    change: str
    fields: list[str] = []


def known_passwords(plan: Plan, broker: Broker) -> set[str]:
    """Return the users whose password in the file is the one that they have. May be called in a thread."""
    found = set()
    for name, password in list(plan.passwords.items())[:MOST_PASSWORDS]:
        user = broker.users.get(name)
        if user is not None and password_matches(user.definition, password):
            found.add(name)
    return found


def compare(plan: Plan, broker: Broker, known: set[str]) -> Iterator[Change]:
    """Yield what would become of each definition. `known` are users who have the password of the file already."""
    policies: dict[str, Mapping[tuple[bool, str], PolicyDefinition]] = {}
    for definition in plan:
        kind, vhost, name = _identity(definition)
        current = _current(definition, broker, policies)
        if current is None:
            yield Change(kind, vhost, name, "added")
            continue
        fields = _differences(current, definition, has_plain=name in plan.passwords, is_known=name in known)
        yield Change(kind, vhost, name, "changed" if fields else "same", fields)


def _differences(current: Any, wanted: Any, *, has_plain: bool, is_known: bool) -> list[str]:
    found = list[str]()
    for field in wanted.__struct_fields__:
        if isinstance(wanted, UserDefinition) and field in OF_PASSWORDS:
            differs = not is_known if has_plain else getattr(current, field) != getattr(wanted, field)
            field = PASSWORD
        else:
            differs = getattr(current, field) != getattr(wanted, field)
        if differs and field not in found:
            found.append(field)
    return found


def _identity(definition: AnyDefinition) -> tuple[str, str, str]:
    """Return the kind, the vhost and the name of a definition, as an operator is told them."""
    match definition:
        case UserDefinition(name=name):
            return "user", "", name
        case VhostDefinition(name=name):
            return "vhost", "", name
        case PermissionDefinition(user=user, vhost=vhost):
            return "permissions", vhost, user
        case TopicPermissionDefinition(user=user, vhost=vhost, exchange=exchange):
            return "topic permissions", vhost, f"{user} on {exchange}"
        case GlobalParameterDefinition(name=name):
            return "global parameter", "", name
        case ParameterDefinition(vhost=vhost, component=component, name=name):
            return "parameter", vhost, f"{component} {name}"
        case PolicyDefinition(vhost=vhost, name=name, is_operator=is_operator):
            return "operator policy" if is_operator else "policy", vhost, name
        case ExchangeDefinition(vhost=vhost, name=name):
            return "exchange", vhost, name
        case QueueDefinition(vhost=vhost, name=name):
            return "queue", vhost, name
        case BindingDefinition(vhost=vhost):
            return "binding", vhost, f"{definition.source} → {definition.destination} ({definition.routing_key})"


def _current(
    definition: AnyDefinition, broker: Broker, policies: dict[str, Mapping[tuple[bool, str], PolicyDefinition]]
) -> Any:
    """Return what the broker has in the place of a definition; None if nothing."""
    match definition:
        case UserDefinition(name=name):
            user = broker.users.get(name)
            return None if user is None else user.definition
        case VhostDefinition(name=name):
            return broker.vhost_definitions.get(name)
        case PermissionDefinition(user=name, vhost=vhost):
            user = broker.users.get(name)
            return None if user is None else user.permissions.get(vhost)
        case TopicPermissionDefinition(user=name, vhost=vhost, exchange=exchange):
            user = broker.users.get(name)
            return None if user is None else user.topic_permissions.get((vhost, exchange))
        case GlobalParameterDefinition(name=name):
            value = broker.parameters.global_value(name)
            return None if value is None else GlobalParameterDefinition(name, value)
        case ParameterDefinition(vhost=vhost, component=component, name=name):
            value = broker.parameters.value(vhost, component, name)
            return None if value is None else ParameterDefinition(vhost, component, name, value)
        case PolicyDefinition(vhost=vhost, name=name, is_operator=is_operator):
            return _policies_of(vhost, broker, policies).get((is_operator, name))
    return None         # of exchanges, queues and bindings a plan has only what there is not


def _policies_of(
    vhost: str, broker: Broker, known: dict[str, Mapping[tuple[bool, str], PolicyDefinition]]
) -> Mapping[tuple[bool, str], PolicyDefinition]:
    if vhost not in known:
        home = broker.vhosts.get(vhost)
        known[vhost] = {} if home is None else {
            (is_operator, one.name): one
            for is_operator in (False, True) for one in home.policies.listed(is_operator=is_operator)}
    return known[vhost]
