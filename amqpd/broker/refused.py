"""Dead letters that wait because a target queue has no room for them.

Owns the refused messages of one queue and one reason, by their numbers. They count for the memory of waiting messages,
and are paged out as those are: the first one is read again when it may be moved. It is not tried again while nothing
has changed: the queue that refused it is still full, and the routes are the same.

RabbitMQ docs/quorum-queues (at-least-once dead lettering).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from amqpd.broker.dead_letter import DeadLetterRoute
from amqpd.broker.departure import Departure
from amqpd.broker.ports import PageStore
from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.fifo import NO_LIMIT
from amqpd.broker.queue.paged_fifo import PagedFifo
from amqpd.broker.queue.pager import Pager
from amqpd.broker.queue.pages import Page, forget_spill_files
from amqpd.broker.queue.queue import Queue
from amqpd.broker.worklist import Discard
from amqpd.message import Message


class Refused:
    """Dead letters of one queue and `dead_route`. `try_again` is called when the next one can be read."""

    def __init__(
        self, queue: Queue, dead_route: DeadLetterRoute, page_store: PageStore, try_again: Callable[[Refused], None]
    ) -> None:
        self.queue = queue
        self.dead_route = dead_route
        self._fifo = PagedFifo(page_store.budget, Deadlines(), queue.records.is_stored)
        self._pager = Pager(
            self._fifo, queue.records, page_store, queue.worklist.effort, partial(try_again, self),
            queue.dead_letters.lost)
        self._first_number = 0              # the lowest number when it was refused last
        self._by: Sequence[Queue] = ()      # the queues that refused it, at this version of the routes
        self._version = 0
        self._size = 0                      # of its body

    def __len__(self) -> int:
        return len(self._fifo)

    def add(self, message: Message, by: Sequence[Queue], version: int) -> None:
        """Keep a message that one of these queues has refused at this version of the routes."""
        fifo = self._fifo
        if not fifo or message.number < self._next_number:
            self._by, self._size, self._version, self._first_number = by, message.body_size, version, message.number
        fifo.put_back([message])
        if not self._pager.is_large:
            self._pager.note_size()

    @property
    def _next_number(self) -> int:
        page = self._fifo.next_page
        return self._fifo.first_number if page is None else page.first

    def is_pointless(self, version: int) -> bool:
        """Return whether the first message would be refused again."""
        return self._first_number == self._next_number and version == self._version and any([
            not queue.deleted and not queue.limits.has_room_for(self._size) for queue in self._by])

    def take_first(self) -> Message | None:
        """Take the first message; None if it has to be read and cannot be now: then it is tried again later."""
        taken = self._fifo.take(1, NO_LIMIT) if self._pager.load_next() else None
        return taken[0] if taken else None

    def end(self) -> None:
        """Drop all messages: the queue is deleted, or they have been moved."""
        self._pager.end()
        left = self._fifo.clear()
        worklist = self.queue.worklist
        Departure(forget_spill_files(left), worklist)
        Discard(worklist, [part for part in left if not isinstance(part, Page)])
