"""Read the client's answer to the authentication request.

Owns the mechanisms that are offered, PLAIN and AMQPLAIN, and the form of their answers. The server checks the password.

Spec: connection.start-ok; RFC 4616; RabbitMQ docs/access-control.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from amqpd.fields import FieldError, decode_table


class SaslError(Exception):
    """The client cannot log in with its answer; the text is the reason, for the log."""


class LoginRequest(msgspec.Struct, frozen=True):
    """The user and password of a login. The server checks the password and calls `logged_in` or `login_failed`."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"LoginRequest(user={self.user!r}, password=***)"


def read_response(mechanism: str, response: str | bytes) -> LoginRequest:
    """Return the user and the password of connection.start-ok. Raises SaslError."""
    read = MECHANISMS.get(mechanism)
    if read is None:
        raise SaslError(f"unknown authentication mechanism '{mechanism}'")
    login = read(response.encode() if isinstance(response, str) else bytes(response))
    if login is None:
        raise SaslError(f"malformed {mechanism} response")
    return login


def read_plain(response: bytes) -> LoginRequest | None:
    """Return user and password of a PLAIN response, NUL user NUL password; None if it is malformed. RFC 4616."""
    parts = response.split(b"\0")
    if len(parts) != 3 or parts[0]:
        return None
    try:
        return LoginRequest(parts[1].decode(), parts[2].decode())
    except UnicodeDecodeError:
        return None


def read_amqplain(response: bytes) -> LoginRequest | None:
    """Return user and password of an AMQPLAIN response, a field table without its length; None if it is malformed."""
    try:
        table = decode_table(response)
    except FieldError:
        return None
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(user, str) or not isinstance(password, str):
        return None
    return LoginRequest(user, password)


# In the order in which connection.start names them.
MECHANISMS: dict[str, Callable[[bytes], LoginRequest | None]] = {"AMQPLAIN": read_amqplain, "PLAIN": read_plain}
