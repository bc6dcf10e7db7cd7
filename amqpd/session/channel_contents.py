"""What the unacked messages of one channel hold in memory, reported to the broker, which has it released.

RabbitMQ docs/persistence-conf.
"""

from __future__ import annotations

from collections.abc import Iterator

from amqpd.session.channel_state import ChannelState
from amqpd.session.unacked import UnackedDeliveries
from amqpd.session.uncommitted import Uncommitted

REPORTED = 16 << 10     # bytes to be answered, for which a channel reports to the broker


class ChannelContents:
    """A `Holder` of broker/unacked_contents.py."""

    def __init__(self, channel: ChannelState, unacked: UnackedDeliveries, uncommitted: Uncommitted) -> None:
        self._channel = channel
        self._unacked = unacked
        self._uncommitted = uncommitted
        self._unreported = 0        # bytes that were sent, and are to be answered, since the last report

    def sent(self, octets: int) -> None:
        """Count what was sent and is to be answered."""
        self._unreported += octets
        if self._unreported > REPORTED:
            self.report()

    def report(self) -> None:
        """Tell the broker how much was sent that is to be answered, or that there are contents again."""
        self._channel.broker.unacked_contents.sent(self, self._unreported)
        self._unreported = 0

    def end(self) -> None:
        """Have nothing released any more: the channel is going."""
        self._channel.broker.unacked_contents.forget(self)

    @property
    def holds_contents(self) -> bool:
        """See broker/unacked_contents.py."""
        if self._channel.is_ending:
            return False
        return self._unacked.has_contents or self._uncommitted.holds_contents

    def release_contents(self) -> Iterator[None]:
        """Release contents of what is unacked since the last call, or answered in the transaction.

        See broker/unacked_contents.py. What is not committed yet is left for the next call.
        """
        channel = self._channel
        if channel.is_ending:
            return
        yield from self._unacked.release_contents(lambda: channel.is_ending)
        for count in self._uncommitted.release_contents():
            channel.effort.total += count
            yield
