"""Delivery to consumers and basic.get: how many messages at once, to which consumer, and what an error leaves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from amqpd.broker.effort import Effort
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.dispatcher import DEALT_TO
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue
from amqpd.broker.rules import QueueRules
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.message import Message
from tests.support.journals import RefusingJournal
from tests.support.samples import message, messages, queue_definition
from tests.support.subscribers import ListSubscriber, SharedRoom, requeue, settle, subscribe


class FailingSubscriber(ListSubscriber):
    """A channel with a bug: it takes nothing, and its connection fails."""

    failures = 0

    def deliver(self, consumer: Consumer, run: Sequence[Message]) -> None:
        """See broker/ports.py."""
        raise RuntimeError("a bug")

    def fail(self) -> None:
        """See broker/ports.py."""
        super().fail()
        self.failures += 1


@pytest.fixture
def queue() -> Queue:
    return Queue(queue_definition(), RefusingJournal())


def test_a_delivery_that_fails_without_acks_leaves_the_messages_in_the_queue(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = FailingSubscriber(), ListSubscriber()
    subscribe(queue, broken, "broken", no_ack=True)
    queue.publish(messages(1, 2))
    assert (broken.failures, queue.unacked, [one.number for one in queue.ready]) == (1, 0, [1, 2])
    assert "queue 'orders' in vhost '/': a delivery failed" in caplog.text
    subscribe(queue, sound, "sound")
    assert sound.numbers() == [1, 2]
    assert queue.statistics().settled == 0
    queue.check()


def test_a_delivery_that_fails_is_unacked_until_its_connection_gives_it_back(queue: Queue) -> None:
    broken = FailingSubscriber()
    run = messages(1, 2)
    consumer = subscribe(queue, broken)
    queue.publish(run)
    assert (broken.failures, queue.unacked, consumer.in_flight, len(queue.ready)) == (1, 2, 2, 0)
    requeue(consumer, *run)
    assert [one.number for one in queue.ready] == [1, 2]


@pytest.mark.parametrize("room, taken", [(1, 1), (100, 2), (105, 2), (106, 2), (111, 3), (500, 6), (1_049, 10)])
def test_one_consumer_takes_as_much_as_its_connection_has_room_for(queue: Queue, room: int, taken: int) -> None:
    """Each message counts with 100 bytes beside its body of 5; the last one may go beyond the room."""
    subscriber = ListSubscriber(SharedRoom(room))
    subscribe(queue, subscriber)
    queue.publish(messages(*range(1, 11)))
    assert subscriber.runs[0] == [*range(1, taken + 1)]
    assert len(queue.ready) == 10 - len(subscriber.numbers())


def test_a_run_goes_past_the_queue_only_if_there_is_credit_for_all_of_it(queue: Queue) -> None:
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, prefetch=3)
    queue.publish(messages(1, 2, 3))
    assert (subscriber.runs, len(queue.ready)) == ([[1, 2, 3]], 0)
    queue.publish(messages(4, 5))
    assert (subscriber.runs, len(queue.ready)) == ([[1, 2, 3]], 2)
    queue.check()


def test_while_messages_wait_for_room_what_is_published_comes_after_them(queue: Queue) -> None:
    subscriber = ListSubscriber(SharedRoom(0))
    subscribe(queue, subscriber)
    queue.publish(messages(1, 2))
    subscriber.line.room = 10_000
    subscriber.line.unblock()
    queue.publish(messages(3))
    assert subscriber.numbers() == [1, 2, 3]


def test_a_get_waits_until_the_queue_is_no_longer_busy() -> None:
    worklist = Worklist(Effort())
    queue = Queue(queue_definition(), RefusingJournal(), worklist=worklist)
    run = messages(*range(1, 3 * PIECE))
    queue.publish(run)
    for _ in run:
        queue.get(no_ack=False)
    worklist.effort.begin()
    queue.requeue(run)
    assert queue.jobs.has_work
    with pytest.raises(MessageNotLoaded) as waiting:
        queue.get(no_ack=True)
    called: list[Message | None] = []
    waiting.value.call(lambda: called.append(queue.get(no_ack=True)))
    worklist.work_off()
    assert called == run[:1] and queue.statistics().got == len(run) + 1


# Several consumers

def test_messages_are_dealt_in_rounds_and_the_next_in_turn_goes_on(queue: Queue) -> None:
    run = messages(*range(1, 9))
    queue.publish(run)
    subscribers = [ListSubscriber(SharedRoom(0)) for _ in range(3)]
    consumers = [subscribe(queue, one, f"c{at}") for at, one in enumerate(subscribers)]
    for one in subscribers:
        one.line.room = 1 << 20
        for consumer in consumers:
            if consumer.subscriber is one:
                queue.unblock(consumer)
    queue.dispatch()
    assert [one.runs for one in subscribers] == [[[1, 4], [7]], [[2, 5], [8]], [[3, 6]]]
    queue.publish(messages(9))
    assert subscribers[2].numbers() == [3, 6, 9]
    queue.check()


def test_no_round_gives_more_than_the_least_credit(queue: Queue) -> None:
    queue.publish(messages(*range(1, 13)))
    subscribers = [ListSubscriber(SharedRoom(0)) for _ in range(2)]
    consumers = [subscribe(queue, one, f"c{at}", prefetch=2 + at) for at, one in enumerate(subscribers)]
    for one, consumer in zip(subscribers, consumers):
        one.line.room = 1 << 20
        queue.unblock(consumer)
    queue.dispatch()
    assert [one.runs for one in subscribers] == [[[1, 3]], [[2, 4], [5]]]
    queue.check()


def test_a_consumer_that_can_take_no_more_is_left_out_of_a_deal(queue: Queue) -> None:
    queue.publish(messages(*range(1, 7)))
    line = SharedRoom(0)
    subscribers = [ListSubscriber(line, shared_prefetch=1), ListSubscriber(line)]
    consumers = [subscribe(queue, subscribers[0], "a"), subscribe(queue, subscribers[0], "b"),
                 subscribe(queue, subscribers[1], "c")]
    line.room = 1 << 20
    for consumer in consumers:
        queue.unblock(consumer)
    queue.dispatch()
    assert subscribers[0].delivered == [("a", 1)]
    assert subscribers[1].numbers() == [2, 3, 4, 5, 6]
    queue.check()


def test_of_very_many_consumers_those_who_are_next_are_dealt_to() -> None:
    worklist = Worklist(Effort())
    queue = Queue(queue_definition(), RefusingJournal(), worklist=worklist)
    crowd = DEALT_TO + 1
    queue.publish(messages(*range(1, 2 * crowd + 2)))
    subscriber = ListSubscriber(SharedRoom(0))
    consumers = [
        Consumer(f"c{number}", queue, subscriber, no_ack=False, exclusive=False, prefetch=1, arguments={})
        for number in range(crowd)]
    for consumer in consumers:
        queue.subscribe(consumer)
    subscriber.line.room = 1 << 30
    queue.dispatch()
    worklist.work_off()
    assert subscriber.delivered == [(f"c{number}", number + 1) for number in range(crowd)]
    assert len(queue.ready) == crowd + 1
    queue.check()


# Limits

def limited(**rules: int | str) -> Queue:
    return Queue(queue_definition(), RefusingJournal(), rules=QueueRules(**rules))  # type: ignore[arg-type]


def refused(queue: Queue, *run: Message) -> list[int]:
    return [one.number for one in queue.publish(run).refused]


def test_a_queue_refuses_what_would_be_one_message_or_byte_too_many() -> None:
    queue = limited(max_length=2, overflow="reject-publish")
    assert refused(queue, *messages(1, 2, 3, 4)) == [3, 4]
    assert not queue.limits.has_room_for(0)
    queue.get(no_ack=True)
    assert queue.limits.has_room_for(1 << 40) and refused(queue, *messages(5, 6)) == [6]
    queue = limited(max_length_bytes=10, overflow="reject-publish")
    assert refused(queue, message(1, b"12345"), message(2, b"123456")) == [2]
    assert queue.limits.has_room_for(5) and not queue.limits.has_room_for(6)
    assert refused(queue, message(3, b"12345"), message(4, b"1"), message(5, b"")) == [4]
    assert [one.number for one in queue.ready] == [1, 3, 5]


def test_a_queue_that_refuses_takes_what_its_consumer_takes_at_once() -> None:
    queue = limited(max_length=1, overflow="reject-publish")
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, prefetch=2)
    assert refused(queue, *messages(1, 2, 3, 4)) == [4]
    assert subscriber.numbers() == [1, 2] and [one.number for one in queue.ready] == [3]


@pytest.mark.parametrize("rules, left", [
    ({"max_length": 2}, [3, 4]), ({"max_length_bytes": 10}, [3, 4]), ({"max_length_bytes": 9}, [4]),
    ({"max_length": 3, "max_length_bytes": 10}, [3, 4]), ({"max_length": 0}, []), ({"max_length_bytes": 0}, []),
    ({}, [1, 2, 3, 4])])
def test_a_queue_that_drops_its_head_keeps_the_last_ones(rules: dict[str, int], left: list[int]) -> None:
    queue = limited(**rules)
    assert refused(queue, *messages(1, 2, 3, 4)) == []
    assert [one.number for one in queue.ready] == left
    assert queue.limits.has_room_for(1 << 40), "others go for it"
    assert queue.statistics().over_length == 4 - len(left)
    assert not queue.limits.is_exceeded and not queue.limits.is_trimming
    queue.check()


def test_limits_that_are_gone_limit_nothing() -> None:
    queue = limited(max_length=1, max_length_bytes=5, overflow="reject-publish")
    queue.apply(QueueRules(overflow="reject-publish"))
    assert refused(queue, *messages(1, 2, 3)) == []
    queue.apply(QueueRules(max_length=1))
    assert [one.number for one in queue.ready] == [3]


# Dead consumers and answers

def test_answers_make_room_and_the_count_of_unacked_messages_follows(queue: Queue) -> None:
    subscriber = ListSubscriber()
    consumer = subscribe(queue, subscriber, prefetch=2)
    run = messages(1, 2, 3, 4)
    queue.publish(run)
    assert (queue.unacked, consumer.in_flight) == (2, 2)
    settle(consumer, run[0])
    assert (queue.unacked, consumer.in_flight, subscriber.numbers()) == (2, 2, [1, 2, 3])
    settle(consumer, run[1], run[2])
    assert (queue.unacked, consumer.in_flight, subscriber.numbers()) == (1, 1, [1, 2, 3, 4])
