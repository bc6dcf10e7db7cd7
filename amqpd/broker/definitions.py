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
    """A queue. `number` is never used again, so that a later queue of the same name does not get its messages."""

    number: int
    vhost: str
    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Arguments = {}


class BindingDefinition(msgspec.Struct, frozen=True):
    """A binding from an exchange to a queue or an exchange. All fields together are its identity."""

    vhost: str
    source: str
    destination_type: Literal["queue", "exchange"]
    destination: str
    routing_key: str = ""
    arguments: Arguments = {}


class UserDefinition(msgspec.Struct, frozen=True):
    """A user. `password_hash` is empty for a user that cannot log in by password."""

    name: str
    password_hash: str = msgspec.field(default="")
    hashing_algorithm: str = "scrypt"
    tags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"UserDefinition(name={self.name!r}, password_hash=***, tags={self.tags!r})"


class PermissionDefinition(msgspec.Struct, frozen=True):
    """Permissions of a user in a vhost: a regular expression for each right, searched unanchored; "" allows nothing."""

    user: str
    vhost: str
    configure: str = ""
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
    """A virtual host."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()


Definition = Union[
    VhostDefinition,
    UserDefinition,
    PermissionDefinition,
    PolicyDefinition,
    ExchangeDefinition,
    QueueDefinition,
    BindingDefinition,
]


class Defined(msgspec.Struct, frozen=True):
    """A definition that is valid from now on, in place of one with the same identity.

    Vhosts, users, permissions and policies can be replaced.
    """

    definition: Definition


class Deleted(msgspec.Struct, frozen=True):
    """A definition that is no longer valid, with everything that belongs to it.

    For a queue: its messages. For a vhost: everything in it. For a user: the permissions. Bindings of a deleted queue
    or exchange have their own records after it, but are not valid from this record on.
    """

    definition: Definition


Change = Union[Defined, Deleted]
