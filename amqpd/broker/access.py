"""Users and permissions: one authorisation function for all clients.

Owns users and their permissions. `broker/passwords.py` checks passwords; the server decides where a login may come from
and how often it may fail.

Always true between calls: a user without a permission row for a vhost may do nothing there.

RabbitMQ docs/access-control.
"""

from __future__ import annotations

from collections.abc import Iterator
from re import escape

from amqpd.broker.definitions import PermissionDefinition, TopicPermissionDefinition, UserDefinition
from amqpd.patterns import Pattern, PatternError, compile_pattern, compile_stored
from amqpd.errors import ChannelException, ReplyCode

RIGHTS = ("configure", "write", "read")
LONGEST_WITH_NAMES = 4_096      # bytes of a pattern with names put in


def rights_of(permission: PermissionDefinition | TopicPermissionDefinition) -> tuple[str, ...]:
    """Return the names of the fields of a permission that are patterns."""
    return RIGHTS if isinstance(permission, PermissionDefinition) else RIGHTS[1:]


def with_names(pattern: str, user: str, vhost: str) -> str:
    """Return a pattern of topic permissions with the names for `{username}` and `{vhost}`, which match literally."""
    return pattern.replace("{username}", escape(user)).replace("{vhost}", escape(vhost))


def pattern_faults(permission: PermissionDefinition | TopicPermissionDefinition) -> Iterator[tuple[str, str]]:
    """Yield the name of each right whose pattern cannot be used, and the reason."""
    for right in rights_of(permission):
        pattern = getattr(permission, right)
        try:
            compile_pattern(pattern)
            if isinstance(permission, TopicPermissionDefinition):
                compile_pattern(with_names(pattern, permission.user, permission.vhost), LONGEST_WITH_NAMES)
        except PatternError as error:
            yield right, str(error)


class User:
    """A user, with the permissions by vhost."""

    def __init__(self, definition: UserDefinition) -> None:
        self.definition = definition
        self.name = definition.name
        self.connection_count = 0       # open connections, and channels that are not released yet;
        self.channel_count = 0          # the sessions count
        self.permissions: dict[str, PermissionDefinition] = {}
        self.topic_permissions: dict[tuple[str, str], TopicPermissionDefinition] = {}   # by vhost and exchange
        self._patterns: dict[tuple[str, ...], Pattern | None] = {}      # by right, vhost and perhaps exchange

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
        self._patterns.clear()

    def forbid_topics(self, permission: TopicPermissionDefinition) -> None:
        """Remove the permissions on the routing keys of an exchange."""
        self.topic_permissions.pop((permission.vhost, permission.exchange), None)
        self._patterns.clear()

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
        return self._is_found(name or "amq.default", right, vhost)

    def may_any(self, vhost: str, name: str) -> bool:
        """Return whether the user has any right on a queue or exchange of this name."""
        return any(self.may(vhost, right, name) for right in RIGHTS)

    def may_use_key(self, vhost: str, right: str, exchange: str, routing_key: str) -> bool:
        """Return whether the user may publish with this routing key ("write"), or bind with it ("read").

        Without topic permissions for this exchange, the user may use any key.
        """
        return (vhost, exchange) not in self.topic_permissions or self._is_found(routing_key, right, vhost, exchange)

    def _is_found(self, text: str, *key: str) -> bool:
        """Return whether the pattern of a right in a vhost, on the keys of an exchange if that is named, is found."""
        if key not in self._patterns:
            self._patterns[key] = self._compile(*key)
        pattern = self._patterns[key]
        return pattern is not None and pattern.matches(text)

    def _compile(self, right: str, vhost: str, exchange: str | None = None) -> Pattern | None:
        if exchange is not None:
            text = with_names(getattr(self.topic_permissions[vhost, exchange], right), self.name, vhost)
            whose = f"the topic {right} permission of user '{self.name}' on exchange '{exchange}' in vhost '{vhost}'"
            return compile_stored(text, whose, LONGEST_WITH_NAMES) if text else None
        permission = self.permissions.get(vhost)
        text = getattr(permission, right) if permission else ""
        whose = f"the {right} permission of user '{self.name}' in vhost '{vhost}'"
        return compile_stored(text, whose) if text else None

    def require(self, vhost: str, right: str, kind: str, name: str) -> None:
        """Check a right; `kind` is "queue" or "exchange". Raises ChannelException: ACCESS_REFUSED."""
        if not self.may(vhost, right, name):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED,
                f"access to {kind} '{name or 'amq.default'}' in vhost '{vhost}' refused for user '{self.name}'")

    def require_any(self, vhost: str, kind: str, name: str) -> None:
        """Check that the user has any right on a name. Raises ChannelException: ACCESS_REFUSED."""
        if not self.may_any(vhost, name):
            self.require(vhost, RIGHTS[0], kind, name)

    def require_key(self, vhost: str, right: str, exchange: str, routing_key: str) -> None:
        """Check a right on a routing key of a topic exchange. Raises ChannelException: ACCESS_REFUSED."""
        if not self.may_use_key(vhost, right, exchange, routing_key):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED,
                f"access to topic '{routing_key}' in exchange '{exchange}' in vhost '{vhost}' refused for user "
                f"'{self.name}'")


class Operator(User):
    """The owner of the config file or the control socket: may do everything in every vhost."""

    def __init__(self) -> None:
        super().__init__(UserDefinition("operator"))

    def may(self, vhost: str, right: str, name: str) -> bool:
        """Return True."""
        return True
