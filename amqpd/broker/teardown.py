"""Take what is left of a deleted vhost to pieces, so that to free it holds up nobody: bindings first, then queues.

The vhost is gone for everybody before this begins, and one of the same name may be there again. So nothing is looked up
by name here, and nothing recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from amqpd.broker.bindings import Bindings, steps_to_remove
from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.worklist import PIECE, Worklist

QUEUE_STEPS = 25        # what it costs to end a queue, without what its messages cost


class Teardown:
    """A job for the worklist."""

    def __init__(
        self, worklist: Worklist, exchanges: Iterable[Exchange], bindings: Bindings, queues: dict[str, Queue]
    ) -> None:
        self.has_work = True
        self._effort = worklist.effort
        self._pieces: Iterator[Any] = chain(self._unbind([*exchanges], bindings), self._end(queues))
        worklist.add(self)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        stop = self._effort.total + PIECE
        while self._effort.total < stop:
            try:
                next(self._pieces)
            except StopIteration:
                self.has_work = False
                return

    def _unbind(self, exchanges: list[Exchange], bindings: Bindings) -> Iterator[None]:
        while exchanges:
            exchange = exchanges.pop()
            self._effort.total += 1
            left = [*exchange.bindings]
            while left:
                key = left.pop()
                bindings.remove(exchange, key)
                self._effort.total += steps_to_remove(key)
                yield

    def _end(self, queues: dict[str, Queue]) -> Iterator[None]:
        while queues:
            _, queue = queues.popitem()     # sessions that close still have the vhost, but not its queues any more
            self._effort.total += QUEUE_STEPS
            queue.end()
            yield
