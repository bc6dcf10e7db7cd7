"""The state that the parts of a channel share: its identity, its limits, and whether it is ending.

Every part may read it. Only the channel changes `is_stopped`, only `session/topology.py` changes `last_queue`.
"""

from __future__ import annotations

from typing import Any

from pamqp.base import Frame

from amqpd.broker.access import User
from amqpd.broker.counts import ChannelCounts
from amqpd.broker.firehose import Client
from amqpd.broker.vhost import Vhost
from amqpd.errors import ChannelException, ReplyCode
from amqpd.session.state import ConnectionState
from amqpd.wire.methods import encode_method


class ChannelState:
    """The state of one channel of the connection `owner`."""

    __slots__ = (
        "owner", "number", "vhost", "user", "broker", "effort", "outbox", "frame_max", "is_stopped", "last_queue",
        "counts", "_is_answering", "_afterwards")

    def __init__(self, owner: ConnectionState, number: int, vhost: Vhost, user: User) -> None:
        self.owner = owner
        self.number = number
        self.vhost = vhost
        self.user = user
        self.broker = owner.broker
        self.effort = owner.broker.effort
        self.outbox = owner.outbox
        self.frame_max = owner.frame_max
        self.is_stopped = False             # no more input is accepted: the channel is ending
        self.counts = ChannelCounts()
        self.last_queue: str | None = None  # the queue declared last on this channel
        self._is_answering = False
        self._afterwards: list[bytes] = []      # methods to send after the answer to the current method

    @property
    def is_ending(self) -> bool:
        """Whether the channel or the connection is ending."""
        return self.is_stopped or self.owner.is_ending

    def queue_name(self, name: str) -> str:
        """Return the name of the queue that a method names; an empty name is the queue declared last on this channel.

        Raises ChannelException: NOT_FOUND if none was declared.
        """
        if name:
            return name
        if self.last_queue is None:
            raise ChannelException(ReplyCode.NOT_FOUND, "no previously declared queue")
        return self.last_queue

    def tell(self, event: str, subject: Any = None) -> None:
        """Tell listeners of an event on this channel; see `broker/events.py`."""
        owner, events = self.owner, self.broker.events
        if events.listeners:
            events.tell(
                event, subject, by=self.user.name, connection=owner.name, connection_number=owner.number,
                channel_number=self.number, user=self.user.name, vhost=self.vhost.name)

    @property
    def client(self) -> Client:
        """The client, in the form that watchers of messages get; see `broker/taps.py`."""
        return Client(self.owner.name, self.number, self.user.name)

    # Output

    def reply(self, method: Frame) -> None:
        """Send a method on this channel."""
        self.outbox.write(encode_method(self.number, method))

    def begin_answer(self) -> None:
        """Begin to handle a method: `notify` holds methods back until `send_afterwards`."""
        self._is_answering = True

    def end_answer(self) -> None:
        """End that: from now on, methods are sent at once."""
        self._is_answering = False

    def notify(self, frames: bytes) -> None:
        """Send a method that is not an answer: if a method is being handled, after the answer to it."""
        if self._is_answering:
            self._afterwards.append(frames)
        else:
            self.outbox.write(frames)

    def send_afterwards(self) -> None:
        """Send the methods that had to wait for the answer."""
        if self._afterwards:
            afterwards, self._afterwards = self._afterwards, []
            self.outbox.write(b"".join(afterwards))
