"""The data directory is deleted, renamed or replaced while the broker runs: it confirms nothing more, and stops.

Otherwise it could run on for days, and everything it confirmed would be lost at the end of the process.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pamqp.commands import Basic, Confirm, Queue

from tests.crash.broker_process import BrokerProcess
from tests.crash.crash_client import Client, Refused, pack_content

EXIT_IO = 74
NOTICED_S = 5.0
CONTENT = pack_content(Basic.Properties(delivery_mode=2), b"an order")[0]
DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": shutil.rmtree,
    "renamed": lambda directory: directory.rename(directory.with_name("elsewhere")),
    "log deleted": lambda directory: (directory / "amqpd.db-wal").unlink(),
}


def confirmed_of(client: Client, count: int) -> int:
    """Publish so many messages, one by one; return how many were confirmed before the broker closed."""
    for number in range(count):
        try:
            client.publish("", "orders", CONTENT)
            arrived = client.take(NOTICED_S)
        except (OSError, Refused):
            return number
        assert arrived and isinstance(arrived.method, Basic.Ack)
    return count


@pytest.mark.parametrize("is_idle", [False, True], ids=["at work", "idle"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_confirmed_into_files_that_are_gone(tmp_path: Path, damage: str, *, is_idle: bool) -> None:
    directory = tmp_path / "data"
    with BrokerProcess(directory, tmp_path / "log") as broker:
        client = Client(broker.wait_until_ready().port)
        client.call(Queue.Declare(0, "orders", durable=True))
        client.call(Confirm.Select())
        assert confirmed_of(client, 50) == 50
        DAMAGE[damage](directory)
        if is_idle:
            with pytest.raises(Refused, match="541 INTERNAL_ERROR - the store has failed"):
                client.take(NOTICED_S)
        else:
            assert confirmed_of(client, 200) == 0
        client.drop()
        assert broker.wait() == EXIT_IO
    told, = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("amqpd: ")]
    assert re.match(rf"amqpd: {directory}/amqpd\.\S+ was deleted, replaced, moved or cut .*: put the files", told)
    assert "Traceback" not in (tmp_path / "log").read_text()
