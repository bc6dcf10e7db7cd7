"""A segment against a sorted list: in whatever order messages are put back, they are taken by their numbers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amqpd.broker.queue.segment import MESSAGE_COST, NO_BOUND, Budget, Segment
from amqpd.message import Message
from tests.support.samples import message

ROOM = 1 << 62
places = st.floats(0, 1, exclude_max=True)


class SegmentMachine(RuleBasedStateMachine):
    """`waiting` is what the segment should hold by number, `out` what was taken or removed and may be put back."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget()
        self.segment = Segment(self.budget)
        self.waiting: dict[int, Message] = {}
        self.out: dict[int, Message] = {}
        self.last = 0

    def goes(self, run: list[Message]) -> None:
        for one in run:
            self.out[one.number] = self.waiting.pop(one.number)

    def some(self, of: dict[int, Message], where: list[float]) -> list[Message]:
        """Return those at these places, each once."""
        numbers = sorted(of)
        return [of[number] for number in dict.fromkeys(numbers[int(place * len(numbers))] for place in where)]

    @rule(count=st.sampled_from([1, 2, 7, 100]))
    def extend(self, count: int) -> None:
        run = [message(self.last + place, b"x" * (place % 3)) for place in range(1, count + 1)]
        self.last += count
        self.segment.extend(run)
        self.waiting.update((one.number, one) for one in run)

    @precondition(lambda self: self.out)
    @rule(where=st.lists(places, min_size=1, max_size=5))
    def put_back(self, where: list[float]) -> None:
        run = self.some(self.out, where)
        for one in run:
            self.waiting[one.number] = self.out.pop(one.number)
        self.segment.put_back(run)

    @precondition(lambda self: self.waiting)
    @rule(where=st.lists(places, min_size=1, max_size=5))
    def remove(self, where: list[float]) -> None:
        run = self.some(self.waiting, where)
        self.segment.remove(run)
        self.goes(run)

    @precondition(lambda self: len(self.waiting) > 100)
    @rule()
    def remove_so_many_that_the_rest_moves_up(self) -> None:
        run = [self.waiting[number] for number in sorted(self.waiting) if number % 4]
        self.segment.remove(run)
        self.goes(run)

    @rule(limit=st.integers(1, 50), room=st.sampled_from([1, 1_000, ROOM]), ahead=st.sampled_from([0, 3, NO_BOUND]))
    def take(self, limit: int, room: int, ahead: int) -> None:
        bound = min(self.waiting, default=0) + ahead
        run = self.segment.take(limit, room, bound)
        numbers = [one.number for one in run]
        assert numbers == sorted(self.waiting)[: len(run)] and len(run) <= limit
        assert all([number <= bound for number in numbers]) and (run or not self.waiting)
        self.goes(run)

    @rule(limit=st.integers(1, 50), least=places)
    def take_last(self, limit: int, least: float) -> None:
        bound = int(least * self.last)
        expected = [number for number in sorted(self.waiting) if number > bound][-limit:]
        run = self.segment.take_last(limit, ROOM, lambda one: one.number > bound)
        assert [one.number for one in run] == expected
        self.goes(run)

    @rule(limit=st.integers(1, 50), most=places)
    def take_first(self, limit: int, most: float) -> None:
        bound = int(most * self.last)
        expected = [number for number in sorted(self.waiting) if number < bound][:limit]
        run = self.segment.take_first(limit, ROOM, lambda one: one.number < bound)
        assert [one.number for one in run] == expected
        self.goes(run)

    @rule()
    def clear(self) -> None:
        run = self.segment.clear()
        assert [one.number for one in run] == sorted(self.waiting)
        self.goes(run)

    @invariant()
    def holds_what_it_should(self) -> None:
        self.segment.check()
        assert [one.number for one in self.segment] == sorted(self.waiting)
        assert len(self.segment) == len(self.waiting)
        octets = sum([one.body_size for one in self.waiting.values()])
        assert self.budget.used == self.segment.cost == octets + MESSAGE_COST * len(self.waiting)
        assert self.segment.first_number <= min(self.waiting, default=self.last)


TestSegment = SegmentMachine.TestCase
