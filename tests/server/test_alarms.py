"""Alarms: all forms of the limits, when an alarm ends, and how often memory and disk are measured."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from amqpd.broker.clock import Clock
from amqpd.broker.events import Event, Events
from amqpd.broker.feed import Feed
from amqpd.server import resources
from amqpd.server.alarms import DISK_MAX_S, DISK_MIN_S, MEMORY_MAX_S, MEMORY_MIN_S, Alarms, Machine
from amqpd.wire.contents import Intake
from tests.support.loops import turns, until

GB = 10 ** 9


class FakeLoopTurn:
    """A turn of the loop that records its calls."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.intake = Intake()

    def tell_time(self) -> None:
        pass

    def set_alarm(self, reason: str) -> None:
        self.reasons.append(reason)


class FakeBallast:
    is_spent = False


class Collector:
    """A garbage collector that counts its calls, and frees as much as the test says."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.calls = self.frees = 0
        self.now = 1_000.0
        self.takes = 0.0

    def collect(self) -> None:
        self.calls += 1
        self.now += self.takes
        self.bench.used -= self.frees


class Bench:
    """Alarms on a machine with 10 GB of memory, of which the process has 1, and 10 GB of free disk."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.used = GB
        self.free = 10 * GB
        self.given_back = 0
        self.collector = Collector(self)
        self.turn = FakeLoopTurn()
        self.ballast = FakeBallast()
        given: dict[str, Any] = {
            "memory_fraction": 0.6, "memory_absolute": 0, "disk_free_limit": GB, "data_dir": folder,
            "ballast": self.ballast, "machine": Machine(
                available=lambda: 10 * GB, used=lambda: self.used, give_back=self.give_back,
                collect=self.collector.collect, free=lambda directory: self.free, now_s=lambda: self.collector.now),
        } | settings
        self.alarms = Alarms(self.turn, **given)  # type: ignore[arg-type]  # it is all that is needed of a turn

    def give_back(self) -> None:
        self.given_back += 1


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_memory_alarms_beyond_the_watermark_and_ends_at_95_percent_of_it(bench: Bench) -> None:
    for used in (6 * GB, 6 * GB + 1, int(5.71 * GB), int(5.7 * GB)):
        bench.used = used
        bench.alarms.check_memory()
    assert bench.turn.reasons == ["low on memory", ""]


def test_what_is_free_in_the_process_is_given_back_before_memory_is_judged_to_be_high(bench: Bench) -> None:
    bench.alarms.check_memory()
    assert bench.given_back == 0
    bench.used = 7 * GB
    bench.alarms.check_memory()
    bench.alarms.check_memory()
    assert bench.given_back == 2


@pytest.mark.parametrize("used, seconds", [
    (GB, 1.0), (int(5.9 * GB), 0.1), (6 * GB - 1, 0.02), (7 * GB, 0.5)])
def test_memory_is_looked_at_the_more_often_the_nearer_the_watermark_is(
    bench: Bench, used: int, seconds: float
) -> None:
    bench.used = used
    assert bench.alarms.check_memory() == pytest.approx(seconds)


def test_listeners_are_told_of_each_alarm_with_its_source(tmp_path: Path) -> None:
    events, feed = Events(Clock()), Feed[Event]()
    events.listen(feed)
    bench = Bench(tmp_path, events=events)
    for used, free in ((7 * GB, 10 * GB), (7 * GB, 0), (GB, 10 * GB), (GB, 10 * GB)):
        bench.used, bench.free = used, free
        bench.alarms.check_memory()
        bench.alarms.check_disk()
    assert [(event.name, event.facts["source"]) for event in feed.take()[0]] == [
        ("alarm.set", "memory"), ("alarm.set", "disk"), ("alarm.cleared", "memory"), ("alarm.cleared", "disk")]


def test_an_absolute_watermark_goes_before_the_fraction(tmp_path: Path) -> None:
    bench = Bench(tmp_path, memory_absolute=GB - 1)
    bench.alarms.check_memory()
    assert bench.turn.reasons == ["low on memory"]
    assert bench.alarms.statistics()["vm_memory_high_watermark_setting"] == {"absolute": GB - 1}


def test_a_watermark_that_is_set_holds_at_once(bench: Bench) -> None:
    bench.alarms.set_memory_watermark(0.00001)
    bench.alarms.set_memory_watermark_absolute(2 * GB)
    bench.alarms.set_memory_watermark(0)
    bench.alarms.set_memory_watermark(0.6)
    assert bench.turn.reasons == ["low on memory", "", "low on memory", ""]
    assert bench.alarms.statistics()["vm_memory_high_watermark_setting"] == {"relative": 0.6}
    assert bench.alarms.statistics()["vm_memory_high_watermark_limit"] == 6 * GB


def test_the_disk_alarms_below_its_limit(bench: Bench) -> None:
    for free in (GB, GB - 1, GB):
        bench.free = free
        bench.alarms.check_disk()
    assert bench.turn.reasons == ["low on disk", ""]


def test_the_disk_alarms_while_the_ballast_is_spent(bench: Bench) -> None:
    bench.ballast.is_spent = True
    bench.alarms.check_disk()
    bench.alarms.check_disk()
    bench.ballast.is_spent = False
    bench.alarms.check_disk()
    assert bench.turn.reasons == ["low on disk", ""]


@pytest.mark.parametrize("free, seconds", [(10 * GB, 10.0), (GB + 250_000_000, 2.0), (GB, 0.1), (0, 0.1)])
def test_the_disk_is_looked_at_the_more_often_the_nearer_the_limit_is(
    bench: Bench, free: int, seconds: float
) -> None:
    bench.free = free
    assert bench.alarms.check_disk() == pytest.approx(seconds)


def test_the_disk_is_looked_at_when_much_was_written_since_the_last_look(bench: Bench) -> None:
    """A fast disk is full before the next look is due: 2 GB free above the limit are looked at after 0.5 GB."""
    bench.free = 3 * GB
    looks: list[int] = []
    real = bench.alarms.check_disk

    def check() -> float:
        looks.append(bench.free)
        return real()

    bench.alarms.check_disk = check  # type: ignore[method-assign]

    async def watch() -> None:
        task = asyncio.ensure_future(bench.alarms.watch_disk_forever())
        await turns(5)
        for size, count in ((GB // 4, 1), (GB // 4, 1), (1, 2), (GB // 2, 2), (1, 3)):
            bench.alarms.on_written(size)
            await turns(5)
            assert len(looks) == count, size
        bench.free = GB - 1
        bench.alarms.on_written(GB // 2 + 1)
        await turns(5)
        assert bench.turn.reasons == ["low on disk"]
        task.cancel()

    asyncio.run(watch())


def test_a_disk_limit_that_is_set_holds_at_once(bench: Bench) -> None:
    bench.alarms.set_disk_free_limit(11 * GB)
    bench.alarms.set_disk_free_limit(0)
    bench.alarms.set_disk_free_limit_relative(1.5)
    assert bench.turn.reasons == ["low on disk", "", "low on disk"]
    assert bench.alarms.statistics()["disk_free_limit"] == 15 * GB


def test_a_broker_in_memory_has_no_disk_alarm(tmp_path: Path) -> None:
    bench = Bench(tmp_path, data_dir=None, ballast=None)
    bench.free = 0
    bench.alarms.check_disk()
    assert bench.turn.reasons == []


def test_one_of_two_alarms_may_end(bench: Bench) -> None:
    bench.alarms.set_memory_watermark(0)
    bench.alarms.set_disk_free_limit(11 * GB)
    assert [alarm["resource"] for alarm in bench.alarms.statistics()["alarms"]] == ["disk", "memory"]
    bench.alarms.set_memory_watermark(1)
    bench.alarms.set_disk_free_limit(1)
    assert bench.turn.reasons == ["low on memory", "low on disk & memory", "low on disk", ""]


def test_the_log_says_what_rabbitmq_s_does(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "amqpd.alarms"):
        bench.alarms.set_memory_watermark(0.01)
        bench.alarms.set_memory_watermark(0.5)
        bench.free = 5
        bench.alarms.check_disk()
        bench.free = 2 * GB
        bench.alarms.check_disk()
    assert [record.message for record in caplog.records] == [
        "Memory high watermark set to 95 MiB (100000000 bytes) of 9536 MiB (10000000000 bytes) total",
        "vm_memory_high_watermark set. Memory used:1000000000 allowed:100000000",
        "memory resource limit alarm set on node amqpd@localhost. Publishers will be blocked until this alarm clears",
        "Memory high watermark set to 4768 MiB (5000000000 bytes) of 9536 MiB (10000000000 bytes) total",
        "vm_memory_high_watermark clear. Memory used:1000000000 allowed:5000000000",
        "memory resource limit alarm cleared on node amqpd@localhost",
        "Free disk space is insufficient. Free bytes: 5. Limit: 1000000000",
        "disk resource limit alarm set on node amqpd@localhost. Publishers will be blocked until this alarm clears",
        "Free disk space is sufficient. Free bytes: 2000000000. Limit: 1000000000",
        "disk resource limit alarm cleared on node amqpd@localhost",
    ]


def test_who_waits_for_the_next_look_does_not_wait_with_an_old_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far from the old limits the next look would be in a second, and in ten."""
    bench.free = 100 * GB
    waits: list[float] = []
    timeout = asyncio.timeout

    def note(seconds: float) -> asyncio.Timeout:
        waits.append(seconds)
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", note)

    async def watch() -> None:
        watches = [asyncio.ensure_future(watch) for watch in (
            bench.alarms.watch_memory_forever(), bench.alarms.watch_disk_forever())]
        await turns(10)
        assert {*waits} == {MEMORY_MAX_S, DISK_MAX_S}
        waits.clear()
        bench.used = bench.free = GB
        bench.alarms.set_memory_watermark_absolute(GB)
        bench.alarms.set_disk_free_limit(GB)
        await turns(10)
        assert {*waits} == {MEMORY_MIN_S, DISK_MIN_S}
        bench.used, bench.free = GB + 1, GB - 1
        await until(lambda: bench.turn.reasons[-1:] == ["low on disk & memory"])
        for task in watches:
            task.cancel()

    asyncio.run(watch())


# What the system says

def test_memory_is_told_by_the_system() -> None:
    assert 1_000_000 < resources.resident_bytes() < resources.available_bytes()


def test_memory_is_told_where_the_system_has_no_proc() -> None:
    nowhere = Path("/nowhere")
    assert 1_000_000 < resources.resident_bytes(nowhere) < resources.available_bytes(nowhere)


def test_without_proc_psutil_tells_of_the_memory_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process had at most never falls: an alarm would never end."""
    psutil: Any = ModuleType("psutil")
    psutil.Process = lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=12_345))
    monkeypatch.setitem(sys.modules, "psutil", psutil)
    assert resources.resident_bytes(Path("/nowhere")) == 12_345


@pytest.mark.parametrize("line, file", [
    ("0::/shop/till", "shop/memory.max"), ("0::/shop/till", "memory.max"),
    ("9:memory:/shop/till", "memory/shop/till/memory.limit_in_bytes"),
    ("9:memory:/shop/till", "memory/memory.limit_in_bytes"),
])
def test_a_container_s_limit_counts_wherever_it_is_set(line: str, file: str, tmp_path: Path) -> None:
    groups, root = tmp_path / "cgroup", tmp_path / "sys"
    groups.write_text(f"8:pids:/other\n{line}\n")
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text("1000000\n")
    (root / "shop/till").mkdir(parents=True, exist_ok=True)
    (root / "shop/till/memory.max").write_text("max\n")
    assert resources.available_bytes(groups, root) == 1_000_000


def test_memory_that_was_freed_is_given_back() -> None:
    size = 64 << 20
    resources.give_back_memory()
    before = resources.resident_bytes()
    pieces = [os.urandom(1 << 16) for _ in range(size >> 16)]
    assert resources.resident_bytes() > before + size // 2
    pieces.clear()
    resources.give_back_memory()
    assert resources.resident_bytes() < before + size // 2


# What only the collector finds

@pytest.fixture
def collector(bench: Bench) -> Collector:
    return bench.collector


def test_what_the_collector_frees_raises_no_alarm(bench: Bench, collector: Collector) -> None:
    collector.frees = 2 * GB
    bench.used = 7 * GB
    bench.alarms.check_memory()
    assert collector.calls == 1 and bench.alarms.statistics()["alarms"] == []


def test_what_connections_have_half_received_is_shown(bench: Bench) -> None:
    bench.turn.intake.octets = 12_345
    assert bench.alarms.statistics()["memory"]["connection_readers"] == 12_345


def test_below_the_watermark_nothing_is_collected(bench: Bench, collector: Collector) -> None:
    bench.used = 6 * GB - 1
    bench.alarms.check_memory()
    assert collector.calls == 0


def test_while_memory_is_high_the_collector_runs_now_and_then(bench: Bench, collector: Collector) -> None:
    bench.used = 7 * GB
    for _ in range(100):
        bench.alarms.check_memory()
        collector.now += 0.5
    assert collector.calls == 10
    collector.frees = 5 * GB
    collector.now += 5
    bench.alarms.check_memory()
    assert bench.alarms.statistics()["alarms"] == []


def test_a_collection_that_takes_long_is_seldom_repeated(bench: Bench, collector: Collector) -> None:
    collector.takes = 1.0
    bench.used = 7 * GB
    for _ in range(200):
        bench.alarms.check_memory()
        collector.now += 0.5
    assert collector.calls == 3         # in 103 seconds
