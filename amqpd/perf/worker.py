"""One process of a run: `python -m amqpd.perf.worker`, which the coordinator starts.

It reads a `Job` as the first line of stdin and commands as the others: `go` (begin), `finish` (publish no more), `end`
(close all). It writes `Report`s as lines of stdout: one as soon as all connections are open, then several a second, and
one at the end. The end of stdin is the end of the run, so no worker outlives its coordinator. Signals of the terminal
are ignored, since the coordinator handles them.
"""

from __future__ import annotations

import resource
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

import msgspec

from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.perf.churn import Churner
from amqpd.perf.client import Client, Ended, Refused
from amqpd.perf.consumer import Consumer
from amqpd.perf.counts import Counts
from amqpd.perf.failure import RunFailure
from amqpd.perf.link import Link
from amqpd.perf.publisher import Publisher
from amqpd.perf.reports import Job, Report

REPORT_NS = 200_000_000
END_TIMEOUT_S = 5.0
LONGEST_WAIT_S = 0.2


class Worker:
    """The connections of one process, and their loop. `commands` is stdin, `tell` sends a report."""

    def __init__(self, job: Job, commands: BinaryIO, tell: Callable[[Report], None]) -> None:
        self._job = job
        self._commands = commands
        self._tell = tell
        self._selector = selectors.DefaultSelector()
        self._counts = Counts()
        self._publishers: list[Publisher] = []
        self._consumers: list[Consumer] = []
        self._churners: list[Churner] = []
        self._state = "starting"

    def run(self) -> None:
        """Do the job until its end. A failure becomes the last report."""
        failure: RunFailure | None = None
        try:
            self._open()
            self._loop()
        except RunFailure as error:
            failure = error
        except Refused as refused:
            failure = refused.failure(self._job.plan.address)
        except Ended as ended:
            failure = RunFailure(f"{self._job.plan.address.place} ended the run: {ended}", EXIT_UNAVAILABLE)
        everyone: Sequence[Link | Churner] = [*self._publishers, *self._consumers, *self._churners]
        for one in everyone:
            one.end(END_TIMEOUT_S if failure is None else 0.5)
        self._state = "ended"
        self._report(failure)

    # Opening

    def _open(self) -> None:
        plan, now_ns = self._job.plan, time.monotonic_ns
        if plan.is_churn:
            self._churners += [Churner(plan, number) for number in self._mine(plan.producers)]
            return
        for number in self._mine(plan.consumers):
            client = Client(plan.address, f"amqpperf {plan.run_id} consumer {number}")
            self._consumers.append(Consumer(plan, number, client, lambda: self._counts, now_ns))
            self._register(self._consumers[-1])
        for number in self._mine(plan.producers):
            client = Client(plan.address, f"amqpperf {plan.run_id} producer {number}")
            self._publishers.append(Publisher(plan, number, client, lambda: self._counts, now_ns))
            self._register(self._publishers[-1])

    @property
    def _sources(self) -> Sequence[Publisher | Churner]:
        return self._churners or self._publishers

    def _mine(self, count: int) -> Sequence[int]:
        return range(self._job.number, count, self._job.workers)

    def _register(self, link: Link) -> None:
        self._selector.register(link.client.socket, selectors.EVENT_READ, link)

    # Running

    def _loop(self) -> None:
        self._selector.register(self._commands, selectors.EVENT_READ, None)
        next_report_ns = 0
        waiting: set[Link] = set()      # for room in their sockets
        while self._state != "ending":
            for key, mask in self._selector.select(self._wait_s(next_report_ns)):
                if key.data is None:
                    self._obey(self._commands.readline().strip())
                else:
                    self._serve(key.data, mask)
            for publisher in self._publishers:
                publisher.step()
            for link in (*self._publishers, *self._consumers):
                if link.wants_to_write != (link in waiting):
                    (waiting.add if link.wants_to_write else waiting.discard)(link)
                    writes = selectors.EVENT_WRITE if link.wants_to_write else 0
                    self._selector.modify(link.client.socket, selectors.EVENT_READ | writes, link)
            self._advance()
            if time.monotonic_ns() >= next_report_ns and self._state != "starting":
                next_report_ns = time.monotonic_ns() + REPORT_NS
                self._report()

    def _wait_s(self, next_report_ns: int) -> float:
        waits = [publisher.wait_ns() / 1e9 for publisher in self._publishers]
        return max(0.0, min([(next_report_ns - time.monotonic_ns()) / 1e9, LONGEST_WAIT_S, *waits]))

    def _serve(self, link: Link, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            link.flush()
        if mask & selectors.EVENT_READ:
            link.read()

    def _obey(self, command: bytes) -> None:
        if command == b"go":
            self._state = "running"
            for one in self._sources:
                one.begin()
        elif command == b"finish":
            for one in self._sources:
                one.finish()
        else:
            for consumer in self._consumers:
                consumer.finish()
            self._state = "ending"

    def _advance(self) -> None:
        """Go to the next state if all connections are that far, and report it."""
        for churner in self._churners:
            if churner.failure is not None:
                raise churner.failure
        if self._state == "starting" and all(consumer.is_ready for consumer in self._consumers):
            self._state = "ready"
            self._report()
        elif self._state == "running" and all(one.is_done for one in self._sources):
            self._state = "published"
            self._report()

    def _report(self, failure: RunFailure | None = None) -> None:
        counts, self._counts = self._counts, Counts()
        for churner in self._churners:
            counts.add(churner.take_counts())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._tell(Report(
            self._state, counts, sum(link.is_blocked for link in (*self._publishers, *self._consumers)),
            usage.ru_utime + usage.ru_stime, failure.text if failure else "", failure.exit_code if failure else 0))


def main() -> None:
    """Run the process: a job from stdin, reports to stdout."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    commands = open(sys.stdin.fileno(), "rb", buffering=0)
    encoder = msgspec.json.Encoder()

    def tell(report: Report) -> None:
        sys.stdout.buffer.write(encoder.encode(report) + b"\n")
        sys.stdout.buffer.flush()

    job = msgspec.json.decode(commands.readline(), type=Job)
    try:
        Worker(job, commands, tell).run()
    except BrokenPipeError:
        pass        # the coordinator is gone


if __name__ == "__main__":
    main()
