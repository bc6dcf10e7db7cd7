"""Long work in slices: dead letters to move, messages that expire, queues to trim.

A job does a slice of its work, a few hundred steps at most, and says whether there is more. Jobs take turns, so that a
long one does not delay a short one, and all of them together have a slice of each turn of the event loop
(`broker/effort.py`). The first slice of a new job is done at once: most jobs are small, and are then done before the
client is answered.

An exception in one slice ends only that slice: it is logged, and the job goes on if it has more to do.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from amqpd.broker.effort import TURN, Effort

log = logging.getLogger("amqpd")

PIECE = 500         # steps, about, in a slice of a job


class Job(Protocol):
    """A unit of long work."""

    def work(self) -> None:
        """Do one slice."""

    @property
    def has_work(self) -> bool:
        """Whether there is more to do."""


def nothing() -> None:
    """Do nothing; stands for a call that is no longer needed."""


class UrgentJob(Job, Protocol):
    """A job with work that should be done before the current batch of the journal is written."""

    @property
    def is_urgent(self) -> bool:
        """Whether the job has such work."""


class Later:
    """A call that is made once in one of the next slices, however often it is requested."""

    __slots__ = ("has_work", "_worklist", "_call")

    def __init__(self, worklist: Worklist, call: Callable[[], None]) -> None:
        self.has_work = False
        self._worklist = worklist
        self._call = call

    def ask(self) -> None:
        """Request the call."""
        self.has_work = True
        self._worklist.add(self)

    def cancel(self) -> None:
        """Cancel the call, and drop the reference to its function."""
        self._call = nothing

    def work(self) -> None:
        """See `Job`."""
        self.has_work = False
        self._call()


class Waiters:
    """Calls to be made when a job is done; they are made in a slice of their own."""

    __slots__ = ("_calls", "_worklist")

    def __init__(self, worklist: Worklist) -> None:
        self._calls: list[Callable[[], None]] = []
        self._worklist = worklist

    def call(self, go_on: Callable[[], None]) -> None:
        """Request this call."""
        self._calls.append(go_on)

    def release(self) -> None:
        """Make the calls: the job is done."""
        if self._calls:
            Later(self._worklist, self._call_all).ask()

    def _call_all(self) -> None:
        calls, self._calls = self._calls, []
        for go_on in calls:
            go_on()


class Discard:
    """Large unused collections, which are freed in slices; small ones are freed at once."""

    def __init__(self, worklist: Worklist, collections: Sequence[list[Any] | dict[Any, Any] | set[Any]]) -> None:
        self._worklist = worklist
        self._left = [each for each in collections if each] if sum(map(len, collections)) > PIECE else []
        if self._left:
            worklist.add(self)

    @property
    def has_work(self) -> bool:
        """See `Job`."""
        return bool(self._left)

    def work(self) -> None:
        """See `Job`."""
        last = self._left[-1]
        self._worklist.effort.total += min(len(last) // 4, PIECE)
        if isinstance(last, list):
            del last[-4 * PIECE :]
        else:
            take: Callable[[], object] = last.popitem if isinstance(last, dict) else last.pop
            for _ in range(min(len(last), 4 * PIECE)):
                take()
        if not last:
            self._left.pop()


class Worklist:
    """The jobs of one broker."""

    def __init__(self, effort: Effort | None = None) -> None:
        self.effort = effort or Effort.without_end()
        self._new: deque[Job] = deque()
        self._jobs: deque[Job] = deque()
        self._known: set[Job] = set()
        self._urgent: dict[UrgentJob, None] = {}

    def add(self, job: Job) -> None:
        """Add a job with work; a job that is on the list keeps its place."""
        if job not in self._known:
            self._known.add(job)
            self._new.append(job)

    def hurry(self, job: UrgentJob) -> None:
        """Note that a job on the list has urgent work, which `work_on_urgent` does."""
        self._urgent[job] = None

    @property
    def is_empty(self) -> bool:
        """Whether no job is left."""
        return not self._known

    @property
    def has_new(self) -> bool:
        """Whether a job has been added that has not done its first slice."""
        return bool(self._new)

    @property
    def has_urgent(self) -> bool:
        """Whether a job has asked for its urgent work to be done."""
        return bool(self._urgent)

    def work_on_urgent(self) -> None:
        """Let jobs do their urgent work, one slice for all of them; what is left is done later, as other work."""
        urgent, self._urgent = self._urgent, {}
        self.effort.stop = self.effort.total + TURN
        for job in urgent:
            try:
                while job.is_urgent and not self.effort.is_spent:
                    job.work()
            except Exception:
                log.exception("internal error in a job of the worklist")

    def work_on_new(self) -> None:
        """Let new jobs do their first slices, within the current slice of the turn."""
        while self._new:
            self._work_on(self._new.popleft())
            if self.effort.is_spent:
                return

    def work(self) -> None:
        """Let all jobs work in turn, until nothing is left or the current slice is used up."""
        self._jobs += self._new
        self._new.clear()
        while self._jobs:
            self._work_on(self._jobs.popleft())
            if self.effort.is_spent:
                return

    def work_off(self) -> None:
        """Work until nothing is left, however long that takes."""
        stop = self.effort.stop
        while not self.is_empty:
            self.effort.begin()
            self.work()
        self.effort.stop = stop

    def finish(self, kind: type[Job]) -> None:
        """Work until no job of this kind is left, however long that takes."""
        while any([isinstance(job, kind) for job in self._known]):
            self.effort.begin()
            self.work()

    def _work_on(self, job: Job) -> None:
        try:
            if job.has_work:        # its queue may have been deleted since it was added
                job.work()
        except Exception:
            log.exception("internal error in a job of the worklist")
        if job.has_work:
            self._jobs.append(job)
        else:
            self._known.discard(job)
