"""The channels of one connection: open numbers, opening and closing, and timeouts.

Always true between calls: a channel is in `by_number` from its open until close-ok has been exchanged.

Spec: channel class; RabbitMQ docs/channels, docs/consumers (delivery acknowledgement timeout).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pamqp.base import Frame
from pamqp.commands import Channel as ChannelMethods

from amqpd.broker.broker import OldestUnacked
from amqpd.broker.counts import ChannelCounts
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.limits import MAX_CHANNELS, reached_limit
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue
from amqpd.broker.statistics import ChannelStatistics, UnackedDelivery
from amqpd.broker.step_job import Act
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.identity import NODE_NAME
from amqpd.message import Message
from amqpd.session.channel import Channel
from amqpd.session.consumer_timeouts import OverdueChannels
from amqpd.session.state import ConnectionState
from amqpd.wire.methods import encode_method, pack_channel_open_ok

CONSUME = (60, 20)      # basic.consume
RIGHT_STEPS = 5         # the cost of checking a right; see broker/effort.py


class ChannelTable:
    """The channels of the connection with this state, by number."""

    def __init__(self, state: ConnectionState) -> None:
        self.by_number: dict[int, Channel] = {}
        self.overdue = OverdueChannels(
            state.looks, state.broker.worklist, self._close_if_overdue, self._log_closed,
            state.settings.logged_timeouts)
        self._state = state

    # Opening and closing

    def open(self, number: int) -> None:
        """Open a channel.

        Raises ConnectionException: NOT_ALLOWED, beyond the negotiated channel_max, the limit of all connections, or
        that of the user.
        """
        state = self._state
        assert state.vhost is not None and state.user is not None
        if len(self.by_number) >= state.channel_max:
            raise ConnectionException(
                ReplyCode.NOT_ALLOWED, f"number of channels opened ({len(self.by_number)}) has reached the "
                f"negotiated channel_max ({state.channel_max})", method=(0, 0))
        if state.broker.channel_count >= state.settings.channel_limit:
            raise ConnectionException(
                ReplyCode.NOT_ALLOWED, f"number of channels opened on node '{NODE_NAME}' has reached the maximum "
                f"allowed limit of ({state.settings.channel_limit}), which limits.max_channels sets", method=(0, 0))
        limit = reached_limit(state.user.definition.limits, MAX_CHANNELS, state.user.channel_count)
        if limit is not None:
            raise ConnectionException(
                ReplyCode.NOT_ALLOWED, f"number of channels opened for user '{state.user.name}' has reached the "
                f"maximum allowed user limit of ({limit})", method=(0, 0))
        self.by_number[number] = Channel(state, number, state.vhost, state.user)
        state.outbox.write(pack_channel_open_ok(number))

    def on_close(self, channel: Channel, method: Frame) -> None:
        """Take the client's close, or its answer to ours. Raises MessageNotLoaded until the channel has ended."""
        if isinstance(method, ChannelMethods.CloseOk):
            if not channel.is_closing:
                raise ConnectionException(ReplyCode.COMMAND_INVALID, "unimplemented method")
            self._free(channel)
            return
        if not channel.is_closing:      # else both sides closed at once: ours still needs its close-ok
            departure = channel.end()
            if departure.has_work:
                raise MessageNotLoaded(departure.call)
            self._free(channel)
        self._state.outbox.write(encode_method(channel.number, ChannelMethods.CloseOk()))

    def _free(self, channel: Channel) -> None:
        """Remove a channel that has ended: its number may be used again."""
        del self.by_number[channel.number]
        self._state.confirms.forget(channel.publishing.confirms)
        channel.release()

    def is_wanted(self, number: int, arguments: bytes) -> bool:
        """Return whether to keep the content of a publish that begins: not if the publish will be refused."""
        channel = self.by_number[number]
        return not channel.is_closing and channel.publishing.may_begin(arguments)

    # Time

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a gap, in which no answer could be read."""
        for channel in self.by_number.values():
            channel.consuming.timeouts.times.excuse(gap_ms, now_ms)

    def _close_if_overdue(self, number: int, when_ms: int, now_ms: int, is_told: bool) -> bool:
        """Close a channel on which a delivery has been unacked for too long. RabbitMQ docs/consumers."""
        channel = self.by_number.get(number)
        if channel is None or channel.is_closing or channel.consuming.timeouts.times.next_look_ms != when_ms:
            return False
        overdue = channel.consuming.timeouts.overdue(now_ms, self._state.settings.consumer_timeout_ms)
        if overdue is None:
            return False
        channel.close(ChannelException(
            ReplyCode.PRECONDITION_FAILED, f"delivery acknowledgement on channel {channel.number} timed out. "
            f"Timeout value used: {overdue} ms. This timeout value can be configured, see consumers doc guide "
            "to learn more"), (0, 0), is_told=is_told)
        return True

    def _log_closed(self, count: int) -> None:
        self._state.log.warning("%s: %d more channels were closed: deliveries were not acknowledged in time",
                                self._state.name, count)

    # Rights

    def right_checks(self) -> Iterator[Act]:
        """See broker/broker.py."""
        for channel in [*self.by_number.values()]:
            for consumer in [*channel.consuming.consumers.values()]:
                yield RIGHT_STEPS, partial(self._check_right, channel, consumer)

    def _check_right(self, channel: Channel, consumer: Consumer[Queue]) -> None:
        """Close a channel with a consumer that its user may not have any more."""
        state = channel.state
        if channel.is_closing or consumer.tag not in channel.consuming.consumers:
            return
        try:
            state.user.require(state.vhost.name, "read", "queue", consumer.queue.name)
        except ChannelException as error:
            channel.close(error, CONSUME)

    # Queries

    @property
    def unacked_count(self) -> int:
        """See broker/broker.py."""
        return sum([channel.consuming.owed_count for channel in self.by_number.values()])

    def unacked_runs(self) -> Iterator[tuple[Queue, list[Message]]]:
        """See broker/broker.py."""
        for channel in self.by_number.values():
            runs: dict[Queue, list[Message]] = {}
            for message, consumer in channel.consuming.owed:
                runs.setdefault(consumer.queue, []).append(message)
            yield from runs.items()

    def oldest_unacked(self, most: int) -> Iterator[list[OldestUnacked]]:
        """See broker/broker.py."""
        for channel in [*self.by_number.values()]:
            yield [*channel.consuming.oldest_unacked(most)]

    def unacked_of(self, queue: Queue) -> Iterator[list[UnackedDelivery]]:
        """See broker/broker.py."""
        for channel in [*self.by_number.values()]:
            if not channel.is_closing:
                yield [*channel.consuming.unacked_of(queue)]

    def statistics(self) -> list[ChannelStatistics]:
        """Return the statistics of each channel."""
        return [channel.statistics() for channel in self.by_number.values()]

    def counts_of(self, number: int) -> ChannelCounts | None:
        """See broker/broker.py."""
        channel = self.by_number.get(number)
        return None if channel is None else channel.counts()

    def counts(self) -> dict[int, ChannelCounts]:
        """See broker/broker.py."""
        return {number: channel.counts() for number, channel in self.by_number.items()}

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert not (self._state.has_ended and self.by_number), "ended with channels"
        for channel in self.by_number.values():
            channel.check()
