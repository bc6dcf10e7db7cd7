"""Password hashes: make a new one, and check a password against a stored one.

New hashes are scrypt's. RabbitMQ's salted SHA-256, SHA-512 and MD5 come with imported definitions; they are fast, so
that whoever has them can try many passwords.

Always true: a check never raises, whatever is stored. Every password that does not match costs one scrypt hash, so that
the time tells neither which users exist nor how their passwords are stored.

RabbitMQ docs/passwords; RFC 7914.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from amqpd.broker.definitions import UserDefinition
from amqpd.broker.scram import MadeUpVerifiers, make_verifier, read_verifier

SCRYPT = "scrypt"
SHA256 = "rabbit_password_hashing_sha256"
# RabbitMQ's: base64(salt + hash(salt + password)), with a salt of four bytes.
SALTED_HASHES: dict[str, Callable[[bytes], Any]] = {
    SHA256: hashlib.sha256,
    "rabbit_password_hashing_sha512": hashlib.sha512,
    "rabbit_password_hashing_md5": hashlib.md5,
}
SCRYPT_SALT, SCRYPT_KEY = 16, 32
RABBITMQ_SALT = 4


def hash_password(password: str) -> tuple[str, str]:
    """Return a new hash of a password and the name of its algorithm. Takes about 0.1 s, on purpose."""
    salt = secrets.token_bytes(SCRYPT_SALT)
    return base64.b64encode(salt + _scrypt(salt, password)).decode(), SCRYPT


def hash_known_password(password: str) -> tuple[str, str]:
    """Return RabbitMQ's salted SHA-256: fast, for passwords that are not secret (guest's, those of a config file)."""
    salt = secrets.token_bytes(RABBITMQ_SALT)
    digest = hashlib.sha256(salt + _bytes(password)).digest()
    return base64.b64encode(salt + digest).decode(), SHA256


class StoredPassword(msgspec.Struct, frozen=True):
    """What is stored of a password. `scram_sha256` is the text of a verifier of `broker/scram.py`, or empty."""

    password_hash: str
    hashing_algorithm: str
    scram_sha256: str = ""

    def __repr__(self) -> str:
        return "StoredPassword(***)"


class PasswordForm(msgspec.Struct, frozen=True):
    """In which form passwords are stored: with a verifier for SCRAM, and with scrypt in place of imported fast hashes.

    A verifier that is added to a stored password gets the salt that `made_up` has shown for its user until then: a new
    one would tell clients that the user exists. All but `is_kept_by` is slow on purpose: call it in a thread.
    """

    with_scram: bool = False
    rehashes: bool = False
    made_up: MadeUpVerifiers | None = None

    def store(self, password: str) -> StoredPassword:
        """Return what is stored of a new password. An empty one matches nothing, so nothing is stored of it."""
        if not password:
            return StoredPassword("", SCRYPT)
        return StoredPassword(*hash_password(password), self._verifier(password))

    def store_known(self, password: str) -> StoredPassword:
        """Return what is stored of a password that is not secret, see `hash_known_password`."""
        if self.rehashes:
            return self.store(password)
        return StoredPassword(*hash_known_password(password), self._verifier(password))

    def is_kept_by(self, user: UserDefinition) -> bool:
        """Return whether the user's password is stored in this form."""
        return not (self._must_rehash(user) or self.with_scram and read_verifier(user.scram_sha256) is None)

    def stored_anew(self, user: UserDefinition, password: str) -> StoredPassword:
        """Return what is stored of a user's password, which has just been right, from now on."""
        password_hash, algorithm = (
            hash_password(password) if self._must_rehash(user) else (user.password_hash, user.hashing_algorithm))
        salt = self.made_up.of(user.name).salt if self.made_up is not None else None
        verifier = user.scram_sha256
        if self.with_scram and read_verifier(verifier) is None:
            verifier = str(make_verifier(password, salt=salt))
        return StoredPassword(password_hash, algorithm, verifier)

    def _must_rehash(self, user: UserDefinition) -> bool:
        return self.rehashes and user.hashing_algorithm != SCRYPT

    def _verifier(self, password: str) -> str:
        return str(make_verifier(password)) if self.with_scram else ""


def matches_at_once(user: UserDefinition, password: str) -> bool:
    """Return whether the user's hash is a fast one and matches. False says nothing: ask `password_matches` then."""
    algorithm = SALTED_HASHES.get(user.hashing_algorithm)
    if algorithm is None or not password:
        return False
    stored = _decode(user.password_hash)
    return hmac.compare_digest(stored[RABBITMQ_SALT:], algorithm(stored[:RABBITMQ_SALT] + _bytes(password)).digest())


def password_matches(user: UserDefinition | None, password: str) -> bool:
    """Return whether this is the user's password.

    It is False for a missing user, an empty password, an empty or malformed hash, and an unknown algorithm. Each of
    these takes as long as a wrong password.
    """
    if user is not None and matches_at_once(user, password):
        return True
    is_scrypt = user is not None and user.hashing_algorithm == SCRYPT
    stored = _decode(user.password_hash) if user is not None and is_scrypt else b""
    salt, key = stored[:SCRYPT_SALT].ljust(SCRYPT_SALT, b"\0"), stored[SCRYPT_SALT:]
    return hmac.compare_digest(key, _scrypt(salt, password)) and bool(password)


def _decode(password_hash: str) -> bytes:
    """Return the bytes of a stored hash; none if it is not base64."""
    try:
        return base64.b64decode(password_hash, validate=True)
    except ValueError:
        return b""


def _bytes(password: str) -> bytes:
    """Return the bytes of a password. JSON may hold half a surrogate pair, which is an error in plain UTF-8."""
    return password.encode("utf-8", "surrogatepass")


def _scrypt(salt: bytes, password: str) -> bytes:
    return hashlib.scrypt(
        _bytes(password), salt=salt, n=2**14, r=8, p=5, maxmem=64 * 1024 * 1024, dklen=SCRYPT_KEY)
