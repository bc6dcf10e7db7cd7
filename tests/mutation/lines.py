"""Record which tests reach which lines, and how long each takes, in a file that holds until a source changes.

The tests run twice for that, since a tracer makes them slower, the more so the more of the code they run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutation.forked import in_forks, run_tests

PIECES = 16
MOST_SECONDS = 300.0        # for one piece


class Reach:
    """The tests that pass, with their processor times, and by file and line the tests that reach it."""

    def __init__(self, seconds: dict[str, float], tests: dict[str, dict[int, list[str]]]) -> None:
        self.seconds = seconds
        self._tests = tests

    def of(self, path: Path, line: int) -> list[str]:
        """Return the tests that reach a line, the shortest first."""
        reaching = self._tests.get(str(path), {}).get(line, [])
        return sorted((test for test in reaching if test in self.seconds), key=self.seconds.__getitem__)


def fingerprint(folders: list[Path]) -> str:
    """Return what changes when any source below these folders does."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def recorded(items: list[pytest.Item], package: Path, cache: Path, key: str, processes: int) -> Reach:
    """Return what the tests reach, from the file if that is of these sources."""
    if cache.exists():
        kept = json.loads(cache.read_text())
        if kept["key"] == key:
            return _reach(kept)
    pieces = [items[at::PIECES] for at in range(PIECES)]
    jobs = [(lambda work=work: work, MOST_SECONDS) for piece in pieces for work in (
        _traced(piece, package), _timed(piece))]
    kept: dict[str, Any] = {"key": key, "seconds": {}, "reached": []}
    for _, outcome in in_forks(jobs, processes):
        if outcome.ending:
            raise RuntimeError(f"tests without any mutant: {outcome.ending}, after {outcome.lines[-1:]}")
        for kind, *line in outcome.lines:
            if kind == "lines":
                kept["reached"].append(line)
            elif kind == "test" and not line[1]:
                kept["seconds"][line[0]] = line[2]
    cache.write_text(json.dumps(kept))
    return _reach(kept)


def _timed(items: list[pytest.Item]) -> Iterator[Any]:
    """Run tests, and give what came of each. Traced, many would take three times as long as they do."""
    for report in run_tests(items):
        yield "test", *report


def _traced(items: list[pytest.Item], package: Path) -> Iterator[Any]:
    """Run tests, and give for each the lines of each file that it reached."""
    tracer = coverage.Coverage(data_file=None, include=[f"{package}/*"], config_file=False)
    tracer.start()
    tests = run_tests(items)
    for item in items:
        tracer.switch_context(item.nodeid)
        next(tests)
    tracer.stop()
    data = tracer.get_data()
    for path in data.measured_files():
        by_test: dict[str, list[int]] = {}
        for line, names in data.contexts_by_lineno(path).items():
            for test in names:
                by_test.setdefault(test, []).append(line)
        for test, lines in by_test.items():
            yield "lines", path, test, sorted(set(lines))


def _reach(kept: dict[str, Any]) -> Reach:
    tests: dict[str, dict[int, list[str]]] = {}
    for path, test, lines in kept["reached"]:
        of_file = tests.setdefault(path, {})
        for line in lines:
            of_file.setdefault(line, []).append(test)
    return Reach(kept["seconds"], tests)
