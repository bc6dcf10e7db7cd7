"""What an import is going to do, in the order in which it is done.

Nothing precedes what it needs. Parameters come last, since a limit of the vhost may be lower than what it holds already
where the file was written, as on RabbitMQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

import msgspec

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

AnyDefinition = Union[
    UserDefinition, VhostDefinition, PermissionDefinition, TopicPermissionDefinition, ExchangeDefinition,
    GlobalParameterDefinition, PolicyDefinition, QueueDefinition, BindingDefinition, ParameterDefinition]


class Plan(msgspec.Struct):
    """What is imported of a file. If there are `problems`, nothing is. `unknown` are the warnings of unknown keys.

    `passwords` are those of users whose password was given in plain text; `hash_passwords` of `applying` replaces them
    by hashes in `users`. `policies` includes operator policies. Existing queues and exchanges are not in the plan.
    """

    problems: list[str] = []
    warnings: list[str] = []
    unknown: list[str] = []
    users: dict[str, UserDefinition] = {}
    passwords: dict[str, str] = {}
    vhosts: dict[str, VhostDefinition] = {}
    permissions: list[PermissionDefinition] = []
    topic_permissions: list[TopicPermissionDefinition] = []
    exchanges: dict[tuple[str, str], ExchangeDefinition] = {}
    global_parameters: list[GlobalParameterDefinition] = []
    policies: list[PolicyDefinition] = []
    queues: dict[tuple[str, str], QueueDefinition] = {}
    bindings: list[BindingDefinition] = []
    parameters: dict[tuple[str, str, str], ParameterDefinition] = {}

    def __repr__(self) -> str:
        return f"Plan({self.count} definitions, {len(self.problems)} problems)"

    def __iter__(self) -> Iterator[AnyDefinition]:
        """Yield all definitions in order."""
        yield from self.users.values()
        yield from self.vhosts.values()
        yield from self.permissions
        yield from self.topic_permissions
        yield from self.exchanges.values()
        yield from self.global_parameters
        yield from self.policies
        yield from self.queues.values()
        yield from self.bindings
        yield from self.parameters.values()

    def add(self, definition: AnyDefinition) -> None:
        """Add a definition that has been checked."""
        match definition:
            case UserDefinition():
                self.users[definition.name] = definition
            case VhostDefinition():
                self.vhosts[definition.name] = definition
            case PermissionDefinition():
                self.permissions.append(definition)
            case TopicPermissionDefinition():
                self.topic_permissions.append(definition)
            case ExchangeDefinition():
                self.exchanges[definition.vhost, definition.name] = definition
            case GlobalParameterDefinition():
                self.global_parameters.append(definition)
            case PolicyDefinition():
                self.policies.append(definition)
            case QueueDefinition():
                self.queues[definition.vhost, definition.name] = definition
            case BindingDefinition():
                self.bindings.append(definition)
            case ParameterDefinition():
                self.add_parameter(definition)

    def add_parameter(self, parameter: ParameterDefinition) -> None:
        """Add a parameter, in place of one of the same name."""
        self.parameters[parameter.vhost, parameter.component, parameter.name] = parameter

    @property
    def count(self) -> int:
        """The number of definitions."""
        return sum(1 for _ in self)
