"""The canary beside attacks in their short form: a random sample, or all in a proof. Must run alone: it measures time.

An attack that exceeds its bounds is measured again, and both figures are printed: of 300 rounds, the 99th percentile is
the third worst, and one slow sync of a shared machine is enough for that. Two failures in a row fail the test.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.canary.brokers import own_broker
from tests.canary.measure import Outcome, run
from tests.canary.shapes import SHAPES
from tests.support.sizes import IS_PROOF

SECONDS = 1.5       # of an attack that could go on for ever
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
NAMES = [name for name, shape in SHAPES.items() if shape.in_ci]
CHOSEN = NAMES if IS_PROOF else random.Random(SEED).sample(NAMES, 6)


def measure(name: str) -> Outcome:
    """Run a shape on a broker of its own."""
    with own_broker(SHAPES[name]) as broker:
        return run(SHAPES[name], broker, is_long=False, seconds=SECONDS)


@pytest.mark.proof
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", range(len(CHOSEN)), ids=NAMES.__getitem__ if IS_PROOF else str)
def test_the_canary_sings_on(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    name = CHOSEN[number]
    outcome = measure(name)
    if outcome.findings:
        with capsys.disabled():
            reason = "the machine was busy, " if outcome.figures.is_of_a_busy_machine else ""
            print(f"\n{reason}once more after {outcome.figures}", end="")
        outcome = measure(name)
    with capsys.disabled():
        print(f"\n{outcome.figures} ", end="")
    assert not outcome.findings, "\n".join([f"seed {SEED}: {outcome.figures}", *outcome.findings])
