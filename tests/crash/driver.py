"""The driver of the crash tests: kill -9 a broker again and again on one directory.

Owns the process of the broker, the clients that keep it busy, and the moment of each kill. All that clients do and
receive is written to a history, which `tests.history` checks. One round is: start (sometimes killed already during it),
check everything that is there, run workers, kill. After a number of kills all queues are drained and the history is
checked; the next history begins with empty queues on the same directory.

The seed decides everything except the scheduling: `python -m tests.crash.driver --kills 1000 --seed 7`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pamqp.commands import Queue

from tests.crash.broker_process import COMMAND, BrokerProcess
from tests.crash.crash_client import Client, routes
from tests.crash.witness import TAKEN_WITHIN_S, Witness
from tests.crash.workers import DEAD, MORTAL, QUEUES, TRANSIENT_QUEUE, Definer, Key, Work, declare_static, workers
from tests.history import Finding, History, judge_book
from tests.history.book import Book

KILLS_A_HISTORY = 30
FIRST_SHOWN = 20
EXCHANGES = ("both", "by topic", "dead letters", *Definer.NAMES)


class Moment(NamedTuple):
    """When a life ends: after this time, or already at this confirm or answered declaration."""

    seconds: float
    confirms: float = float("inf")
    declarations: float = float("inf")
    is_clean: bool = False


class Driver:
    """Many runs of a broker on one directory. `failures` are errors of clients, `findings` those of the history."""

    def __init__(
        self, directory: Path, *, seed: int, command: tuple[str, ...] = COMMAND, longest_life_s: float = 1.0,
        census_rate: float = 0.6, patience_s: float = TAKEN_WITHIN_S,
    ) -> None:
        self.seed = seed
        self.findings: list[Finding] = []
        self.failures: list[str] = []
        self.figures: Counter[str] = Counter()
        self.kills = self.early_kills = self.clean_stops = 0
        self.slowest_start_s = 0.0
        self._rng = random.Random(seed)
        self._command = command
        self._longest_life_s = longest_life_s
        self._census_rate = census_rate
        self._patience_s = patience_s       # for all messages of a queue
        self._directory = directory
        self._data_dir = directory / "data"
        self._log_path = directory / "broker.log"
        self.start_s = 0.3
        self._there: set[Key] = set()
        self._began = time.monotonic()
        self._histories = itertools.count(1)
        self._history = self._new_history()

    # The whole

    def run(self, kills: int) -> None:
        """Kill the broker so often, drain every queue, stop and start it cleanly, and find nothing.

        The first thing that is wrong ends it.
        """
        while self.kills < kills and not self.is_broken:
            most = min(kills, self.kills + KILLS_A_HISTORY)
            while self.kills < most and not self.failures:
                self._kill_early()
                self.live(self._next_moment())
            self.judge()
        self._check_log()

    def live_and_kill(self, kills: int) -> None:
        """Kill the broker so often, never at its start, and judge."""
        while self.kills < kills and not self.failures:
            self.live(self._next_moment())
        self.judge()

    def judge(self) -> None:
        """Drain every queue and find out what is wrong with the history. One that is sound is thrown away."""
        if not self.failures:
            self._drain()
        self._history.flush()
        book = Book(self._history.events)
        self.findings += judge_book(book)
        self.figures["published"] += len(book.publishes)
        self.figures["confirmed"] += sum(publish.answer == "ok" for publish in book.publishes.values())
        self.figures["refused"] += sum(publish.answer == "fail" for publish in book.publishes.values())
        self.figures["delivered"] += sum(map(len, book.copies.values()))
        self.figures["dead letters"] += sum(key[2] > 0 for key in book.copies)
        self.figures["events"] += len(book.events)
        if not self.is_broken:
            self._history.path.unlink()
            self._history = self._new_history()

    @property
    def lines(self) -> set[int]:
        """The lines of which something is wrong."""
        return {finding.line for finding in self.findings}

    @property
    def is_broken(self) -> bool:
        """Whether there is something to report."""
        return bool(self.failures or self.findings)

    def report(self) -> str:
        """Figures, and all that is wrong."""
        found = Counter(finding.line for finding in self.findings)
        lines = [
            f"seed {self.seed}: {self.kills} kills, {self.early_kills} of them while starting, "
            f"{self.clean_stops} clean stops, {time.monotonic() - self._began:.0f} s, "
            f"slowest start {self.slowest_start_s:.2f} s",
            f"confirmed {self.figures['confirmed']}, confirmed lost {found[1]}, ghosts {found[2]}, "
            f"other lines broken {sum(found.values()) - found[1] - found[2]}",
            ", ".join(f"{name} {count}" for name, count in sorted(self.figures.items())),
        ]
        lines += [f"LINE {line}: {count} findings" for line, count in sorted(found.items())]
        lines += [str(finding) for finding in self.findings[:FIRST_SHOWN]]
        if self.is_broken:
            lines.append(f"the history is {self._history.path}")
        return "\n".join(lines + self.failures)

    def _new_history(self) -> History:
        return History(self._directory / f"history {next(self._histories)}.jsonl", "driver")

    def _check_log(self) -> None:
        log = self._log_path.read_text()
        if "Traceback" in log or "damaged" in log:
            self.failures.append(f"the broker's log has this to say:\n{log[-4000:]}")

    # Lives and deaths

    def _kill_early(self) -> None:
        """One time in ten, and the first time, kill the broker while it starts, once or several times."""
        while self.kills == 0 or self._rng.random() < 0.1:
            self.kill_at_start(self._rng.uniform(0, self.start_s * 1.2))

    def kill_at_start(self, seconds: float) -> None:
        """Start the broker and kill it so much later, ready or not."""
        self._history.note("invoke", "start")
        process = BrokerProcess(self._data_dir, self._log_path, command=self._command)
        if process.has_ended_within(seconds):
            self.failures.append(f"the broker ended by itself with exit code {process.wait()}")
        self._history.note("invoke", "kill")
        process.kill()
        self._history.note("ok", "kill")
        self.kills += 1
        self.early_kills += 1

    @contextmanager
    def _started(self) -> Iterator[BrokerProcess]:
        """A broker that is ready."""
        self._history.note("invoke", "start")
        with BrokerProcess(self._data_dir, self._log_path, command=self._command) as process:
            process.wait_until_ready()
            self._history.note("ok", "start")
            self.start_s = process.start_s
            self.slowest_start_s = max(self.slowest_start_s, process.start_s)
            yield process

    def _next_moment(self) -> Moment:
        seconds = self._rng.uniform(0.05, self._longest_life_s)
        kind = self._rng.random()
        if kind < 0.4:
            return Moment(seconds)
        if kind < 0.75:
            return Moment(self._longest_life_s, confirms=self._rng.randint(1, 1000))
        if kind < 0.9:
            return Moment(self._longest_life_s, declarations=self._rng.randint(1, 60))
        return Moment(seconds, is_clean=True)

    def live(self, moment: Moment) -> None:
        """Start the broker, check what is there, and run workers until the moment of the kill."""
        with self._started() as process:
            backlog = self._look(process.port, takes_census=self._rng.random() < self._census_rate)
            work = Work(self._history, process.port, self._rng, self._there, backlog)
            work.most_confirms, work.most_declarations = moment.confirms, moment.declarations
            threads = workers(work)
            for thread in threads:
                thread.start()
            work.due.wait(moment.seconds)
            work.ended.set()
            self._end(process, is_clean=moment.is_clean)
            for thread in threads:
                thread.join(20)
                if thread.is_alive():
                    work.failures.append(f"{thread.name} did not notice the end of the broker")
        self.failures += work.failures
        self._history.flush()
        self.kills += not moment.is_clean
        self.clean_stops += moment.is_clean

    def _end(self, process: BrokerProcess, *, is_clean: bool) -> None:
        if not is_clean:
            self._history.note("invoke", "kill")
            process.kill()
            self._history.note("ok", "kill")
            return
        self._history.note("invoke", "stop")
        code = process.stop()
        self._history.note("ok", "stop", code=code)
        if code:
            self.failures.append(f"a clean stop ended with exit code {code}")

    # What there is

    def _look(self, port: int, *, takes_census: bool) -> int:
        """Find out what is declared, and how much waits; with a census every message is seen, too."""
        witness = Witness.connect(self._history, f"census/{self._history.now}", port)
        names = [*reversed(QUEUES), *Definer.NAMES]
        queues = [name for name in names if witness.sees("queue", name)]
        there = {("queue", name) for name in queues}
        there |= {("exchange", name) for name in EXCHANGES if witness.sees("exchange", name)}
        witness.sees("queue", TRANSIENT_QUEUE)
        if takes_census:
            for name in queues:
                witness.take_all(name, is_mortal=name in MORTAL, within_s=self._patience_s)
        self._there = there | self._look_for_bindings(port, there)
        declare_static(witness)
        backlog = sum(witness.count(name, is_at_rest=False) for name in QUEUES)
        witness.close()
        return backlog

    def _look_for_bindings(self, port: int, there: set[Key]) -> set[Key]:
        """Those of what changes, by what they do."""
        found: set[Key] = set()
        with Client(port) as client:
            for exchange, queue in itertools.product(Definer.NAMES, repeat=2):
                if ("exchange", exchange) in there and ("queue", queue) in there:
                    name = f"{exchange} -> {queue}"
                    is_there = routes(client, exchange, queue)
                    self._history.note("ok" if is_there else "fail", "see", kind="binding", name=name)
                    found |= {("binding", name)} if is_there else set()
        return found

    def _drain(self) -> None:
        """Take everything out, delete what came and went, stop, start, and find nothing."""
        with self._started() as process:
            self._look(process.port, takes_census=True)
            witness = Witness.connect(self._history, f"drain/{self._history.now}", process.port)
            for kind, name in sorted(self._there):
                if kind == "queue" and name in Definer.NAMES:
                    witness.change("delete", Queue.Delete(0, name), kind, name)
            self._there = {key for key in self._there if key[0] == "exchange" or key[1] in QUEUES}
            for name in (*(name for name in QUEUES if name not in DEAD), *DEAD):
                witness.drain(name, is_mortal=name in MORTAL, within_s=self._patience_s)
            witness.close()
            self._end(process, is_clean=True)
        with self._started() as process:
            self._look(process.port, takes_census=True)
            self._end(process, is_clean=True)


def main() -> int:
    """As many kills as asked for; what is wrong, the history and the broker's log stay in the directory named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="amqpd-kill9-"))
    driver = Driver(directory, seed=options.seed)
    print(f"seed {options.seed}, directory {directory}", flush=True)
    driver.run(options.kills)
    print(driver.report())
    return int(driver.is_broken)


if __name__ == "__main__":
    sys.exit(main())
