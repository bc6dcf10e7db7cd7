"""The amount of data that waits for the disk, and whether it is too much.

The limit is what can be written in a short time, measured at the commits, so that no confirm waits long for the
publishes of other clients.
"""

from __future__ import annotations

import msgspec

from amqpd.broker.measures import Measures
from amqpd.store.journal import Journal

COMMIT_S = 0.012
OVERFULL = 4                            # times as much, from which on no client is read
MOST_OF_JOBS = 250                      # beyond which jobs add no more: their records take longer than publishes
ROW_SIZE = 100                          # bytes in the store for a change, about


class CommitLimits(msgspec.Struct, frozen=True):
    """The limits of a batch: what is written within `COMMIT_S`, within these bounds, and the time between batches.

    A batch of more than `fewest_bytes` is large. If anything waits for a batch, the loop has the next one ready within
    `next_s`; after `idle_s` without a batch the store's file shrinks by a piece.
    """

    fewest: int = 500           # changes, publishes and settles
    most: int = 50_000
    fewest_bytes: int = 2 << 20
    most_bytes: int = 32 << 20
    next_s: float = 0.01
    idle_s: float = 0.1


LIMITS = CommitLimits()


class Backlog:
    """Tells whether the current batch of a journal is too large. Times are in seconds of a monotonic clock.

    Each written batch is added to the measures.
    """

    def __init__(
        self, journal: Journal, limits: CommitLimits = LIMITS, measures: Measures | None = None
    ) -> None:
        self._measures = measures or Measures()
        self._journal = journal
        self._limits = limits
        self._most, self._most_bytes = limits.most // 4, limits.most_bytes // 4
        self._taken_at = 0.0                    # when the batch that is being written was taken
        self._taken_count = self._taken_weight = 0

    @property
    def is_full(self) -> bool:
        """Return whether publishers should not be read, and deferred clients not go on, until more has been written."""
        filling = self._journal.filling
        return filling.count > self._most or filling.weight > self._most_bytes

    @property
    def is_overfull(self) -> bool:
        """Return whether even clients that send little should not be read."""
        filling = self._journal.filling
        return filling.count > OVERFULL * self._most or filling.weight > OVERFULL * self._most_bytes

    @property
    def is_full_for_jobs(self) -> bool:
        """Return whether jobs should pause until more has been written.

        While a job holds the batch, nothing is written before the job is done, so all jobs go on.
        """
        if self._journal.hold.is_on:
            return False
        return self._journal.filling.count > MOST_OF_JOBS or self.is_full

    def taken(self, now_s: float) -> None:
        """Note that the current batch is about to be written."""
        filling = self._journal.filling
        self._taken_at = now_s
        self._taken_count, self._taken_weight = filling.count, filling.weight

    def written(self, now_s: float) -> int:
        """Adapt the limit to the time that a batch took; return its size in bytes, about."""
        limits = self._limits
        took_s = now_s - self._taken_at
        share = COMMIT_S / max(took_s, 0.001)
        if self._taken_count > limits.fewest // 2:
            most = (self._most + share * self._taken_count) / 2
            self._most = int(min(limits.most, max(limits.fewest, most)))
        if self._taken_weight > limits.fewest_bytes // 2:
            most_bytes = (self._most_bytes + share * self._taken_weight) / 2
            self._most_bytes = int(min(limits.most_bytes, max(limits.fewest_bytes, most_bytes)))
        size = self._taken_weight + ROW_SIZE * self._taken_count
        self._measures.committed(took_s, self._taken_count, size)
        return size
