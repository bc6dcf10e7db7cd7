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
