"""Exchanges and queues that follow the policies of their vhost: each in its turn, in pieces, once these have changed.

What is declared meanwhile has been declared by the new policies, and is passed by. Where policies change again before
all have followed, it begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.worklist import PIECE, Waiters, Worklist

LOOK_STEPS = 10         # what it costs to find the rules of a queue or an exchange, beside a step for each policy


class PolicyFollowers:
    """The exchanges and queues of one vhost; `follow_exchange` and `follow_queue` let one of them follow."""

    def __init__(
        self, exchanges: Mapping[str, Exchange], queues: Mapping[str, Queue], worklist: Worklist,
        follow_exchange: Callable[[Exchange], None], follow_queue: Callable[[Queue], None],
    ) -> None:
        self._exchanges = exchanges
        self._queues = queues
        self._worklist = worklist
        self._follow_exchange = follow_exchange
        self._follow_queue = follow_queue
        self._steps = LOOK_STEPS
        self._left: list[Exchange | Queue] = []     # the next one is the last
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when all have followed

    def follow(self, policies: int) -> None:
        """Let all follow so many policies: a piece of them at once, and the others from the worklist."""
        self._steps = LOOK_STEPS + policies
        self._left = [*self._queues.values(), *self._exchanges.values()]
        try:
            self.work()
        finally:
            if self._left:
                self._worklist.add(self)

    def finish(self) -> None:
        """Let all follow now, however long that takes: nobody is served yet."""
        while self._left:
            self.work()

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self._left)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        effort = self._worklist.effort
        stop = effort.total + PIECE
        try:
            while self._left and effort.total < stop:
                effort.total += self._steps
                self._let_follow(self._left.pop())
        finally:
            if not self._left:
                self._waiters.release()

    def _let_follow(self, follower: Exchange | Queue) -> None:
        if isinstance(follower, Exchange):
            self._follow_exchange(follower)
        elif not follower.deleted:
            waiting = len(follower.ready)
            self._follow_queue(follower)
            self._worklist.effort.total += waiting - len(follower.ready)    # those that were too many
