"""The expiries of a queue's messages, against a table: each ready message expires once, at its time."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amqpd.broker.queue.deadlines import Deadlines
from amqpd.message import Message
from tests.support.samples import message
from tests.support.sizes import sized


class DeadlinesMachine(RuleBasedStateMachine):
    """`ends` are the expiries by number, of messages that are ready or, in `out`, unacked."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = Deadlines(fewest_entries=3)     # a heap is replaced once it has more
        self.messages: dict[int, Message] = {}
        self.ends: dict[int, int] = {}
        self.out: set[int] = set()
        self.now = 0

    @property
    def ready(self) -> list[int]:
        return [number for number in self.messages if number not in self.out]

    def arrive(self, lives: list[int | None]) -> dict[Message, int]:
        """Make messages, and return those that expire, with their expiries."""
        run = [message(len(self.messages) + place + 1_000 * self.now) for place in range(len(lives))]
        self.messages.update((one.number, one) for one in run)
        ends = {one: self.now + life for one, life in zip(run, lives) if life is not None}
        self.ends.update((one.number, end) for one, end in ends.items())
        return ends

    def some(self, data: st.DataObject, of: list[int]) -> list[Message]:
        numbers = data.draw(st.lists(st.sampled_from(of), min_size=1, unique=True))
        return [self.messages[number] for number in numbers]

    def leave(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.messages[number]
            self.ends.pop(number, None)
            self.out.discard(number)

    lives = st.lists(st.sampled_from([None, 1, 2, 5, 50]), min_size=1, max_size=8)

    @rule(lives=lives)
    def publish(self, lives: list[int | None]) -> None:
        self.now += 1
        self.deadlines.add(self.arrive(lives))

    @rule(lives=lives)
    def publish_to_a_consumer(self, lives: list[int | None]) -> None:
        self.now += 1
        before = {*self.messages}
        self.deadlines.add_out(self.arrive(lives))
        self.out.update(self.messages.keys() - before)

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def hand_out(self, data: st.DataObject) -> None:
        run = self.some(data, self.ready)
        self.deadlines.hand_out(run)
        self.out.update(one.number for one in run)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), are_released=st.booleans())
    def requeue(self, data: st.DataObject, *, are_released: bool) -> None:
        run = self.some(data, sorted(self.out))
        if are_released:
            for one in run:
                self.deadlines.release(one)
        self.deadlines.take_back(run)
        self.out.difference_update(one.number for one in run)

    @precondition(lambda self: self.messages)
    @rule(data=st.data(), is_page=st.booleans())
    def forget(self, data: st.DataObject, *, is_page: bool) -> None:
        """Remove messages, or move them to a page together with their expiries."""
        run = self.some(data, self.ready if is_page and self.ready else sorted(self.messages))
        if is_page:
            paged = self.deadlines.page_out(run)
            assert paged == {one.number: self.ends[one.number] for one in run if one.number in self.ends}
        else:
            self.deadlines.forget(run)
        self.leave([one.number for one in run])

    @rule(milliseconds=st.sampled_from([0, 1, 3, 60]), limit=st.sampled_from([1, 2, 1_000]))
    def let_time_pass(self, milliseconds: int, limit: int) -> None:
        self.now += milliseconds
        went: list[int] = []
        steps = 0
        while (next_ms := self.deadlines.next_ms) is not None and next_ms <= self.now:
            due = self.deadlines.take_due(self.now, limit)
            assert len(due) <= limit and all(one is self.messages[one.number] for one in due)
            went += [one.number for one in due]
            steps += 1
        assert steps <= 3 * len(self.messages) + 40, "it does not come to an end"
        assert [self.ends[number] for number in went] == sorted(self.ends[number] for number in went)
        assert {*went} == {number for number in self.ready if self.ends.get(number, self.now + 1) <= self.now}
        self.leave(went)

    @rule()
    def let_go(self) -> None:
        held: list[Any] = self.deadlines.let_go()
        assert {*self.ends} <= {number for part in held if isinstance(part, dict) for number in part}
        assert self.deadlines.next_ms is None and not self.deadlines
        self.leave([*self.messages])

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.deadlines.check([self.messages[number] for number in self.ready])
        assert bool(self.deadlines) == bool(self.ends)
        soonest = min([self.ends[number] for number in self.ready if number in self.ends], default=None)
        assert soonest is None or (self.deadlines.next_ms or soonest) <= soonest
        entries = len(self.deadlines._waiting) + len(self.deadlines._old)
        assert self.ends or not entries, "entries are left of a queue whose messages do not expire"


TestDeadlines = DeadlinesMachine.TestCase
TestDeadlines.settings = settings(max_examples=sized(60, 200), stateful_step_count=40)
