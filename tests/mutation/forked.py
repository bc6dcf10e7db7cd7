"""Run collected tests in forked processes, a few at a time; each process writes its results to a file."""

from __future__ import annotations

import json
import math
import os
import resource
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MOST_MEMORY = 4 << 30       # octets of a forked process: a mutant may gather without end


class Report(NamedTuple):
    """What came of a test: whether it failed, and the processor time it took."""

    test: str
    has_failed: bool
    seconds: float


class _Listener:
    """Notes whether the test that runs has failed in any of its phases."""

    has_failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        self.has_failed |= report.failed


def run_tests(items: list[pytest.Item]) -> Iterator[Report]:
    """Run tests in this process, without any output, and report each."""
    plugins = items[0].config.pluginmanager
    reporter = plugins.get_plugin("terminalreporter")
    if reporter is not None:
        plugins.unregister(reporter)
    listener = _Listener()
    plugins.register(listener)
    for item, following in zip(items, [*items[1:], None]):
        listener.has_failed = False
        begun = time.process_time()
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        yield Report(item.nodeid, listener.has_failed, round(time.process_time() - begun, 4))


class Outcome(NamedTuple):
    """How a forked process ended: what it wrote, line by line, and whether it did so by itself and in time."""

    lines: list[Any]
    ending: str             # "" if it ended by itself, else why it did not


class _Process(NamedTuple):
    number: int
    pid: int
    folder: Path
    ends_at: float


def in_forks(
    jobs: Iterable[tuple[Callable[[], Iterator[Any]], float]], processes: int
) -> Iterator[tuple[int, Outcome]]:
    """Do jobs in forked processes, each within so many seconds of processor time, and by the clock ten times of them.

    Gives each one's number and outcome as it ends.
    """
    running: dict[int, _Process] = {}       # by the descriptor that becomes readable when the process ends
    waiting = enumerate(jobs)
    try:
        while True:
            while len(running) < processes and (job := next(waiting, None)) is not None:
                number, (work, seconds) = job
                process = _start(number, work, seconds)
                running[os.pidfd_open(process.pid)] = process
            if not running:
                return
            first_end = min(process.ends_at for process in running.values())
            ended, _, _ = select.select(list(running), [], [], max(0.0, first_end - time.monotonic()))
            for descriptor, process in list(running.items()):
                if descriptor in ended or process.ends_at <= time.monotonic():
                    del running[descriptor]
                    os.close(descriptor)
                    yield process.number, _outcome(process, is_late=descriptor not in ended)
    finally:
        for process in running.values():
            _outcome(process, is_late=True)


def _start(number: int, work: Callable[[], Iterator[Any]], seconds: float) -> _Process:
    folder = Path(tempfile.mkdtemp(prefix="amqpd-mutant-"))
    pid = os.fork()
    if not pid:
        status = 1
        try:
            _be_a_process_of_its_own(folder, math.ceil(seconds))
            with (folder / "report").open("w") as file:
                for line in work():
                    print(json.dumps(line), file=file, flush=True)
            status = 0
        except BaseException as error:      # nothing may go on in the fork as if it were the parent
            (folder / "report").open("a").write(json.dumps(["died", True, repr(error)]) + "\n")
        finally:
            os._exit(status)
    return _Process(number, pid, folder, time.monotonic() + 10 * seconds)


def _be_a_process_of_its_own(folder: Path, seconds: int) -> None:
    """Lead a group, so that what tests start ends too; be silent; have a place for temporary files, and limits."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def _outcome(process: _Process, *, is_late: bool) -> Outcome:
    """Wait for a process, after killing it if it is late, and take what it wrote."""
    try:
        os.killpg(process.pid, signal.SIGKILL)      # if it has ended: what its tests have left behind
    except ProcessLookupError:
        pass
    _, status = os.waitpid(process.pid, 0)
    report = process.folder / "report"
    lines = [json.loads(line) for line in report.read_text().splitlines() if line.endswith("]")] \
        if report.exists() else []
    shutil.rmtree(process.folder, ignore_errors=True)
    by_itself = not is_late and status == 0        # and not for want of memory, say, of which it may not report
    return Outcome(lines, "" if by_itself else "took too long" if is_late else "the process died")
