"""`python -m tests.mutation`: a table of how many mutants of the broker's code are noticed by a test.

Prints the seed, each mutant that survived with its place and its change, and the table. Ends with 1 if fewer than nine
in ten were caught.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

import pytest

from tests.mutation.trial import ROOT, Options, Trials

LEAST_CAUGHT = 0.9
# What takes long, is about the tests themselves, or runs the broker as another process, which no mutant is in.
LEFT_OUT = ("architecture", "canary", "conformance", "crash", "disk", "examples", "fuzz", "growth", "mutation")


def main() -> int:
    """Try as many mutants as asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the sample (default: by chance)")
    parser.add_argument("--count", type=int, default=400, help="how many mutants, 400 by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="a part of file:line, to try those mutants alone")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "amqpd-mutation-lines.json",
                        help="where to keep which tests reach which lines")
    options = parser.parse_args()
    seed = SystemRandom().randrange(10 ** 9) if options.seed is None else options.seed
    os.environ.setdefault("HYPOTHESIS_PROFILE", "unshrunk")
    trials = Trials(Options(seed, options.count, options.processes, options.cache, options.only))
    left_out = [argument for folder in LEFT_OUT for argument in ("--ignore", str(ROOT / "tests" / folder))]
    status = pytest.main(
        ["-s", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "timeout=0", *left_out, str(ROOT / "tests")],
        [trials])
    if status != pytest.ExitCode.OK or not trials.tried:
        return 2
    return int(trials.caught.total() < LEAST_CAUGHT * trials.tried.total())


if __name__ == "__main__":
    sys.exit(main())
