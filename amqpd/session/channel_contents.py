"""The contents of unacked messages of one channel: they are reported to the broker, which has them released.

RabbitMQ docs/persistence-conf.
"""

from __future__ import annotations

from collections.abc import Iterator

from amqpd.session.channel_state import ChannelState
from amqpd.session.unacked import UnackedDeliveries
from amqpd.session.uncommitted import Uncommitted

REPORTED = 16 << 10     # bytes of unacked deliveries, after which a channel reports to the broker


class ChannelContents:
    """The `Holder` of one channel; see broker/unacked_contents.py."""

    def __init__(self, channel: ChannelState, unacked: UnackedDeliveries, uncommitted: Uncommitted) -> None:
        self._channel = channel
        self._unacked = unacked
        self._uncommitted = uncommitted
        self._unreported = 0        # bytes of deliveries that need an ack, since the last report

    def sent(self, size: int) -> None:
        """Count deliveries that need an ack."""
        self._unreported += size
        if self._unreported > REPORTED:
            self.report()

    def report(self) -> None:
        """Tell the broker how much was delivered that needs an ack, or that there are contents again."""
        self._channel.broker.unacked_contents.sent(self, self._unreported)
        self._unreported = 0

    def end(self) -> None:
        """Stop releasing contents: the channel is ending."""
        self._channel.broker.unacked_contents.forget(self)

    @property
    def holds_contents(self) -> bool:
        """See broker/unacked_contents.py."""
        if self._channel.is_ending:
            return False
        return self._unacked.has_contents or self._uncommitted.holds_contents

    def release_contents(self) -> Iterator[None]:
        """Release contents of messages that were unacked at the last call already, or answered in the transaction.

        See broker/unacked_contents.py. Messages that are not committed yet are left for the next call.
        """
        channel = self._channel
        if channel.is_ending:
            return
        yield from self._unacked.release_contents(lambda: channel.is_ending)
        for count in self._uncommitted.release_contents():
            channel.effort.total += count
            yield
