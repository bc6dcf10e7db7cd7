"""SCRAM-SHA-256: a login in which the password is never sent, and the broker proves that it knows the user too.

Owns the messages of one login: the client's first, our challenge, the client's proof, our signature. In AMQP each of
ours is a connection.secure, so the client answers the last one with an empty connection.secure-ok.

Always true: a client cannot tell by the challenge whether the user exists, and a login ends at the first message that
is malformed.

RFC 5802, RFC 7677; Qpid's broker has the same exchange over AMQP 0-9-1.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Mapping

from amqpd.broker.access import User
from amqpd.broker.scram import MadeUpVerifiers, Verifier, read_verifier
from amqpd.session.sasl_steps import Challenge, ProvenLogin, SaslError, Step

NAME = "SCRAM-SHA-256"
NONCE_BYTES = 18
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,512}")     # printable, without commas
_ESCAPES = {"=2C": ",", "=3D": "="}


class Verifiers:
    """The verifiers of the users, and made-up ones for all other names."""

    def __init__(self, users: Mapping[str, User], made_up: MadeUpVerifiers) -> None:
        self._users = users
        self._made_up = made_up

    def of(self, name: str) -> Verifier:
        """Return the user's verifier, or a made-up one."""
        made_up = self._made_up.of(name)    # also for users who have one, so that all take as long
        return self._stored(name) or made_up

    def are_missing(self, name: str) -> bool:
        """Return whether the user exists and has no verifier."""
        return name in self._users and self._stored(name) is None

    def _stored(self, name: str) -> Verifier | None:
        user = self._users.get(name)
        return read_verifier(user.definition.scram_sha256 if user is not None else "")


class ScramLogin:
    """One login: `respond` takes each message of the client. `make_nonce` returns our part of the nonce."""

    def __init__(self, verifiers: Verifiers, make_nonce: Callable[[], str] | None = None) -> None:
        self._verifiers = verifiers
        self._make_nonce = make_nonce or random_nonce
        self._take: Callable[[str], Step] = self._take_first
        self._header = ""       # GS2: how the client binds the channel
        self._user = ""
        self._nonce = ""
        self._begin = ""        # the first two messages, as they are signed
        self._verifier: Verifier

    def respond(self, response: bytes) -> Step:
        """Take the client's next message. Raises SaslError if it is malformed."""
        try:
            text = response.decode()
        except UnicodeDecodeError:
            raise _malformed("it is not UTF-8") from None
        return self._take(text)

    def _take_first(self, text: str) -> Step:
        binding, _, rest = text.partition(",")
        identity, comma, bare = rest.partition(",")
        if binding.startswith("p="):
            raise _malformed("channel binding is not supported")
        if binding not in ("n", "y") or not comma:
            raise _malformed("it does not begin with a GS2 header")
        if identity:
            raise _malformed("nobody may log in for somebody else")
        name, nonce, *_ = *bare.split(",", 2), ""
        if not name.startswith("n=") or not nonce.startswith("r=") or not _NONCE.fullmatch(nonce, 2):
            raise _malformed("user and nonce have to come first")
        self._header = f"{binding},,"
        self._user = _unescape(name[2:])
        self._nonce = nonce[2:] + self._make_nonce()
        self._verifier = verifier = self._verifiers.of(self._user)
        challenge = f"r={self._nonce},s={_encode(verifier.salt)},i={verifier.iterations}"
        self._begin = f"{bare},{challenge}"
        self._take = self._take_proof
        return Challenge(challenge.encode())

    def _take_proof(self, text: str) -> Step:
        signed, separator, proof = text.rpartition(",p=")
        binding, nonce, *_ = *signed.split(",", 2), ""
        if not separator or binding != f"c={_encode(self._header.encode())}":
            raise _malformed("channel binding and proof do not fit")
        if nonce != f"r={self._nonce}":
            raise _malformed("the nonce is another one")
        message = f"{self._begin},{signed}".encode()
        is_proven = self._verifier.accepts(_decode(proof), message)
        self._take = _take_no_more
        signature = _encode(self._verifier.sign(message))
        return ProvenLogin(self._user, self._fault(is_proven=is_proven), f"v={signature}".encode())

    def _fault(self, *, is_proven: bool) -> str:
        if self._verifiers.are_missing(self._user):
            return "no SCRAM verifier is stored: set the password again, or let the user log in once with PLAIN"
        if self._verifiers.of(self._user) != self._verifier:
            return "the password has changed meanwhile"
        return "" if is_proven else "the password is wrong"


def _take_no_more(text: str) -> Step:
    raise _malformed("the login is complete")


def random_nonce() -> str:
    """Return a nonce that nobody can guess."""
    return base64.b64encode(secrets.token_bytes(NONCE_BYTES), b"-_").decode()


def _malformed(reason: str) -> SaslError:
    return SaslError(f"malformed {NAME} response: {reason}")


def _unescape(name: str) -> str:
    """Return a user name in plain; in a message `,` is `=2C`, and `=` is `=3D`. Raises SaslError."""
    parts = re.split("(=..)", name)
    plain = "".join(_ESCAPES.get(part, part) if at % 2 else part for at, part in enumerate(parts))
    if not name or any("=" in part if at % 2 == 0 else part not in _ESCAPES for at, part in enumerate(parts)):
        raise _malformed("the user name cannot be read")
    return plain


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _malformed("the proof is not base64") from None


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
