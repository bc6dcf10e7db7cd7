"""The page store between the store and the queues: the order of service, and a disk that fails."""

from __future__ import annotations

import asyncio
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.queue.pages import OnDisk, Page
from amqpd.broker.queue.segment import MESSAGE_COST, Budget
from amqpd.message import Message
from amqpd.properties import read_properties
from amqpd.server import page_store as page_store_module
from amqpd.server.page_store import DiskPageStore
from amqpd.store.errors import StoreError
from amqpd.store.journal import MemoryJournal
from amqpd.store.spill import Spill, SpillFile
from tests.support.loops import until
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

    def __init__(self, page_store: DiskPageStore, again: int = 0) -> None:
        self.page_store, self.again, self.served = page_store, again, 0

    def read_on(self) -> None:
        self.served += 1
        if self.served <= self.again:
            self.page_store.call(self)  # type: ignore[arg-type]  # a stand-in


class Bench:
    """A page store, and what it works with."""

    def __init__(self, directory: Path, **how: float) -> None:
        self.store = FakeStore()
        self.failures: list[StoreError] = []
        self.turns = 0
        self.has_disk = True
        self.budget = Budget(1_000)
        store: Any = self.store
        self.page_store = DiskPageStore(
            store, Spill(directory, read_properties), self.budget, self.failures.append, **how)
        self.broker = Broker(MemoryJournal(), first_number=100, page_store=self.page_store)
        self.page_store.begin(self.broker, self.count_turn, lambda: self.has_disk)

    def count_turn(self) -> None:
        self.turns += 1

    def waiting(self, again: int = 0) -> FakePaging:
        paging = FakePaging(self.page_store, again)
        self.page_store.call(paging)  # type: ignore[arg-type]  # a stand-in
        return paging


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_an_earlier_run_kept_is_safe_and_nothing_of_this_one(bench: Bench) -> None:
    bench.broker.next_message_number = 105
    assert (bench.page_store.safe_number, bench.page_store.taken_number) == (99, 99)


def test_numbers_are_taken_with_a_batch_and_safe_once_it_is_written(bench: Bench) -> None:
    bench.broker.next_message_number = 110
    bench.page_store.close()
    bench.broker.next_message_number = 120
    assert (bench.page_store.taken_number, bench.page_store.safe_number, bench.page_store.is_open) == (109, 99, False)
    bench.page_store.open(7)
    assert (bench.page_store.safe_number, bench.page_store.committed_batch, bench.page_store.is_open) == (109, 7, True)


def test_messages_whose_records_are_deferred_are_not_safe(bench: Bench) -> None:
    bench.broker.next_message_number = 110
    bench.page_store.close(105)
    bench.page_store.open(7)
    assert (bench.page_store.taken_number, bench.page_store.safe_number) == (109, 104)
    bench.page_store.close()
    bench.page_store.open(8)
    assert bench.page_store.safe_number == 109


def test_nobody_is_served_while_the_store_is_written(bench: Bench) -> None:
    bench.page_store.close()
    one = bench.waiting()
    bench.page_store.serve()
    assert one.served == 0 and bench.turns == 1
    bench.page_store.open(1)
    assert one.served == 1


def test_nor_while_its_thread_does_something_else(bench: Bench) -> None:
    bench.page_store.is_in_use = True
    one = bench.waiting()
    bench.page_store.serve()
    assert one.served == 0
    bench.page_store.is_in_use = False
    bench.page_store.serve()
    assert one.served == 1


def test_whoever_wants_more_waits_for_the_next_turn(bench: Bench) -> None:
    greedy, other = bench.waiting(again=5), bench.waiting()
    bench.page_store.serve()
    assert (greedy.served, other.served) == (1, 1)
    assert bench.turns == 4, "two calls, one more, and the turn that is to come"


def test_a_turn_ends_when_it_has_taken_long_enough(tmp_path: Path) -> None:
    bench = Bench(tmp_path, turn_s=-1.0)
    one, other = bench.waiting(), bench.waiting()
    bench.page_store.serve()
    assert (one.served, other.served) == (1, 0)
    bench.page_store.serve()
    assert other.served == 1


def test_a_store_that_cannot_be_read_is_a_failure(bench: Bench) -> None:
    bench.store.failure = StoreError("the disk is gone")
    assert bench.page_store.fetch(OnDisk([1, 2])) == []
    assert bench.failures == [bench.store.failure]


def page_of(run: list[Message]) -> Page:
    return Page(array("q", [m.number for m in run]), array("I", [m.body_size for m in run]), None, list(run))


def test_what_the_store_does_not_keep_comes_back_from_its_spill_file(bench: Bench) -> None:
    run = messages(1, 2, 3)
    page = page_of(run)
    written: list[int] = []
    bench.page_store.on_written = written.append

    async def main() -> None:
        page.leave(bench.budget)
        bench.page_store.spill(page, run[1:])
        await until(lambda: page.content is None)

    asyncio.run(main())
    on_disk = page.on_disk
    assert on_disk.spill_file is not None and written == [on_disk.spill_file.size]
    assert bench.page_store.measures.spilled_bytes == on_disk.spill_file.size
    assert [m.number for m in bench.page_store.fetch(on_disk)] == [1, 2, 3]
    on_disk.spill_file.forget([2, 3])
    fetched = bench.page_store.fetch(OnDisk([1], on_disk.spill_file))
    assert [m.number for m in fetched] == [1], "the spill file is gone, and not needed"
    assert bench.page_store.fetch(on_disk) == [] and "cannot read" in str(bench.failures[0])
    assert bench.store.failure is bench.failures[0], "a batch that settles what was not read would be written"
    bench.page_store.end()


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
        bench.page_store.spill(page, run)
        await until(lambda: not page.is_leaving)

    asyncio.run(main())
    assert page.content == run and bench.budget.used == 2 * (5 + MESSAGE_COST)
    assert not bench.page_store.can_spill and "no space left" in caplog.text
    monkeypatch.setattr(page_store_module.time, "monotonic", lambda: 1e12)
    assert bench.page_store.can_spill
    bench.page_store.end()


def test_a_slip_of_which_little_is_left_becomes_a_small_file(bench: Bench, tmp_path: Path) -> None:
    run = [message(number, bytes(1_000)) for number in range(1, 101)]
    page = page_of(run)
    bench.page_store.rewrite_s = 0

    def sizes() -> list[int]:
        return sorted(file.stat().st_size for file in tmp_path.rglob("*.spill"))

    async def main() -> None:
        page.leave(bench.budget)
        bench.page_store.spill(page, run)
        await until(lambda: page.content is None)
        assert page.spill_file is not None
        page.spill_file.forget(range(2, 101))
        await until(lambda: len(sizes()) == 1 and sizes()[0] < 2_000)

    asyncio.run(main())
    assert [one.number for one in bench.page_store.fetch(OnDisk([1], page.spill_file))] == [1]
    bench.page_store.end()


def test_a_slip_that_cannot_be_rewritten_stays(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = [message(number, bytes(1_000)) for number in range(1, 101)]
    page = page_of(run)
    bench.page_store.rewrite_s = 0
    tried: list[SpillFile] = []

    def full(self: Spill, spill_file: SpillFile) -> None:
        tried.append(spill_file)
        raise StoreError("no space left")

    monkeypatch.setattr(Spill, "rewrite", full)

    async def main() -> None:
        page.leave(bench.budget)
        bench.page_store.spill(page, run)
        await until(lambda: page.content is None)
        assert page.spill_file is not None
        page.spill_file.forget(range(2, 101))
        await until(lambda: tried)

    asyncio.run(main())
    assert [one.number for one in bench.page_store.fetch(OnDisk([1], page.spill_file))] == [1]
    bench.page_store.end()


def test_room_that_was_freed_for_the_store_is_not_for_spill_files(bench: Bench) -> None:
    bench.has_disk = False
    assert not bench.page_store.can_spill
