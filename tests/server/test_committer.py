"""Group commit: the thread writes one batch at a time, while the next one is filled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from amqpd.broker.definitions import Defined, VhostDefinition
from amqpd.server.backlog import LIMITS, MOST_OF_JOBS, Backlog, CommitLimits
from amqpd.server.committer import Committer, just_do
from amqpd.store.batch import Batch
from amqpd.store.body_writes import PART_BYTES, PIECE_PARTS, BodyPiece, BodyWrite
from amqpd.store.errors import StoreError, StoreFull
from amqpd.store.journal import Journal
from tests.store.store_samples import message
from tests.support.samples import messages, queue_definition

QUEUE = queue_definition(durable=True)


class GatedStore:
    """A store whose commits wait for the test, if it wants them to."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.failure: StoreError | None = None
        self.checkpoints = 0
        self.is_wal_large = self.is_checkpoint_long = False
        self.checkpoint_gate = threading.Event()
        self.checkpoint_gate.set()
        self.shrinks = iter([False] * 1_000)
        self.has_shrunk = threading.Event()
        self.missing: StoreError | None = None
        self.to_sweep = 0

    def check_files(self) -> None:
        if self.missing is not None:
            raise self.missing

    @property
    def has_to_sweep(self) -> bool:
        return self.to_sweep > 0

    def sweep(self) -> bool:
        self.to_sweep -= 1
        return self.has_to_sweep

    def shrink(self) -> bool:
        assert not self.has_to_sweep, "room is given back that is about to become more"
        step = next(self.shrinks)
        if isinstance(step, StoreError):
            raise step
        if not step:
            self.has_shrunk.set()
        return step

    def commit(self, batch: Batch) -> None:
        self.begun.release()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        self.committed.append(batch.number)

    def write_body(self, piece: BodyPiece) -> None:
        self.begun.release()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        piece.checksums = [0] * len(piece.parts)
        self.committed.append(-len(piece.parts))

    def is_checkpoint_due(self) -> bool:
        return self.is_wal_large

    def checkpoint_if_due(self) -> None:
        assert self.checkpoint_gate.wait(10)
        self.checkpoints += 1

    def fail_by_mistake(self, error: Exception) -> StoreError:
        return StoreError(f"a mistake: {error}")


class FakeLoopTurn:
    """A turn of the loop that counts its calls."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.answered: list[int] = []
        self.is_awaiting = False
        self.worked = 0

    def on_commit(self, batch: int) -> None:
        self.heard.append(batch)

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        self.answered.append(first_pending(1))

    def work_on_new(self) -> None:
        self.worked += 1


class FakePageStore:
    """Knows when it was open."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.is_in_use = self.is_body_written = False

    def serve(self) -> None:
        """Do nothing: nothing waits."""

    def close(self, first_deferred: int | None = None) -> None:
        self.acts.append("close" if first_deferred is None else f"close before {first_deferred}")

    def open(self, batch: int) -> None:
        self.acts.append(f"open {batch}")


class Bench:
    """A committer with its thread, and all that it works with."""

    def __init__(self, limits: CommitLimits = LIMITS) -> None:
        self.journal = Journal()
        self.store = GatedStore()
        self.turn = FakeLoopTurn()
        self.page_store = FakePageStore()
        self.written: list[int] = []
        self.failures: list[StoreError] = []
        self.failed = asyncio.Event()
        self.committer = Committer(
            self.journal, self.store, self.turn, asyncio.get_running_loop(),  # type: ignore[arg-type]  # stand-ins
            self.fail, self.page_store, on_written=self.written.append, limits=limits)
        self.committer.thread.start()

    def fail(self, error: StoreError) -> None:
        self.failures.append(error)
        self.failed.set()

    def write_body(self, pieces: int) -> BodyWrite:
        """Have a body written in so many pieces."""
        return self.journal.write_body(message(1, bytes(pieces * PIECE_PARTS * PART_BYTES)))

    def record(self, *numbers: int) -> None:
        self.journal.published(QUEUE, messages(*numbers, persistent=True))


def run(talk: Callable[[Bench], Awaitable[Any]], **limits: float) -> Bench:
    """Let a test talk to a committer with these limits, and stop it afterwards."""
    async def main() -> Bench:
        bench = Bench(msgspec.convert(limits, CommitLimits))
        await asyncio.wait_for(talk(bench), 10)
        if not bench.failures:
            await asyncio.wait_for(bench.committer.stop(), 10)
        return bench

    return asyncio.run(main())


def test_a_batch_is_committed_and_then_told() -> None:
    async def talk(bench: Bench) -> None:
        bench.record(1, 2)
        bench.committer.take()
        await bench.committer.wait_committed()
        assert bench.turn.heard == [1]

    bench = run(talk)
    assert (bench.store.committed, bench.store.checkpoints) == ([1], 0)


def test_after_a_batch_it_is_told_how_much_was_written() -> None:
    async def talk(bench: Bench) -> None:
        bench.record(1, 2)
        weight = bench.journal.filling.weight
        await bench.committer.wait_committed()
        assert weight and bench.written == [weight + 200]

    run(talk)


def test_nobody_waits_for_the_log_to_be_written_back_and_nobody_reads_meanwhile() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.is_wal_large = True
        bench.store.checkpoint_gate.clear()
        bench.record(1)
        bench.committer.take()
        await bench.committer.wait_committed()
        assert bench.turn.heard == [1] and bench.page_store.is_in_use
        bench.record(2)
        bench.committer.take()
        bench.store.checkpoint_gate.set()
        await bench.committer.wait_committed()

    bench = run(talk)
    assert (bench.store.committed, bench.store.checkpoints, bench.page_store.is_in_use) == ([1, 2], 2, False)


def test_a_mistake_in_the_thread_is_a_failure_of_the_store() -> None:
    """Else nobody would ever be confirmed again, and nobody would know why."""
    async def talk(bench: Bench) -> None:
        def mistake(step: Callable[[], None]) -> None:
            raise KeyError("no such thing")

        bench.committer.thread._with_room = mistake
        bench.record(1)
        bench.committer.take()
        await bench.failed.wait()

    bench = run(talk)
    assert [str(failure) for failure in bench.failures] == ["a mistake: 'no such thing'"]


def test_a_journal_that_failed_is_a_failure_of_the_store_which_is_told_once_and_no_batch_is_written() -> None:
    async def talk(bench: Bench) -> None:
        bench.turn.is_awaiting = True
        bench.record(1)
        bench.journal.settled(QUEUE, [1], is_answered=True)
        bench.journal.fail(KeyError("no such row"))
        bench.journal.fail(KeyError("what follows from it"))
        bench.committer.tell_of_answers()
        bench.committer.take()
        bench.committer.take()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(bench.committer.wait_committed(), 0)

    bench = run(talk)
    assert [str(failure) for failure in bench.failures] == ["a mistake: 'no such row'"]
    assert (bench.store.committed, bench.turn.heard, bench.turn.answered) == ([], [], [])


def test_a_job_before_a_batch_is_taken_may_fail_the_journal() -> None:
    async def talk(bench: Bench) -> None:
        bench.record(1)
        bench.turn.work_on_new = lambda: bench.journal.fail(KeyError("no such row"))    # type: ignore[method-assign]
        bench.committer.take()

    bench = run(talk)
    assert len(bench.failures) == 1 and bench.store.committed == []


def test_what_is_being_written_when_the_journal_fails_is_told_and_nothing_after_it() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.gate.clear()
        bench.record(1)
        bench.committer.take()
        assert bench.store.begun.acquire(timeout=10)
        bench.record(2)
        bench.journal.fail(KeyError("no such row"))
        bench.committer.take()
        bench.store.gate.set()
        while not bench.turn.heard:
            await asyncio.sleep(0)

    bench = run(talk)
    assert (len(bench.failures), bench.store.committed, bench.turn.heard) == (1, [1], [1])


def test_one_batch_fills_while_another_is_written() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.gate.clear()
        bench.record(1)
        bench.committer.take()
        assert bench.store.begun.acquire(timeout=10)
        for number in (2, 3, 4):
            bench.record(number)
            bench.committer.take()
        assert bench.journal.filling.count == 3
        bench.store.gate.set()

    assert run(talk).store.committed == [1, 2]


def test_nothing_is_written_where_nothing_is_recorded() -> None:
    async def talk(bench: Bench) -> None:
        bench.committer.take()
        assert bench.turn.heard == []

    assert run(talk).store.committed == []


def test_those_who_wait_for_a_batch_that_became_empty_are_told() -> None:
    async def talk(bench: Bench) -> None:
        bench.turn.is_awaiting = True
        run_ = messages(1, persistent=True)
        bench.journal.published(QUEUE, run_)
        bench.journal.settled(QUEUE, [message.number for message in run_])
        bench.committer.take()
        assert bench.turn.heard == [1]
        bench.turn.is_awaiting = False

    assert run(talk).store.committed == []


def test_dead_letters_are_moved_before_a_batch_is_taken() -> None:
    async def talk(bench: Bench) -> None:
        bench.turn.work_on_new = lambda: bench.record(7)  # type: ignore[method-assign]  # the death of something
        bench.committer.take()
        del bench.turn.work_on_new
        await bench.committer.wait_committed()

    assert run(talk).store.committed == [1]


def test_a_batch_that_is_held_is_not_taken_and_jobs_go_on_however_full_it_is() -> None:
    async def talk(bench: Bench) -> None:
        bench.journal.hold.begin()
        bench.record(*range(1, MOST_OF_JOBS + 2))
        bench.committer.take()
        assert bench.journal.filling.number == 1 and not bench.committer.backlog.is_full_for_jobs
        waiting = asyncio.ensure_future(bench.committer.wait_committed())
        await asyncio.sleep(0)
        assert not waiting.done()
        bench.journal.hold.end()
        assert bench.committer.backlog.is_full_for_jobs
        bench.committer.take()
        await waiting

    assert run(talk).store.committed == [1]


def test_whoever_waits_until_all_is_committed_waits_for_the_end_of_a_hold_on_nothing_yet() -> None:
    async def talk(bench: Bench) -> None:
        bench.journal.hold.begin()
        waiting = asyncio.ensure_future(bench.committer.wait_committed())
        await asyncio.sleep(0)
        assert not waiting.done()
        bench.record(1)
        bench.journal.hold.end()
        bench.committer.take()
        await waiting

    assert run(talk).store.committed == [1]


def test_batches_are_written_while_records_are_deferred_and_whoever_waits_for_all_waits_for_these() -> None:
    async def talk(bench: Bench) -> None:
        bench.journal.deferral.begin()
        with bench.journal.deferral.on():
            bench.record(1)
        bench.record(2)
        bench.committer.take()
        assert bench.page_store.acts[-1] == "close before 1"
        waiting = asyncio.ensure_future(bench.committer.wait_committed())
        while bench.store.committed != [1]:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        bench.record(3)
        bench.journal.deferral.end()
        bench.committer.take()
        assert bench.page_store.acts[-1] == "close"
        await waiting

    assert run(talk).store.committed == [1, 2]


def test_a_hold_on_a_batch_that_comes_out_empty_may_be_followed_by_another() -> None:
    async def talk(bench: Bench) -> None:
        bench.journal.hold.begin()
        bench.journal.hold.end()
        bench.committer.take()
        assert bench.journal.hold.begin()
        bench.journal.hold.end()

    run(talk)


def test_whoever_waits_until_all_is_committed_waits_for_what_fills_too() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.gate.clear()
        bench.record(1)
        bench.committer.take()
        bench.record(2)
        waiting = asyncio.ensure_future(bench.committer.wait_committed())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        bench.store.gate.set()
        await waiting
        assert bench.store.committed == [1, 2]

    run(talk)


def test_nobody_waits_where_nothing_is_to_be_committed() -> None:
    async def talk(bench: Bench) -> None:
        await bench.committer.wait_committed()
        await bench.committer.wait_committed()

    run(talk)


def test_stopping_commits_what_is_there_and_ends_the_thread() -> None:
    async def talk(bench: Bench) -> None:
        bench.record(1)

    bench = run(talk)
    assert bench.store.committed == [1]
    assert not bench.committer.thread._thread.is_alive()


def test_a_stop_ends_though_each_batch_brings_another_one_and_none_is_left_out() -> None:
    """Jobs go on until the end: the dead letters of what was requeued, for example."""
    async def talk(bench: Bench) -> None:
        def on_commit(batch: int) -> None:
            bench.record(batch + 1)
            if batch == 1:
                stopping.append(asyncio.ensure_future(bench.committer.stop()))

        bench.turn.on_commit = on_commit        # type: ignore[method-assign]
        bench.record(1)
        bench.committer.take()
        while not stopping:
            await asyncio.sleep(0)
        await stopping[0]
        assert bench.journal.filling.number == bench.store.committed[-1] + 1
        assert not bench.journal.filling.is_empty
        bench.committer.commit_rest()
        assert bench.journal.filling.is_empty

    stopping: list[asyncio.Future[None]] = []
    bench = run(talk)
    assert bench.store.committed == [*range(1, len(bench.store.committed) + 1)]
    assert bench.page_store.acts[-1] == "close", "it is open while the rest is written"


def test_what_a_job_holds_at_a_stop_is_not_written_in_halves() -> None:
    async def talk(bench: Bench) -> None:
        end = bench.committer.thread.end

        async def hold_and_end() -> None:
            assert bench.journal.hold.begin()
            bench.record(1)
            await end()
            bench.committer._loop.call_soon(let_go)     # when the stop waits for nothing else

        def let_go() -> None:
            bench.record(2)
            bench.journal.hold.end()

        bench.committer.thread.end = hold_and_end       # type: ignore[method-assign]
        await bench.committer.stop()
        published = bench.journal.filling.queues[QUEUE.number].published
        assert [*published] == [1, 2] and not bench.journal.hold.is_on
        bench.committer.commit_rest()

    assert run(talk).store.committed == [1]


def test_the_rest_gets_room_on_a_full_disk_and_an_error_of_it_is_raised() -> None:
    async def talk(bench: Bench) -> None:
        def with_room(step: Callable[[], None]) -> None:
            with pytest.raises(StoreFull):
                step()
            bench.store.failure = None
            step()

        await bench.committer.stop()
        bench.committer.commit_rest()
        assert bench.store.committed == [], "there was nothing to commit"
        bench.committer._with_room = with_room
        bench.record(1)
        bench.store.failure = StoreFull("full")
        bench.committer.commit_rest()
        bench.committer._with_room = just_do
        bench.record(2)
        bench.store.failure = StoreError("the disk is gone")
        with pytest.raises(StoreError, match="the disk is gone"):
            bench.committer.commit_rest()

    assert run(talk).store.committed == [1]


def test_the_rest_of_a_journal_that_has_failed_is_not_written() -> None:
    async def talk(bench: Bench) -> None:
        await bench.committer.stop()
        bench.record(1)
        bench.journal.fail(KeyError("no such row"))
        bench.committer.commit_rest()

    bench = run(talk)
    assert [str(failure) for failure in bench.failures] == ["a mistake: 'no such row'"]
    assert bench.store.committed == []


def test_a_failure_is_told_once_and_nothing_is_written_after_it() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.failure = StoreError("the disk is gone")
        bench.record(1)
        bench.committer.take()
        await bench.failed.wait()
        bench.record(2)
        bench.committer.take()

    bench = run(talk)
    assert [str(failure) for failure in bench.failures] == ["the disk is gone"]
    assert (bench.store.committed, bench.turn.heard) == ([], [])


@pytest.mark.parametrize("when", ["before", "meanwhile", "idle"])
def test_nothing_is_told_of_a_batch_whose_files_are_gone(when: str) -> None:
    async def talk(bench: Bench) -> None:
        def lose() -> None:
            bench.store.missing = StoreError("the file was deleted")

        if when == "meanwhile":
            bench.store.gate.clear()
        else:
            lose()
        if when == "idle":
            await bench.committer.watch_files_forever()
        bench.record(1)
        bench.committer.take()
        lose()
        bench.store.gate.set()
        await bench.failed.wait()
        bench.record(2)
        bench.committer.take()

    bench = run(talk)
    assert [str(failure) for failure in bench.failures] == ["the file was deleted"]
    assert bench.turn.heard == [] and bench.store.committed == [1] * (when == "meanwhile")


@pytest.mark.parametrize("is_small", [True, False])
def test_a_small_batch_is_written_before_a_large_log_is_written_back(is_small: bool) -> None:
    """Whoever waited for a large batch does not wait for that as well; a large one would make the log larger still."""
    async def talk(bench: Bench) -> None:
        bench.store.is_wal_large = bench.store.is_checkpoint_long = True
        bench.store.checkpoint_gate.clear()
        bench.record(1)
        bench.committer.take()
        await bench.committer.wait_committed()
        bench.record(2)
        bench.committer.take()
        if is_small:
            await bench.committer.wait_committed()
        assert bench.page_store.is_in_use and bench.store.checkpoints == 0
        assert bench.turn.heard == ([1, 2] if is_small else [1])
        bench.store.checkpoint_gate.set()
        bench.store.is_checkpoint_long = False
        await bench.committer.wait_committed()

    bench = run(talk, next_s=10, fewest_bytes=LIMITS.fewest_bytes if is_small else 1)
    assert bench.store.committed == [1, 2]
    assert (bench.store.checkpoints, bench.page_store.is_in_use) == (1 if is_small else 2, False)


def test_what_else_is_to_be_done_waits_until_a_large_log_is_written_back() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.is_wal_large = bench.store.is_checkpoint_long = True
        bench.record(1)
        bench.committer.take()
        await bench.committer.wait_committed()
        await bench.committer.thread.run_between(lambda _: seen.append(bench.store.checkpoints))

    seen: list[int] = []
    run(talk, next_s=10)
    assert seen == [1]


def test_a_batch_and_the_writing_back_of_the_log_get_room_each_by_itself() -> None:
    """What is written is not written again because there was no room to write the log back."""
    async def talk(bench: Bench) -> None:
        tries: list[int] = []

        def with_room(step: Callable[[], None]) -> None:
            tries.append(len(bench.store.committed))
            step()

        bench.committer.thread._with_room = with_room
        bench.store.is_wal_large = True
        bench.record(1)
        bench.committer.take()
        await bench.committer.stop()
        assert tries == [0, 1]

    run(talk)


def test_a_log_that_cannot_be_written_back_for_want_of_room_is_left_for_later() -> None:
    async def talk(bench: Bench) -> None:
        def with_room(step: Callable[[], None]) -> None:
            if step == bench.store.checkpoint_if_due:
                raise StoreFull("full")
            step()

        bench.committer.thread._with_room = with_room
        bench.store.is_wal_large = True
        for number in (1, 2):
            bench.record(number)
            bench.committer.take()
            await bench.committer.wait_committed()
        assert bench.store.committed == [1, 2] and not bench.failures

    run(talk)


@pytest.mark.parametrize(("limit", "value"), [("most", 3), ("most_bytes", 100)])
def test_a_journal_that_holds_too_much_is_full_until_it_was_taken(limit: str, value: int) -> None:
    async def talk(bench: Bench) -> None:
        bench.record(1)
        assert not bench.committer.backlog.is_full
        bench.record(2, 3, 4)
        assert bench.committer.backlog.is_full and not bench.committer.backlog.is_overfull
        bench.record(*range(5, 5 + 4 * 4))
        assert bench.committer.backlog.is_overfull
        bench.committer.take()
        assert not bench.committer.backlog.is_full

    run(talk, **{limit: 4 * value})         # a committer begins with a quarter of that


def test_changes_are_committed_as_messages_are() -> None:
    async def talk(bench: Bench) -> None:
        bench.journal.changed(Defined(VhostDefinition("/")))
        await bench.committer.wait_committed()

    assert run(talk).store.committed == [1]


# What was answered before it was written

def test_publishers_are_told_of_what_was_answered_while_it_is_written() -> None:
    async def talk(bench: Bench) -> None:
        bench.turn.is_awaiting = True
        bench.store.gate.clear()
        bench.record(1, 2, 3)
        bench.committer.take()
        bench.committer.tell_of_answers()
        assert bench.turn.answered == []
        bench.journal.settled(QUEUE, [1, 2], is_answered=True)
        bench.committer.tell_of_answers()
        bench.committer.tell_of_answers()
        assert bench.turn.answered == [3] and not bench.store.committed
        bench.record(4)
        bench.store.gate.set()
        await bench.committer.wait_committed()
        bench.journal.settled(QUEUE, [3, 4], is_answered=True)
        bench.committer.tell_of_answers()
        assert bench.turn.answered == [3]     # all that was published is on disk
        bench.turn.is_awaiting = False

    run(talk)


def test_answers_are_no_news_where_nobody_waits() -> None:
    async def talk(bench: Bench) -> None:
        bench.record(1)
        bench.journal.settled(QUEUE, [1], is_answered=True)
        bench.committer.tell_of_answers()
        assert bench.turn.answered == []

    run(talk)


def test_what_left_its_queue_unwritten_and_unanswered_is_owed_to_nobody() -> None:
    async def talk(bench: Bench) -> None:
        bench.turn.is_awaiting = True
        bench.record(1)
        bench.journal.settled(QUEUE, [1])       # it was purged
        bench.committer.take()
        bench.record(2, 3)
        bench.journal.settled(QUEUE, [2], is_answered=True)
        bench.committer.tell_of_answers()
        assert (bench.turn.heard, bench.turn.answered) == ([1], [3])
        bench.turn.is_awaiting = False

    run(talk)


# While there is nothing to write

def test_an_idle_store_shrinks_until_there_is_no_more_to_give() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.shrinks = iter([True, True, False])      # asked once more it would raise StopIteration
        await asyncio.to_thread(bench.store.has_shrunk.wait, 10)
        bench.record(1)
        bench.committer.take()

    run(talk, idle_s=0.001)


def test_an_idle_store_is_swept_before_it_shrinks() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.to_sweep = 5
        bench.record(1)
        await bench.committer.wait_committed()
        bench.store.has_shrunk.clear()
        assert await asyncio.to_thread(bench.store.has_shrunk.wait, 10)
        assert bench.store.to_sweep == 0

    run(talk, idle_s=0.001)


def test_a_disk_that_is_full_keeps_the_file_from_shrinking_and_nothing_else() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.shrinks = iter([StoreFull("full"), False])
        bench.record(1)
        await bench.committer.wait_committed()
        bench.record(2)
        await bench.committer.wait_committed()

    assert run(talk, idle_s=0.001).failures == []


def test_a_store_that_fails_while_it_shrinks_has_failed() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.shrinks = iter([StoreError("the disk is on fire")])
        bench.record(1)             # it may have been idle before, and does not look again until there was work
        bench.committer.take()
        await bench.failed.wait()
        assert [str(failure) for failure in bench.failures] == ["the disk is on fire"]

    run(talk, idle_s=0.001)


# A long job in the same thread

def test_batches_are_written_while_a_job_is_at_work() -> None:
    async def talk(bench: Bench) -> None:
        def job(between: Callable[[], None]) -> None:
            seen.append([*bench.store.committed])
            bench.committer._loop.call_soon_threadsafe(begin_next)
            while not bench.store.committed:
                between()
            seen.append([*bench.store.committed])

        def begin_next() -> None:
            bench.record(1)
            bench.committer.take()

        await bench.committer.thread.run_between(job)
        await bench.committer.wait_committed()
        assert bench.turn.heard == [1]

    seen: list[list[int]] = []
    run(talk)
    assert seen == [[], [1]]


@pytest.mark.parametrize("error", [StoreError("no room for the copy"), ZeroDivisionError()])
def test_what_a_job_fails_with_is_the_jobs_and_commits_go_on(error: Exception) -> None:
    async def talk(bench: Bench) -> None:
        def job(between: Callable[[], None]) -> None:
            raise error

        with pytest.raises(type(error)):
            await bench.committer.thread.run_between(job)
        bench.record(1)
        await bench.committer.wait_committed()

    bench = run(talk)
    assert (bench.store.committed, bench.failures) == ([1], [])


def test_a_commit_that_fails_during_a_job_is_the_brokers_failure_and_ends_the_job() -> None:
    async def talk(bench: Bench) -> None:
        def job(between: Callable[[], None]) -> None:
            bench.store.failure = StoreError("the disk is on fire")
            bench.committer._loop.call_soon_threadsafe(begin)
            while True:
                between()

        def begin() -> None:
            bench.record(1)
            bench.committer.take()

        with pytest.raises(StoreError, match="the broker stops"):
            await bench.committer.thread.run_between(job)
        await bench.failed.wait()
        assert [str(failure) for failure in bench.failures] == ["the disk is on fire"]

    run(talk)


def test_a_stop_ends_a_job() -> None:
    async def talk(bench: Bench) -> None:
        def job(between: Callable[[], None]) -> None:
            while True:
                between()

        running = asyncio.ensure_future(bench.committer.thread.run_between(job))
        await asyncio.sleep(0)
        bench.record(1)
        await bench.committer.stop()
        with pytest.raises(StoreError, match="the broker stops: try again"):
            await running
        bench.failures.append(StoreError("it was stopped already"))

    assert run(talk).store.committed == [1]


def test_a_job_that_nobody_waits_for_any_more_is_not_begun() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.gate.clear()
        bench.record(1)
        bench.committer.take()
        assert bench.store.begun.acquire(timeout=10)
        waiting = asyncio.ensure_future(bench.committer.thread.run_between(lambda between: begun.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        bench.store.gate.set()

    begun: list[int] = []
    assert run(talk).store.committed == [1]
    assert begun == []


def test_a_loop_that_has_ended_is_told_nothing() -> None:
    """A start that fails, the address being in use, must not end in a traceback of the store's thread."""
    async def main() -> Bench:
        bench = Bench()
        bench.store.gate.clear()
        bench.record(1)
        bench.committer.take()
        bench.store.begun.acquire(timeout=10)
        return bench

    failed: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        bench = asyncio.run(main())
        bench.store.gate.set()
        bench.committer.thread._work.put(None)
        bench.committer.thread._thread.join(10)
    finally:
        threading.excepthook = before
    assert bench.store.committed == [1] and not failed


def test_as_much_may_wait_as_is_written_in_a_moment() -> None:
    filling = SimpleNamespace(count=0, weight=0)
    journal: Any = SimpleNamespace(filling=filling, hold=SimpleNamespace(is_on=False))
    backlog = Backlog(journal)
    for seconds, is_slow in ((4.0, True), (0.001, False)):
        for _ in range(20):
            filling.count = 50_000
            backlog.taken(0)
            backlog.written(seconds)
        filling.count = 2 * LIMITS.fewest + 1
        assert backlog.is_full is is_slow and backlog.is_full_for_jobs


# Large bodies

PIECE = -PIECE_PARTS        # as the store of these tests notes it


def test_a_piece_of_a_large_body_and_a_batch_have_their_turn_one_after_the_other() -> None:
    """So nobody's confirm waits for longer than a piece takes."""
    async def talk(bench: Bench) -> None:
        body = bench.write_body(3)
        bench.store.gate.clear()
        bench.committer.take()
        assert bench.store.begun.acquire(timeout=10)
        bench.record(1)
        bench.store.gate.set()
        while not body.is_done:
            if bench.turn.heard == [1] and bench.journal.filling.number == 2 and bench.journal.filling.is_empty:
                bench.record(2)
            await asyncio.sleep(0)
        await bench.committer.wait_committed()

    assert run(talk).store.committed == [PIECE, 1, PIECE, 2, PIECE]


def test_a_large_body_waits_for_no_more_than_a_batch_between_two_pieces() -> None:
    async def talk(bench: Bench) -> None:
        body = bench.write_body(2)
        numbers = iter(range(1, 1_000))
        bench.record(next(numbers))
        bench.committer.take()
        while not body.is_done:
            if bench.journal.filling.is_empty:
                bench.record(next(numbers))
            await asyncio.sleep(0)
        await bench.committer.wait_committed()

    assert run(talk).store.committed[:4] == [PIECE, 1, PIECE, 2]


def test_a_body_goes_on_while_a_batch_is_held() -> None:
    async def talk(bench: Bench) -> None:
        bench.journal.hold.begin()
        bench.record(1)
        body = bench.write_body(2)
        bench.committer.take()
        while not body.is_done:
            await asyncio.sleep(0)
        bench.journal.hold.end()
        bench.committer.take()
        await bench.committer.wait_committed()

    assert run(talk).store.committed == [PIECE, PIECE, 1]


def test_nobody_reads_while_a_piece_is_written_and_everybody_may_between_two() -> None:
    async def talk(bench: Bench) -> None:
        served, page_store = [], bench.page_store
        page_store.serve = lambda: served.append(page_store.is_body_written)    # type: ignore[method-assign]
        body = bench.write_body(3)
        bench.committer.take()
        assert bench.page_store.is_body_written
        while not body.is_done:
            await asyncio.sleep(0)
        assert served == [False] * 3

    run(talk)


def test_a_body_that_cannot_be_written_is_the_end_as_a_batch_is() -> None:
    async def talk(bench: Bench) -> None:
        bench.store.failure = StoreError("cannot sync")
        body = bench.write_body(2)
        bench.committer.take()
        await bench.failed.wait()
        bench.record(1)
        bench.committer.take()
        assert not body.is_done

    bench = run(talk)
    assert [str(failure) for failure in bench.failures] == ["cannot sync"]
    assert bench.store.committed == []


def test_a_body_for_which_there_was_no_room_is_written_again() -> None:
    async def talk(bench: Bench) -> None:
        def with_room(step: Callable[[], None]) -> None:
            try:
                step()
            except StoreFull:
                bench.store.failure = None
                step()

        bench.committer.thread._with_room = with_room
        bench.store.failure = StoreFull("no space left")
        body = bench.write_body(1)
        bench.committer.take()
        while not body.is_done:
            await asyncio.sleep(0)

    assert run(talk).store.committed == [PIECE]


def test_the_log_is_written_back_after_a_piece_where_that_is_due() -> None:
    async def talk(bench: Bench) -> None:
        body = bench.write_body(2)
        bench.committer.take()
        while not body.is_done:
            await asyncio.sleep(0)

    assert run(talk).store.checkpoints == 2


def test_who_waits_for_all_that_is_recorded_is_told_while_a_body_is_written() -> None:
    async def talk(bench: Bench) -> None:
        bench.write_body(2)
        bench.record(1)
        await bench.committer.wait_committed()
        assert 1 in bench.store.committed

    run(talk)
