"""kill -9 on one directory, again and again, under four confirming publishers, four consumers and a definer.

`KILLS=1000 SEED=7 pytest tests/crash/test_kill9.py` makes another number of kills; `tests/crash/driver.py` does the
same without pytest. The faults show the test's teeth: each is a broker that breaks one promise.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.crash.broker_process import SABOTAGED
from tests.crash.driver import Driver

KILLS = int(os.environ.get("KILLS", 30))
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
MOST_S_A_KILL = 20
MOST_KILLS_OF_FAULTY = 30

# A fault of sabotaged.py, and the violation it has to be caught by.
FAULTS = {
    "confirms_before_commit": "lost",
    "forgets_acks": "came back",
    "forgets_deletions": "definition",
    "calls_nothing_redelivered": "redelivered",
    "flips_a_bit": "altered",
    "recovers_twice": "twice",
    "recovers_backwards": "order",
    "keeps_transient_messages": "transient",
}


@pytest.mark.timeout(60 + MOST_S_A_KILL * KILLS)
def test_nothing_promised_is_lost_and_nothing_else_appears(tmp_path: Path) -> None:
    driver = Driver(tmp_path, seed=SEED)
    driver.run(KILLS)
    print(driver.report())
    assert not driver.is_broken
    assert driver.kills >= KILLS
    assert driver.ledger.figures["confirmed"] > 10 * KILLS


@pytest.mark.timeout(60 + MOST_S_A_KILL * KILLS)
def test_the_same_holds_on_a_slow_disk(tmp_path: Path) -> None:
    driver = Driver(tmp_path, seed=SEED, command=(*SABOTAGED, "slow_disk"))
    driver.run(max(5, KILLS // 4))
    print(driver.report())
    assert not driver.is_broken


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_broker_is_caught(tmp_path: Path, fault: str) -> None:
    driver = Driver(tmp_path, seed=SEED, command=(*SABOTAGED, fault))
    driver.run_until(FAULTS[fault], most_kills=MOST_KILLS_OF_FAULTY)
    print(driver.report())
    assert driver.violations.counts[FAULTS[fault]]
