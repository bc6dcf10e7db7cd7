"""Which messages are owed to somebody: published, not on disk, not taken over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.store import pending_confirms as pending_confirms_module
from amqpd.store.pending_confirms import EVERYTHING, PendingConfirms
from tests.support.samples import messages

ORDERS, INVOICES = 1, 2


@pytest.fixture
def pending_confirms() -> PendingConfirms:
    return PendingConfirms()


def test_there_is_no_news_before_somebody_answers(pending_confirms):
    pending_confirms.published(ORDERS, messages(5, 6))
    assert pending_confirms.safe_number() is None


def test_what_was_answered_is_safe_up_to_the_first_that_was_not(pending_confirms):
    pending_confirms.published(ORDERS, messages(5, 6, 7, 8))
    pending_confirms.answered(ORDERS, [8, 5, 6])
    assert pending_confirms.safe_number() == 6
    assert pending_confirms.safe_number() is None
    pending_confirms.answered(ORDERS, [7])
    assert pending_confirms.safe_number() == EVERYTHING - 1


def test_a_message_of_two_queues_is_owed_until_both_have_answered(pending_confirms):
    for queue in (ORDERS, INVOICES):
        pending_confirms.published(queue, messages(5, 7))
    pending_confirms.answered(ORDERS, [5, 7])
    assert pending_confirms.safe_number() == 4
    pending_confirms.answered(INVOICES, [5])
    assert pending_confirms.safe_number() == 6


def test_a_run_that_lies_between_those_before_it_is_owed_too(pending_confirms):
    pending_confirms.published(ORDERS, messages(6, 9))
    pending_confirms.published(INVOICES, messages(3, 7))
    pending_confirms.answered(ORDERS, [6, 9])
    assert pending_confirms.safe_number() == 2
    pending_confirms.answered(INVOICES, [3])
    assert pending_confirms.safe_number() == 6


def test_what_is_on_disk_is_owed_no_more_and_what_came_since_is(pending_confirms):
    pending_confirms.published(ORDERS, messages(5, 6))
    pending_confirms.taken()
    pending_confirms.published(ORDERS, messages(7, 8))
    pending_confirms.committed()
    pending_confirms.answered(ORDERS, [5, 6, 7])
    assert pending_confirms.safe_number() == 7


def test_an_answer_to_what_was_on_disk_before_is_no_news(pending_confirms):
    pending_confirms.published(ORDERS, messages(5))
    pending_confirms.answered(ORDERS, [3])
    pending_confirms.answered(INVOICES, [5])
    assert pending_confirms.safe_number() is None


@pytest.mark.parametrize("limit, value", [("MOST_QUEUES", 2), ("SPAN", 10)])
def test_nothing_is_told_where_there_is_too_much_until_all_is_on_disk(pending_confirms, monkeypatch, limit, value):
    monkeypatch.setattr(pending_confirms_module, limit, value)
    for queue in range(4):
        pending_confirms.published(queue, messages(5 * queue + 1))
    pending_confirms.check()
    pending_confirms.answered(3, [16])
    assert pending_confirms.safe_number() is None
    pending_confirms.taken()
    pending_confirms.published(ORDERS, messages(21))
    pending_confirms.committed()
    pending_confirms.answered(ORDERS, [21])
    assert pending_confirms.safe_number() is None
    pending_confirms.taken()
    pending_confirms.committed()
    pending_confirms.published(ORDERS, messages(22, 23))
    pending_confirms.answered(ORDERS, [22])
    assert pending_confirms.safe_number() == 22


STEPS = st.lists(st.one_of(
    st.tuples(st.just("publish"), st.sets(st.integers(0, 3), min_size=1), st.lists(st.booleans(), min_size=1)),
    st.tuples(st.just("answer"), st.integers(0, 3), st.integers(0, 1 << 40)),
    st.tuples(st.just("take"), st.none(), st.none()), st.tuples(st.just("commit"), st.none(), st.none())))


@given(STEPS)
def test_nothing_that_is_owed_is_ever_told_to_be_safe(steps):
    """And what is told is all that can be told: the model is a set of places."""
    pending_confirms, number, told = PendingConfirms(), 1 << 40, 0
    filling: set[tuple[int, int]] = set()
    in_hand: set[tuple[int, int]] | None = None
    for kind, queues, choice in steps:
        if kind == "publish":
            numbers = [number + at for at, is_kept in enumerate(choice) if is_kept]
            number += len(choice)
            for queue in queues if numbers else ():
                pending_confirms.published(queue, messages(*numbers))
                filling |= {(queue, one) for one in numbers}
        elif kind == "answer":
            places = sorted(one for queue, one in filling | (in_hand or set()) if queue == queues)
            chosen = [one for at, one in enumerate(places) if choice >> at % 40 & 1]
            pending_confirms.answered(queues, chosen)
            filling -= {(queues, one) for one in chosen}
            in_hand = None if in_hand is None else in_hand - {(queues, one) for one in chosen}
        elif kind == "take" and in_hand is None:
            pending_confirms.taken()
            in_hand, filling = filling, set()
        elif kind == "commit" and in_hand is not None:
            pending_confirms.committed()
            in_hand = None
        pending_confirms.check()
        safe = pending_confirms.safe_number()
        if safe is not None:
            lowest = min([one for _, one in filling | (in_hand or set())], default=EVERYTHING)
            assert told <= safe == lowest - 1
            told = safe if safe < EVERYTHING - 1 else told
