"""The steps of a login: what a mechanism makes of each answer of the client.

A mechanism (`session/sasl.py`) gets the client's answers one after the other. It returns a challenge, which the client
must answer, or the login that the server checks.

Always true: neither a `repr` nor a `SaslError` shows a password.

Spec: connection.start-ok, connection.secure; RFC 4422.
"""

from __future__ import annotations

import msgspec

from amqpd.broker.scram import MadeUpVerifiers


class SaslError(Exception):
    """The client cannot log in with its answer; the text is the reason, for the log."""


class LoginRequest(msgspec.Struct, frozen=True):
    """The user and password of a login. The server checks the password and calls `logged_in` or `login_failed`."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"LoginRequest(user={self.user!r}, password=***)"


class ProvenLogin(msgspec.Struct, frozen=True):
    """A login without a password to check: the mechanism has found who the client is.

    `fault` is why it is refused all the same, for the log. The server still decides whether the user may log in from
    where the client is. `last_words`, if there are any, go to the client before the login is complete.
    """

    user: str
    fault: str = ""
    last_words: bytes = b""


class Challenge(msgspec.Struct, frozen=True):
    """What the client must answer before it can log in."""

    data: bytes


Login = LoginRequest | ProvenLogin
Step = Login | Challenge


class LoginSettings(msgspec.Struct, frozen=True):
    """The settings of logins. `mechanisms` are offered in this order, each where it can be used.

    `certificate_name` is the part of a client's certificate that EXTERNAL takes as the user name; of several subject
    alternative names, the first of type `certificate_san_type`. ANONYMOUS logs in as `anonymous_user`. With
    `requires_tls`, no password is taken that others on the way could read. SCRAM-SHA-256 uses `made_up_verifiers` for
    users that do not exist.
    """

    mechanisms: tuple[str, ...] = ("AMQPLAIN", "PLAIN")
    anonymous_user: str = ""
    certificate_name: str = "distinguished_name"
    certificate_san_type: str = "dns"
    requires_tls: bool = False
    made_up_verifiers: MadeUpVerifiers = MadeUpVerifiers()
