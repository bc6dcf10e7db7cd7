"""The certificates of the TLS listeners: read them, choose by server name, and tell when they expire.

Owns the contexts for new connections. Reading again replaces them as a whole, so connections keep what they have, and
files that cannot be used change nothing. Renegotiation, compression and session tickets are off.

RabbitMQ docs/ssl; RFC 6066 (server names).
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from amqpd.config import Passphrase, Tls
from amqpd.tls_facts import PeerCertificate, TlsFacts
from amqpd.wording import counted

log = logging.getLogger("amqpd")

WARNING_DAYS = 30
DAY_S = 86_400
LOOK_S = 5.0
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
VERIFY_MODES = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
X509_V_FLAG_NO_CHECK_TIME = 0x200000    # of <openssl/x509_vfy.h>
MAKE_SOME = "for a first try, 'amqpctl make_certificates DIR' makes certificates"
# The attribute types of distinguished names, as RabbitMQ and RFC 4514 write them.
ATTRIBUTES = {
    "commonName": "CN", "surname": "SN", "givenName": "GIVENNAME", "initials": "INITIALS", "countryName": "C",
    "localityName": "L", "stateOrProvinceName": "ST", "streetAddress": "STREET", "organizationName": "O",
    "organizationalUnitName": "OU", "title": "TITLE", "serialNumber": "SERIALNUMBER", "domainComponent": "DC",
    "userId": "UID", "emailAddress": "EMAILADDRESS", "pseudonym": "PSEUDONYM",
    "generationQualifier": "GENERATIONQUALIFIER",
}
ESCAPED = re.compile(r'([,+"\\<>;=]|^[ #]| $)')


class CertificateError(Exception):
    """Files that cannot be used: for each, one line with the setting, the file, the problem and the remedy."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Own(NamedTuple):
    """A certificate of this server: the setting that names it, the names it is for, and what it says of itself."""

    setting: str
    file: str
    facts: PeerCertificate

    def days_left(self, now_s: float) -> int:
        """Return how many days the certificate is still valid; a negative number after it has expired."""
        return int((self.facts.not_after - now_s) // DAY_S)


class Loaded(NamedTuple):
    """Everything that was read at one time."""

    context: ssl.SSLContext
    certificates: list[Own]


class Certificates:
    """The certificates of the listeners. Creating it reads the files; raises CertificateError.

    `context` is for the next connection. Threads may call it.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._stamp = self._seen = stamp(tls)
        self._read = read(tls)
        self._warned_s = time.time()

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        return self._read.context

    @property
    def certificates(self) -> list[Own]:
        """The certificates of this server; the first is for clients that name no other server."""
        return self._read.certificates

    def read_again(self) -> None:
        """Read all files for new connections; if one cannot be used, keep what there is, and log it."""
        with self._lock:
            self._stamp = self._seen = stamp(self._tls)
            try:
                self._read = read(self._tls)
            except CertificateError as error:
                for problem in error.problems:
                    log.error("the certificates stay as they were: %s", problem)
                return
            log.info("the certificates have been read again, for new connections")
            self._warn()

    def look(self) -> None:
        """Read the files again once they have changed, and not again since the last look; warn once a day."""
        found = stamp(self._tls)
        if found != self._stamp and found == self._seen:
            self.read_again()
        self._seen = found
        if time.time() - self._warned_s >= DAY_S:
            self._warn()

    async def look_forever(self) -> None:
        """Look every few seconds, in a thread, since a file system may be slow."""
        while True:
            await anyio.sleep(LOOK_S)
            await anyio.to_thread.run_sync(self.look)

    def _warn(self) -> None:
        self._warned_s = time.time()
        for warning in warnings(self.certificates, self._warned_s):
            log.warning("%s", warning)

    def listed(self) -> list[dict[str, Any]]:
        """Return each certificate with its names and its last day, for `status`."""
        now_s = time.time()
        return [
            {"setting": own.setting, "file": str(own.file), "subject": own.facts.subject,
             "names": [*own.facts.san_dns, *own.facts.san_ip], "not_after": _day(own.facts.not_after),
             "days_left": own.days_left(now_s)}
            for own in self.certificates]


def read(tls: Tls) -> Loaded:
    """Read all files. Raises CertificateError with the problems of all files."""
    if unreadable := [problem for setting, file in files_of(tls) for problem in _read_fault(setting, file)]:
        raise CertificateError(*unreadable)
    pairs = [("tls", tls.certificate, tls.key, tls.key_password)]
    pairs += [(name.where, name.certificate, name.key, name.key_password) for name in tls.names]
    contexts, certificates, problems = [], [], list[str]()
    for where, certificate, key, password in pairs:
        try:
            context = _make_context(tls)
            _load_pair(context, where, certificate, key, password)
            contexts.append(context)
            certificates.append(Own(f"{where}.certificate", certificate, _read_facts(certificate, key, password)))
        except CertificateError as error:
            problems += error.problems
    if problems:
        raise CertificateError(*dict.fromkeys(problems))
    by_name = {name.name.lower(): context for name, context in zip(tls.names, contexts[1:])}
    if by_name:
        contexts[0].sni_callback = _chooser(by_name)
    return Loaded(contexts[0], certificates)


def _make_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[tls.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0     # connections last, and a resumed one would skip the check of the client's certificate
    context.verify_mode = VERIFY_MODES[tls.client_certificates]
    if tls.client_certificates != "none":
        text = _read_text("tls.ca", tls.ca)
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError):
            raise CertificateError(
                f"tls.ca: {tls.ca} has no certificate in PEM format; name the file with the CAs that signed the "
                "clients' certificates") from None
    return context


def _load_pair(context: ssl.SSLContext, where: str, certificate: str, key: str, password: Passphrase) -> None:
    """Load a certificate and its key. Raises CertificateError."""
    _read_text(f"{where}.certificate", certificate)
    is_encrypted = "ENCRYPTED" in _read_text(f"{where}.key", key)
    if is_encrypted and not password.reveal():
        raise CertificateError(
            f"{where}.key: {key} is encrypted; set {where}.key_password, or decrypt it: openssl pkey -in {key}")
    try:
        context.load_cert_chain(certificate, key, password=password.reveal)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = (f"{where}.key: {key} does not match the certificate in {certificate}; name the key that the "
                       "certificate was made for")
        elif is_encrypted and _is_certificate(certificate):
            problem = f"{where}.key: {key} cannot be decrypted with {where}.key_password; correct the password"
        elif _is_certificate(certificate):
            problem = f"{where}.key: {key} has no private key in PEM format; {MAKE_SOME}"
        else:
            problem = f"{where}.certificate: {certificate} has no certificate in PEM format; {MAKE_SOME}"
        raise CertificateError(problem) from None


def _read_text(setting: str, file: str) -> str:
    """Return the text of a PEM file. Raises CertificateError, with the absolute path."""
    file = os.path.abspath(file)
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise CertificateError(
            f"{setting}: {file} does not exist; correct the path ({MAKE_SOME})") from None
    except PermissionError:
        raise CertificateError(
            f"{setting}: {file} cannot be read: permission denied; let the user that runs amqpd read it") from None
    except OSError as error:
        raise CertificateError(f"{setting}: {file} cannot be read: {error.strerror}; correct the path") from None


def _read_fault(setting: str, file: str) -> Sequence[str]:
    """Return the problem of a file that cannot be read, in a list; an empty one if it can."""
    try:
        _read_text(setting, file)
    except CertificateError as error:
        return error.problems
    return ()


def _is_certificate(file: str) -> bool:
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError):
        return False
    return True


def _read_facts(certificate: str, key: str, password: Passphrase) -> PeerCertificate:
    """Return what a certificate of this server says of itself.

    The standard library tells that only of a peer's certificate: so a handshake is done in memory, with a client that
    trusts just this certificate, at any time.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key, password=password.reveal)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME)
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    try:
        for turn in range(8):
            try:
                ends[turn % 2].do_handshake()
            except ssl.SSLWantReadError:
                continue
        found = ends[0].getpeercert()
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        raise CertificateError(f"{certificate} cannot be used for a server: {reason}; {MAKE_SOME}") from None
    assert found is not None
    return describe_certificate(found)


def _chooser(by_name: dict[str, ssl.SSLContext]) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    """Return a callback that chooses the certificate by the name the client asks for."""
    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name is None:
            return
        name = name.lower().rstrip(".")
        found = by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}")
        if found is not None:
            connection.context = found

    return choose


# What is told of a connection, and of a certificate

def describe_connection(connection: ssl.SSLObject) -> TlsFacts:
    """Return protocol and cipher under RabbitMQ's names."""
    name = (connection.cipher() or ("", "", 0))[0]
    protocol = (connection.version() or "").lower()
    if protocol == "tlsv1.3":
        return TlsFacts(protocol=protocol, cipher=name.removeprefix("TLS_").rpartition("_")[0].lower(),
                        key_exchange="any", hash="aead")
    parts = re.fullmatch(r"(?:(\w*DHE?-\w+|\w*PSK)-)?(.+)", name)
    key_exchange, rest = (parts[1] or "rsa", parts[2]) if parts else ("", name)
    cipher, _, suffix = rest.rpartition("-")
    if not suffix.startswith("SHA"):
        cipher, suffix = rest, ""
    cipher = re.sub(r"^(AES|CAMELLIA|ARIA)(\d)", r"\1_\2", cipher)
    is_aead = any(mode in cipher for mode in ("GCM", "CCM", "POLY1305"))
    return TlsFacts(
        protocol=protocol, cipher=(cipher if is_aead else f"{cipher}_CBC").replace("-", "_").lower(),
        key_exchange=key_exchange.replace("-", "_").lower(), hash="aead" if is_aead else suffix.lower())


def peer_certificate(connection: ssl.SSLObject) -> PeerCertificate | None:
    """Return the client's certificate, which has been verified; None if it sent none."""
    found = connection.getpeercert()
    return describe_certificate(found) if found else None


def describe_certificate(found: dict[str, Any]) -> PeerCertificate:
    """Return a certificate in the form of `SSLSocket.getpeercert` as a record."""
    alternatives: dict[str, list[str]] = {}
    for kind, name in found.get("subjectAltName", ()):
        alternatives.setdefault(kind, []).append(name)
    return PeerCertificate(
        subject=_distinguished_name(found.get("subject", ())),
        issuer=_distinguished_name(found.get("issuer", ())),
        common_name=next((value for part in found.get("subject", ()) for kind, value in part
                          if kind == "commonName"), ""),
        san_dns=tuple(alternatives.get("DNS", ())),
        san_email=tuple(alternatives.get("email", ())),
        san_uri=tuple(alternatives.get("URI", ())),
        san_ip=tuple(alternatives.get("IP Address", ())),
        not_before=int(ssl.cert_time_to_seconds(found["notBefore"])),
        not_after=int(ssl.cert_time_to_seconds(found["notAfter"])))


def _distinguished_name(parts: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """Return a distinguished name as text, last part first. RFC 4514."""
    return ",".join(
        "+".join(f"{ATTRIBUTES.get(kind, kind)}={ESCAPED.sub(_escape, value)}" for kind, value in part)
        for part in reversed(parts))


def _escape(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


# Files that change, and certificates that expire

def files_of(tls: Tls) -> list[tuple[str, str]]:
    """Return all files that are read, each with the setting that names it."""
    pairs: list[tuple[str, Any]] = [("tls", tls), *((name.where, name) for name in tls.names)]
    files = [(f"{where}.{kind}", getattr(pair, kind)) for where, pair in pairs for kind in ("certificate", "key")]
    return [*files, ("tls.ca", tls.ca)] if tls.client_certificates != "none" else files


def stamp(tls: Tls) -> tuple[object, ...]:
    """Return a value that changes when a file does."""
    return tuple(_stamp_of(file) for _, file in files_of(tls))


def _stamp_of(file: str) -> object:
    try:
        found = os.stat(file)
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino


def warnings(certificates: list[Own], now_s: float) -> Iterator[str]:
    """Yield a line for each certificate that has expired, will soon, or is not valid yet."""
    for own in certificates:
        until = _day(own.facts.not_after)
        if own.facts.not_after <= now_s:
            yield f"{own.setting}: {own.file} expired on {until}: clients will refuse it; replace the file"
        elif own.facts.not_before > now_s:
            yield (f"{own.setting}: {own.file} is not valid before {_day(own.facts.not_before)}: clients will "
                   "refuse it until then")
        elif (days := own.days_left(now_s)) < WARNING_DAYS:
            yield f"{own.setting}: {own.file} expires in {counted(days, 'day')}, on {until}; replace the file"


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
