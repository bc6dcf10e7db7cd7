"""The mechanisms of authentication, in one table: where each can be used, and how it reads the client's answers.

Owns the table. `session/handshake.py` runs a mechanism, and the server checks the login that comes of it.

Spec: connection.start-ok; RFC 4616 (PLAIN), RFC 4422 (EXTERNAL), RFC 4505 (ANONYMOUS), RFC 7677 (SCRAM-SHA-256);
RabbitMQ docs/access-control, rabbit_auth_mechanism_plain, _amqplain, _anonymous, _ssl.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from amqpd.fields import FieldError, decode_table
from amqpd.session.scram import ScramLogin, Verifiers
from amqpd.session.sasl_steps import LoginRequest, LoginSettings, ProvenLogin, SaslError, Step
from amqpd.tls_facts import PeerCertificate

Respond = Callable[[bytes], Step]       # from an answer of the client to the next step. Raises SaslError


class Circumstances(NamedTuple):
    """What a mechanism may know of a connection. `is_private` says that nobody on the way can read what is sent."""

    settings: LoginSettings
    verifiers: Verifiers
    is_private: bool = False
    certificate: PeerCertificate | None = None


class Mechanism(NamedTuple):
    """A mechanism: whether a connection may use it, and the call that begins a login.

    `begin` returns the function that takes each answer of the client; the first answer is that of connection.start-ok.
    """

    can_be_used: Callable[[Circumstances], bool]
    begin: Callable[[Circumstances], Respond]


def offered(circumstances: Circumstances) -> tuple[str, ...]:
    """Return the mechanisms that a connection may use, in the order of the settings."""
    return tuple(
        name for name in circumstances.settings.mechanisms if MECHANISMS[name].can_be_used(circumstances))


def begin(name: str, circumstances: Circumstances) -> Respond:
    """Begin a login with this mechanism. Raises SaslError if it is not offered."""
    if name not in MECHANISMS:
        raise SaslError(f"unknown authentication mechanism '{name}'")
    if name not in offered(circumstances):
        raise SaslError(f"authentication mechanism '{name}' is not offered: {_obstacle(circumstances, name)}")
    return MECHANISMS[name].begin(circumstances)


def _obstacle(circumstances: Circumstances, name: str) -> str:
    if name not in circumstances.settings.mechanisms:
        return "it is not in auth_mechanisms"
    if name == "EXTERNAL":
        return "it has sent no certificate"
    return "login.require_tls is set, and the client does not use TLS"


# Passwords in clear text

def _may_send_password(circumstances: Circumstances) -> bool:
    return circumstances.is_private or not circumstances.settings.requires_tls


def read_plain(response: bytes) -> LoginRequest:
    """Return user and password of a PLAIN response, NUL user NUL password. Raises SaslError. RFC 4616."""
    parts = response.split(b"\0")
    if len(parts) != 3 or parts[0]:
        raise SaslError("malformed PLAIN response")
    try:
        return LoginRequest(parts[1].decode(), parts[2].decode())
    except UnicodeDecodeError:
        raise SaslError("malformed PLAIN response") from None


def read_amqplain(response: bytes) -> LoginRequest:
    """Return user and password of an AMQPLAIN response, a field table without its length. Raises SaslError."""
    try:
        table = decode_table(response)
    except FieldError:
        raise SaslError("malformed AMQPLAIN response") from None
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(user, str) or not isinstance(password, str):
        raise SaslError("malformed AMQPLAIN response")
    return LoginRequest(user, password)


# Certificates

def _begin_external(circumstances: Circumstances) -> Respond:
    """Take the name in the client's certificate; as in RabbitMQ, what the client says besides has no effect."""
    settings, certificate = circumstances.settings, circumstances.certificate
    assert certificate is not None
    name = name_in(certificate, settings.certificate_name, settings.certificate_san_type)
    kind = settings.certificate_name.replace("_", " ")
    fault = "" if name else f"the client's certificate has no {kind} that can be used (login.certificate_name)"
    return lambda response: ProvenLogin(name, fault)


def name_in(certificate: PeerCertificate, part: str, san_type: str) -> str:
    """Return the user name in this part of a certificate, a value of the setting login.certificate_name; or ""."""
    if part == "common_name":
        return certificate.common_name
    if part == "distinguished_name":
        return certificate.subject
    names: tuple[str, ...] = getattr(certificate, f"san_{san_type}")
    return names[0] if names else ""


# The table

def _has_certificate(circumstances: Circumstances) -> bool:
    return circumstances.certificate is not None


def _always(circumstances: Circumstances) -> bool:
    return True


def _begin_anonymous(circumstances: Circumstances) -> Respond:
    return lambda response: ProvenLogin(circumstances.settings.anonymous_user)


MECHANISMS: dict[str, Mechanism] = {
    "PLAIN": Mechanism(_may_send_password, lambda circumstances: read_plain),
    "AMQPLAIN": Mechanism(_may_send_password, lambda circumstances: read_amqplain),
    "SCRAM-SHA-256": Mechanism(_always, lambda circumstances: ScramLogin(circumstances.verifiers).respond),
    "EXTERNAL": Mechanism(_has_certificate, _begin_external),
    "ANONYMOUS": Mechanism(_always, _begin_anonymous),
}
