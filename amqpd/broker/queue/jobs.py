"""The long work of one queue, in slices: expire, trim, requeue or purge very many messages.

A job is an iterator: each step does a slice. The jobs of a queue run in the order in which they came, but for purges.
During a job the queue delivers nothing, so that no client gets an expired message, or a message before one that is
being requeued; publishes and acks go on. A small job is done at once, without being queued here.

Always true between calls: a queue that has jobs is on the worklist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from amqpd.broker.worklist import PIECE, Waiters, Worklist, nothing

log = logging.getLogger("amqpd")

OVER = object()


class QueueJobs:
    """The jobs of one queue; `on_idle` is called after the last one."""

    __slots__ = ("_worklist", "_on_idle", "_jobs", "_waiters")

    def __init__(self, worklist: Worklist, on_idle: Callable[[], None]) -> None:
        self._worklist = worklist
        self._on_idle = on_idle
        self._jobs: list[Iterator[None]] = []       # few, and none in most queues
        self._waiters = Waiters(worklist)

    @property
    def has_work(self) -> bool:
        """Whether the queue is busy; see `broker/worklist.py`."""
        return bool(self._jobs)

    def run(self, job: Iterator[None]) -> None:
        """Do the first slice at once, if no other job is running, and leave the rest to the worklist.

        An error is logged and ends the job; the caller does not see it.
        """
        if not self._jobs:
            try:
                if next(job, OVER) is OVER:
                    return
            except Exception:
                log.exception("internal error in a job of a queue")
                return
        self._jobs.append(job)
        self._worklist.add(self)

    def run_first(self, job: Iterator[None]) -> None:
        """Run a job whose messages have left the queue, before the rest of others, which must not find these messages.
        """
        if self._jobs:
            self._jobs.insert(0, job)
        else:
            self.run(job)

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back when the queue is no longer busy."""
        self._waiters.call(go_on)

    def work(self) -> None:
        """See `broker/worklist.py`. A job that fails is ended, and the next one runs."""
        job = self._jobs[0]
        self._worklist.effort.total += PIECE
        is_over = True
        try:
            is_over = next(job, OVER) is OVER
        finally:
            if is_over and self._jobs and self._jobs[0] is job:
                del self._jobs[0]
            if not self._jobs:
                self._end()

    def clear(self) -> None:
        """Drop all jobs, and the reference to the queue, which is deleted."""
        self._on_idle = nothing     # before all else: a deleted queue starts no job
        self._jobs.clear()
        self._end()

    def _end(self) -> None:
        self._on_idle()
        self._waiters.release()
