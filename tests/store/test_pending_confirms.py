"""Pending confirms: messages that are published, not on disk and not acked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.store.pending_confirms import EVERYTHING, PendingConfirms
from tests.support.samples import messages

ORDERS, INVOICES = 1, 2


@pytest.fixture
def pending() -> PendingConfirms:
    return PendingConfirms()


def test_there_is_no_news_before_somebody_answers(pending: PendingConfirms) -> None:
    pending.published(ORDERS, messages(5, 6))
    assert not pending.take_news()
    pending.answered(ORDERS, [5])
    assert (pending.take_news(), pending.take_news()) == (True, False)


def test_what_was_acked_may_be_confirmed_whatever_else_waits(pending: PendingConfirms) -> None:
    pending.published(ORDERS, messages(5, 6, 7, 8))
    pending.answered(ORDERS, [8, 6])
    assert [pending.first_pending(number) for number in (4, 5, 6, 7, 8, 9)] == [5, 5, 7, 7, EVERYTHING, EVERYTHING]
    pending.answered(ORDERS, [7, 5])
    assert pending.first_pending(4) == EVERYTHING


def test_a_message_of_two_queues_waits_until_both_have_answered(pending: PendingConfirms) -> None:
    for queue in (ORDERS, INVOICES):
        pending.published(queue, messages(5, 7))
    pending.answered(ORDERS, [5, 7])
    assert pending.first_pending(5) == 5
    pending.answered(INVOICES, [5])
    assert (pending.first_pending(5), pending.first_pending(7)) == (7, 7)


def test_a_run_that_lies_between_those_before_it_waits_too(pending: PendingConfirms) -> None:
    pending.published(ORDERS, messages(6, 9))
    pending.published(INVOICES, messages(3, 7))
    pending.answered(ORDERS, [6, 9])
    assert [pending.first_pending(number) for number in (1, 4, 8)] == [3, 7, EVERYTHING]


def test_what_is_on_disk_waits_no_more_and_what_came_since_does(pending: PendingConfirms) -> None:
    pending.published(ORDERS, messages(5, 6))
    pending.taken()
    pending.published(ORDERS, messages(7, 8))
    assert [pending.first_pending(number) for number in (5, 6, 7)] == [5, 6, 7]
    pending.committed()
    pending.answered(ORDERS, [5, 6, 7])
    assert pending.first_pending(5) == 8


def test_a_message_that_joins_a_later_batch_than_its_number_says_waits_for_that(pending: PendingConfirms) -> None:
    pending.published(ORDERS, messages(6))
    pending.taken()
    pending.published(INVOICES, messages(5))        # its number was given before
    pending.committed()
    assert (pending.first_pending(5), pending.first_pending(6)) == (5, EVERYTHING)


def test_an_answer_to_what_was_on_disk_before_is_no_news(pending: PendingConfirms) -> None:
    pending.published(ORDERS, messages(5))
    pending.answered(ORDERS, [3])
    pending.answered(INVOICES, [5])
    assert not pending.take_news() and pending.first_pending(5) == 5


def test_messages_of_further_queues_wait_for_the_disk_and_those_of_the_others_do_not() -> None:
    pending = PendingConfirms(most_queues=2)
    for queue in range(4):
        pending.published(queue, messages(queue + 1))
    pending.check()
    for queue in range(4):
        pending.answered(queue, [queue + 1])
    assert [pending.first_pending(number) for number in (1, 3, 4)] == [3, 3, 4]
    pending.taken()
    pending.published(3, messages(5))
    pending.answered(3, [5])
    assert (pending.first_pending(1), pending.first_pending(5)) == (3, EVERYTHING)
    pending.committed()
    assert pending.first_pending(1) == EVERYTHING


@pytest.mark.parametrize("other", [100, 111, 89])
def test_a_batch_whose_numbers_span_too_much_waits_for_the_disk_as_a_whole(other: int) -> None:
    pending = PendingConfirms(span=11)
    pending.published(ORDERS, messages(100))
    pending.published(INVOICES, messages(other))
    pending.published(INVOICES, messages(112))
    pending.answered(ORDERS, [100])
    pending.answered(INVOICES, [other, 112])
    pending.check()
    assert pending.first_pending(100) == 100
    pending.taken()
    pending.committed()
    pending.published(ORDERS, messages(150))
    assert (pending.first_pending(100), pending.first_pending(151)) == (150, EVERYTHING)


STEPS = st.lists(st.one_of(
    st.tuples(st.just("publish"), st.sets(st.integers(0, 3), min_size=1), st.lists(st.booleans(), min_size=1)),
    st.tuples(st.just("answer"), st.integers(0, 3), st.integers(0, 1 << 40)),
    st.tuples(st.just("take"), st.none(), st.none()), st.tuples(st.just("commit"), st.none(), st.none())))
FIRST = 1 << 40


@given(STEPS)
def test_all_that_may_be_confirmed_is_told_and_nothing_else(steps):
    """The model is a set of places."""
    pending, number = PendingConfirms(), FIRST
    filling: set[tuple[int, int]] = set()
    writing: set[tuple[int, int]] | None = None
    for kind, queues, choice in steps:
        before = filling | (writing or set())
        if kind == "publish":
            numbers = [number + at for at, is_kept in enumerate(choice) if is_kept]
            number += len(choice)
            for queue in queues if numbers else ():
                pending.published(queue, messages(*numbers))
                filling |= {(queue, one) for one in numbers}
        elif kind == "answer":
            places = sorted(one for queue, one in before if queue == queues)
            chosen = [one for at, one in enumerate(places) if choice >> at % 40 & 1]
            pending.answered(queues, chosen)
            filling -= {(queues, one) for one in chosen}
            writing = None if writing is None else writing - {(queues, one) for one in chosen}
        elif kind == "take" and writing is None:
            pending.taken()
            writing, filling = filling, set()
        elif kind == "commit" and writing is not None:
            pending.committed()
            writing = None
        pending.check()
        waiting = filling | (writing or set())
        assert pending.take_news() == (kind == "answer" and waiting != before)
        for start in range(FIRST, number + 1):
            assert pending.first_pending(start) == min(
                [one for _, one in waiting if one >= start], default=EVERYTHING)
