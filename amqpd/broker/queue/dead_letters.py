"""Drop messages of a queue: to its dead-letter exchange, if its rules name one, or for good.

Owns the messages that have left the queue's FIFO and are not dead-lettered yet: those that have to be loaded first,
those that the vhost's router is about to move, and those that could not be moved and were set aside. They stay in the
store until their copies are in other queues; if the broker stops before that, they are ready again. The router gets
them in the order in which they left the FIFO.

RabbitMQ docs/dlx.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, Protocol

from amqpd.broker.dead_letter import REJECTED
from amqpd.broker.queue.pager import Pager, never
from amqpd.broker.queue.page_limits import PageLimits
from amqpd.broker.queue.pages import OnDisk, Removed
from amqpd.broker.queue.records import QueueRecords
from amqpd.broker.queue.segment import number_of
from amqpd.broker.rejects import Reject, Rejects
from amqpd.broker.rules import QueueRules
from amqpd.broker.step_job import Act
from amqpd.broker.worklist import Worklist
from amqpd.message import Message

DISABLED, AT_MOST_ONCE, AT_LEAST_ONCE = "disabled", "at_most_once", "at_least_once"
CONFIRMED = "confirmed"     # stands beside the reasons, for copies that are on disk
PAGES_A_TURN = 1        # read for one queue before other queues are served

log = logging.getLogger("amqpd")


class Send(Protocol):
    """Passes messages to the router; see `DeadLetterSink.dead_letter`."""

    def __call__(self, run: Sequence[Message], reason: str, *, is_stored: bool) -> None: ...


class _Dropped(NamedTuple):
    """Messages that have left the FIFO, or were unacked, and wait until they, or those before them, are loaded."""

    part: list[Message] | OnDisk
    reason: str


class DeadLetters:
    """The dead letters of one queue. `send` is None in a vhost without a router; `is_behind` is the router's.

    Methods that drop messages return the journal's batch that makes it durable, or 0.
    """

    __slots__ = (
        "is_wanted", "aside", "moving", "_rejects", "_to_load", "_records", "_pager", "_page_limits", "_worklist",
        "_to_router", "_is_behind", "_strategy")

    def __init__(
        self, records: QueueRecords, pager: Pager, worklist: Worklist, send: Send | None,
        is_behind: Callable[[], bool],
    ) -> None:
        self.is_wanted = False                  # whether dropped messages are dead-lettered
        self._strategy = DISABLED               # RabbitMQ's name of what becomes of them
        self.aside: dict[int, Message] = {}     # by number, messages that could not be moved
        self.moving = 0                         # messages that the router has, and that stay until it has moved them
        self._rejects: dict[int, Reject] = {}   # by number of messages that have not been moved, what waits for that
        self._to_load: deque[_Dropped] = deque()
        self._records = records
        self._pager = pager
        self._page_limits = pager.page_limits
        self._worklist = worklist
        self._to_router = send
        self._is_behind = is_behind

    def apply(self, rules: QueueRules) -> None:
        """Apply these rules from now on."""
        self.is_wanted = rules.dead_letter_exchange is not None and self._to_router is not None
        self._strategy = DISABLED if not self.is_wanted else AT_LEAST_ONCE if rules.is_at_least_once else AT_MOST_ONCE

    @property
    def is_behind(self) -> bool:
        """Whether so many dead letters have not been moved that no more messages should be dropped."""
        return self._to_router is not None and self._is_behind()

    @property
    def to_be_loaded(self) -> int:
        """The number of messages that have left the FIFO and wait until they, or those before them, are loaded."""
        return sum([len(part.numbers) if isinstance(part, OnDisk) else len(part) for part, _ in self._to_load])

    @property
    def count(self) -> int:
        """The number of messages that have left the FIFO, or were unacked, and are still in the queue."""
        return self.moving + self.to_be_loaded + len(self.aside)

    # Messages in

    def drop(self, run: Sequence[Message], reason: str) -> int:
        """Drop messages that are in memory, and have left the FIFO or were unacked."""
        records = self._records
        records.count_dropped(reason, self._strategy, len(run))
        if not self.is_wanted:
            return records.settled(run)
        self.moving += len(run)
        if records.deadlines:
            records.deadlines.forget(run)
        if reason == REJECTED:
            records.redelivery.mark(run)
        self.send(run, reason)
        return records.batch_of(run)

    def drop_in_order(self, run: Sequence[Message], reason: str) -> None:
        """Do as `drop`, after the messages that were dropped before and have to be loaded."""
        if self._to_load and self.is_wanted:
            self.drop_removed([[*run]], reason)
        else:
            self.drop(run, reason)

    def drop_unacked(self, run: Sequence[Message], reason: str, rejects: Rejects | None = None) -> int:
        """Drop messages that were unacked; those on disk are loaded first.

        Messages in memory do not wait for others that have to be loaded: a reject should be on disk with the current
        batch. `rejects` counts those that are not.
        """
        if rejects is not None and self.is_wanted and (batch := self._records.batch_of(run)):
            kept = self._records.kept(run)
            reject = rejects.add(len(kept), batch)
            self._rejects.update(dict.fromkeys([message.number for message in kept], reject))
        if not self.is_wanted or all([message.content for message in run]):
            return self.drop(run, reason)
        records = self._records
        records.redelivery.mark(run)        # the broker may stop before they are loaded
        if records.deadlines:
            records.deadlines.forget(run)
        self._add(_by_place(run, self._page_limits), reason)
        return records.batch_of(run)

    def drop_removed(self, removed: Removed, reason: str) -> None:
        """Drop messages that have left the FIFO, in order; those on disk are loaded first if they are dead-lettered."""
        records = self._records
        if self.is_wanted:
            if records.deadlines:
                for part in removed:
                    if not isinstance(part, OnDisk):
                        records.deadlines.forget(part)      # it may have to wait for messages dropped before it
            self._add(removed, reason)
            return
        for part in removed:
            if isinstance(part, OnDisk):
                records.count_dropped(reason, self._strategy, len(part.numbers))
                records.settled_on_disk(part)
            else:
                self.drop(part, reason)

    def _add(self, removed: Removed, reason: str) -> None:
        most = self._page_limits.messages
        for part in removed:
            if not isinstance(part, OnDisk):
                if part:
                    self._to_load.append(_Dropped(part, reason))
                continue
            for start in range(0, len(part.numbers), most):
                piece = OnDisk(part.numbers[start : start + most], part.spill_file)
                self._to_load.append(_Dropped(piece, reason))
        self.load()

    def load(self) -> None:
        """Drop the messages that wait for loading, in order, as far as they can be loaded now."""
        pages = 0
        while self._to_load:
            part, reason = self._to_load[0]
            if isinstance(part, OnDisk):
                if not self._pager.can_load or pages == PAGES_A_TURN or self.is_behind:
                    self._pager.order_call()
                    return
                pages += 1
                run = self._pager.fetch(part)
                self._to_load.popleft()
                self.drop(run, reason)
                self._settle_missing(part, run)
            else:
                self._to_load.popleft()
                self.drop(part, reason)

    def _settle_missing(self, part: OnDisk, run: Sequence[Message]) -> None:
        """Forget the damaged messages of a part, and the file of the loaded ones."""
        missing = {*part.numbers}.difference([message.number for message in run])
        if missing:
            self._records.settled_on_disk(OnDisk(sorted(missing), part.spill_file))
            self._forget_rejects(missing)
        if part.spill_file is not None:
            part.spill_file.forget(part.numbers)

    def send(self, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        """Pass messages to the router; messages that the queue never accepted are not `is_stored`."""
        if self._to_router is None or not self.is_wanted:
            return
        self._worklist.effort.total += len(run)
        if not is_stored:       # others have been counted when they were dropped
            self._records.totals.add_dropped(self._records.queue_type, reason, self._strategy, len(run))
        try:
            self._to_router(run, reason, is_stored=is_stored)
        except Exception:
            definition = self._records.definition
            log.exception("queue '%s' in vhost '%s': %d messages cannot be dead-lettered and are set aside",
                          definition.name, definition.vhost, len(run))
            if is_stored:
                self.set_aside(run)

    # Messages out

    def moved(self, run: Sequence[Message]) -> None:
        """Forget messages that the router has moved: their copies are in their queues."""
        if run:
            self._forget_rejects(map(number_of, run))       # first: if this fails, all are set aside
            records = self._records
            self.moving -= len(run)
            records.counts.dead_lettered += len(run)
            if self._strategy == AT_LEAST_ONCE:
                records.totals.add_dropped(records.queue_type, CONFIRMED, self._strategy, len(run))
            records.settled(run)

    def lost(self, on_disk: OnDisk) -> None:
        """Forget messages that the router had paged out, and that cannot be loaded."""
        self.moving -= len(on_disk.numbers)
        self._records.settled_on_disk(on_disk)

    def kept(self, message: Message) -> None:
        """Note that the router keeps this message until there is room for it: no confirm waits for that."""
        self._forget_rejects([message.number])

    def _forget_rejects(self, numbers: Iterable[int]) -> None:
        """Note that messages have been moved, or will not be moved for now, in the current batch."""
        if not self._rejects:
            return
        batch = self._records.current_batch
        for number in numbers:
            reject = self._rejects.pop(number, None)
            if reject is not None:
                reject.moved(batch)

    def set_aside(self, run: Sequence[Message]) -> None:
        """Keep messages that cannot be dead-lettered: they are counted and listed, and stay in the store."""
        self.moving -= len(run)
        if not self._records.is_closed:
            self.aside.update({message.number: message for message in run})
        self._forget_rejects(map(number_of, run))

    def stop(self) -> None:
        """Stop dead-lettering: the queue is deleted. The router still moves the messages that it has."""
        self.is_wanted = False
        self._to_router = None
        self._is_behind = never

    def end(self) -> Iterator[Act]:
        """Forget the messages that wait for loading, after `stop`; return the acts that drop their spill files."""
        waiting = [part for part, _ in self._to_load if isinstance(part, OnDisk)]
        self._to_load.clear()
        self._forget_rejects([*self._rejects])
        return ((len(part.numbers), partial(part.spill_file.forget, part.numbers))
                for part in waiting if part.spill_file is not None)

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert self.moving >= 0, "more were moved than were to be dead-lettered"
        assert len(self._rejects) <= self.count, "a reject is awaited that has been moved"


def _by_place(run: Sequence[Message], limits: PageLimits) -> Removed:
    """Split messages into those in memory, and references by number, a page's worth each."""
    parts: Removed = []
    for is_in_memory, group in groupby(run, key=lambda message: bool(message.content)):
        parts += [[*group]] if is_in_memory else _references_to(sorted(group, key=number_of), limits)
    return parts


def _references_to(run: Sequence[Message], limits: PageLimits) -> Iterator[OnDisk]:
    """Yield references to these messages, in order, a page's worth each."""
    numbers: list[int] = []
    total_bytes = 0
    for message in run:
        if total_bytes >= limits.bytes:
            yield OnDisk(numbers)
            numbers, total_bytes = [], 0
        numbers.append(message.number)
        total_bytes += message.body_size
    yield OnDisk(numbers)
