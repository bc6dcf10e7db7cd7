"""Round-robin among the consumers of a queue; consumers without credit cost nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from amqpd.broker.effort import SLICE, Effort
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.dispatcher import ASKED, DEALT_TO
from amqpd.broker.queue.delivery import DISPATCH_STEPS
from amqpd.broker.queue.queue import Queue
from amqpd.broker.rules import QueueRules
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.message import Message
from amqpd.session.consuming import RUN_STEPS
from tests.support.journals import RefusingJournal
from tests.support.samples import messages, queue_definition
from tests.support.subscribers import ListSubscriber, SharedRoom, settle, subscribe

MANY = 1_000


class CountingSubscriber(ListSubscriber):
    """Counts how often it is asked for its credit."""

    asked = 0

    @property
    def credit(self) -> int:
        """See broker/queue/consumer.py."""
        self.asked += 1
        return super().credit


@pytest.fixture
def queue() -> Queue:
    return Queue(queue_definition(), RefusingJournal())


def test_each_publish_asks_the_one_whose_turn_it_is(queue: Queue) -> None:
    subscriber = CountingSubscriber()
    for number in range(MANY):
        subscribe(queue, subscriber, f"c{number}")
    subscriber.asked = 0
    for number in range(1, 11):
        queue.publish(messages(number))
    assert [tag for tag, _ in subscriber.delivered] == [f"c{number}" for number in range(10)]
    assert subscriber.asked <= 30


def test_consumers_without_credit_are_asked_once(queue: Queue) -> None:
    subscriber = CountingSubscriber()
    for number in range(MANY):
        subscribe(queue, subscriber, f"c{number}", prefetch=1)
    queue.publish(messages(*range(1, MANY + 1)))
    subscriber.asked = 0
    for number in range(MANY + 1, 2 * MANY + 1):
        queue.publish(messages(number))
    assert len(queue.ready) == MANY and subscriber.asked <= 2 * MANY
    queue.check()


def test_a_consumer_that_answers_comes_after_those_that_can_take_something(queue: Queue) -> None:
    subscriber = ListSubscriber()
    first = subscribe(queue, subscriber, "first", prefetch=1)
    for tag in ("second", "third"):
        subscribe(queue, subscriber, tag, prefetch=2)
    run = messages(1, 2, 3, 4, 5)
    queue.publish(run)
    assert [tag for tag, _ in subscriber.delivered] == ["first", "second", "third", "second", "third"]
    settle(first, run[0])
    queue.publish(messages(6, 7))
    assert [tag for tag, _ in subscriber.delivered[5:]] == ["first"]
    queue.check()


def test_a_lower_priority_is_served_while_the_higher_one_is_blocked(queue: Queue) -> None:
    subscriber = ListSubscriber()
    high = subscribe(queue, subscriber, "high", prefetch=1, priority=5)
    subscribe(queue, subscriber, "low", priority=-5)
    subscribe(queue, subscriber, "middle", prefetch=1)
    run = messages(1, 2, 3, 4)
    queue.publish(run)
    assert [tag for tag, _ in subscriber.delivered] == ["high", "middle", "low", "low"]
    settle(high, run[0])
    queue.publish(messages(5))
    assert subscriber.delivered[-1] == ("high", 5)
    queue.check()


def test_what_one_takes_may_be_the_last_that_the_connection_has_room_for(queue: Queue) -> None:
    line = SharedRoom(150)
    for tag in "abc":
        subscribe(queue, ListSubscriber(line), tag)
    queue.publish(messages(*range(1, 11)))
    assert line.room <= 0 and len(queue.ready) == 10 - 2
    queue.check()


def test_a_blocked_consumer_that_leaves_is_asked_no_more(queue: Queue) -> None:
    subscriber = ListSubscriber(SharedRoom(0))
    gone = subscribe(queue, subscriber, "gone")
    stays = subscribe(queue, subscriber, "stays")
    queue.publish(messages(1))
    queue.unsubscribe(gone)
    subscriber.line.room = 1_000
    subscriber.line.unblock()
    queue.dispatch()
    assert subscriber.delivered == [("stays", 1)] and [*queue.consumers] == [stays]
    queue.check()


def test_the_single_active_consumer_may_be_blocked_and_is_still_the_only_one() -> None:
    queue = Queue(queue_definition(), RefusingJournal(), rules=QueueRules(single_active_consumer=True))
    subscriber = ListSubscriber()
    consumers: list[Consumer] = [subscribe(queue, subscriber, tag, prefetch=1) for tag in "abc"]
    run = messages(1, 2, 3)
    queue.publish(run)
    queue.check()
    settle(consumers[0], run[0])
    assert subscriber.delivered == [("a", 1), ("a", 2)]
    queue.unsubscribe(consumers[0])
    queue.dispatch()
    assert queue.dispatcher.active is consumers[1] and subscriber.delivered[-1] == ("b", 3)
    queue.check()


class EarnestSubscriber(CountingSubscriber):
    """Counts its deliveries as steps, as a channel does."""

    effort: Effort

    def deliver(self, consumer: Consumer, run: Sequence[Message]) -> None:
        """See broker/queue/consumer.py."""
        self.effort.total += RUN_STEPS + len(run)
        super().deliver(consumer, run)


@pytest.fixture
def worklist() -> Worklist:
    return Worklist(Effort())


@pytest.fixture
def earnest(worklist: Worklist) -> EarnestSubscriber:
    subscriber = EarnestSubscriber()
    subscriber.effort = worklist.effort
    return subscriber


def crowd_of(worklist: Worklist, subscriber: ListSubscriber, count: int) -> Queue:
    queue = Queue(queue_definition(), RefusingJournal(), worklist=worklist)
    for number in range(count):
        subscribe(queue, subscriber, f"c{number}", prefetch=1)
    return queue


@pytest.mark.parametrize("crowd", [DEALT_TO - 1, 10 * DEALT_TO])
def test_a_crowd_is_served_in_slices_and_in_its_order(
    worklist: Worklist, earnest: EarnestSubscriber, crowd: int
) -> None:
    queue = crowd_of(worklist, earnest, crowd)
    worklist.effort.begin()
    queue.publish(messages(*range(1, 2 * crowd + 1)))
    handed_out = [len(earnest.delivered)]
    asked = [earnest.asked]
    while not worklist.is_empty:
        worklist.effort.begin_turn()
        worklist.effort.begin()
        worklist.work()
        handed_out.append(len(earnest.delivered) - sum(handed_out))
        asked.append(earnest.asked - sum(asked))
    assert max(handed_out) <= SLICE / (RUN_STEPS + DISPATCH_STEPS) + ASKED
    assert max(asked) <= 4 * SLICE / RUN_STEPS + 2 * DEALT_TO
    assert earnest.delivered == [(f"c{number}", number + 1) for number in range(crowd)]
    assert len(queue.ready) == crowd
    queue.check()


def test_a_crowd_that_can_take_nothing_is_asked_in_slices(worklist: Worklist, earnest: EarnestSubscriber) -> None:
    queue = crowd_of(worklist, earnest, 10 * DEALT_TO)
    earnest.line.room = earnest.asked = 0
    worklist.effort.begin()
    queue.publish(messages(1))
    asked = [earnest.asked]
    while not worklist.is_empty:
        worklist.effort.begin_turn()
        worklist.effort.begin()
        worklist.work()
        asked.append(earnest.asked - sum(asked))
    assert max(asked) <= ASKED * (1 + SLICE // PIECE) and sum(asked) == len(queue.consumers)
    assert all(consumer.is_blocked for consumer in queue.consumers)
    queue.check()
