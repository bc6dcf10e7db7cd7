"""A client inside the process: a session without a socket, for what the management API does on a channel.

The API declares, publishes and gets as an AMQP client of its user does, through the same session. So rights, limits,
texts of errors, confirms and the order of effects are those of AMQP, and are written once. RabbitMQ does the same
("direct connections").

Always true: when the block that opened a channel has ended, everything that it held has been given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from msgspec.structs import replace
from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Confirm, Connection

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.management.http.answers import HttpError, bad_request
from amqpd.management.http.context import ChannelClosed, Content
from amqpd.message import pack_content
from amqpd.server.loop import LoopTurn
from amqpd.session.connection import Session
from amqpd.session.handshake import HEADER_0_9_1
from amqpd.session.sasl_steps import LoginSettings
from amqpd.session.settings import SessionSettings
from amqpd.wire.contents import BODY, HEADER
from amqpd.wire.methods import METHOD_FRAME, decode_method, encode_method

log = logging.getLogger("amqpd.connection")

CHANNEL = 1
ANSWER_LIMIT_S = 30.0
FRAME_HEADER, FRAME_TAIL = 7, 1
SIZE_AT, PROPERTIES_AT = 4, 12          # in the payload of a header frame


class QuietLog(logging.LoggerAdapter[logging.Logger]):
    """The log of such a connection: for debugging only, since the log of the API says who did what."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with the level debug."""
        super().log(logging.DEBUG, msg, *args, **kwargs)


class ContentHead(NamedTuple):
    """What comes before the body of a message: its properties, encoded, and the size of the body."""

    properties: bytes
    size: int


class DirectClient:
    """One connection with one channel. The loop's turn calls it as it calls the socket of a client."""

    def __init__(self, turn: LoopTurn, session: Session, user: User) -> None:
        self.expected_steps = 0     # see server/read_shares.py
        self.has_rested = False
        self.session = session
        self._turn = turn
        self._user = user
        self._unread = bytearray()
        self._answers: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._is_over = False

    # Called by the turn

    def handshake_advanced(self) -> None:
        """Log in: the management API has checked the password."""
        if self.session.login is not None:
            self.session.logged_in(self._user)

    def flush(self, now: int) -> None:
        """Take what the session says."""
        for piece in self.session.take_output(now):
            self._unread += piece
        self._read_frames()
        if self.session.is_finished:
            self.drop()

    def looks_in_vain(self) -> int:
        """Return 0: the output is always taken."""
        return 0

    def acknowledged_ms_ago(self) -> int | None:
        """Return 0: nothing can be lost on the way."""
        return 0

    def resume_reading(self) -> None:
        """Do nothing: everything was passed in already."""

    def drop(self) -> None:
        """End the session."""
        if not self._is_over:
            self._is_over = True
            self._arrived.set()
            self._turn.tell_time()
            self._turn.lose(self)

    def end_session(self) -> None:
        """Drop the references to the session."""
        self._turn.forget(self.session)

    def _read_frames(self) -> None:
        while len(self._unread) >= FRAME_HEADER:
            end = FRAME_HEADER + int.from_bytes(self._unread[3:FRAME_HEADER], "big") + FRAME_TAIL
            if len(self._unread) < end:
                return
            kind, payload = self._unread[0], bytes(self._unread[FRAME_HEADER:end - FRAME_TAIL])
            del self._unread[:end]
            if kind == METHOD_FRAME:
                self._answers.append(decode_method(payload))
            elif kind == HEADER:
                size = int.from_bytes(payload[SIZE_AT:PROPERTIES_AT], "big")
                self._answers.append(ContentHead(payload[PROPERTIES_AT:], size))
            elif kind == BODY:
                self._answers.append(payload)
            self._arrived.set()

    # The client

    def _say(self, method: Frame, content: bytes = b"", *, channel: int = CHANNEL) -> None:
        self._pass_in(encode_method(channel, method) + content)

    def _pass_in(self, data: bytes) -> None:
        self.session.receive(data, self._turn.now_ms())
        self._turn.schedule()

    async def _hear(self) -> Any:
        """Return the next frame: a method, a `ContentHead`, or bytes of a body.

        Raises ChannelClosed, and HttpError if the broker does not answer.
        """
        while not self._answers:
            if self._is_over:
                raise bad_request("the connection inside the broker was closed")
            self._arrived.clear()
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    await self._arrived.wait()
            except TimeoutError:
                raise HttpError(503, "unavailable", f"no answer within {ANSWER_LIMIT_S:g} s") from None
        said = self._answers.popleft()
        if isinstance(said, (Channel.Close, Connection.Close)):
            raise ChannelClosed(
                said.reply_code or 0, said.reply_text, is_connection=isinstance(said, Connection.Close))
        return said

    async def open(self, vhost: str) -> None:
        """Log in and open the channel. Raises as `_hear`."""
        self._pass_in(HEADER_0_9_1)
        await self._expect(Connection.Start)
        self._say(Connection.StartOk(
            {"product": "management API", "capabilities": {"basic.nack": True}}, "PLAIN",
            f"\0{self._user.name}\0", "en_US"), channel=0)
        tune = await self._expect(Connection.Tune)
        self._say(Connection.TuneOk(tune.channel_max, tune.frame_max, 0), channel=0)
        self._say(Connection.Open(vhost), channel=0)
        await self._expect(Connection.OpenOk)
        await self.call(Channel.Open())

    async def _expect(self, kind: type[Frame]) -> Any:
        while not isinstance(said := await self._hear(), kind):
            pass
        return said

    async def call(self, method: Any) -> Any:
        """See management/http/context.py."""
        self._say(method)
        return await self._hear()

    def send(self, method: Any) -> None:
        """See management/http/context.py."""
        self._say(method)

    async def publish(self, method: Any, properties: bytes, body: bytes) -> bool:
        """See management/http/context.py."""
        if self._turn.alarm:
            raise HttpError(503, "unavailable", f"nothing can be published now: {self._turn.alarm}")
        await self.call(Confirm.Select())
        self._say(method, pack_content(CHANNEL, self.session.state.frame_max, properties, body))
        is_routed = True
        while not isinstance(said := await self._hear(), (Basic.Ack, Basic.Nack)):
            is_routed = is_routed and not isinstance(said, Basic.Return)
        return is_routed and isinstance(said, Basic.Ack)

    async def get(self, queue: str, *, no_ack: bool = False) -> Content | None:
        """See management/http/context.py."""
        asked = Basic.Get(no_ack=no_ack)
        asked.queue = queue     # set here, since the library takes only ASCII letters as the name of a queue
        method = await self.call(asked)
        if isinstance(method, Basic.GetEmpty):
            return None
        header = await self._hear()
        body = bytearray()
        while len(body) < header.size:
            body += await self._hear()
        return Content(method, header.properties, bytes(body))


class DirectClients:
    """Opens channels inside the process. `take_number` returns the number of a new connection.

    None is opened once the broker `has_stopped` to accept clients: what it did could not be stored any more.
    """

    def __init__(
        self, broker: Broker, turn: LoopTurn, settings: SessionSettings, take_number: Callable[[], int],
        has_stopped: Callable[[], bool],
    ) -> None:
        self._broker = broker
        self._turn = turn
        self._settings = replace(settings, login=LoginSettings(mechanisms=("PLAIN",)))
        self._take_number = take_number
        self._has_stopped = has_stopped

    @contextlib.asynccontextmanager
    async def connect(self, user: User, vhost: str) -> AsyncIterator[DirectClient]:
        """Open a channel as this user until the block ends.

        Raises ChannelClosed if the user may not enter the vhost, HttpError if the broker is stopping.
        """
        if self._has_stopped():
            raise HttpError(503, "unavailable", "the broker is stopping")
        turn, number = self._turn, self._take_number()
        turn.begin()
        session = Session(
            self._broker, self._settings, turn, f"127.0.0.1:{number} -> 127.0.0.1:0", turn.now_ms(), number,
            turn.intake)
        session.state.is_local = True
        session.state.log = QuietLog(log, {"connection": number})
        client = DirectClient(turn, session, user)
        turn.protocols[session] = client
        try:
            await client.open(vhost)
            yield client
            await client.call(Channel.Close(200, "done", 0, 0))
        finally:
            client.drop()
