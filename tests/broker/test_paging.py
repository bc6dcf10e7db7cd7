"""A queue with messages on disk: when they are read, what waits for the disk, and what is paged out at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

import pytest
from msgspec.structs import replace

from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import Defined, QueueDefinition, VhostDefinition
from amqpd.broker.effort import SLICE
from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.paged_fifo import PagedFifo
from amqpd.broker.queue.pager import STEPS_A_MESSAGE, MessageNotLoaded
from amqpd.broker.queue.page_limits import FEWEST_BYTES, PAGE_BYTES, PAGE_MESSAGES
from amqpd.broker.queue.pages import OnDisk
from amqpd.broker.queue.queue import Queue
from amqpd.broker.queue.segment import MESSAGE_COST
from amqpd.broker.rules import QueueRules
from amqpd.message import Message, MessageProperties, reference_to
from tests.support.journals import RecordingJournal
from tests.support.page_stores import PageStoreInMemory, stored
from tests.support.samples import message, messages, queue_definition
from tests.support.subscribers import ListSubscriber, subscribe

COUNT = 4 * PAGE_MESSAGES
ALL = range(1, COUNT + 1)
DEAD: WeakKeyDictionary[Queue, list[tuple[int, str]]] = WeakKeyDictionary()


class ListedDeadLetters:
    """A router that records dead letters, with the reason."""

    def dead_letter(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        DEAD.setdefault(queue, []).extend([(one.number, reason) for one in run])

    def is_behind(self, queue: Queue) -> bool:
        """See broker/queue/queue.py."""
        return False


def dead_letters_of(queue: Queue) -> list[tuple[int, str]]:
    """Return what a queue has left to be dead-lettered: numbers and reasons, in order."""
    return DEAD.get(queue, [])


@pytest.fixture
def journal() -> RecordingJournal:
    """A journal that knows the queue `orders`."""
    journal = RecordingJournal()
    journal.changed(Defined(queue_definition(durable=True)))
    journal.commit()
    return journal


@pytest.fixture
def page_store(journal: RecordingJournal) -> PageStoreInMemory:
    return PageStoreInMemory(journal.read)


def make(journal: RecordingJournal, page_store: PageStoreInMemory, **rules: object) -> Queue:
    """A durable queue under these rules."""
    return Queue(
        queue_definition(durable=True), journal, page_store=page_store, sink=ListedDeadLetters(),
        clock=Clock(1_000, 1_000_000),
        rules=QueueRules(**rules))  # type: ignore[arg-type]  # by name, whatever a test asks for


@pytest.fixture
def queue(journal: RecordingJournal, page_store: PageStoreInMemory) -> Iterator[Queue]:
    """A durable queue with four pages of persistent messages, three of them on disk only."""
    queue = make(journal, page_store)
    fill(queue, journal, page_store)
    yield queue
    queue.check()
    assert queue.records.kept_on_disk == len(journal.now.messages[1])


def fill(queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory, *, is_timed: bool = False) -> None:
    queue.publish(messages(*ALL, persistent=True), is_timed=is_timed)
    journal.commit()
    page_store.safe_number = COUNT
    queue.pager.page_out(1 << 30)


def test_what_is_not_next_is_on_disk_only(queue: Queue, page_store: PageStoreInMemory) -> None:
    assert len(list(queue.ready)) == PAGE_MESSAGES
    assert (len(queue.ready), queue.ready.body_bytes) == (COUNT, 5 * COUNT)
    budget, left = page_store.budget, COUNT - PAGE_MESSAGES
    assert budget.used == PAGE_MESSAGES * (5 + MESSAGE_COST)
    assert (budget.paged_out_messages, budget.paged_out_bytes) == (left, 5 * left)
    assert budget.paged_out_pages == -(-left // PAGE_MESSAGES)


def test_what_is_not_committed_stays_in_memory(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store)
    queue.publish(messages(*ALL, persistent=True))
    journal.commit()
    page_store.safe_number = 2 * PAGE_MESSAGES
    queue.pager.page_out(1 << 30)
    assert len(list(queue.ready)) == 3 * PAGE_MESSAGES
    queue.check()


def test_what_is_on_disk_only_is_counted_when_it_is_dropped(queue: Queue) -> None:
    queue.apply(QueueRules(max_length=5))
    while not queue.worklist.is_empty:
        queue.worklist.work()
    assert (queue.statistics().over_length, queue.statistics().settled, len(queue.ready)) == (COUNT - 5, COUNT - 5, 5)


def test_little_is_not_worth_a_page(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store)
    queue.publish(messages(1, 2, 3, persistent=True))
    page_store.safe_number = 3
    queue.pager.page_out(1 << 30)
    assert len(list(queue.ready)) == 3
    queue.check()


def test_a_consumer_gets_all_in_order(queue: Queue, page_store: PageStoreInMemory) -> None:
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == list(ALL)


def test_a_consumer_waits_for_a_page_store_that_is_closed(queue: Queue, page_store: PageStoreInMemory) -> None:
    subscriber = ListSubscriber()
    page_store.is_open = False
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == list(ALL)[:PAGE_MESSAGES]
    page_store.is_open = True
    page_store.serve()
    assert subscriber.numbers() == list(ALL)


def test_pages_are_read_ahead_of_a_slow_consumer(queue: Queue, page_store: PageStoreInMemory) -> None:
    subscribe(queue, ListSubscriber(), prefetch=1)
    queue.dispatch()
    assert page_store.fetched == 0
    page_store.serve()
    assert page_store.fetched == PAGE_MESSAGES, "one page is enough to have a page in memory again"


def test_nobody_reads_ahead_for_nobody(queue: Queue, page_store: PageStoreInMemory) -> None:
    queue.get(no_ack=False)
    queue.dispatch()
    page_store.serve()
    assert page_store.fetched == 0


def test_a_get_reads_what_it_needs(queue: Queue) -> None:
    got = [queue.get(no_ack=False) for _ in range(PAGE_MESSAGES + 1)]
    assert [one.number for one in got if one] == list(ALL)[: PAGE_MESSAGES + 1]


def test_a_get_that_cannot_be_answered_now_is_called_when_it_can(queue: Queue, page_store: PageStoreInMemory) -> None:
    for _ in range(PAGE_MESSAGES):
        queue.get(no_ack=False)
    page_store.is_open = False
    with pytest.raises(MessageNotLoaded) as caught:
        queue.get(no_ack=False)
    got: list[Message | None] = []
    caught.value.call(lambda: got.append(queue.get(no_ack=False)))
    assert not got
    page_store.is_open = True
    page_store.serve()
    assert got[0] is not None and got[0].number == PAGE_MESSAGES + 1


def test_what_is_damaged_is_passed_over_and_forgotten(
    queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    damaged = PAGE_MESSAGES + 7
    queue.redelivery.deliveries[damaged] = 3
    queue.redelivery.numbers.add(damaged)
    page_store._read = lambda numbers: journal.read([number for number in numbers if number != damaged])
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == [number for number in ALL if number != damaged]
    assert not queue.redelivery.deliveries and not queue.redelivery.numbers and not journal.now.messages[1]


def test_a_damaged_spill_file_takes_nothing_from_what_the_store_keeps(
    queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    transient = range(COUNT + 1, COUNT + 2 * PAGE_MESSAGES + 1)
    queue.publish(messages(*transient))
    queue.pager.page_out(1 << 30)
    page_store.write_spill_files()
    for spill_file in page_store.spill_files:
        spill_file.run = spill_file.run[1:]
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert len(subscriber.numbers()) == COUNT + len(transient) - len(page_store.spill_files)
    assert queue.records.kept_on_disk == 0


def test_a_purge_reads_nothing(queue: Queue, journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    purge = queue.purge()
    queue.worklist.work_off()
    assert purge.is_done and purge.count == COUNT
    assert page_store.fetched == 0 and not journal.now.messages[1] and page_store.budget.used == 0


def test_what_is_requeued_goes_back_between_pages(queue: Queue, page_store: PageStoreInMemory) -> None:
    given: list[Message] = []
    for _ in range(3 * PAGE_MESSAGES):
        one = queue.get(no_ack=False)
        assert one is not None
        given.append(one)
    queue.requeue(given[:PAGE_MESSAGES] + given[2 * PAGE_MESSAGES :])
    queue.worklist.work_off()
    queue.pager.page_out(1 << 30)
    queue.requeue(given[PAGE_MESSAGES : 2 * PAGE_MESSAGES])
    queue.worklist.work_off()
    assert queue.ready.numbers() == list(ALL)


def test_a_queue_that_has_been_read_back_may_be_paged_out_again(queue: Queue, page_store: PageStoreInMemory) -> None:
    budget = page_store.budget
    queue.pager.page_out(1 << 30)
    queue.pager.shrunk()
    budget.large.pop(queue.pager, None)
    while queue.pager not in budget.large and queue.get(no_ack=True) is not None:
        pass
    assert queue.pager in budget.large and queue.pager.is_large


def test_a_queue_that_was_deleted_is_not_paged_out_any_more(queue: Queue, page_store: PageStoreInMemory) -> None:
    queue.pager.note_size()
    assert queue.pager in page_store.budget.large
    queue.pager.end()
    queue.pager.note_size()
    assert queue.pager not in page_store.budget.large


# References, which stand for unacked messages that are on disk only

@pytest.fixture
def line(page_store: PageStoreInMemory) -> Iterator[PagedFifo]:
    """A line in which persistent messages are on disk."""
    line = PagedFifo(page_store.budget, Deadlines(), lambda one: one.facts.persistent)
    yield line
    line.check()
    assert all(one.content for one in line), "a reference counts as a message in memory"
    assert page_store.budget.used == line.cost
    assert max(page.body_bytes for page in line._paged.pages) <= 2 * PAGE_BYTES


def references(*numbers: int) -> list[Message]:
    """What stands for messages, of which two fill a page."""
    run = [reference_to(one) for one in messages(*numbers, persistent=True)]
    for one in run:
        one.body_size = PAGE_BYTES // 2
    return run


def in_memory(line: PagedFifo) -> list[int]:
    return [one.number for one in line]


def test_references_make_pages_that_can_be_read_at_once(line: PagedFifo) -> None:
    line.put_back(references(*range(1, 11)))
    assert line.numbers() == [*range(1, 11)] and not in_memory(line)


def test_references_go_before_what_waits_in_memory(line: PagedFifo) -> None:
    line.extend(messages(11, 12))
    line.put_back(references(*range(1, 11)))
    assert line.numbers() == [*range(1, 13)] and in_memory(line) == [11, 12]


def test_references_go_behind_the_tail(line: PagedFifo) -> None:
    line.put_back(references(1))
    line.extend(messages(2, 3, 14))
    line.put_back(references(*range(4, 14)))
    assert line.numbers() == [*range(1, 15)] and in_memory(line) == [2, 3, 14]


def test_references_go_into_the_head_where_there_are_pages(line: PagedFifo) -> None:
    line.put_back(references(30))
    line.put_back(messages(1, 12))
    line.put_back(references(*range(2, 12)))
    assert line.numbers() == [*range(1, 13), 30] and in_memory(line) == [1, 12]


def test_references_go_before_a_page_in_memory(line: PagedFifo) -> None:
    line.put_back(references(30))
    line.put_back(messages(11, 12))
    line.put_back(references(*range(1, 11)))
    assert line.numbers() == [*range(1, 13), 30] and in_memory(line) == [11, 12]


def test_references_go_between_messages_of_a_page_in_memory(line: PagedFifo) -> None:
    line.put_back(references(1))
    line.extend(messages(2, 13))
    line.put_back(references(20))
    line.put_back(references(*range(3, 13)))
    assert line.numbers() == [*range(1, 14), 20] and in_memory(line) == [2, 13]


# Ends

def test_messages_end_in_their_pages(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store, message_ttl_ms=5_000)
    fill(queue, journal, page_store)
    queue._clock.advance(5_999)
    assert len(queue.ready) == COUNT
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    assert not queue.ready and page_store.fetched == 0 and not journal.now.messages[1]
    queue.check()


def test_no_more_than_a_page_is_read_at_once_of_what_expires_together(
    journal: RecordingJournal, page_store: PageStoreInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 600_000      # as these messages say of themselves; nothing here looks at their bodies
    queue = make(journal, page_store, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    queue.publish([replace(one, body_size=size) for one in messages(*range(1, 201), persistent=True)])
    journal.commit()
    page_store.safe_number = 200
    queue.pager.page_out(1 << 40)
    read: list[int] = []
    fetch = page_store.fetch

    def record(on_disk: OnDisk) -> list[Message]:
        read.append(size * len(on_disk.numbers))
        return fetch(on_disk)

    monkeypatch.setattr(page_store, "fetch", record)
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    while page_store.is_waited_for:
        page_store.serve()
    assert len(read) > 50 and max(read) <= PAGE_BYTES + size
    assert dead_letters_of(queue) == [(number, "expired") for number in range(1, 201)]


def test_what_expires_on_disk_is_read_to_be_moved(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    fill(queue, journal, page_store)
    page_store.is_open = False
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    assert not queue.ready
    assert len(dead_letters_of(queue)) == PAGE_MESSAGES, "what was in memory"
    assert len(journal.now.messages[1]) == COUNT, "they are kept until they have been moved"
    page_store.is_open = True
    for _ in range(COUNT // PAGE_MESSAGES):
        page_store.serve()
    assert dead_letters_of(queue) == [(number, "expired") for number in ALL]
    queue.dead_letters.moved(messages(*ALL, persistent=True))
    assert not journal.now.messages[1]
    queue.check()


def work_off(queue: Queue, page_store: PageStoreInMemory) -> None:
    """Let a queue do all it has to, reading included."""
    queue.worklist.work_off()
    while page_store.is_waited_for and page_store.is_open:
        page_store.serve()
        queue.worklist.work_off()


@pytest.mark.parametrize("max_priority", [0, 5])
@pytest.mark.parametrize("is_open", [True, False])
def test_what_expires_at_one_moment_is_dead_lettered_in_the_order_of_the_queue(
    journal: RecordingJournal, page_store: PageStoreInMemory, max_priority: int, is_open: bool
) -> None:
    queue = make(journal, page_store, message_ttl_ms=5_000, dead_letter_exchange="dlx", max_priority=max_priority)
    fill(queue, journal, page_store)
    behind = range(COUNT + 1, COUNT + PAGE_MESSAGES + 1)
    queue.publish(messages(*behind, persistent=True))
    journal.commit()
    assert len(list(queue.ready)) == 2 * PAGE_MESSAGES, "a head, three pages on disk only, and a tail"
    page_store.is_open = is_open
    queue._clock.advance(6_000)
    work_off(queue, page_store)
    if not is_open:
        assert len(dead_letters_of(queue)) == PAGE_MESSAGES, "what is behind waits for what has to be read"
        page_store.is_open = True
        work_off(queue, page_store)
    assert dead_letters_of(queue) == [(number, "expired") for number in (*ALL, *behind)]
    queue.check()


def test_what_expires_later_does_not_overtake_what_has_to_be_read(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    fill(queue, journal, page_store)
    queue._clock.advance(2_000)
    queue.publish(messages(COUNT + 1, persistent=True))
    journal.commit()
    page_store.is_open = False
    for now_ms in (6_000, 7_000):
        queue._clock.advance(now_ms)
        work_off(queue, page_store)
    assert len(dead_letters_of(queue)) == PAGE_MESSAGES and not queue.ready
    page_store.is_open = True
    work_off(queue, page_store)
    assert dead_letters_of(queue) == [(number, "expired") for number in (*ALL, COUNT + 1)]


@pytest.mark.parametrize("end_of, every, times", [
    (lambda number: 2_000 + number * 7 % 11, 1, range(2_000, 2_011)),
    (lambda number: (2_006, 2_005, 2_007, 2_005, 2_006)[(number - 1) // PAGE_MESSAGES], 100, [3_000]),
], ids=["in time, each by itself", "late, all together"])
def test_messages_of_several_expiries_are_dead_lettered_in_their_order(
    journal: RecordingJournal, page_store: PageStoreInMemory, end_of: Callable[[int], int], every: int,
    times: Iterable[int],
) -> None:
    queue = make(journal, page_store, dead_letter_exchange="dlx")
    run = messages(*range(1, COUNT + PAGE_MESSAGES + 1), persistent=True)
    ends = {one: end_of(one.number) for one in run[::every]}
    for one, end in ends.items():
        one.facts = MessageProperties(True, expiration_ms=end - 1_000)
    queue.publish(run[:COUNT], is_timed=True)
    journal.commit()
    page_store.safe_number = COUNT
    queue.pager.page_out(1 << 30)
    queue.publish(run[COUNT:], is_timed=True)
    journal.commit()
    for now_ms in times:
        queue._clock.advance(now_ms)
        work_off(queue, page_store)
    in_order = sorted(ends, key=lambda one: (ends[one], one.number))
    assert dead_letters_of(queue) == [(one.number, "expired") for one in in_order]
    queue.check()


def test_the_dead_on_disk_that_are_damaged_are_forgotten(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    fill(queue, journal, page_store)
    damaged = {PAGE_MESSAGES + 7, 2 * PAGE_MESSAGES + 1, COUNT}
    page_store._read = lambda numbers: journal.read([number for number in numbers if number not in damaged])
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    while page_store.is_waited_for:
        page_store.serve()
    assert sorted(dead_letters_of(queue)) == [(number, "expired") for number in ALL if number not in damaged]
    assert {*journal.now.messages[1]} == {*ALL} - damaged and queue.dead_letters.moving == COUNT - 3
    queue.dead_letters.moved(messages(*[number for number in ALL if number not in damaged], persistent=True))
    assert not journal.now.messages[1] and queue.records.kept_on_disk == queue.dead_letters.count == 0


def test_the_file_of_transient_dead_goes_when_they_have_been_read(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    queue.publish(messages(*ALL))
    queue.pager.page_out(1 << 30)
    page_store.write_spill_files()
    assert sum(len(spill_file.left) for spill_file in page_store.spill_files) == COUNT - PAGE_MESSAGES
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    while page_store.is_waited_for:
        page_store.serve()
    assert sorted(dead_letters_of(queue)) == [(number, "expired") for number in ALL]
    assert not any(spill_file.left for spill_file in page_store.spill_files)
    queue.check()


def test_the_dead_of_a_deleted_queue_go_nowhere(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store, message_ttl_ms=5_000, dead_letter_exchange="dlx")
    fill(queue, journal, page_store)
    page_store.is_open = False
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    queue.end()
    page_store.is_open = True
    page_store.serve()
    assert len(dead_letters_of(queue)) == PAGE_MESSAGES


def test_a_limit_that_comes_later_drops_without_reading(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store)
    fill(queue, journal, page_store)
    queue.apply(QueueRules(max_length=10))
    queue.worklist.work_off()
    assert queue.ready.numbers() == list(ALL)[-10:] and page_store.fetched == 0
    assert sorted(journal.now.messages[1]) == list(ALL)[-10:]
    queue.check()


def test_many_dead_are_read_a_few_pages_a_turn(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store, dead_letter_exchange="dlx")
    fill(queue, journal, page_store)
    queue.apply(QueueRules(max_length=0, dead_letter_exchange="dlx"))
    queue.worklist.effort.begin()
    queue.worklist.work()
    assert 0 < page_store.fetched <= SLICE // STEPS_A_MESSAGE + PAGE_MESSAGES
    queue.worklist.work_off()
    page_store.serve()
    assert dead_letters_of(queue) == [(number, "maxlen") for number in ALL]


def test_the_dead_that_wait_for_others_do_not_end_as_well(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    rules = {"message_ttl_ms": 5_000, "dead_letter_exchange": "dlx"}
    queue = make(journal, page_store, **rules)
    fill(queue, journal, page_store)
    queue.publish(messages(COUNT + 1))
    page_store.is_open = False
    queue.apply(QueueRules(max_length=0, **rules))  # type: ignore[arg-type]  # by name
    queue.worklist.work_off()
    queue._clock.advance(6_000)
    queue.worklist.work_off()
    queue.check()
    page_store.is_open = True
    for _ in range(COUNT // PAGE_MESSAGES):
        page_store.serve()
    assert dead_letters_of(queue) == [
        (number, "maxlen") for number in [*ALL, COUNT + 1]]


def test_the_dead_that_could_not_be_read_are_read_the_next_time(
    journal: RecordingJournal, page_store: PageStoreInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {"dead_letter_exchange": "dlx"}
    queue = make(journal, page_store, **rules)
    fill(queue, journal, page_store)
    page_store.is_open = False
    queue.apply(QueueRules(max_length=0, **rules))  # type: ignore[arg-type]  # by name
    queue.worklist.work_off()
    page_store.is_open = True
    with monkeypatch.context() as patch:
        patch.setattr(page_store, "fetch", lambda on_disk: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            page_store.serve()
    assert queue.dead_letters.to_be_loaded == COUNT - PAGE_MESSAGES
    queue.check()
    queue.pager.order_call()
    for _ in range(COUNT // PAGE_MESSAGES):
        page_store.serve()
    assert dead_letters_of(queue) == [(number, "maxlen") for number in ALL]


def test_the_rejected_count_as_delivered_until_they_are_moved(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store, dead_letter_exchange="dlx", is_at_least_once=True)
    queue.publish(messages(1, persistent=True))
    rejected = queue.get(no_ack=False)
    assert rejected is not None
    queue.reject([rejected])
    assert queue.redelivery.numbers == {1}, "a stop now would have it ready again"
    queue.check()
    queue.dead_letters.moved([rejected])
    assert not queue.redelivery.numbers
    queue.check()


# Spill files

def test_transient_messages_are_written_down(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store)
    queue.publish(messages(*ALL))
    queue.pager.page_out(1 << 30)
    assert len(list(queue.ready)) == COUNT, "until they are on disk, they are in memory"
    assert page_store.budget.used == PAGE_MESSAGES * (5 + MESSAGE_COST), "but they are about to go"
    page_store.write_spill_files()
    assert len(list(queue.ready)) == PAGE_MESSAGES
    subscriber = ListSubscriber()
    subscribe(queue, subscriber, no_ack=True)
    queue.dispatch()
    assert subscriber.numbers() == list(ALL) and not any(spill_file.left for spill_file in page_store.spill_files)
    queue.check()


def test_transient_messages_stay_where_there_is_no_disk(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store)
    queue.publish(messages(*ALL))
    page_store.can_spill = False
    queue.pager.page_out(1 << 30)
    assert len(list(queue.ready)) == COUNT and page_store.budget.used == COUNT * (5 + MESSAGE_COST)
    queue.check()


def test_what_could_not_be_written_down_is_tried_again(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store)
    queue.publish(messages(*ALL))
    queue.pager.page_out(1 << 30)
    page_store.write_spill_files(fails=True)
    assert page_store.budget.used == COUNT * (5 + MESSAGE_COST)
    queue.pager.page_out(1 << 30)
    page_store.write_spill_files()
    assert page_store.budget.used == PAGE_MESSAGES * (5 + MESSAGE_COST)
    queue.check()


def test_a_spill_file_that_comes_too_late_is_dropped(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store)
    queue.publish(messages(*ALL))
    queue.pager.page_out(1 << 30)
    queue.purge()
    page_store.write_spill_files()
    assert page_store.spill_files and not any(spill_file.left for spill_file in page_store.spill_files)
    assert page_store.budget.used == 0
    queue.check()


def test_what_ends_while_it_is_written_down_is_not_kept(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store)
    run = messages(*ALL)
    for one in run[::2]:
        one.facts = MessageProperties(expiration_ms=50)
    queue.publish(run, is_timed=True)
    queue.pager.page_out(1 << 30)
    queue._clock.advance(1_050)
    queue.worklist.work_off()
    page_store.write_spill_files()
    left = {number for spill_file in page_store.spill_files for number in spill_file.left}
    assert left == {*ALL[PAGE_MESSAGES + 1 :: 2]}
    queue.check()


def test_spill_files_go_with_their_queue(journal: RecordingJournal, page_store: PageStoreInMemory) -> None:
    queue = make(journal, page_store)
    queue.publish(messages(*ALL))
    queue.pager.page_out(1 << 30)
    page_store.write_spill_files()
    queue.end()
    left = [len(spill_file.left) for spill_file in page_store.spill_files]
    assert left == [0, PAGE_MESSAGES, PAGE_MESSAGES], "all files at once"
    queue.worklist.work_off()
    assert not any(spill_file.left for spill_file in page_store.spill_files)


def test_spill_files_of_dead_letters_that_were_never_loaded_go_with_their_queue(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store, dead_letter_exchange="dlx")
    queue.publish(messages(*ALL))
    queue.pager.page_out(1 << 30)
    page_store.write_spill_files()
    page_store.is_open = False
    queue.apply(QueueRules(max_length=0, dead_letter_exchange="dlx"))
    queue.worklist.work_off()
    assert queue.dead_letters.to_be_loaded == COUNT - PAGE_MESSAGES
    queue.end()
    queue.worklist.work_off()
    assert not any(spill_file.left for spill_file in page_store.spill_files)


# All queues together

def test_the_queue_that_has_most_goes_first_and_only_as_far_as_it_must(journal: RecordingJournal) -> None:
    page_store = PageStoreInMemory(journal.read, limit=COUNT * (5 + MESSAGE_COST))
    broker = Broker(journal, page_store=page_store)
    broker.add_vhost(VhostDefinition("/"))
    for name in ("large", "small"):
        broker.ensure(QueueDefinition(0, "/", name, durable=True))
    large, small = broker.vhosts["/"].queues.values()
    large.publish(messages(*ALL, persistent=True))
    broker.page_out()
    assert len(list(large.ready)) == COUNT, "it is within the budget"
    small.publish([message(COUNT + 1, persistent=True)])
    journal.commit()
    page_store.safe_number = COUNT + 1
    broker.page_out()
    assert page_store.budget.used <= page_store.budget.limit and len(list(small.ready)) == 1
    assert len(list(large.ready)) > PAGE_MESSAGES, "more than had to go has gone"


def test_priorities_above_the_highest_come_back_as_one_level(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store, max_priority=2)
    run = messages(*range(1, 7), persistent=True)
    queue.restore(stored(run)._replace(priorities=bytearray([9, 0, 3, 2, 200, 1])), set(), 0, {})
    assert queue.ready.numbers() == [1, 3, 4, 5, 6, 2]
    queue.check()


def test_a_queue_whose_consumers_keep_up_is_spared_and_its_publishers_wait(journal: RecordingJournal) -> None:
    page_store = PageStoreInMemory(journal.read, limit=COUNT * MESSAGE_COST // 2)
    clock = Clock(1_000, 1_000_000)
    broker = Broker(journal, page_store=page_store, clock=clock)
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
    page_store.write_spill_files()
    assert len(list(queue.ready)) < len(queue.ready)
    queue.unsubscribe(consumer)


# What a queue asks of the pager of one FIFO, and of what is dead-lettered

def test_a_queue_that_was_small_for_a_while_is_paged_out_again(journal: RecordingJournal) -> None:
    page_store = PageStoreInMemory(journal.read)
    queue = make(journal, page_store)
    queue.publish(messages(*ALL))
    budget = page_store.budget
    assert queue.pager in budget.large
    queue.purge()
    queue.worklist.work_off()
    assert budget.largest(FEWEST_BYTES, 1) == [] and queue.pager not in budget.large
    queue.publish(messages(*range(COUNT + 1, 2 * COUNT + 1)))
    assert budget.largest(FEWEST_BYTES, 1) == [queue.pager]


def test_rejected_messages_that_are_on_disk_are_read_a_page_a_turn_in_their_order(
    journal: RecordingJournal, page_store: PageStoreInMemory
) -> None:
    queue = make(journal, page_store, dead_letter_exchange="x")
    body = bytes(PAGE_BYTES // 2)
    queue.publish([message(number, body, persistent=True) for number in range(1, 9)])
    journal.commit()
    page_store.safe_number = 8
    run = [one for _ in range(8) if (one := queue.get(no_ack=False))]
    run[2:7] = [reference_to(one) for one in run[2:7]]
    queue.reject(run)
    assert [number for number, _ in dead_letters_of(queue)] == [1, 2, 3, 4]
    assert queue.dead_letters.to_be_loaded == 4 and page_store.is_waited_for
    for expected in (6, 8):
        page_store.serve()
        assert [number for number, _ in dead_letters_of(queue)] == [*range(1, expected + 1)]
    assert queue.dead_letters.to_be_loaded == 0 and not page_store.is_waited_for


def test_what_the_router_does_not_accept_is_set_aside_and_told_of(
    journal: RecordingJournal, page_store: PageStoreInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(ListedDeadLetters):
        def dead_letter(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
            raise OverflowError("something that nobody thought of")

    queue = Queue(
        queue_definition(durable=True), journal, rules=QueueRules(dead_letter_exchange="x"), page_store=page_store,
        sink=Failing())
    queue.publish(messages(1, 2, persistent=True))
    queue.reject([one for _ in range(2) if (one := queue.get(no_ack=False))])
    assert (queue.dead_letters.moving, [*queue.dead_letters.aside], queue.dead_letters.count) == (0, [1, 2], 2)
    assert "queue 'orders' in vhost '/': 2 messages cannot be dead-lettered and are set aside" in caplog.text
