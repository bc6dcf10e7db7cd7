"""Users and permissions: one authorisation function for all clients, and the check of a password.

Owns users and their permissions. The server decides where a login may come from and how often it may fail.

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


def hash_password(password: str) -> tuple[str, str]:
    """Return a new hash of a password and the name of its algorithm. Takes about 0.1 s, on purpose."""
    salt = secrets.token_bytes(16)
    return base64.b64encode(salt + _scrypt(salt, password)).decode(), SCRYPT


def hash_known_password(password: str) -> tuple[str, str]:
    """Return RabbitMQ's salted SHA-256: fast, for passwords that are not secret (guest's, those of a config file)."""
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode(), "rabbit_password_hashing_sha256"


def password_matches(user: UserDefinition | None, password: str) -> bool:
    """Return whether this is the user's password. A missing user costs as much time as a wrong password with scrypt.

    An empty hash matches nothing. Wrong and right passwords take the same time.
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
