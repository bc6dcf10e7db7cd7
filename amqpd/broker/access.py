"""Users and permissions: one authorisation function for all clients.

Owns users and their permissions. `broker/passwords.py` checks passwords; the server decides where a login may come from
and how often it may fail.

Always true between calls: a user without a permission row for a vhost may do nothing there.

RabbitMQ docs/access-control.
"""

from __future__ import annotations

import re

from amqpd.broker.definitions import PermissionDefinition, TopicPermissionDefinition, UserDefinition
from amqpd.errors import ChannelException, ReplyCode

RIGHTS = ("configure", "write", "read")


def rights_of(permission: PermissionDefinition | TopicPermissionDefinition) -> tuple[str, ...]:
    """Return the names of the fields of a permission that are patterns."""
    return RIGHTS if isinstance(permission, PermissionDefinition) else RIGHTS[1:]


class User:
    """A user, with the permissions by vhost."""

    def __init__(self, definition: UserDefinition) -> None:
        self.definition = definition
        self.name = definition.name
        self.permissions: dict[str, PermissionDefinition] = {}
        self.topic_permissions: dict[tuple[str, str], TopicPermissionDefinition] = {}   # by vhost and exchange
        self._patterns: dict[tuple[str, str], re.Pattern[str] | None] = {}

    def permit(self, permission: PermissionDefinition) -> None:
        """Set the permissions in one vhost, in place of the previous ones."""
        self.permissions[permission.vhost] = permission
        self._patterns.clear()

    def forbid(self, vhost: str) -> None:
        """Remove the permissions in a vhost; topic permissions stay."""
        self.permissions.pop(vhost, None)
        self._patterns.clear()

    def permit_topics(self, permission: TopicPermissionDefinition) -> None:
        """Set the permissions on the routing keys of an exchange, in place of the previous ones."""
        self.topic_permissions[permission.vhost, permission.exchange] = permission

    def forbid_topics(self, permission: TopicPermissionDefinition) -> None:
        """Remove the permissions on the routing keys of an exchange."""
        self.topic_permissions.pop((permission.vhost, permission.exchange), None)

    def forget_vhost(self, vhost: str) -> None:
        """Remove everything that belongs to a deleted vhost."""
        self.forbid(vhost)
        for key in [key for key in self.topic_permissions if key[0] == vhost]:
            del self.topic_permissions[key]

    def may_enter(self, vhost: str) -> bool:
        """Return whether there is a permission row for the vhost, even one that allows nothing."""
        return vhost in self.permissions

    def may(self, vhost: str, right: str, name: str) -> bool:
        """Return whether the user has this right (configure, write or read) on a queue or exchange of this name."""
        key = vhost, right
        if key not in self._patterns:
            permission = self.permissions.get(vhost)
            pattern = getattr(permission, right) if permission else ""
            self._patterns[key] = re.compile(pattern) if pattern else None
        compiled = self._patterns[key]
        return compiled is not None and compiled.search(name or "amq.default") is not None

    def require(self, vhost: str, right: str, kind: str, name: str) -> None:
        """Check a right; `kind` is "queue" or "exchange". Raises ChannelException: ACCESS_REFUSED."""
        if not self.may(vhost, right, name):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED,
                f"access to {kind} '{name or 'amq.default'}' in vhost '{vhost}' refused for user '{self.name}'")


class Operator(User):
    """The owner of the config file or the control socket: may do everything in every vhost."""

    def __init__(self) -> None:
        super().__init__(UserDefinition("operator"))

    def may(self, vhost: str, right: str, name: str) -> bool:
        """Return True."""
        return True
