"""The program when its disk fails: nothing more is confirmed, one line, exit code 74."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pamqp.commands import Basic, Confirm, Queue

from tests.crash.broker_process import BrokerProcess
from tests.crash.crash_client import Client, Refused, pack_content

FAILING = str(Path(__file__).with_name("failing_broker.py"))
EXIT_IO = 74
PERSISTENT = Basic.Properties(delivery_mode=2)


def publish_until_it_ends(port: int, most: int = 1_000) -> list[bytes]:
    """Publish messages one after the other, each after the confirm of the last; return the confirmed ones."""
    client, confirmed = Client(port), []
    try:
        client.call(Queue.Declare(0, "orders", durable=True))
        client.call(Confirm.Select())
        for number in range(most):
            client.publish("", "orders", pack_content(PERSISTENT, b"%d" % number)[0])
            arrived = client.take(10)
            assert arrived and isinstance(arrived.method, Basic.Ack)
            confirmed.append(b"%d" % number)
    except (OSError, Refused):
        client.drop()
    return confirmed


@pytest.mark.parametrize("kind, nth", [("sync", 40), ("write", 200)])
def test_a_disk_that_fails_at_work_ends_the_broker_and_loses_nothing(tmp_path: Path, kind: str, nth: int) -> None:
    directory = tmp_path / "data"
    command = (sys.executable, FAILING, str(directory), kind, f"{nth}", "EIO")
    with BrokerProcess(directory, tmp_path / "log", command=command) as process:
        confirmed = publish_until_it_ends(process.wait_until_ready().port)
        assert process.wait() == EXIT_IO
    told, = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("amqpd: ")]
    assert told == f"amqpd: cannot use {directory}/amqpd.db (disk I/O error): check its disk and its permissions"
    assert 0 < len(confirmed) < 1_000
    with BrokerProcess(directory, tmp_path / "log") as process, Client(process.wait_until_ready().port) as client:
        found = []
        while arrived := client.get("orders"):
            found.append(arrived.body)
    assert found[: len(confirmed)] == confirmed and len(found) <= len(confirmed) + 1


def test_a_disk_that_fails_at_the_start_is_told_in_one_line(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    command = (sys.executable, FAILING, str(directory), "sync", "3", "EIO")
    with BrokerProcess(directory, tmp_path / "log", command=command) as process:
        assert process.wait() == EXIT_IO
    assert re.fullmatch(rf"amqpd: cannot use {directory}/amqpd\.db.* \(disk I/O error\): .*\n", (
        tmp_path / "log").read_text())
