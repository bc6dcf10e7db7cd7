"""A queue: it connects its parts, and moves messages between them.

Publish, settle, purge and delete are here. The FIFO has the order of ready messages, `dispatcher.py` the order of
consumers; `delivery.py` delivers, `requeue.py` requeues, `length_limits.py` limits the length, `expiry.py` expires,
`dead_letters.py` drops messages, and `records.py` keeps their state and records it. A queue knows no delivery tags of
channels, no exchanges, and no other queues: the router of the vhost moves its dead letters.

Always true between calls: a message is ready, unacked, or one of the dead letters that have not been moved.

Spec: §3.1.4, §4.7; RabbitMQ docs/queues, docs/consumers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Protocol

import msgspec

from amqpd.broker.clock import Clock
from amqpd.broker.counts import Totals
from amqpd.broker.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED
from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.departure import Departure
from amqpd.broker.page_store import MemoryPageStore
from amqpd.broker.ports import Journal, PageStore
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.dead_letters import DeadLetters
from amqpd.broker.queue.delivery import Delivery
from amqpd.broker.queue.dispatcher import Dispatcher
from amqpd.broker.queue.expiry import Expiry
from amqpd.broker.queue.fifo import Fifo
from amqpd.broker.queue.jobs import QueueJobs
from amqpd.broker.queue.length_limits import LengthLimits
from amqpd.broker.queue.paged_fifo import PagedFifo
from amqpd.broker.queue.pager import Pager, never
from amqpd.broker.queue.pages import Page, StoredMessages, forget_spill_files
from amqpd.broker.queue.priority_fifo import PriorityFifo
from amqpd.broker.queue.purge import Purge
from amqpd.broker.queue.records import QueueRecords
from amqpd.broker.queue.requeue import Requeue
from amqpd.broker.rejects import Rejects
from amqpd.broker.rules import QueueRules
from amqpd.broker.statistics import QueueStatistics
from amqpd.broker.worklist import Discard, Later, Worklist
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import Message

NO_RULES = QueueRules()


class DeadLetterSink(Protocol):
    """The destination of a queue's dead letters: the vhost's router, or a list in tests."""

    def dead_letter(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        """Accept messages that died in this queue, whose rules name a dead-letter exchange.

        The queue keeps them until `moved` or `set_aside`; messages that it never accepted are not `is_stored`.
        """

    def is_behind(self, queue: Queue) -> bool:
        """Return whether the queue should let no more messages die for now."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The result of publishing a run to a queue.

    `batch` is the journal's batch that makes it durable, or 0 if nothing is written; `refused` are the messages that
    the limits refused.
    """

    batch: int = 0
    refused: Sequence[Message] = ()


TAKEN = Outcome()       # everything was accepted, and there is nothing to wait for


def note_holders(queues: Sequence[Queue], messages: Sequence[Message]) -> None:
    """Set on messages of equal properties how many queues keep them on disk, if it is more than one."""
    holders = sum([queue.records.keeps(messages[0]) for queue in queues])
    if holders > 1:
        for message in messages:
            message.holders = holders


class Queue:
    """One queue of a vhost. `owner` is the connection that declared it exclusive, or None.

    `unused` is called when the queue has been unused for as long as it may be.
    """

    def __init__(
        self, definition: QueueDefinition, journal: Journal, *, owner: object | None = None,
        rules: QueueRules = NO_RULES, clock: Clock | None = None, sink: DeadLetterSink | None = None,
        unused: Callable[[Queue], None] | None = None, page_store: PageStore | None = None,
        worklist: Worklist | None = None, totals: Totals | None = None,
    ) -> None:
        page_store, clock = page_store or MemoryPageStore(), clock or Clock()
        self.worklist = worklist = worklist or Worklist()
        self.definition = definition
        self.name = definition.name
        self.owner = owner
        self.had_consumer = False
        self.deleted = False
        self.is_remembered = False      # whether a cached walk refers to it; see broker/routing.py
        self.records = records = QueueRecords(definition, journal, clock, page_store, totals)
        self.redelivery = records.redelivery
        self.ready: Fifo = (
            PriorityFifo(rules.max_priority, page_store.budget, records.deadlines, records.is_stored)
            if rules.max_priority else PagedFifo(page_store.budget, records.deadlines, records.is_stored))
        self.dispatcher: Dispatcher[Queue] = Dispatcher(is_single_active=rules.single_active_consumer)
        self.pager = Pager(
            self.ready, records, page_store, worklist.effort, self._read_on, records.settled_on_disk,
            self._keeps_up)
        self.dead_letters = DeadLetters(
            records, self.pager, worklist, partial(sink.dead_letter, self) if sink is not None else None,
            partial(sink.is_behind, self) if sink is not None else never)
        self.jobs = QueueJobs(worklist, self.dispatch)
        self.limits = LengthLimits(self.ready, self.jobs, self.dead_letters)
        self.expiry = Expiry(
            clock, records.deadlines, self.ready, self.jobs, self.dead_letters, self.dispatcher.consumers,
            partial(unused, self) if unused is not None else None)
        self._dispatch_later = Later(worklist, self.dispatch)
        self._clock = clock
        self.delivery = Delivery(
            self.ready, self.dispatcher, records, self.pager, self.jobs, worklist, self._dispatch_later)
        self._requeue = Requeue(
            self.ready, records, self.pager, self.dead_letters, self.limits, self.expiry)
        self.delivery.is_paused = definition.is_paused
        self.apply(rules)

    def apply(self, rules: QueueRules) -> None:
        """Apply these rules from now on. Priorities and a single active consumer stay as they were declared."""
        self.rules = rules
        self.dead_letters.apply(rules)
        self.delivery.apply(rules)
        self._requeue.apply(rules)
        self.expiry.apply(rules)
        self.limits.apply(rules)

    def define(self, definition: QueueDefinition) -> None:
        """Replace the definition by one that differs in whether the queue is paused. The caller dispatches."""
        self.definition = self.records.definition = definition
        self.delivery.is_paused = definition.is_paused

    # Messages in

    def publish(self, run: Sequence[Message], *, is_timed: bool = False) -> Outcome:
        """Accept a run of messages, in publish order, and deliver what can be delivered.

        `is_timed` says that some of them have an expiration. A queue that was deleted after they were routed, in a
        transaction, accepts nothing and refuses nothing.
        """
        if self.deleted:
            return TAKEN
        if self.limits.refuses:
            return self._publish_within_limits(run, is_timed)
        batch = self._take_in(run, is_timed)
        return Outcome(batch) if batch else TAKEN

    def _take_in(self, run: Sequence[Message], is_timed: bool) -> int:
        is_timed = is_timed or self.expiry.ttl_ms is not None
        expiries = self.expiry.expiries_of(run) if is_timed else {}
        records, ready = self.records, self.ready
        # Before the run is recorded: this may raise, and then the run is neither in memory nor on disk.
        taker = self.delivery.sole_taker(run) if not ready and not self.jobs.has_work else None
        batch = records.published(run, expiries)
        records.counts.published += len(run)
        if taker is not None:
            if expiries and not taker.no_ack:
                records.deadlines.add_out(expiries)
            self.delivery.hand_out(taker, run)
            return batch
        ready.extend(run)
        if not self.pager.is_large:
            self.pager.note_size()
        if expiries:
            records.deadlines.add(expiries)
        self.delivery.dispatch()
        if self.limits.drops_head:
            self.limits.trim()
        if expiries:
            self.expiry.drop_due()
        return batch

    def _publish_within_limits(self, run: Sequence[Message], is_timed: bool) -> Outcome:
        """Accept as many as fit, and deliver, as often as deliveries make room; refuse the others."""
        batch, start = 0, 0
        refused: list[Message] = []
        while start < len(run):
            fits = self.limits.fitting(run, start)
            if fits:
                batch = max(batch, self._take_in(run[start : start + fits], is_timed))
            else:
                fits = 1
                refused.append(run[start])
            start += fits
        if refused and self.limits.dead_letters_refused:
            self.dead_letters.send(refused, MAXLEN, is_stored=False)
        return Outcome(batch, refused)

    def restore(
        self, stored: StoredMessages, redelivered: set[int], redelivered_to: int, deliveries: Mapping[int, int]
    ) -> None:
        """Restore the stored messages, at start: they are on disk already and there are no consumers.

        The rest of a time to live, by the wall clock, is never more than the whole.
        """
        self.records.restore(stored.numbers, redelivered, redelivered_to, deliveries)
        expiries = stored.ends(self.rules.message_ttl_ms, self._clock)
        for level, pages in stored.pages(expiries, self.rules.max_priority, self.pager.page_limits):
            self.ready.restore(level, pages)
        self.limits.trim()
        self.expiry.drop_due()

    def requeue(self, run: Sequence[Message]) -> None:
        """Requeue unacked messages at their original positions; see `requeue.py`. The caller dispatches."""
        if self.deleted:
            self.records.unacked -= len(run)
        else:
            self.jobs.run(self._requeue.in_pieces(run))

    # Messages out

    def dispatch(self) -> None:
        """Deliver ready messages to consumers, in turn, until either runs out. RabbitMQ docs/consumers."""
        if not self.deleted:
            self.expiry.drop_due()
            self.delivery.dispatch()

    def _read_on(self) -> None:
        """Load what is needed, now that the page store is open, and continue."""
        self.dead_letters.load()
        if self.consumers:
            self.pager.load_ahead()
        self.dispatch()

    def get(self, *, no_ack: bool) -> Message | None:
        """Take the first ready message; unless `no_ack`, it is unacked from now on. Spec: basic.get.

        Raises MessageNotLoaded if it is on disk and cannot be loaded now, or if the queue is busy.
        """
        self.expiry.use()
        self.expiry.drop_due()
        return self.delivery.get(no_ack=no_ack)

    def reject(self, run: Sequence[Message], rejects: Rejects | None = None) -> int:
        """Drop unacked messages, to the dead-letter exchange or for good. Returns as `settle` does.

        `rejects` counts the messages that are not on disk as dead letters yet.
        """
        self.records.unacked -= len(run)
        return self.dead_letters.drop_unacked(run, REJECTED, rejects)

    def settle(self, run: Sequence[Message], *, in_transaction: bool = False) -> int:
        """Remove unacked messages for good: they were acked, alone or in a transaction.

        Return the journal's batch that makes it durable; 0 if nothing is written.
        """
        self.records.unacked -= len(run)
        self.records.counts.acked += len(run)
        return self.records.settled(run, is_answered=not in_transaction)

    def forget(self, message: Message) -> None:
        """Remove a message that `get` returned with `no_ack`."""
        self.records.settled([message])

    def purge(self) -> Purge:
        """Drop every ready message; unacked ones stay. Spec: queue.purge."""
        purge = Purge(len(self.ready), self.worklist)
        self.records.counts.purged += purge.count
        self.jobs.run_first(purge.settle_in_pieces(self.ready.clear(), self.records))
        return purge

    def take_out(self, run: Sequence[Message]) -> None:
        """Take ready messages of one priority, in order, out of the FIFO, at any position, to `drop_taken` them."""
        self.ready.take_out(run)
        self.dead_letters.moving += len(run)

    def drop_taken(self, run: Sequence[Message]) -> int:
        """Remove for good messages that were taken out: they are elsewhere, or not wanted. Returns as `settle` does."""
        self.dead_letters.moving -= len(run)
        self.records.counts.purged += len(run)
        return self.records.settled(run)

    # The end

    def delete(self, *, is_still_stored: bool = False) -> None:
        """Stop accepting, delivering and recording, before `end`; still settle dead letters if `is_still_stored`."""
        self.deleted = True
        self.records.tell_delivered()
        self.dead_letters.stop()
        if not is_still_stored:
            self.records.close()

    @property
    def is_still_stored(self) -> bool:
        """Whether the queue is deleted, and its deletion is not recorded yet."""
        return self.deleted and not self.records.is_closed

    def end(self) -> None:
        """Free all messages and consumers of the deleted queue, in slices."""
        if not self.deleted:
            self.delete()
        self.pager.end()
        self.jobs.clear()
        removed, acts = self.ready.clear(), self.dead_letters.end()
        Departure(chain(self.dispatcher.end(), forget_spill_files(removed), acts), self.worklist)
        Discard(self.worklist, [
            *[part for part in removed if not isinstance(part, Page)], *self.records.let_go()])
        # Its parts drop their references to the queue, so that it is freed with the last outside reference.
        self.expiry.end()
        self._dispatch_later.cancel()

    # Consumers

    def subscribe(self, consumer: Consumer[Queue]) -> None:
        """Add a consumer at the end of its ring. The caller dispatches after it has answered the client.

        Raises ChannelException: ACCESS_REFUSED if this consumer or an existing one is exclusive.
        """
        others = self.dispatcher
        if (others.consumers and (consumer.exclusive or others.exclusive is not None)) or (
                consumer.exclusive and self.rules.single_active_consumer):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED, f"queue '{self.name}' in vhost '{self.definition.vhost}' in exclusive use")
        others.add(consumer)
        self.had_consumer = True

    def unsubscribe(self, consumer: Consumer[Queue]) -> None:
        """Remove a consumer; its unacked messages stay with its channel."""
        self.dispatcher.remove(consumer)
        if not self.deleted:
            self.expiry.use()

    def unblock(self, consumer: Consumer[Queue]) -> None:
        """Check this consumer again, if it was blocked: there may be credit and room for it. The caller dispatches."""
        if consumer.is_blocked:
            self.dispatcher.unblock(consumer)

    @property
    def consumers(self) -> Collection[Consumer[Queue]]:
        """Its consumers, in the order in which they were added."""
        return self.dispatcher.consumers

    @property
    def is_unused(self) -> bool:
        """Whether it had consumers and has none: then an auto-delete queue is deleted."""
        return self.had_consumer and not self.consumers

    def _keeps_up(self) -> bool:
        """Return whether there are consumers that nearly keep up with the publishers."""
        return bool(self.consumers) and not self.delivery.is_paused and self.records.counts.keeps_up()

    # Statistics

    @property
    def unacked(self) -> int:
        """The number of messages that consumers and basic.get have not answered."""
        return self.records.unacked

    def statistics(self) -> QueueStatistics:
        """Return the current counts."""
        counts = self.records.counts
        return QueueStatistics(
            ready=len(self.ready),
            ready_bytes=self.ready.body_bytes,
            unacked=self.unacked,
            set_aside=len(self.dead_letters.aside),
            consumers=len(self.consumers),
            published=counts.published,
            delivered=counts.delivered + counts.delivered_no_ack,
            got=counts.got + counts.got_no_ack,
            redelivered=counts.redelivered,
            settled=counts.settled,
            acked=counts.acked,
            purged=counts.purged,
            expired=counts.dropped[EXPIRED],
            rejected=counts.dropped[REJECTED],
            over_length=counts.dropped[MAXLEN],
            over_delivery_limit=counts.dropped[DELIVERY_LIMIT],
            dead_lettered=counts.dead_lettered,
        )

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.ready.check()
        self.records.check(self.ready)
        self.dead_letters.check()
        self.dispatcher.check()
        assert not self.limits.is_exceeded or self.limits.is_trimming, "more messages than the limits allow"
        assert self.unacked >= 0, "more answers than deliveries"
        here = len(self.ready) + self.unacked + self.dead_letters.count
        assert len(self.redelivery.numbers) <= here, "a settled message counts as redelivered"
        waits = self.pager.is_waiting or self.jobs.has_work or self._dispatch_later.has_work
        waits = waits or self.delivery.is_paused
        assert waits or not (len(self.ready) and self.dispatcher.has_idle), "ready message, idle consumer"
