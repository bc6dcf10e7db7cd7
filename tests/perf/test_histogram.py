"""Histograms: percentiles against those of the sorted times, merging, and the way through JSON."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.perf.histogram import PERCENTILES, UNIT_NS, Histogram, bucket_of, highest_in

TIMES = st.integers(0, 3_600 * 10 ** 9)


def histogram_of(times: list[int]) -> Histogram:
    histogram = Histogram()
    for time_ns in times:
        histogram.record(time_ns)
    return histogram


def test_buckets_follow_each_other_without_a_gap() -> None:
    values = [value for power in range(33) for value in range(1 << power, (1 << power) + 300)]
    for value in values:
        bucket = bucket_of(value)
        assert bucket_of(highest_in(bucket)) == bucket
        assert bucket_of(highest_in(bucket) + 1) == bucket + 1
        assert value <= highest_in(bucket) <= value + value // 128


@given(st.lists(TIMES, min_size=1, max_size=300))
def test_a_percentile_is_never_too_good_and_at_most_a_percent_too_bad(times: list[int]) -> None:
    histogram, ordered = histogram_of(times), sorted(times)
    for percent in (*PERCENTILES, 0.0, 100.0):
        exact = ordered[max(0, -int(-len(times) * percent // 100) - 1)]
        assert exact <= histogram.percentile_ns(percent) <= exact * 129 // 128 + UNIT_NS
    assert histogram.percentile_ns(100) == max(times)


@given(st.lists(TIMES), st.lists(TIMES))
def test_merged_histograms_are_one_that_counted_all(first: list[int], second: list[int]) -> None:
    merged = histogram_of(first)
    sent = msgspec.json.decode(msgspec.json.encode(histogram_of(second)), type=Histogram)
    merged.merge(sent)
    assert merged == histogram_of(first + second)


def test_counting_many_at_once_is_counting_each() -> None:
    many = Histogram()
    many.record(5_000_000, 1_000)
    assert many == histogram_of([5_000_000] * 1_000)


def test_a_summary_is_in_milliseconds() -> None:
    histogram = histogram_of([number * 1_000_000 for number in range(1, 1_001)])
    summary = histogram.summary_ms()
    assert list(summary) == ["count", "min", "mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max"]
    assert (summary["count"], summary["min"], summary["mean"], summary["max"]) == (1000, 1.0, 500.5, 1000.0)
    assert summary["p50"] == pytest.approx(500, rel=0.01) and summary["p99.9"] == pytest.approx(999, rel=0.01)


def test_nothing_counted_has_no_summary() -> None:
    assert not Histogram().summary_ms() and Histogram().percentile_ns(99) == 0
