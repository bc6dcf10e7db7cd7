"""Commands on users and permissions."""

from __future__ import annotations

import asyncio

from amqpd.broker.access import pattern_faults
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import PermissionDefinition, TopicPermissionDefinition, UserDefinition
from amqpd.broker.passwords import PasswordForm, password_matches
from amqpd.errors import AlreadyThere
from amqpd.exit_codes import EXIT_DATA, EXIT_EXISTS, EXIT_NO_USER, EXIT_UNAVAILABLE
from amqpd.management.refusal import Refusal, check_name, user_of


class AccessCommands:
    """The commands on the users of one broker. New passwords are stored in this `form`."""

    def __init__(self, broker: Broker, form: PasswordForm) -> None:
        self._broker = broker
        self._form = form

    # Users

    async def add_user(self, user: str, password: str) -> None:
        """Add a user without tags and permissions; with an empty password the user cannot log in with a password."""
        check_name("user", user)
        if user in self._broker.users:
            raise Refusal(f'User "{user}" already exists', EXIT_EXISTS)
        # In a thread, since a password hash is slow on purpose and the event loop must go on.
        stored = await asyncio.to_thread(self._form.store, password)
        try:
            self._broker.users.add(UserDefinition(
                user, stored.password_hash, stored.hashing_algorithm, scram_sha256=stored.scram_sha256))
        except AlreadyThere:
            raise Refusal(f'User "{user}" already exists', EXIT_EXISTS) from None

    def delete_user(self, user: str) -> None:
        """Delete a user and close their connections."""
        self._check_user(user)
        self._broker.users.delete(user)

    async def change_password(self, user: str, password: str) -> None:
        """Replace the password of a user."""
        self._check_user(user)
        if not password:
            raise Refusal("Bad argument: password cannot be an empty string", EXIT_DATA)
        stored = await asyncio.to_thread(self._form.store, password)
        self._check_user(user)
        self._broker.users.change_password(
            user, stored.password_hash, stored.hashing_algorithm, stored.scram_sha256)

    def clear_password(self, user: str) -> None:
        """Remove the password of a user, who cannot log in with one any more."""
        definition = user_of(self._broker, user).definition
        self._broker.users.change_password(user, "", definition.hashing_algorithm)

    async def authenticate_user(self, user: str, password: str) -> None:
        """Check the password of a user. Raises Refusal if it is wrong."""
        found = self._broker.users.get(user)
        if not await asyncio.to_thread(password_matches, found.definition if found else None, password):
            raise Refusal(
                f"Error: failed to authenticate user \"{user}\"\nuser '{user}' - invalid credentials", EXIT_DATA)

    def set_user_tags(self, user: str, tags: list[str]) -> None:
        """Replace the tags of a user."""
        self._check_user(user)
        self._broker.users.set_tags(user, tuple(tags))

    def set_permissions(self, vhost: str, user: str, configure: str, write: str, read: str) -> None:
        """Set what a user may do in a vhost."""
        self._check_row(user, vhost)
        permission = PermissionDefinition(user, vhost, configure, write, read)
        _check_patterns(permission)
        self._broker.users.set_permissions(permission)

    def clear_permissions(self, vhost: str, user: str) -> None:
        """Remove the permissions of a user in a vhost; a user without permissions there is not an error."""
        self._check_row(user, vhost)
        self._broker.users.clear_permissions(user, vhost)

    def set_topic_permissions(self, vhost: str, user: str, exchange: str, write: str, read: str) -> None:
        """Set with which routing keys a user may publish to an exchange and bind to it; it need not exist."""
        self._check_row(user, vhost)
        permission = TopicPermissionDefinition(user, vhost, exchange, write, read)
        _check_patterns(permission)
        self._broker.users.set_topic_permissions(permission)

    def clear_topic_permissions(self, vhost: str, user: str, exchange: str | None = None) -> None:
        """Remove the topic permissions of a user in a vhost, on one exchange or on all."""
        self._check_row(user, vhost)
        self._broker.users.clear_topic_permissions(user, vhost, exchange)

    def _check_row(self, user: str, vhost: str) -> None:
        if user not in self._broker.users:
            raise Refusal(f"User {user} does not exist", EXIT_NO_USER)
        if vhost not in self._broker.vhosts:
            raise Refusal(f"Virtual host {vhost} does not exist", EXIT_UNAVAILABLE)

    def _check_user(self, name: str) -> None:
        if name not in self._broker.users:
            raise Refusal(f'User "{name}" does not exist', EXIT_NO_USER)


def _check_patterns(permission: PermissionDefinition | TopicPermissionDefinition) -> None:
    for right, fault in pattern_faults(permission):
        raise Refusal(
            f"regular expression '{getattr(permission, right)}' is invalid: {fault}", EXIT_UNAVAILABLE)
