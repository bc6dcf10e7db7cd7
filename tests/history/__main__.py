"""`python -m tests.history FILE`: print what is wrong with a history; the exit code is 1 if anything is."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.history import judge, read_history


def main(arguments: list[str]) -> int:
    """Print the findings and a last line with their number."""
    if len(arguments) != 1:
        print("usage: python -m tests.history FILE", file=sys.stderr)
        return 64
    try:
        events = list(read_history(Path(arguments[0])))
    except (OSError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        return 66
    findings = judge(events)
    for finding in findings:
        print(finding)
    print(f"{len(events)} events, {len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
