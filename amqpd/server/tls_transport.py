"""TLS of one client: the protocol of its socket, and the transport of its session.

Owns the TLS state of one connection. Unlike asyncio's and uvloop's TLS, it keeps no data of its own: all connections
read into one shared buffer, everything is decrypted at once into the buffer that the client's protocol gives, and
everything that is written goes at once to the socket's transport, whose buffer is bounded. So pausing, back-pressure,
and the memory of an idle connection are those of a plain connection. Only what is left when the protocol pauses stays,
at most one read.

Bytes that are not data, such as key updates and empty records, may be only a part of what a client sends: handling them
costs time.

RFC 8446, RFC 5246.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

READ_BYTES = 256 * 1024         # of one read, before decryption
FED_BYTES = 32 * 1024           # given to OpenSSL at a time, since its buffer keeps the size that it once had
RECORD_BYTES = 16 * 1024        # encrypted at a time: the most of one record
HANDSHAKE_S = 5.0
GRACE_S = 0.1                   # for input to be read that came while the loop was busy
OVERHEAD_ALLOWED = 64 * 1024    # bytes that are not data; the handshake is among them
OVERHEAD_FACTOR = 64            # as many more for each byte of data: it may come in records of one byte
UNREAD_ANSWERS = 64 * 1024      # bytes
NOTHING = memoryview(b"")
TLS_HANDSHAKE, TLS_MAJOR = 0x16, 3      # the first two bytes of a TLS client
RECORD_HEAD = 5                 # bytes before a record, the last two with its size


class Client(Protocol):
    """The protocol of the decrypted side; see server/connection.py."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""

    def read_size(self) -> int:
        """Return how many bytes the next read may take."""

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        """See asyncio."""

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""

    def note_read(self, nbytes: int, steps: int, *, is_full: bool) -> None:
        """Note what TLS did for the bytes of the next `buffer_updated`, and whether there was more to read."""

    def eof_received(self) -> bool | None:
        """See asyncio."""

    def pause_writing(self) -> None:
        """See asyncio."""

    def resume_writing(self) -> None:
        """See asyncio."""


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """TLS of one client. `view` is shared by all clients, for what is read from them.

    `on_established` is called once the handshake is complete. `on_failed` gets a text for the log, and its arguments:
    why the connection is closed.
    """

    def __init__(
        self, client: Client, context: ssl.SSLContext, view: memoryview, loop: asyncio.AbstractEventLoop,
        on_established: Callable[[ssl.SSLObject], None], on_failed: Callable[..., None],
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        super().__init__()
        self._client = client
        self._view = view
        self._loop = loop
        self._on_established = on_established
        self._on_failed = on_failed
        self._handshake_s = handshake_s
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._context = context
        self._tls: ssl.SSLObject        # once the first record is there
        self._hello = b""               # what there is of that record
        self._raw: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._has_begun = self._is_established = self._is_over = self._is_paused = self._is_waiting = False
        self._asked = 0             # bytes of the last read
        self._received = 0          # bytes, in all
        self._decrypted = 0
        self._unread_answers = 0    # bytes that TLS said by itself, since the client had read everything

    # Called by the socket's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, and the client's session."""
        self._raw = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(self._handshake_s, self._give_grace)
        self._client.connection_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return a part of the shared buffer, as large as the client's share."""
        self._asked = min(READ_BYTES, self._client.read_size())
        return self._view[:self._asked]

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt everything that came, for the client's protocol."""
        if self._has_begun:
            self._take(self._view[:nbytes])
        elif not self._is_over:
            self._begin(bytes(self._view[:nbytes]))

    def eof_received(self) -> None:
        """Return None, so that the transport closes: the client sends nothing more."""
        self._client.eof_received()

    def pause_writing(self) -> None:
        """Tell the client's protocol that the client does not read fast enough."""
        self._client.pause_writing()

    def resume_writing(self) -> None:
        """Tell the client's protocol that the client has read enough again."""
        self._client.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the client's protocol that the socket is lost."""
        self._end_handshake()
        self._is_over = True
        self._client.connection_lost(exc)

    # TLS

    def _begin(self, data: bytes) -> None:
        """Begin TLS with the first record: until all of it is there, a silent client costs little memory."""
        self._hello = hello = self._hello + data
        size = int.from_bytes(hello[3:RECORD_HEAD], "big") if len(hello) >= RECORD_HEAD else RECORD_BYTES
        if hello[0] != TLS_HANDSHAKE or len(hello) > 1 and hello[1] != TLS_MAJOR or size > RECORD_BYTES:
            self._fail(f"not a TLS client: it began with %r{_advice(hello[:4])}", hello[:8])
        elif len(hello) >= RECORD_HEAD + size:
            self._has_begun = True
            self._hello = b""
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._take(memoryview(hello))

    def _shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is complete. Raises SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self._end_handshake()
        self._is_established = True
        self._on_established(self._tls)
        return True

    def _end_handshake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_grace(self) -> None:
        self._timer = self._loop.call_later(GRACE_S, self._time_out)

    def _time_out(self) -> None:
        self._fail(f"no handshake within {self._handshake_s:g} s")

    def _take(self, data: memoryview) -> None:
        """Go on with what came, and with what was left before it."""
        try:
            if self._is_established:
                self._decrypt(data)
            else:
                self._feed(data)
                if self._shake_hands():
                    self._decrypt(NOTHING)
            self._send()
        except ssl.SSLError as error:
            self._send()            # the alert
            self._fail(describe_error(error))

    def _feed(self, data: memoryview) -> None:
        """Give bytes to OpenSSL, unless too many of those before were no data."""
        self._incoming.write(data)
        self._received += len(data)
        if self._received > OVERHEAD_ALLOWED + OVERHEAD_FACTOR * self._decrypted:
            self._fail("too many bytes that are not data, such as key updates")

    def _decrypt(self, data: memoryview) -> None:
        """Pass on everything that came, in pieces for OpenSSL, unless the client's protocol pauses. Raises SSLError."""
        tls, incoming, client = self._tls, self._incoming, self._client
        is_full, fed = len(data) == self._asked, 0
        while not self._is_over:
            if self._is_paused:
                incoming.write(data[fed:])
                self._received += len(data) - fed
                return
            buffer = memoryview(client.get_buffer(-1))
            size, filled, records, needs_more, is_at_end = len(buffer), 0, 0, False, False
            while filled < size and not self._is_over:
                if needs_more or not incoming.pending and not tls.pending():
                    if fed == len(data):
                        break
                    piece = data[fed:fed + FED_BYTES]
                    fed += len(piece)
                    self._feed(piece)
                    needs_more = False
                try:
                    octets = cast(int, tls.read(size - filled, buffer[filled:] if filled else buffer))  # one record
                except ssl.SSLWantReadError:
                    needs_more = True       # for the rest of a record
                    continue
                except ssl.SSLZeroReturnError:
                    octets = 0              # the client has ended TLS, after we did
                if not octets:
                    is_at_end = True
                    break
                filled += octets
                self._decrypted += octets
                records += 1
            if filled and not self._is_over:
                client.note_read(filled, records, is_full=is_full)
                client.buffer_updated(filled)
            if is_at_end:
                self._end_input()
            elif filled < size:
                return

    def _end_input(self) -> None:
        """Close, as the client has ended TLS."""
        self._is_over = True
        self._client.eof_received()
        self._raw.close()

    def _send(self) -> None:
        """Pass on what TLS has to say by itself, such as a step of the handshake, or its own key updates."""
        if not self._outgoing.pending or self._raw.is_closing():
            return
        octets = self._outgoing.read()
        self._unread_answers = len(octets) + (self._unread_answers if self._raw.get_write_buffer_size() else 0)
        self._raw.write(octets)
        if self._unread_answers > UNREAD_ANSWERS and not self._is_over:
            self._fail("the client does not read the answers of TLS")

    def _fail(self, reason: str, *arguments: object) -> None:
        self._end_handshake()
        self._is_over = True
        self._on_failed(reason, *arguments)
        if self._is_established:
            self._raw.abort()
        else:
            self._raw.close()       # once the alert is sent

    # Called by the client's protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio: what the socket's transport knows."""
        return self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """See asyncio."""
        self._is_paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio; what is left of the last read comes first, in the next turn."""
        self._is_paused = False
        if self._is_established and (self._incoming.pending or self._tls.pending()):
            if not self._is_waiting:
                self._is_waiting = True
                self._loop.call_soon(self._go_on)
        else:
            self._raw.resume_reading()

    def _go_on(self) -> None:
        self._is_waiting = False
        if not self._is_paused and not self._is_over:
            self._take(NOTHING)
        if not self._is_paused and not self._is_over:
            self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio."""
        self._raw.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """See asyncio; the bytes are encrypted."""
        return self._raw.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt these bytes and send them."""
        if not self._is_established or self._is_over:
            return
        encrypt, take = self._tls.write, self._outgoing.read
        try:
            if len(data) <= RECORD_BYTES:
                encrypt(data)
                self._raw.write(take())
                return
            view = memoryview(data)
            records = []
            for start in range(0, len(view), RECORD_BYTES):
                encrypt(view[start:start + RECORD_BYTES])
                records.append(take())
            self._raw.writelines(records)
        except ssl.SSLError as error:
            self._fail(describe_error(error))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Encrypt these pieces and send them; small ones are joined, since each write becomes a record."""
        small: list[bytes | bytearray | memoryview] = []
        for piece in list_of_data:
            if len(piece) < RECORD_BYTES:
                small.append(piece)
                continue
            if small:
                self.write(b"".join(small))
                small = []
            self.write(piece)
        if small:
            self.write(b"".join(small))

    def write_eof(self) -> None:
        """End our side, of TLS and of the socket; the client may still send."""
        if self._is_established and not self._is_over:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass                # the client has not ended its side yet
            self._send()
        self._raw.write_eof()

    def can_write_eof(self) -> bool:
        """See asyncio."""
        return True

    def close(self) -> None:
        """Close when everything is sent."""
        self.write_eof()
        self._raw.close()

    def abort(self) -> None:
        """Close now, with output unsent."""
        self._is_over = True
        self._raw.abort()


def _advice(begin: bytes) -> str:
    """Return what may help a client that does not speak TLS."""
    if begin == b"AMQP":
        return "; let the client use TLS (amqps), or connect it to a listener without TLS"
    if begin[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI"):
        return "; this port speaks AMQP over TLS, not HTTP"
    return ""


# What the user can do about, in their words, by OpenSSL's name of the reason.
REASONS = {
    "UNSUPPORTED_PROTOCOL": "the client offers no version of TLS that is allowed here (tls.min_version)",
    "VERSION_TOO_LOW": "the client offers no version of TLS that is allowed here (tls.min_version)",
    "NO_SHARED_CIPHER": "the client and this server have no cipher in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": 'the client sent no certificate (tls.client_certificates = "required")',
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust the CA of this server's certificate (tls.certificate)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept this server's certificate (tls.certificate)",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept this server's certificate (tls.certificate)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says that this server's certificate has expired (tls.certificate)",
    "UNEXPECTED_EOF_WHILE_READING": "the client ended the connection",
}


def describe_error(error: ssl.SSLError) -> str:
    """Return an error of TLS in the words of the user; the texts are few, so that they can be counted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted: {error.verify_message}"
    reason = error.reason or ""
    return REASONS.get(reason) or reason.lower().replace("_", " ") or "an unknown error of TLS"
