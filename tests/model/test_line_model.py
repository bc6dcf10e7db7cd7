"""A FIFO in memory and on disk, against a sorted list: paging never changes the order.

The same for a FIFO with priorities, which has one such FIFO for each priority.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from amqpd.broker.clock import Clock
from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.page_limits import PageLimits
from amqpd.broker.queue.paged_fifo import PagedFifo
from amqpd.broker.queue.pages import NO_EXPIRY, OnDisk, Page, Removed, StoredMessages
from amqpd.broker.queue.priority_fifo import PriorityFifo
from amqpd.broker.queue.segment import Budget
from amqpd.message import Message, MessageProperties, reference_to
from tests.support.page_stores import SpillFileInMemory
from tests.support.samples import message
from tests.support.sizes import sized

NO_LIMIT = 1 << 62
SMALL_PAGES = PageLimits(messages=3, fewest_messages=1)
MOST_IN_PAGE = 2 * SMALL_PAGES.messages


class LineMachine(RuleBasedStateMachine):
    """`waiting` is what the line should hold by number, `out` what was taken and may be put back."""

    highest = 0     # priority

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(page_limits=SMALL_PAGES)
        self.deadlines = Deadlines()
        self.line: PagedFifo | PriorityFifo = PriorityFifo(
            self.highest, self.budget, self.deadlines, self.is_stored) if self.highest else PagedFifo(
            self.budget, self.deadlines, self.is_stored)
        self.safe = 0
        self.waiting: dict[int, Message] = {}
        self.out: dict[int, Message] = {}
        self.ends: dict[int, int] = {}
        self.spill_files: list[SpillFileInMemory] = []
        self.leaving: list[Page] = []
        self.last = 0
        self.now = 0

    def is_stored(self, one: Message) -> bool:
        return one.number <= self.safe and one.number % 2 == 1

    def in_order(self, numbers: Iterable[int]) -> list[int]:
        """Return these numbers in the order of delivery."""
        return sorted(numbers, key=lambda number: (-self.level_of(self.waiting[number]), number))

    def level_of(self, one: Message) -> int:
        return min(one.facts.priority or 0, self.highest)

    def lines(self) -> list[PagedFifo]:
        return [self.line] if isinstance(self.line, PagedFifo) else [*self.line._lines.values()]

    @initialize(count=st.integers(0, 12), size=st.sampled_from([0, 7]), life=st.sampled_from([NO_EXPIRY, 2, 9]))
    def restore(self, count: int, size: int, life: int) -> None:
        """Begin with what a store kept: odd numbers."""
        numbers = array("q", range(1, 2 * count, 2))
        priorities = bytearray([number % 5 for number in numbers])
        ends = array("q", [life if number % 3 else NO_EXPIRY for number in numbers])
        kept = StoredMessages(numbers, array("I", [size] * count), ends, ends, priorities if self.highest else None)
        for level, restored in kept.pages(kept.ends(None, Clock(0, 0)), self.highest, SMALL_PAGES):
            self.line.restore(level, restored)
        for number, end, priority in zip(numbers, ends, priorities):
            self.waiting[number] = replace(
                message(number, b"x" * size), facts=MessageProperties(priority=priority))
            if end != NO_EXPIRY:
                self.ends[number] = end
        self.last = self.safe = 2 * count

    def goes(self, left: Removed) -> list[int]:
        """Numbers of what left the line, which has to be as it was."""
        numbers: list[int] = []
        for part in left:
            if isinstance(part, OnDisk):
                if part.spill_file is not None:
                    part.spill_file.forget(part.numbers)
                numbers += part.numbers
            else:
                numbers += [one.number for one in part]
                self.deadlines.forget(part)
        for number in numbers:
            del self.waiting[number]
        return numbers

    def read(self, page: Page) -> list[Message]:
        """What a page store would find."""
        if page.content is not None:
            return page.content
        if len(page.on_disk.stored) < page.count:
            assert isinstance(page.spill_file, SpillFileInMemory) and page.spill_file.left, "the spill file is gone"
        return [self.waiting[number] for number in page.numbers]

    def see_to_next(self) -> None:
        while (page := self.line.next_page) is not None:
            assert self.line.load(self.read(page)) == []

    @rule(sizes=st.lists(st.sampled_from([0, 5, 30]), min_size=1, max_size=8), life=st.sampled_from([None, 3, 9]),
          priorities=st.lists(st.sampled_from([None, 0, 1, 2, 9]), min_size=8, max_size=8))
    def extend(self, sizes: list[int], life: int | None, priorities: list[int | None]) -> None:
        run = [
            replace(message(self.last + place, b"x" * size), facts=MessageProperties(priority=priority))
            for place, (size, priority) in enumerate(zip(sizes, priorities), 1)]
        self.last += len(run)
        self.line.extend(run)
        self.waiting.update((one.number, one) for one in run)
        if life is not None:
            self.deadlines.add({one: self.now + life for one in run[::2]})
            self.ends.update((one.number, self.now + life) for one in run[::2])

    @rule(limit=st.integers(1, 7), room=st.sampled_from([1, 250, NO_LIMIT]))
    def take(self, limit: int, room: int) -> None:
        self.see_to_next()
        run = self.line.take(limit, room)
        numbers = [one.number for one in run]
        assert numbers == self.in_order(self.waiting)[: len(run)] and len(run) <= limit
        assert run or not self.waiting
        self.deadlines.hand_out(run)
        for one in run:
            self.out[one.number] = self.waiting.pop(one.number)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """Put some messages back; the contents of stored ones may have been released."""
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.out)), min_size=1, unique=True))
        run = [self.out.pop(number) for number in numbers]
        self.waiting.update((one.number, one) for one in run)
        in_memory = sum([one.body_size for one in self.line])
        stored = [number for number in numbers if number <= self.safe and number % 2 == 1]
        released = {*data.draw(st.sampled_from([stored, stored[::2], []]))}
        self.line.put_back([reference_to(one) if one.number in released else one for one in run])
        grown = sum([one.body_size for one in self.line]) - in_memory
        assert grown <= sum([one.body_size for one in run if one.number not in released]), "a reference is in memory"
        assert all([one.content for one in self.line]), "a reference is in memory"
        self.deadlines.take_back(run)

    @rule(octets=st.sampled_from([1, 10_000]), bound=st.sampled_from([0, 10, 10_000]), parity=st.sampled_from([1, 2]))
    def page_out(self, octets: int, bound: int, parity: int) -> None:
        """Odd numbers are kept by the store up to a bound, even ones need a spill file, if there is a disk for one."""
        self.safe = max(self.safe, bound)
        for page in self.line.page_out(octets, lambda one: one.number <= bound and one.number % parity == 0):
            unkept = [one for one in page.content or () if one.number % 2 == 0]
            if unkept:
                page.leave(self.budget)
                self.leaving.append(page)
            else:
                page.let_go(self.budget)

    @rule(fails=st.booleans())
    def write_spill_files(self, fails: bool) -> None:
        for page in self.leaving:
            if fails:
                page.stay(self.budget)
                continue
            self.spill_files.append(SpillFileInMemory([one for one in page.content or () if one.number % 2 == 0]))
            page.let_go(self.budget, self.spill_files[-1])
        self.leaving.clear()

    @rule()
    def read_ahead(self) -> None:
        page = self.line.page_ahead
        if page is not None:
            assert self.line.load(self.read(page)) == []

    @precondition(lambda self: self.line.page_ahead is not None and self.line.page_ahead.content is None)
    @rule()
    def lose_one(self) -> None:
        """A damaged message is missing when its page is read."""
        page = self.line.page_ahead
        assert page is not None
        found = self.read(page)
        lost = found.pop(len(found) // 2)
        assert self.line.load(found) == [lost.number]
        del self.waiting[lost.number]

    @rule(most=st.sampled_from([0, 2, 6, NO_LIMIT]), octets=st.sampled_from([0, 40, NO_LIMIT]),
          limit=st.sampled_from([1, 3, NO_LIMIT]))
    def trim(self, most: int, octets: int, limit: int) -> None:
        before = self.in_order(self.waiting)
        went = self.goes(self.line.trim(most, octets, limit))
        assert went == before[: len(went)]
        is_within = len(self.line) <= most and self.line.body_bytes <= octets
        assert is_within or len(went) >= limit, "it ends too early"
        assert len(went) < limit + MOST_IN_PAGE, "it goes on too long"
        if went:
            last = self.line.body_bytes + 30
            assert len(self.line) + 1 > most or last >= octets, "more went than had to"

    @rule(milliseconds=st.sampled_from([1, 3, 10]), limit=st.sampled_from([1, 4, NO_LIMIT]))
    def let_time_pass(self, milliseconds: int, limit: int) -> None:
        self.now += milliseconds
        due = {number for number in self.waiting if self.ends.get(number, NO_LIMIT) <= self.now}
        loaded = self.deadlines.take_due(self.now)
        if loaded:
            self.line.remove(loaded)
        went = self.goes([loaded])
        while self.line.next_expiry is not None and self.line.next_expiry <= self.now:
            several = self.goes(self.line.take_due(self.now, limit))
            assert len(several) < limit + MOST_IN_PAGE, "it goes on too long"
            went += several
        assert {*went} == due and len(went) == len(due)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def take_out(self, data: st.DataObject) -> None:
        """Take some out, wherever they are, as an operator does."""
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.waiting)), min_size=1, unique=True))
        run = [self.waiting.pop(number) for number in sorted(numbers)]
        self.line.take_out(run)
        self.deadlines.forget(run)

    @rule(position=st.integers(0, 30), limit=st.sampled_from([1, 2, 5, 100]))
    def look(self, position: int, limit: int) -> None:
        """Walk along the line from a position on, and see what is there, in order."""
        place, left = self.line.before(position)
        seen: list[int] = []
        while True:
            part, level = self.line.after(place, limit)
            if not part:
                break
            numbers = part.numbers if isinstance(part, OnDisk) else [one.number for one in part]
            assert 0 < len(numbers) <= limit
            assert all([self.level_of(self.waiting[number]) == level for number in numbers])
            place = level, numbers[-1]
            seen += numbers
        assert seen[left:] == self.in_order(self.waiting)[position:]

    @rule()
    def clear(self) -> None:
        before = self.in_order(self.waiting)
        assert self.goes([part.on_disk if isinstance(part, Page) else part for part in self.line.clear()]) == before

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.line.check()
        self.deadlines.check(self.line)
        assert self.line.numbers() == self.in_order(self.waiting)
        assert self.line.body_bytes == sum(one.body_size for one in self.waiting.values())
        assert self.budget.used == self.line.cost, "the budget is off"
        in_spill_files = {
            n for line in self.lines() if line._paged is not None for page in line._paged.pages if page.spill_file
            for n in page.numbers if n in page.spill_file.numbers}
        left = {number for spill_file in self.spill_files for number in spill_file.left}
        assert left == in_spill_files, "a spill file is kept too long"


class PriorityMachine(LineMachine):
    """The same with the levels 0, 1 and 2."""

    highest = 2


TestLine = LineMachine.TestCase
TestLine.settings = settings(max_examples=sized(60, 200), stateful_step_count=40)
TestPriorities = PriorityMachine.TestCase
TestPriorities.settings = settings(max_examples=sized(60, 200), stateful_step_count=40)
