"""A histogram of times with fixed buckets: small, mergeable, and exact to less than one percent.

As in an HDR histogram, each power of two is cut into the same number of buckets, so that the error is relative.
Percentiles are the upper end of their bucket, so they are never too good; minimum and maximum are exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

UNIT_NS = 1_000             # buckets count microseconds
_BITS = 7                   # 128 buckets a power of two: an error of 1/128 at most
_PER_POWER = 1 << _BITS
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


def bucket_of(units: int) -> int:
    """Return the bucket of a value in units."""
    shift = max(0, units.bit_length() - _BITS - 1)
    return (shift << _BITS) + (units >> shift)


def highest_in(bucket: int) -> int:
    """Return the largest value, in units, that a bucket stands for."""
    shift = max(0, (bucket >> _BITS) - 1)
    return ((bucket - (shift << _BITS) + 1) << shift) - 1


class Histogram(msgspec.Struct):
    """Counts of times, in nanoseconds; negative ones count as 0. It can be sent as JSON and merged."""

    counts: dict[int, int] = {}
    total: int = 0
    sum_ns: int = 0
    min_ns: int | None = None
    max_ns: int | None = None

    def record(self, ns: int, count: int = 1) -> None:
        """Count a time, once or several times."""
        ns = max(ns, 0)
        bucket = bucket_of(ns // UNIT_NS)
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += count
        self.sum_ns += ns * count
        self.min_ns = ns if self.min_ns is None else min(self.min_ns, ns)
        self.max_ns = ns if self.max_ns is None else max(self.max_ns, ns)

    def merge(self, other: Histogram) -> None:
        """Add all that the other one has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.sum_ns += other.sum_ns
        if other.min_ns is not None and other.max_ns is not None:
            self.min_ns = other.min_ns if self.min_ns is None else min(self.min_ns, other.min_ns)
            self.max_ns = other.max_ns if self.max_ns is None else max(self.max_ns, other.max_ns)

    def percentile_ns(self, percent: float) -> int:
        """Return the time that this share of all times does not exceed; 0 if nothing was counted."""
        if self.min_ns is None or self.max_ns is None:
            return 0
        wanted, seen = max(1, -(-self.total * percent // 100)), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min((highest_in(bucket) + 1) * UNIT_NS - 1, self.max_ns)
        return self.max_ns

    def summary_ms(self) -> Mapping[str, float]:
        """Return count, minimum, mean, percentiles and maximum, in milliseconds; empty if nothing was counted."""
        if self.min_ns is None or self.max_ns is None:
            return {}
        percentiles = {f"p{percent:g}": _ms(self.percentile_ns(percent)) for percent in PERCENTILES}
        return {"count": self.total, "min": _ms(self.min_ns), "mean": _ms(self.sum_ns // self.total), **percentiles,
                "max": _ms(self.max_ns)}


def _ms(ns: int) -> float:
    return round(ns / 1_000_000, 3)
