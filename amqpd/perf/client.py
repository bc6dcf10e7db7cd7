"""A client connection for the set-up of a run: login, channel, and methods that wait for their answer.

Publishers and consumers take over its socket afterwards, with the bytes that have arrived already.

Spec: §2.2, §4.2; RabbitMQ docs/connections for the capabilities.
"""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

from pamqp.base import Frame
from pamqp.commands import Channel, Connection, Exchange, Queue

from amqpd import __version__
from amqpd.exit_codes import EXIT_NO_USER, EXIT_TEMPORARY, EXIT_UNAVAILABLE
from amqpd.perf.address import Address
from amqpd.perf.failure import RunFailure
from amqpd.wire.methods import decode_method, encode_method

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY = 1, 2, 3
TIMEOUT_S = 30.0            # for an answer of the set-up
CHANNEL = 1                 # the one channel that each connection uses
FRAME_MAX = 131_072
FRAME_HEAD = struct.Struct(">BHI")
_EMPTY: dict[str, Any] = {
    "bit": False, "shortstr": "", "longstr": "", "table": {}, "octet": 0, "short": 0, "long": 0, "longlong": 0}
_CAPABILITIES = {
    "publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True, "connection.blocked": True,
    "authentication_failure_close": True}


def method_of(method_class: type[Frame], **arguments: Any) -> Frame:
    """Return a method; arguments that are not given are 0, false or empty."""
    method = method_class.__new__(method_class)     # __init__ would refuse names that brokers allow
    for name in method_class.attributes():
        setattr(method, name, arguments.get(name, _EMPTY[method_class.amqp_type(name)]))
    return method


class Refused(Exception):
    """The broker has closed the channel or the connection; `code` and `text` are its reason."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def failure(self, address: Address) -> RunFailure:
        """Return the error that ends the run."""
        return RunFailure(f"{address.place} refused: {self.code} {self.text}", EXIT_UNAVAILABLE)


class Ended(Exception):
    """The broker has ended the connection without a reason."""


class Client:
    """An open connection with one open channel. The caller turns `Refused` into a line for people."""

    def __init__(self, address: Address, name: str) -> None:
        self.address = address
        self.frame_max = FRAME_MAX
        self.server: dict[str, Any] = {}
        self._buffer = bytearray()
        self.socket = connect(address)
        try:
            self._log_in(name)
            self.open_channel()
        except BaseException:
            self.socket.close()
            raise

    def _log_in(self, name: str) -> None:
        address = self.address
        try:
            self.socket.sendall(PROTOCOL_HEADER)
            start = self._expect(0, Connection.Start)
            self.server = dict(start.server_properties)
            mechanism, response = self._credentials(start.mechanisms)
            self.send(0, method_of(
                Connection.StartOk, mechanism=mechanism, response=response, locale="en_US", client_properties={
                    "product": "amqpperf", "version": __version__, "platform": "Python", "connection_name": name,
                    "capabilities": _CAPABILITIES}))
            try:
                tune = self._expect(0, Connection.Tune)
            except Ended:       # as brokers do that do not tell why
                raise Refused(403, "ACCESS_REFUSED - the login was refused") from None
            self.frame_max = min(FRAME_MAX, tune.frame_max or FRAME_MAX)
            self.send(0, method_of(
                Connection.TuneOk, channel_max=tune.channel_max, frame_max=self.frame_max, heartbeat=0))
            self.send(0, method_of(Connection.Open, virtual_host=address.vhost))
            self._expect(0, Connection.OpenOk)
        except Refused as refused:
            raise login_failure(address, refused) from None
        except Ended:
            raise RunFailure(
                f"{address.place} ended the connection during the login; check that AMQP 0-9-1"
                f"{' with TLS' if address.is_tls else ''} is spoken at this port", EXIT_UNAVAILABLE) from None

    def _credentials(self, mechanisms: str) -> tuple[str, bytes]:
        address, offered = self.address, mechanisms.split()
        if address.certificate and "EXTERNAL" in offered:
            return "EXTERNAL", b""
        if "PLAIN" not in offered:
            raise RunFailure(
                f"{address.place} offers no login that amqpperf has: it offers {mechanisms}; allow PLAIN", EXIT_NO_USER)
        return "PLAIN", b"\0".join((b"", address.user.encode(), address.password.encode()))

    def open_channel(self, number: int = CHANNEL) -> None:
        """Open a channel."""
        self.call(method_of(Channel.Open), Channel.OpenOk, number)

    def close_channel(self, number: int = CHANNEL) -> None:
        """Close a channel: the broker has taken in all that was sent on it before."""
        self.call(method_of(Channel.Close, reply_code=200), Channel.CloseOk, number)

    def call(self, method: Frame, answer: type[Frame], channel: int = CHANNEL) -> Any:
        """Send a method and return its answer. Raises Refused or Ended."""
        self.send(channel, method)
        return self._expect(channel, answer)

    def send(self, channel: int, method: Frame) -> None:
        """Send a method without waiting for an answer. Raises Ended."""
        try:
            self.socket.sendall(encode_method(channel, method))
        except TimeoutError:
            raise _no_answer(self.address) from None
        except OSError as error:
            raise Ended(str(error)) from None

    def queue_exists(self, queue: str) -> bool:
        """Return whether there is this queue; the channel is opened again if not."""
        return self._exists(method_of(Queue.Declare, queue=queue, passive=True), Queue.DeclareOk)

    def exchange_exists(self, exchange: str) -> bool:
        """Return whether there is this exchange; the channel is opened again if not."""
        return self._exists(method_of(Exchange.Declare, exchange=exchange, passive=True), Exchange.DeclareOk)

    def _exists(self, method: Frame, answer: type[Frame]) -> bool:
        try:
            self.call(method, answer)
        except Refused as refused:
            if refused.code != 404:
                raise
            self.open_channel()
            return False
        return True

    def rest(self) -> bytes:
        """Return the bytes that have arrived and are not read, for the code that takes over the socket."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def give_back(self, data: bytes | bytearray) -> None:
        """Take over what has arrived and is not read."""
        self._buffer += data

    def close(self) -> None:
        """Close the connection and its socket, whatever state the connection is in."""
        try:
            self.socket.settimeout(2.0)
            self.send(0, method_of(Connection.Close, reply_code=200, reply_text="done"))
            self._expect(0, Connection.CloseOk)
        except (OSError, Ended, Refused):
            pass
        finally:
            self.socket.close()

    def _expect(self, channel: int, answer: type[Frame]) -> Any:
        while True:
            kind, number, payload = self._read_frame()
            if kind != METHOD:
                continue        # a heartbeat, or a content that nobody waits for
            method = decode_method(payload)
            if isinstance(method, (Connection.Close, Channel.Close)):
                is_channel = isinstance(method, Channel.Close)
                self.send(number, method_of(Channel.CloseOk if is_channel else Connection.CloseOk))
                raise Refused(int(method.reply_code or 0), str(method.reply_text))
            if isinstance(method, answer) and number == channel:
                return method

    def _read_frame(self) -> tuple[int, int, bytes]:
        buffer = self._buffer
        while len(buffer) < 8 or len(buffer) < (size := FRAME_HEAD.unpack_from(buffer)[2] + 8):
            if buffer[:4] == b"AMQP":
                raise RunFailure(
                    f"{self.address.place} speaks another version of AMQP than 0-9-1: {bytes(buffer[:8])!r}",
                    EXIT_UNAVAILABLE)
            try:
                data = self.socket.recv(65_536)
            except TimeoutError:
                raise _no_answer(self.address) from None
            except OSError as error:
                raise Ended(str(error)) from None
            if not data:
                raise Ended("the connection was closed")
            buffer += data
        kind, channel, _ = FRAME_HEAD.unpack_from(buffer)
        payload = bytes(buffer[7 : size - 1])
        del buffer[:size]
        return kind, channel, payload


def connect(address: Address) -> socket.socket:
    """Return a connected socket, with TLS if the address says so. Raises RunFailure with the remedy."""
    try:
        plain = socket.create_connection((address.host, address.port), TIMEOUT_S)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFailure(
            f"cannot connect to {address.place}: {reason}; start the broker, or name another address: "
            "amqpperf amqp://USER:PASSWORD@HOST:PORT/VHOST", EXIT_UNAVAILABLE) from None
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.is_tls:
        return plain
    try:
        return tls_context(address).wrap_socket(plain, server_hostname=address.host)
    except (ssl.SSLCertVerificationError, ssl.CertificateError) as error:
        plain.close()
        raise RunFailure(
            f"the certificate of {address.place} is not trusted: {getattr(error, 'verify_message', error)}; "
            "name its CA with --ca FILE, or use --insecure", EXIT_UNAVAILABLE) from None
    except OSError as error:
        plain.close()
        raise RunFailure(
            f"no TLS with {address.place}: {getattr(error, 'reason', None) or error}; check that this is the port for "
            "TLS, usually 5671, and whether the broker wants a client certificate (--certificate)",
            EXIT_UNAVAILABLE) from None


def tls_context(address: Address) -> ssl.SSLContext:
    """Return the context for TLS. Raises RunFailure if a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=address.ca or None)
        if address.certificate:
            context.load_cert_chain(address.certificate, address.key or None)
    except OSError as error:
        files = ", ".join(filter(None, (address.ca, address.certificate, address.key)))
        raise RunFailure(f"cannot read a PEM file of {files}: {error.strerror or error}", EXIT_UNAVAILABLE) from None
    if not address.is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def login_failure(address: Address, refused: Refused) -> RunFailure:
    """Return the line for a login or a vhost that was refused, with the remedy."""
    text = refused.text.rstrip(".")
    if refused.code == 403:
        return RunFailure(
            f"{address.place} refused the login of user '{address.user}': {text}; check user and password in the URL, "
            "and that this user may log in from this machine", EXIT_NO_USER)
    if refused.code == 530 and "not found" in text:
        return RunFailure(
            f"{address.place} has no vhost '{address.vhost}'; it is what follows the last slash of the URL, and "
            "`add_vhost` of amqpctl or rabbitmqctl makes one", EXIT_NO_USER)
    if refused.code == 530 and "refused for user" in text:
        return RunFailure(
            f"user '{address.user}' may not use vhost '{address.vhost}'; `set_permissions` of amqpctl or rabbitmqctl "
            "allows it", EXIT_NO_USER)
    return RunFailure(f"{address.place} refused the connection: {refused.code} {text}", EXIT_UNAVAILABLE)


def _no_answer(address: Address) -> RunFailure:
    return RunFailure(
        f"{address.place} has not answered for {TIMEOUT_S:g} s; check that AMQP 0-9-1"
        f"{' with TLS' if address.is_tls else ''} is spoken at this port", EXIT_TEMPORARY)
