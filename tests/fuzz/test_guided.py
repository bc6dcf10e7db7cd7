"""The guided fuzzer, with 200,000 inputs in a proof; and that it detects a fault behind several conditions."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import guided
from tests.fuzz.mutations import resized
from tests.fuzz.targets import NAMES, load
from tests.support.sizes import sized

pytest.importorskip("atheris", reason="atheris has no wheel for this Python or this machine")

INPUTS = sized(2_000, 200_000, "INPUTS")


def test_each_input_has_its_target() -> None:
    assert sum(load(name).share for name in NAMES) == guided.SHARES


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_no_input_does_harm(name: str, tmp_path: Path) -> None:
    guided.begin(name, tmp_path)
    result = guided.fuzz(name, INPUTS * load(name).share // guided.SHARES, 1, tmp_path)
    assert not result.fault, result.fault
    assert result.branches > 50, "the code is not instrumented"


def test_a_fault_behind_several_conditions_is_found(tmp_path: Path) -> None:
    guided.begin("planted", tmp_path)
    result = guided.fuzz("planted", 200_000, 1, tmp_path)
    assert "ZeroDivisionError: a planted fault" in result.fault and "input b'AMQP" in result.fault, result


def test_lengths_are_adjusted_to_what_is_inserted() -> None:
    table = b"\x01aF\0\0\0\x08\x01bF\0\0\0\x01x"
    made = {resized(Random(seed), table, [b"word"], (4,)) for seed in range(2_000)}
    assert b"\x01aF\0\0\0\x0c\x01bF\0\0\0\x05wordx" in made and b"\x01aF\0\0\0\x07\x01bF\0\0\0\x00" in made
