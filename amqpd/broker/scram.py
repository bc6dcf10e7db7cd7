"""Verifiers of SCRAM-SHA-256: what the broker keeps of a password so that it can check proofs, and prove itself.

A verifier is derived from a password when the password is known: when it is set, or at a login with PLAIN. Whoever has
it can try passwords, faster than with scrypt, but cannot log in with it.

A name without a verifier gets a made-up one, always the same, so that its challenge does not tell whether the user
exists.

RFC 5802, RFC 7677; RFC 4013 and 3454 (SASLprep). The text of a verifier is PostgreSQL's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata

import msgspec

ITERATIONS = 10_000     # RFC 7677 asks for 4,096 at least
SALT, KEY = 16, 32
MOST_ITERATIONS = 10_000_000
_TEXT = re.compile(r"SCRAM-SHA-256\$(\d{1,8}):([A-Za-z0-9+/]+=*)\$([A-Za-z0-9+/]+=*):([A-Za-z0-9+/]+=*)")
_PROHIBITED = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
    stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
    stringprep.in_table_c9, stringprep.in_table_a1)


class Verifier(msgspec.Struct, frozen=True):
    """The salt and iterations of a password, and the two keys made of it. RFC 5802, section 3."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Verifier(iterations={self.iterations}, ***)"

    def __str__(self) -> str:
        """Return the text in which a verifier is stored."""
        return (f"SCRAM-SHA-256${self.iterations}:{_encode(self.salt)}"
                f"${_encode(self.stored_key)}:{_encode(self.server_key)}")

    def accepts(self, proof: bytes, message: bytes) -> bool:
        """Return whether this proof shows that the client knows the password. `message` is RFC 5802's AuthMessage."""
        signature = hmac.digest(self.stored_key, message, "sha256")
        if len(proof) != len(signature):
            return False
        client_key = bytes(a ^ b for a, b in zip(proof, signature))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), self.stored_key)

    def sign(self, message: bytes) -> bytes:
        """Return the signature by which the client knows that the broker has a verifier of its password."""
        return hmac.digest(self.server_key, message, "sha256")


def make_verifier(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> Verifier:
    """Return a new verifier of a password. Takes some milliseconds."""
    salt = secrets.token_bytes(SALT) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Verifier(
        iterations, salt, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))


def read_verifier(text: str) -> Verifier | None:
    """Return the verifier of its text; None if there is none, or it is malformed."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    iterations, *rest = found.groups()
    try:
        salt, stored_key, server_key = (base64.b64decode(one, validate=True) for one in rest)
    except ValueError:
        return None
    if not 0 < int(iterations) <= MOST_ITERATIONS or len(stored_key) != KEY or len(server_key) != KEY:
        return None
    return Verifier(int(iterations), salt, stored_key, server_key)


class MadeUpVerifiers:
    """Verifiers of names that have none: for each name always the same one, which no password has.

    With the same secret `key` they are the same after a restart.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(KEY)

    def of(self, name: str) -> Verifier:
        """Return the verifier of this name."""
        of_name = name.encode("utf-8", "surrogatepass")
        salt, stored_key, server_key = (
            hmac.digest(self._key, part + of_name, "sha256") for part in (b"0", b"1", b"2"))
        return Verifier(ITERATIONS, salt[:SALT], stored_key, server_key)


def prepare(password: str) -> bytes:
    """Return the bytes of a password as SASLprep makes them; unchanged if SASLprep refuses it, as in PostgreSQL."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(one) else one for one in password if not stringprep.in_table_b1(one))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared or any(refuses(one) for one in prepared for refuses in _PROHIBITED) or not _is_one_way(prepared):
        prepared = password
    return prepared.encode("utf-8", "surrogatepass")


def _is_one_way(text: str) -> bool:
    """Return whether a text is written in one direction only, as RFC 3454, section 6, asks."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    return (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
            and not any(map(stringprep.in_table_d2, text)))


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
