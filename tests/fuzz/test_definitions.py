"""Definitions files made by chance do no harm, some are imported and some refused; and a fault is found."""

from __future__ import annotations

import pytest

from amqpd.management.definitions_json.entries import Entry
from tests.fuzz.definitions import harmless, made, try_all
from tests.support.sizes import sized

INPUTS = sized(300, 10_000, "INPUTS")


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_no_file_does_harm() -> None:
    faults = try_all(range(INPUTS))
    assert not faults, "\n".join(f"seed {seed}: {fault}" for seed, fault in faults.items())


def test_files_go_far_enough() -> None:
    assert made(7) == made(7)
    plans = [harmless(made(seed)) for seed in range(60)]
    assert 5 < sum(not plan.problems for plan in plans) < 55


def test_an_exception_in_a_check_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Entry, "tags", lambda *_: 1 / 0)
    assert any("ZeroDivisionError" in fault for fault in try_all(range(5)).values())
