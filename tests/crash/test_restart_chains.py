"""Five crashes in a row and a clean stop: at whatever moment each comes, every start restores what was promised.

Some crashes come before the broker is ready, some immediately afterwards, some under load. Everything is checked after
each start that becomes ready, and once more after a clean stop.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.crash.broker_process import SABOTAGED
from tests.crash.driver import Driver, Moment

CHAINS = int(os.environ.get("KILLS", 25)) // 5 or 1
CRASHES = 5
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))


def crash_in_a_row(driver: Driver, rng: random.Random) -> None:
    """Run for a while, then crash several times."""
    driver.live(Moment(rng.uniform(0.2, 0.8)))
    for _ in range(CRASHES - 1):
        if rng.random() < 0.6:
            driver.kill_at_start(rng.uniform(0, 1.2) * driver.start_s)
        else:
            driver.live(Moment(rng.choice((0.0, 0.0, 0.3))))
    driver.live(Moment(rng.choice((0.0, 0.2)), is_clean=True))


@pytest.mark.timeout(120 + 30 * CHAINS)
def test_nothing_is_lost_in_a_chain_of_crashes(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    driver = Driver(tmp_path, seed=SEED, census_rate=1)
    for _ in range(CHAINS):
        crash_in_a_row(driver, rng)
        if driver.failures:
            break
    driver.judge()
    print(driver.report())
    assert not driver.is_broken
    assert driver.kills == CHAINS * CRASHES and driver.clean_stops == CHAINS


@pytest.mark.timeout(240)
def test_a_broken_broker_is_caught_in_a_chain(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    for number in range(8):
        directory = tmp_path / str(number)
        directory.mkdir()
        driver = Driver(
            directory, seed=rng.getrandbits(32), census_rate=1, command=(*SABOTAGED, "calls_nothing_redelivered"))
        crash_in_a_row(driver, rng)
        driver.judge()
        if 6 in driver.lines:
            return
    pytest.fail("line 6 was never broken")
