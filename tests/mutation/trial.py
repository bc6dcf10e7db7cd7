"""Try mutants: of a random sample, run for each the tests that reach its line until one of them fails."""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import pytest

from tests.mutation.forked import Outcome, in_forks, run_tests
from tests.mutation.lines import fingerprint, recorded
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.patching import NotApplicable, Place, changed_functions, functions_of
from tests.mutation.survivors import reason_of

ROOT = Path(__file__).parents[2]
ROOMS = ("broker", "session", "wire", "store")
SECONDS_OF_ALL_TESTS = 120.0
SECONDS_OF_A_MUTANT = 60.0      # processor time; the tests that reach the line take longer only where all reach it


class Options(NamedTuple):
    """What was asked for on the command line."""

    seed: int
    count: int
    processes: int
    cache: Path
    only: str               # a part of the mutants' places


class Trial(NamedTuple):
    """A mutant that can be tried: the functions to change, and the tests that reach it."""

    mutant: Mutant
    functions: list[tuple[FunctionType, CodeType]]
    items: list[pytest.Item]
    seconds: float


class Trials:
    """A plugin of pytest that, once all tests are collected, does not run them but tries mutants with them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._functions: dict[Place, list[FunctionType]] = {}
        self._seconds: dict[str, float] = {}
        self.survivors: list[Mutant] = []
        self.caught: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try as many mutants as were asked for."""
        options = self._options
        self._functions = functions_of(str(ROOT / "amqpd"))
        gc.freeze()
        reach = recorded(
            session.items, ROOT / "amqpd", options.cache, fingerprint([ROOT / "amqpd", ROOT / "tests"]),
            options.processes)
        self._seconds = chosen_tests(reach.seconds)
        items = {item.nodeid: item for item in session.items if item.nodeid in self._seconds}
        mutants = [mutant for room in ROOMS for path in sorted((ROOT / "amqpd" / room).rglob("*.py"))
                   for mutant in mutants_of(path) if options.only in mutant.place]
        random.Random(options.seed).shuffle(mutants)
        print(f"\nseed {options.seed}; {len(mutants)} mutants in all, of {', '.join(ROOMS)}; {len(items)} tests, "
              f"which take {sum(self._seconds.values()):.0f} s of processor time together", flush=True)
        trials = self._trials(mutants, lambda mutant: [
            items[test] for test in reach.of(Path(mutant.path), mutant.line) if test in items])
        started: list[Trial] = []

        def jobs() -> Iterator[Any]:
            for trial in trials:
                started.append(trial)
                yield (lambda trial=trial: _try(trial)), 10 + 2 * min(trial.seconds, SECONDS_OF_A_MUTANT)

        begun = time.monotonic()
        try:
            for number, outcome in in_forks(jobs(), options.processes):
                self._note(started[number], outcome)
        finally:
            self._print_table(time.monotonic() - begun)
        return True

    def _trials(self, mutants: list[Mutant], tests_of: Any) -> Iterator[Trial]:
        left = self._options.count
        for mutant in mutants:
            if not left:
                return
            try:
                functions = changed_functions(self._functions, mutant.code())
            except (NotApplicable, SyntaxError):
                continue
            left -= 1
            items = tests_of(mutant)
            yield Trial(mutant, functions, items, sum(self._seconds[item.nodeid] for item in items))

    def _note(self, trial: Trial, outcome: Outcome) -> None:
        mutant = trial.mutant
        self.tried[mutant.kind] += 1
        failed = [test for test, has_failed, _ in outcome.lines if has_failed]
        if failed or outcome.ending:
            self.caught[mutant.kind] += 1
            return
        self.survivors.append(mutant)
        some = "" if len(outcome.lines) == len(trial.items) else f" in {SECONDS_OF_A_MUTANT:.0f} s"
        ran = f"{len(outcome.lines)} of {len(trial.items)} tests{some}"
        print(f"\n{self.tried.total()} tried; survived {ran}: {_relative(mutant)} in {mutant.function}: {mutant.kind}\n"
              f"    - {mutant.before}\n    + {mutant.after}", flush=True)
        reason = reason_of(_relative(mutant).rpartition(":")[0], mutant)
        if reason:
            print(f"    {reason}", flush=True)

    def _print_table(self, seconds: float) -> None:
        print(f"\n{'kind':<24}{'tried':>7}{'caught':>8}")
        for kind, tried in sorted(self.tried.items()):
            print(f"{kind:<24}{tried:>7}{self.caught[kind]:>8}")
        tried, caught = self.tried.total(), self.caught.total()
        print(f"{'all':<24}{tried:>7}{caught:>8}   {caught / max(1, tried):.1%} caught, in {seconds:.0f} s")


def chosen_tests(seconds: dict[str, float]) -> dict[str, float]:
    """Return the tests, the shortest first, that take less together than all tests may."""
    chosen, left = {}, SECONDS_OF_ALL_TESTS
    for test, of_test in sorted(seconds.items(), key=lambda one: one[1]):
        left -= of_test
        if left < 0:
            break
        chosen[test] = of_test
    return chosen


def _relative(mutant: Mutant) -> str:
    return str(Path(mutant.path).relative_to(ROOT)) + f":{mutant.line}"


def _try(trial: Trial) -> Iterator[Any]:
    """In the forked process: change the functions, and run the tests until one fails."""
    for function, code in trial.functions:
        function.__code__ = code
    spent = 0.0
    if not trial.items:
        return
    for report in run_tests(trial.items):
        yield report
        spent += report.seconds
        if report.has_failed or spent > SECONDS_OF_A_MUTANT:
            return
