"""The command `make_certificates`: a CA, and a certificate for a server and one for a client, for a first try of TLS.

It asks no broker. The library `cryptography` makes the certificates; TLS itself does not need it, so it is installed
only with the extra `tls`, and imported only here.

RFC 5280; RabbitMQ docs/ssl (tls-gen).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_IO, EXIT_UNAVAILABLE
from amqpd.program import Failure

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, ExtendedKeyUsage, GeneralName

FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST_COMMON_NAME = 64
CA_DAYS, DAYS = 3_650, 365
SETTINGS = """\
[tls]
listeners = ["127.0.0.1:5671"]
certificate = "{folder}/server.pem"
key = "{folder}/server.key"
ca = "{folder}/ca.pem"
client_certificates = "optional"
"""


def commands() -> list[click.Command]:
    """Return the command."""
    return [make_certificates]


@click.command("make_certificates", cls=Command)
@click.argument("directory", metavar="DIR")
@click.option("--host", "hosts", metavar="NAME", multiple=True,
              help="A name or address of the server, besides localhost and the host's name; may be repeated.")
@click.option("--client", metavar="NAME", default="guest",
              help="The name in the client's certificate.  [default: guest]")
@common
@click.pass_obj
def make_certificates(options: Options, directory: str, hosts: tuple[str, ...], client: str) -> None:
    """Make certificates for a first try of TLS.

    DIR gets the files of a CA, a server and a client, which are valid for a year and readable by their owner only. No
    broker is asked.
    """
    folder = Path(directory).expanduser().absolute()
    if not client or len(client.encode()) > LONGEST_COMMON_NAME:
        raise click.BadParameter(f"a text of 1 to {LONGEST_COMMON_NAME} bytes", param_hint="--client")
    names = list(dict.fromkeys((*LOOPBACK, socket.gethostname(), *hosts)))
    contents = _make(names, client)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FILES:
            if (folder / name).exists():
                raise Failure(f"{folder / name} exists already: name another directory, or move it away", EXIT_IO)
        for name, content in zip(FILES, contents):
            _write(folder / name, content)
    except OSError as error:
        raise Failure(f"{error.filename or folder} cannot be written: {error.strerror}; name another directory",
                      EXIT_IO) from None
    options.announce(f"Certificates in {folder}, valid for {DAYS} days, for {', '.join(names)}.")
    options.announce("Put this into the configuration of amqpd:")
    options.announce("")
    click.echo(SETTINGS.format(folder=folder), nl=False)
    options.announce("")
    options.announce("Clients need ca.pem and, for a certificate of their own, client.pem and client.key.")
    options.announce("Keep ca.key away from both: everybody who has it can make certificates.")


def _write(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _make(names: Iterable[str], client: str) -> list[bytes]:
    """Return the contents of `FILES`, in that order."""
    try:
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID
    except ImportError:
        raise Failure("make_certificates needs the library cryptography: pip install 'amqpd[tls]'",
                      EXIT_UNAVAILABLE) from None
    ca_key, server_key, client_key = _new_key(), _new_key(), _new_key()
    ca = _sign(f"amqpd CA {os.urandom(4).hex()}", ca_key, None, ca_key)
    server = _sign("amqpd", server_key, ca, ca_key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
                   [_general_name(name) for name in names])
    owner = _sign(client, client_key, ca, ca_key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
    pairs = ((ca, ca_key), (server, server_key), (owner, client_key))
    return [content for certificate, key in pairs for content in (_pem(certificate), _pem(key))]


def _general_name(name: str) -> GeneralName:
    """Return a name of a server. Raises Failure."""
    from cryptography import x509
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        if not name:
            raise ValueError("no name")
        return x509.DNSName(name.encode("idna").decode())
    except (UnicodeError, ValueError):
        raise click.BadParameter(f"{name!r} is not the name of a host", param_hint="--host") from None


def _new_key() -> EllipticCurvePrivateKey:
    """Return a key whose signatures cost a server little."""
    from cryptography.hazmat.primitives.asymmetric import ec
    return ec.generate_private_key(ec.SECP256R1())


def _sign(
    name: str, key: EllipticCurvePrivateKey, ca: Certificate | None, ca_key: EllipticCurvePrivateKey,
    usage: ExtendedKeyUsage | None = None, server_names: list[GeneralName] | None = None,
) -> Certificate:
    """Return a certificate for a key, signed by the CA; without `ca`, that of the CA itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    is_ca, now = ca is None, datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=subject if ca is None else ca.subject, subject_name=subject, public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + datetime.timedelta(days=CA_DAYS if is_ca else DAYS))
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), True),
        (x509.KeyUsage(
            digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    ]
    if usage is not None:
        extensions.append((usage, False))
    if server_names:
        extensions.append((x509.SubjectAlternativeName(server_names), False))
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(ca_key, hashes.SHA256())


def _pem(made: Certificate | EllipticCurvePrivateKey) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization as form
    if isinstance(made, x509.Certificate):
        return made.public_bytes(form.Encoding.PEM)
    return made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
