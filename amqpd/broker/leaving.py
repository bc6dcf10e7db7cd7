"""Exchanges and queues that have been deleted and still have bindings: these go in pieces, and then the record follows.

What leaves is gone for everybody: it is found by its name no longer, and leads nowhere. Until its bindings have gone
nothing of the same name is declared; whoever wants to waits, and so does whoever deleted it. After a crash meanwhile
it is there again, with the bindings that it still had.

Each takes one piece at once, so that nearly all leave at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from amqpd.broker.bindings import BINDING_STEPS
from amqpd.broker.exchange import Exchange
from amqpd.broker.worklist import PIECE, Waiters, Worklist


class Leaving:
    """Take apart what leaves one vhost, in order, as a job of the worklist. `exchanges` and `queues` are by name.

    `take_apart` takes away one binding before each time it yields the steps of that, and records the deletion at its
    end.
    """

    def __init__(self, worklist: Worklist) -> None:
        self.exchanges: dict[str, Exchange] = {}
        self.queues: set[str] = set()
        self._worklist = worklist
        self._parts: deque[tuple[Iterator[int], Callable[[], object]]] = deque()
        self._is_working = False
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when another one has left

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self._parts)

    def exchange(self, exchange: Exchange, take_apart: Iterator[int]) -> None:
        """Let an exchange leave."""
        self.exchanges[exchange.name] = exchange
        self._begin(take_apart, lambda: self.exchanges.pop(exchange.name))

    def queue(self, name: str, take_apart: Iterator[int]) -> None:
        """Let a queue leave, which has ended."""
        self.queues.add(name)
        self._begin(take_apart, lambda: self.queues.discard(name))

    def end(self) -> None:
        """Take nothing apart any more: the vhost is gone."""
        self._parts.clear()
        self._waiters.release()

    def _begin(self, take_apart: Iterator[int], has_left: Callable[[], object]) -> None:
        self._parts.append((take_apart, has_left))
        if self._is_working:
            return      # it leaves because of another one, as an exchange does with its last binding
        try:
            self.work()
        finally:
            if self._parts:
                self._worklist.add(self)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        effort = self._worklist.effort
        stop = effort.total + PIECE
        self._is_working = True
        try:
            while self._parts and effort.total < stop:
                effort.total += self._take_one(*self._parts[0])
        finally:
            self._is_working = False

    def _take_one(self, take_apart: Iterator[int], has_left: Callable[[], object]) -> int:
        """Take one binding away, or come to the end; return the steps."""
        is_over = True
        steps = BINDING_STEPS
        try:
            steps = next(take_apart)
            is_over = False
        except StopIteration:
            pass
        finally:
            if is_over:
                self._parts.popleft()
                has_left()
                self._waiters.release()
        return steps
