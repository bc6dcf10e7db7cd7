"""The end of a turn of the event loop: writes, batches, reads that continue, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.effort import TURN
from amqpd.server.loop import InMemory, LoopTurn
from amqpd.server.wake_up import READ_TURN_S
from amqpd.session.confirms import MOST_TOLD_AT_ONCE
from amqpd.store.journal import MemoryJournal
from tests.support.loops import FakeLoop


class FakeSession:
    """A session that waits for one batch, or for none."""

    def __init__(self, batch: int = 0) -> None:
        self.batch = batch
        self.is_read = True
        self.heard: list[int] = []
        self.answered = 0
        self.unconfirmed_channels = 1

    def on_commit(self, batch: int) -> None:
        self.heard.append(batch)

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        self.answered = first_pending(1)

    @property
    def awaits_commit(self) -> bool:
        return bool(self.batch) and self.batch not in self.heard and not self.answered


class FakeProtocol:
    def __init__(self, log: list[str], name: str = "protocol") -> None:
        self.log = log
        self.name = name
        self.session = SimpleNamespace(is_deferred=False)
        self.expected_steps = 0
        self.has_rested = False

    def flush(self, now: int) -> None:
        self.log.append(f"flush {self.name}")

    def resume_reading(self) -> None:
        self.log.append(f"read {self.name}")


class FakeCommitter:
    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.backlog = SimpleNamespace(is_full=False, is_full_for_jobs=False)

    def tell_of_answers(self) -> None:
        """Nothing was answered."""

    def take(self) -> None:
        self.log.append("take")


class FakePages:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def serve(self) -> None:
        self.log.append("serve")


class Sleeper:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def wake(self) -> None:
        self.log.append("wake")


@pytest.fixture
def log() -> list[str]:
    """What happened, in order."""
    return []


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def broker() -> Broker:
    return Broker(MemoryJournal(), clock=Clock(1_000))


class FakeTime:
    """The time, as the test sets it."""

    now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def turn(loop: FakeLoop, broker: Broker, log: list[str], time: FakeTime) -> Any:
    """A turn with a committer, at 1,000 ms."""
    turn = LoopTurn(broker, loop, time)
    turn.committer = FakeCommitter(log)  # type: ignore[assignment]  # it is all that a turn needs of one
    return turn


def test_sessions_with_output_are_flushed_once_and_then_a_batch_is_taken(
    turn: Any, loop: FakeLoop, log: list[str]
) -> None:
    one, two = FakeSession(), FakeSession()
    turn.protocols |= {one: FakeProtocol(log, "one"), two: FakeProtocol(log, "two")}
    turn.output_ready(two)
    turn.output_ready(one)
    assert log == [] and len(loop.soon) == 1
    loop.turn()
    assert log == ["flush two", "flush one", "take"]
    turn.schedule()
    loop.turn()
    assert log[3:] == ["take"]


def test_the_order_of_what_happens_at_the_end_of_a_turn(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    """Each step stands in the place that `LoopTurn.end` gives a reason for."""
    class Everything(FakeSession):
        def lost(self) -> None:
            log.append("lost")

        def go_on(self) -> None:
            log.append("go on")

    class Job:
        has_work = True

        def work(self) -> None:
            log.append("work")
            self.has_work = False

    class Client(FakeProtocol):
        def handshake_advanced(self) -> None:
            log.append("handshake")

        def end_session(self) -> None:
            log.append("end")

    session = Everything()
    client = turn.protocols[session] = Client(log)
    client.session = session        # type: ignore[assignment]
    turn.page_store = FakePages(log)
    turn.committer.tell_of_answers = lambda: log.append("answers")
    turn.wake_up.set = lambda now: log.append("set timer")
    broker.page_out = lambda: log.append("page out")      # type: ignore[method-assign, assignment, return-value]
    broker.effort.total += TURN         # so that the lost client waits for the end of the turn
    for signal in (turn.output_ready, turn.handshake_advanced, turn.input_deferred):
        signal(session)
    turn.lose(client)
    turn.shares.rest(client)
    broker.worklist.add(Job())
    loop.turn()
    assert log == [
        "lost", "end", "go on", "work", "handshake", "answers", "flush protocol", "set timer", "page out", "serve",
        "take", "read protocol"]
    assert not broker.effort.turn_is_spent and not loop.soon


def test_publishers_are_told_of_answers_before_they_are_flushed(
    turn: Any, loop: FakeLoop, log: list[str]
) -> None:
    session = FakeSession(1)
    turn.protocols[session] = FakeProtocol(log)
    turn.commit_awaited(session)

    def tell() -> None:
        turn.on_answered(lambda number: 7)
        turn.output_ready(session)

    turn.committer.tell_of_answers = tell
    turn.schedule()
    loop.turn()
    assert (session.answered, turn.is_awaiting, log) == (7, False, ["flush protocol", "take"])


@pytest.mark.parametrize("channels", [1, 4])
def test_of_very_many_publishers_a_few_hear_of_acks_at_once_and_all_in_turn(turn: Any, channels: int) -> None:
    sessions = [FakeSession(1) for _ in range(2 * MOST_TOLD_AT_ONCE // channels)]
    for session in sessions:
        session.unconfirmed_channels = channels
        turn.commit_awaited(session)
    half = len(sessions) // 2
    turn.on_answered(lambda number: 7)
    assert [session.answered for session in sessions] == half * [7] + half * [0]
    for session in sessions[:half]:
        session.answered = 0
        turn.commit_awaited(session)
    turn.on_answered(lambda number: 8)
    assert [session.answered for session in sessions] == half * [0] + half * [8]


def test_output_that_comes_of_flushing_is_seen_to_in_another_pass(turn: Any, loop: FakeLoop, log: list[str]) -> None:
    session = FakeSession()

    class TalkativeProtocol(FakeProtocol):
        def flush(self, now: int) -> None:
            if not log:
                turn.output_ready(session)
            log.append("flush")

    turn.protocols[session] = TalkativeProtocol(log)
    turn.output_ready(session)
    loop.turn()
    assert log == ["flush", "take"] and len(loop.soon) == 1
    loop.turn()
    assert log == ["flush", "take", "flush", "take"] and not loop.soon


def test_a_session_that_is_gone_is_not_flushed(turn: Any, loop: FakeLoop, log: list[str]) -> None:
    session = FakeSession()
    turn.protocols[session] = FakeProtocol(log)
    turn.output_ready(session)
    turn.commit_awaited(session)
    turn.forget(session)
    loop.turn()
    turn.on_commit(1)
    assert log == ["take"] and session.heard == []


def test_a_commit_is_told_to_those_who_wait_until_they_wait_no_more(turn: Any) -> None:
    first, second = FakeSession(1), FakeSession(2)
    turn.commit_awaited(first)
    turn.commit_awaited(second)
    turn.on_commit(1)
    turn.on_commit(2)
    assert (first.heard, second.heard, turn.is_awaiting) == ([1], [1, 2], False)


def test_who_had_his_share_is_read_again_after_the_pass(turn: Any, loop: FakeLoop, log: list[str]) -> None:
    turn.shares.rest(FakeProtocol(log))
    turn.schedule()
    loop.turn()
    assert log == ["take", "read protocol"]
    turn.schedule()
    loop.turn()
    assert log == ["take", "read protocol", "take"]


def test_nobody_is_read_while_the_journal_is_full(turn: Any, loop: FakeLoop, log: list[str]) -> None:
    turn.committer.backlog.is_full = True
    turn.shares.rest(FakeProtocol(log, "one"))
    turn.shares.hold(FakeProtocol(log, "two"))
    turn.schedule()
    loop.turn()
    turn.on_commit(1)
    loop.turn()
    assert not any(line.startswith("read") for line in log)
    turn.committer.backlog.is_full = False
    turn.on_commit(2)
    loop.turn()
    assert sorted(line for line in log if line.startswith("read")) == ["read one", "read two"]


def test_nobody_who_publishes_is_read_while_consumers_are_behind(turn: Any, loop: FakeLoop, log: list[str]) -> None:
    turn._broker.is_behind = True
    turn._broker.page_store.budget.used, turn._broker.page_store.budget.limit = 2, 1
    turn._broker._looks_again_ms = 1 << 62
    turn.shares.hold(FakeProtocol(log, "one"))
    turn.schedule()
    loop.turn()
    assert not any(line.startswith("read") for line in log)
    turn._broker.page_store.budget.used = 1
    turn.schedule()
    loop.turn()
    assert [line for line in log if line.startswith("read")] == ["read one"]


def test_an_alarm_that_ends_unblocks_everybody(turn: Any, log: list[str]) -> None:
    class BlockedSession(FakeSession):
        @property
        def blocking(self) -> BlockedSession:
            return self

        def ask_to_unblock(self) -> None:
            log.append("unblock")

    turn.protocols |= {BlockedSession(): FakeProtocol(log), BlockedSession(): FakeProtocol(log)}
    turn.set_alarm("low on disk")
    turn.set_alarm("low on memory")
    assert (turn.alarm, log) == ("low on memory", [])
    turn.set_alarm("")
    assert (turn.alarm, log) == ("", ["unblock", "unblock"])


def test_a_client_whose_input_is_drained_is_read_again(turn: Any, loop: FakeLoop, log: list[str]) -> None:
    session = FakeSession()
    turn.input_drained(session)
    turn.protocols[session] = FakeProtocol(log)
    for session.is_read in (True, False):
        turn.input_drained(session)
    loop.turn()
    assert log == ["take", "read protocol"]


def test_without_a_store_nothing_is_taken_and_nothing_is_full(turn: Any, loop: FakeLoop, log: list[str]) -> None:
    turn.committer = InMemory()
    turn.shares.rest(FakeProtocol(log))
    turn.schedule()
    loop.turn()
    assert log == ["read protocol"] and not turn.committer.backlog.is_full


def test_the_broker_s_clock_is_woken_when_something_is_due(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str], time: FakeTime
) -> None:
    broker.clock.wake_at(1_500, Sleeper(log))
    turn.schedule()
    loop.turn()
    timer, = loop.timers
    assert timer.delay_s == 0.5
    time.now_ms = 1_500
    timer.call()
    assert log == ["take", "wake"] and broker.clock.now_ms == 1_500 and loop.soon


def test_a_wake_up_that_comes_late_comes_after_the_sockets_have_been_read(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str], time: FakeTime
) -> None:
    """A queue that expires may have been used while the process did not run."""
    broker.clock.wake_at(1_500, Sleeper(log))
    turn.schedule()
    loop.turn()
    time.now_ms = 41_500
    loop.timers[0].call()
    assert log == ["take"] and loop.timers[1].delay_s == READ_TURN_S
    turn.schedule()
    loop.turn()
    assert len(loop.timers) == 2, "it is not asked for once more"
    loop.timers[1].call()
    assert log == ["take", "take", "wake"]


def test_whose_time_came_while_the_machine_slept_is_woken_after_the_sockets_have_been_read(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str], time: FakeTime
) -> None:
    """The timers of the loop stood still meanwhile."""
    broker.clock.wake_at(1_500, Sleeper(log))
    turn.schedule()
    loop.turn()
    turn.wake_up.wake_if_overdue()
    assert not loop.timers[0].is_cancelled and len(loop.timers) == 1
    time.now_ms = 41_500
    turn.wake_up.wake_if_overdue()
    turn.wake_up.wake_if_overdue()
    assert [(timer.delay_s, timer.is_cancelled) for timer in loop.timers[1:]] == [(READ_TURN_S, False)]
    assert loop.timers[0].is_cancelled and log == ["take"]
    loop.timers[1].call()
    assert log == ["take", "wake"]


def test_an_earlier_alarm_takes_the_place_of_a_later_one(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    for due in (5_000, 9_000, 2_000):
        broker.clock.wake_at(due, Sleeper(log))
        turn.schedule()
        loop.turn()
    assert [(timer.delay_s, timer.is_cancelled) for timer in loop.timers] == [(4.0, True), (1.0, False)]


def test_what_is_due_already_is_woken_at_once(turn: Any, loop: FakeLoop, broker: Broker, log: list[str]) -> None:
    broker.clock.wake_at(10, Sleeper(log))
    turn.schedule()
    loop.turn()
    assert loop.timers[0].delay_s == 0


def test_deferred_clients_go_on_in_turn_until_the_turn_is_spent(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    class Deferred:
        def __init__(self, name: str) -> None:
            self.name = name

        def go_on(self) -> None:
            log.append(f"go on {self.name}")
            broker.effort.total += TURN

    for name in "ab":
        turn.input_deferred(Deferred(name))
    loop.turn()
    assert log == ["go on a", "take"]
    loop.turn()
    assert log == ["go on a", "take", "go on b", "take"]
    loop.turn()
    assert log == ["go on a", "take", "go on b", "take"]


def test_after_reads_that_took_very_long_deferred_clients_wait_for_the_next_turn_once(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    """Else two pieces that cannot be cut make one. Who keeps the turns that full keeps nobody waiting for ever."""
    class Deferred:
        def go_on(self) -> None:
            log.append("go on")

    turn.input_deferred(Deferred())
    broker.effort.total += 2 * TURN
    loop.turn()
    assert log == ["take"] and loop.soon
    broker.effort.total += 2 * TURN
    loop.turn()
    assert log == ["take", "go on", "take"]


def test_jobs_and_deferred_clients_wait_while_too_much_waits_for_the_disk(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    class Waiting:
        has_work = True

        def work(self) -> None:
            log.append("work")
            self.has_work = False

        def go_on(self) -> None:
            log.append("go on")

    turn.input_deferred(Waiting())
    broker.worklist.add(Waiting())
    backlog = turn.committer.backlog
    backlog.is_full = backlog.is_full_for_jobs = True
    loop.turn()
    assert log == ["take"] and not loop.soon, "nothing turns until the commit"
    turn.committer.backlog.is_full = False
    turn.on_commit(1)
    loop.turn()
    assert log == ["take", "go on", "take"]
    turn.committer.backlog.is_full_for_jobs = False
    turn.on_commit(2)
    loop.turn()
    assert log == ["take", "go on", "take", "work", "take"]


def test_clients_are_read_before_jobs_fill_the_backlog_again(
    turn: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    """A batch may be taken outside the turn, when the one before it is on disk; then the backlog has room again."""
    backlog = turn.committer.backlog

    class Filling:
        has_work = True

        def work(self) -> None:
            log.append("work")
            backlog.is_full = backlog.is_full_for_jobs = True
            broker.effort.total += TURN

    broker.worklist.add(Filling())
    turn.shares.rest(FakeProtocol(log))
    turn.schedule()
    loop.turn()
    assert log == ["work", "take"]
    for commit in (1, 2, 3):
        backlog.is_full = backlog.is_full_for_jobs = False
        turn.on_commit(commit)
        loop.turn()
    assert log[2:] == ["take", "read protocol", "work", "take", "work", "take"], "a client was not read, or jobs waited"


def test_of_very_many_lost_clients_a_turn_sees_to_some(turn: Any, loop: FakeLoop, broker: Broker) -> None:
    lost: list[int] = []

    def client(number: int) -> Any:
        def is_lost() -> None:
            broker.effort.total += TURN // 4

        return SimpleNamespace(session=SimpleNamespace(lost=is_lost), end_session=lambda: lost.append(number))

    broker.effort.begin_turn()
    for number in range(10):
        turn.lose(client(number))
    assert lost == [0, 1, 2, 3], "the first are seen to at once"
    loop.turn()
    assert lost == [0, 1, 2, 3, 4], "and one at least in each turn"
    loop.turn()
    assert lost == [*range(9)]
    loop.turn()
    assert lost == [*range(10)]
