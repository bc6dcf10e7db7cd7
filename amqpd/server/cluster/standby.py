"""A node that does not lead: it passes its clients on to the leading node, and returns when it may lead itself.

Each client has a link of its own, over which octets go both ways as they are, with back-pressure: the side that reads
slowly is waited for. The leading node sees the client's own address. When the leading node goes, so do its links, and
with them the clients, which connect again as to any broker that restarts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from amqpd.config import Listener
from amqpd.server.acceptor import Acceptor
from amqpd.server.cluster.link import PLAIN, TLS, LinkError, introduce
from amqpd.server.proxy_protocol import Claim
from amqpd.server.sparing_log import SparingLog
from amqpd.store.errors import StoreError
from amqpd.store.port import Member, Membership

LOOK_S = 0.25               # between two looks at who leads
PIECE = 256 << 10           # octets that are passed on at once
MOST_CLIENTS = 20_000
CONNECT_S = 5.0
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s")

log = logging.getLogger("amqpd.cluster")


class Standby:
    """The standby phase of a node. `secret` proves to others that this node belongs to the cluster."""

    def __init__(self, membership: Membership, secret: bytes, own_name: str) -> None:
        self._membership = membership
        self._secret = secret
        self._own_name = own_name
        self._loop = asyncio.get_running_loop()
        self._leader: Member | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._sparing_log = SparingLog(log)
        self._acceptors: list[Acceptor] = []

    def stop(self) -> None:
        """Let `wait_until_free` return False."""
        self._stopped.set()

    def listen(self, sockets: Iterable[socket.socket], *, is_tls: bool = False) -> None:
        """Pass on the AMQP clients of these bound sockets. Raises OSError."""
        self._accept(sockets, partial(self._arrive, TLS if is_tls else PLAIN))

    def listen_http(self, sockets: Iterable[socket.socket]) -> None:
        """Tell clients of the management API at these bound sockets which node leads. Raises OSError."""
        self._accept(sockets, self._arrive_http)

    def _accept(
        self, sockets: Iterable[socket.socket], arrive: Callable[[socket.socket, tuple[str, int]], None]
    ) -> None:
        acceptor = Acceptor(self._loop, self._has_room, self._has_room, arrive)
        acceptor.listen(sockets)
        self._acceptors.append(acceptor)

    async def wait_until_free(self, on_leader: Callable[[Member], None]) -> bool:
        """Pass clients on until nobody leads, which is True, or until `stop`, which is False.

        `on_leader` hears of each new leader. Raises StoreError if another node has this one's name.
        """
        is_known = False
        while not self._stopped.is_set():
            try:
                leader = await asyncio.to_thread(self._look)
            except StoreError as error:
                if not is_known:
                    raise
                self._sparing_log.warning("%s", error)
            else:
                if leader is None:
                    return True
                if self._leader is None or leader.name != self._leader.name:
                    log.info("%s leads at %s: clients are passed on to it", leader.name, leader.address or "no address")
                    on_leader(leader)
                self._leader, is_known = leader, True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), LOOK_S)
        return False

    def _look(self) -> Member | None:
        self._membership.note()
        return self._membership.leader()

    async def close(self) -> None:
        """Accept no more clients, and let go of those that were passed on."""
        for acceptor in self._acceptors:
            acceptor.stop()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _has_room(self) -> bool:
        return len(self._passing) < MOST_CLIENTS

    def _begin(self, task: asyncio.Task[None]) -> None:
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    # AMQP

    def _arrive(self, kind: bytes, client: socket.socket, peer: tuple[str, int]) -> None:
        self._begin(self._loop.create_task(self._pass_on(kind, client, peer)))

    async def _pass_on(self, kind: bytes, client: socket.socket, peer: tuple[str, int]) -> None:
        link: socket.socket | None = None
        leader = self._leader
        try:
            if leader is None or not leader.address:
                self._sparing_log.warning("%s:%d: closing: no node leads that can be reached", *peer[:2])
                return
            claim = Claim(peer[:2], client.getsockname()[:2])
            async with asyncio.timeout(CONNECT_S):
                link = await self._connected(leader.address)
            await introduce(link, self._secret, kind, claim)
            for one in (client, link):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._splice(client, link)
        except (LinkError, OSError, TimeoutError) as error:
            if link is None or isinstance(error, (LinkError, TimeoutError)):
                self._sparing_log.warning("%s:%d cannot be passed on to %s: %s", *peer[:2],
                                          leader.name if leader else "?", error or "it does not answer")
        finally:
            for opened in (client, link):
                if opened is not None:
                    opened.close()

    async def _connected(self, address: str) -> socket.socket:
        place = Listener(address)
        found = await self._loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        link = socket.socket(family, kind, protocol)
        try:
            link.setblocking(False)
            await self._loop.sock_connect(link, where)
        except BaseException:
            link.close()
            raise
        return link

    async def _splice(self, client: socket.socket, link: socket.socket) -> None:
        """Pass octets both ways until both sides have ended, or one has broken."""
        tasks = [self._loop.create_task(self._pour(*ends)) for ends in ((client, link), (link, client))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _pour(self, source: socket.socket, sink: socket.socket) -> None:
        buffer = bytearray(PIECE)
        view = memoryview(buffer)
        while size := await self._loop.sock_recv_into(source, buffer):
            await self._loop.sock_sendall(sink, view[:size])
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    # HTTP

    def _arrive_http(self, client: socket.socket, peer: tuple[str, int]) -> None:
        self._begin(self._loop.create_task(self._refuse_http(client)))

    async def _refuse_http(self, client: socket.socket) -> None:
        """Answer whatever is asked with 503: the leading node has the answer."""
        name = self._leader.name if self._leader else "no node"
        reason = f"{self._own_name} is a standby: {name} leads"
        text = json.dumps({"error": "service_unavailable", "reason": reason}).encode()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._loop.sock_recv(client, PIECE)
                await self._loop.sock_sendall(client, UNAVAILABLE % (len(text), text))
        client.close()
