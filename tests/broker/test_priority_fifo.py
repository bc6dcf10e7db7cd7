"""Priorities: levels without messages cost neither memory nor steps."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from amqpd.broker.queue.queue import Queue
from amqpd.broker.rules import QueueRules
from amqpd.broker.worklist import Worklist
from amqpd.message import Message, MessageProperties
from tests.support.counting import calls_of, kept_by
from tests.support.journals import RefusingJournal
from tests.support.samples import message, queue_definition
from tests.support.subscribers import ListSubscriber, settle, subscribe

HIGHEST = 255
ALLOWED = 10 * 1024         # octets for a queue without messages

WORKLIST = Worklist()     # all queues of a broker share one


def new_queue(highest: int = HIGHEST) -> Queue:
    return Queue(queue_definition(), RefusingJournal(), rules=QueueRules(max_priority=highest), worklist=WORKLIST)


def urgent(number: int, priority: int | None) -> Message:
    return replace(message(number), facts=MessageProperties(priority=priority))


def one_of_each(first: int = 1) -> list[Message]:
    return [urgent(first + priority, priority) for priority in range(HIGHEST + 1)]


def test_a_queue_that_was_never_used_costs_little_whatever_its_highest_priority() -> None:
    assert kept_by(new_queue) < ALLOWED


def test_a_queue_that_is_empty_again_costs_little_however_many_of_its_priorities_were_used() -> None:
    run = one_of_each()

    def use() -> Queue:
        queue = new_queue()
        for _ in range(3):
            queue.publish(run)
            assert queue.purge().count == len(run)
            queue.worklist.work_off()
            queue.publish(run)
            while (taken := queue.get(no_ack=True)) is not None:
                queue.forget(taken)
        return queue

    assert kept_by(use) < ALLOWED


@pytest.mark.parametrize("priority", [None, 0, 7, 254, 255], ids=str)
def test_a_publish_and_a_get_cost_no_more_however_many_priorities_are_in_use(priority: int | None) -> None:
    few, many = new_queue(), new_queue()
    few.publish([urgent(1, 0), urgent(2, 255)])
    many.publish(one_of_each())
    steps = []
    for queue in (few, many):
        steps.append(calls_of(lambda: queue.publish([urgent(1_000, priority)])))
        taken: list[Message | None] = []
        steps.append(calls_of(lambda: taken.append(queue.get(no_ack=False))))
        assert taken[0] is not None and taken[0].facts.priority == 255
        steps.append(calls_of(lambda: queue.requeue([one for one in taken if one is not None])))
        queue.check()
    assert all(step <= bound for step, bound in zip(steps[3:], steps[:3])), steps


def test_the_highest_priority_is_served_first_and_in_order_of_publishing_within_it() -> None:
    queue = new_queue()
    queue.publish([urgent(1, 3), urgent(2, None), urgent(3, 255), urgent(4, 3), urgent(5, 255), urgent(6, 0)])
    served = []
    while (taken := queue.get(no_ack=True)) is not None:
        served.append(taken.number)
        queue.forget(taken)
        queue.check()
    assert served == [3, 5, 1, 4, 2, 6]


def test_a_priority_above_the_highest_counts_as_the_highest() -> None:
    queue = new_queue(5)
    queue.publish([urgent(1, 5), urgent(2, 200), urgent(3, 4)])
    assert [one.number for one in queue.ready] == [1, 2, 3]


def test_a_level_is_used_again_after_it_was_empty() -> None:
    queue, subscriber = new_queue(), ListSubscriber()
    consumer = subscribe(queue, subscriber, prefetch=1)
    run = [urgent(number, 3 + number % 2) for number in range(20)]
    for one in run:
        queue.publish([one])
        queue.check()
    while len(subscriber.runs) < len(run):
        settle(consumer, run[subscriber.runs[-1][0]])
        queue.check()
    assert [run[number].facts.priority for number in subscriber.numbers()[1:]] == [4] * 10 + [3] * 9
