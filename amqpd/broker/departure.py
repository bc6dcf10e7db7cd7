"""The end of a connection's exclusive queues: some at a time, as a job of the worklist.

Those that are left are locked for everybody as before. Whoever has to know that all are gone waits for it, as
connection.close-ok does.

Spec: queue.declare; RabbitMQ docs/queues (exclusive queues).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from amqpd.broker.queue import Queue
from amqpd.broker.worklist import PIECE, Waiters, Worklist

REMOVE_STEPS = 20       # what it takes to remove a queue with a binding or two; see broker/effort.py


class Departure:
    """The end of these queues; `remove` is what does it to one."""

    def __init__(self, queues: Iterable[Queue], remove: Callable[[Queue], None], worklist: Worklist) -> None:
        self._queues = [*queues][::-1]
        self._remove = remove
        self._effort = worklist.effort
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when all are gone

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self._queues)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        stop = self._effort.total + PIECE
        try:
            while self._queues and self._effort.total < stop:
                self._effort.total += REMOVE_STEPS
                self._remove(self._queues.pop())
        finally:
            if not self._queues:
                self._waiters.release()
