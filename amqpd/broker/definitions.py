"""What can be declared, as values: they are stored, listed and compared, and hold no behaviour.

The store keeps them, `broker/vhost.py` builds the living exchanges and queues from them, and each change of
one is a record that goes through the journal. Records are outcomes: replaying them needs no clock, no
permission and no consumer.
"""

from __future__ import annotations

from typing import Any, Literal, Union

import msgspec

Arguments = dict[str, Any]


class ExchangeDefinition(msgspec.Struct, frozen=True):
    """An exchange. `arguments` may hold `alternate-exchange` and whatever its type reads."""

    vhost: str
    name: str
    type: str
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = {}


class QueueDefinition(msgspec.Struct, frozen=True):
    """A queue. `number` is unique for ever, so a message row never finds a later queue of the same name."""

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
    """What a user may do in a vhost: one regular expression a right, searched unanchored; "" allows nothing."""

    user: str
    vhost: str
    configure: str = ""
    write: str = ""
    read: str = ""


class PolicyDefinition(msgspec.Struct, frozen=True):
    """What holds for queues and exchanges whose names the pattern finds; see `broker/policy.py`.

    `definition` goes from keys such as "max-length" to values. A policy and an operator's policy may share a name.
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
    """This definition holds from now on; one with the same identity is replaced.

    That happens to vhosts, users, permissions and policies.
    """

    definition: Definition


class Deleted(msgspec.Struct, frozen=True):
    """This definition holds no longer, and nothing that hangs on it.

    Of a queue: its messages. Of a vhost: everything in it. Of a user: its permissions. Bindings of a deleted
    queue or exchange are deleted by records of their own after it, and count no longer from it on.
    """

    definition: Definition


Change = Union[Defined, Deleted]
