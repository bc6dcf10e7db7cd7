"""What is known of a TLS connection: protocol, cipher, and the client's certificate.

These are values only. The server reads them from the socket; the login may use the names in the certificate, and the
list commands show them under RabbitMQ's names.

RFC 4514 (subjects as text); RabbitMQ rabbit_cert_info, rabbit_ssl.
"""

from __future__ import annotations

import msgspec


class PeerCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A client's certificate, whose chain has been verified.

    `subject` and `issuer` are distinguished names as text, last part first: `CN=shop,O=Example`. `common_name` is empty
    without one. The names of the subjectAltName extension are in the order of the certificate. Times are in seconds
    since 1970.
    """

    subject: str
    issuer: str
    common_name: str
    san_dns: tuple[str, ...] = ()
    san_email: tuple[str, ...] = ()
    san_uri: tuple[str, ...] = ()
    san_ip: tuple[str, ...] = ()
    not_before: int
    not_after: int


class TlsFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The TLS session of a connection. `key_exchange` and `hash` are empty if the cipher's name does not tell them."""

    protocol: str           # as RabbitMQ writes it, such as "tlsv1.3"
    cipher: str             # of the data, such as "aes_256_gcm"
    key_exchange: str = ""
    hash: str = ""
