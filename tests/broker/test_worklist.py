"""Large unused collections are freed in slices."""

from __future__ import annotations

import pytest

from amqpd.broker.worklist import PIECE, Discard, Worklist


def test_nothing_or_little_to_discard_is_no_work() -> None:
    worklist = Worklist()
    Discard(worklist, [])
    Discard(worklist, [[], [], [object()] * PIECE])
    assert worklist.is_empty


def test_lists_are_discarded_in_pieces(caplog: pytest.LogCaptureFixture) -> None:
    worklist = Worklist()
    lists = [[object()] * 10, [], [object()] * 10 * PIECE]
    Discard(worklist, lists)
    worklist.work_on_new()
    assert len(lists[2]) == 6 * PIECE
    worklist.work_off()
    assert lists == [[], [], []] and worklist.is_empty and not caplog.records
    assert worklist.effort.total == 10 * PIECE // 4 + 10 // 4


class FailingJob:
    """An urgent job that fails."""

    is_urgent = has_work = True

    def work(self) -> None:
        self.is_urgent = False
        raise ValueError("a bug")


def test_an_urgent_job_that_fails_is_logged_and_the_others_are_done(caplog: pytest.LogCaptureFixture) -> None:
    worklist = Worklist()
    jobs = [FailingJob(), FailingJob()]
    for job in jobs:
        worklist.hurry(job)
    worklist.work_on_urgent()
    assert [(record.getMessage(), bool(record.exc_info)) for record in caplog.records] == [
        ("internal error in a job of the worklist", True)] * 2
    assert not any(job.is_urgent for job in jobs) and not worklist.has_urgent
