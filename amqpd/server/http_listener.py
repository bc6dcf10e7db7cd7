"""The listeners for HTTP, of the management API or of the metrics: uvicorn's protocol in the broker's event loop.

Owns the sockets and the clients, with their limits: how many there are, how long a request may take to arrive, how much
of one is discarded after its answer, and how long a client may take to read its answer. A new client replaces the one
that has been idle longest or, without any, one whose request is still arriving: so who sends slowly keeps nobody out.

Uvicorn's own `Server` is not used, since it handles signals and runs a timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

import h11
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from amqpd.management.http.turns import Turns
from amqpd.server.sparing_log import SparingLog

log = logging.getLogger("amqpd.http")

MOST_CLIENTS = 256
MOST_HEADER_BYTES = 32 * 1024
REQUEST_LIMIT_S, BODY_LIMIT_S, READ_LIMIT_S, IDLE_LIMIT_S = 10.0, 60.0, 30.0, 75
STOP_LIMIT_S = 1.0
# A request may be answered before its body has arrived, such as one that is refused. The rest is discarded, so that a
# client that sends all of it before it reads finds the answer: for so long, and so many bytes. Then it is disconnected.
DISCARD_LIMIT_S, MOST_DISCARDED = 2.0, 32 << 20
# Bytes that are parsed in one turn of the event loop: a chunk of a body may have a single byte, and costs 15 µs.
PIECE, PIECE_OF_CHUNKS = 64 * 1024, 1024
BACKLOG = 256


class HttpListeners:
    """The listeners of one application, and their clients, whose requests wait for these turns.

    `purpose` is the application's name in the log.
    """

    def __init__(
        self, application: ASGIApp, turns: Turns, *, most_clients: int = MOST_CLIENTS,
        purpose: str = "the management API",
    ) -> None:
        self.most_clients = most_clients
        self.purpose = purpose
        self._config = Config(
            application, http=ApiProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, date_header=False, timeout_keep_alive=IDLE_LIMIT_S, proxy_headers=False,
            h11_max_incomplete_event_size=MOST_HEADER_BYTES)
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._clients: dict[ApiProtocol, None] = {}       # longest idle first
        self._sparing_log = SparingLog(log)
        self.turns = turns

    async def listen(self, sockets: Iterable[socket.socket], context: Callable[[], ssl.SSLContext] | None) -> None:
        """Accept clients at these bound sockets; with TLS if there is a function that returns the context for the next
        connection. Raises OSError.
        """
        loop = asyncio.get_running_loop()
        tls = None if context is None else _changing(context)
        for one in sockets:
            one.listen(BACKLOG)     # here, since not every event loop tells the error of its own call
            self._servers.append(await loop.create_server(self._protocol, sock=one, ssl=tls, backlog=BACKLOG))

    def _protocol(self) -> ApiProtocol:
        return ApiProtocol(self._config, self._state, {}, listeners=self)

    def arrived(self, client: ApiProtocol) -> None:
        """Note a new client; if there are too many, close an idle one, one that is still sending, or else this one."""
        self._clients[client] = None
        if len(self._clients) <= self.most_clients:
            return
        others = [one for one in self._clients if one is not client]
        idle = next((one for one in others if one.is_idle), None)
        slow = next((one for one in others if one.is_arriving), None)
        self._sparing_log.warning(
            "%d clients of %s are connected, as many as there may be: one that is idle or sends slowly is closed",
            self.most_clients, self.purpose)
        (idle or slow or client).abort()

    def active(self, client: ApiProtocol) -> None:
        """Note that a client has sent something."""
        if client in self._clients:
            del self._clients[client]
            self._clients[client] = None

    def gone(self, client: ApiProtocol) -> None:
        """Forget a client."""
        self._clients.pop(client, None)

    async def stop(self) -> None:
        """Accept no more clients, let running requests end, and close all connections."""
        for server in self._servers:
            server.close()
        for client in list(self._clients):
            client.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=STOP_LIMIT_S)
        for task in set(self._state.tasks):
            task.cancel()
        for client in list(self._clients):
            client.abort()


class ApiProtocol(H11Protocol):
    """The connection of one client, with limits of its own beside uvicorn's."""

    def __init__(self, *arguments: Any, listeners: HttpListeners, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._listeners = listeners
        self._arrival: asyncio.TimerHandle | None = None        # until the request must have arrived
        self._reading: asyncio.TimerHandle | None = None        # until the client must have read
        self._unparsed = bytearray()                            # nothing more is read until it is parsed
        self._parser: asyncio.Task[None] | None = None          # while some of it waits for a turn
        self._discarded: int | None = None      # bytes, while the rest of a body is discarded

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    @property
    def is_arriving(self) -> bool:
        """Whether a request has not arrived completely."""
        return self.is_idle or bool(self.cycle.more_body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a client."""
        super().connection_made(cast(asyncio.Transport, transport))
        self.flow = _Flow(self.transport, self._go_on)
        self._arrival = self.loop.call_later(REQUEST_LIMIT_S, self._give_up)
        self._listeners.arrived(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; what takes long to parse is parsed in pieces, in turns that clients share."""
        self._listeners.active(self)
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self._give_up("it sends more of a request that has been answered")
                return
        if not self._unparsed and not self._has_chunks and len(data) <= PIECE_OF_CHUNKS:
            self._parse(data)
            return
        self._unparsed += data
        self.transport.pause_reading()
        self._go_on()

    @property
    def _has_chunks(self) -> bool:
        """Whether the body of the last request is, or was, sent in chunks."""
        return any(name == b"transfer-encoding" for name, _ in self.headers or ())

    def _go_on(self) -> None:
        """Parse what is there, or else read on, unless the application is behind with the body."""
        if self.flow.read_paused or self.transport.is_closing():
            return
        if not self._unparsed:
            self.transport.resume_reading()
        elif self._parser is None:
            self._parser = self.loop.create_task(self._parse_next())

    async def _parse_next(self) -> None:
        await self._listeners.turns.next()
        self._parser = None
        if self.transport.is_closing():
            return
        is_simple = self.cycle is not None and bool(self.cycle.more_body) and not self._has_chunks
        size = PIECE if is_simple else PIECE_OF_CHUNKS
        piece = bytes(self._unparsed[:size])
        del self._unparsed[:size]
        self._parse(piece)
        self._go_on()

    def handle_events(self) -> None:
        """Handle what has been parsed; while there is more to parse, nothing is read, whatever uvicorn says."""
        super().handle_events()
        if self._unparsed:
            self.transport.pause_reading()

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._discarded is not None and not self._is_answered_early:
            self._discarded = None
            self._cancel_arrival()
        if not self.is_arriving:
            self._cancel_arrival()
        elif self._arrival is None:
            self._arrival = self.loop.call_later(BODY_LIMIT_S, self._give_up)

    @property
    def _is_answered_early(self) -> bool:
        """Whether the last request has been answered, and some of its body has not been parsed."""
        return self.is_idle and self.conn.their_state is h11.SEND_BODY

    def on_response_complete(self) -> None:
        """Wait for the next request, or go on with one that has been sent already."""
        self._cancel_arrival()
        if self._is_answered_early:
            self._discarded = 0
            self._arrival = self.loop.call_later(
                DISCARD_LIMIT_S, self._give_up, "it has not ended a request that has been answered")
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read its answer."""
        super().pause_writing()
        self._reading = self.loop.call_later(READ_LIMIT_S, self._give_up)

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._cancel_arrival()
        self._unparsed.clear()
        if self._reading is not None:
            self._reading.cancel()
        self._listeners.gone(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def _cancel_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _give_up(self, reason: str = "it took too long") -> None:
        log.info("a client of %s at %s is closed: %s", self._listeners.purpose, self.client, reason)
        self.abort()


class _Flow(FlowControl):
    """Uvicorn's flow control, which leaves it to the protocol when to read on."""

    def __init__(self, transport: asyncio.Transport, go_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._go_on = go_on

    def resume_reading(self) -> None:
        """Note that the application wants more."""
        if self.read_paused:
            self.read_paused = False
            self._go_on()


def _changing(current: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return a context that gives each connection the context that is current then."""

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = chosen = current()
        if chosen.sni_callback is not None:
            chosen.sni_callback(connection, name or "", chosen)

    # A connection takes certificates, and the CAs of clients, from the chosen context; the rest from the first one.
    like, first = current(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    first.minimum_version, first.options, first.verify_mode = like.minimum_version, like.options, like.verify_mode
    first.num_tickets = 0
    first.sni_callback = choose
    return first
