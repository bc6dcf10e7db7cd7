"""Release the contents of unacked messages that are on disk, so that a client that does not answer fills no memory.

This happens in rounds. A round ends when all channels together have been sent `limit` bytes that are to be answered;
then each channel releases what was unacked at the end of the round before already. So a client that acks soon loses
nothing, and besides the contents of two rounds only those stay that are not on disk, or hardly larger than what stands
for them. What is given back is read again before its turn comes.

Always true between calls: each channel that has reported deliveries, and may have contents to release, is in the
present round or in the one that ends.

RabbitMQ docs/persistence-conf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from amqpd.broker.worklist import Worklist

CHANNEL_STEPS = 2       # what it takes to ask one channel; see broker/effort.py


class Holder(Protocol):
    """A channel, as far as it holds unacked messages."""

    @property
    def holds_contents(self) -> bool:
        """Return whether it may have contents that can be released later."""

    def release_contents(self) -> Iterator[None]:
        """Release, in pieces, the contents of messages that were unacked when this was last called."""


class UnackedContents:
    """The rounds of one broker; a job of the worklist at the end of each."""

    def __init__(self, worklist: Worklist, limit: int) -> None:
        self._worklist = worklist
        self._limit = limit
        self._octets = 0        # that were sent in the present round
        self._holders: dict[Holder, None] = {}      # that were sent some, or have contents from before
        self._ending: dict[Holder, None] = {}       # that are still to be asked at the end of the round before
        self._pieces: Iterator[None] | None = None

    def sent(self, holder: Holder, octets: int) -> None:
        """Take note that this channel was sent so many bytes that it has to answer."""
        self._holders[holder] = None
        self._octets += octets
        if self._octets > self._limit and self._pieces is None:
            self._octets = 0
            self._ending, self._holders = self._holders, {}
            self._pieces = self._release_in_pieces()
            self._worklist.add(self)

    def forget(self, holder: Holder) -> None:
        """This channel is gone."""
        self._holders.pop(holder, None)
        self._ending.pop(holder, None)

    @property
    def has_work(self) -> bool:
        """See `Job`."""
        return self._pieces is not None

    def work(self) -> None:
        """See `Job`."""
        assert self._pieces is not None
        pieces, self._pieces = self._pieces, None       # after an error there is no more of it
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
