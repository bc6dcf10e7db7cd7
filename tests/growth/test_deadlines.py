"""Very many messages with expiries: the steps of each operation have a bound."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.growth.counting import COUNTER, rewritten_broker
from tests.support.samples import message

COUNT, PIECE = 12_000, 100
MOST_STEPS = 80     # for each message of a piece, the logarithms of heaps included


@pytest.fixture(name="deadlines")
def _deadlines() -> Any:
    """Ends of very many messages, all of which are in the heap; every tenth is due at 10, the others much later."""
    with rewritten_broker():
        deadlines = importlib.import_module("amqpd.broker.queue.deadlines").Deadlines()
    deadlines.add({message(number): 10 if number % 10 == 0 else 10_000 for number in range(COUNT)})
    deadlines.add({message(COUNT): 1})
    while deadlines.next_ms < 10:
        counted(deadlines.take_due, 1, PIECE)
    return deadlines


def counted(operation: Any, *arguments: Any) -> Any:
    """Do it, and see that it takes no more than a piece may."""
    before = COUNTER.steps
    result = operation(*arguments)
    assert COUNTER.steps - before < MOST_STEPS * PIECE
    return result


def test_very_many_leave_in_pieces_and_the_heap_goes_with_them(deadlines: Any) -> None:
    for start in range(0, COUNT, PIECE):
        counted(deadlines.forget, [message(number) for number in range(start, min(COUNT, start + PIECE))])
        if start % 2_000 == 0:
            deadlines.check([message(number) for number in range(start + PIECE, COUNT)])
        assert len(deadlines._waiting) + len(deadlines._old) <= 6 * max(256, len(deadlines._ends))
    assert not deadlines and not any(deadlines.let_go())


def test_those_that_matter_no_longer_are_passed_over_in_pieces(deadlines: Any) -> None:
    for number in range(0, COUNT, 10):
        if number % 1_000:
            counted(deadlines.forget, [message(number)])
    due: list[int] = []
    while deadlines.next_ms <= 10:
        due += [one.number for one in counted(deadlines.take_due, 10, PIECE)]
    assert due == [*range(0, COUNT, 1_000)]


def test_what_is_put_back_ends_once_however_often_it_came(deadlines: Any) -> None:
    back = [message(number) for number in range(1, PIECE, 10)]
    for _ in range(5):
        deadlines.hand_out(back)
        deadlines.take_back(back)
        deadlines.page_out(back)
        deadlines.add({message(one.number): 10_000 for one in back})
        deadlines.add({message(COUNT): 1})
        while deadlines.next_ms < 10:
            deadlines.take_due(1, PIECE)
    for start in range(PIECE, COUNT, PIECE):
        counted(deadlines.forget, [message(number) for number in range(start, start + PIECE)])
    deadlines.check([message(number) for number in range(PIECE)])
    due = []
    while deadlines.next_ms is not None:
        due += [one.number for one in counted(deadlines.take_due, 10_000, PIECE)]
    assert sorted(due) == [*range(PIECE)]
