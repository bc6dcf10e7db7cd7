"""One queue: order, round-robin, prefetch, room, and what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from amqpd.broker.clock import Clock, Sleeper
from amqpd.broker.definitions import Defined
from amqpd.broker.effort import SLICE, SMALLEST_SLICE, Effort
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.dispatcher import CANCEL_STEPS
from amqpd.broker.queue.jobs import QueueJobs
from amqpd.broker.queue.queue import Outcome, Queue
from amqpd.broker.queue.statistics import QueueCounts
from amqpd.broker.rules import QueueRules
from amqpd.broker.statistics import QueueStatistics
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.errors import ChannelException
from amqpd.message import Message, MessageProperties
from tests.support.journals import RecordingJournal, RefusingJournal
from tests.support.page_stores import stored
from tests.support.samples import message, messages, queue_definition
from tests.support.subscribers import ListSubscriber, SharedRoom, requeue, settle, subscribe


class CostlySubscriber(ListSubscriber):
    """A channel to which each delivery takes a slice."""

    def __init__(self, effort: Effort) -> None:
        super().__init__()
        self.effort = effort

    def deliver(self, consumer: Consumer, run: Sequence[Message]) -> None:
        super().deliver(consumer, run)
        self.effort.total += SLICE


@pytest.fixture
def queue() -> Iterator[Queue]:
    """A transient queue, which has no business with the journal."""
    queue = Queue(queue_definition(), RefusingJournal())
    yield queue
    queue.check()


@pytest.fixture
def journal() -> RecordingJournal:
    """A journal that knows the queue `orders`."""
    journal = RecordingJournal()
    journal.changed(Defined(queue_definition(durable=True)))
    journal.commit()
    return journal


@pytest.fixture
def durable(journal: RecordingJournal) -> Iterator[Queue]:
    """A durable queue."""
    queue = Queue(queue_definition(durable=True), journal)
    yield queue
    queue.check()


@pytest.fixture
def subscriber() -> ListSubscriber:
    return ListSubscriber()


def ready(queue: Queue) -> list[int]:
    return [one.number for one in queue.ready]


# Order

def test_messages_wait_in_publish_order(queue: Queue) -> None:
    queue.publish(messages(1, 2))
    queue.publish(messages(5))
    assert ready(queue) == [1, 2, 5]
    assert queue.ready.body_bytes == 15


def test_a_consumer_gets_what_waits_in_order_and_in_one_run(queue: Queue, subscriber: ListSubscriber) -> None:
    queue.publish(messages(1, 2, 3))
    subscribe(queue, subscriber)
    assert subscriber.runs == [[1, 2, 3]]
    queue.publish(messages(4, 5))
    assert subscriber.runs == [[1, 2, 3], [4, 5]]


def test_get_takes_the_first(queue: Queue) -> None:
    run = messages(1, 2)
    queue.publish(run)
    assert queue.get(no_ack=False) is run[0]
    assert (ready(queue), queue.unacked) == ([2], 1)
    assert queue.get(no_ack=True) is run[1]
    assert (ready(queue), queue.unacked) == ([], 1)
    assert queue.get(no_ack=False) is None


@pytest.mark.parametrize("back", [(1,), (3,), (5,), (1, 3), (5, 1), (3, 5, 1), (1, 2, 3, 4, 5)])
def test_requeued_messages_go_back_to_their_places(queue: Queue, back: tuple[int, ...]) -> None:
    run = messages(1, 2, 3, 4, 5)
    queue.publish(run)
    for _ in run:
        queue.get(no_ack=False)
    queue.publish(messages(6, 7))
    queue.requeue([run[number - 1] for number in back])
    assert ready(queue) == [*sorted(back), 6, 7]
    assert queue.unacked == 5 - len(back)


def test_very_many_that_go_back_in_any_order_are_put_in_order_in_pieces() -> None:
    queue = Queue(queue_definition(), RefusingJournal())
    count = 40 * PIECE
    run = messages(*range(1, count + 1))
    queue.publish(run)
    for _ in run:
        queue.get(no_ack=False)
    queue.requeue(run[::7] + [one for place, one in enumerate(run) if place % 7][::-1])
    left = [0]
    while queue.jobs.has_work:
        queue.jobs.work()
        left.append(len(queue.ready))
    assert max([later - before for before, later in zip(left, left[1:])]) == PIECE
    assert ready(queue) == [*range(1, count + 1)] and not queue.unacked
    queue.check()


def test_a_message_requeued_behind_others_that_wait_sorts_in(queue: Queue) -> None:
    run = messages(1, 2, 3, 4)
    queue.publish(run)
    for _ in run:
        queue.get(no_ack=False)
    queue.requeue([run[2], run[0]])
    queue.requeue([run[1]])
    queue.requeue([run[3]])
    assert ready(queue) == [1, 2, 3, 4]


def test_what_was_handed_out_is_redelivered_until_it_is_settled(queue: Queue) -> None:
    run = messages(1, 2)
    queue.publish(run)
    first = queue.get(no_ack=False)
    assert first is not None and queue.redelivery.numbers == set()
    queue.requeue([first])
    assert queue.redelivery.numbers == {1}
    queue.get(no_ack=False)
    assert queue.redelivery.numbers == {1}
    queue.settle([first])
    assert queue.redelivery.numbers == set()


def test_purge_forgets_what_was_redelivered(queue: Queue) -> None:
    run = messages(1, 2)
    queue.publish(run)
    queue.get(no_ack=False)
    queue.requeue(run[:1])
    assert queue.purge().count == 2
    assert (queue.redelivery.numbers, queue.ready.body_bytes) == (set(), 0)


def test_restored_messages_wait_as_they_were(queue: Queue) -> None:
    queue.restore(stored(messages(3, 7)), {7}, 0, {})
    assert (len(queue.ready), queue.redelivery.numbers, queue.ready.body_bytes) == (2, {7}, 10)


def test_what_came_without_an_end_has_none_after_a_restart_either() -> None:
    clock = Clock(1_000, 5_000_000)
    queue = Queue(queue_definition(), RefusingJournal(), rules=QueueRules(message_ttl_ms=0), clock=clock)
    queue.restore(stored(messages(3, 4, 5), {4: 5_000_000}), set(), 0, {})
    clock.advance(100_000)
    assert queue.ready.numbers() == [3, 5]


def test_what_is_requeued_expires_when_it_would_have(subscriber: ListSubscriber) -> None:
    clock = Clock(1_000, 5_000_000)
    queue = Queue(queue_definition(), RefusingJournal(), rules=QueueRules(message_ttl_ms=500), clock=clock)
    run = messages(1, 2, 3)
    consumer = subscribe(queue, subscriber)
    queue.publish(run, is_timed=True)
    queue.unsubscribe(consumer)
    queue.requeue(run)
    clock.advance(1_499)
    assert ready(queue) == [1, 2, 3]
    clock.advance(1_500)
    queue.dispatch()
    assert ready(queue) == []


def test_of_what_is_settled_no_expiry_is_kept(subscriber: ListSubscriber) -> None:
    queue = Queue(queue_definition(), RefusingJournal(), rules=QueueRules(message_ttl_ms=500), clock=Clock(1_000, 0))
    run = messages(1, 2)
    consumer = subscribe(queue, subscriber)
    queue.publish(run, is_timed=True)
    assert queue.records.deadlines
    settle(consumer, *run)
    assert not queue.records.deadlines


class CountingClock(Clock):
    """A clock that counts the requests to be woken."""

    asked = 0

    def wake_at(self, when_ms: int, sleeper: Sleeper) -> int:
        """See `Clock`."""
        self.asked += 1
        return super().wake_at(when_ms, sleeper)


def test_a_wake_up_that_something_sooner_replaced_does_not_ask_for_another() -> None:
    clock = CountingClock()
    queue = Queue(queue_definition(), RefusingJournal(), clock=clock)
    ends = range(100, 0, -1)
    for number, end in enumerate(ends, 1):
        ending = message(number)
        ending.facts = MessageProperties(expiration_ms=end)
        queue.publish([ending], is_timed=True)
    for now in range(1, 101):
        clock.advance(now)
    assert not queue.ready
    assert clock.asked < 2 * len(ends)


# Turns

def test_consumers_of_one_channel_get_one_each_in_turn(queue: Queue, subscriber: ListSubscriber) -> None:
    for tag in "abc":
        subscribe(queue, subscriber, tag)
    queue.publish(messages(1, 2, 3, 4, 5))
    queue.publish(messages(6, 7))
    assert subscriber.delivered == [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", 5), ("c", 6), ("a", 7)]


def test_consumers_of_several_channels_get_the_same_turns_in_runs(queue: Queue) -> None:
    one, two, three = (ListSubscriber() for _ in range(3))
    for tag, subscriber in zip("abc", (one, two, three)):
        subscribe(queue, subscriber, tag)
    queue.publish(messages(1, 2, 3, 4, 5, 6, 7))
    queue.publish(messages(8))
    assert (one.numbers(), two.numbers(), three.numbers()) == ([1, 4, 7], [2, 5, 8], [3, 6])
    assert one.runs[0] == [1, 4]


def test_a_round_ends_with_the_slice_and_goes_on_with_the_next_in_turn() -> None:
    worklist = Worklist(Effort())
    queue = Queue(queue_definition(), RefusingJournal(), worklist=worklist)
    large = CostlySubscriber(worklist.effort)
    for tag in "abc":
        subscribe(queue, large, tag)
    worklist.effort.begin()
    queue.publish(messages(*range(1, 8)))
    for count in range(1, 8):
        assert [number for _, number in large.delivered] == [*range(1, count + 1)]
        worklist.effort.begin_turn()
        worklist.effort.begin()
        worklist.work()
    assert "".join(tag for tag, _ in large.delivered) == "abcabca"
    queue.check()


def test_a_new_consumer_is_the_last_in_turn(queue: Queue, subscriber: ListSubscriber) -> None:
    subscribe(queue, subscriber, "a")
    subscribe(queue, subscriber, "b")
    queue.publish(messages(1))
    subscribe(queue, subscriber, "c")
    queue.publish(messages(2, 3, 4))
    assert [tag for tag, _ in subscriber.delivered] == ["a", "b", "a", "c"]


def test_a_consumer_that_left_is_passed_over(queue: Queue, subscriber: ListSubscriber) -> None:
    consumers = [subscribe(queue, subscriber, tag) for tag in "abc"]
    queue.unsubscribe(consumers[1])
    queue.publish(messages(1, 2, 3))
    assert [tag for tag, _ in subscriber.delivered] == ["a", "c", "a"]


def test_a_consumer_without_credit_is_passed_over_until_it_answers(queue: Queue, subscriber: ListSubscriber) -> None:
    run = messages(1, 2, 3, 4, 5)
    first = subscribe(queue, subscriber, "a", prefetch=1)
    subscribe(queue, subscriber, "b", prefetch=2)
    queue.publish(run)
    assert subscriber.delivered == [("a", 1), ("b", 2), ("b", 3)]
    settle(first, run[0])
    assert subscriber.delivered[3:] == [("a", 4)]


def test_a_higher_priority_goes_first(queue: Queue, subscriber: ListSubscriber) -> None:
    subscribe(queue, subscriber, "low", prefetch=1, priority=-5)
    subscribe(queue, subscriber, "none", prefetch=1)
    subscribe(queue, subscriber, "high", prefetch=2, priority=7)
    subscribe(queue, subscriber, "also high", prefetch=1, priority=7)
    queue.publish(messages(1, 2, 3, 4, 5, 6))
    assert [tag for tag, _ in subscriber.delivered] == ["high", "also high", "high", "none", "low"]


# Prefetch

def test_in_flight_counts_what_was_not_answered(queue: Queue, subscriber: ListSubscriber) -> None:
    run = messages(1, 2, 3, 4)
    consumer = subscribe(queue, subscriber, prefetch=3)
    queue.publish(run)
    assert (consumer.in_flight, consumer.credit, queue.unacked, ready(queue)) == (3, 0, 3, [4])
    settle(consumer, run[0], run[1])
    assert (consumer.in_flight, consumer.credit, queue.unacked, ready(queue)) == (2, 1, 2, [])


def test_a_requeued_message_comes_straight_back(queue: Queue, subscriber: ListSubscriber) -> None:
    run = messages(1, 2)
    consumer = subscribe(queue, subscriber, prefetch=2)
    queue.publish(run)
    requeue(consumer, run[0])
    assert subscriber.numbers() == [1, 2, 1]
    assert (consumer.in_flight, queue.unacked) == (2, 2)


def test_without_acks_nothing_counts(queue: Queue, subscriber: ListSubscriber) -> None:
    consumer = subscribe(queue, subscriber, prefetch=1, no_ack=True)
    queue.publish(messages(1, 2, 3))
    assert (subscriber.numbers(), consumer.in_flight, queue.unacked) == ([1, 2, 3], 0, 0)
    assert queue.statistics().settled == 3


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_shared_limit_holds_for_all_consumers_of_a_channel(queue: Queue, limit: int) -> None:
    subscriber = ListSubscriber(shared_prefetch=limit)
    for tag in "ab":
        subscribe(queue, subscriber, tag)
    queue.publish(messages(1, 2, 3, 4, 5))
    assert subscriber.numbers() == [1, 2, 3, 4, 5][:limit]


def test_a_consumer_without_acks_waits_while_a_shared_limit_is_used_up(queue: Queue) -> None:
    subscriber = ListSubscriber(shared_prefetch=1)
    first = subscribe(queue, subscriber, "a")
    second = subscribe(queue, subscriber, "b", no_ack=True)
    queue.publish(sent := messages(1, 2, 3, 4))
    assert subscriber.numbers() == [1]
    subscriber.outstanding -= 1
    queue.unblock(second)
    settle(first, sent[0])
    assert sorted(subscriber.numbers()) == [1, 2, 3, 4]
    assert subscriber.outstanding <= 1


# Room

def test_a_connection_that_is_full_gets_nothing(queue: Queue) -> None:
    line = SharedRoom(0)
    subscriber = ListSubscriber(line)
    subscribe(queue, subscriber)
    queue.publish(messages(1, 2))
    assert subscriber.numbers() == []
    line.room = 10_000
    line.unblock()
    queue.dispatch()
    assert subscriber.numbers() == [1, 2]


def test_a_run_ends_about_where_the_room_ends(queue: Queue) -> None:
    line = SharedRoom(10_000)
    subscriber = ListSubscriber(line)
    queue.publish([message(number, bytes(1_000)) for number in range(1, 101)])
    subscribe(queue, subscriber)
    assert line.room <= 0 and len(subscriber.numbers()) == 10
    line.room = 10_000
    line.unblock()
    queue.dispatch()
    assert len(subscriber.numbers()) == 20


def test_one_message_goes_out_however_large_if_there_is_any_room(queue: Queue) -> None:
    subscriber = ListSubscriber(SharedRoom(1))
    subscribe(queue, subscriber)
    queue.publish([message(1, bytes(100_000)), message(2)])
    assert (subscriber.numbers(), ready(queue)) == ([1], [2])


def test_two_channels_of_a_connection_share_its_room(queue: Queue) -> None:
    line = SharedRoom(5_000)
    one, two = ListSubscriber(line), ListSubscriber(line)
    subscribe(queue, one, "a")
    subscribe(queue, two, "b")
    queue.publish([message(number, bytes(1_000)) for number in range(1, 101)])
    assert 4 <= len(one.numbers()) + len(two.numbers()) <= 6
    assert abs(len(one.numbers()) - len(two.numbers())) <= 1


# Exclusive and deleted

def test_an_exclusive_consumer_is_alone(queue: Queue, subscriber: ListSubscriber) -> None:
    consumer = subscribe(queue, subscriber, "a", exclusive=True)
    for exclusive in (False, True):
        with pytest.raises(ChannelException, match="queue 'orders' in vhost '/' in exclusive use"):
            subscribe(queue, subscriber, "b", exclusive=exclusive)
    queue.unsubscribe(consumer)
    subscribe(queue, subscriber, "b")
    with pytest.raises(ChannelException):
        subscribe(queue, subscriber, "a", exclusive=True)


def test_a_queue_is_unused_once_its_last_consumer_has_left(queue: Queue, subscriber: ListSubscriber) -> None:
    assert not queue.is_unused
    consumer = subscribe(queue, subscriber)
    assert not queue.is_unused
    queue.unsubscribe(consumer)
    assert queue.is_unused


def test_very_many_consumers_of_a_deleted_queue_are_told_in_pieces_and_may_leave_before(
    subscriber: ListSubscriber
) -> None:
    effort = Effort()
    queue = Queue(queue_definition(), RefusingJournal(), worklist=Worklist(effort))
    consumers = [subscribe(queue, subscriber, f"{number:03}") for number in range(1_000)]
    queue.end()
    told = [len(subscriber.cancelled_tags)]
    queue.unsubscribe(consumers.pop())
    queue.unblock(consumers[-1])
    queue.dispatch()
    while not queue.worklist.is_empty:
        effort.begin(1)
        queue.worklist.work()
        told.append(len(subscriber.cancelled_tags))
    assert max([later - before for before, later in zip([0, *told], told)]) <= 1 + SMALLEST_SLICE // CANCEL_STEPS * 2
    assert subscriber.cancelled_tags == [consumer.tag for consumer in consumers]
    queue.check()


def test_answers_to_a_deleted_queue_change_nothing(durable: Queue, journal: RecordingJournal) -> None:
    run = messages(1, 2, 3, persistent=True)
    durable.publish(run)
    for _ in run:
        durable.get(no_ack=False)
    durable.delete()
    assert durable.settle(run[:1]) == 0
    durable.requeue(run[1:])
    assert ready(durable) == []


def test_a_deleted_queue_takes_nothing(durable: Queue, journal: RecordingJournal) -> None:
    durable.delete()
    assert durable.publish(messages(1, persistent=True)) == Outcome()
    assert journal.is_empty and ready(durable) == []


def test_nothing_expires_in_a_deleted_queue(journal: RecordingJournal) -> None:
    clock = Clock(1_000, 5_000_000)
    durable = Queue(
        queue_definition(durable=True), journal, rules=QueueRules(message_ttl_ms=100), clock=clock)
    durable.publish(messages(1, 2))
    durable.end()
    clock.now_ms += 1_000       # nobody has told the queue yet
    durable.dispatch()
    assert ready(durable) == []


def test_those_that_die_of_the_delivery_limit_leave_the_others_of_their_run(journal: RecordingJournal) -> None:
    queue = Queue(queue_definition(durable=True), journal, rules=QueueRules(delivery_limit=1))
    queue.publish(messages(1, 2))
    failing = queue.get(no_ack=False)
    assert failing is not None
    queue.requeue([failing])
    run = [one for _ in range(2) if (one := queue.get(no_ack=False)) is not None]
    queue.requeue(run)
    assert ready(queue) == [2] and queue.unacked == 0


# The journal

def test_persistent_messages_of_a_durable_queue_are_recorded(durable: Queue, journal: RecordingJournal) -> None:
    run = [message(1, persistent=True), message(2), message(3, persistent=True)]
    assert durable.publish(run) == Outcome(journal.batch)
    assert list(journal.now.messages[1]) == [1, 3]


def test_transient_messages_are_not_recorded(durable: Queue, journal: RecordingJournal) -> None:
    assert durable.publish(messages(1, 2)).batch == 0
    purge = durable.purge()
    assert (purge.count, purge.batch) == (2, 0)
    assert journal.is_empty


def test_settling_is_recorded(durable: Queue, subscriber: ListSubscriber, journal: RecordingJournal) -> None:
    run = messages(1, 2, persistent=True)
    consumer = subscribe(durable, subscriber)
    durable.publish(run)
    assert settle(consumer, run[0]) == journal.batch
    assert list(journal.now.messages[1]) == [2]


def test_a_delivery_without_ack_settles(durable: Queue, subscriber: ListSubscriber, journal: RecordingJournal) -> None:
    subscribe(durable, subscriber, no_ack=True)
    assert durable.publish(messages(1, persistent=True)).batch == journal.batch
    assert journal.now.messages[1] == {}


def test_a_get_without_ack_settles(durable: Queue, journal: RecordingJournal) -> None:
    durable.publish(messages(1, persistent=True))
    found = durable.get(no_ack=True)
    assert found is not None
    durable.forget(found)
    assert journal.now.messages[1] == {} and durable.statistics().settled == 1


def test_how_often_a_message_was_given_back_is_recorded(durable: Queue, journal: RecordingJournal) -> None:
    run = [message(1, persistent=True), message(2)]
    durable.publish(run)
    for count in (1, 2):
        for _ in run:
            durable.get(no_ack=False)
        durable.requeue(run)
        assert durable.redelivery.deliveries == {1: count, 2: count} and journal.now.deliveries[1] == {1: count}
    durable.purge()
    assert durable.redelivery.deliveries == {} and journal.now.deliveries[1] == {}


def test_a_purge_is_recorded(durable: Queue, journal: RecordingJournal) -> None:
    durable.publish(messages(1, 2, persistent=True))
    durable.get(no_ack=False)
    purge = durable.purge()
    assert (purge.count, purge.batch) == (1, journal.batch)
    assert list(journal.now.messages[1]) == [1]


@pytest.mark.parametrize("slices", [0, 5])
@pytest.mark.parametrize("highest", [0, 2])
def test_what_is_purged_while_it_is_being_dropped_as_expired_leaves_the_queue_once(
    journal: RecordingJournal, highest: int, slices: int
) -> None:
    clock = Clock(1_000, 5_000_000)
    rules = QueueRules(message_ttl_ms=500, max_priority=highest)
    queue = Queue(queue_definition(durable=True), journal, rules=rules, clock=clock)
    queue.publish(messages(*range(1, 4 * PIECE), persistent=True))
    clock.advance(1_500)
    for _ in range(slices):
        queue.jobs.work()
    left = len(queue.ready)
    assert queue.jobs.has_work and left and (left < 4 * PIECE - 1) == bool(slices)
    purge = queue.purge()
    queue.publish(messages(4 * PIECE, persistent=True))
    queue.worklist.work_off()
    assert (purge.is_done, purge.count, queue.statistics().purged) == (True, left, left)
    assert [one.number for one in queue.ready] == [4 * PIECE] == [*journal.now.messages[1]]
    clock.advance(2_000)
    assert not len(queue.ready) and queue.statistics().expired == 4 * PIECE - left
    queue.check()


# Outlook

def test_statistics_add_up(queue: Queue, subscriber: ListSubscriber) -> None:
    run = messages(1, 2, 3, 4)
    queue.publish(run)
    queue.get(no_ack=False)
    consumer = subscribe(queue, subscriber, prefetch=2)
    settle(consumer, run[1])
    assert queue.statistics() == QueueStatistics(
        ready=0, ready_bytes=0, unacked=3, set_aside=0, consumers=1, published=4, delivered=3, got=1, redelivered=0,
        settled=1, acked=1, purged=0, expired=0, rejected=0, over_length=0, over_delivery_limit=0, dead_lettered=0)


def test_a_limit_in_octets_refuses_what_does_not_fit_and_takes_what_does() -> None:
    queue = Queue(queue_definition(), RefusingJournal(), rules=QueueRules(
        max_length_bytes=10, overflow="reject-publish"))
    run = [message(1, b"12345"), message(2, b"1234"), message(3, b"12"), message(4, b"1")]
    assert [one.number for one in queue.publish(run).refused] == [3]
    assert [one.number for one in queue.ready] == [1, 2, 4]
    queue.check()


def test_after_an_exclusive_consumer_others_may_come() -> None:
    queue = Queue(queue_definition(), RefusingJournal())
    consumer = subscribe(queue, ListSubscriber(), exclusive=True)
    assert queue.dispatcher.exclusive is consumer
    queue.unsubscribe(consumer)
    assert queue.dispatcher.exclusive is None


def test_what_comes_back_to_a_deleted_queue_is_unacked_no_more(queue: Queue) -> None:
    queue.publish(messages(1, 2, 3))
    run = [one for _ in range(3) if (one := queue.get(no_ack=False))]
    queue.delete()
    queue.requeue(run[:2])
    assert queue.unacked == 1
    queue.reject(run[2:])
    assert queue.unacked == 0


def test_consumers_keep_up_that_took_a_quarter_of_what_came_since_they_were_asked() -> None:
    counts = QueueCounts()
    assert not counts.keeps_up(), "nothing was taken"
    counts.published, counts.delivered, counts.got = 400, 99, 1
    assert counts.keeps_up() and not counts.keeps_up()
    counts.published, counts.delivered = 800, 198
    assert not counts.keeps_up(), "99 of 400"
    counts.published, counts.got = 801, 2
    assert counts.keeps_up()


class Interrupted:
    """The jobs of a queue, and how often it was idle after one."""

    def __init__(self) -> None:
        self.idle = 0
        self.worklist = Worklist(Effort.without_end())
        self.jobs = QueueJobs(self.worklist, self.on_idle)

    def on_idle(self) -> None:
        self.idle += 1


def failing_after(slices: int) -> Iterator[None]:
    for _ in range(slices):
        yield
    raise OverflowError("something that nobody thought of")


def test_a_job_that_fails_is_ended_and_the_next_one_runs(caplog: pytest.LogCaptureFixture) -> None:
    scene = Interrupted()
    scene.jobs.run(failing_after(0))
    assert not scene.jobs.has_work and scene.worklist.is_empty and scene.idle == 0
    assert "internal error in a job of a queue" in caplog.text and "OverflowError" in caplog.text
    done: list[int] = []
    scene.jobs.run(failing_after(1))
    scene.jobs.run((done.append(1) for _ in range(2)))
    with pytest.raises(OverflowError):
        scene.jobs.work()
    assert (scene.jobs.has_work, done) == (True, []), "the next one"
    for _ in range(3):
        scene.jobs.work()
    assert (scene.jobs.has_work, done, scene.idle) == (False, [1, 1], 1)
