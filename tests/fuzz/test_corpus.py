"""The kept inputs of the guided fuzzer do no harm, and cost no more than their size allows."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from tests.fuzz import corpus
from tests.fuzz.counting import Costs, fewest, trace
from tests.fuzz.targets import NAMES, load
from tests.fuzz.targets.target import Target

MOST_BYTES = 200_000        # of all kept inputs


def inputs_of(name: str, target: Target) -> list[bytes]:
    return [*target.seeds(), *corpus.read(name)]


@pytest.mark.parametrize("name", NAMES)
def test_no_input_does_harm_or_runs_more_code_than_its_size_allows(name: str) -> None:
    target = load(name)
    for data in inputs_of(name, target):
        trace(lambda data=data: target.run(data), target.steps * (len(data) + 100))     # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_no_input_takes_more_memory_than_its_size_allows(name: str) -> None:
    target = load(name)
    inputs = inputs_of(name, target)
    for data in inputs:
        target.run(data)        # what is cached for later ones
    gc.collect()
    tracemalloc.start()
    try:
        for data in inputs:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            target.run(data)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak <= target.memory * (len(data) + 100), f"{peak} bytes for {data!r}"
    finally:
        tracemalloc.stop()


def test_the_kept_inputs_are_few() -> None:
    assert sum(path.stat().st_size for path in corpus.FOLDER.iterdir()) < MOST_BYTES
    assert all(corpus.read(name) for name in NAMES)


def test_an_input_that_costs_too_much_is_found() -> None:
    target = load("tables")
    nested = b"\x01aV" * 100
    with pytest.raises(Costs, match="more than 10 lines"):
        trace(lambda: target.run(nested), 10)
    assert 100 < trace(lambda: target.run(nested))[0] < target.steps * 400


def test_inputs_that_reach_nothing_new_are_not_kept() -> None:
    run = load("tables").run
    assert fewest(run, [b""], [b"\x01cV\x01dV", b"\x01cV", b"\x01dV", b"\x01ct\x01"]) == [b"\x01cV", b"\x01ct\x01"]
