"""A backlog without consumers: memory stays small, the last message is delivered as fast as the first, in order.

`MESSAGES=1000000 pytest -s tests/crash/test_backlog.py`, which `make million` runs, is the real test; `SIZE` is the
size of a body in bytes. Rates are printed and not asserted. The broker is killed between filling and draining.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pamqp.commands import Confirm, Queue

from tests.crash.broker_process import BrokerProcess
from tests.crash.mass import MassClient

MIB = 1 << 20
MESSAGES = int(os.environ.get("MESSAGES", 150_000))
SIZE = int(os.environ.get("SIZE", 1_024))
A_MESSAGE = 100             # octets of memory for one that waits on disk, at most
# Besides those: the program itself, what is in memory by the settings, and what is on its way to disk.
FIXED = 160 * MIB
QUEUE = "backlog"


def peak_of(broker: BrokerProcess) -> int:
    """The most memory it has had, in octets."""
    with open(f"/proc/{broker.pid}/status") as status:
        return next(int(line.split()[1]) * 1_024 for line in status if line.startswith("VmHWM"))


def fill(broker: BrokerProcess) -> list[float]:
    """Fill the queue; messages a second, by tenths."""
    with MassClient(broker.port, SIZE) as client:
        client.call(Queue.Declare(queue=QUEUE, durable=True))
        client.call(Confirm.Select())
        tenth = MESSAGES // 10
        return [tenth / client.pour(QUEUE, part * tenth, (part + 1) * tenth) for part in range(10)]


@pytest.mark.timeout(120 + MESSAGES // 2_000)
def test_a_backlog_costs_little_memory_and_comes_back_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    amount = MESSAGES // 10 * 10
    with BrokerProcess(tmp_path / "data", log).wait_until_ready() as broker:
        rates = fill(broker)
        filled = peak_of(broker)
        broker.kill()
    with BrokerProcess(tmp_path / "data", log).wait_until_ready() as broker:
        start_s, started = broker.start_s, peak_of(broker)
        with MassClient(broker.port, SIZE) as client:
            drain_s = client.drain(QUEUE, amount)
            assert client.call(Queue.Declare(queue=QUEUE, passive=True)).message_count == 0
        drained = peak_of(broker)
        assert broker.stop() == 0
    print(
        f"{amount:,} x {SIZE} octets: filled at {amount / sum([amount / 10 / rate for rate in rates]):,.0f}/s, first "
        f"tenth {rates[0]:,.0f}/s, last {rates[-1]:,.0f}/s ({rates[-1] / rates[0]:.2f}), peak {filled / MIB:.0f} MiB; "
        f"ready {start_s:.1f} s after kill -9 with {started / MIB:.0f} MiB; drained in order at "
        f"{amount / drain_s:,.0f}/s, peak {drained / MIB:.0f} MiB")
    assert max(filled, drained) < FIXED + A_MESSAGE * amount
    assert not log.read_bytes()


@pytest.mark.timeout(120 + MESSAGES // 2_000)
def test_a_broker_that_keeps_all_in_memory_is_caught(tmp_path: Path) -> None:
    variables = {"AMQPD_LIMITS_MESSAGE_MEMORY": str(1 << 40)}
    with BrokerProcess(tmp_path / "data", tmp_path / "log", variables=variables).wait_until_ready() as broker:
        fill(broker)
        assert peak_of(broker) > FIXED + A_MESSAGE * MESSAGES
