"""The acknowledgement timeouts of one channel.

Records when deliveries are made, and has the channel checked when one may be overdue; `consumer_timeouts.py` says how
that stays cheap.

RabbitMQ docs/consumers (delivery acknowledgement timeout).
"""

from __future__ import annotations

from collections.abc import Mapping

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.session.channel_state import ChannelState
from amqpd.session.consumer_timeouts import DeliveryTimes, has_own_timeout, timeout_of
from amqpd.session.unacked import UnackedDeliveries
from amqpd.session.uncommitted import Uncommitted

LOOKED_AT_IN_A_STEP = 10       # consumers or deliveries that are checked in a step


class ChannelTimeouts:
    """The timeouts of one channel; `consumers` are its consumers, by tag."""

    __slots__ = ("times", "_number", "_looks", "_clock", "_effort", "_consumers", "_deliveries", "_uncommitted")

    def __init__(
        self, channel: ChannelState, consumers: Mapping[str, Consumer[Queue]], deliveries: UnackedDeliveries,
        uncommitted: Uncommitted,
    ) -> None:
        self.times = DeliveryTimes()
        self._number = channel.number
        self._looks = channel.owner.looks
        self._clock = channel.broker.clock
        self._effort = channel.effort
        self._consumers = consumers
        self._deliveries = deliveries
        self._uncommitted = uncommitted

    def delivered(self) -> None:
        """Record that the newest deliveries have just been made."""
        times = self.times
        times.delivered(self._deliveries.next_tag, self._clock.now_ms)
        if times.next_look_ms is None:
            self._look_soon()

    def consumer_came(self, consumer: Consumer[Queue]) -> None:
        """Check the channel soon if this consumer has its own timeout, which may be short."""
        if self.times.next_look_ms is not None and timeout_of(consumer, None) is not None:
            self._look_soon()

    def _look_soon(self) -> None:
        """Have the channel checked with the next tick."""
        self.times.next_look_ms = now_ms = self._clock.now_ms
        self._looks.add(self._number, now_ms)

    def overdue(self, now_ms: int, default_ms: int | None) -> int | None:
        """Return the timeout in ms that a delivery has exceeded, or None.

        Set the time of the next check.
        """
        unacked = self._deliveries.by_tag
        has_own_timeouts = any(map(has_own_timeout, self._consumers.values()))
        looked_at = len(self._consumers) + (len(unacked) if has_own_timeouts else 0)
        self._effort.total += looked_at // LOOKED_AT_IN_A_STEP
        overdue = self.times.overdue(
            now_ms, unacked, default_ms, has_own_timeouts=has_own_timeouts,
            keeps_all=self._uncommitted.holds_answers)      # a rollback may make deliveries unacked again
        if self.times.next_look_ms is not None:
            self._looks.add(self._number, self.times.next_look_ms)
        return overdue
