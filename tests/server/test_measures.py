"""The histograms that operators see, and who measures for them."""

from __future__ import annotations

from amqpd.broker.measures import Histogram, Measures
from amqpd.server.backlog import Backlog
from amqpd.store.journal import Journal
from tests.support.samples import message, queue_definition


def test_a_histogram_counts_a_value_at_a_bound_below_it() -> None:
    histogram = Histogram((1.0, 5.0))
    for value in (0.5, 1.0, 4.0, 5.0, 5.1, 70.0):
        histogram.observe(value)
    assert histogram.cumulative() == [(1.0, 2), (5.0, 4), (float("inf"), 6)]
    assert (histogram.count, histogram.sum) == (6, 85.6)


def test_a_written_batch_is_measured() -> None:
    measures, journal = Measures(), Journal()
    backlog = Backlog(journal, measures=measures)
    journal.published(queue_definition(durable=True), [message(1, b"x" * 2_000, persistent=True)], None)
    backlog.taken(10.0)
    journal.take()
    backlog.written(10.2)
    assert round(measures.commit_seconds.sum, 6) == 0.2
    assert measures.batch_changes.sum == 1.0
    assert 2_000 < measures.batch_bytes.sum < 3_000
