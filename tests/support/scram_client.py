"""The client's side of SCRAM-SHA-256, by the book: RFC 5802, section 5."""

from __future__ import annotations

import base64
import hashlib
import hmac


class ScramClient:
    """One login: `first`, then `answer` to the challenge; `is_satisfied_by` checks the broker's last words."""

    def __init__(self, user: str, password: str, nonce: str = "fyko+d2lbbFgONRv9qkxdawL", header: str = "n,,") -> None:
        self._password = password
        self._header = header
        self._bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self._signature = b""

    @property
    def first(self) -> str:
        """The first message."""
        return self._header + self._bare

    def answer(self, challenge: str) -> str:
        """The proof."""
        parts = dict(part.split("=", 1) for part in challenge.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", self._password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signed = f"c={base64.b64encode(self._header.encode()).decode()},r={parts['r']}"
        message = f"{self._bare},{challenge},{signed}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        return f"{signed},p={base64.b64encode(proof).decode()}"

    def is_satisfied_by(self, last_words: str) -> bool:
        """Whether the broker knows the password too."""
        return last_words == f"v={base64.b64encode(self._signature).decode()}"
