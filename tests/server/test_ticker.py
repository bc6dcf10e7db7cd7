"""When sessions are checked, and that no client is disconnected because of outdated times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from amqpd.broker.measures import Measures
from amqpd.server import ticker as ticker_module
from amqpd.server.gaps import Gaps
from amqpd.server.ticker import Ticker


class FakePass:
    """Knows the connections."""

    def __init__(self) -> None:
        self.protocols: dict[FakeSession, FakeSession] = {}
        self.begun = 0
        self.now = [1_000]

    def now_ms(self) -> int:
        return self.now[0]

    def begin(self) -> None:
        self.begun += 1


class FakeSession:
    """A session and its protocol; it is overdue until it has received something."""

    is_input_full = waits_for_reader = False
    name, number = "a -> b", 1

    def __init__(self, turn: FakePass, *, is_overdue: bool = False) -> None:
        self.overdue = is_overdue
        self.excused: list[int] = []
        self.calls: list[str] = []
        self.in_vain = 0
        self.channels: list[int] = []
        self.ends: list[str] = []
        self.blocking = self.receiver = self.heartbeats = self.state = self
        turn.protocols[self] = self

    def tick(self, now_ms: int) -> bool:
        self.calls.append("tick")
        return not self.overdue

    def is_overdue(self, now_ms: int) -> bool:
        return self.overdue

    def log_overdue(self, now_ms: int) -> None:
        self.calls.append("log")

    def log_end(self, reason: str) -> None:
        self.ends.append(reason)

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        self.excused.append(gap_ms)

    def drop(self) -> None:
        self.calls.append("drop")

    def looks_in_vain(self) -> int:
        return self.in_vain

    def acknowledged_ms_ago(self) -> int | None:
        return None


@pytest.fixture
def turn() -> FakePass:
    return FakePass()


@pytest.fixture
def now(turn: FakePass) -> list[int]:
    """The time, to be changed."""
    return turn.now


def run(turn: FakePass, *steps: Callable[[], object]) -> None:
    """One tick after each step."""
    async def main() -> None:
        ticker = Ticker(turn)  # type: ignore[arg-type]  # it is all that the ticker needs of a turn
        for step in steps:
            step()
            await ticker.tick()

    asyncio.run(main())


def test_a_look_in_time_finds_no_gap() -> None:
    gaps = Gaps(250, 1_000)
    assert [gaps.look(now) for now in (1_250, 1_500, 2_000)] == [0, 0, 0]


def test_a_late_look_finds_how_much_too_late_it_is_and_that_once() -> None:
    gaps = Gaps(250, 1_000)
    assert [gaps.is_late(now) for now in (1_500, 1_501)] == [False, True]
    assert [gaps.look(now) for now in (41_000, 41_250, 41_900)] == [39_500, 0, 150]
    assert not gaps.is_late(42_000)


def test_who_is_in_time_is_looked_after_and_nothing_else(turn: FakePass, now: list[int]) -> None:
    session = FakeSession(turn)
    run(turn, lambda: now.__setitem__(0, 1_250))
    assert session.calls == ["tick"] and session.excused == [] and turn.begun


def test_who_is_overdue_goes_after_the_sockets_have_been_read(turn: FakePass, now: list[int]) -> None:
    session = FakeSession(turn, is_overdue=True)
    run(turn, lambda: None)
    assert session.calls == ["tick", "log", "drop"]


def test_who_is_heard_between_the_two_looks_stays(turn: FakePass, now: list[int]) -> None:
    session = FakeSession(turn, is_overdue=True)

    def say_something_late() -> None:
        """As a socket that the loop's next poll finds readable."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, loop.call_soon, setattr, session, "overdue", False)

    run(turn, say_something_late)
    assert session.calls == ["tick"]


def test_who_has_gone_between_the_two_looks_is_not_dropped(turn: FakePass, now: list[int]) -> None:
    session = FakeSession(turn, is_overdue=True)
    run(turn, lambda: asyncio.get_running_loop().call_soon(turn.protocols.clear))
    assert session.calls == ["tick"]


def test_a_gap_is_excused_before_anybody_is_looked_at(
    turn: FakePass, now: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    session = FakeSession(turn)
    run(turn, lambda: now.__setitem__(0, 41_500), lambda: now.__setitem__(0, 41_750))
    assert session.excused == [40_000] and session.calls == ["tick", "tick"]
    assert "no work for 40.0 s" in caplog.text


def test_a_gap_of_very_many_channels_is_excused_in_slices(turn: FakePass, now: list[int]) -> None:
    sessions: list[Any] = [FakeSession(turn) for _ in range(9)]
    for session in sessions:
        session.channels = range(ticker_module.EXCUSED // 3)
    seen: list[int] = []

    def look_on() -> None:
        seen.append(sum(len(session.excused) for session in sessions))
        if seen[-1] < len(sessions):
            asyncio.get_running_loop().call_soon(look_on)

    def begin() -> None:
        now[0] = 41_500
        look_on()

    run(turn, begin, lambda: now.__setitem__(0, 41_750))
    assert seen == [0, 3, 6, 9]
    assert all(session.calls == ["tick", "tick"] for session in sessions)


def test_very_many_are_looked_after_in_slices(turn: FakePass, now: list[int]) -> None:
    sessions = [FakeSession(turn) for _ in range(3 * ticker_module.SLICE)]
    seen: list[int] = []

    def look_on() -> None:
        seen.append(sum(len(session.calls) for session in sessions))
        if seen[-1] < len(sessions):
            asyncio.get_running_loop().call_soon(look_on)

    run(turn, look_on)
    assert seen == [0, ticker_module.SLICE, 2 * ticker_module.SLICE, 3 * ticker_module.SLICE]


def test_a_blocked_client_whose_machine_has_closed_is_dropped_at_once(turn: FakePass, now: list[int]) -> None:
    session: Any = FakeSession(turn)
    session.blocking.is_input_full = True
    run(turn, lambda: None)
    assert session.calls == ["drop"]


# Clients that take nothing

def test_a_client_that_takes_nothing_for_90_seconds_is_dropped(turn: FakePass, now: list[int]) -> None:
    session = FakeSession(turn)
    session.in_vain = 359
    run(turn, lambda: None)
    assert session.calls == ["tick"]
    session.in_vain = 360
    run(turn, lambda: None)
    assert session.calls == ["tick", "drop"]
    assert session.ends == ["client has taken nothing of what it is sent for 90 s"]


def test_the_time_for_clients_that_take_nothing_can_change(turn: FakePass, now: list[int]) -> None:
    session = FakeSession(turn)
    session.in_vain = 8
    ticker: Any = Ticker(turn)      # type: ignore[arg-type]  # it is all that the ticker needs of a turn
    asyncio.run(ticker.tick())
    ticker.change_timeout(2.0)
    asyncio.run(ticker.tick())
    assert session.calls == ["tick", "drop"]


def test_a_client_that_must_read_first_and_has_closed_its_socket_is_dropped(turn: FakePass, now: list[int]) -> None:
    session = FakeSession(turn)
    session.receiver.waits_for_reader = True
    run(turn, lambda: None)
    assert session.calls == ["drop"]


def test_how_late_the_loop_is_is_measured(turn: FakePass) -> None:
    measures = Measures()

    async def main() -> None:
        ticker = Ticker(turn, measures=measures, tick_s=0.0)  # type: ignore[arg-type]  # see above
        task = asyncio.ensure_future(ticker.tick_forever())
        while measures.loop_lag_seconds.count < 3:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    assert measures.loop_lag_seconds.sum > 0
