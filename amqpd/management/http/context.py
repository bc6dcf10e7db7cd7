"""What the handlers need of the broker and the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.management.commands import Commands
from amqpd.management.http.sessions import Sessions
from amqpd.management.http.turns import Turns
from amqpd.management.node_commands import Node
from amqpd.management.statistics.statistics import Statistics


class Content(msgspec.Struct):
    """A message that a broker has sent on a channel: its method, its properties as they were sent, and its body."""

    method: Any
    properties: bytes
    body: bytes


class ChannelClosed(Exception):
    """The broker has closed the channel, or the connection: the reply code, and the reply text."""

    def __init__(self, code: int, text: str, *, is_connection: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.is_connection = is_connection


class DirectChannel(Protocol):
    """A channel of a connection inside the process, as any AMQP client has it; see server/direct_client.py."""

    async def call(self, method: Any) -> Any:
        """Send a method and return the answer. Raises ChannelClosed, and HttpError if there is no answer."""

    def send(self, method: Any) -> None:
        """Send a method that has no answer."""

    async def publish(self, method: Any, properties: bytes, body: bytes) -> bool:
        """Publish a message, mandatory, and return whether a queue has it, once it is on disk. Raises as `call`."""

    async def get(self, queue: str, *, no_ack: bool = False) -> Content | None:
        """Get a message of a queue; None if it is empty. Raises as `call`."""


class Context(msgspec.Struct, kw_only=True):
    """What the handlers use.

    `login` checks a user's password for a client at an address, with TLS or without, and returns the user, or None; the
    reason is in the log.
    `connect` opens a channel in a vhost as a user, inside the process. `command` carries out a command of amqpctl:
    the request as for the control socket, who sends it, and what follows it. `turns` shares the event loop between
    requests. `attempts` has by protocol how many logins succeeded and failed. With `disable_stats` no answer has
    statistics, but numbers of messages with `enable_queue_totals`.
    """

    broker: Broker
    node: Node
    commands: Commands
    login: Callable[[str, str, str, bool], Awaitable[User | None]]
    connect: Callable[[User, str], AbstractAsyncContextManager[DirectChannel]]
    command: Callable[[bytes, str, bytes], Awaitable[dict[str, Any]]]
    statistics: Statistics
    sessions: Sessions
    turns: Turns
    attempts: dict[str, list[int]] = {}
    requests: dict[int, int] = {}       # by status code, how many were answered
    path_prefix: str = ""
    disable_stats: bool = False
    enable_queue_totals: bool = False
