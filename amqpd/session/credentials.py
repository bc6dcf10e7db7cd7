"""What a client answers to the question who it is.

Owns the forms of that answer, PLAIN and AMQPLAIN. Whether the password is right is the server's to find out.

Spec: connection.start-ok; RFC 4616; RabbitMQ docs/access-control.
"""

from __future__ import annotations

import msgspec

from amqpd.fields import FieldError, decode_table


class LoginRequest(msgspec.Struct, frozen=True):
    """Who wants in. The server looks at the password and answers with `logged_in` or `login_failed`."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"LoginRequest(user={self.user!r}, password=***)"


def read_plain(response: bytes) -> LoginRequest | None:
    """User and password of a PLAIN response: NUL user NUL password. RFC 4616."""
    parts = response.split(b"\0")
    if len(parts) != 3 or parts[0]:
        return None
    return _login(parts[1], parts[2])


def read_amqplain(response: bytes) -> LoginRequest | None:
    """User and password of an AMQPLAIN response: a field table without its length."""
    try:
        table = decode_table(response)
    except FieldError:
        return None
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(user, str) or not isinstance(password, str):
        return None
    return LoginRequest(user, password)


def _login(user: bytes, password: bytes) -> LoginRequest | None:
    try:
        return LoginRequest(user.decode(), password.decode())
    except UnicodeDecodeError:
        return None
