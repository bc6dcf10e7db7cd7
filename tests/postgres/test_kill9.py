"""kill -9 of a broker on PostgreSQL, again and again, with the clients and the history of `tests/crash`."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.crash.broker_process import COMMAND
from tests.crash.driver import Driver

KILLS = int(os.environ.get("KILLS", 30))
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))


@pytest.mark.timeout(60 + 20 * KILLS)
def test_nothing_promised_is_lost_and_nothing_else_appears(tmp_path: Path, url: str) -> None:
    driver = Driver(tmp_path, seed=SEED, command=("env", f"AMQPD_STORE={url}", *COMMAND))
    driver.run(KILLS)
    print(driver.report())
    assert not driver.is_broken
    assert driver.figures["confirmed"] > 10 * KILLS
