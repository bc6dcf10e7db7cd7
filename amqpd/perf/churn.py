"""Threads that open and close things over and over: connections, channels or queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pamqp.commands import Queue

from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.perf.client import CHANNEL, Client, Ended, Refused, method_of
from amqpd.perf.counts import Counts
from amqpd.perf.failure import RunFailure
from amqpd.perf.plan import Plan


class Churner:
    """One thread of a churn run. `number` is its place among all of the run."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.failure: RunFailure | None = None
        self._plan = plan
        self._name = f"amqpperf {plan.run_id} churn {number}"
        self._queue = f"amqpperf.{plan.run_id}.churn.{number}"
        self._client: Client | None = None
        if plan.workload != "churn-connections":
            self._client = Client(plan.address, self._name)
        self._operation: Callable[[], None] = {
            "churn-connections": self._connect, "churn-channels": self._open, "churn-queues": self._declare,
        }[plan.workload]
        self._counts, self._lock = Counts(), threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether the thread has ended, or never began."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Let the thread end after the operation that it is at."""
        self._stopped.set()

    def take_counts(self) -> Counts:
        """Return what was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counts()
        return counts

    def end(self, timeout_s: float) -> None:
        """Wait for the thread and close the connection."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._client is not None:
            self._client.close()

    def _run(self) -> None:
        plan, begun, done = self._plan, time.monotonic(), 0
        try:
            while not self._stopped.is_set() and (not plan.count or done < plan.count):
                if plan.rate and self._stopped.wait(max(0.0, begun + done / plan.rate - time.monotonic())):
                    return
                start_ns = time.monotonic_ns()
                self._operation()
                took_ns = time.monotonic_ns() - start_ns
                done += 1
                with self._lock:
                    self._counts.operations += 1
                    self._counts.latency.record(took_ns)
        except RunFailure as failure:
            self.failure = failure
        except (Refused, Ended, OSError) as error:
            self.failure = RunFailure(f"{plan.address.place} ended the run: {error}", EXIT_UNAVAILABLE)

    def _connect(self) -> None:
        Client(self._plan.address, self._name).close()

    def _open(self) -> None:
        if self._client is not None:
            self._client.open_channel(CHANNEL + 1)
            self._client.close_channel(CHANNEL + 1)

    def _declare(self) -> None:
        if self._client is not None:
            self._client.call(method_of(
                Queue.Declare, queue=self._queue, durable=self._plan.is_durable, arguments=self._plan.queue_arguments,
            ), Queue.DeclareOk)
            self._client.call(method_of(Queue.Delete, queue=self._queue), Queue.DeleteOk)
