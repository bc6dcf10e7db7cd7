"""A client's socket: passes bytes to its session, and output of the session to the socket.

Owns the transport. All connections of the loop read into one shared buffer, since the result of a read is processed
before the next one begins.

Back-pressure works in both directions: while the transport is full, the session has no room, so its consumers have no
credit; while the journal is full, publishers are not read. A client that is blocked by an alarm is read a little
further, so that its heartbeats arrive; after that the kernel tells whether its machine is alive.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol, cast

from amqpd.server.loop import LoopTurn
from amqpd.server.read_shares import LITTLE
from amqpd.session.connection import Session

LARGE_WRITE = 64 * 1024     # from here on, pieces are written one by one instead of being joined,
LARGE_PIECE = 4 * 1024      # if they are as large as this on average
HUGE_WRITE = 1024 * 1024    # and from here on those of half a small frame: copying them would cost more
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 30, 10, 6
USER_TIMEOUT_MS = 90_000
READ_WHILE_BLOCKED = 4 * 1024           # bytes at a time
TCP_FACTS = struct.Struct("=B55xI")     # of struct tcp_info, <linux/tcp.h>: the state, ms since the last ack
TCP_ESTABLISHED = 1


class Reception(Protocol):
    """The listeners, as a connection uses them from its begin to its end; see server/listener.py."""

    def begin_session(self, protocol: ClientProtocol) -> Session:
        """Begin the session of a client whose socket is open."""

    def handshake_advanced(self, protocol: ClientProtocol) -> None:
        """Note a step of the handshake; check the password if the client has sent one."""

    def end_session(self, protocol: ClientProtocol) -> None:
        """Remove a client whose socket is lost."""


class ClientProtocol(asyncio.BufferedProtocol):
    """The transport's callbacks for one client. `buffer` is shared by all clients, for what is read from them.

    `outgoing_limit` is the number of bytes in the transport from which on the client counts as too slow.
    """

    def __init__(
        self, reception: Reception, turn: LoopTurn, buffer: bytearray, outgoing_limit: int, peer: tuple[str, int],
        host: tuple[str, int],
    ) -> None:
        self.session: Session
        self.peer = peer
        self.host = host
        self.is_known = True        # False if the peer is a proxy that does not tell whom it speaks for
        self._reception = reception
        self._turn = turn
        self._now_ms = turn.now_ms
        self._view = memoryview(buffer)
        self._outgoing_limit = outgoing_limit
        self._transport: asyncio.Transport
        self._is_direct = False     # whether the last buffer given out was not the shared one
        self._size = 0              # of that buffer
        self.expected_steps = 0     # see server/read_shares.py
        self.has_rested = False
        self._peer_took = self._looks_in_vain = 0       # bytes that the transport had sent at the last call

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a session for a new client."""
        self._transport = cast(asyncio.Transport, transport)
        set_socket_options(transport.get_extra_info("socket"))
        limit = self._outgoing_limit
        self._transport.set_write_buffer_limits(high=limit, low=limit // 4)
        self.session = self._reception.begin_session(self)
        self.session.state.unsent = self._transport.get_write_buffer_size

    def read_size(self) -> int:
        """Return how many bytes the next read may take."""
        return READ_WHILE_BLOCKED if self.session.blocking.is_blocked else self._turn.shares.size(self)

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        """Return the shared buffer or, for a large body that is being received, a view into the body itself."""
        is_blocked = self.session.blocking.is_blocked
        room = None if is_blocked else self.session.direct_room()
        self._is_direct = room is not None
        if room is not None:
            self._size = len(room)
            return room
        self._size = READ_WHILE_BLOCKED if is_blocked else self._turn.shares.size(self)
        return self._view[:self._size]

    def note_read(self, nbytes: int, steps: int, *, is_full: bool) -> None:
        """Note what TLS did for the bytes of the next `buffer_updated`, and whether there was more to read."""
        self._turn.shares.add_steps(steps)
        if is_full:
            self._size = nbytes

    def buffer_updated(self, nbytes: int) -> None:
        """Pass the bytes to the session; the end of the turn does the rest."""
        session = self.session
        state = session.state
        runs = state.published_runs
        effort = session.broker.effort
        before, was_blocked = effort.total, session.blocking.is_blocked
        if self._is_direct:
            session.receive_direct(nbytes, self._now_ms())
        else:
            session.receive(self._view[:nbytes], self._now_ms())
        must_rest = not was_blocked and self._turn.shares.has_read(self, nbytes, self._size, effort.total - before)
        if session.receiver.is_deferred:
            self._pause_reading()       # until the commands that were read have been carried out
        elif must_rest:
            self._pause_reading()
            self._turn.shares.rest(self)
        backlog = self._turn.committer.backlog
        is_held = backlog.is_full or state.published_runs > runs and session.broker.is_behind
        if is_held and session.is_read and (self.expected_steps > LITTLE or backlog.is_overfull):
            self._pause_reading()       # a client that sends little may go on
            self._turn.shares.hold(self)
        if session.blocking.is_input_full and session.is_read:
            self._pause_reading()
        self._turn.schedule()

    def _pause_reading(self) -> None:
        self.session.is_read = False
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again: the others had their turn, the journal has been written, or an alarm has cleared."""
        if self.session.blocking.is_input_full or self.session.receiver.is_deferred:
            return
        self.session.is_read = True
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Note that the client does not read fast enough."""
        self.session.state.is_writable = False

    def resume_writing(self) -> None:
        """Note that the client has read enough again."""
        self._turn.tell_time()
        self.session.state.is_writable = True
        self.session.resume()

    def eof_received(self) -> None:
        """Return False, so that the transport closes: the client sends nothing more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session, as the socket is lost."""
        if isinstance(exc, OSError):
            self.session.state.socket_error = exc.strerror or str(exc)
        self._turn.tell_time()
        self._turn.lose(self)

    def end_session(self) -> None:
        """Drop the references to the session, which knows that the socket is lost."""
        self._reception.end_session(self)

    def looks_in_vain(self) -> int:
        """Return how often in a row this was called while output waited for the client, and it took none of it."""
        unsent = self._transport.get_write_buffer_size()
        taken = self.session.traffic.sent_bytes - unsent
        self._looks_in_vain = self._looks_in_vain + 1 if unsent and taken == self._peer_took else 0
        self._peer_took = taken
        return self._looks_in_vain

    @property
    def has_gone(self) -> bool:
        """Return whether the client has closed its connection, which may not have been read up to its end."""
        return has_gone(self._transport.get_extra_info("socket"))

    def acknowledged_ms_ago(self) -> int | None:
        """Return how many ms ago the client's machine acknowledged anything; None if the client has closed.

        For a client that is not read. If the system does not tell, it is 0.
        """
        try:
            state, age = TCP_FACTS.unpack(self._transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, TCP_FACTS.size))
        except (AttributeError, OSError, struct.error):
            return 0
        return int(age) if state == TCP_ESTABLISHED else None

    # The end of a turn, and of a connection

    def handshake_advanced(self) -> None:
        """Note that the client has taken a step of the handshake."""
        self._reception.handshake_advanced(self)

    def flush(self, now: int) -> None:
        """Write the session's output; then go on delivering, or close if it was the last."""
        session = self.session
        state = session.state
        was_full = state.room <= 0
        pieces = session.take_output(now)
        if pieces and not self._transport.is_closing():
            size = sum(map(len, pieces))
            session.traffic.sent_bytes += size
            session.traffic.sent_count += 1
            if size >= LARGE_WRITE and size > len(pieces) * (LARGE_PIECE if size < HUGE_WRITE else LARGE_PIECE // 4):
                self._transport.writelines(pieces)
            else:
                self._transport.write(b"".join(pieces))
        if state.is_writable and (was_full or session.receiver.waits_for_reader):
            session.resume()
        if session.is_finished:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close our side, unless the client should close first; read on until the client has closed, or its time is up.

        Closing at once could lose the last output for a client that is still sending: the kernel answers with a reset,
        which discards it. Spec: connection.close-ok; RabbitMQ: rabbit_reader, state `closed`.
        """
        if self._transport.is_closing():
            return
        if not self.session.phases.peer_closes:
            self._transport.write_eof()
        if not self.session.is_read:
            self.resume_reading()

    def drop(self) -> None:
        """Close the connection now, with output unsent."""
        self._transport.abort()


def has_gone(connection: socket.socket) -> bool:
    """Return whether a client has closed its connection, or reset it, whatever it sent before."""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED
    except (AttributeError, OSError):
        return False        # the system does not tell


def set_socket_options(connection: socket.socket) -> None:
    """Turn off Nagle's algorithm, and detect a client whose machine is gone, within 90 s."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S), ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
