"""Measures of one broker for its operators: how long commits take, how large batches are, how late the loop is.

The committer and the ticker measure, once a batch or a tick. Each measure is a histogram with fixed buckets, in the
form that Prometheus expects.
"""

from __future__ import annotations

from bisect import bisect_left

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
CHANGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)
BYTES = tuple([float(1 << power) for power in range(10, 27, 2)])        # 1 KiB to 64 MiB


class Histogram:
    """How many values were at most as large as each of the bounds, and the sum of all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)       # of each bucket alone; the last one is for larger values
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return, for each bound and infinity, how many values were at most as large."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts):
            total += count
            found.append((bound, total))
        return found


class Measures:
    """The measures of one broker. A change is, about, one publish or settle that is stored, or one changed definition.

    `body_bytes` counts the bytes of large bodies, which are written in `body_pieces` before their batch.
    `read_messages` counts messages that were read from disk, since they had been paged out or are large;
    `spilled_bytes` those written to spill files.
    """

    def __init__(self) -> None:
        self.commit_seconds = Histogram(SECONDS)    # from taking a batch until the loop knows that it is on disk
        self.batch_changes = Histogram(CHANGES)
        self.batch_bytes = Histogram(BYTES)
        self.loop_lag_seconds = Histogram(SECONDS)  # how late the loop calls a timer, four times a second
        self.body_pieces = self.body_bytes = self.read_messages = self.read_bytes = self.spilled_bytes = 0

    def committed(self, seconds: float, changes: int, size: int) -> None:
        """Count a batch that was written in so many seconds."""
        self.commit_seconds.observe(seconds)
        self.batch_changes.observe(changes)
        self.batch_bytes.observe(size)

    def wrote_piece(self, size: int) -> None:
        """Count a piece of a large body."""
        self.body_pieces += 1
        self.body_bytes += size
