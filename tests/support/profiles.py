"""The profiles of hypothesis: `fast` unless HYPOTHESIS_PROFILE names another one.

`fast` draws the same examples every time, so that a failure never depends on luck; in a proof it draws more.
`unshrunk` is the same for callers that only need to know whether a test fails. `deep` draws new examples from a seed
that is printed in the header of the run: `--hypothesis-seed` with this seed, and the profile, repeat the run.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.support.sizes import sized

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "fast")
SLOW_STARTS = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "fast", derandomize=True, database=None, deadline=None, max_examples=sized(30, 100),
    stateful_step_count=sized(30, 50), report_multiple_bugs=False, suppress_health_check=SLOW_STARTS)
settings.register_profile("unshrunk", settings.get_profile("fast"), phases=(Phase.explicit, Phase.generate))
settings.register_profile(
    "deep", database=None, deadline=None, max_examples=3_000, stateful_step_count=120, print_blob=True,
    phases=(Phase.explicit, Phase.generate, Phase.target, Phase.shrink), suppress_health_check=SLOW_STARTS)
settings.load_profile(PROFILE)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A seed for `deep`, unless one was given."""
    if PROFILE == "deep" and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def pytest_report_header(config: pytest.Config) -> str:
    """The profile, and the seed if there is one."""
    seed = config.option.hypothesis_seed
    return f"hypothesis: {PROFILE}" + (f", --hypothesis-seed={seed}" if seed is not None else "")
