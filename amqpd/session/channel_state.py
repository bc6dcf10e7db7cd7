"""What the parts of a channel share: whose it is, what it is to be encoded with, and whether it comes to its end.

Every part may read it. `is_stopped` is changed by the channel alone, `last_queue` by `session/topology.py`.
"""

from __future__ import annotations

from pamqp.base import Frame

from amqpd.broker.access import User
from amqpd.broker.vhost import Vhost
from amqpd.errors import ChannelException, ReplyCode
from amqpd.session.state import ConnectionState
from amqpd.wire.methods import encode_method


class ChannelState:
    """The state of one channel of the connection `owner`."""

    __slots__ = (
        "owner", "number", "vhost", "user", "broker", "effort", "outbox", "frame_max", "is_stopped", "last_queue",
        "_is_answering", "_afterwards")

    def __init__(self, owner: ConnectionState, number: int, vhost: Vhost, user: User) -> None:
        self.owner = owner
        self.number = number
        self.vhost = vhost
        self.user = user
        self.broker = owner.broker
        self.effort = owner.broker.effort
        self.outbox = owner.outbox
        self.frame_max = owner.frame_max
        self.is_stopped = False             # nothing more comes: the channel is going
        self.last_queue: str | None = None  # that was declared on this channel
        self._is_answering = False
        self._afterwards: list[bytes] = []      # what comes after the answer to the method at hand

    @property
    def is_ending(self) -> bool:
        """Return whether the channel is at its end, or the connection is."""
        return self.is_stopped or self.owner.is_ending

    def queue_name(self, name: str) -> str:
        """Return the queue a method means; an empty name is the queue declared last on this channel.

        Raises ChannelException: NOT_FOUND where none was.
        """
        if name:
            return name
        if self.last_queue is None:
            raise ChannelException(ReplyCode.NOT_FOUND, "no previously declared queue")
        return self.last_queue

    # What is said

    def reply(self, method: Frame) -> None:
        """Send a method on this channel."""
        self.outbox.write(encode_method(self.number, method))

    def begin_answer(self) -> None:
        """Keep what nobody asked for until `end_answer`: a method is being handled."""
        self._is_answering = True

    def end_answer(self) -> None:
        """Keep it no more: from now on, it is sent at once."""
        self._is_answering = False

    def notify(self, octets: bytes) -> None:
        """Send what nobody asked for: after the answer to a method that is being handled, if one is."""
        if self._is_answering:
            self._afterwards.append(octets)
        else:
            self.outbox.write(octets)

    def send_afterwards(self) -> None:
        """Send what had to wait for the answer."""
        if self._afterwards:
            afterwards, self._afterwards = self._afterwards, []
            self.outbox.write(b"".join(afterwards))
