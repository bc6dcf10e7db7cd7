"""The measurement itself: it detects a broker that stops, dies or grows, and an attack that succeeds."""

from __future__ import annotations


import pytest

from tests.canary.brokers import own_broker
from tests.canary.figures import Delays, Figures, Round, delays_of
from tests.canary.measure import Outcome, judge, run
from tests.canary.shape import Shape
from tests.canary.shapes import KINDS, SHAPES

GOOD = Delays(1_000, 20.0, 10.0, 20.0, 10.0)


def figures(idle: Delays = GOOD, attacked: Delays = GOOD, late_ms: float = 1.0, memory_mib: float = 0.0) -> Figures:
    """Figures of a run in which all was well but what is given."""
    return Figures("shape", idle, attacked, late_ms, "", 1.0, memory_mib, "")


def attack_by(name: str) -> Outcome:
    """Run one of the attacks below on a broker of its own."""
    with own_broker(SHAPES[name]) as broker:
        return run(SHAPES[name], broker, is_long=False, seconds=0.1)


def test_figures_of_rounds() -> None:
    rounds = [Round(0.0, number, 1.0, 1.0) for number in range(1, 200)] + [Round(1.0, 1.0, 700.0, 600.0)]
    assert delays_of(rounds) == Delays(200, 700.0, 199.0, 198.0, 197.0)
    assert delays_of([Round(0.0, 1.0, 2.0, 0.5)]) == Delays(1, 2.0, 2.0, 1.5, 1.5)
    assert delays_of([]).worst_ms == float("inf")


def test_what_is_over_its_bound_is_found() -> None:
    shape = Shape("shape", "", lambda world: None, memory_mib=64.0)
    assert judge(shape, figures(), True) == []
    assert judge(shape, figures(attacked=Delays(1_000, 900.0, 90.0, 249.0, 49.0)), True) == []
    assert "worst" in judge(shape, figures(attacked=Delays(1_000, 900.0, 90.0, 251.0, 10.0)), True)[0]
    assert "99th" in judge(shape, figures(attacked=Delays(1_000, 60.0, 51.0, 60.0, 51.0)), True)[0]
    assert "65 MiB" in judge(shape, figures(memory_mib=65.0), True)[0]


def test_a_run_is_repeated_only_for_what_the_attack_did_not_do() -> None:
    assert not figures(attacked=Delays(10, 5_000.0, 5_000.0, 5_000.0, 5_000.0), memory_mib=9_000.0).is_of_a_busy_machine
    assert figures(idle=Delays(100, 150.0, 10.0, 1.0, 1.0)).is_of_a_busy_machine
    assert figures(late_ms=100.0).is_of_a_busy_machine


def test_every_shape_has_a_name_a_number_and_a_reason() -> None:
    for shape in SHAPES.values():
        assert shape.attack.__doc__ and shape.number, shape.name
    assert KINDS


@pytest.mark.parametrize(("name", "finding"), [
    ("measured-pause", "the worst delay was"), ("measured-death", "the canary was cut"),
    ("measured-complaint", "the attacker says AssertionError: it is as I say")])
def test_a_fault_is_found(name: str, finding: str) -> None:
    assert finding in "\n".join(attack_by(name).findings)
