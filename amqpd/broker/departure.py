"""The end of a connection, a channel or a queue: some of what it held at a time, as a job of the worklist.

The consumers of a connection or channel leave, what it has not answered goes back, and exclusive queues go. Those that
are left are locked for everybody as before. Close-ok waits until all are gone. Of a queue consumers are told, and the
files of messages on disk go. The first piece is done at once, and nearly every end has no other; only where very many
end in one turn it waits for a later one.

Spec: queue.declare, channel.close; RabbitMQ docs/queues (exclusive queues).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from amqpd.broker.worklist import PIECE, Waiters, Worklist

REMOVE_STEPS = 20       # what it takes to remove a queue with a binding or two; see broker/effort.py

log = logging.getLogger("amqpd")

Act = tuple[int, Callable[[], object]]      # what it takes, about, in steps, and what does it


class Departure:
    """The end of something, act by act; an error in one of them does not keep the others."""

    def __init__(self, acts: Iterator[Act], worklist: Worklist) -> None:
        self.has_work = True        # see `broker/worklist.py`
        self._acts = acts
        self._effort = worklist.effort
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when all is done
        if not self._effort.turn_is_spent:
            self.work()
        if self.has_work:
            worklist.add(self)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        stop = self._effort.total + PIECE
        while self._effort.total < stop:
            if not self._do_next():
                self.has_work = False
                self._waiters.release()
                return

    def _do_next(self) -> bool:
        """Return False once there is nothing more to do."""
        try:
            steps, act = next(self._acts, (0, None))
            if act is None:
                return False
            self._effort.total += steps
            act()
        except Exception:
            log.exception("internal error at the end of a connection, a channel or a queue")
        return True
