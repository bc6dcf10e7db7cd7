"""A queue with rules and random operations: expiries, limits, priorities, failed deliveries, dead letters.

The model knows when each message expires, how often it failed, and where it is. A message may leave the queue only
once, and only for a valid reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from amqpd.broker.clock import Clock
from amqpd.broker.definitions import Defined
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.rules import QueueRules
from amqpd.message import Message, MessageProperties
from tests.support.journals import RecordingJournal
from tests.support.samples import message, queue_definition
from tests.support.subscribers import ListSubscriber, answered

WALL_AHEAD_MS = 1_700_000_000_000


class Place(Enum):
    """Where a message is."""

    READY = auto()
    UNACKED = auto()
    SETTLED = auto()
    DEAD = auto()
    REFUSED = auto()


class Known:
    """What the model knows of a message."""

    def __init__(self, sent: Message, end_ms: int | None, level: int) -> None:
        self.sent = sent
        self.end_ms = end_ms
        self.level = level
        self.place = Place.READY
        self.failures = 0

    @property
    def turn(self) -> tuple[int, int]:
        """The order of dispatch."""
        return -self.level, self.sent.number


class QueueRulesMachine(RuleBasedStateMachine):
    """One queue, one channel that consumes from it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(1_000, 1_000 + WALL_AHEAD_MS)
        self.journal = RecordingJournal()
        self.subscriber = ListSubscriber()
        self.consumer: Consumer | None = None
        self.consumers: dict[str, Consumer] = {}
        self.known: dict[int, Known] = {}
        self.owed: dict[int, Consumer] = {}
        self.seen = 0
        self.numbers, self.tags = count(1), count(1)
        self.rejecting: set[int] = set()
        self.publishing: set[int] = set()
        self.was_unused = False

    @initialize(
        ttl=st.sampled_from([None, None, 0, 50, 200]), length=st.sampled_from([None, 0, 1, 3]),
        octets=st.sampled_from([None, None, 25]), overflow=st.sampled_from(
            ["drop-head", "drop-head", "reject-publish", "reject-publish-dlx"]),
        highest=st.sampled_from([0, 0, 2]), deliveries=st.sampled_from([None, 0, 2]), durable=st.booleans(),
        has_exchange=st.booleans())
    def begin(
        self, ttl: int | None, length: int | None, octets: int | None, overflow: str, highest: int,
        deliveries: int | None, durable: bool, has_exchange: bool,
    ) -> None:
        self.holds = QueueRules(
            message_ttl_ms=ttl, max_length=length, max_length_bytes=octets, overflow=overflow, max_priority=highest,
            delivery_limit=deliveries, dead_letter_exchange="dead" if has_exchange else None)
        definition = queue_definition(durable=durable)
        if durable:
            self.journal.changed(Defined(definition))
        self.queue = Queue(definition, self.journal, rules=self.holds, clock=self.clock, sink=self, unused=self.unused)

    # The dead-letter sink

    def dead_letter(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        """See broker/queue/queue.py."""
        for one in run:
            known = self.known[one.number]
            assert known.place in (Place.READY, Place.UNACKED), "died twice, or after it had gone"
            assert {
                "expired": known.end_ms is not None and known.end_ms <= self.clock.now_ms,
                "maxlen": self.holds.max_length is not None or self.holds.max_length_bytes is not None,
                "delivery_limit": known.failures > (self.holds.delivery_limit or 0),
                "rejected": one.number in self.rejecting,
            }[reason], f"died as {reason}"
            known.place = Place.DEAD
        if is_stored and self.holds.dead_letter_exchange is not None:
            queue.dead_letters.moved(run)    # it has been moved

    def is_behind(self, queue: Queue) -> bool:
        """See broker/queue/queue.py."""
        return False

    def unused(self, queue: Queue) -> None:
        """Fail: the queue itself does not expire."""
        raise AssertionError("the queue itself does not end")

    # What clients do

    @rule(
        bodies=st.lists(st.sampled_from([0, 10, 20]), min_size=1, max_size=5), persistent=st.booleans(),
        priority=st.sampled_from([None, 0, 1, 2, 9]), expiration=st.sampled_from([None, None, 0, 30, 100]))
    def publish(self, bodies: list[int], persistent: bool, priority: int | None, expiration: int | None) -> None:
        facts = MessageProperties(persistent=persistent, priority=priority, expiration_ms=expiration)
        run = [message(next(self.numbers), bytes(size), persistent=persistent) for size in bodies]
        lives = [life for life in (expiration, self.holds.message_ttl_ms) if life is not None]
        for one in run:
            one.facts = facts
            end_ms = self.clock.now_ms + min(lives) if lives else None
            self.known[one.number] = Known(one, end_ms, min(priority or 0, self.holds.max_priority))
        self.publishing = {one.number for one in run}
        outcome = self.queue.publish(run, is_timed=expiration is not None)
        self.listen()
        self.publishing.clear()
        self.refuse(run, outcome.refused)
        self.forget_the_dropped()

    def refuse(self, run: list[Message], refused: Sequence[Message]) -> None:
        if refused:
            assert self.holds.overflow != "drop-head"
            assert [*refused] == [one for one in run if one in refused], "refused out of order"
        for one in refused:
            known = self.known[one.number]
            dies_too = self.holds.overflow == "reject-publish-dlx" and self.holds.dead_letter_exchange is not None
            assert known.place is (Place.DEAD if dies_too else Place.READY)
            known.place = Place.REFUSED

    def forget_the_dropped(self, *handed_out: int) -> None:
        """Remove the messages that were dropped without a dead-letter exchange, and check their reasons."""
        if self.holds.dead_letter_exchange is not None:
            return
        left = {one.number for one in self.queue.ready}.union(handed_out)
        left.update(number for _, number in self.subscriber.delivered[self.seen :])
        for known in self.at(Place.READY):
            if known.sent.number not in left:
                self.dead_letter(self.queue, [known.sent], self.reason_of(known))

    def reason_of(self, known: Known) -> str:
        if known.end_ms is not None and known.end_ms <= self.clock.now_ms:
            return "expired"
        limit = self.holds.delivery_limit
        return "delivery_limit" if limit is not None and known.failures > limit else "maxlen"

    @rule(prefetch=st.integers(0, 2), no_ack=st.booleans())
    def subscribe(self, prefetch: int, no_ack: bool) -> None:
        if len(self.queue.consumers) < 2:
            consumer = Consumer(
                f"c{next(self.tags)}", self.queue, self.subscriber, prefetch=prefetch, no_ack=no_ack, unacked_limit=4)
            self.consumers[consumer.tag] = consumer
            self.queue.subscribe(consumer)
            self.dispatch()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.queue.consumers:
            self.queue.unsubscribe(data.draw(st.sampled_from([*self.queue.consumers])))

    @rule(no_ack=st.booleans())
    def get(self, no_ack: bool) -> None:
        found = self.queue.get(no_ack=no_ack)
        self.forget_the_dropped(*([found.number] if found else []))
        expected = min(self.at(Place.READY), key=lambda known: known.turn, default=None)
        assert (found and found.number) == (expected and expected.sent.number)
        if expected is not None and found is not None:
            assert expected.end_ms is None or expected.end_ms > self.clock.now_ms, "got after its end"
            if no_ack:
                self.queue.forget(found)
                expected.place = Place.SETTLED
            else:
                expected.place = Place.UNACKED
                self.owed[found.number] = Consumer("", self.queue, self.subscriber)

    @precondition(lambda self: self.owed)
    @rule(data=st.data(), verdict=st.sampled_from(["ack", "requeue", "requeue", "reject"]))
    def answer(self, data: st.DataObject, verdict: str) -> None:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.owed)), min_size=1, unique=True))
        run = [self.known[number].sent for number in numbers]
        for number in numbers:
            consumer = self.owed.pop(number)
            if consumer.tag:
                answered(consumer, 1)
                self.subscriber.outstanding -= 1
        if verdict == "requeue":
            for number in numbers:
                self.known[number].failures += 1
                self.known[number].place = Place.READY
            self.queue.requeue(run)
        elif verdict == "reject":
            self.rejecting = set(numbers)
            self.queue.reject(run)
            for number in numbers:
                self.known[number].place = Place.DEAD
        else:
            self.queue.settle(run)
            for number in numbers:
                self.known[number].place = Place.SETTLED
        self.forget_the_dropped()
        self.dispatch()

    @rule()
    def purge(self) -> None:
        self.queue.purge()
        for known in self.at(Place.READY):
            known.place = Place.SETTLED

    @rule(ms=st.sampled_from([1, 29, 30, 50, 100, 500]))
    def pass_time(self, ms: int) -> None:
        self.clock.advance(self.clock.now_ms + ms)
        self.forget_the_dropped()
        now = self.clock.now_ms
        due = [known for known in self.at(Place.READY) if known.end_ms is not None and known.end_ms <= now]
        assert not due, "something waits past its end, and nobody was woken"

    # What is delivered

    def dispatch(self) -> None:
        self.subscriber.line.unblock()
        self.queue.dispatch()
        self.forget_the_dropped()
        self.listen()

    def listen(self) -> None:
        fresh = self.subscriber.delivered[self.seen :]
        self.seen = len(self.subscriber.delivered)
        for tag, number in fresh:
            known, consumer = self.known[number], self.consumers[tag]
            assert known.place is Place.READY, "delivered, and not there to be"
            ends_at_once = number in self.publishing and known.end_ms == self.clock.now_ms
            assert known.end_ms is None or known.end_ms > self.clock.now_ms or ends_at_once, "delivered after its end"
            known.place = Place.SETTLED if consumer.no_ack else Place.UNACKED
            if not consumer.no_ack:
                self.owed[number] = consumer
        if not self.publishing and fresh:
            ready = [known.turn for known in self.at(Place.READY)]
            last = max(self.known[number].turn for _, number in fresh)
            assert not ready or last < min(ready), "a later message went before an earlier one"

    def at(self, place: Place) -> list[Known]:
        return [known for known in self.known.values() if known.place is place]

    # What always holds

    @invariant()
    def the_queue_holds_its_own_promises(self) -> None:
        self.queue.check()

    @invariant()
    def every_message_is_where_it_should_be(self) -> None:
        expected = [known.sent.number for known in sorted(self.at(Place.READY), key=lambda known: known.turn)]
        assert [one.number for one in self.queue.ready] == expected
        assert self.queue.unacked == len(self.at(Place.UNACKED)) == len(self.owed)

    @invariant()
    def the_limits_hold(self) -> None:
        ready = [known.sent for known in self.at(Place.READY)]
        rules = self.holds
        if rules.overflow == "drop-head" or not any(known.failures for known in self.known.values()):
            assert rules.max_length is None or len(ready) <= rules.max_length
            assert rules.max_length_bytes is None or sum(one.body_size for one in ready) <= rules.max_length_bytes

    @invariant()
    def the_journal_has_what_must_survive_and_when_it_ends(self) -> None:
        kept = [
            known for place in (Place.READY, Place.UNACKED) for known in self.at(place)
            if known.sent.facts.persistent and self.queue.definition.durable]
        journal = self.journal.now
        assert sorted(journal.messages.get(1, {})) == sorted(known.sent.number for known in kept)
        assert journal.expiries.get(1, {}) == {
            known.sent.number: known.end_ms + WALL_AHEAD_MS for known in kept if known.end_ms is not None}
        assert journal.deliveries.get(1, {}) == {
            known.sent.number: known.failures for known in kept if known.failures}


TestQueueRulesMachine = QueueRulesMachine.TestCase
