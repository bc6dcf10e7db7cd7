"""The end of a pass: who is written to, when a batch is taken, who is read again, and when the clock goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.effort import TURN
from amqpd.server import loop as loop_module
from amqpd.server.loop import Pass
from amqpd.store.journal import MemoryJournal
from tests.support.loops import FakeLoop


class FakeSession:
    """A session that waits for one batch, or for none."""

    def __init__(self, batch: int = 0) -> None:
        self.batch = batch
        self.is_read = True
        self.heard: list[int] = []
        self.answered = 0

    def on_commit(self, batch: int) -> None:
        self.heard.append(batch)

    def on_answered(self, number: int) -> None:
        self.answered = number

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
        self.is_full = self.is_full_for_jobs = False

    def tell_of_answers(self) -> None:
        """Nothing was answered."""

    def take(self) -> None:
        self.log.append("take")


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


@pytest.fixture
def passes(loop: FakeLoop, broker: Broker, log: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pass with a committer, at 1,000 ms."""
    monkeypatch.setattr(loop_module, "now_ms", lambda: 1_000)
    passes = Pass(loop, broker)  # type: ignore[arg-type]  # it is all that a pass needs of a loop
    passes.committer = FakeCommitter(log)  # type: ignore[assignment]  # likewise
    return passes


def test_sessions_with_output_are_flushed_once_and_then_a_batch_is_taken(
    passes: Any, loop: FakeLoop, log: list[str]
) -> None:
    one, two = FakeSession(), FakeSession()
    passes.protocols |= {one: FakeProtocol(log, "one"), two: FakeProtocol(log, "two")}
    passes.output_ready(two)
    passes.output_ready(one)
    assert log == [] and len(loop.soon) == 1
    loop.turn()
    assert log == ["flush two", "flush one", "take"]
    passes.schedule()
    loop.turn()
    assert log[3:] == ["take"]


def test_publishers_are_told_of_answers_before_they_are_flushed(
    passes: Any, loop: FakeLoop, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FakeSession(1)
    passes.protocols[session] = FakeProtocol(log)
    passes.commit_awaited(session)

    def tell() -> None:
        passes.on_answered(7)
        passes.output_ready(session)

    monkeypatch.setattr(passes.committer, "tell_of_answers", tell)
    passes.schedule()
    loop.turn()
    assert (session.answered, passes.is_awaiting, log) == (7, False, ["flush protocol", "take"])


def test_very_many_publishers_hear_of_answers_with_the_commit(passes: Any) -> None:
    sessions = [FakeSession(1) for _ in range(loop_module.MOST_TOLD_AT_ONCE + 1)]
    for session in sessions[1:]:
        passes.commit_awaited(session)
    passes.on_answered(7)
    assert all(session.answered == 7 for session in sessions[1:])
    for session in sessions:
        session.answered = 0
        passes.commit_awaited(session)
    passes.on_answered(8)
    assert not any(session.answered for session in sessions)


def test_output_that_comes_of_flushing_is_seen_to_in_another_pass(passes: Any, loop: FakeLoop, log: list[str]) -> None:
    session = FakeSession()

    class TalkativeProtocol(FakeProtocol):
        def flush(self, now: int) -> None:
            if not log:
                passes.output_ready(session)
            log.append("flush")

    passes.protocols[session] = TalkativeProtocol(log)
    passes.output_ready(session)
    loop.turn()
    assert log == ["flush", "take"] and len(loop.soon) == 1
    loop.turn()
    assert log == ["flush", "take", "flush", "take"] and not loop.soon


def test_a_session_that_is_gone_is_not_flushed(passes: Any, loop: FakeLoop, log: list[str]) -> None:
    session = FakeSession()
    passes.protocols[session] = FakeProtocol(log)
    passes.output_ready(session)
    passes.commit_awaited(session)
    passes.forget(session)
    loop.turn()
    passes.on_commit(1)
    assert log == ["take"] and session.heard == []


def test_a_commit_is_told_to_those_who_wait_until_they_wait_no_more(passes: Any) -> None:
    first, second = FakeSession(1), FakeSession(2)
    passes.commit_awaited(first)
    passes.commit_awaited(second)
    passes.on_commit(1)
    passes.on_commit(2)
    assert (first.heard, second.heard, passes.is_awaiting) == ([1], [1, 2], False)


def test_who_had_his_share_is_read_again_after_the_pass(passes: Any, loop: FakeLoop, log: list[str]) -> None:
    passes.read_again(FakeProtocol(log))
    passes.schedule()
    loop.turn()
    assert log == ["take", "read protocol"]
    passes.schedule()
    loop.turn()
    assert log == ["take", "read protocol", "take"]


def test_nobody_is_read_while_the_journal_is_full(passes: Any, loop: FakeLoop, log: list[str]) -> None:
    passes.committer.is_full = True
    passes.read_again(FakeProtocol(log, "one"))
    passes.read_later(FakeProtocol(log, "two"))
    passes.schedule()
    loop.turn()
    passes.on_commit(1)
    loop.turn()
    assert not any(line.startswith("read") for line in log)
    passes.committer.is_full = False
    passes.on_commit(2)
    loop.turn()
    assert sorted(line for line in log if line.startswith("read")) == ["read one", "read two"]


def test_nobody_who_publishes_is_read_while_consumers_are_behind(passes: Any, loop: FakeLoop, log: list[str]) -> None:
    passes._broker.is_behind = True
    passes._broker.shelf.budget.used, passes._broker.shelf.budget.limit = 2, 1
    passes._broker._looks_again_ms = 1 << 62
    passes.read_later(FakeProtocol(log, "one"))
    passes.schedule()
    loop.turn()
    assert not any(line.startswith("read") for line in log)
    passes._broker.shelf.budget.used = 1
    passes.schedule()
    loop.turn()
    assert [line for line in log if line.startswith("read")] == ["read one"]


def test_an_alarm_that_ends_unblocks_everybody(passes: Any, log: list[str]) -> None:
    class BlockedSession(FakeSession):
        def unblock(self) -> None:
            log.append("unblock")

    passes.protocols |= {BlockedSession(): FakeProtocol(log), BlockedSession(): FakeProtocol(log)}
    passes.set_alarm("low on disk")
    passes.set_alarm("low on memory")
    assert (passes.alarm, log) == ("low on memory", [])
    passes.set_alarm("")
    assert (passes.alarm, log) == ("", ["unblock", "unblock"])


def test_a_client_whose_input_is_drained_is_read_again(passes: Any, loop: FakeLoop, log: list[str]) -> None:
    session = FakeSession()
    passes.input_drained(session)
    passes.protocols[session] = FakeProtocol(log)
    for session.is_read in (True, False):
        passes.input_drained(session)
    loop.turn()
    assert log == ["take", "read protocol"]


def test_without_a_store_nothing_is_taken_and_nothing_is_full(passes: Any, loop: FakeLoop, log: list[str]) -> None:
    passes.committer = None
    passes.read_again(FakeProtocol(log))
    passes.schedule()
    loop.turn()
    assert log == ["read protocol"] and not passes.is_full


def test_the_broker_s_clock_is_woken_when_something_is_due(
    passes: Any, loop: FakeLoop, broker: Broker, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.clock.wake_at(1_500, Sleeper(log))
    passes.schedule()
    loop.turn()
    timer, = loop.timers
    assert timer.delay_s == 0.5
    monkeypatch.setattr(loop_module, "now_ms", lambda: 1_500)
    timer.call()
    assert log == ["take", "wake"] and broker.clock.now_ms == 1_500 and loop.soon


def test_a_wake_up_that_comes_late_comes_after_the_sockets_have_been_read(
    passes: Any, loop: FakeLoop, broker: Broker, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that expires may have been used while the process did not run."""
    broker.clock.wake_at(1_500, Sleeper(log))
    passes.schedule()
    loop.turn()
    monkeypatch.setattr(loop_module, "now_ms", lambda: 41_500)
    loop.timers[0].call()
    assert log == ["take"] and loop.timers[1].delay_s == loop_module.READ_TURN_S
    passes.schedule()
    loop.turn()
    assert len(loop.timers) == 2, "it is not asked for once more"
    loop.timers[1].call()
    assert log == ["take", "take", "wake"]


def test_whose_time_came_while_the_machine_slept_is_woken_after_the_sockets_have_been_read(
    passes: Any, loop: FakeLoop, broker: Broker, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timers of the loop stood still meanwhile."""
    broker.clock.wake_at(1_500, Sleeper(log))
    passes.schedule()
    loop.turn()
    passes.wake_if_overdue()
    assert not loop.timers[0].is_cancelled and len(loop.timers) == 1
    monkeypatch.setattr(loop_module, "now_ms", lambda: 41_500)
    passes.wake_if_overdue()
    passes.wake_if_overdue()
    assert [(timer.delay_s, timer.is_cancelled) for timer in loop.timers[1:]] == [(loop_module.READ_TURN_S, False)]
    assert loop.timers[0].is_cancelled and log == ["take"]
    loop.timers[1].call()
    assert log == ["take", "wake"]


def test_an_earlier_alarm_takes_the_place_of_a_later_one(
    passes: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    for due in (5_000, 9_000, 2_000):
        broker.clock.wake_at(due, Sleeper(log))
        passes.schedule()
        loop.turn()
    assert [(timer.delay_s, timer.is_cancelled) for timer in loop.timers] == [(4.0, True), (1.0, False)]


def test_what_is_due_already_is_woken_at_once(passes: Any, loop: FakeLoop, broker: Broker, log: list[str]) -> None:
    broker.clock.wake_at(10, Sleeper(log))
    passes.schedule()
    loop.turn()
    assert loop.timers[0].delay_s == 0


def test_deferred_clients_go_on_in_turn_until_the_turn_is_spent(
    passes: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    class Deferred:
        def __init__(self, name: str) -> None:
            self.name = name

        def go_on(self) -> None:
            log.append(f"go on {self.name}")
            broker.effort.total += TURN

    for name in "ab":
        passes.input_deferred(Deferred(name))
    loop.turn()
    assert log == ["go on a", "take"]
    loop.turn()
    assert log == ["go on a", "take", "go on b", "take"]
    loop.turn()
    assert log == ["go on a", "take", "go on b", "take"]


def test_after_reads_that_took_very_long_deferred_clients_wait_for_the_next_turn_once(
    passes: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    """Else two pieces that cannot be cut make one. Who keeps the turns that full keeps nobody waiting for ever."""
    class Deferred:
        def go_on(self) -> None:
            log.append("go on")

    passes.input_deferred(Deferred())
    broker.effort.total += 2 * TURN
    loop.turn()
    assert log == ["take"] and loop.soon
    broker.effort.total += 2 * TURN
    loop.turn()
    assert log == ["take", "go on", "take"]


def test_jobs_and_deferred_clients_wait_while_too_much_waits_for_the_disk(
    passes: Any, loop: FakeLoop, broker: Broker, log: list[str]
) -> None:
    class Waiting:
        has_work = True

        def work(self) -> None:
            log.append("work")
            self.has_work = False

        def go_on(self) -> None:
            log.append("go on")

    passes.input_deferred(Waiting())
    broker.worklist.add(Waiting())
    passes.committer.is_full = passes.committer.is_full_for_jobs = True
    loop.turn()
    assert log == ["take"] and not loop.soon, "nothing turns until the commit"
    passes.committer.is_full = False
    passes.on_commit(1)
    loop.turn()
    assert log == ["take", "go on", "take"]
    passes.committer.is_full_for_jobs = False
    passes.on_commit(2)
    loop.turn()
    assert log == ["take", "go on", "take", "work", "take"]


def test_of_very_many_lost_clients_a_turn_sees_to_some(passes: Any, loop: FakeLoop, broker: Broker) -> None:
    lost: list[int] = []

    def client(number: int) -> Any:
        def is_lost() -> None:
            broker.effort.total += TURN // 4

        return SimpleNamespace(session=SimpleNamespace(lost=is_lost), end_session=lambda: lost.append(number))

    broker.effort.begin_turn()
    for number in range(10):
        passes.lose(client(number))
    assert lost == [0, 1, 2, 3], "the first are seen to at once"
    loop.turn()
    assert lost == [0, 1, 2, 3, 4], "and one at least in each turn"
    loop.turn()
    assert lost == [*range(9)]
    loop.turn()
    assert lost == [*range(10)]
