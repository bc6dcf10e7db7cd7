"""The whole run: set-up, worker processes, the live line, the end and the cleaning up.

A run ends after its duration, when each producer has published its count, at a signal, or when a worker fails. Then
producers stop and their confirms are awaited, and consumers go on while something arrives. A second signal ends it at
once. Whatever ends it, what the run declared is deleted and there is a summary.
"""

from __future__ import annotations

import math
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from amqpd.exit_codes import EXIT_BUG, EXIT_INTERRUPTED
from amqpd.perf.client import Client, Ended, Refused
from amqpd.perf.counts import Counts
from amqpd.perf.failure import RunFailure
from amqpd.perf.plan import Plan
from amqpd.perf.reports import Job, Report
from amqpd.perf.summary import Summary, columns, live_line
from amqpd.perf.topology import Topology

LIVE_S = 1.0
IDLE_S = 1.0                # without a delivery: then there is nothing left to wait for
ANSWERS_S = 10.0            # for the last confirms
WORKER_END_S = 15.0
LOOK_S = 0.1


class Process:
    """A worker process and what it has told."""

    def __init__(self, job: Job, selector: selectors.BaseSelector) -> None:
        self.state = "starting"
        self.blocked = 0
        self.cpu_s = 0.0
        self._child = subprocess.Popen(
            [sys.executable, "-m", "amqpd.perf.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._child.stdin and self._child.stdout
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        self._partial = b""
        self._selector = selector
        selector.register(self._stdout, selectors.EVENT_READ, self)
        self.tell(msgspec.json.encode(job))

    def tell(self, line: bytes) -> None:
        """Send a command; a worker that has ended needs none."""
        try:
            self._stdin.write(line + b"\n")
        except OSError:
            pass

    def reports(self) -> Iterator[Report]:
        """Read what has arrived. Raises RunFailure if the process ended without a report."""
        data = self._stdout.read(1 << 20)
        if not data:
            self._selector.unregister(self._stdout)
            if self.state != "ended":
                self.state = "ended"
                raise RunFailure(
                    f"a worker process ended with {self._child.wait()}; please report what it printed", EXIT_BUG)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            report = msgspec.json.decode(line, type=Report)
            self.state, self.blocked, self.cpu_s = report.state, report.blocked, report.cpu_s
            yield report

    def end(self) -> None:
        """Wait for the process, which has been told to end; kill it if it does not."""
        self._stdin.close()
        try:
            self._child.wait(WORKER_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._stdout.close()


class Run:
    """A run of the program. `show` prints a line every `live_s`; `duration_s` is 0 without an end by time."""

    def __init__(
        self, plan: Plan, topology: Topology, processes: int, duration_s: float, show: Callable[[str], object],
        live_s: float = LIVE_S,
    ) -> None:
        self._plan = plan
        self._topology = topology
        self._count = processes
        self._duration_s = duration_s
        self._show = show
        self._live_s = live_s
        self._selector = selectors.DefaultSelector()
        self._processes: list[Process] = []
        self._total, self._second = Counts(), Counts()
        self._signals = 0
        self._how_it_ended = "failed"
        self._begun = self._shown = 0.0
        self._intervals: list[dict[str, float]] = []
        self.failure: RunFailure | None = None      # of a run that had begun

    def run(self) -> Summary:
        """Do all of it. Raises RunFailure if the run cannot begin."""
        with self._signals_counted():
            admin = Client(self._plan.address, f"amqpperf {self._plan.run_id}")
            try:
                self._topology.declare(admin)
                self._measure()
            finally:
                self._end_processes()
                left = self._clean_up(admin)
            return self._summary(admin.server, left)

    def _measure(self) -> None:
        for number in range(self._count):
            self._processes.append(Process(Job(self._plan, number, self._count), self._selector))
        while not self._are("ready"):
            if self._signals:
                raise RunFailure("interrupted before it began", EXIT_INTERRUPTED)
            self._look()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self._begun = self._shown = time.monotonic()
        self._tell(b"go")
        self._how_it_ended = self._run_on()
        self._tell(b"finish")
        self._drain()

    def _run_on(self) -> str:
        """Wait until the run ends; return how."""
        has_producers = self._plan.producers > 0
        while self.failure is None:
            if self._signals:
                return "interrupted"
            if self._duration_s and time.monotonic() - self._begun >= self._duration_s:
                return "duration"
            if has_producers and self._are("published"):
                return "count"
            self._look()
        return "failed"

    def _drain(self) -> None:
        """Wait for the last confirms and deliveries."""
        plan, begun = self._plan, time.monotonic()
        signals = self._signals
        delivered, moved = self._total.delivered, begun
        while self.failure is None and self._signals == signals:
            now = time.monotonic()
            if delivered != self._total.delivered:
                delivered, moved = self._total.delivered, now
            is_published = self._are("published") or not plan.producers
            if is_published and (
                    not plan.consumers or not plan.producers or plan.is_churn or now - moved >= IDLE_S
                    or self._is_all_delivered()):
                return
            if not is_published and now - begun > ANSWERS_S:
                return
            self._look()

    def _is_all_delivered(self) -> bool:
        """Return whether consumers certainly have all; False if that cannot be known."""
        return self._total.delivered >= self._total.published * (self._topology.copies or math.inf)

    def _are(self, state: str) -> bool:
        return all(process.state in (state, "ended") for process in self._processes)

    def _tell(self, command: bytes) -> None:
        for process in self._processes:
            process.tell(command)

    def _look(self) -> None:
        """Take reports for a moment, and show the line of a second that is over."""
        for key, _ in self._selector.select(LOOK_S):
            self._take(key.data)
        now = time.monotonic()
        if self._begun and now - self._shown >= self._live_s:
            self._show_second(now)

    def _take(self, process: Process) -> None:
        try:
            for report in process.reports():
                self._total.add(report.counts)
                self._second.add(report.counts)
                if report.failure and self.failure is None:
                    self.failure = RunFailure(report.failure, report.exit_code)
        except RunFailure as failure:
            self.failure = self.failure or failure

    def _show_second(self, now: float) -> None:
        took_s, second, plan = now - self._shown, self._second, self._plan
        self._shown, self._second = now, Counts()
        self._show(live_line(plan, now - self._begun, took_s, second, sum(one.blocked for one in self._processes)))
        interval = {f"{name}_per_second": round(getattr(second, name) / took_s, 1) for name in columns(plan)}
        latency = second.latency.summary_ms()
        interval |= {f"{name}_ms": latency[name] for name in ("p50", "p99") if latency}
        self._intervals.append({"second": round(now - self._begun, 1), **interval})

    # The end

    def _end_processes(self) -> None:
        self._tell(b"end")
        deadline = time.monotonic() + WORKER_END_S
        while not self._are("ended") and time.monotonic() < deadline:
            self._look()
        for process in self._processes:
            process.end()
        self._selector.close()

    def _clean_up(self, admin: Client) -> list[str]:
        """Delete what the run made, over a new connection if the first one has been lost."""
        left = self._topology.delete(admin)
        if left:
            self._topology.made_queues = [name for name in self._topology.made_queues if name in left]
            self._topology.made_exchanges = [name for name in self._topology.made_exchanges if name in left]
            try:
                again = Client(self._plan.address, f"amqpperf {self._plan.run_id}")
            except (RunFailure, Refused, Ended):
                return left
            left = self._topology.delete(again)
            again.close()
        admin.close()
        return left

    def _summary(self, server: dict[str, Any], left: list[str]) -> Summary:
        total, begun_ns = self._total, self._begun * 1e9
        last_ns = max(total.last_delivered_ns, total.last_published_ns)
        seconds = (last_ns - begun_ns) / 1e9 if last_ns else self._shown - self._begun
        return Summary(
            plan=self._plan, server=server, processes=self._count, counts=total,
            seconds=max(seconds, 0.0), publishing_s=max(0.0, (total.last_published_ns - begun_ns) / 1e9),
            how_it_ended=self._how_it_ended, failure=self.failure.text if self.failure else "",
            client_cpu_s=sum(process.cpu_s for process in self._processes), left_behind=left,
            intervals=self._intervals)

    @contextmanager
    def _signals_counted(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM while the run goes on: the first one ends it, the second one at once."""
        def count(signum: int, frame: object) -> None:
            self._signals += 1

        before = {signum: signal.signal(signum, count) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
