"""The expiries of a queue: when the next one is, whatever leaves."""

from __future__ import annotations

from amqpd.broker.queue.deadlines import Deadlines
from tests.support.samples import message


def test_what_is_released_or_forgotten_does_not_delay_the_expiry_of_others() -> None:
    deadlines = Deadlines()
    first, second, third = message(1), message(2), message(3)
    deadlines.add({first: 10, second: 20, third: 30})
    deadlines.release(first)
    assert deadlines.next_ms == 10 and deadlines.has_to_take_in(20)
    deadlines.forget([second])
    assert deadlines.take_due(30) == [third]


def test_once_nothing_is_left_there_is_no_next_expiry() -> None:
    deadlines = Deadlines()
    only = message(1)
    deadlines.add({only: 10})
    deadlines.release(only)
    assert deadlines.next_ms is None
    deadlines.forget([only])
    assert not deadlines
