"""The shelf between the store and the queues: who is served when, and what becomes of a disk that fails."""

from __future__ import annotations

import asyncio
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.pages import Page, Unread
from amqpd.broker.stretch import MESSAGE_COST, Budget
from amqpd.message import Message
from amqpd.properties import read_facts
from amqpd.server import shelf as shelf_module
from amqpd.server.shelf import StoreShelf
from amqpd.store.errors import StoreError
from amqpd.store.journal import MemoryJournal
from amqpd.store.spill import Slip, Spill
from tests.support.samples import message, messages


class FakeStore:
    """A store with some messages, or one that cannot be read."""

    first_number = 100

    def __init__(self) -> None:
        self.failure: StoreError | None = None

    def fetch(self, numbers: list[int]) -> list[Message]:
        if self.failure is not None:
            raise self.failure
        return messages(*numbers)

    def fail(self, failure: StoreError) -> None:
        self.failure = failure


class FakePaging:
    """A queue that waits; it may wait for more when it is served."""

    def __init__(self, shelf: StoreShelf, again: int = 0) -> None:
        self.shelf, self.again, self.served = shelf, again, 0

    def read_on(self) -> None:
        self.served += 1
        if self.served <= self.again:
            self.shelf.call(self)  # type: ignore[arg-type]  # a stand-in


class Bench:
    """A shelf, and what it works with."""

    def __init__(self, directory: Path) -> None:
        self.store = FakeStore()
        self.failures: list[StoreError] = []
        self.turns = 0
        self.has_disk = True
        self.budget = Budget(1_000)
        store: Any = self.store
        self.shelf = StoreShelf(store, Spill(directory, read_facts), self.budget, self.failures.append)
        self.broker = Broker(MemoryJournal(), first_number=100, shelf=self.shelf)
        self.shelf.begin(self.broker, self.count_turn, lambda: self.has_disk)

    def count_turn(self) -> None:
        self.turns += 1

    def waiting(self, again: int = 0) -> FakePaging:
        paging = FakePaging(self.shelf, again)
        self.shelf.call(paging)  # type: ignore[arg-type]  # a stand-in
        return paging


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_an_earlier_run_kept_is_safe_and_nothing_of_this_one(bench: Bench) -> None:
    bench.broker.next_message_number = 105
    assert (bench.shelf.safe_number, bench.shelf.taken_number) == (99, 99)


def test_numbers_are_taken_with_a_batch_and_safe_once_it_is_written(bench: Bench) -> None:
    bench.broker.next_message_number = 110
    bench.shelf.close()
    bench.broker.next_message_number = 120
    assert (bench.shelf.taken_number, bench.shelf.safe_number, bench.shelf.is_open) == (109, 99, False)
    bench.shelf.open(7)
    assert (bench.shelf.safe_number, bench.shelf.committed_batch, bench.shelf.is_open) == (109, 7, True)


def test_nobody_is_served_while_the_store_is_written(bench: Bench) -> None:
    bench.shelf.close()
    one = bench.waiting()
    bench.shelf.serve()
    assert one.served == 0 and bench.turns == 1
    bench.shelf.open(1)
    assert one.served == 1


def test_nor_while_its_thread_does_something_else(bench: Bench) -> None:
    bench.shelf.is_in_use = True
    one = bench.waiting()
    bench.shelf.serve()
    assert one.served == 0
    bench.shelf.is_in_use = False
    bench.shelf.serve()
    assert one.served == 1


def test_whoever_wants_more_waits_for_the_next_turn(bench: Bench) -> None:
    greedy, other = bench.waiting(again=5), bench.waiting()
    bench.shelf.serve()
    assert (greedy.served, other.served) == (1, 1)
    assert bench.turns == 4, "two calls, one more, and the turn that is to come"


def test_a_turn_ends_when_it_has_taken_long_enough(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "TURN_S", -1.0)
    one, other = bench.waiting(), bench.waiting()
    bench.shelf.serve()
    assert (one.served, other.served) == (1, 0)
    bench.shelf.serve()
    assert other.served == 1


def test_a_store_that_cannot_be_read_is_a_failure(bench: Bench) -> None:
    bench.store.failure = StoreError("the disk is gone")
    assert bench.shelf.fetch(Unread([1, 2])) == []
    assert bench.failures == [bench.store.failure]


def page_of(run: list[Message]) -> Page:
    return Page(array("q", [m.number for m in run]), array("I", [m.body_size for m in run]), None, list(run))


async def until(is_so: Any) -> None:
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to that")


def test_what_the_store_does_not_keep_comes_back_from_its_slip(bench: Bench) -> None:
    run = messages(1, 2, 3)
    page = page_of(run)

    async def main() -> None:
        page.leave(bench.budget)
        bench.shelf.spill(page, run[1:])
        await until(lambda: page.content is None)

    asyncio.run(main())
    unread = page.unread
    assert [m.number for m in bench.shelf.fetch(unread)] == [1, 2, 3]
    assert unread.slip is not None
    unread.slip.forget([2, 3])
    assert [m.number for m in bench.shelf.fetch(Unread([1], unread.slip))] == [1], "the slip is gone, and not needed"
    assert bench.shelf.fetch(unread) == [] and "cannot read" in str(bench.failures[0])
    assert bench.store.failure is bench.failures[0], "a batch that settles what was not read would be written"
    bench.shelf.end()


def test_a_page_that_cannot_be_written_down_stays_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Spill, run: list[Message]) -> None:
        assert threading.current_thread() is not threading.main_thread()
        raise StoreError("no space left")

    monkeypatch.setattr(Spill, "write", full)
    run = messages(1, 2)
    page = page_of(run)
    bench.budget.used = page.cost

    async def main() -> None:
        page.leave(bench.budget)
        bench.shelf.spill(page, run)
        await until(lambda: not page.is_leaving)

    asyncio.run(main())
    assert page.content == run and bench.budget.used == 2 * (5 + MESSAGE_COST)
    assert not bench.shelf.can_spill and "no space left" in caplog.text
    monkeypatch.setattr(shelf_module.time, "monotonic", lambda: 1e12)
    assert bench.shelf.can_spill
    bench.shelf.end()


def test_a_slip_of_which_little_is_left_becomes_a_small_file(bench: Bench, tmp_path: Path) -> None:
    run = [message(number, bytes(1_000)) for number in range(1, 101)]
    page = page_of(run)
    bench.shelf.rewrite_s = 0

    def sizes() -> list[int]:
        return sorted(file.stat().st_size for file in tmp_path.rglob("*.slip"))

    async def main() -> None:
        page.leave(bench.budget)
        bench.shelf.spill(page, run)
        await until(lambda: page.content is None)
        assert page.slip is not None
        page.slip.forget(range(2, 101))
        await until(lambda: len(sizes()) == 1 and sizes()[0] < 2_000)

    asyncio.run(main())
    assert [one.number for one in bench.shelf.fetch(Unread([1], page.slip))] == [1]
    bench.shelf.end()


def test_a_slip_that_cannot_be_rewritten_stays(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = [message(number, bytes(1_000)) for number in range(1, 101)]
    page = page_of(run)
    bench.shelf.rewrite_s = 0
    tried: list[Slip] = []

    def full(self: Spill, slip: Slip) -> None:
        tried.append(slip)
        raise StoreError("no space left")

    monkeypatch.setattr(Spill, "rewrite", full)

    async def main() -> None:
        page.leave(bench.budget)
        bench.shelf.spill(page, run)
        await until(lambda: page.content is None)
        assert page.slip is not None
        page.slip.forget(range(2, 101))
        await until(lambda: tried)

    asyncio.run(main())
    assert [one.number for one in bench.shelf.fetch(Unread([1], page.slip))] == [1]
    bench.shelf.end()


def test_room_that_was_freed_for_the_store_is_not_for_slips(bench: Bench) -> None:
    bench.has_disk = False
    assert not bench.shelf.can_spill
