"""One segment: when it is walked along completely, and that the walk is counted."""

from __future__ import annotations

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.paged_fifo import PagedFifo
from amqpd.broker.queue.page_limits import PAGE_MESSAGES
from amqpd.broker.queue.segment import DELIVERY_OVERHEAD, NO_BOUND, PLACES_A_STEP, Budget, Segment
from tests.support.journals import RecordingJournal
from tests.support.samples import messages

COUNT = 3_200


@pytest.fixture
def budget() -> Budget:
    return Budget()


@pytest.fixture
def segment(budget: Budget) -> Segment:
    """One of many messages, of which the first ten are out."""
    segment = Segment(budget)
    segment.extend(messages(*range(11, COUNT + 1)))
    return segment


def test_a_walk_is_paid_for_by_what_was_removed_and_counted(segment: Segment, budget: Budget) -> None:
    run = list(segment)[1:-1]
    for one in run[::2]:
        segment.remove([one])
    segment.put_back(messages(5))
    segment.put_back(messages(3, 7))
    assert budget.effort.total == 0, "half of it is still there"
    segment.remove(run[1:200:2])
    assert budget.effort.total >= COUNT // PLACES_A_STEP - 10
    segment.check()


def test_the_number_at_a_place_counts_what_was_put_back(segment: Segment) -> None:
    segment.put_back(messages(5))
    segment.put_back(messages(7, 9))
    assert [segment.number_at(place) for place in (0, 3, 10, COUNT)] == [5, 11, 18, COUNT]


def test_all_messages_before_a_number_are_taken_and_no_other(segment: Segment) -> None:
    assert [one.number for one in segment.take_before(14)] == [11, 12, 13]
    assert segment.take_before(14) == [] and segment.first_number == 14


def test_gaps_at_either_end_are_gone_at_once(segment: Segment, budget: Budget) -> None:
    for one in list(segment)[::-1][:-1]:
        segment.remove([one])
    assert [one.number for one in segment] == [11] and budget.effort.total == 0


def test_what_was_put_back_is_brought_in_line_once_for_who_takes_the_last(segment: Segment, budget: Budget) -> None:
    segment.put_back(messages(*range(1, 11)))
    taken = segment.take_last(COUNT // 2, 1 << 62, lambda one: True)
    assert budget.effort.total == 0, "they all came to the head"
    segment.put_back(taken[::2])
    segment.put_back(taken[1:-1:2])
    assert budget.effort.total == 0
    assert [one.number for one in segment.take_last(2, 1 << 62, lambda one: True)] == [COUNT - 2, COUNT - 1]
    assert budget.effort.total >= COUNT // PLACES_A_STEP
    before = budget.effort.total
    assert [one.number for one in segment.take_last(1, 1 << 62, lambda one: True)] == [COUNT - 3]
    assert budget.effort.total == before


def test_what_goes_into_a_page_in_memory_counts_for_the_page_that_is_made_anew(budget: Budget) -> None:
    line = PagedFifo(budget, Deadlines())
    line.extend(messages(*range(1, 4 * PAGE_MESSAGES + 1)))
    taken = line.take(4 * PAGE_MESSAGES - 1, 1 << 62)
    line.put_back(taken[::2])
    page, = line.page_out(1, lambda one: True)
    count, before = page.count, budget.effort.total
    line.put_back([one for one in taken[1::2] if one.number > page.first][:1])
    assert budget.effort.total - before >= count
    line.check()


def test_the_broker_counts_the_walks(journal: RecordingJournal) -> None:
    broker = Broker(journal)
    assert broker.page_store.budget.effort is broker.effort


@pytest.fixture
def journal() -> RecordingJournal:
    return RecordingJournal()


@pytest.mark.parametrize("limit, room, bound", [
    (1_000, NO_BOUND, NO_BOUND), (3_000, NO_BOUND, 700), (3_000, 72_800, NO_BOUND), (3_000, 30_000, NO_BOUND),
    (16, NO_BOUND, NO_BOUND), (16, NO_BOUND, 20), (16, 1, NO_BOUND)])
def test_a_long_run_is_what_short_ones_are(segment: Segment, limit: int, room: int, bound: int) -> None:
    others = Segment(Budget())
    others.extend(messages(*range(11, COUNT + 1)))
    expected: list[int] = []
    used = 0
    while used < room and len(expected) < limit and (one := others.take(1, 1, bound)):
        used += one[0].body_size + DELIVERY_OVERHEAD * bool(expected)
        expected.append(one[0].number)
    assert [one.number for one in segment.take(limit, room, bound)] == expected
    assert (segment.body_bytes, len(segment)) == (others.body_bytes, len(others))
    segment.check()


def test_what_was_put_back_or_removed_is_in_its_place_in_a_long_run(segment: Segment) -> None:
    segment.put_back(messages(3, 5))
    segment.remove(list(segment)[102:202])
    assert [one.number for one in segment.take(200, NO_BOUND)] == [3, 5, *range(11, 111), *range(211, 309)]
