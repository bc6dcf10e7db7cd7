"""A job of the worklist that carries out a list of acts, some in each slice.

Its acts come from an iterator: about how many steps an act takes (`broker/effort.py`), and the act itself. An act that
fails is logged, and the others are carried out. An iterator that fails has no more acts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from amqpd.broker.worklist import PIECE, Waiters, Worklist

log = logging.getLogger("amqpd")

Act = tuple[int, Callable[[], object]]


class StepJob:
    """A list of acts. With `begins_at_once` the first slice is done before the job is on the worklist."""

    __slots__ = ("has_work", "call", "_acts", "_effort", "_waiters")

    def __init__(self, acts: Iterator[Act], worklist: Worklist, *, begins_at_once: bool = False) -> None:
        self.has_work = True        # see `Job`
        self._acts = acts
        self._effort = worklist.effort
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when all acts are done
        if begins_at_once:
            self.work()
        if self.has_work:
            worklist.add(self)

    def work(self) -> None:
        """See `Job`."""
        stop = self._effort.total + PIECE
        while self._effort.total < stop:
            if not self._do_next():
                self.end()
                return

    def end(self) -> None:
        """Stop, and call the waiting ones."""
        self.has_work = False
        self._acts = iter(())
        self._waiters.release()

    def _do_next(self) -> bool:
        """Carry out the next act; return False if there is none."""
        try:
            step = next(self._acts, None)
            if step is None:
                return False
            steps, act = step
            self._effort.total += steps
            act()
        except Exception:
            log.exception("internal error in a step of a job")
        return True
