"""The hold on the batch that is being filled: once a batch, one holder at a time."""

from __future__ import annotations

from amqpd.broker.hold import Hold, NoHold


def test_a_batch_is_held_by_one() -> None:
    hold = Hold()
    assert hold.begin() and hold.is_on and not hold.begin()
    hold.end()
    assert not hold.is_on


def test_a_batch_is_held_once_so_that_it_is_written_before_the_next_hold() -> None:
    hold = Hold()
    hold.begin()
    hold.end()
    assert not hold.begin()
    hold.taken()
    assert hold.begin()


def test_whoever_comes_too_late_is_called_once_when_the_next_batch_fills() -> None:
    hold, calls = Hold(), []
    hold.begin()
    hold.call(lambda: calls.append(hold.begin()))
    hold.end()
    assert calls == []
    hold.taken()
    hold.taken()
    assert calls == [True]


def test_where_nothing_is_written_nobody_waits() -> None:
    hold = NoHold()
    assert hold.begin() and hold.begin() and not hold.is_on
