"""The canary beside each attack in its short form. Runs alone: what it measures is time.

A shape that goes beyond its bounds is measured once more, and both figures are printed: of 300 rounds the 99th
percentile is the third worst, and one slow sync of a shared machine makes it. What fails twice in a row fails.
"""

from __future__ import annotations

import pytest

from tests.canary.brokers import own_broker
from tests.canary.measure import Outcome, run
from tests.canary.shapes import SHAPES

SECONDS = 1.5       # of an attack that could go on for ever


def measure(name: str) -> Outcome:
    """Run a shape on a broker of its own."""
    with own_broker(SHAPES[name]) as broker:
        return run(SHAPES[name], broker, is_long=False, seconds=SECONDS)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.in_ci])
def test_the_canary_sings_on(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = measure(name)
    if outcome.findings:
        with capsys.disabled():
            reason = "the machine was busy, " if outcome.figures.is_of_a_busy_machine else ""
            print(f"\n{reason}once more after {outcome.figures}", end="")
        outcome = measure(name)
    with capsys.disabled():
        print(f"\n{outcome.figures} ", end="")
    assert not outcome.findings, "\n".join([str(outcome.figures), *outcome.findings])
