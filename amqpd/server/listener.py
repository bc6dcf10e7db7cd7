"""The clients of the listening sockets: those before login, and all of them at the end.

Owns the list of clients, the number of those before login, and the limit of descriptors for clients. Only so many
clients of one address may be admitted before login: further ones wait unread, or replace a client that makes no
progress. If more come at once than can be admitted in a turn of the loop, they wait too. They are admitted in turn by
address, so that a flood from one address does not delay others; those that have gone meanwhile are only closed. A few
descriptors are kept for the store and for amqpctl. `server/connection.py` has the single connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from amqpd.broker.broker import Broker
from amqpd.config.settings import is_loopback
from amqpd.server.acceptor import Acceptor
from amqpd.server.certificates import Certificates, describe_connection, peer_certificate
from amqpd.server.connection import ClientProtocol, has_gone
from amqpd.server.gaps import Gaps
from amqpd.server.guard import guard
from amqpd.server.login import Logins
from amqpd.server.loop import LoopTurn
from amqpd.server.proxy_protocol import Claim, Proxies
from amqpd.server.read_shares import MOST
from amqpd.server.resources import descriptors_for_clients
from amqpd.server.sparing_log import SparingLog
from amqpd.server.tls_transport import HANDSHAKE_S, READ_BYTES, TlsTransport
from amqpd.server.unauthenticated import Unauthenticated
from amqpd.session.connection import Session
from amqpd.session.settings import SessionSettings

log = logging.getLogger("amqpd.connection")

CLOSED_IN_A_TURN = 50           # when all are closed
ADMITTED_IN_A_TURN = 16
LOOKED_AT_IN_A_TURN = 64        # clients that wait, some of which have gone
LOOK_S = 0.1                    # between two checks whether waiting clients can be admitted


class Newcomer(NamedTuple):
    """A client that was accepted and is not read yet."""

    connection: socket.socket
    peer: tuple[str, int]
    host: tuple[str, int]
    is_tls: bool
    is_known: bool = True       # False for a proxy that does not tell whom it speaks for


class Listeners:
    """All listeners and their clients. `unauthenticated` has the limits of clients before login.

    Without `certificates` there is no listener for TLS. `proxies` are the addresses and networks that a PROXY header is
    expected from.
    """

    def __init__(
        self, broker: Broker, settings: SessionSettings, turn: LoopTurn, logins: Logins,
        unauthenticated: Unauthenticated[ClientProtocol], loop: asyncio.AbstractEventLoop,
        certificates: Certificates | None = None, proxies: Iterable[str] = (),
        tls_handshake_s: float = HANDSHAKE_S,
    ) -> None:
        self.settings = settings
        self.turn = turn
        self.buffer = bytearray(MOST)
        self.most_sockets = descriptors_for_clients()
        self._broker = broker
        self._logins = logins
        self._loop = loop
        self._unauthenticated = unauthenticated
        self._certificates = certificates
        self._tls_handshake_s = tls_handshake_s
        self._encrypted = memoryview(bytearray(READ_BYTES if certificates else 0))      # of all connections
        self._acceptors = {
            is_tls: Acceptor(loop, self._has_place, self._make_place, partial(self._arrive, is_tls))
            for is_tls in (False, True)}
        self._waiting: dict[str, deque[Newcomer]] = {}      # by address, clients that wait for room
        self._waiting_count = 0
        self._admitted = 0          # in this turn of the loop
        self._is_admitting = False  # whether `_admit_some` is scheduled
        self._gaps = Gaps(int(LOOK_S * 1000), self.turn.now_ms())
        self._look: asyncio.TimerHandle | None = None
        self._sockets = 0           # of clients, in any state
        self._beginning: set[asyncio.Task[Any]] = set()
        self._accepted = 0
        self.has_stopped = False
        self._is_paused = False
        self._sparing_log = SparingLog(log)
        self._proxies = Proxies(proxies, settings.handshake_timeout_ms / 1000, loop, self._sparing_log.warning)

    def change_limits(
        self, settings: SessionSettings, limit: int, limit_per_address: int, tls_handshake_s: float
    ) -> None:
        """Use these settings for new connections, and these limits for clients before login."""
        self.settings = settings
        self._unauthenticated.limit = limit
        self._unauthenticated.limit_per_address = limit_per_address
        self._tls_handshake_s = tls_handshake_s

    def listen(self, sockets: Iterable[socket.socket], *, is_tls: bool = False) -> None:
        """Accept clients at these bound sockets (`addresses.bind`). Raises OSError."""
        self._acceptors[is_tls].listen(sockets)
        if self._look is None:
            self._gaps.look(self.turn.now_ms())
            self._look_again()

    def stop_listening(self) -> None:
        """Accept no more clients: `has_stopped` from now on."""
        self.has_stopped = True
        for acceptor in self._acceptors.values():
            acceptor.stop()
        self._proxies.stop()
        if self._look is not None:
            self._look.cancel()
        self._turn_away_waiting()

    def pause(self) -> None:
        """Disconnect all clients that are accepted from now on, and those that wait, until `resume`."""
        self._is_paused = True
        self._turn_away_waiting()

    def resume(self) -> None:
        """Admit clients again."""
        self._is_paused = False

    def _turn_away_waiting(self) -> None:
        for newcomers in self._waiting.values():
            for newcomer in newcomers:
                self._close(newcomer.connection)
        self._waiting.clear()
        self._waiting_count = 0

    # Accepting

    def _has_place(self) -> bool:
        """Return whether one more client can be accepted."""
        return (self._sockets < self.most_sockets
                and len(self._unauthenticated) + self._waiting_count + len(self._proxies) < self._unauthenticated.limit)

    def _make_place(self) -> bool:
        """Return whether one more client can be accepted, if need be in place of one that makes no progress."""
        if self._has_place():
            return True
        if self._sockets >= self.most_sockets:
            self._sparing_log.warning(
                "%d clients are connected, and no file descriptors are left (ulimit -n): new clients wait",
                self._sockets)
        else:
            self._sparing_log.warning(
                "%d clients have not logged in (limits.max_unauthenticated): new clients wait, or replace the "
                "one that has made no progress for longest", self._unauthenticated.limit)
        silent = self._longest_silent()
        if silent is None:
            return False
        self._replace(silent)
        self._admit_waiting(silent.peer[0])
        return self._sockets <= self.most_sockets

    def _replace(self, protocol: ClientProtocol) -> None:
        protocol.session.handshake.turn_out("its login made no progress, and other clients wait")
        self._unauthenticated.remove(protocol)
        protocol.drop()

    def _arrive(self, is_tls: bool, connection: socket.socket, peer: Any) -> None:
        """Place an accepted client; if a proxy speaks for it, once it is known who it is."""
        self._sockets += 1
        try:
            newcomer = Newcomer(connection, peer, connection.getsockname(), is_tls)
        except OSError:     # it has gone again
            self._close(connection)
            return
        if self._proxies.has(peer[0]):
            self._proxies.read(
                connection, _name(peer, newcomer.host), partial(self._arrive_by_proxy, newcomer),
                partial(self._close, connection))
        else:
            self._place(newcomer)

    def take_in(self, connection: socket.socket, claim: Claim, is_tls: bool) -> None:
        """Take in a client that another node passes on, as if it had come to a listener of this one."""
        self._sockets += 1
        if self.has_stopped or is_tls and self._certificates is None or self._sockets > self.most_sockets:
            self._close(connection)
        else:
            self._place(Newcomer(connection, claim.peer, claim.host, is_tls))

    def _arrive_by_proxy(self, newcomer: Newcomer, claim: Claim | None) -> None:
        self._place(newcomer._replace(is_known=False) if claim is None else newcomer._replace(
            peer=claim.peer, host=claim.host))

    def _place(self, newcomer: Newcomer) -> None:
        """Admit a client, or let it wait until its address has room, and a later turn of the loop."""
        if self._is_paused:
            self._close(newcomer.connection)
            return
        address = newcomer.peer[0]
        self._admit_soon()
        if address not in self._waiting and self._admitted < ADMITTED_IN_A_TURN and self._has_room(address):
            self._admit(newcomer)
        elif has_gone(newcomer.connection):
            self._close_unserved(newcomer)
        else:
            self._waiting.setdefault(address, deque()).append(newcomer)
            self._waiting_count += 1

    def _admit_soon(self) -> None:
        if not self._is_admitting:
            self._is_admitting = True
            self._loop.call_soon(self._admit_some)

    def _admit_some(self) -> None:
        """Begin a turn: admit waiting clients, one of each address after the other, as far as there is room."""
        self._is_admitting = False
        self._admitted = 0
        addresses, left = deque(self._waiting), LOOKED_AT_IN_A_TURN
        while addresses and self._admitted < ADMITTED_IN_A_TURN and left:
            address = addresses.popleft()
            left -= 1
            if self._has_room(address):
                self._admit_waiting(address)
                if address in self._waiting:
                    self._waiting[address] = self._waiting.pop(address)     # comes last in the next turn
                    addresses.append(address)
        if addresses:
            self._admit_soon()

    def _has_room(self, address: str) -> bool:
        """Return whether one more client of this address fits, if need be in place of one without progress."""
        if self._unauthenticated.has_room(address):
            return True
        self._sparing_log.warning(
            "%d clients of one address have not logged in (limits.max_unauthenticated_per_address), as of %s: "
            "new clients wait, or replace the one that has made no progress for longest",
            self._unauthenticated.limit_per_address, address)
        silent = self._longest_silent(address)
        if silent is None:
            return False
        self._replace(silent)
        return True

    def _longest_silent(self, address: str | None = None) -> ClientProtocol | None:
        """Return the client to replace, of this address or of all, unless its state may be out of date."""
        now = self.turn.now_ms()
        return None if self._gaps.is_late(now) else self._unauthenticated.longest_silent(now, address)

    def _look_at_waiting(self) -> None:
        """Admit waiting clients, as far as clients of their addresses have made no progress meanwhile."""
        now = self.turn.now_ms()
        if gap_ms := self._gaps.look(now):
            self._unauthenticated.excuse(gap_ms, now)
        self._admit_soon()
        self._look_again()

    def _look_again(self) -> None:
        self._look = self._loop.call_later(LOOK_S, self._look_at_waiting)

    def _admit_waiting(self, address: str) -> None:
        """Admit the first waiting client of this address, unless it has gone."""
        newcomers = self._waiting.get(address)
        if not newcomers:
            return
        self._waiting_count -= 1
        newcomer = newcomers.popleft()
        if not newcomers:
            del self._waiting[address]
        if has_gone(newcomer.connection):
            self._close_unserved(newcomer)
        else:
            self._admit(newcomer)

    def _admit(self, newcomer: Newcomer) -> None:
        self._admitted += 1
        protocol = ClientProtocol(
            self, self.turn, self.buffer, self.settings.outgoing_limit, newcomer.peer, newcomer.host)
        protocol.is_known = newcomer.is_known
        self._unauthenticated.add(protocol, newcomer.peer[0])
        task = self._loop.create_task(self._begin(protocol, newcomer.connection, self._outer(protocol, newcomer)))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    def _outer(self, protocol: ClientProtocol, newcomer: Newcomer) -> asyncio.BufferedProtocol:
        """Return the protocol of a client's socket: with TLS there is one more."""
        if not newcomer.is_tls:
            return protocol
        assert self._certificates is not None
        return TlsTransport(
            protocol, self._certificates.context, self._encrypted, self._loop,
            partial(self._on_tls_established, protocol), partial(self._on_tls_failed, protocol),
            self._tls_handshake_s)

    async def _begin(
        self, protocol: ClientProtocol, connection: socket.socket, outer: asyncio.BufferedProtocol
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: outer, connection)
        except OSError as error:
            log.info("%s:%d disconnected before it was served: %s", *protocol.peer[:2], error.strerror)
            self._unauthenticated.remove(protocol)
            self._close(connection)
            self._admit_waiting(protocol.peer[0])

    def _close_unserved(self, newcomer: Newcomer) -> None:
        log.info("%s:%d disconnected before it was served", *newcomer.peer[:2])
        self._close(newcomer.connection)

    def _close(self, connection: socket.socket) -> None:
        self._sockets -= 1
        connection.close()

    # TLS

    def _on_tls_established(self, protocol: ClientProtocol, connection: ssl.SSLObject) -> None:
        self._unauthenticated.note_step(protocol, self.turn.now_ms())
        self._unauthenticated.expect_progress(protocol, self.turn.now_ms())
        guard(protocol.session, self._note_tls, protocol, connection)

    @staticmethod
    def _note_tls(protocol: ClientProtocol, connection: ssl.SSLObject) -> None:
        state = protocol.session.state
        state.tls = describe_connection(connection)
        state.peer_certificate = peer_certificate(connection)

    def _on_tls_failed(self, protocol: ClientProtocol, reason: str, *arguments: object) -> None:
        self._sparing_log.warning(
            f"closing AMQP connection %s: TLS: {reason}", protocol.session.state.title, *arguments)

    # Clients

    def take_number(self) -> int:
        """Return the number of a new connection."""
        self._accepted += 1
        return self._accepted

    def begin_session(self, protocol: ClientProtocol) -> Session:
        """Return a session for a new client."""
        name = _name(protocol.peer, protocol.host)
        turn = self.turn
        session = Session(self._broker, self.settings, turn, name, turn.now_ms(), self.take_number(), turn.intake)
        session.state.is_local = protocol.is_known and is_loopback(protocol.peer[0])
        turn.protocols[session] = protocol
        self._unauthenticated.expect_progress(protocol, turn.now_ms())
        return session

    def handshake_advanced(self, protocol: ClientProtocol) -> None:
        """Note a step of the handshake; check the login if the client has sent all of it."""
        self._unauthenticated.note_step(protocol, self.turn.now_ms())
        if protocol.session.login is None:
            self._unauthenticated.expect_progress(protocol, self.turn.now_ms())
        elif not protocol.has_gone:
            self._logins.check(protocol.session, protocol.peer[0], partial(self._on_logged_in, protocol))

    def _on_logged_in(self, protocol: ClientProtocol) -> None:
        self._unauthenticated.remove(protocol)
        self._admit_waiting(protocol.peer[0])

    def end_session(self, protocol: ClientProtocol) -> None:
        """Remove a client whose socket is lost."""
        self._sockets -= 1
        self.turn.forget(protocol.session)
        self._unauthenticated.remove(protocol)
        if self._unauthenticated.has_room(protocol.peer[0]):
            self._admit_waiting(protocol.peer[0])

    # The end

    async def close_all(self, reason: str, within_s: float) -> None:
        """Close every connection with 320, and give the clients a while to answer."""
        closed = 0
        for session in list(self.turn.protocols):
            if closed >= CLOSED_IN_A_TURN:
                closed = 0
                await asyncio.sleep(0)
            session.force_close(reason)
            closed += 1
        await self._wait_until_gone(within_s)

    async def fail_all(self, text: str, within_s: float) -> None:
        """Close every connection with 541, after the store has failed, and give the clients a while to read it."""
        for session in list(self.turn.protocols):
            session.fail(text)
        await self._wait_until_gone(within_s)

    async def _wait_until_gone(self, within_s: float) -> None:
        deadline = self._loop.time() + within_s
        while self.turn.protocols and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        for protocol in list(self.turn.protocols.values()):
            protocol.drop()
        deadline = self._loop.time() + within_s
        while self.turn.protocols and self._loop.time() < deadline:
            await asyncio.sleep(0)      # each lost socket is handled in a turn of the loop


def _name(peer: tuple[str, int], host: tuple[str, int]) -> str:
    """Return the name of a connection."""
    return f"{peer[0]}:{peer[1]} -> {host[0]}:{host[1]}"
