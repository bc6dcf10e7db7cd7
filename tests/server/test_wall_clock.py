"""The wall clock is set while the broker runs: expiries in the store stay correct."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from amqpd.broker.clock import Clock
from amqpd.broker.definitions import VhostDefinition
from amqpd.broker.queue.pages import StoredMessages
from amqpd.server import monotonic
from amqpd.server.wall_clock import STEP_MS, WallClock
from amqpd.store.journal import Journal
from amqpd.store.sqlite.store import Store
from tests.store.store_samples import define, message, queue, read_properties, save

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
WALL_MS = 1_800_000_000_000
ONE = queue(1)


class Machine:
    """Clocks of a machine, and one store on it through crashes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_ms, self.wall_ms = 1_000_000, WALL_MS
        self.number = 0

    def start(self) -> StoredMessages:
        self.journal = Journal()
        self.clock = Clock(self.now_ms, self.wall_ms)
        self.store = Store.open(self.directory, now=self.wall_ms // 1000)
        recovered = self.store.load(read_properties)
        self.clock.set_stored(recovered.clock_behind_ms)
        self.wall_clock = WallClock(self.clock, self.journal, read=lambda: (self.now_ms, self.wall_ms))
        return recovered.messages.get(1) or StoredMessages([], [])  # type: ignore[arg-type]  # of no length

    def pass_by(self, ms: int, *, set_by: int = 0) -> None:
        self.now_ms += ms
        self.wall_ms += ms + set_by
        self.clock.now_ms = self.now_ms

    def publish(self, ttl_ms: int) -> None:
        self.number += 1
        end = self.clock.to_stored(self.now_ms + ttl_ms)
        self.journal.published(ONE, [message(self.number)], {self.number: end})
        self.commit()

    def commit(self) -> None:
        self.wall_clock.follow()
        save(self.store, self.journal)

    def crash(self) -> None:
        self.store.abandon()

    def left_ms(self, stored: StoredMessages) -> list[int]:
        return [end - self.now_ms for end in stored.ends(None, self.clock) or ()]


@pytest.mark.parametrize("set_by", [DAY_MS, -DAY_MS, 5_000, -5_000])
def test_what_is_left_of_a_time_to_live_does_not_depend_on_how_the_clock_was_set(tmp_path: Path, set_by: int) -> None:
    machine = Machine(tmp_path / "data")
    machine.start()
    define(machine.journal, VhostDefinition("/"), ONE)
    for life in range(3):
        machine.publish(HOUR_MS)
        machine.pass_by(1_000, set_by=set_by)
        machine.publish(HOUR_MS)
        machine.pass_by(1_000)
        machine.crash()
        machine.pass_by(1_000)
        stored = machine.start()
        # Properties of the samples say nothing of a time to live, so nothing but the store's expiry bounds it.
        ages = [1_000 + 3_000 * past + part for past in range(life, -1, -1) for part in (2_000, 1_000)]
        assert machine.left_ms(stored) == [HOUR_MS - age for age in ages]
    machine.crash()


def test_a_clock_that_is_set_while_nothing_happens_is_noted_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "data")
    machine.start()
    define(machine.journal, VhostDefinition("/"), ONE)
    machine.publish(HOUR_MS)
    machine.pass_by(10_000, set_by=DAY_MS)
    machine.commit()
    machine.crash()
    machine.pass_by(10_000)
    assert machine.left_ms(machine.start()) == [HOUR_MS - 20_000]
    machine.crash()


def test_what_two_clocks_differ_by_is_no_step(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "data")
    machine.start()
    machine.pass_by(1_000, set_by=STEP_MS - 1)
    machine.wall_clock.follow()
    assert machine.journal.filling.is_empty
    machine.pass_by(1_000, set_by=1)
    for _ in range(2):
        machine.wall_clock.follow()
    assert machine.journal.filling.count == 1
    machine.journal.filling.check()
    assert machine.clock.wall_ms == machine.wall_ms
    machine.crash()


def test_the_clock_of_deadlines_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def tell(clock: int) -> int:
        asked.append(clock)
        return 5_000_000

    monkeypatch.setattr(time, "clock_gettime_ns", tell)
    assert monotonic.now_ms() == 5 and asked == [getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)]


def test_who_was_to_be_woken_while_the_machine_slept_is_looked_for() -> None:
    class FakePass:
        calls: list[str] = []

        @property
        def wake_up(self) -> FakePass:
            return self

        def begin(self) -> None:
            self.calls.append("begin")

        def wake_if_overdue(self) -> None:
            self.calls.append("wake")

    async def main() -> None:
        wall_clock = WallClock(Clock(), Journal(), turn)  # type: ignore[arg-type]  # a stand-in
        following = asyncio.ensure_future(wall_clock.follow_forever())
        await asyncio.sleep(0)
        following.cancel()

    turn = FakePass()
    asyncio.run(main())
    assert turn.calls == ["begin", "wake"]
