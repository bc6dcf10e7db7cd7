"""A channel: it passes each method to the part that handles it, and turns errors into channel.close.

Owns the channel's life: open until either side closes it. The modules of those names publish, consume, declare and
commit. They share `ChannelState`, and none of them refers to the channel.

Always true between calls: after our channel.close only close and close-ok are handled, and the number is free only
after close-ok: opening it before that is a connection error.

Spec: channel class, §2.2.5, §4.8; RabbitMQ docs/channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from pamqp.base import Frame
from pamqp.commands import Channel as ChannelMethods

from amqpd.broker.access import User
from amqpd.broker.actor import Actor, acting
from amqpd.broker.counts import ChannelCounts
from amqpd.broker.departure import Departure
from amqpd.broker.statistics import ChannelStatistics
from amqpd.broker.step_job import Act
from amqpd.broker.vhost import Vhost
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.session.channel_state import ChannelState
from amqpd.session.consuming import Consuming
from amqpd.session.publishing import Publishing
from amqpd.session.state import ConnectionState
from amqpd.session.table import Handlers
from amqpd.session.topology import Topology
from amqpd.session.transaction import Transaction
from amqpd.session.uncommitted import Uncommitted
from amqpd.wire.commands import Acks, Publishes, TooLarge, Unwanted
from amqpd.wire.methods import AccessRequest, AccessRequestOk, encode_method, pack_close

TOPOLOGY_CLASSES = (40, 50)     # exchange and queue


class Channel:
    """One channel of the connection `owner`."""

    def __init__(self, owner: ConnectionState, number: int, vhost: Vhost, user: User) -> None:
        self.number = number
        self.is_closing = False
        self.state = state = ChannelState(owner, number, vhost, user)
        self.uncommitted = Uncommitted(owner.settings, owner.broker.worklist)
        self.consuming = Consuming(state, self.uncommitted)
        self.publishing = Publishing(state, self.consuming.replies, self.uncommitted)
        self._handlers: Handlers = {
            ChannelMethods.Open: _on_second_open,
            ChannelMethods.Flow: _on_flow,
            AccessRequest: _on_access_request,
            **self.publishing.handlers(),
            **self.consuming.handlers(),
            **Topology(state).handlers(),
            **Transaction(
                state, self.uncommitted, self.publishing.confirms, self.publishing.targets, self.consuming).handlers(),
        }
        self._owner = owner
        self._outbox = owner.outbox
        self._departure: Departure | None = None
        owner.broker.channel_count += 1
        owner.broker.churn.channel_created += 1
        user.channel_count += 1
        state.tell("channel.created")

    # Commands

    def on_command(self, command: Publishes | Acks | TooLarge | Unwanted) -> Publishes | Acks | None:
        """Take a command of the hot path, and return the rest of it; an error closes the channel."""
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
                limit = self._owner.settings.max_body_size
                raise ChannelException(
                    ReplyCode.PRECONDITION_FAILED,
                    f"message size {command.body_size} is larger than configured max size {limit}")
        except ChannelException as error:
            self.close(error, (60, 80) if isinstance(command, Acks) else (60, 40))
        return None

    def on_method(self, method: Frame) -> None:
        """Take any other method; an error closes the channel. The session handles close and close-ok."""
        if self.is_closing and not isinstance(method, ChannelMethods.Open):
            return
        handler = self._handlers.get(type(method))
        if handler is None:
            raise ConnectionException(ReplyCode.COMMAND_INVALID, "unimplemented method")
        self.state.begin_answer()
        try:
            answer = self._carry_out(handler, method) if self.state.broker.events.listeners else handler(method)
        except ChannelException as error:
            self.close(error, (method.index >> 16, method.index & 0xFFFF))
            return
        finally:
            self.state.end_answer()
        if answer is not None:
            if method.index >> 16 in TOPOLOGY_CLASSES:
                self._owner.hold_output_until(self.state.vhost.changes.awaited_batch)
            self._outbox.write(answer if isinstance(answer, bytes) else encode_method(self.number, answer))
        self.state.send_afterwards()

    def _carry_out(self, handler: Callable[[Any], Any], method: Frame) -> Any:
        """Carry out a method, while there are listeners that want to know which user acts."""
        with acting(Actor(self.state.user.name, self._owner.name, "amqp")):
            return handler(method)

    # The end

    def close(self, error: ChannelException, method: tuple[int, int], *, is_told: bool = True) -> None:
        """Close the channel because of an error; remove consumers and requeue unacked messages first. Spec: §4.8.

        If there are very many, the close does not wait for them. `is_told` says whether to log it.
        """
        self.end()
        self.is_closing = True
        class_id, method_id = error.method or method
        if is_told:
            self._owner.log_channel_error(self.number, error)
        self._outbox.write(pack_close(self.number, error.code, error.reply_text, class_id, method_id))

    def stop(self) -> None:
        """Accept no more input, and confirm what can be confirmed: the channel is ending."""
        self.publishing.end()
        self.state.is_stopped = True
        self.consuming.replies.end()

    def end(self) -> Departure:
        """Free everything that the channel holds. Return the job that does it."""
        if self._departure is None:
            self.stop()
            self._departure = Departure(chain(*self.parting()), self._owner.broker.worklist)
            self._owner.departs(self._departure)
        return self._departure

    def parting(self) -> tuple[Iterator[Act], Iterator[Act]]:
        """Return the acts that remove consumers, and those that requeue unacked messages, unless they have begun."""
        if self._departure is not None:
            return iter(()), iter(())
        return self.consuming.leave(), self.consuming.give_back_all()

    def release(self) -> None:
        """Free the parts of the channel, once its number is free. It may not be used after this."""
        self.counts()
        self._owner.broker.channel_count -= 1
        self._owner.broker.churn.channel_closed += 1
        self.state.user.channel_count -= 1
        self.state.tell("channel.closed")
        self._handlers.clear()
        del self.publishing, self.consuming, self.uncommitted

    def counts(self) -> ChannelCounts:
        """Return what the channel has counted, and tell the totals of its vhost."""
        counts, confirms = self.state.counts, self.publishing.confirms
        counts.delivered = (
            self.consuming.deliveries.next_tag - 1 - counts.delivered_no_ack - counts.got - counts.got_no_ack)
        counts.confirmed, counts.confirmable = confirms.confirmed, confirms.sequence
        self.state.vhost.totals.tell_published(counts)
        return counts

    def statistics(self) -> ChannelStatistics:
        """Return the current counts."""
        state, publishing, consuming = self.state, self.publishing, self.consuming
        return ChannelStatistics(
            name=f"{self._owner.name} ({self.number})",
            number=self.number,
            connection=self._owner.name,
            user=state.user.name,
            vhost=state.vhost.name,
            consumers=len(consuming.consumers),
            prefetch=consuming.prefetch.of_consumers,
            shared_prefetch=consuming.prefetch.shared,
            unacked=len(consuming.unacked),
            unconfirmed=publishing.confirms.unconfirmed if publishing.confirms.is_on else 0,
            uncommitted=self.uncommitted.message_count,
            uncommitted_acks=self.uncommitted.answered_count,
            dropped_replies=consuming.replies.dropped,
            has_confirms=publishing.confirms.is_on,
            is_transactional=self.uncommitted.is_active,
        )

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.publishing.confirms.check()
        self.consuming.check()


def _on_second_open(method: ChannelMethods.Open) -> None:
    raise ConnectionException(ReplyCode.CHANNEL_ERROR, "second 'channel.open' seen")


def _on_flow(method: ChannelMethods.Flow) -> ChannelMethods.FlowOk:
    if not method.active:
        raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "active=false")
    return ChannelMethods.FlowOk(active=True)


def _on_access_request(method: AccessRequest) -> AccessRequestOk:
    return AccessRequestOk(1)
