"""Listening sockets, and the clients that come through them.

Owns the listeners and the count of clients that have not logged in. A connection's own affairs are in
`server/connection.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from amqpd.broker.broker import Broker
from amqpd.server.connection import ClientProtocol
from amqpd.server.login import Logins
from amqpd.server.loop import Pass, now_ms
from amqpd.session.connection import Session, SessionSettings

log = logging.getLogger("amqpd.connection")

BUFFER_SIZE = 256 * 1024
STRANGERS, STRANGERS_PER_HOST = 1_024, 128      # connections that have not logged in
BACKLOG = 1_024


class Listeners:
    """All that listens, and everybody who came."""

    def __init__(self, broker: Broker, settings: SessionSettings, passes: Pass, logins: Logins) -> None:
        self.settings = settings
        self.passes = passes
        self.buffer = bytearray(BUFFER_SIZE)
        self._broker = broker
        self._logins = logins
        self._servers: list[asyncio.Server] = []
        self._accepted = 0
        self._strangers: dict[Session, str] = {}

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Listen there and say where that is; port 0 picks a free one. Raises OSError."""
        server = await asyncio.get_running_loop().create_server(
            lambda: ClientProtocol(self), host, port, backlog=BACKLOG, reuse_address=True)
        self._servers.append(server)
        bound: tuple[str, int] = server.sockets[0].getsockname()[:2]
        return bound

    def stop_listening(self) -> None:
        """Take no more clients."""
        for server in self._servers:
            server.close()

    # Clients

    def begin_session(self, protocol: ClientProtocol, peer: tuple[str, int], host: tuple[str, int]) -> Session:
        """Greet a client. Too many that have not logged in, and it is turned away at once."""
        name = f"{peer[0]}:{peer[1]} -> {host[0]}:{host[1]}"
        self._accepted += 1
        log.info("accepting AMQP connection %s", name, extra={"connection": self._accepted})
        session = Session(self._broker, self.settings, self.passes, name, now_ms(), self._accepted, self.passes.intake)
        self.passes.protocols[session] = protocol
        self._strangers = {other: host for other, host in self._strangers.items() if other.user is None}
        self._strangers[session] = peer[0]
        from_there = Counter(self._strangers.values())[peer[0]]
        if from_there > STRANGERS_PER_HOST or len(self._strangers) > STRANGERS:
            log.warning("%s: too many connections that have not logged in", name)
            protocol.drop()
        return session

    def end_session(self, session: Session) -> None:
        """The client's socket is gone."""
        self.passes.forget(session)
        self._strangers.pop(session, None)

    def check_login(self, session: Session) -> None:
        """Look at the password a client gave."""
        self._logins.check(session, self._strangers[session])

    # The end

    async def close_all(self, reason: str, within_s: float) -> None:
        """Close every connection with 320, and give the clients a while to answer."""
        for session in list(self.passes.protocols):
            session.force_close(reason)
        await self._wait_until_gone(within_s)

    async def fail_all(self, text: str, within_s: float) -> None:
        """Close every connection with 541, as nothing more can be kept, and give the clients a while to hear it."""
        for session in list(self.passes.protocols):
            session.fail(text)
        await self._wait_until_gone(within_s)

    async def _wait_until_gone(self, within_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        while self.passes.protocols and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for protocol in list(self.passes.protocols.values()):
            protocol.drop()


def describe_address(address: tuple[str, int]) -> str:
    """An address as it stands in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
