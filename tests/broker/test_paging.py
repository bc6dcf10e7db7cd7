"""A queue whose messages are on disk: what is read when, what waits while it cannot be, and what goes there at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import Defined, QueueDefinition, VhostDefinition
from amqpd.broker.deadlines import Deadlines
from amqpd.broker.pages import PAGE_MESSAGES, PAGE_OCTETS
from amqpd.broker.effort import SLICE
from amqpd.broker.paging import STEPS_A_MESSAGE, NotAtHand
from amqpd.broker.queue import Queue
from amqpd.broker.ready import Line
from amqpd.broker.rules import QueueRules
from amqpd.broker.stretch import MESSAGE_COST
from amqpd.message import Facts, Message, reference_to
from tests.support.journals import RecordingJournal
from tests.support.samples import message, messages, queue_definition
from tests.support.shelves import ShelfInMemory, stored
from tests.support.subscribers import ListSubscriber, subscribe

COUNT = 4 * PAGE_MESSAGES
ALL = range(1, COUNT + 1)


class Graveyard:
    """Remembers who died, and of what."""

    def __init__(self) -> None:
        self.dead: list[tuple[int, str]] = []

    def died(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        self.dead += [(one.number, reason) for one in run]

    def is_behind(self, queue: Queue) -> bool:
        """See broker/queue.py."""
        return False

    def unused(self, queue: Queue) -> None:
        raise AssertionError("no queue expires here")


@pytest.fixture
def journal() -> RecordingJournal:
    """A journal that knows the queue `orders`."""
    journal = RecordingJournal()
    journal.changed(Defined(queue_definition(durable=True)))
    journal.commit()
    return journal


@pytest.fixture
def shelf(journal: RecordingJournal) -> ShelfInMemory:
    return ShelfInMemory(journal.read)


def make(journal: RecordingJournal, shelf: ShelfInMemory, **rules: object) -> Queue:
    """A durable queue under these rules."""
    return Queue(
        queue_definition(durable=True), journal, shelf=shelf, sink=Graveyard(), clock=Clock(1_000, 1_000_000),
        rules=QueueRules(**rules))  # type: ignore[arg-type]  # by name, whatever a test asks for


@pytest.fixture
def queue(journal: RecordingJournal, shelf: ShelfInMemory) -> Iterator[Queue]:
    """A durable queue with four pages of persistent messages, three of them on disk only."""
    queue = make(journal, shelf)
    fill(queue, journal, shelf)
    yield queue
    queue.check()
    assert queue.kept_on_disk == len(journal.now.messages[1])


def fill(queue: Queue, journal: RecordingJournal, shelf: ShelfInMemory, *, is_timed: bool = False) -> None:
    queue.publish(messages(*ALL, persistent=True), is_timed=is_timed)
    journal.commit()
    shelf.safe_number = COUNT
    queue.paging.page_out(1 << 30)


def test_what_is_not_next_is_on_disk_only(queue: Queue, shelf: ShelfInMemory) -> None:
    assert len(list(queue.ready)) == PAGE_MESSAGES
    assert (len(queue.ready), queue.ready.octets) == (COUNT, 5 * COUNT)
    assert shelf.budget.used == PAGE_MESSAGES * (5 + MESSAGE_COST)


def test_what_is_not_committed_stays_in_memory(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    queue.publish(messages(*ALL, persistent=True))
    journal.commit()
    shelf.safe_number = 2 * PAGE_MESSAGES
    queue.paging.page_out(1 << 30)
    assert len(list(queue.ready)) == 3 * PAGE_MESSAGES
    queue.check()


def test_little_is_not_worth_a_page(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    queue.publish(messages(1, 2, 3, persistent=True))
    shelf.safe_number = 3
    queue.paging.page_out(1 << 30)
    assert len(list(queue.ready)) == 3
    queue.check()


def test_a_consumer_gets_all_in_order(queue: Queue, shelf: ShelfInMemory) -> None:
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == list(ALL)


def test_a_consumer_waits_for_a_shelf_that_is_closed(queue: Queue, shelf: ShelfInMemory) -> None:
    subscriber = ListSubscriber()
    shelf.is_open = False
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == list(ALL)[:PAGE_MESSAGES]
    shelf.is_open = True
    shelf.serve()
    assert subscriber.numbers() == list(ALL)


def test_pages_are_read_ahead_of_a_slow_consumer(queue: Queue, shelf: ShelfInMemory) -> None:
    subscribe(queue, ListSubscriber(), prefetch=1)
    queue.dispatch()
    assert shelf.fetched == 0
    shelf.serve()
    assert shelf.fetched == PAGE_MESSAGES, "one page is enough to have a page in memory again"


def test_nobody_reads_ahead_for_nobody(queue: Queue, shelf: ShelfInMemory) -> None:
    queue.get(no_ack=False)
    queue.dispatch()
    shelf.serve()
    assert shelf.fetched == 0


def test_a_get_reads_what_it_needs(queue: Queue) -> None:
    got = [queue.get(no_ack=False) for _ in range(PAGE_MESSAGES + 1)]
    assert [one.number for one in got if one] == list(ALL)[: PAGE_MESSAGES + 1]


def test_a_get_that_cannot_be_answered_now_is_called_when_it_can(queue: Queue, shelf: ShelfInMemory) -> None:
    for _ in range(PAGE_MESSAGES):
        queue.get(no_ack=False)
    shelf.is_open = False
    with pytest.raises(NotAtHand) as caught:
        queue.get(no_ack=False)
    got: list[Message | None] = []
    caught.value.call(lambda: got.append(queue.get(no_ack=False)))
    assert not got
    shelf.is_open = True
    shelf.serve()
    assert got[0] is not None and got[0].number == PAGE_MESSAGES + 1


def test_what_is_damaged_is_passed_over_and_forgotten(
    queue: Queue, journal: RecordingJournal, shelf: ShelfInMemory
) -> None:
    damaged = PAGE_MESSAGES + 7
    queue.deliveries[damaged] = 3
    queue.redelivered.add(damaged)
    shelf._read = lambda numbers: journal.read([number for number in numbers if number != damaged])
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == [number for number in ALL if number != damaged]
    assert not queue.deliveries and not queue.redelivered and not journal.now.messages[1]


def test_a_slip_that_is_damaged_takes_nothing_from_what_the_store_keeps(
    queue: Queue, journal: RecordingJournal, shelf: ShelfInMemory
) -> None:
    transient = range(COUNT + 1, COUNT + 2 * PAGE_MESSAGES + 1)
    queue.publish(messages(*transient))
    queue.paging.page_out(1 << 30)
    shelf.write_slips()
    for slip in shelf.slips:
        slip.run = slip.run[1:]
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert len(subscriber.numbers()) == COUNT + len(transient) - len(shelf.slips)
    assert queue.kept_on_disk == 0


def test_a_purge_reads_nothing(queue: Queue, journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    purge = queue.purge()
    queue.worklist.work_off()
    assert purge.is_done and purge.count == COUNT
    assert shelf.fetched == 0 and not journal.now.messages[1] and shelf.budget.used == 0


def test_what_is_requeued_goes_back_between_pages(queue: Queue, shelf: ShelfInMemory) -> None:
    given: list[Message] = []
    for _ in range(3 * PAGE_MESSAGES):
        one = queue.get(no_ack=False)
        assert one is not None
        given.append(one)
    queue.requeue(given[:PAGE_MESSAGES] + given[2 * PAGE_MESSAGES :])
    queue.worklist.work_off()
    queue.paging.page_out(1 << 30)
    queue.requeue(given[PAGE_MESSAGES : 2 * PAGE_MESSAGES])
    queue.worklist.work_off()
    assert queue.ready.numbers() == list(ALL)


# References, which stand for unacked messages that are on disk only

@pytest.fixture
def line(shelf: ShelfInMemory) -> Iterator[Line]:
    """A line in which persistent messages are on disk."""
    line = Line(shelf.budget, Deadlines(), lambda one: one.facts.persistent)
    yield line
    line.check()
    assert all(one.content for one in line), "a reference counts as a message in memory"
    assert shelf.budget.used == line.cost
    assert max(page.octets for page in line._pages) <= 2 * PAGE_OCTETS


def references(*numbers: int) -> list[Message]:
    """What stands for messages, of which two fill a page."""
    run = [reference_to(one) for one in messages(*numbers, persistent=True)]
    for one in run:
        one.body_size = PAGE_OCTETS // 2
    return run


def in_memory(line: Line) -> list[int]:
    return [one.number for one in line]


def test_references_make_pages_that_can_be_read_at_once(line: Line) -> None:
    line.put_back(references(*range(1, 11)))
    assert line.numbers() == [*range(1, 11)] and not in_memory(line)


def test_references_go_before_what_waits_in_memory(line: Line) -> None:
    line.extend(messages(11, 12))
    line.put_back(references(*range(1, 11)))
    assert line.numbers() == [*range(1, 13)] and in_memory(line) == [11, 12]


def test_references_go_behind_the_tail(line: Line) -> None:
    line.put_back(references(1))
    line.extend(messages(2, 3, 14))
    line.put_back(references(*range(4, 14)))
    assert line.numbers() == [*range(1, 15)] and in_memory(line) == [2, 3, 14]


def test_references_go_into_the_head_where_there_are_pages(line: Line) -> None:
    line.put_back(references(30))
    line.put_back(messages(1, 12))
    line.put_back(references(*range(2, 12)))
    assert line.numbers() == [*range(1, 13), 30] and in_memory(line) == [1, 12]


def test_references_go_before_a_page_in_memory(line: Line) -> None:
    line.put_back(references(30))
    line.put_back(messages(11, 12))
    line.put_back(references(*range(1, 11)))
    assert line.numbers() == [*range(1, 13), 30] and in_memory(line) == [11, 12]


def test_references_go_between_messages_of_a_page_in_memory(line: Line) -> None:
    line.put_back(references(1))
    line.extend(messages(2, 13))
    line.put_back(references(20))
    line.put_back(references(*range(3, 13)))
    assert line.numbers() == [*range(1, 14), 20] and in_memory(line) == [2, 13]


# Ends

def test_messages_end_in_their_pages(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf, message_ttl_ms=5_000)
    fill(queue, journal, shelf)
    queue._clock.advance(5_999)
    assert len(queue.ready) == COUNT
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    assert not queue.ready and shelf.fetched == 0 and not journal.now.messages[1]
    queue.check()


def test_what_ends_on_disk_is_read_to_be_buried(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    fill(queue, journal, shelf)
    shelf.is_open = False
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    assert not queue.ready
    assert len(queue._sink.dead) == PAGE_MESSAGES, "what was in memory"  # type: ignore[union-attr]  # a Graveyard
    assert len(journal.now.messages[1]) == COUNT, "they are kept until they have been moved"
    shelf.is_open = True
    for _ in range(COUNT // PAGE_MESSAGES):
        shelf.serve()
    assert queue._sink.dead == [(number, "expired") for number in ALL]  # type: ignore[union-attr]  # a Graveyard
    queue.dead_lettered(messages(*ALL, persistent=True))
    assert not journal.now.messages[1]
    queue.check()


def test_the_dead_of_a_deleted_queue_go_nowhere(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    fill(queue, journal, shelf)
    shelf.is_open = False
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    queue.end()
    shelf.is_open = True
    shelf.serve()
    assert len(queue._sink.dead) == PAGE_MESSAGES  # type: ignore[union-attr]  # a Graveyard


def test_a_limit_that_comes_later_drops_without_reading(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    fill(queue, journal, shelf)
    queue.apply(QueueRules(max_length=10))
    queue.worklist.work_off()
    assert queue.ready.numbers() == list(ALL)[-10:] and shelf.fetched == 0
    assert sorted(journal.now.messages[1]) == list(ALL)[-10:]
    queue.check()


def test_many_dead_are_read_a_few_pages_a_turn(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf, dead_letter_exchange="dlx")
    fill(queue, journal, shelf)
    queue.apply(QueueRules(max_length=0, dead_letter_exchange="dlx"))
    queue.worklist.effort.begin()
    queue.worklist.work()
    assert 0 < shelf.fetched <= SLICE // STEPS_A_MESSAGE + PAGE_MESSAGES
    queue.worklist.work_off()
    shelf.serve()
    assert queue._sink.dead == [(number, "maxlen") for number in ALL]  # type: ignore[union-attr]  # a Graveyard


def test_the_dead_that_wait_for_others_do_not_end_as_well(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    rules = {"message_ttl_ms": 5_000, "dead_letter_exchange": "dlx"}
    queue = make(journal, shelf, **rules)
    fill(queue, journal, shelf)
    queue.publish(messages(COUNT + 1))
    shelf.is_open = False
    queue.apply(QueueRules(max_length=0, **rules))  # type: ignore[arg-type]  # by name
    queue.worklist.work_off()
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    queue.check()
    shelf.is_open = True
    for _ in range(COUNT // PAGE_MESSAGES):
        shelf.serve()
    assert queue._sink.dead == [  # type: ignore[union-attr]  # a Graveyard
        (number, "maxlen") for number in [*ALL, COUNT + 1]]


def test_the_rejected_count_as_delivered_until_they_are_buried(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf, dead_letter_exchange="dlx", is_at_least_once=True)
    queue.publish(messages(1, persistent=True))
    rejected = queue.get(no_ack=False)
    assert rejected is not None
    queue.reject([rejected])
    assert queue.redelivered == {1}, "a stop now would have it ready again"
    queue.check()
    queue.dead_lettered([rejected])
    assert not queue.redelivered
    queue.check()


# Slips

def test_transient_messages_are_written_down(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    queue.publish(messages(*ALL))
    queue.paging.page_out(1 << 30)
    assert len(list(queue.ready)) == COUNT, "until they are on disk, they are in memory"
    assert shelf.budget.used == PAGE_MESSAGES * (5 + MESSAGE_COST), "but they are about to go"
    shelf.write_slips()
    assert len(list(queue.ready)) == PAGE_MESSAGES
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == list(ALL) and not any(slip.left for slip in shelf.slips)
    queue.check()


def test_transient_messages_stay_where_there_is_no_disk(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    queue.publish(messages(*ALL))
    shelf.can_spill = False
    queue.paging.page_out(1 << 30)
    assert len(list(queue.ready)) == COUNT and shelf.budget.used == COUNT * (5 + MESSAGE_COST)
    queue.check()


def test_what_could_not_be_written_down_is_tried_again(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    queue.publish(messages(*ALL))
    queue.paging.page_out(1 << 30)
    shelf.write_slips(fails=True)
    assert shelf.budget.used == COUNT * (5 + MESSAGE_COST)
    queue.paging.page_out(1 << 30)
    shelf.write_slips()
    assert shelf.budget.used == PAGE_MESSAGES * (5 + MESSAGE_COST)
    queue.check()


def test_a_slip_that_comes_too_late_is_dropped(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    queue.publish(messages(*ALL))
    queue.paging.page_out(1 << 30)
    queue.purge()
    shelf.write_slips()
    assert shelf.slips and not any(slip.left for slip in shelf.slips) and shelf.budget.used == 0
    queue.check()


def test_what_ends_while_it_is_written_down_is_not_kept(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    run = messages(*ALL)
    for one in run[::2]:
        one.facts = Facts(expiration_ms=50)
    queue.publish(run, is_timed=True)
    queue.paging.page_out(1 << 30)
    queue._clock.advance(1_050)
    queue.worklist.work_off()
    shelf.write_slips()
    assert {number for slip in shelf.slips for number in slip.left} == {*ALL[PAGE_MESSAGES + 1 :: 2]}
    queue.check()


def test_slips_go_with_their_queue(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf)
    queue.publish(messages(*ALL))
    queue.paging.page_out(1 << 30)
    shelf.write_slips()
    queue.end()
    left = [len(slip.left) for slip in shelf.slips]
    assert left == [0, PAGE_MESSAGES, PAGE_MESSAGES], "all files at once"
    queue.worklist.work_off()
    assert not any(slip.left for slip in shelf.slips)


# All queues together

def test_the_queue_that_has_most_goes_first_and_only_as_far_as_it_must(journal: RecordingJournal) -> None:
    shelf = ShelfInMemory(journal.read, limit=COUNT * (5 + MESSAGE_COST))
    broker = Broker(journal, shelf=shelf)
    broker.add_vhost(VhostDefinition("/"))
    for name in ("large", "small"):
        broker.ensure(QueueDefinition(0, "/", name, durable=True))
    large, small = broker.vhosts["/"].queues.values()
    large.publish(messages(*ALL, persistent=True))
    broker.page_out()
    assert len(list(large.ready)) == COUNT, "it is within the budget"
    small.publish([message(COUNT + 1, persistent=True)])
    journal.commit()
    shelf.safe_number = COUNT + 1
    broker.page_out()
    assert shelf.budget.used <= shelf.budget.limit and len(list(small.ready)) == 1
    assert len(list(large.ready)) > PAGE_MESSAGES, "more than had to go has gone"


def test_priorities_above_the_highest_come_back_as_one_level(journal: RecordingJournal, shelf: ShelfInMemory) -> None:
    queue = make(journal, shelf, max_priority=2)
    run = messages(*range(1, 7), persistent=True)
    queue.restore(stored(run)._replace(priorities=bytearray([9, 0, 3, 2, 200, 1])), set(), 0, {})
    assert queue.ready.numbers() == [1, 3, 4, 5, 6, 2]
    queue.check()


def test_a_queue_whose_consumers_keep_up_is_spared_and_its_publishers_wait(journal: RecordingJournal) -> None:
    shelf = ShelfInMemory(journal.read, limit=COUNT * MESSAGE_COST // 2)
    clock = Clock(1_000, 1_000_000)
    broker = Broker(journal, shelf=shelf, clock=clock)
    broker.add_vhost(VhostDefinition("/"))
    broker.ensure(QueueDefinition(0, "/", "q"))
    queue, = broker.vhosts["/"].queues.values()
    consumer = subscribe(queue, ListSubscriber(), prefetch=COUNT // 2)
    queue.publish(messages(*range(1, 2 * COUNT + 1)))
    broker.page_out()
    assert broker.is_behind and len(list(queue.ready)) == len(queue.ready), "it took a quarter of what came"
    broker.page_out()
    assert broker.is_behind, "it is not asked again at once"
    clock.advance(1_100)
    broker.page_out()
    assert not broker.is_behind, "it took nothing meanwhile"
    shelf.write_slips()
    assert len(list(queue.ready)) < len(queue.ready)
    queue.unsubscribe(consumer)
