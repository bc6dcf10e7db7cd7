"""The memory alarm with real memory: how far the watermark is exceeded, when publishers are blocked, who continues.

Publishers fill transactions that they never commit, since nothing else removes those messages from memory.
"""

from __future__ import annotations

import resource
import select
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic, Connection, Queue, Tx

from amqpd import ctl
from tests.crash.broker_process import COMMAND, SABOTAGED, BrokerProcess
from tests.crash.crash_client import CHANNEL, Client, Refused, pack_content

MIB = 1 << 20
WATERMARK = 256 * MIB
PUBLISHERS, STAY = 12, 2        # how many there are, and how many are left when memory is released
MOST_EACH = 56 * MIB            # a transaction may have 64
BODY, RUN = bytes(64 * 1024), 16        # publishes in a run
SAMPLE_S = 0.01
ENOUGH = 150                    # messages consumed while the alarm is on
BLOCKED_S, UNBLOCKED_S = 1.0, 2.0
PATIENCE_S = 20.0


class Figures:
    """What was measured. Times are those of the monotonic clock, memory is in octets."""

    def __init__(self) -> None:
        self.peak = 0
        self.crossed_at = 0.0
        self.blocked_at: list[float] = []
        self.released_at = 0.0
        self.unblocked_at: list[float] = []
        self.consumed = 0
        self.failures: list[str] = []

    def __str__(self) -> str:
        return (
            f"watermark {WATERMARK // MIB} MiB, {PUBLISHERS} publishers: peak {self.peak / MIB:.0f} MiB "
            f"({self.peak / WATERMARK:.2f}), blocked {self.blocked_s:.2f} s after crossing, unblocked "
            f"{self.unblocked_s:.2f} s after memory was released, {self.consumed} consumed meanwhile")

    @property
    def blocked_s(self) -> float:
        """The seconds from crossing the watermark until the first publisher was notified."""
        return min(self.blocked_at) - self.crossed_at

    @property
    def unblocked_s(self) -> float:
        """The seconds from the release of memory until the last publisher was notified."""
        return max(self.unblocked_at) - self.released_at

    def check(self) -> None:
        """Hold them against what is promised."""
        assert not self.failures, self.failures
        assert self.peak <= 1.25 * WATERMARK, str(self)
        assert self.blocked_s <= BLOCKED_S, str(self)
        assert self.unblocked_s <= UNBLOCKED_S, str(self)
        assert self.consumed >= ENOUGH, str(self)


class Memory(threading.Thread):
    """A thread that measures the memory of a process."""

    def __init__(self, pid: int, figures: Figures) -> None:
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self._statm = Path(f"/proc/{pid}/statm")
        self._figures = figures

    def run(self) -> None:
        while not self.is_over.wait(SAMPLE_S):
            octets = int(self._statm.read_text().split()[1]) * resource.getpagesize()
            self._figures.peak = max(self._figures.peak, octets)
            if octets > WATERMARK and not self._figures.crossed_at:
                self._figures.crossed_at = time.monotonic()


class Publisher(threading.Thread):
    """A thread that publishes into a transaction until it is blocked, and notes when that ends."""

    def __init__(self, port: int, figures: Figures, ends: ExitStack) -> None:
        super().__init__(daemon=True)
        self.client = Client(port, hears_blocked=True, heartbeat_s=1, timeout_s=PATIENCE_S)
        self.is_dropped = False
        ends.callback(self.drop)
        self.client.call(Queue.Declare(0, "publishes"))
        self.client.call(Tx.Select())
        self.is_blocked = threading.Event()
        self._figures = figures
        publish = frame.marshal(Basic.Publish(0, "", "publishes"), CHANNEL)
        self._run = (publish + pack_content(Basic.Properties(), BODY)[0]) * RUN
        self._little = publish + pack_content(Basic.Properties(), b"octets")[0]

    def run(self) -> None:
        try:
            self._talk()
        except (OSError, AssertionError, Refused) as error:
            if not self.is_dropped:
                self._figures.failures.append(f"{type(error).__name__}: {error}")

    def _talk(self) -> None:
        heard = None
        runs = MOST_EACH // (RUN * len(BODY))
        while heard is None:
            heard = self._publish(self._run if runs > 0 else self._little)
            runs -= 1
            if runs < 0:
                time.sleep(SAMPLE_S)
        assert isinstance(heard, Connection.Blocked), f"{heard} instead of being blocked"
        self._figures.blocked_at.append(time.monotonic())
        self.is_blocked.set()
        arrived = self.client.take(PATIENCE_S)
        assert arrived and isinstance(arrived.method, Connection.Unblocked), "the alarm did not end"
        self._figures.unblocked_at.append(time.monotonic())

    def drop(self) -> None:
        """Go without a word."""
        self.is_dropped = True
        self.client.drop()

    def _publish(self, octets: bytes) -> Any:
        """Publish until something is received: the broker may not read this client any more, so it must not block."""
        connection = self.client._socket
        left = memoryview(octets)
        while left:
            can_read, can_write, _ = select.select([connection], [connection], [], PATIENCE_S)
            arrived = self.client.take() if can_read else None
            if arrived:
                return arrived.method
            if can_write:
                left = left[connection.send(left, socket.MSG_DONTWAIT):]
        return None


def consume(client: Client, figures: Figures, is_over: threading.Event) -> None:
    """Take and answer one message after another."""
    client.send(Basic.Consume(0, "orders", "c"))
    while not is_over.is_set():
        arrived = client.take(0.1)
        if arrived and isinstance(arrived.method, Basic.Deliver):
            client.send(Basic.Reject(arrived.method.delivery_tag, True))
            figures.consumed += 1


def cycle(folder: Path, *command: str) -> Figures:
    """Fill the memory of a broker, wait for the alarm, release memory, and wait for its end."""
    figures = Figures()
    with BrokerProcess(folder / "data", folder / "log", command=command) as broker, ExitStack() as ends:
        broker.wait_until_ready()
        assert ctl.main([
            "-q", "--data-dir", str(folder / "data"), "set_vm_memory_high_watermark", "absolute", str(WATERMARK)]) == 0
        consumer = Client(broker.port)
        ends.callback(consumer.drop)
        consumer.call(Queue.Declare(0, "orders"))
        consumer.call(Basic.Qos(0, 1))
        consumer.publish("", "orders", pack_content(Basic.Properties(), b"body")[0])
        memory = Memory(broker.pid, figures)
        ends.callback(memory.is_over.set)
        publishers = [Publisher(broker.port, figures, ends) for _ in range(PUBLISHERS)]
        for thread in (memory, *publishers):
            thread.start()
        for publisher in publishers:
            assert publisher.is_blocked.wait(PATIENCE_S), "a publisher was not blocked"
        consuming = threading.Thread(target=consume, args=(consumer, figures, memory.is_over), daemon=True)
        consuming.start()
        while figures.consumed < ENOUGH:
            assert consuming.is_alive()
            time.sleep(SAMPLE_S)
        assert not figures.unblocked_at, "the alarm ended by itself"
        for publisher in publishers[STAY:]:
            publisher.drop()
        figures.released_at = time.monotonic()
        for publisher in publishers[:STAY]:
            publisher.join(PATIENCE_S)
        memory.is_over.set()
        for thread in (memory, consuming):
            thread.join()
    assert len(figures.unblocked_at) == STAY, "a publisher was not unblocked"
    return figures


def test_memory_stays_near_the_watermark_and_consumers_go_on(tmp_path: Path) -> None:
    figures = cycle(tmp_path, *COMMAND)
    print(figures)
    figures.check()


def test_an_alarm_that_comes_late_is_caught(tmp_path: Path) -> None:
    figures = cycle(tmp_path, *SABOTAGED, "looks_at_memory_rarely")
    print(f"late: {figures}")
    with pytest.raises(AssertionError, match="^watermark 256 MiB, 12 publishers: peak "):
        figures.check()
