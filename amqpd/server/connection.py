"""One client's socket: bytes to its session, bytes of its session to the socket.

Owns the transport. Reading goes through one buffer shared by all connections of the loop, since a read is
taken apart before the next one begins.

Back-pressure both ways: a transport that is full leaves the session without room, so its consumers have no
credit; a journal that is full leaves publishers unread until it has been written. A client that is blocked by
an alarm is read a little further, so that its heartbeats are heard; then the kernel tells whether its machine lives.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol, cast

from amqpd.server.loop import LoopTurn
from amqpd.server.read_shares import LITTLE
from amqpd.session.connection import Session

LARGE_WRITE = 64 * 1024     # from here on, pieces are handed over one by one instead of being joined,
LARGE_PIECE = 4 * 1024      # if they are as large as this on average
HUGE_WRITE = 1024 * 1024    # and from here on those that are half a small frame: to copy so much would cost more
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 30, 10, 6
USER_TIMEOUT_MS = 90_000
READ_WHILE_BLOCKED = 4 * 1024           # bytes at a time
TCP_FACTS = struct.Struct("=B55xI")     # of struct tcp_info, <linux/tcp.h>: the state, ms since the last ack came
TCP_ESTABLISHED = 1


class Reception(Protocol):
    """Who greets a client, sees to its login, and hears that it has gone; see server/listener.py."""

    def begin_session(self, protocol: ClientProtocol) -> Session:
        """Begin the session of a client whose socket is open."""

    def handshake_advanced(self, protocol: ClientProtocol) -> None:
        """Note that a client has taken a step of the handshake; look at its password if it has given one."""

    def end_session(self, protocol: ClientProtocol) -> None:
        """Forget a client: its socket is gone."""


class ClientProtocol(asyncio.BufferedProtocol):
    """The transport's callbacks for one client. `buffer` is shared by all clients, for what is read from them.

    `outgoing_limit` is how many bytes the transport may keep until the peer counts as one that does not keep up.
    """

    def __init__(
        self, reception: Reception, turn: LoopTurn, buffer: bytearray, outgoing_limit: int, peer: tuple[str, int],
        host: tuple[str, int],
    ) -> None:
        self.session: Session
        self.peer = peer
        self.host = host
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
        self._peer_took = self._looks_in_vain = 0       # bytes that the transport got rid of, when last looked at

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came: begin its session."""
        self._transport = cast(asyncio.Transport, transport)
        set_socket_options(transport.get_extra_info("socket"))
        limit = self._outgoing_limit
        self._transport.set_write_buffer_limits(high=limit, low=limit // 4)
        self.session = self._reception.begin_session(self)
        self.session.state.unsent = self._transport.get_write_buffer_size

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        """The buffer all connections share; for a large body on its way in, the body's own place."""
        is_blocked = self.session.blocking.is_blocked
        room = None if is_blocked else self.session.direct_room()
        self._is_direct = room is not None
        if room is not None:
            self._size = len(room)
            return room
        self._size = READ_WHILE_BLOCKED if is_blocked else self._turn.shares.size(self)
        return self._view[:self._size]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came: the session takes them, and the end of the turn sees to the rest."""
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
            self._pause_reading()       # until what was read has been carried out
        elif must_rest:
            self._pause_reading()
            self._turn.shares.rest(self)
        backlog = self._turn.committer.backlog
        is_held = backlog.is_full or state.published_runs > runs and session.broker.is_behind
        if is_held and session.is_read and (self.expected_steps > LITTLE or backlog.is_overfull):
            self._pause_reading()       # of who sends little, the little may come
            self._turn.shares.hold(self)
        if session.blocking.is_input_full and session.is_read:
            self._pause_reading()
        self._turn.schedule()

    def _pause_reading(self) -> None:
        self.session.is_read = False
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The others had their turn, the journal has been written, or an alarm has ended."""
        if self.session.blocking.is_input_full or self.session.receiver.is_deferred:
            return
        self.session.is_read = True
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self.session.state.is_writable = False

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._turn.tell_time()
        self.session.state.is_writable = True
        self.session.resume()

    def eof_received(self) -> None:
        """The peer says no more; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._turn.tell_time()
        self._turn.lose(self)

    def end_session(self) -> None:
        """The session has been told that the socket is gone: nobody knows it any more."""
        self._reception.end_session(self)

    def looks_in_vain(self) -> int:
        """Return how often in a row this has been asked while bytes waited for the peer, and it took none of them."""
        unsent = self._transport.get_write_buffer_size()
        taken = self.session.traffic.sent_octets - unsent
        self._looks_in_vain = self._looks_in_vain + 1 if unsent and taken == self._peer_took else 0
        self._peer_took = taken
        return self._looks_in_vain

    def acknowledged_ms_ago(self) -> int | None:
        """How long ago the peer's machine acknowledged anything; None if the peer has closed.

        For a peer that is not read, of which nothing else tells. Where the system does not either, it is 0.
        """
        try:
            state, age = TCP_FACTS.unpack(self._transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, TCP_FACTS.size))
        except (AttributeError, OSError, struct.error):
            return 0
        return int(age) if state == TCP_ESTABLISHED else None

    # The end of a turn, and of a connection

    def handshake_advanced(self) -> None:
        """The client has taken a step of the handshake."""
        self._reception.handshake_advanced(self)

    def flush(self, now: int) -> None:
        """Write what the session has to say; then go on delivering, or close if that was all."""
        session = self.session
        state = session.state
        was_full = state.room <= 0
        pieces = session.take_output(now)
        if pieces and not self._transport.is_closing():
            size = sum(map(len, pieces))
            session.traffic.sent_octets += size
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
        """End what we say, unless that is the peer's to do; read on until the peer has closed, or its time is up.

        To close at once would take our last words from a peer that is still sending: the kernel answers with a
        reset, which overtakes them. Spec: connection.close-ok; RabbitMQ: rabbit_reader, state `closed`.
        """
        if self._transport.is_closing():
            return
        if not self.session.phases.peer_closes:
            self._transport.write_eof()
        if not self.session.is_read:
            self.resume_reading()

    def drop(self) -> None:
        """End the connection now, whatever is still unsent."""
        self._transport.abort()


def set_socket_options(connection: socket.socket) -> None:
    """Send small answers at once, and notice a peer whose machine is gone. reliability: 90 s."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S), ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
