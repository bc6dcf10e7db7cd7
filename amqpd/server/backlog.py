"""How much waits for the disk, and whether that is more than should.

What may wait is what is written within a moment, learned from the commits: so nobody's confirm waits long for what
others do.
"""

from __future__ import annotations

import msgspec

from amqpd.store.journal import Journal

COMMIT_S = 0.012
OVERFULL = 4                            # times as much, and nobody at all adds more
MOST_OF_JOBS = 250                      # beyond which jobs add no more: theirs take longer than publishes
ROW_SIZE = 100                          # bytes a change takes in the store, about


class CommitLimits(msgspec.Struct, frozen=True):
    """How much may wait in a batch: as much as is written within `COMMIT_S`, but within these bounds; and for how long.

    A batch of more than `fewest_octets` is large. In `next_s` the loop has a batch ready if anybody waits for one, and
    after `idle_s` without a batch the store's file shrinks by a piece.
    """

    fewest: int = 500           # changes, publishes and settles
    most: int = 50_000
    fewest_octets: int = 2 << 20
    most_octets: int = 32 << 20
    next_s: float = 0.01
    idle_s: float = 0.1


LIMITS = CommitLimits()


class Backlog:
    """The batch that fills in a journal, as far as it is too large; times are in seconds of a monotonic clock."""

    def __init__(self, journal: Journal, limits: CommitLimits = LIMITS) -> None:
        self._journal = journal
        self._limits = limits
        self._most, self._most_octets = limits.most // 4, limits.most_octets // 4
        self._taken_at = 0.0                    # when the batch was taken that is being written
        self._taken_count = self._taken_weight = 0

    @property
    def is_full(self) -> bool:
        """Return whether publishers should not be read, and deferred clients not go on, until more has been written."""
        filling = self._journal.filling
        return filling.count > self._most or filling.weight > self._most_octets

    @property
    def is_overfull(self) -> bool:
        """Return whether not even those should be read who send little."""
        filling = self._journal.filling
        return filling.count > OVERFULL * self._most or filling.weight > OVERFULL * self._most_octets

    @property
    def is_full_for_jobs(self) -> bool:
        """Return whether jobs should not be worked on until more has been written.

        While a job keeps the batch, nothing is written before it is done, so all jobs go on.
        """
        if self._journal.hold.is_on:
            return False
        return self._journal.filling.count > MOST_OF_JOBS or self.is_full

    def taken(self, now_s: float) -> None:
        """Note that the batch that fills is about to be written."""
        filling = self._journal.filling
        self._taken_at = now_s
        self._taken_count, self._taken_weight = filling.count, filling.weight

    def written(self, now_s: float) -> int:
        """Learn from a batch, which has been written, how much may wait; return how many bytes it had about."""
        limits = self._limits
        share = COMMIT_S / max(now_s - self._taken_at, 0.001)
        if self._taken_count > limits.fewest // 2:
            most = (self._most + share * self._taken_count) / 2
            self._most = int(min(limits.most, max(limits.fewest, most)))
        if self._taken_weight > limits.fewest_octets // 2:
            octets = (self._most_octets + share * self._taken_weight) / 2
            self._most_octets = int(min(limits.most_octets, max(limits.fewest_octets, octets)))
        return self._taken_weight + ROW_SIZE * self._taken_count
