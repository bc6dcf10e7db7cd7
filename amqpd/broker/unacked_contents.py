"""Release the contents of unacked messages that are on disk, so that a client that does not ack fills no memory.

This is done in rounds. A round ends when all channels together have been sent `limit` bytes that need an ack. Then each
channel releases the messages that were unacked at the end of the previous round already. So a client that acks soon is
not affected. Apart from the contents of two rounds, only those stay in memory that are not on disk, or hardly larger
than a reference. Requeued messages are read again before they are delivered.

Always true between calls: each channel that has reported deliveries, and may have contents to release, is in the
current round or in the one that ends.

RabbitMQ docs/persistence-conf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from amqpd.broker.worklist import Worklist

CHANNEL_STEPS = 2       # the cost of one channel; see broker/effort.py


class Holder(Protocol):
    """A channel that holds unacked messages."""

    @property
    def holds_contents(self) -> bool:
        """Return whether it may have contents that can be released later."""

    def release_contents(self) -> Iterator[None]:
        """Release, in slices, the contents of messages that were unacked when this was last called."""


class UnackedContents:
    """The rounds of one broker, with a job of the worklist at the end of each."""

    def __init__(self, worklist: Worklist, limit: int) -> None:
        self._worklist = worklist
        self._limit = limit
        self._sent_bytes = 0        # sent in the current round
        self._holders: dict[Holder, None] = {}      # that were sent messages, or have contents from before
        self._ending: dict[Holder, None] = {}       # not yet called at the end of the previous round
        self._pieces: Iterator[None] | None = None

    def sent(self, holder: Holder, size: int) -> None:
        """Note that this channel was sent so many bytes that need an ack."""
        self._holders[holder] = None
        self._sent_bytes += size
        if self._sent_bytes > self._limit and self._pieces is None:
            self._sent_bytes = 0
            self._ending, self._holders = self._holders, {}
            self._pieces = self._release_in_pieces()
            self._worklist.add(self)

    def forget(self, holder: Holder) -> None:
        """Forget this channel, which is closed."""
        self._holders.pop(holder, None)
        self._ending.pop(holder, None)

    @property
    def has_work(self) -> bool:
        """See `Job`."""
        return self._pieces is not None

    def work(self) -> None:
        """See `Job`."""
        assert self._pieces is not None
        pieces, self._pieces = self._pieces, None       # after an error the rest is skipped
        if next(pieces, self) is None:
            self._pieces = pieces

    def _release_in_pieces(self) -> Iterator[None]:
        while self._ending:
            holder, _ = self._ending.popitem()
            self._worklist.effort.total += CHANNEL_STEPS
            yield from holder.release_contents()
            if holder.holds_contents:
                self._holders[holder] = None
            yield
