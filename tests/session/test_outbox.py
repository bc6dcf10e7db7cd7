"""The outbox: order, holding back until a commit, and the count of bytes."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from amqpd.session.outbox import MARK_EVERY, Outbox


class Noted(list[int]):
    """Counts how often output was announced."""

    def note(self) -> None:
        self.append(len(self))


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def outbox(noted: Noted) -> Outbox:
    return Outbox(noted.note)


def test_output_is_announced_once_until_it_is_taken(outbox: Outbox, noted: Noted) -> None:
    outbox.write(b"a")
    outbox.extend((b"b", b"c"), 2)
    assert noted == [0]
    assert outbox.take() == [b"a", b"b", b"c"] and outbox.size == 0
    outbox.write(b"d")
    assert noted == [0, 1]


def test_what_is_said_after_a_hold_waits_for_its_batch(outbox: Outbox) -> None:
    outbox.write(b"a")
    outbox.hold_until(3)
    outbox.write(b"b")
    assert outbox.take() == [b"a"] and outbox.size == 1 and outbox.awaited_batch == 3
    assert not outbox.on_commit(2)
    assert outbox.take() == []
    assert outbox.on_commit(3) and outbox.take() == [b"b"] and outbox.awaited_batch == 0


def test_a_commit_frees_all_that_waits_for_it_and_for_earlier_ones(outbox: Outbox) -> None:
    for batch in (1, 2, 3):
        outbox.hold_until(batch)
        outbox.write(b"%d" % batch)
    outbox.on_commit(2)
    assert outbox.take() == [b"1", b"2"]
    outbox.write(b"later")
    outbox.on_commit(9)
    outbox.write(b"free")
    assert outbox.take() == [b"3", b"later", b"free"]


def test_what_a_commit_frees_is_announced(outbox: Outbox, noted: Noted) -> None:
    outbox.hold_until(1)
    outbox.write(b"a")
    assert outbox.take() == []
    outbox.on_commit(1)
    assert len(noted) == 2


def no_more() -> int:
    """What the transport has, which has sent all."""
    return 0


def test_answers_that_have_been_sent_are_read_and_those_here_are_not(outbox: Outbox) -> None:
    for _ in range(4):
        outbox.write(bytes(MARK_EVERY))
    assert outbox.has_unread_answers(4 * MARK_EVERY - 1, no_more)
    assert not outbox.has_unread_answers(4 * MARK_EVERY, no_more)
    outbox.take()
    assert outbox.has_unread_answers(2 * MARK_EVERY, lambda: 3 * MARK_EVERY)
    assert not outbox.has_unread_answers(3 * MARK_EVERY, lambda: 3 * MARK_EVERY)
    assert not outbox.has_unread_answers(2 * MARK_EVERY, lambda: 2 * MARK_EVERY)
    assert outbox.has_unread_answers(MARK_EVERY, lambda: 2 * MARK_EVERY)
    assert not outbox.has_unread_answers(0, no_more) and not outbox._marks


def test_the_transport_is_not_asked_where_it_makes_no_difference(outbox: Outbox) -> None:
    asked: list[int] = []

    def unsent() -> int:
        asked.append(1)
        return 0

    for _ in range(10):
        outbox.write(bytes(MARK_EVERY))
        outbox.take()
        assert not outbox.has_unread_answers(2 * MARK_EVERY, unsent)
    assert len(asked) <= 4, "what was read is not asked for again"


def test_answers_are_marked_every_64_kib(outbox: Outbox) -> None:
    for _ in range(10):
        outbox.write(bytes(MARK_EVERY // 2))
    assert [answers for _, answers in outbox._marks] == [MARK_EVERY * count for count in range(1, 6)]
    outbox.write(bytes(MARK_EVERY - 1))
    assert len(outbox._marks) == 5
    outbox.extend([b"delivery"], 8)
    outbox.write(b"x")
    assert outbox._marks[-1] == (6 * MARK_EVERY + 8, 6 * MARK_EVERY)


def test_deliveries_are_no_answers(outbox: Outbox) -> None:
    outbox.extend([bytes(MARK_EVERY)] * 5, 5 * MARK_EVERY)
    outbox.write(b"answer")
    assert not outbox.has_unread_answers(6, no_more) and outbox.has_unread_answers(5, no_more)
    assert outbox.size == 5 * MARK_EVERY + 6 and not outbox._marks


def test_a_peer_that_is_gone_is_sent_nothing_and_announces_nothing(outbox: Outbox, noted: Noted) -> None:
    outbox.write(bytes(MARK_EVERY))
    outbox.hold_until(1)
    outbox.write(b"held")
    outbox.clear()
    assert (outbox.size, outbox.awaited_batch, outbox.take(), len(outbox._marks)) == (0, 0, [], 0)
    outbox.write(b"late")
    assert noted == [0]


class OutboxMachine(RuleBasedStateMachine):
    """Everything that is written is sent once, in order, and never before its batch is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.announced = False
        self.outbox = Outbox(self.announce)
        self.waiting: list[tuple[int, bytes]] = []
        self.taken: list[bytes] = []
        self.written = self.batch = self.committed = 0

    def announce(self) -> None:
        self.announced = True

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        pieces = [b"%d," % (self.written + number) for number in range(count)]
        self.written += count
        self.waiting += [(self.outbox.awaited_batch, piece) for piece in pieces]
        if count == 1:
            self.outbox.write(pieces[0])
        else:
            self.outbox.extend(pieces, sum(map(len, pieces)))

    @rule()
    def hold(self) -> None:
        self.batch += 1
        self.outbox.hold_until(self.batch)

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.committed = data.draw(st.integers(self.committed, self.batch))
        self.outbox.on_commit(self.committed)

    @rule()
    def take(self) -> None:
        self.announced = False
        due = [piece for batch, piece in self.waiting if batch <= self.committed]
        assert self.outbox.take() == due
        del self.waiting[: len(due)]

    @invariant()
    def the_size_is_what_waits(self) -> None:
        assert self.outbox.size == sum(len(piece) for _, piece in self.waiting)

    @invariant()
    def what_may_be_sent_has_been_announced(self) -> None:
        assert self.announced or not any(batch <= self.committed for batch, _ in self.waiting)


TestOutboxMachine = OutboxMachine.TestCase
