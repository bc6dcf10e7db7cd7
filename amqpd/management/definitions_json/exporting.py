"""Write the definitions of a broker as RabbitMQ's definitions.json.

`Snapshot` takes what there is at one moment, which is quick; the JSON is made of it piece by piece, in another thread
if the broker serves clients. Definitions never change, they are only replaced.

Always true: all lists and keys are sorted, so that equal definitions have equal bytes. Exclusive queues and names that
begin with `amq.` are left out. What a field table can hold and JSON cannot is written as the nearest that JSON has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

import msgspec

from amqpd import __version__
from amqpd.broker.arguments import CLASSIC, QUEUE_TYPE
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
from amqpd.broker.parameters import LIMITS, VHOST_LIMITS
from amqpd.broker.vhost import RESERVED_PREFIX
from amqpd.identity import RABBITMQ_VERSION
from amqpd.management.definitions_json.kept import KEPT, name_of
from amqpd.management.json_values import plain

PRODUCT = "amqpd"
OF_BROKER, OF_ONE_VHOST = "cluster", "single_virtual_host"
OPERATOR_POLICY = "operator_policy"
LOADED_HASH = "amqpd-loaded-definitions"        # the global parameter with the hash of the file that was loaded last
SORTED_AT_ONCE = 2_000

T = TypeVar("T")
Entry = dict[str, Any]
_SECTION_OF = {component: section for section, component in KEPT.items()}


class Snapshot:
    """The definitions of a broker, or of one vhost, at one moment. Raises KeyError if there is no such vhost.

    In those of one vhost, policies and parameters name it if `names_vhost` is true, as in RabbitMQ's management API.
    """

    def __init__(self, broker: Broker, vhost: str | None = None, *, names_vhost: bool = False) -> None:
        self._vhost = vhost
        self._with_vhost = ("parameters", "policies") if names_vhost else ()
        names = [*broker.vhosts] if vhost is None else [vhost]
        vhosts = [broker.vhosts[name] for name in names]
        self._vhosts = [broker.vhost_definitions[name] for name in names]
        self._limits = {name: broker.parameters.value(name, VHOST_LIMITS, LIMITS) for name in names}
        self._users = [user.definition for user in broker.users.values()]
        self._permissions = [one for user in broker.users.values() for one in user.permissions.values()]
        self._topic_permissions = [one for user in broker.users.values() for one in user.topic_permissions.values()]
        self._global_parameters = [*broker.parameters.of_broker]
        self._parameters = [one for name in names for one in broker.parameters.of_vhost(name)]
        self._policies = [one for home in vhosts for one in home.policies.listed(is_operator=False)]
        self._operator_policies = [one for home in vhosts for one in home.policies.listed(is_operator=True)]
        self._exchanges = [one.definition for home in vhosts for one in home.exchanges.values()]
        self._queues = [one.definition for home in vhosts for one in home.queues.values()]
        self._exclusive = {(one.vhost, one.name) for one in self._queues if one.exclusive}
        self._bindings = [one for home in vhosts for one in home.bindings()]

    def write(self) -> Iterator[bytes]:
        """Yield the JSON in pieces."""
        yield b"{"
        for number, (key, value) in enumerate(sorted({**self._about(), **self._sections()}.items())):
            yield (b"," if number else b"") + msgspec.json.encode(key) + b":"
            if isinstance(value, Iterator):
                yield b"["
                for position, entry in enumerate(value):
                    yield (b"," if position else b"") + _encode(entry)
                yield b"]"
            else:
                yield _encode(value)
        yield b"}\n"

    def _about(self) -> Entry:
        about: Entry = {
            "product_name": PRODUCT,
            "product_version": __version__,
            "rabbit_version": RABBITMQ_VERSION,
            "rabbitmq_version": RABBITMQ_VERSION,
            "rabbitmq_definition_format": OF_BROKER if self._vhost is None else OF_ONE_VHOST,
        }
        if self._vhost is not None:
            own = _vhost(self._vhosts[0], self._limits[self._vhost])
            del own["name"]
            about |= {"original_vhost_name": self._vhost, **own}
        return about

    def _sections(self) -> dict[str, Iterator[Entry]]:
        sections = {
            "parameters": self._parameter_entries(),
            "policies": map(_policy, _in_order(self._policies, _place)),
            "exchanges": self._with_kept("exchanges", map(_exchange, _in_order(
                [one for one in self._exchanges if _is_own(one.name)], _place))),
            "queues": self._with_kept("queues", map(_queue, _in_order(
                [one for one in self._queues if _is_own(one.name) and not one.exclusive], _place))),
            "bindings": self._with_kept("bindings", map(_binding, _in_order(
                [one for one in self._bindings if self._is_exported(one)], _binding_place))),
        }
        if self._vhost is not None:
            return {name: entries if name in self._with_vhost else map(_without_vhost, entries)
                    for name, entries in sections.items()}
        return {
            **sections,
            "users": map(_user, _in_order(self._users, _name)),
            "vhosts": (_vhost(one, self._limits[one.name]) for one in _in_order(self._vhosts, _name)),
            "permissions": map(_permission, _in_order(self._permissions, lambda one: (one.vhost, one.user))),
            "topic_permissions": map(_topic_permission, _in_order(
                self._topic_permissions, lambda one: (one.vhost, one.user, one.exchange))),
            "global_parameters": map(_global_parameter, _in_order(
                [one for one in self._global_parameters if one.name != LOADED_HASH], _name)),
        }

    def _parameter_entries(self) -> Iterator[Entry]:
        parameters = [one for one in self._parameters if one.component not in _SECTION_OF]
        policies = [
            ParameterDefinition(one.vhost, OPERATOR_POLICY, one.name, _without_vhost(_policy(one), "name"))
            for one in self._operator_policies]
        return map(_parameter, _in_order(
            [*parameters, *policies], lambda one: (one.vhost, one.component, one.name)))

    def _with_kept(self, section: str, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Yield entries, then what was kept of other brokers, unless the broker has it by now."""
        kept = [one for one in self._parameters if one.component == KEPT[section] and isinstance(one.value, dict)]
        seen = set()
        for entry in entries:
            if kept:
                seen.add((entry["vhost"], name_of(section, entry)))
            yield entry
        for one in _in_order(kept, _place):
            if (one.vhost, one.name) not in seen:
                yield {**one.value, "vhost": one.vhost}

    def _is_exported(self, binding: BindingDefinition) -> bool:
        return binding.destination_type == "exchange" or (
            _is_own(binding.destination) and (binding.vhost, binding.destination) not in self._exclusive)


def _is_own(name: str) -> bool:
    return bool(name) and not name.startswith(RESERVED_PREFIX)


# Order

def _in_order(items: Iterable[T], key: Callable[[T], Any]) -> Iterator[T]:
    """Yield items in order, sorting some at a time: one sort of all would not let another thread run."""
    rest = iter(items)
    runs = []
    while run := [*islice(rest, SORTED_AT_ONCE)]:
        runs.append(sorted(run, key=key))
    return merge(*runs, key=key)


def _name(one: UserDefinition | VhostDefinition | GlobalParameterDefinition) -> str:
    return one.name


def _place(one: PolicyDefinition | ExchangeDefinition | QueueDefinition | ParameterDefinition) -> tuple[str, str]:
    return one.vhost, one.name


def _binding_place(one: BindingDefinition) -> tuple[str, str, str, str, str, bytes]:
    arguments = _encode(plain(one.arguments)) if one.arguments else b""
    return one.vhost, one.source, one.destination_type, one.destination, one.routing_key, arguments


# Entries

def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _without_vhost(entry: Entry, *others: str) -> Entry:
    return {key: value for key, value in entry.items() if key != "vhost" and key not in others}


def _vhost(one: VhostDefinition, limits: Any) -> Entry:
    metadata: Entry = {"description": one.description, "tags": [*one.tags]}
    if one.default_queue_type:
        metadata["default_queue_type"] = one.default_queue_type
    if one.protected_from_deletion:
        metadata["protected_from_deletion"] = True
    # RabbitMQ 3.10 writes limits as pairs; it reads them from the parameters alone.
    pairs = sorted([name, limit] for name, limit in limits.items()) if isinstance(limits, dict) else []
    return {"name": one.name, **metadata, "metadata": metadata, "limits": pairs}


def _user(one: UserDefinition) -> Entry:
    entry: Entry = {
        "name": one.name,
        "password_hash": one.password_hash,
        "hashing_algorithm": one.hashing_algorithm,
        "tags": [*one.tags],
        "limits": dict(one.limits),
    }
    return {**entry, "scram_sha256": one.scram_sha256} if one.scram_sha256 else entry


def _permission(one: PermissionDefinition) -> Entry:
    return {
        "user": one.user, "vhost": one.vhost, "configure": one.configure, "write": one.write, "read": one.read}


def _topic_permission(one: TopicPermissionDefinition) -> Entry:
    return {"user": one.user, "vhost": one.vhost, "exchange": one.exchange, "write": one.write, "read": one.read}


def _parameter(one: ParameterDefinition) -> Entry:
    return {"vhost": one.vhost, "component": one.component, "name": one.name, "value": one.value}


def _global_parameter(one: GlobalParameterDefinition) -> Entry:
    return {"name": one.name, "value": one.value}


def _policy(one: PolicyDefinition) -> Entry:
    return {
        "vhost": one.vhost, "name": one.name, "pattern": one.pattern, "apply-to": one.apply_to,
        "priority": one.priority, "definition": dict(one.definition)}


def _exchange(one: ExchangeDefinition) -> Entry:
    return {
        "vhost": one.vhost, "name": one.name, "type": one.type, "durable": one.durable,
        "auto_delete": one.auto_delete, "internal": one.internal, "arguments": plain(one.arguments)}


def _queue(one: QueueDefinition) -> Entry:
    return {
        "vhost": one.vhost, "name": one.name, "type": str(one.arguments.get(QUEUE_TYPE, CLASSIC)),
        "durable": one.durable, "auto_delete": one.auto_delete, "arguments": plain(one.arguments)}


def _binding(one: BindingDefinition) -> Entry:
    return {
        "vhost": one.vhost, "source": one.source, "destination": one.destination,
        "destination_type": one.destination_type, "routing_key": one.routing_key, "arguments": plain(one.arguments)}
