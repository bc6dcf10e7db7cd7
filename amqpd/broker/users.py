"""The users of the broker, and what each may do.

Owns the users by name. The control socket, the config file and an import of definitions change users and permissions
only through these methods, so that each rule is written once.

Always true between calls: every user and every permission has been recorded in the journal.

RabbitMQ docs/access-control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from amqpd.broker.access import User
from amqpd.broker.changes import Changes
from amqpd.broker.definitions import (
    Defined,
    Deleted,
    PermissionDefinition,
    TopicPermissionDefinition,
    UserDefinition,
)
from amqpd.broker.vhost import Vhost
from amqpd.errors import AlreadyThere, NoSuchThing


class Users(Mapping[str, User]):
    """The users by name.

    `close_connections` closes those of a user that is being deleted. `check_consumers` stops the consumers of a user in
    a vhost that the user may not have any more.
    """

    def __init__(
        self, changes: Changes, find_vhost: Callable[[str], Vhost], close_connections: Callable[[str], None],
        check_consumers: Callable[[str, str], None],
    ) -> None:
        self._users: dict[str, User] = {}
        self._changes = changes
        self._vhost = find_vhost
        self._close_connections = close_connections
        self._check_consumers = check_consumers

    def __getitem__(self, name: str) -> User:
        return self._users[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._users)

    def __len__(self) -> int:
        return len(self._users)

    def named(self, name: str) -> User:
        """Return the user of this name. Raises NoSuchThing."""
        try:
            return self._users[name]
        except KeyError:
            raise NoSuchThing(f"no user '{name}'") from None

    def add(self, definition: UserDefinition) -> None:
        """Add a user. Raises AlreadyThere."""
        if definition.name in self._users:
            raise AlreadyThere(f"user '{definition.name}' already exists")
        with self._changes:
            self._users[definition.name] = User(definition)
            self._changes.record(Defined(definition))
        self._changes.tell("user.created", definition)

    def put(self, definition: UserDefinition) -> None:
        """Add a user, or replace everything but the permissions of an existing one; running connections stay."""
        user = self._users.get(definition.name)
        if user is None:
            self.add(definition)
        elif user.definition != definition:
            self._redefine(user, definition)

    def delete(self, name: str) -> None:
        """Delete a user with the permissions, and close the user's connections. Raises NoSuchThing."""
        user = self.named(name)
        self._close_connections(name)
        with self._changes:
            del self._users[name]
            self._changes.record(Deleted(user.definition))
        self._changes.tell("user.deleted", user.definition)

    def change_password(self, name: str, password_hash: str, algorithm: str, scram_sha256: str = "") -> None:
        """Set a new password hash, made by `passwords.hash_password`; running connections stay. Raises NoSuchThing."""
        self._replace(
            name, password_hash=password_hash, hashing_algorithm=algorithm, scram_sha256=scram_sha256)

    def set_tags(self, name: str, tags: tuple[str, ...]) -> None:
        """Replace the tags of a user, also for running connections. Raises NoSuchThing."""
        self._replace(name, tags=tags)

    def set_limits(self, name: str, limits: Mapping[str, int]) -> None:
        """Replace the limits of a user; running connections and channels stay. Raises NoSuchThing."""
        self._replace(name, limits=dict(limits))

    def _replace(self, name: str, **changes: Any) -> None:
        user = self.named(name)
        definition = replace(user.definition, **changes)
        if definition != user.definition:
            self._redefine(user, definition)

    def _redefine(self, user: User, definition: UserDefinition) -> None:
        before = user.definition
        with self._changes:
            user.definition = definition
            self._changes.record(Defined(definition))
        if definition.password_hash != before.password_hash:
            self._changes.tell(f"user.password.{'changed' if definition.password_hash else 'cleared'}", definition)
        if definition.tags != before.tags:
            self._changes.tell("user.tags.set", definition)
        if definition.limits != before.limits:
            self._changes.tell(f"user.limits.{'set' if definition.limits else 'cleared'}", definition)

    # Permissions

    def set_permissions(self, permission: PermissionDefinition) -> None:
        """Set the permissions of a user in a vhost, also for running publishers and consumers. Raises NoSuchThing."""
        vhost, user = self._vhost(permission.vhost), self.named(permission.user)
        before = user.permissions.get(vhost.name)
        with self._changes:
            vhost.routing.version += 1
            user.permit(permission)
            self._changes.record(Defined(permission))
        self._changes.tell("permission.created", permission)
        if before is not None and before.read != permission.read:
            self._check_consumers(user.name, vhost.name)

    def clear_permissions(self, user_name: str, vhost_name: str) -> None:
        """Remove the permissions of a user in a vhost; running connections stay, without rights. Raises NoSuchThing."""
        vhost, user = self._vhost(vhost_name), self.named(user_name)
        permission = user.permissions.get(vhost_name)
        if permission is not None:
            with self._changes:
                vhost.routing.version += 1
                user.forbid(vhost_name)
                self._changes.record(Deleted(permission))
            self._changes.tell("permission.deleted", permission)
            self._check_consumers(user_name, vhost_name)

    def set_topic_permissions(self, permission: TopicPermissionDefinition) -> None:
        """Set the permissions of a user on the routing keys of an exchange. Raises NoSuchThing.

        The exchange need not exist.
        """
        vhost, user = self._vhost(permission.vhost), self.named(permission.user)
        with self._changes:
            vhost.routing.version += 1
            user.permit_topics(permission)
            self._changes.record(Defined(permission))
        self._changes.tell("topic.permission.created", permission)

    def clear_topic_permissions(self, user_name: str, vhost_name: str, exchange: str | None = None) -> None:
        """Remove the topic permissions of a user in a vhost, of one exchange or of all. Raises NoSuchThing."""
        vhost, user = self._vhost(vhost_name), self.named(user_name)
        removed = [permission for (vhost_of, exchange_of), permission in user.topic_permissions.items()
                   if vhost_of == vhost_name and exchange in (None, exchange_of)]
        with self._changes:
            for permission in removed:
                vhost.routing.version += 1
                user.forbid_topics(permission)
                self._changes.record(Deleted(permission))
        for permission in removed:
            self._changes.tell("topic.permission.deleted", permission)

    # Restoring at start

    def restore(self, definition: UserDefinition | PermissionDefinition | TopicPermissionDefinition) -> None:
        """Create a stored user, or set a stored permission, without recording it again."""
        if isinstance(definition, UserDefinition):
            self._users[definition.name] = User(definition)
        elif isinstance(definition, PermissionDefinition):
            self._users[definition.user].permit(definition)
        else:
            self._users[definition.user].permit_topics(definition)
