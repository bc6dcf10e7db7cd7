"""A channel: which part of it answers which method, and how its errors become a close.

Owns the channel's life: open until either side closes it. What it publishes, consumes, declares and commits is
in the modules of those names; they reach the connection and the broker through here.

Always true between calls: after our channel.close nothing is heard but close and close-ok, and the number is
free only after close-ok: to open it before that is an error of the connection.

Spec: channel class, §2.2.5, §4.8; RabbitMQ docs/channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from pamqp.base import Frame
from pamqp.commands import Channel as ChannelMethods

from amqpd.broker.departure import Departure
from amqpd.broker.statistics import ChannelStatistics
from amqpd.broker.step_job import Act
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.session.consuming import Consuming
from amqpd.session.publishing import Publishing
from amqpd.session.table import Handlers
from amqpd.session.topology import Topology
from amqpd.session.transaction import Transaction
from amqpd.wire.methods import AccessRequest, AccessRequestOk, encode_method, pack_close
from amqpd.wire.commands import Acks, Publishes, TooLarge, Unwanted

if TYPE_CHECKING:
    from amqpd.broker.access import User
    from amqpd.broker.broker import Broker
    from amqpd.broker.vhost import Vhost
    from amqpd.session.outbox import Outbox
    from amqpd.session.state import ConnectionState

TOPOLOGY_CLASSES = (40, 50)     # exchange and queue


class Channel:
    """One channel of the connection `owner`."""

    def __init__(self, owner: ConnectionState, number: int, vhost: Vhost, user: User) -> None:
        self.number = number
        self.vhost = vhost
        self.user = user
        self.owner = owner
        self.outbox: Outbox = owner.outbox
        self.frame_max = owner.frame_max
        self.unacked_limit = owner.settings.unacked_limit
        self.is_closing = False
        self.is_stopped = False     # nothing more comes: the channel is going
        self._departure: Departure | None = None
        self._is_answering = False
        self._afterwards: list[bytes] = []      # what comes after the answer to the method at hand
        self.publishing = Publishing(self)
        self.consuming = Consuming(self)
        self.topology = Topology(self)
        self.transaction = Transaction(self)
        self._handlers: Handlers = {
            ChannelMethods.Open: self._on_second_open,
            ChannelMethods.Flow: self._on_flow,
            AccessRequest: self._on_access_request,
            **self.publishing.handlers(),
            **self.consuming.handlers(),
            **self.topology.handlers(),
            **self.transaction.handlers(),
        }

    # What its parts reach through it

    @property
    def broker(self) -> Broker:
        """The broker this channel talks to."""
        return self.owner.broker

    @property
    def room(self) -> int:
        """Bytes the connection takes before it counts as full."""
        return 0 if self.is_stopped else self.owner.room

    @property
    def is_ending(self) -> bool:
        """Return whether the channel is at its end, or the connection is."""
        return self.is_stopped or self.owner.is_ending

    def client_can(self, capability: str) -> bool:
        """Whether the client declared this capability."""
        return self.owner.client_can(capability)

    def queue_name(self, name: str) -> str:
        """The queue a method means; see `Topology.queue_name`."""
        return self.topology.queue_name(name)

    def reply(self, method: Frame) -> None:
        """Send a method on this channel."""
        self.outbox.write(encode_method(self.number, method))

    def notify(self, octets: bytes) -> None:
        """Send what nobody asked for: after the answer to a method that is being handled, if one is."""
        if self._is_answering:
            self._afterwards.append(octets)
        else:
            self.outbox.write(octets)

    def await_commit(self) -> None:
        """Ask to be told of commits: a confirm waits for one."""
        self.owner.confirms.await_commit(self.publishing.confirms)

    def outbox_has_confirms(self) -> None:
        """Ask for confirms to be written at the end of the turn."""
        self.owner.confirms.write_later(self.publishing.confirms)

    def hold_output_until(self, batch: int) -> None:
        """Hold what the connection says from now on until this batch is on disk; 0 holds nothing."""
        self.owner.hold_output_until(batch)

    # Commands

    def on_command(self, command: Publishes | Acks | TooLarge | Unwanted) -> Publishes | Acks | None:
        """Take a command of the hot path, and return what is left of it; an error closes the channel."""
        if self.is_closing:
            return None
        try:
            if isinstance(command, Publishes):
                rest = self.publishing.on_publishes(command.groups)
                return Publishes(command.channel, rest) if rest else None
            if isinstance(command, Acks):
                left = self.consuming.answers.on_acks(command.tags)
                return Acks(command.channel, left) if left else None
            if isinstance(command, Unwanted):
                self.publishing.refuse()
            else:
                limit = self.owner.settings.max_body_size
                raise ChannelException(
                    ReplyCode.PRECONDITION_FAILED,
                    f"message size {command.body_size} is larger than configured max size {limit}")
        except ChannelException as error:
            self.close(error, (60, 80) if isinstance(command, Acks) else (60, 40))
        return None

    def on_method(self, method: Frame) -> None:
        """Take any other method; an error closes the channel. Close and close-ok are the session's to see."""
        if self.is_closing and not isinstance(method, ChannelMethods.Open):
            return
        handler = self._handlers.get(type(method))
        if handler is None:
            raise ConnectionException(ReplyCode.COMMAND_INVALID, "unimplemented method")
        self._is_answering = True
        try:
            answer = handler(method)
        except ChannelException as error:
            self.close(error, (method.index >> 16, method.index & 0xFFFF))
            return
        finally:
            self._is_answering = False
        if answer is not None:
            if method.index >> 16 in TOPOLOGY_CLASSES:
                self.hold_output_until(self.vhost.changes.awaited_batch)
            self.outbox.write(answer if isinstance(answer, bytes) else encode_method(self.number, answer))
        if self._afterwards:
            afterwards, self._afterwards = self._afterwards, []
            self.outbox.write(b"".join(afterwards))

    def _on_second_open(self, method: ChannelMethods.Open) -> None:
        raise ConnectionException(ReplyCode.CHANNEL_ERROR, "second 'channel.open' seen")

    def _on_flow(self, method: ChannelMethods.Flow) -> ChannelMethods.FlowOk:
        if not method.active:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "active=false")
        return ChannelMethods.FlowOk(active=True)

    def _on_access_request(self, method: AccessRequest) -> AccessRequestOk:
        return AccessRequestOk(1)

    # The end

    def close(self, error: ChannelException, method: tuple[int, int], *, is_told: bool = True) -> None:
        """Close the channel because of an error; consumers go and unacked messages go back first. Spec: §4.8.

        Where there are very many, the close does not wait for them. `is_told` says whether the log tells of it.
        """
        self.end()
        self.is_closing = True
        class_id, method_id = error.method or method
        if is_told:
            self.owner.log_channel_error(self.number, error)
        self.outbox.write(pack_close(self.number, error.code, error.reply_text, class_id, method_id))

    def stop(self) -> None:
        """Let nothing more come, and confirm what can be: the channel is going."""
        self.publishing.end()
        self.is_stopped = True
        self.consuming.replies.end()

    def end(self) -> Departure:
        """Let go of everything the channel holds. Return what is under way."""
        if self._departure is None:
            self.stop()
            self._departure = Departure(chain(*self.parting()), self.broker.worklist)
            self.owner.departs(self._departure)
        return self._departure

    def parting(self) -> tuple[Iterator[Act], Iterator[Act]]:
        """Return how consumers leave, and how what is unacked goes back, unless that is under way already."""
        if self._departure is not None:
            return iter(()), iter(())
        return self.consuming.leave(), self.consuming.give_back_all(self.transaction)

    def release(self) -> None:
        """Take the channel to pieces once its number is free: its parts refer to each other.

        Nobody may use it after this.
        """
        self._handlers.clear()
        del self.publishing, self.consuming, self.topology, self.transaction

    def statistics(self) -> ChannelStatistics:
        """Return counts as of now."""
        publishing, consuming, transaction = self.publishing, self.consuming, self.transaction
        return ChannelStatistics(
            name=f"{self.owner.name} ({self.number})",
            number=self.number,
            connection=self.owner.name,
            user=self.user.name,
            vhost=self.vhost.name,
            consumers=len(consuming.consumers),
            prefetch=consuming.prefetch.of_consumers,
            shared_prefetch=consuming.prefetch.shared,
            unacked=len(consuming.unacked),
            unconfirmed=publishing.confirms.unconfirmed if publishing.confirms.is_on else 0,
            uncommitted=transaction.held_publishes,
            uncommitted_acks=len(transaction.held_answers),
            dropped_replies=consuming.replies.dropped,
            has_confirms=publishing.confirms.is_on,
            is_transactional=transaction.active,
        )

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.publishing.confirms.check()
        self.consuming.check()
