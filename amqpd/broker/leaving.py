"""Remove the bindings of exchanges and queues that have been deleted, in pieces.

What leaves is gone for everybody: it is found by its name no longer, and leads nowhere. Until its bindings have gone
nothing of the same name is declared; whoever wants to waits, and so does whoever deleted it. They hear of that one
alone: very many may wait while very many leave.

The record of the deletion comes before those of the bindings, so a crash finds all of them, or none that counts: while
more than one piece is left, the journal is told, and then a start removes the bindings that have lost an end. That
takes none of another queue or exchange, since none of the same name can be declared meanwhile.

Each takes one piece at once, so that nearly all leave at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from amqpd.broker.bindings import BINDING_STEPS
from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.worklist import PIECE, Waiters, Worklist


class _Part(NamedTuple):
    """An exchange or queue that leaves; `among` are those of its kind that do, by name."""

    leaves: Exchange | Queue
    take_apart: Iterator[int]
    among: dict[str, Any]

    @property
    def is_durable(self) -> bool:
        """Return whether its bindings are in the journal."""
        return self.leaves.definition.durable


class Leaving:
    """Take apart what leaves one vhost, in order, as a job of the worklist. `exchanges` and `queues` are by name.

    `take_apart` takes away one binding before each time it yields the steps of that. `note_unfinished` is told when
    bindings of something durable are left after a piece, and when they no longer are.
    """

    def __init__(self, worklist: Worklist, note_unfinished: Callable[[bool], None]) -> None:
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self._worklist = worklist
        self._parts: deque[_Part] = deque()
        self._is_working = False
        self._note_unfinished = note_unfinished
        self._durable = 0                   # parts that are durable and not over
        self._is_unfinished = False         # as it was noted last
        self._waiters: dict[Exchange | Queue, Waiters] = {}

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self._parts)

    def exchange(self, exchange: Exchange, take_apart: Iterator[int]) -> None:
        """Let an exchange leave."""
        self.exchanges[exchange.name] = exchange
        self._begin(_Part(exchange, take_apart, self.exchanges))

    def queue(self, queue: Queue, take_apart: Iterator[int]) -> None:
        """Let a queue leave."""
        self.queues[queue.name] = queue
        self._begin(_Part(queue, take_apart, self.queues))

    def end(self) -> None:
        """Take nothing apart any more: the vhost is gone."""
        self._parts.clear()
        self._durable = 0
        self._note()
        for waiters in self._waiters.values():
            waiters.release()
        self._waiters.clear()

    def call_after(self, one: Exchange | Queue) -> Callable[[Callable[[], None]], None]:
        """Return what takes the calls to be made once this one, which leaves, has left."""
        return self._waiters.setdefault(one, Waiters(self._worklist)).call

    def _begin(self, part: _Part) -> None:
        self._parts.append(part)
        self._durable += part.is_durable
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
                steps = self._take_one(self._parts[0])      # which may count others itself
                effort.total += steps
        finally:
            self._is_working = False
            self._note()

    def _note(self) -> None:
        is_unfinished = self._durable > 0
        if is_unfinished != self._is_unfinished:
            self._is_unfinished = is_unfinished
            self._note_unfinished(is_unfinished)

    def _take_one(self, part: _Part) -> int:
        """Take one binding away, or come to the end; return the steps."""
        is_over = True
        steps = BINDING_STEPS
        try:
            steps = next(part.take_apart)
            is_over = False
        except StopIteration:
            self._durable -= part.is_durable     # not after an error: then the next start removes what is left
        finally:
            if is_over:
                self._parts.popleft()
                self._has_left(part)
        return steps

    def _has_left(self, part: _Part) -> None:
        del part.among[part.leaves.name]
        waiters = self._waiters.pop(part.leaves, None)
        if waiters is not None:
            waiters.release()
