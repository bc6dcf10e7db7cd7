"""A queue: ready messages, consumers in turn, what has been handed out, and when messages must go.

Owns the order of messages, what each consumer is handed, and the limits; whose turn it is, broker/queue/dispatcher.py
says. It never sees a channel's delivery tags, an exchange, or another queue: messages that die are put on the
vhost's list, which routes them on. What is durable it records in the journal.

Always true between calls:
- `ready` is in the order of dispatch: by priority where there are any, then by publish order, requeued
  messages too;
- no message waits while a consumer has credit and its connection has room, but for the disk;
- `unacked` counts the messages handed out to consumers and getters that owe an answer; what they give back may
  be a reference to a message that is on disk only;
- every number in `redelivered` and `deliveries` belongs to a message that is ready, unacked or dying here;
- the ready messages are within the limits, and none is handed out after its end.

Spec: §3.1.4, §4.7; RabbitMQ docs/queues, docs/consumers, docs/ttl, docs/maxlength, docs/priority.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, groupby, islice
from typing import Any, Protocol

import msgspec

from amqpd.broker.clock import Clock
from amqpd.broker.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED
from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.departure import Act, Departure
from amqpd.broker.page_store import MemoryPageStore
from amqpd.broker.ports import Journal, PageStore
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.dispatcher import Dispatcher
from amqpd.broker.queue.expiry import Deadlines
from amqpd.broker.queue.fifo import NO_LIMIT, Fifo
from amqpd.broker.queue.jobs import QueueJobs
from amqpd.broker.queue.paged_fifo import PagedFifo, is_nowhere
from amqpd.broker.queue.pager import MessageNotLoaded, Paging, forget_spill_files
from amqpd.broker.queue.pages import PAGE_OCTETS, Cleared, OnDisk, Page, Removed, StoredMessages
from amqpd.broker.queue.priority_fifo import PriorityFifo
from amqpd.broker.queue.segment import DELIVERY_OVERHEAD, body_octets, number_of
from amqpd.broker.queue.watermark import DeliveryWatermark
from amqpd.broker.rules import QueueRules
from amqpd.broker.worklist import PIECE, Discard, Later, Waiters, Worklist
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import Message, reference_to

CANCEL_STEPS = 8    # what it takes to tell a consumer that its queue is gone
DISPATCH_STEPS = 8      # what it takes to hand out one message by itself, besides the delivery; see broker/effort.py

log = logging.getLogger("amqpd")

NO_RULES = QueueRules()
FEW = 8                  # messages that may have to be rewritten, handed out at once
RETRY_MS = 1_000         # after an error of ours, before what was due is tried again
DROP_HEAD, REJECT_PUBLISH_DLX = "drop-head", "reject-publish-dlx"


class DeadLetterSink(Protocol):
    """Where a queue leaves messages to be dead-lettered, and tells that it expires: the vhost, or a list in tests."""

    def dead_letter(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        """Take messages that died in this queue, whose rules name a dead-letter exchange.

        The queue keeps them until `dead_lettered` or `set_aside`; what it never took in is not `is_stored`.
        """

    def is_behind(self, queue: Queue) -> bool:
        """Return whether the queue should let no more messages die for now."""

    def unused(self, queue: Queue) -> None:
        """The queue's own time is up."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a run that was published to a queue.

    `batch` is the journal's batch that makes it safe, or 0 if nothing has to be; `refused` are the messages that the
    limits did not let in.
    """

    batch: int = 0
    refused: Sequence[Message] = ()


TAKEN = Outcome()       # all of it, and nothing to wait for


class Purge:
    """A purge that is under way: `count` messages, and the journal's batch that makes it last, or 0."""

    def __init__(self, count: int, worklist: Worklist) -> None:
        self.count = count
        self.batch = 0
        self.is_done = False
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when it is done

    def end(self) -> None:
        """It is done."""
        self.is_done = True
        self._waiters.release()


def note_holders(queues: Sequence[Queue], messages: Sequence[Message]) -> None:
    """Note on messages of equal properties how many queues keep them on disk, where it is more than one."""
    holders = sum([queue.keeps(messages[0]) for queue in queues])
    if holders > 1:
        for message in messages:
            message.holders = holders


class Queue:
    """One queue of a vhost. `owner` is the connection that declared it exclusive, or None."""

    def __init__(
        self, definition: QueueDefinition, journal: Journal, *, owner: object | None = None,
        rules: QueueRules = NO_RULES, clock: Clock | None = None, sink: DeadLetterSink | None = None,
        page_store: PageStore | None = None, worklist: Worklist | None = None,
    ) -> None:
        page_store = page_store or MemoryPageStore()
        self.worklist = worklist or Worklist()
        self.jobs = QueueJobs(self.worklist, self.dispatch)
        self._dispatch_later = Later(self.worklist, self.dispatch)
        self._is_trimming = self._is_expiring = False       # a job that does it is under way
        self.definition = definition
        self.name = definition.name
        self.owner = owner
        self.rules = rules
        self._deadlines = Deadlines()
        self.paging = Paging(self, page_store)
        self._is_stored = is_stored = partial(_is_stored, page_store) if definition.durable else is_nowhere
        self.ready: Fifo = (
            PriorityFifo(rules.max_priority, page_store.budget, self._deadlines, is_stored) if rules.max_priority
            else PagedFifo(page_store.budget, self._deadlines, is_stored))
        self.unacked = 0
        self.has_released = False   # whether the content of any unacked message has ever been released
        self.redelivered: set[int] = set()
        self.redelivered_to = 0     # a number up to which any message may have been handed out, before a restart
        self.watermark = DeliveryWatermark(definition, journal, page_store) if definition.durable else None
        self.deliveries: dict[int, int] = {}        # by message number: failed deliveries, where there were any
        self.dispatcher = Dispatcher(is_single_active=rules.single_active_consumer)
        self.had_consumer = False
        self.deleted = False
        self.is_still_stored = False    # deleted, but not yet in the journal
        self.is_remembered = False      # by a walk; see broker/routing.py
        self.published_total = self.delivered_total = self.got_total = self.settled_total = 0
        self.redelivered_total = 0
        self.kept_on_disk = 0       # messages, ready, unacked or dying, that the store keeps or is about to
        self._dead_lettering = 0             # messages that stay until their copies are in other queues
        self.aside: dict[int, Message] = {}     # by number, messages that died and could not be moved
        self._came = self._went = 0         # totals when `keeps_up` was last asked
        self._journal = journal
        self._clock = clock or Clock()
        self._sink = sink
        self._wakes_at: int | None = None
        self._wake_up = 0           # the clock's number of that
        self._last_used_ms = self._clock.now_ms
        self._is_limited = False
        self.apply(rules)

    def apply(self, rules: QueueRules) -> None:
        """Live by these rules from now on. Priorities and a single active consumer stay what they were declared."""
        self.rules = rules
        self._is_limited = rules.max_length is not None or rules.max_length_bytes is not None
        self.use()
        self._trim()

    # Messages in

    def publish(self, run: Sequence[Message], *, is_timed: bool = False) -> Outcome:
        """Take a run of messages, in publish order, and hand out what can be handed out.

        `is_timed` says that some of them have an expiration. A queue that was deleted since they were routed, in a
        transaction, takes nothing and refuses nothing.
        """
        if self.deleted:
            return TAKEN
        if self._is_limited and self.rules.overflow != DROP_HEAD:
            return self._publish_within_limits(run, is_timed)
        batch = self._take_in(run, is_timed)
        return Outcome(batch) if batch else TAKEN

    def _take_in(self, run: Sequence[Message], is_timed: bool) -> int:
        is_timed = is_timed or self.rules.message_ttl_ms is not None
        ends = self._expiries_of(run) if is_timed else {}
        batch = 0
        persistent = self.kept(run)
        # Found before the run is recorded: what finds it may raise, and then there is no run, in memory or on disk.
        taker = self._sole_taker(run) if not self.ready and not self.jobs.has_work else None
        if persistent and self.watermark is not None:
            self.watermark.published(persistent[-1].number)
            self.kept_on_disk += len(persistent)
            batch = self._journal.published(self.definition, persistent, self._to_wall(ends, persistent))
        self.published_total += len(run)
        if taker is not None:
            if ends and not taker.no_ack:
                self._deadlines.add_out(ends)
            self._hand_out(taker, run)
            return batch
        self.ready.extend(run)
        if not self.paging.is_large:
            self.paging.note_size()
        if ends:
            self._deadlines.add(ends)
        self._dispatch()
        if self._is_limited:
            self._trim()
        if ends:
            self._expire()
        return batch

    def keeps(self, message: Message) -> bool:
        """Whether this queue keeps the message on disk."""
        return self.definition.durable and message.facts.persistent

    def kept(self, run: Iterable[Message]) -> list[Message]:
        """Those of these messages that this queue keeps on disk."""
        return [message for message in run if message.facts.persistent] if self.definition.durable else []

    def _sole_taker(self, run: Sequence[Message]) -> Consumer | None:
        """The consumer that takes all of this at once, where there is but one that could take any."""
        taker = self.dispatcher.next_taker()
        if taker is None or not self.dispatcher.is_sole(taker) or taker.credit < len(run):
            return None
        size = body_octets(run) + DELIVERY_OVERHEAD * len(run)
        return taker if size <= taker.subscriber.room else None

    def _expiries_of(self, run: Iterable[Message]) -> dict[Message, int]:
        """When each of these ends that does: the least of the queue's time to live and the message's own."""
        ttl, now = self.rules.message_ttl_ms, self._clock.now_ms
        ends = {}
        for message in run:
            own = message.facts.expiration_ms
            if own is None:
                own = ttl
            elif ttl is not None and ttl < own:
                own = ttl
            if own is not None:
                ends[message] = now + own
        return ends

    def _to_wall(self, ends: Mapping[Message, int], run: Iterable[Message]) -> dict[int, int] | None:
        if not ends:
            return None
        return {message.number: self._clock.to_stored(ends[message]) for message in run if message in ends}

    def _publish_within_limits(self, run: Sequence[Message], is_timed: bool) -> Outcome:
        """Take as many as there is room for, as often as handing out makes room; refuse what does not fit."""
        batch, start = 0, 0
        refused: list[Message] = []
        while start < len(run):
            fits = self._that_fit(run, start)
            if fits:
                batch = max(batch, self._take_in(run[start : start + fits], is_timed))
            else:
                fits = 1
                refused.append(run[start])
            start += fits
        if refused and self.rules.overflow == REJECT_PUBLISH_DLX:
            self._dead_letter(refused, MAXLEN, is_stored=False)
        return Outcome(batch, refused)

    def _that_fit(self, run: Sequence[Message], start: int = 0) -> int:
        """How many of these, from this one on, the limits let wait."""
        rules = self.rules
        most = len(run) - start
        if rules.max_length is not None:
            most = min(most, max(0, rules.max_length - len(self.ready)))
        if rules.max_length_bytes is not None:
            left = rules.max_length_bytes - self.ready.octets
            for place in range(most):
                left -= run[start + place].body_size
                if left < 0:
                    return place
        return most

    def has_room_for(self, body_size: int) -> bool:
        """Whether the limits let a message with a body of this size in, or make room for it."""
        rules = self.rules
        if not self._is_limited or rules.overflow == DROP_HEAD:
            return True
        return (rules.max_length is None or len(self.ready) < rules.max_length) and (
            rules.max_length_bytes is None or self.ready.octets + body_size <= rules.max_length_bytes)

    @property
    def _is_over_limits(self) -> bool:
        rules = self.rules
        if not self._is_limited or rules.overflow != DROP_HEAD:
            return False
        return (rules.max_length is not None and len(self.ready) > rules.max_length
                or rules.max_length_bytes is not None and self.ready.octets > rules.max_length_bytes)

    def _trim(self) -> None:
        """Drop the messages at the head that are too many. RabbitMQ docs/maxlength."""
        if self._is_over_limits and not self._is_trimming:
            self._is_trimming = True
            self.jobs.run(self._trim_in_pieces())

    def _trim_in_pieces(self) -> Iterator[None]:
        try:
            while self._is_over_limits:
                if not self.produces_too_much:
                    rules = self.rules
                    most = NO_LIMIT if rules.max_length is None else rules.max_length
                    most_octets = NO_LIMIT if rules.max_length_bytes is None else rules.max_length_bytes
                    self._drop_in_order(self.ready.trim(most, most_octets, PIECE), MAXLEN)
                if self._is_over_limits:
                    yield
        finally:
            self._is_trimming = False

    def is_redelivered(self, message: Message) -> bool:
        """Whether the message has been with somebody before, or may have been."""
        return message.number <= self.redelivered_to or message.number in self.redelivered

    def may_have_redelivered(self, run: Sequence[Message]) -> bool:
        """Whether any of these may have been with somebody before."""
        return bool(self.redelivered) or bool(self.redelivered_to) and min(map(number_of, run)) <= self.redelivered_to

    def restore(
        self, stored: StoredMessages, redelivered: set[int], redelivered_to: int, deliveries: Mapping[int, int]
    ) -> None:
        """Take back what the store kept, at start: it is safe already and nobody consumes yet.

        What is left of a time to live, by the wall clock, is never more than the whole of it.
        """
        self.redelivered |= redelivered
        self.redelivered_to = redelivered_to
        self.deliveries |= deliveries
        self.kept_on_disk += len(stored.numbers)
        if self.watermark is not None and stored.numbers:
            self.watermark.restore(redelivered_to, stored.numbers[-1])
        ends = stored.ends(self.rules.message_ttl_ms, self._clock)
        for level, pages in stored.pages(ends, self.rules.max_priority):
            self.ready.restore(level, pages)
        self._trim()
        self._expire()

    def requeue(self, run: Sequence[Message]) -> None:
        """Put unacked messages back to where they were published, marked as redelivered and counted.

        One that has failed more often than the limit allows dies instead. The caller dispatches.
        """
        if self.deleted:
            self.unacked -= len(run)
        else:
            self.jobs.run(self._requeue_in_pieces(run))

    def _requeue_in_pieces(self, run: Sequence[Message]) -> Iterator[None]:
        back: list[list[Message]] = []
        for start in range(0, len(run), PIECE):
            back.append(sorted(self._count_failures(run[start : start + PIECE]), key=number_of))
            if start + PIECE < len(run):
                yield
        # From the last to the first: so each piece has its place at the head, and finding that costs nothing.
        left = sum(map(len, back))
        for piece in _from_the_last(back):
            left -= len(piece)
            self.unacked -= len(piece)
            self.ready.put_back(piece)
            if not self.paging.is_large:
                self.paging.note_size()
            if self._deadlines:
                self._deadlines.take_back(piece)
            if left:
                yield
        self._trim()
        self._expire()

    def _count_failures(self, run: Sequence[Message]) -> Sequence[Message]:
        """Count one more failed delivery of these; return them without those that die of it."""
        deliveries = self.deliveries
        for message in run:
            deliveries[message.number] = deliveries.get(message.number, 0) + 1
        self.redelivered.update([message.number for message in run])
        counts = {message.number: deliveries[message.number] for message in self.kept(run)}
        if counts and not self.deleted:
            self._journal.requeued(self.definition, counts)
        limit = self.rules.delivery_limit
        if limit is None:
            return run
        poisonous = [message for message in run if deliveries[message.number] > limit]
        if poisonous:
            run = [message for message in run if deliveries[message.number] <= limit]
            self.unacked -= len(poisonous)
            self._drop_unacked(poisonous, DELIVERY_LIMIT)        # which forgets what was counted
        return run

    # Messages out

    def dispatch(self) -> None:
        """Hand ready messages to consumers, in turn, until one side runs out. RabbitMQ docs/consumers."""
        self._expire()
        self._dispatch()

    def _dispatch(self) -> None:
        if self.jobs.has_work or self.deleted:
            return
        dispatcher, effort = self.dispatcher, self.worklist.effort
        while self.ready:
            taker = dispatcher.next_taker()
            if taker is None:
                if dispatcher.has_unasked:
                    effort.total += PIECE
                    self._dispatch_later.ask()
                break
            if not self.paging.see_to_next():
                break
            if effort.is_spent:
                self._dispatch_later.ask()
                return
            if dispatcher.is_sole(taker):
                limit = min(taker.credit, FEW) if self._shows_counts else taker.credit
                self._hand_out(taker, self._take(limit, taker.subscriber.room))
            else:
                takers, rounds = dispatcher.deal(len(self.ready), self.ready.octets)
                self._deal(takers, 1 if self._shows_counts else rounds)
        self.paging.read_ahead()

    @property
    def _shows_counts(self) -> bool:
        """Whether messages may have to be rewritten for delivery, which may cost much more than to hand them out."""
        return bool(self.deliveries) and self.rules.shows_delivery_count

    def _deal(self, takers: list[Consumer], rounds: int) -> None:
        """Hand out one message each, in turn, in so many rounds; then those who took go to the end of the line."""
        if rounds == 1:
            self.worklist.effort.total += DISPATCH_STEPS * len(takers)
            for taker in takers:
                if self.dispatcher.may_still_take(taker):
                    run = self._take(1, NO_LIMIT)
                    if not run:
                        return
                    self._hand_out(taker, run)
                    self.dispatcher.served(taker)
                    if self.worklist.effort.is_spent:
                        return
            return
        dealt = self._take(rounds * len(takers), NO_LIMIT)
        for turn, taker in enumerate(takers):
            self._hand_out(taker, dealt[turn :: len(takers)])
        for taker in takers[: len(dealt) % len(takers)]:
            self.dispatcher.served(taker)

    def _take(self, limit: int, room: int) -> list[Message]:
        if self.watermark is None:
            return self.ready.take(limit, room)
        return self.ready.take(limit, room, self.watermark.bound)

    def _note_handed_out(self, run: Sequence[Message]) -> None:
        if self.watermark is not None:
            last = max(map(number_of, run)) if self.rules.max_priority else run[-1].number
            if self.watermark.handed_out(last):
                self.watermark.ask(max(last + self.watermark.block, self.ready.number_at(self.watermark.block)))

    def _hand_out(self, consumer: Consumer, run: Sequence[Message]) -> None:
        if not run:
            return
        self._note_handed_out(run)
        self.delivered_total += len(run)
        if consumer.no_ack:
            if self._deliver(consumer, run):
                self._settled(run)
            else:
                self.ready.put_back(run)
        else:
            self.unacked += len(run)
            consumer.in_flight += len(run)
            if self._deadlines:
                self._deadlines.hand_out(run)
            self._deliver(consumer, run)

    def _deliver(self, consumer: Consumer, run: Sequence[Message]) -> bool:
        """Deliver, and return whether that worked: an error closes that connection, and gives back what it had."""
        try:
            consumer.subscriber.deliver(consumer, run)
        except Exception:
            log.exception("queue '%s' in vhost '%s': a delivery failed", self.name, self.definition.vhost)
            consumer.subscriber.fail()
            return False
        return True

    def get(self, *, no_ack: bool) -> Message | None:
        """Take the first ready message; unless `no_ack`, it is unacked from now on. Spec: basic.get.

        Raises NotAtHand where it has to be read, and cannot be just now, or where the queue is busy.
        """
        self.use()
        self._expire()
        if self.jobs.has_work:
            raise MessageNotLoaded(self.jobs.call)
        if not self.paging.see_to_next():
            raise MessageNotLoaded(self.paging.call)
        taken = self._take(1, NO_LIMIT)
        if not taken:
            return None
        self._note_handed_out(taken)
        self.got_total += 1
        if not no_ack:
            self.unacked += 1
            if self._deadlines:
                self._deadlines.hand_out(taken)
        return taken[0]

    def reject(self, run: Sequence[Message]) -> int:
        """Give up unacked messages: they go to the dead-letter exchange, or for good. Returns as `settle` does."""
        self.unacked -= len(run)
        return self._drop_unacked(run, REJECTED)

    def release(self, message: Message) -> Message | None:
        """Return what stands for an unacked message whose content is on disk; None if it is not there yet."""
        if not self._is_stored(message):
            return None
        if self._deadlines:
            self._deadlines.release(message)
        self.has_released = True
        return reference_to(message)

    def settle(self, run: Sequence[Message], *, in_transaction: bool = False) -> int:
        """Forget unacked messages for good: they were acked, by themselves or together with other things.

        Returns the journal's batch that makes it so for ever; 0 if nothing needed to be recorded.
        """
        self.unacked -= len(run)
        return self._settled(run, is_answered=not in_transaction)

    def forget(self, message: Message) -> None:
        """Forget a message that `get` handed out without asking for an ack."""
        self._settled([message])

    def _settled(self, run: Sequence[Message], *, is_answered: bool = False) -> int:
        if self.deleted and not self.is_still_stored:
            return 0
        self.settled_total += len(run)
        if self.redelivered:
            self._forget_deliveries([message.number for message in run])
        if self._deadlines:
            self._deadlines.forget(run)
        return self._record_settled(
            [message.number for message in run if message.facts.persistent], is_answered=is_answered)

    def settle_on_disk(self, on_disk: OnDisk) -> int:
        """Forget messages that were on disk, and left the line unread. Returns as `settle` does."""
        if on_disk.spill_file is not None:
            on_disk.spill_file.forget(on_disk.numbers)
        if self.deleted:
            return 0
        self.settled_total += len(on_disk.numbers)
        if self.redelivered:
            self._forget_deliveries(on_disk.numbers)
        return self._record_settled(on_disk.stored)

    def _record_settled(self, numbers: list[int], *, is_answered: bool = False) -> int:
        if not numbers or not self.definition.durable:
            return 0
        self.kept_on_disk -= len(numbers)
        return self._journal.settled(self.definition, numbers, is_answered=is_answered)

    def purge(self) -> Purge:
        """Drop every ready message; unacked ones stay. Spec: queue.purge."""
        purge = Purge(len(self.ready), self.worklist)
        self.jobs.run(self._purge_in_pieces(self.ready.clear(), purge))
        return purge

    def _purge_in_pieces(self, left: Cleared, purge: Purge) -> Iterator[None]:
        missing, done = purge.count, 0
        try:
            for piece in chain.from_iterable(map(_pieces_of, left)):
                done += len(piece.numbers) if isinstance(piece, OnDisk) else len(piece)
                batch = self.settle_on_disk(piece) if isinstance(piece, OnDisk) else self._settled(piece)
                purge.batch = max(purge.batch, batch)
                if done >= PIECE and missing > done:
                    missing, done = missing - done, 0
                    yield
        finally:
            purge.end()

    def end(self) -> None:
        """The queue is deleted: its messages go with it, and its consumers are told, some at a time."""
        self.deleted = True
        self.paging.end()
        self.jobs.clear()
        left = self.ready.clear()
        Departure(self._take_apart(left, [*self.consumers]), self.worklist)
        Discard(self.worklist, [
            *[part for part in left if not isinstance(part, Page)], *self._deadlines.let_go(), self.redelivered,
            self.deliveries])
        # What refers to the queue lets go of it, so that it is freed with the last one who still knows it.
        self._clock.cancel(self._wake_up)
        self._dispatch_later.cancel()
        self.paging.release()

    def _take_apart(self, left: Cleared, consumers: list[Consumer]) -> Iterator[Act]:
        for consumer in consumers:
            yield CANCEL_STEPS, partial(self._cancel, consumer)
        yield from forget_spill_files(left)

    def _cancel(self, consumer: Consumer) -> None:
        if consumer in self.consumers:      # else it has left meanwhile
            self.dispatcher.remove(consumer)
            consumer.subscriber.cancelled(consumer)

    def _forget_deliveries(self, numbers: Sequence[int]) -> None:
        self.redelivered.difference_update(numbers)
        if self.deliveries:
            for number in numbers:
                self.deliveries.pop(number, None)

    # Dead letters and expiry

    @property
    def _dead_letters(self) -> bool:
        """Whether messages that die here are to be moved to a dead-letter exchange."""
        return self.rules.dead_letter_exchange is not None and self._sink is not None

    @property
    def produces_too_much(self) -> bool:
        """Return whether more messages were dead-lettered than could be moved yet."""
        return self._sink is not None and self._sink.is_behind(self)

    def drop(self, run: Sequence[Message], reason: str) -> int:
        """Drop messages that have left `ready` or `unacked`: dead-letter them if the rules say where to.

        Those that are to be moved stay until they have been, after a stop before that they are ready again. Returns the
        journal's batch that is to make it last, or 0.
        """
        if self.deleted:
            return 0
        if not self._dead_letters:
            return self._settled(run)
        self._dead_lettering += len(run)
        if self._deadlines:
            self._deadlines.forget(run)
        if reason == REJECTED:
            self.redelivered.update(map(number_of, run))
        self._dead_letter(run, reason)
        return self._journal.batch if self.kept(run) else 0

    def _drop_unacked(self, run: Sequence[Message], reason: str) -> int:
        """Drop messages that were unacked; those on disk are loaded first. Returns as `drop` does.

        Messages in memory do not wait for others that have to be loaded: an answer should be on disk with the batch
        that is being filled.
        """
        if all([message.content for message in run]) or self.deleted or not self._dead_letters:
            return self.drop(run, reason)
        self.redelivered.update(map(number_of, run))        # a stop may come before they are loaded
        if self._deadlines:
            self._deadlines.forget(run)
        self.paging.drop(_by_place(run), reason)
        return self._journal.batch if self.kept(run) else 0

    def _dead_letter(self, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        if self._sink is None or not self._dead_letters:
            return
        self.worklist.effort.total += len(run)
        try:
            self._sink.dead_letter(self, run, reason, is_stored=is_stored)
        except Exception:
            log.exception("queue '%s' in vhost '%s': %d messages cannot be dead-lettered and are set aside", self.name,
                          self.definition.vhost, len(run))
            if is_stored:
                self.set_aside(run)

    def _drop_in_order(self, left: Removed, reason: str) -> None:
        """Drop messages that have left the FIFO, in order; those on disk are loaded first if they are dead-lettered."""
        if self._dead_letters:
            if self._deadlines:
                for part in left:
                    if not isinstance(part, OnDisk):
                        self._deadlines.forget(part)    # it may have to wait for what dies before it
            self.paging.drop(left, reason)
            return
        for part in left:
            if isinstance(part, OnDisk):
                self.settle_on_disk(part)
            else:
                self.drop(part, reason)

    def drop_loaded(self, run: Sequence[Message], on_disk: OnDisk, reason: str) -> None:
        """Drop messages that were loaded for that; those that were not found are lost already."""
        self.drop(run, reason)
        lost = {*on_disk.numbers}.difference([message.number for message in run])
        if lost:
            self.settle_on_disk(OnDisk(sorted(lost), on_disk.spill_file))

    def dead_lettered(self, run: Sequence[Message]) -> None:
        """Forget dead-lettered messages: their copies are in their queues."""
        if run:
            self._dead_lettering -= len(run)
            self._settled(run)

    def lost(self, on_disk: OnDisk) -> None:
        """Forget messages that cannot be loaded any more to be dead-lettered."""
        self._dead_lettering -= len(on_disk.numbers)
        self.settle_on_disk(on_disk)

    def set_aside(self, run: Sequence[Message]) -> None:
        """Keep messages that cannot be dead-lettered: they are counted and shown, and the store keeps them."""
        self._dead_lettering -= len(run)
        if not self.deleted:
            self.aside.update({message.number: message for message in run})

    def _expire(self) -> None:
        """Drop the ready messages that have expired. RabbitMQ docs/ttl."""
        next_ms = self._deadlines.next_ms if self._deadlines else None
        next_expiry, now = self.ready.next_expiry, self._clock.now_ms
        if next_ms is not None and next_ms <= now or next_expiry is not None and next_expiry <= now:
            if not self._is_expiring:
                self._is_expiring = True
                self.jobs.run(self._expire_in_pieces())
            return
        self._ask_to_be_woken(next_ms)
        self._ask_to_be_woken(next_expiry)

    def _expire_in_pieces(self) -> Iterator[None]:
        # Asked for first, so that after an error the rest is tried again.
        next_ms: int | None = self._clock.now_ms + RETRY_MS
        next_expiry: int | None = None
        try:
            while True:
                now = self._clock.now_ms
                if not self.produces_too_much:
                    due = self._deadlines.take_due(now, PIECE) if self._deadlines else []
                    if due:
                        self.ready.remove(due)
                        self.drop(due, EXPIRED)
                    if (next_expiry := self.ready.next_expiry) is not None and next_expiry <= now:
                        self._drop_in_order(self.ready.take_due(now, PIECE), EXPIRED)
                soonest, next_expiry = self._deadlines.next_ms if self._deadlines else None, self.ready.next_expiry
                if (soonest is None or soonest > now) and (next_expiry is None or next_expiry > now):
                    next_ms = soonest
                    break
                yield
        finally:
            self._is_expiring = False
            self._ask_to_be_woken(next_ms)
            self._ask_to_be_woken(next_expiry)

    # Time

    def use(self) -> None:
        """Somebody declared this queue, took from it, or stopped consuming: its own time begins anew."""
        self._last_used_ms = self._clock.now_ms
        if self.rules.expires_ms is not None:
            self._ask_to_be_woken(self._last_used_ms + self.rules.expires_ms)

    def _ask_to_be_woken(self, when_ms: int | None) -> None:
        if when_ms is not None and (self._wakes_at is None or when_ms < self._wakes_at):
            self._clock.cancel(self._wake_up)
            self._wakes_at = when_ms
            self._wake_up = self._clock.wake_at(when_ms, self)

    def wake(self) -> None:
        """The clock has come to where something may be due."""
        self._wakes_at = None
        if self.deleted:
            return
        try:
            self._do_what_is_due()
        except Exception:
            self._ask_to_be_woken(self._clock.now_ms + RETRY_MS)
            raise

    def _do_what_is_due(self) -> None:
        expires = self.rules.expires_ms
        if expires is not None and not self.consumers and self._sink is not None:
            if self._clock.now_ms >= self._last_used_ms + expires:
                self._sink.unused(self)
                return
            self._ask_to_be_woken(self._last_used_ms + expires)
        self._expire()

    # Consumers

    def subscribe(self, consumer: Consumer) -> None:
        """Add a consumer at the end of the line. The caller dispatches once it has answered the client.

        Raises ChannelException: ACCESS_REFUSED where either side asks for the queue for itself.
        """
        others = self.dispatcher
        if (others.consumers and (consumer.exclusive or others.exclusive is not None)) or (
                consumer.exclusive and self.rules.single_active_consumer):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED, f"queue '{self.name}' in vhost '{self.definition.vhost}' in exclusive use")
        others.add(consumer)
        self.had_consumer = True

    def unsubscribe(self, consumer: Consumer) -> None:
        """Remove a consumer; what it has not answered stays unacked with its channel."""
        self.dispatcher.remove(consumer)
        if not self.deleted:
            self.use()

    def unblock(self, consumer: Consumer) -> None:
        """Ask this consumer again, if it was blocked: there may be credit and room for it. The caller dispatches."""
        if consumer.is_blocked:
            self.dispatcher.unblock(consumer)

    @property
    def consumers(self) -> Collection[Consumer]:
        """Return its consumers, in the order in which they came."""
        return self.dispatcher.consumers

    @property
    def active(self) -> Consumer | None:
        """Return the single active consumer, where the rules want one."""
        return self.dispatcher.active

    @property
    def is_unused(self) -> bool:
        """An auto-delete queue goes when this is true: it had consumers, and the last one left."""
        return self.had_consumer and not self.consumers

    # Outlook

    def keeps_up(self) -> bool:
        """Whether, since this was last asked, a quarter as many messages were handed out as came, and any at all."""
        came, went = self.published_total, self.delivered_total + self.got_total
        does = went > self._went and 4 * (went - self._went) >= came - self._came
        self._came, self._went = came, went
        return does

    def statistics(self) -> dict[str, Any]:
        """Counts as of now; `*_bytes` are octets of bodies."""
        return {
            "messages_ready": len(self.ready),
            "messages_unacknowledged": self.unacked,
            "messages": len(self.ready) + self.unacked,
            "message_bytes_ready": self.ready.octets,
            "consumers": len(self.consumers),
            "published": self.published_total,
            "delivered": self.delivered_total,
            "got": self.got_total,
            "settled": self.settled_total,
            "redelivered": self.redelivered_total,
            "messages_set_aside": len(self.aside),
        }

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.ready.check()
        self._deadlines.check(self.ready)
        assert not self._is_over_limits or self._is_trimming, "more messages than the limits allow"
        assert self.unacked >= 0, "more answers than deliveries"
        assert self.kept_on_disk >= sum(map(self.keeps, self.ready)), "more is on disk than is known of"
        assert self._dead_lettering >= 0, "more were moved than were to be dead-lettered"
        here = len(self.ready) + self.unacked + self._dead_lettering + self.paging.to_be_dropped + len(self.aside)
        assert len(self.redelivered) <= here, "a settled message counts as redelivered"
        self.dispatcher.check()
        waits = self.paging.is_waiting or self.jobs.has_work or self._dispatch_later.has_work
        assert waits or not (len(self.ready) and self.dispatcher.has_idle), "ready message, idle consumer"


def _is_stored(page_store: PageStore, message: Message) -> bool:
    """Return whether a message of a durable queue can be fetched from the store."""
    return message.facts.persistent and message.number <= page_store.safe_number


def _by_place(run: Sequence[Message]) -> Removed:
    """Return these messages in parts: those in memory as they are, and references by number, a page's worth each."""
    left: Removed = []
    for is_in_memory, group in groupby(run, key=lambda message: bool(message.content)):
        if is_in_memory:
            left.append([*group])
            continue
        octets = PAGE_OCTETS
        for message in sorted(group, key=number_of):
            if octets >= PAGE_OCTETS:
                on_disk = OnDisk([])
                left.append(on_disk)
                octets = 0
            on_disk.numbers.append(message.number)
            octets += message.body_size
    return left


def _from_the_last(runs: list[list[Message]]) -> Iterator[list[Message]]:
    """Take messages, of which each run is in order, in pieces from the highest number to the lowest."""
    runs = [run for run in runs if run]
    if all([before[-1].number < after[0].number for before, after in zip(runs, runs[1:])]):
        while runs:
            yield runs.pop()
        return
    merged = heapq.merge(*map(reversed, runs), key=number_of, reverse=True)
    while piece := [*islice(merged, PIECE)]:
        yield piece[::-1]


def _pieces_of(part: list[Message] | Page) -> Iterator[list[Message] | OnDisk]:
    """Take messages that have left the line apart, a piece at a time, so that each can be freed."""
    if isinstance(part, Page):
        numbers = part.on_disk.numbers
        for start in range(0, len(numbers), PIECE):
            yield OnDisk(numbers[start : start + PIECE], part.spill_file)
        return
    while part:
        piece = part[-PIECE:]
        del part[-PIECE:]
        yield piece
