"""A paged FIFO: how much is paged out, its counts, and a FIFO with priorities."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from amqpd.broker.clock import Clock
from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue import page_list
from amqpd.broker.queue.page_limits import FEWEST_BYTES, FEWEST_MESSAGES, PAGE_BYTES, PAGE_LIMITS, PAGE_MESSAGES
from amqpd.broker.queue.paged_fifo import PagedFifo
from amqpd.broker.queue.pages import NO_EXPIRY, OnDisk, Page, StoredMessages
from amqpd.broker.queue.priority_fifo import PriorityFifo
from amqpd.broker.queue.segment import DELIVERY_OVERHEAD, MESSAGE_COST, PLACES_A_STEP, Budget, Segment
from amqpd.message import Message, MessageProperties, reference_to
from tests.support.page_stores import SpillFileInMemory
from tests.support.samples import message, messages

EVERYTHING = 1 << 62


def anything(message: Message) -> bool:
    return True


@pytest.fixture
def budget() -> Budget:
    return Budget()


@pytest.fixture
def fifo(budget: Budget) -> PagedFifo:
    return PagedFifo(budget, Deadlines(), anything)


def let_go(pages: list[Page], budget: Budget) -> None:
    for page in pages:
        page.let_go(budget)


# How much goes

def test_as_many_pages_go_as_are_asked_for_and_a_page_s_worth_stays(fifo: PagedFifo, budget: Budget) -> None:
    fifo.extend(messages(*range(1, 6 * PAGE_MESSAGES + 1)))
    cost = PAGE_MESSAGES * (5 + MESSAGE_COST)
    assert budget.used == fifo.cost == 6 * cost
    made = fifo.page_out(cost + 1, anything)
    assert [(page.first, page.count) for page in made] == [
        (PAGE_MESSAGES + 1, PAGE_MESSAGES), (2 * PAGE_MESSAGES + 1, PAGE_MESSAGES)]
    let_go(made, budget)
    assert budget.used == fifo.cost == 4 * cost
    assert fifo.on_disk_only == (2 * PAGE_MESSAGES, 2 * 5 * PAGE_MESSAGES)
    made = fifo.page_out(EVERYTHING, anything)
    assert len(made) == 3 and fifo.page_out(EVERYTHING, anything) == made, "what is not let go of is asked for again"
    let_go(made, budget)
    assert budget.used == fifo.cost == cost and fifo.page_out(EVERYTHING, anything) == []
    assert [one.number for one in fifo] == [*range(1, PAGE_MESSAGES + 1)]


def test_pages_that_are_in_memory_yet_count_for_what_is_asked_for(fifo: PagedFifo) -> None:
    fifo.extend(messages(*range(1, 6 * PAGE_MESSAGES + 1)))
    cost = PAGE_MESSAGES * (5 + MESSAGE_COST)
    first, = fifo.page_out(1, anything)
    assert fifo.page_out(cost, anything) == [first]
    assert [page.first for page in fifo.page_out(cost + 1, anything)] == [first.first, 2 * PAGE_MESSAGES + 1]


def test_no_more_pages_in_memory_are_asked_for_than_is_wanted(fifo: PagedFifo) -> None:
    fifo.extend(messages(*range(1, 6 * PAGE_MESSAGES + 1)))
    cost = PAGE_MESSAGES * (5 + MESSAGE_COST)
    made = fifo.page_out(3 * cost, anything)
    assert len(made) == 3
    assert fifo.page_out(cost, anything) == made[:1]
    assert fifo.page_out(2 * cost, anything) == made[1:], "the next call begins with other pages"


def test_a_cleared_fifo_costs_nothing_of_its_pages_any_more(fifo: PagedFifo, budget: Budget) -> None:
    fifo.extend(messages(*range(1, 6 * PAGE_MESSAGES + 1)))
    let_go(fifo.page_out(PAGE_MESSAGES, anything), budget)
    fifo.page_out(PAGE_MESSAGES, anything)
    fifo.clear()
    assert budget.used == 0


def test_of_a_head_that_has_become_long_the_end_goes(fifo: PagedFifo, budget: Budget) -> None:
    run = messages(*range(1, 5 * PAGE_MESSAGES + 1))
    fifo.extend(run)
    taken = fifo.take(3 * PAGE_MESSAGES, EVERYTHING)
    made = fifo.page_out(EVERYTHING, anything)
    assert [page.first for page in made] == [4 * PAGE_MESSAGES + 1]
    let_go(made, budget)
    fifo.put_back(taken)
    made = fifo.page_out(EVERYTHING, anything)
    assert [page.first for page in made] == [3 * PAGE_MESSAGES + 1, 2 * PAGE_MESSAGES + 1]
    let_go(made, budget)
    assert fifo.numbers() == [one.number for one in run] and len([*fifo]) == 2 * PAGE_MESSAGES
    fifo.check()


@pytest.mark.parametrize("body, count, goes", [
    (b"x", FEWEST_MESSAGES, True), (b"x", FEWEST_MESSAGES - 1, False), (bytes(FEWEST_BYTES), 1, True),
    (bytes(FEWEST_BYTES - 1), 1, False)])
def test_a_few_small_messages_are_not_worth_a_page(fifo: PagedFifo, body: bytes, count: int, *, goes: bool) -> None:
    fifo.extend(messages(*range(1, PAGE_MESSAGES + 1)))
    fifo.extend([message(PAGE_MESSAGES + number, body) for number in range(1, count + 1)])
    assert [page.count for page in fifo.page_out(EVERYTHING, anything)] == [count] * goes
    assert fifo.numbers() == [*range(1, PAGE_MESSAGES + count + 1)]
    fifo.check()


def test_large_messages_make_pages_of_a_megabyte(fifo: PagedFifo) -> None:
    size = PAGE_BYTES // 8
    fifo.extend([message(number, bytes(size)) for number in range(1, 41)])
    made = fifo.page_out(EVERYTHING, anything)
    assert [page.first for page in made] == [9, 17, 25, 33] and {page.body_bytes for page in made} == {PAGE_BYTES}


def test_messages_that_may_not_go_end_a_page(fifo: PagedFifo) -> None:
    fifo.extend(messages(*range(1, 4 * PAGE_MESSAGES)))
    last = PAGE_MESSAGES + 2 * FEWEST_MESSAGES
    page, = fifo.page_out(EVERYTHING, lambda one: one.number <= last)
    assert page.numbers == [*range(PAGE_MESSAGES + 1, last + 1)]


# Limits, and what has expired

def test_no_more_is_dropped_at_once_than_asked_for(fifo: PagedFifo, budget: Budget) -> None:
    fifo.extend(messages(*range(1, 21)))
    removed, = fifo.trim(5, EVERYTHING, 10)
    assert isinstance(removed, list) and [one.number for one in removed] == [*range(1, 11)]
    removed, = fifo.trim(5, EVERYTHING, 10)
    assert isinstance(removed, list) and [one.number for one in removed] == [*range(11, 16)]
    assert fifo.trim(5, EVERYTHING) == [] and fifo.trim(EVERYTHING, 25) == []
    assert sum(map(len, fifo.trim(EVERYTHING, 24))) == 1
    assert budget.used == fifo.cost == 4 * (5 + MESSAGE_COST)


def test_what_is_dropped_from_pages_is_named_with_its_file(fifo: PagedFifo, budget: Budget) -> None:
    fifo.extend(messages(*range(1, 3 * PAGE_MESSAGES + 1)))
    made = fifo.page_out(EVERYTHING, anything)
    spill_file = SpillFileInMemory(made[0].messages)
    made[0].let_go(budget, spill_file)
    made[1].let_go(budget)
    removed = fifo.trim(PAGE_MESSAGES // 2, EVERYTHING)
    in_memory, first, second = removed
    assert isinstance(in_memory, list) and len(in_memory) == PAGE_MESSAGES
    assert first == OnDisk([*range(PAGE_MESSAGES + 1, 2 * PAGE_MESSAGES + 1)], spill_file)
    assert second == OnDisk([*range(2 * PAGE_MESSAGES + 1, 2 * PAGE_MESSAGES + PAGE_MESSAGES // 2 + 1)])
    assert len(fifo) == PAGE_MESSAGES // 2 and fifo.body_bytes == 5 * len(fifo)


def paged_with_ends(fifo: PagedFifo, lives: Callable[[int], int]) -> None:
    count = 3 * PAGE_MESSAGES
    numbers = array("q", range(1, count + 1))
    ends = array("q", [lives(number) for number in numbers])
    stored = StoredMessages(numbers, array("I", [5] * count), ends, ends)
    for level, pages in stored.pages(stored.ends(None, Clock(0, 0)), 0):
        fifo.restore(level, pages)


def test_what_expires_in_pages_is_named_together_up_to_so_many(fifo: PagedFifo) -> None:
    paged_with_ends(fifo, lambda number: 10 if number % 100 == 0 else NO_EXPIRY)
    assert fifo.next_expiry == 10 and fifo.take_due(9) == []
    assert fifo.take_due(10, 1) == [OnDisk([*range(100, PAGE_MESSAGES + 1, 100)])]
    rest, = fifo.take_due(10)
    assert isinstance(rest, OnDisk) and rest.numbers == [*range(1_100, 3 * PAGE_MESSAGES + 1, 100)]
    assert fifo.next_expiry is None and fifo.take_due(EVERYTHING) == []
    assert fifo.body_bytes == 5 * len(fifo) == 5 * (3 * PAGE_MESSAGES - 30)
    fifo.check()


def test_pages_of_which_all_has_expired_are_gone(fifo: PagedFifo) -> None:
    paged_with_ends(fifo, lambda number: 10 if number <= 2 * PAGE_MESSAGES else 20)
    assert sum(len(part.numbers) for part in fifo.take_due(10) if isinstance(part, OnDisk)) == 2 * PAGE_MESSAGES
    assert fifo._paged is not None and len(fifo._paged.pages) == 1 and fifo.next_expiry == 20
    fifo.check()
    assert len(fifo.clear()) >= 1 and (len(fifo), fifo.body_bytes, fifo.next_expiry) == (0, 0, None)


def test_what_is_dropped_after_some_have_expired_is_the_first_that_is_left(fifo: PagedFifo) -> None:
    paged_with_ends(fifo, lambda number: 10 if number in (1, 2, 4) else NO_EXPIRY)
    assert fifo.take_due(10) == [OnDisk([1, 2, 4])]
    assert fifo.trim(3 * PAGE_MESSAGES - 5, EVERYTHING) == [OnDisk([3, 5])]
    assert fifo.numbers()[:2] == [6, 7] and fifo.body_bytes == 5 * (3 * PAGE_MESSAGES - 5)
    fifo.check()


def test_what_has_been_dropped_does_not_expire_any_more(fifo: PagedFifo) -> None:
    paged_with_ends(fifo, lambda number: 10 if number % PAGE_MESSAGES == 5 else NO_EXPIRY)
    fifo.trim(2 * PAGE_MESSAGES, EVERYTHING)
    assert fifo.next_expiry == 10
    assert fifo.take_due(10) == [OnDisk([PAGE_MESSAGES + 5, 2 * PAGE_MESSAGES + 5])]
    fifo.trim(0, EVERYTHING)
    assert fifo.next_expiry is None and fifo.take_due(1 << 40) == []


def test_large_messages_that_expire_in_pages_are_read_in_pieces(budget: Budget) -> None:
    fifo = PagedFifo(budget, Deadlines(), anything)
    count = 2 * 8
    numbers, ends = array("q", range(1, count + 1)), array("q", [1] * count)
    stored = StoredMessages(numbers, array("I", [PAGE_BYTES // 8] * count), ends, ends)
    for level, pages in stored.pages(stored.ends(None, Clock(0, 0)), 0):
        fifo.restore(level, pages)
    assert fifo.take_due(1) == [OnDisk([*range(1, 9)]), OnDisk([*range(9, 17)])]


def test_as_much_is_read_together_of_several_pages_as_expires_in_them(budget: Budget) -> None:
    """An eighth of a page at a time; what stays in the pages is not read."""
    fifo = PagedFifo(budget, Deadlines(), anything)
    count = 16 * 8
    numbers, ends = array("q", range(1, count + 1)), array("q", [1 if n % 8 == 0 else 9 for n in range(count)])
    stored = StoredMessages(numbers, array("I", [PAGE_BYTES // 8] * count), ends, ends)
    for level, pages in stored.pages(stored.ends(None, Clock(0, 0)), 0):
        fifo.restore(level, pages)
    assert fifo.take_due(1) == [OnDisk([*range(1, 65, 8)]), OnDisk([*range(65, 129, 8)])]


def test_what_expires_in_a_page_of_transient_messages_is_named_with_its_file(budget: Budget) -> None:
    deadlines = Deadlines()
    fifo = PagedFifo(budget, deadlines)
    run = messages(*range(1, 3 * PAGE_MESSAGES + 1))
    fifo.extend(run)
    deadlines.add({one: 10 for one in run[::2]})
    in_memory, spilled = fifo.page_out(EVERYTHING, anything)
    spill_file = SpillFileInMemory(spilled.messages)
    spilled.let_go(budget, spill_file)
    assert fifo.body_bytes == 5 * len(run)
    removed = fifo.take_due(10)
    assert [one.number for part in removed if isinstance(part, list) for one in part] == [
        *range(PAGE_MESSAGES + 1, 2 * PAGE_MESSAGES, 2)]
    assert [part for part in removed if isinstance(part, OnDisk)] == [
        OnDisk([*range(2 * PAGE_MESSAGES + 1, 3 * PAGE_MESSAGES, 2)], spill_file)]
    assert in_memory.count == spilled.count == PAGE_MESSAGES // 2
    fifo.check()


@pytest.mark.parametrize("tail", [0, 10])
def test_the_bytes_of_head_pages_and_tail_are_told_together(fifo: PagedFifo, budget: Budget, tail: int) -> None:
    fifo.extend(messages(*range(1, 3 * PAGE_MESSAGES + 1)))
    let_go(fifo.page_out(EVERYTHING, anything), budget)
    fifo.extend([message(3 * PAGE_MESSAGES + number, bytes(7)) for number in range(1, tail + 1)])
    assert fifo.body_bytes == 15 * PAGE_MESSAGES + 7 * tail and len(fifo) == 3 * PAGE_MESSAGES + tail
    assert fifo.on_disk_only == (2 * PAGE_MESSAGES, 10 * PAGE_MESSAGES)
    assert budget.used == fifo.cost == PAGE_MESSAGES * (5 + MESSAGE_COST) + tail * (7 + MESSAGE_COST)


# References that come back

def test_a_message_that_is_on_disk_comes_back_to_its_page(fifo: PagedFifo, budget: Budget) -> None:
    fifo.extend(messages(*range(1, 3 * PAGE_MESSAGES + 1)))
    let_go(fifo.page_out(EVERYTHING, anything), budget)
    run = fifo.take(PAGE_MESSAGES, EVERYTHING)
    page = fifo.next_page
    assert page is not None
    fifo.load(messages(*page.numbers))
    again = fifo.take(PAGE_MESSAGES, EVERYTHING)
    assert fifo.first_number == 0
    fifo.put_back([reference_to(again[5])])
    fifo.put_back([reference_to(run[3]), reference_to(again[6])])
    assert fifo.numbers()[:3] == [4, again[5].number, again[6].number]
    assert len(fifo) == PAGE_MESSAGES + 3 and fifo.body_bytes == 5 * len(fifo) and budget.used == 0
    fifo.check()


# Segments

def test_a_walk_counts_by_the_places_and_by_what_was_put_back(budget: Budget) -> None:
    segment = Segment(budget)
    segment.extend(messages(*range(1, 1_601)))
    taken = segment.take(400, EVERYTHING)
    segment.put_back(taken[:1])
    segment.put_back(taken[100:300])
    segment.put_back(taken[50:51])
    before = budget.effort.total
    segment._sweep()
    back = 200 + 1
    assert budget.effort.total - before == (1_201 + back) // PLACES_A_STEP + back // 2
    assert [one.number for one in segment] == [1, 51, *range(101, 301), *range(401, 1_601)]


def test_what_was_removed_may_come_back_while_its_place_is_there(budget: Budget) -> None:
    segment = Segment(budget)
    run = messages(*range(1, 11))
    segment.extend(run)
    segment.remove(run[3:6])
    assert [one.number for one in segment] == [1, 2, 3, 7, 8, 9, 10]
    segment.put_back([run[4]])
    assert [one.number for one in segment] == [1, 2, 3, 5, 7, 8, 9, 10]
    assert len(segment) == 8 and segment.body_bytes == 40 and budget.used == segment.cost
    segment.check()


def test_what_was_put_back_and_removed_is_gone_for_everybody(budget: Budget) -> None:
    segment = Segment(budget)
    run = messages(*range(1, 11))
    segment.extend(run)
    taken = segment.take(5, EVERYTHING)
    segment.put_back(taken[:1])
    segment.put_back(taken[2:4])
    segment.remove([taken[0], taken[2]])
    assert segment.first_number == 4 and [one.number for one in segment] == [4, 6, 7, 8, 9, 10]
    assert [one.number for one in segment.take_first(2, EVERYTHING, anything)] == [4, 6]
    segment.check()


def test_what_was_removed_from_the_middle_goes_to_no_page(budget: Budget) -> None:
    segment = Segment(budget)
    run = messages(*range(1, 11))
    segment.extend(run)
    segment.remove(run[2:4])
    assert [one.number for one in segment.take_first(4, EVERYTHING, anything)] == [1, 2, 5, 6]
    segment.remove(run[8:9])
    assert [one.number for one in segment.take_last(2, EVERYTHING, anything)] == [8, 10]
    assert [one.number for one in segment] == [7] and budget.used == segment.cost
    segment.check()


def test_the_first_ones_go_to_a_page_up_to_one_that_may_not(budget: Budget) -> None:
    segment = Segment(budget)
    segment.extend(messages(*range(1, 11)))
    taken = segment.take(4, EVERYTHING)
    segment.put_back(taken[:1])
    segment.put_back(taken[2:])
    assert segment.take_first(10, EVERYTHING, lambda one: one.number > 1) == []
    assert [one.number for one in segment.take_first(10, EVERYTHING, lambda one: one.number != 4)] == [1, 3]
    assert [one.number for one in segment.take_first(2, EVERYTHING, anything)] == [4, 5]
    assert [one.number for one in segment.take_first(10, 6, anything)] == [6, 7]
    assert (len(segment), segment.body_bytes, budget.used) == (3, 15, segment.cost)


def test_the_place_of_a_number_is_told_about_right(budget: Budget) -> None:
    segment = Segment(budget)
    assert (segment.first_number, segment.number_at(0), segment.number_at(5)) == (0, 0, 0)
    segment.extend(messages(*range(11, 21)))
    assert [segment.number_at(place) for place in (0, 1, 9, 10, 99)] == [11, 12, 20, 20, 20]
    taken = segment.take(10, EVERYTHING)
    segment.extend(messages(21))
    segment.put_back(taken[:1])
    segment.put_back(taken[3:5])
    segment.take_last(1, EVERYTHING, anything)
    assert [one.number for one in segment.take(1, EVERYTHING)] == [11]
    assert (segment.number_at(0), segment.first_number) == (15, 14), "all of them were put back"


@pytest.mark.parametrize("count", [15, 16, 40])
def test_a_run_ends_with_the_message_that_uses_up_the_room(budget: Budget, count: int) -> None:
    segment = Segment(budget)
    segment.extend(messages(*range(1, 101)))
    room = 5 * count + DELIVERY_OVERHEAD * (count - 1)
    assert len(segment.take(50, room)) == count
    assert len(segment.take(50, room + 1)) == min(50, count + 1)


# Queues with priorities

@pytest.fixture
def by_priority(budget: Budget) -> PriorityFifo:
    return PriorityFifo(9, budget, Deadlines(), anything)


def urgent(number: int, priority: int, body: bytes = b"hello") -> Message:
    return replace(message(number, body), facts=MessageProperties(priority=priority))


def test_a_place_among_priorities_is_that_of_the_highest_number(by_priority: PriorityFifo) -> None:
    assert (by_priority.number_at(0), by_priority.first_number, by_priority.next_page) == (0, 0, None)
    by_priority.extend([urgent(number, number % 3) for number in range(1, 31)])
    assert [by_priority.number_at(place) for place in (0, 1, 9, 50)] == [3, 6, 30, 30]
    assert by_priority.first_number == 2


def test_levels_leave_their_line_to_the_next_one_that_is_used(by_priority: PriorityFifo) -> None:
    by_priority.extend([urgent(1, 1), urgent(2, 5), urgent(3, 7)])
    line = by_priority._lines[7]
    assert [one.number for one in by_priority.take(1, EVERYTHING)] == [3]
    assert by_priority._empty == [line]
    assert [one.number for one in by_priority.take(1, EVERYTHING)] == [2]
    assert by_priority._empty == [line], "one is enough"
    by_priority.extend([urgent(4, 2)])
    assert by_priority._lines[2] is line and not by_priority._empty
    by_priority.check()


def test_the_room_is_shared_by_all_levels(by_priority: PriorityFifo) -> None:
    by_priority.extend([urgent(number, number) for number in range(1, 8)])
    assert [one.number for one in by_priority.take(10, 2 * (5 + DELIVERY_OVERHEAD))] == [7, 6]
    assert [one.number for one in by_priority.take(2, EVERYTHING)] == [5, 4]
    assert [one.number for one in by_priority.take(10, 2 * (5 + DELIVERY_OVERHEAD) + 1)] == [3, 2, 1]
    assert (len(by_priority), by_priority.body_bytes) == (0, 0)


def test_the_lowest_levels_go_to_disk_first(by_priority: PriorityFifo, budget: Budget) -> None:
    count = 3 * PAGE_MESSAGES
    by_priority.extend([urgent(number, number % 2) for number in range(1, 2 * count + 1)])
    made = by_priority.page_out(1, anything)
    assert [(page.first % 2, page.count) for page in made] == [(0, PAGE_MESSAGES)]
    let_go(made, budget)
    assert by_priority.on_disk_only == (PAGE_MESSAGES, 5 * PAGE_MESSAGES)
    cost = PAGE_MESSAGES * (5 + MESSAGE_COST)
    assert [page.first % 2 for page in by_priority.page_out(2 * cost, anything)] == [0, 1]
    assert budget.used == by_priority.cost
    by_priority.check()


def test_empty_messages_of_a_higher_level_are_before_the_bytes_of_a_lower_one(by_priority: PriorityFifo) -> None:
    by_priority.extend([urgent(1, 0), urgent(2, 0), urgent(3, 5, b""), urgent(4, 5, b"")])
    removed = by_priority.trim(EVERYTHING, 9, 2) + by_priority.trim(EVERYTHING, 9)
    assert [one.number for part in removed if isinstance(part, list) for one in part] == [3, 4, 1]
    by_priority.check()


def test_a_queue_of_priorities_tells_the_next_expiry_of_all_its_pages(by_priority: PriorityFifo) -> None:
    numbers = array("q", range(1, 7))
    ends = array("q", [30, 20, 10, 30, NO_EXPIRY, 15])
    stored = StoredMessages(numbers, array("I", [5] * 6), ends, ends, bytearray([0, 1, 2, 2, 2, 99]))
    for level, pages in stored.pages(stored.ends(None, Clock(0, 0)), 9):
        by_priority.restore(level, pages)
    assert by_priority.numbers() == [6, 3, 4, 5, 2, 1] and by_priority.next_expiry == 10
    assert by_priority.take_due(9) == []
    assert by_priority.take_due(15, 1) == [OnDisk([3])]
    assert by_priority.take_due(15, 1) == [OnDisk([6])]
    assert by_priority.next_expiry == 20
    assert by_priority.take_due(30, until=(30, 1)) == [OnDisk([1]), OnDisk([2])]
    assert by_priority.take_due(30) == [OnDisk([4])]
    assert by_priority.next_expiry is None and by_priority.numbers() == [5]
    by_priority.check()
    assert by_priority.clear() and len(by_priority) == 0 and by_priority.body_bytes == 0
    for level, pages in stored.pages(stored.ends(None, Clock(0, 0)), 9):
        by_priority.restore(level, pages)
    assert by_priority.next_expiry == 10
    assert by_priority.clear() and by_priority.next_expiry is None


# Pages by themselves

def page_of_sizes(*sizes: int) -> Page:
    return Page(array("q", range(1, len(sizes) + 1)), array("I", sizes))


def test_a_message_comes_back_to_a_page_from_which_others_were_taken_out() -> None:
    page = Page(array("q", [1, 3, 5, 7]), array("I", [5] * 4))
    page.take_out([3, 5])
    page.insert(message(4))
    assert page.numbers == [1, 4, 7] and (page.count, page.body_bytes) == (3, 15)
    page.check()


def test_a_page_twice_as_large_as_what_is_read_at_once_stays_one() -> None:
    for most in ([1] * 2 * PAGE_MESSAGES, [PAGE_BYTES] * 2):
        page = page_of_sizes(*most)
        assert page_list._in_size(page, PAGE_LIMITS) == [page]
        parts = page_list._in_size(page_of_sizes(*most, 1), PAGE_LIMITS)
        assert len(parts) > 1 and sum([part.count for part in parts]) == len(most) + 1


def test_what_is_stored_is_read_in_pages_that_are_full_and_no_fuller() -> None:
    sizes = [PAGE_BYTES, PAGE_BYTES - 1, 1, PAGE_BYTES - 1, 2, 7]
    stored = StoredMessages(array("q", range(1, 7)), array("I", sizes))
    (_, pages), = stored.pages(None, 0)
    assert [page.numbers for page in pages] == [[1], [2, 3], [4, 5], [6]]


def test_a_page_that_is_in_memory_stays_there_when_others_join_it() -> None:
    run = messages(1, 3, 5)
    merged = Page.of(run, {}).merged(messages(4, 2), {})
    assert [one.number for one in merged.content or ()] == merged.numbers == [1, 2, 3, 4, 5]
    assert page_of_sizes(5, 5).merged(messages(7), {}).content is None


def test_what_was_read_before_it_was_written_costs_nothing_more_and_its_file_goes(budget: Budget) -> None:
    page, spill_file = Page.of(messages(1, 2), {}), SpillFileInMemory(messages(1, 2))
    budget.used = 1_000
    page.count = 0
    page.let_go(budget, spill_file)
    assert budget.used == 1_000 and not spill_file.left and page.content is not None


def test_only_so_much_goes_from_the_head_as_is_asked_for(fifo: PagedFifo, budget: Budget) -> None:
    fifo.extend(messages(*range(1, 6 * PAGE_MESSAGES + 1)))
    let_go(fifo.page_out(1, anything), budget)
    fifo.put_back(messages(*range(-5 * PAGE_MESSAGES, 0)))
    cost = PAGE_MESSAGES * (5 + MESSAGE_COST)
    from_tail = fifo.page_out(EVERYTHING, lambda one: one.number > 0)
    let_go(from_tail, budget)
    made = fifo.page_out(cost + 1, anything)
    assert [page.first for page in made] == [-PAGE_MESSAGES, -2 * PAGE_MESSAGES]


def test_a_message_that_leaves_is_kept_by_no_expiry() -> None:
    deadlines, (first, second) = Deadlines(), messages(1, 2)
    deadlines.add({first: 10, second: 1_000})
    assert deadlines.take_due(10) == [first] and deadlines._in_heap == {2: second}
    deadlines.forget([second])
    assert not deadlines._in_heap and deadlines.next_ms is None


def test_what_comes_back_while_others_are_sorted_expires_in_its_turn() -> None:
    deadlines, (first, second, third) = Deadlines(), messages(1, 2, 3)
    deadlines.add_out({first: 10})
    deadlines.add({second: 10, third: 10})
    assert deadlines.take_due(10, 1) == [], "one of the two is sorted in"
    deadlines.take_back([first])
    assert [one for _ in range(9) for one in deadlines.take_due(10, 1)] == [first, second, third]


def test_messages_come_back_in_any_order_between_those_of_pages(fifo: PagedFifo, budget: Budget) -> None:
    fifo.extend(messages(*range(1, 4 * PAGE_MESSAGES + 1)))
    back = messages(PAGE_MESSAGES + 9, PAGE_MESSAGES + 3, PAGE_MESSAGES + 5)
    fifo.remove(back)
    fifo.page_out(EVERYTHING, anything)
    fifo.put_back(back)
    assert fifo.numbers() == [*range(1, 4 * PAGE_MESSAGES + 1)]
    fifo.check()


@pytest.mark.parametrize("most", [[1] * 2 * PAGE_MESSAGES, [PAGE_BYTES] * 2])
def test_a_page_on_disk_that_is_twice_as_large_as_one_read_takes_no_further_message(
    budget: Budget, most: list[int]
) -> None:
    fifo = PagedFifo(budget, Deadlines(), anything)
    page = Page(array("q", range(2, 2 * len(most) + 2, 2)), array("I", most))
    fifo.restore(0, [page])
    fifo.put_back(messages(3))
    assert fifo._paged is not None and len(fifo._paged.pages) > 1
    assert fifo.numbers() == [2, 3, *range(4, 2 * len(most) + 2, 2)]
    fifo.check()


def test_what_is_released_while_others_are_sorted_is_not_kept() -> None:
    deadlines, run = Deadlines(), messages(1, 2, 3)
    deadlines.add({one: 10 for one in run})
    assert deadlines.take_due(10, 1) == [] and len(deadlines._arriving) == 2
    deadlines.hand_out(run)
    first, second = [*deadlines._arriving.values()]
    deadlines.release(first)
    assert [*deadlines._arriving.values()] == [second] and deadlines._soonest_arriving == 10
    deadlines.release(second)
    assert not deadlines._arriving and deadlines._soonest_arriving == NO_EXPIRY
    deadlines.release(deadlines._in_heap.copy().popitem()[1])
    assert not deadlines._in_heap
    deadlines.take_back([first])
    assert [one for _ in range(9) for one in deadlines.take_due(10, 1)] == [first]
