"""A broker without everything that only Linux has: the alternatives, with real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pamqp.commands import Basic, Confirm, Queue

from tests.crash.broker_process import ROOT, BrokerProcess
from tests.crash.crash_client import Client, pack_content

COMMAND = (sys.executable, str(Path(__file__).with_name("elsewhere.py")))
AMQPCTL = "from amqpd.ctl import main; main()"
BALLAST = 1 << 20


def test_what_was_confirmed_is_there_after_a_kill_and_operators_can_look(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    variables = {"AMQPD_LIMITS_BALLAST_SIZE": str(BALLAST)}
    with BrokerProcess(data, log, command=COMMAND, variables=variables, level="info").wait_until_ready() as broker:
        with Client(broker.port) as client:
            client.call(Queue.Declare(0, "orders", durable=True))
            client.call(Confirm.Select())
            client.publish("", "orders", pack_content(Basic.Properties(delivery_mode=2), b"a")[0])
            arrived = client.take(10.0)
            assert arrived is not None and isinstance(arrived.method, Basic.Ack)
        assert (data / "amqpd.ballast").stat().st_blocks * 512 >= BALLAST
        told = subprocess.run(
            [sys.executable, "-c", AMQPCTL, "--data-dir", str(data), "set_disk_free_limit", "1000"],
            cwd=ROOT, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        assert "the owner of the control socket" in log.read_text()
        broker.kill()
    with BrokerProcess(data, log, command=COMMAND, variables=variables).wait_until_ready() as broker:
        with Client(broker.port) as client:
            found = client.get("orders")
            assert found is not None and found.body == b"a"
        assert broker.stop() == 0
    assert "Traceback" not in log.read_text()
