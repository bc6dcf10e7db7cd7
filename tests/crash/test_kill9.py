"""kill -9 on one directory, again and again, with eight confirming publishers, eight consumers and one definer.

`KILLS=1000 SEED=7 pytest tests/crash/test_kill9.py` runs another number of kills; `tests/crash/driver.py` does the same
without pytest. Injected faults show that the test detects a broker that breaks one promise.
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
KILLS_OF_FAULTY, MOST_TRIES = 2, 10

# A fault of sabotaged.py, and the lines of a history one of which it has to be caught by.
FAULTS: dict[str, set[int]] = {
    "confirms_before_commit": {1},
    "forgets_acks": {8},
    "writes_acks_late": {8},
    "forgets_deletions": {19},
    "calls_nothing_redelivered": {6},
    "requeue_forgets_redelivered": {6},
    "flips_a_bit": {2},
    "recovers_twice": {4, 5},
    "recovers_backwards": {10},
    "keeps_transient_messages": {20},
    "gives_time_again": {16},
    "dead_letters_twice": {4, 5},
    "ignores_priority": {11},
    "ignores_prefetch": {15},
    "serves_all": {22},
}


@pytest.mark.timeout(60 + MOST_S_A_KILL * KILLS)
def test_nothing_promised_is_lost_and_nothing_else_appears(tmp_path: Path) -> None:
    driver = Driver(tmp_path, seed=SEED)
    driver.run(KILLS)
    print(driver.report())
    assert not driver.is_broken
    assert driver.kills >= KILLS
    assert driver.figures["confirmed"] > 10 * KILLS


@pytest.mark.timeout(60 + MOST_S_A_KILL * KILLS)
@pytest.mark.parametrize("place", ["slow_disk", "short_blocks", "slow_disk+short_blocks"])
def test_the_same_holds_in_other_places(tmp_path: Path, place: str) -> None:
    driver = Driver(tmp_path, seed=SEED, command=(*SABOTAGED, place))
    driver.run(max(5, KILLS // 6))
    print(driver.report())
    assert not driver.is_broken


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_broker_is_caught(tmp_path: Path, fault: str) -> None:
    found: set[int] = set()
    for number in range(MOST_TRIES):
        directory = tmp_path / str(number)
        directory.mkdir()
        # A broker that is broken may never deliver, and there are ten queues.
        driver = Driver(
            directory, seed=SEED + number, command=(*SABOTAGED, fault), longest_life_s=0.5, patience_s=2.0)
        driver.live_and_kill(KILLS_OF_FAULTY)
        print(driver.report())
        found |= driver.lines
        if found & FAULTS[fault]:
            return
    pytest.fail(f"{fault} breaks lines {found} and none of {FAULTS[fault]}")
