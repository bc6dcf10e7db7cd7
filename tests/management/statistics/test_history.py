"""A history keeps three rings of samples, and little memory."""

from __future__ import annotations

import sys
from random import Random

import pytest

from amqpd.management.statistics.history import KEPT, SIZES, STEPS, History, Numbers

LARGE = 1 << 33


@pytest.mark.parametrize("changes", [3, 40, 400, 2_000])
@pytest.mark.parametrize("gaps", [(1,), (1, 1, 2, 13), (1, 1, 1, 130, 2_000), (1, 20_000)], ids=str)
def test_each_ring_tells_the_numbers_at_its_ticks(changes: int, gaps: tuple[int, ...]) -> None:
    random = Random(f"{changes} {gaps}")
    tick = random.randrange(1_000_000)
    base = numbers = (0, 7, 0)
    history, truth = History(tick, base), [(tick, base)]
    for _ in range(changes):
        tick += random.choice(gaps)
        numbers = (
            numbers[0] + random.randrange(3), max(0, numbers[1] + random.randrange(-3, 4)),
            numbers[2] + LARGE * (random.random() < 0.02))
        if numbers != history.last:
            history.add(tick, numbers)
            truth.append((tick, numbers))
    for step, size in zip(STEPS, SIZES):
        newest = tick // step * step
        ticks = range(newest, newest - (size - 1) * step, -step)
        for column in range(3):
            assert history.at(column, ticks) == [number[column] for number in at(truth, ticks)]
    assert len(history.at(0, range(tick - 2 * KEPT, tick, 97))) == len(range(tick - 2 * KEPT, tick, 97))


def at(truth: list[tuple[int, Numbers]], ticks: range) -> list[Numbers]:
    """Return the numbers at these ticks, newest first."""
    found, left = [], list(truth)
    for tick in ticks:
        while len(left) > 1 and left[-1][0] > tick:
            left.pop()
        found.append(left[-1][1])
    return found


def test_between_two_samples_of_a_coarse_ring_a_number_changes_evenly() -> None:
    history = History(1_199, (0,))
    for tick in range(1_200, 1_300):
        history.add(tick, (10 * (tick - 1_199),))
    assert history.at(0, [1_205]) == [10 * 6]       # from the ring of a minute
    history.add(1_310, (5_000,))
    assert history.at(0, [1_309, 1_310, 1_400]) == [1_000, 5_000, 5_000]


def test_a_history_needs_as_much_memory_as_is_said() -> None:
    history, numbers = History(0, (0,) * 10), [0] * 10
    for tick in range(1, 2 * KEPT):
        for column in (0, 1, 7, 8, 9):
            numbers[column] += tick % 7 * (column + 1) + 1
        history.add(tick, tuple(numbers))
        if tick == 60:
            assert size(history) < 2_048
    assert size(history) < 6_144
    assert not history.is_old(2 * KEPT) and history.is_old(3 * KEPT)
    history.forget()
    assert size(history) < 1_024
    assert history.at(0, [0, 3 * KEPT]) == [numbers[0]] * 2


def size(history: History) -> int:
    """Return the memory of a history, in bytes."""
    return sum(map(sys.getsizeof, (
        history, history.last, history.previous, history._columns, history._rings, *history.last, *history.previous,
        *history._rings, *[ring.rows for ring in history._rings])))
