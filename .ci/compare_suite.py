"""Holds a client suite's outcome on amqpd against RabbitMQ's: every test that passes there must pass here.

    compare_suite.py BASELINE.tsv RESULTS.tsv

Both files have a line a test: outcome, tab, name. Tests that fail now and then on RabbitMQ as well are in UNSTEADY.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Part of a test's name → how often it failed on RabbitMQ 3.10.8, and why.
UNSTEADY = {
    "test_memory_leak.py::test_leak_unclosed_channel": "7 of 50; the client's tasks may outlive its connection",
}


def outcomes(path: str) -> dict[str, set[str]]:
    """What became of each test; one that ran several times may have several outcomes."""
    found: dict[str, set[str]] = {}
    for line in Path(path).read_text().splitlines():
        outcome, _, name = line.partition("\t")
        found.setdefault(name, set()).add(outcome)
    return found


def main() -> int:
    """Print what is missing, and a last line with the counts."""
    theirs, ours = outcomes(sys.argv[1]), outcomes(sys.argv[2])
    wanted = [name for name, outcome in theirs.items() if outcome == {"passed"}]
    missing = [name for name in wanted if ours.get(name, {"not run"}) != {"passed"}]
    unsteady = [name for name in missing if any(part in name for part in UNSTEADY)]
    for name in missing:
        state = "unsteady on RabbitMQ too" if name in unsteady else "differs from RabbitMQ"
        print(f"{name}: {', '.join(sorted(ours.get(name, {'not run'})))}, {state}")
    print(f"{len(wanted) - len(missing)} of {len(wanted)} as on RabbitMQ, {len(unsteady)} unsteady there too")
    return int(len(missing) > len(unsteady))


if __name__ == "__main__":
    sys.exit(main())
