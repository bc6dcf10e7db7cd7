"""Users and what they may do: one authorisation function for every door, and the check of a password.

Owns users and their permissions. Where a login comes from and how often it may fail is the server's matter.

Always true between calls: a user without a permission row for a vhost may do nothing there.

RabbitMQ docs/access-control, docs/passwords.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from amqpd.broker.definitions import PermissionDefinition, UserDefinition
from amqpd.errors import ChannelException, ReplyCode

SCRYPT = "scrypt"
SALTED_HASHES = {
    "rabbit_password_hashing_sha256": hashlib.sha256,
    "rabbit_password_hashing_sha512": hashlib.sha512,
}
RIGHTS = ("configure", "write", "read")


class User:
    """A user and, by vhost, what he may do there."""

    def __init__(self, definition: UserDefinition) -> None:
        self.definition = definition
        self.name = definition.name
        self.permissions: dict[str, PermissionDefinition] = {}
        self._patterns: dict[tuple[str, str], re.Pattern[str] | None] = {}

    def permit(self, permission: PermissionDefinition) -> None:
        """Set what he may do in one vhost, in place of what held before."""
        self.permissions[permission.vhost] = permission
        self._patterns.clear()

    def forbid(self, vhost: str) -> None:
        """Take away all he may do in a vhost."""
        self.permissions.pop(vhost, None)
        self._patterns.clear()

    def may_enter(self, vhost: str) -> bool:
        """Whether he has any permission row for the vhost, however little it allows."""
        return vhost in self.permissions

    def may(self, vhost: str, right: str, name: str) -> bool:
        """Whether he has this right (configure, write or read) on a queue or exchange of this name."""
        key = vhost, right
        if key not in self._patterns:
            permission = self.permissions.get(vhost)
            pattern = getattr(permission, right) if permission else ""
            self._patterns[key] = re.compile(pattern) if pattern else None
        compiled = self._patterns[key]
        return compiled is not None and compiled.search(name or "amq.default") is not None

    def require(self, vhost: str, right: str, kind: str, name: str) -> None:
        """Raises ChannelException: ACCESS_REFUSED unless he has the right. `kind` is "queue" or "exchange"."""
        if not self.may(vhost, right, name):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED,
                f"access to {kind} '{name or 'amq.default'}' in vhost '{vhost}' refused for user '{self.name}'")


class Operator(User):
    """Whoever holds the config file or the control socket: may do everything, everywhere."""

    def __init__(self) -> None:
        super().__init__(UserDefinition("operator"))

    def may(self, vhost: str, right: str, name: str) -> bool:
        """Always."""
        return True


def hash_password(password: str) -> tuple[str, str]:
    """A new hash of a password and the name of its algorithm. Takes about 0.1 s, on purpose."""
    salt = secrets.token_bytes(16)
    return base64.b64encode(salt + _scrypt(salt, password)).decode(), SCRYPT


def hash_known_password(password: str) -> tuple[str, str]:
    """RabbitMQ's salted SHA-256 of a password: instant, for passwords that are no secret (guest's, a config's)."""
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode(), "rabbit_password_hashing_sha256"


def password_matches(user: UserDefinition | None, password: str) -> bool:
    """Whether this is the user's password. No user costs as much as a wrong password with scrypt.

    An empty hash matches nothing. Without timing differences between wrong and right.
    """
    if user is None:
        _scrypt(b"\0" * 16, password)
        return False
    stored = base64.b64decode(user.password_hash)
    if not stored:
        return False
    if user.hashing_algorithm == SCRYPT:
        return hmac.compare_digest(stored[16:], _scrypt(stored[:16], password))
    algorithm = SALTED_HASHES.get(user.hashing_algorithm)
    return algorithm is not None and hmac.compare_digest(
        stored[4:], algorithm(stored[:4] + password.encode()).digest())


def _scrypt(salt: bytes, password: str) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=5, maxmem=64 * 1024 * 1024, dklen=32)
