"""Users and permissions: one authorisation function for all clients.

Owns users and their permissions. `broker/passwords.py` checks passwords; the server decides where a login may come from
and how often it may fail.

Always true between calls: a user without a permission row for a vhost may do nothing there.

RabbitMQ docs/access-control.
"""

from __future__ import annotations

import re

from amqpd.broker.definitions import PermissionDefinition, UserDefinition
from amqpd.errors import ChannelException, ReplyCode

RIGHTS = ("configure", "write", "read")


class User:
    """A user, with the permissions by vhost."""

    def __init__(self, definition: UserDefinition) -> None:
        self.definition = definition
        self.name = definition.name
        self.permissions: dict[str, PermissionDefinition] = {}
        self._patterns: dict[tuple[str, str], re.Pattern[str] | None] = {}

    def permit(self, permission: PermissionDefinition) -> None:
        """Set the permissions in one vhost, in place of the previous ones."""
        self.permissions[permission.vhost] = permission
        self._patterns.clear()

    def forbid(self, vhost: str) -> None:
        """Remove all permissions in a vhost."""
        self.permissions.pop(vhost, None)
        self._patterns.clear()

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
