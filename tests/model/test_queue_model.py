"""A queue with random operations: publishes, consumers, acks, gets, purges, and full connections.

The model knows where each message is and whether it was ever delivered; each promise of a queue is one line.
"""

from __future__ import annotations

from enum import Enum, auto
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from amqpd.broker.definitions import Defined
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.message import Message
from tests.support.journals import RecordingJournal
from tests.support.samples import message, queue_definition
from tests.support.subscribers import PLENTY, ListSubscriber, SharedRoom, answered


class Place(Enum):
    """Where a message is."""

    READY = auto()
    UNACKED = auto()
    GONE = auto()


class QueueMachine(RuleBasedStateMachine):
    """One queue; two connections with two channels each."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = RecordingJournal()
        self.lines = [SharedRoom(), SharedRoom()]
        self.channels = [
            ListSubscriber(line, address=(number, n)) for number, line in enumerate(self.lines) for n in (1, 2)]
        self.consumers: list[Consumer] = []
        self.messages: dict[int, Message] = {}
        self.places: dict[int, Place] = {}
        self.handed_out: set[int] = set()
        self.owed: dict[int, Consumer] = {}      # unacked messages, and to whom they were given
        self.seen = [0] * len(self.channels)
        self.next_number = 1
        self.tags = count(1)

    @initialize(durable=st.booleans())
    def begin(self, durable: bool) -> None:
        definition = queue_definition(durable=durable)
        if durable:
            self.journal.changed(Defined(definition))
        self.queue = Queue(definition, self.journal)

    # What clients do

    @rule(
        channel=st.integers(0, 3), prefetch=st.integers(0, 3), no_ack=st.booleans(), priority=st.integers(0, 1),
        shared=st.sampled_from([None, None, 0, 1, 2]))
    def subscribe(self, channel: int, prefetch: int, no_ack: bool, priority: int, shared: int | None) -> None:
        if len(self.consumers) >= 6:
            return
        subscriber = self.channels[channel]
        if shared is not None:
            subscriber.shared_prefetch = shared
        consumer = Consumer(
            f"c{next(self.tags)}", self.queue, subscriber, no_ack=no_ack, prefetch=prefetch,
            unacked_limit=5, arguments={"x-priority": priority})
        self.queue.subscribe(consumer)
        self.consumers.append(consumer)
        self.dispatch()

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        consumer = data.draw(st.sampled_from(self.consumers))
        self.queue.unsubscribe(consumer)
        self.consumers.remove(consumer)

    @rule(sizes=st.lists(st.sampled_from([0, 10, 500]), min_size=1, max_size=8), persistent=st.booleans())
    def publish(self, sizes: list[int], persistent: bool) -> None:
        run = [message(self.next_number + n, bytes(size), persistent=persistent) for n, size in enumerate(sizes)]
        self.next_number += len(run) + 1
        for one in run:
            self.messages[one.number] = one
            self.places[one.number] = Place.READY
        self.queue.publish(run)
        self.look()

    @rule(no_ack=st.booleans())
    def get(self, no_ack: bool) -> None:
        expected = min(self.at(Place.READY), default=None)
        found = self.queue.get(no_ack=no_ack)
        assert (found.number if found else None) == expected
        if found is None:
            return
        if no_ack:
            self.queue.forget(found)
            self.places[found.number] = Place.GONE
        else:
            self.places[found.number] = Place.UNACKED
            self.owed[found.number] = Consumer("", self.queue, self.channels[0])
            self.handed_out.add(found.number)

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        run = self.answer(data)
        for one in run:
            self.places[one.number] = Place.GONE
        self.queue.settle(run)
        self.dispatch()

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        run = self.answer(data)
        for one in run:
            self.places[one.number] = Place.READY
        self.queue.requeue(run)
        self.dispatch()

    def answer(self, data: st.DataObject) -> list[Message]:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.owed)), min_size=1, unique=True))
        for number in numbers:
            consumer = self.owed.pop(number)
            if consumer.tag:
                answered(consumer, 1)
                subscriber = consumer.subscriber
                assert isinstance(subscriber, ListSubscriber)
                subscriber.outstanding -= 1
        return [self.messages[number] for number in numbers]

    @rule()
    def purge(self) -> None:
        ready = self.at(Place.READY)
        assert self.queue.purge().count == len(ready)
        for number in ready:
            self.places[number] = Place.GONE

    @rule(line=st.integers(0, 1), room=st.sampled_from([0, -50, 1, 300, 700, PLENTY, PLENTY]))
    def change_room(self, line: int, room: int) -> None:
        self.lines[line].room = room
        self.dispatch()

    @rule()
    def commit(self) -> None:
        self.journal.commit()

    # What is delivered

    def dispatch(self) -> None:
        for line in self.lines:
            line.unblock()
        self.queue.dispatch()
        self.look()

    def look(self) -> None:
        """Take note of what was delivered in this step."""
        delivered = []
        for index, channel in enumerate(self.channels):
            fresh = channel.delivered[self.seen[index] :]
            self.seen[index] = len(channel.delivered)
            numbers_by_tag: dict[str, list[int]] = {}
            for tag, number in fresh:
                numbers_by_tag.setdefault(tag, []).append(number)
                self.note(channel, tag, number)
            assert all(numbers == sorted(numbers) for numbers in numbers_by_tag.values()), "out of publish order"
            delivered += [number for _, number in fresh]
        ready = self.at(Place.READY)
        assert not delivered or not ready or max(delivered) < min(ready), "a later message went before an earlier one"

    def note(self, channel: ListSubscriber, tag: str, number: int) -> None:
        consumer, = [one for one in self.consumers if one.tag == tag]
        assert consumer.subscriber is channel
        assert self.places[number] is Place.READY, "delivered twice, or never published"
        if consumer.no_ack:
            self.places[number] = Place.GONE
        else:
            self.places[number] = Place.UNACKED
            self.owed[number] = consumer
            self.handed_out.add(number)

    def at(self, place: Place) -> list[int]:
        return [number for number, found in self.places.items() if found is place]

    # What always holds

    @invariant()
    def the_queue_holds_its_own_promises(self) -> None:
        self.queue.check()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert [one.number for one in self.queue.ready] == sorted(self.at(Place.READY))
        assert self.queue.unacked == len(self.at(Place.UNACKED)) == len(self.owed)

    @invariant()
    def redelivered_means_handed_out_and_given_back(self) -> None:
        ready = set(self.at(Place.READY))
        assert self.queue.redelivery.numbers & ready == self.handed_out & ready
        assert self.queue.redelivery.numbers <= ready | set(self.owed)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for consumer in self.consumers:
            held = sum(owner is consumer for owner in self.owed.values())
            assert consumer.in_flight == held <= (consumer.prefetch or 5)

    @invariant()
    def the_journal_has_what_must_survive(self) -> None:
        kept = self.journal.now.messages.get(1, {})
        assert sorted(kept) == sorted(
            number for number, place in self.places.items()
            if place is not Place.GONE and self.queue.definition.durable and self.messages[number].facts.persistent)
        assert self.queue.records.kept_on_disk == len(kept)

    @invariant()
    def the_totals_add_up(self) -> None:
        counts = self.queue.statistics()
        assert counts.published == len(self.messages)
        assert counts.settled == len(self.at(Place.GONE))
        assert counts.ready + counts.unacked == counts.published - counts.settled


TestQueueMachine = QueueMachine.TestCase
