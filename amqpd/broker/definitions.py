"""The definitions of objects that can be declared, as values: they are stored, listed and compared.

The store keeps them, `broker/vhost.py` creates exchanges and queues from them, and each change of a definition is a
record in the journal. Records are results: replaying them needs no clock, no permission and no consumer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Union

import msgspec

Arguments = Mapping[str, Any]


class ExchangeDefinition(msgspec.Struct, frozen=True):
    """An exchange. `arguments` may have `alternate-exchange` and the arguments that its type reads."""

    vhost: str
    name: str
    type: str
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = {}


class QueueDefinition(msgspec.Struct, frozen=True):
    """A queue. `number` is never used again, so that a later queue of the same name does not get its messages.

    `is_paused` is set by operators, not by those who declare it: nothing is delivered meanwhile.
    """

    number: int
    vhost: str
    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Arguments = {}
    is_paused: bool = False


class BindingDefinition(msgspec.Struct, frozen=True):
    """A binding from an exchange to a queue or an exchange. All fields together are its identity."""

    vhost: str
    source: str
    destination_type: Literal["queue", "exchange"]
    destination: str
    routing_key: str = ""
    arguments: Arguments = {}


class UserDefinition(msgspec.Struct, frozen=True):
    """A user. `password_hash` is empty for a user that cannot log in by password.

    `scram_sha256` is what SCRAM-SHA-256 checks an answer with, or empty if that is not known. `limits` goes from
    "max-connections" and "max-channels" to a number; a negative number is no limit.
    """

    name: str
    password_hash: str = msgspec.field(default="")
    hashing_algorithm: str = "scrypt"
    tags: tuple[str, ...] = ()
    scram_sha256: str = ""
    limits: Mapping[str, int] = {}

    def __repr__(self) -> str:
        return f"UserDefinition(name={self.name!r}, password_hash=***, tags={self.tags!r})"


class PermissionDefinition(msgspec.Struct, frozen=True):
    """Permissions of a user in a vhost: a regular expression for each right, searched unanchored; "" allows nothing."""

    user: str
    vhost: str
    configure: str = ""
    write: str = ""
    read: str = ""


class TopicPermissionDefinition(msgspec.Struct, frozen=True):
    """Permissions of a user on the routing keys of a topic exchange: regular expressions, searched unanchored.

    They apply besides `PermissionDefinition`; without them, any key is allowed.
    """

    user: str
    vhost: str
    exchange: str
    write: str = ""
    read: str = ""


class PolicyDefinition(msgspec.Struct, frozen=True):
    """A policy for the queues and exchanges whose names the pattern matches; see `broker/policy.py`.

    `definition` goes from keys such as "max-length" to values. A policy and an operator policy may have the same name.
    """

    vhost: str
    name: str
    pattern: str
    definition: dict[str, Any]
    priority: int = 0
    apply_to: str = "all"
    is_operator: bool = False


class VhostDefinition(msgspec.Struct, frozen=True):
    """A virtual host. `default_queue_type` is the type of queues declared without one; "" stands for classic."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    default_queue_type: str = ""
    protected_from_deletion: bool = False


class ParameterDefinition(msgspec.Struct, frozen=True):
    """A parameter of a vhost: a JSON value that a component reads, such as "vhost-limits". RabbitMQ docs/parameters.

    Parameters of components that this broker does not have are kept too, so that an export has them.
    """

    vhost: str
    component: str
    name: str
    value: Any


class GlobalParameterDefinition(msgspec.Struct, frozen=True):
    """A parameter of the whole broker: a JSON value."""

    name: str
    value: Any


Definition = Union[
    VhostDefinition,
    UserDefinition,
    PermissionDefinition,
    TopicPermissionDefinition,
    ParameterDefinition,
    GlobalParameterDefinition,
    PolicyDefinition,
    ExchangeDefinition,
    QueueDefinition,
    BindingDefinition,
]


class Defined(msgspec.Struct, frozen=True):
    """A definition that is valid from now on, in place of one with the same identity.

    Vhosts, users, permissions, parameters and policies can be replaced, and a queue by itself paused or resumed.
    """

    definition: Definition


class Deleted(msgspec.Struct, frozen=True):
    """A definition that is no longer valid, with everything that belongs to it.

    For a queue: its messages. For a vhost: everything in it. For a user: the permissions. Bindings of a deleted queue
    or exchange have their own records after it, but are not valid from this record on.
    """

    definition: Definition


Change = Union[Defined, Deleted]
