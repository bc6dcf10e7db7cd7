"""Remove the bindings of deleted exchanges and queues, in slices.

A deleted object cannot be found by its name any more, and routes nothing. Until its bindings have been removed, a
declaration of the same name waits, and so does the client that deleted it. Each waits for this one object only: very
many clients may wait while very many objects are removed.

The record of the deletion comes before those of the bindings. While bindings are left after a slice, the journal is
told. After a crash, the next start then removes the bindings that have lost an end. These never belong to another queue
or exchange, since none of the same name can be declared meanwhile.

The first slice is done at once, and nearly every object needs only one.
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
    """An exchange or queue that is being removed; `among` is all that are, of its kind, by name."""

    leaves: Exchange | Queue
    take_apart: Iterator[int]
    among: dict[str, Any]

    @property
    def is_durable(self) -> bool:
        """Whether its bindings are in the journal."""
        return self.leaves.definition.durable


class Leaving:
    """The removal of objects of one vhost, in order, as a job of the worklist. `exchanges` and `queues` are by name.

    `take_apart` removes one binding, then yields the steps of that. `note_unfinished` is called when bindings of a
    durable object are left after a slice, and when none are left.
    """

    def __init__(self, worklist: Worklist, note_unfinished: Callable[[bool], None]) -> None:
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self._worklist = worklist
        self._parts: deque[_Part] = deque()
        self._is_working = False
        self._note_unfinished = note_unfinished
        self._durable = 0                   # number of parts that are durable and not finished
        self._is_unfinished = False         # as it was reported last
        self._waiters: dict[Exchange | Queue, Waiters] = {}

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self._parts)

    def exchange(self, exchange: Exchange, take_apart: Iterator[int]) -> None:
        """Begin to remove an exchange."""
        self.exchanges[exchange.name] = exchange
        self._begin(_Part(exchange, take_apart, self.exchanges))

    def queue(self, queue: Queue, take_apart: Iterator[int]) -> None:
        """Begin to remove a queue."""
        self.queues[queue.name] = queue
        self._begin(_Part(queue, take_apart, self.queues))

    def end(self) -> None:
        """Stop all removals: the vhost is deleted."""
        self._parts.clear()
        self._durable = 0
        self._note()
        for waiters in self._waiters.values():
            waiters.release()
        self._waiters.clear()

    def call_after(self, one: Exchange | Queue) -> Callable[[Callable[[], None]], None]:
        """Return a function that registers calls to be made once this object has been removed."""
        return self._waiters.setdefault(one, Waiters(self._worklist)).call

    def _begin(self, part: _Part) -> None:
        self._parts.append(part)
        self._durable += part.is_durable
        if self._is_working:
            return      # removed by another removal, as an exchange is with its last binding
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
                steps = self._take_one(self._parts[0])      # counts some steps itself
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
        """Remove one binding, or finish; return the steps."""
        is_over = True
        steps = BINDING_STEPS
        try:
            steps = next(part.take_apart)
            is_over = False
        except StopIteration:
            self._durable -= part.is_durable     # not after an error: then the next start removes the rest
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
