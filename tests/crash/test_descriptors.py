"""A broker with a limit of 256 open files: clients use all of them, operators still connect, others work on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from pamqp.commands import Basic, Confirm, Queue

from tests.crash.broker_process import ROOT, BrokerProcess
from tests.crash.crash_client import Client, Refused, pack_content

LIMITED = ("/bin/sh", "-c", 'ulimit -n 256 && exec "$0" -m amqpd "$@"', sys.executable)
AMQPCTL = "import sys; from amqpd.ctl import main; sys.exit(main(sys.argv[1:]))"
PERSISTENT = Basic.Properties(delivery_mode=2)


def amqpctl(data_dir: Path, *arguments: str) -> str:
    """Return the output of amqpctl, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", AMQPCTL, "--data-dir", str(data_dir), *arguments], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_operators_and_those_that_work_go_on_when_clients_have_used_up_the_descriptors(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with BrokerProcess(data_dir, tmp_path / "log", command=LIMITED).wait_until_ready() as broker:
        with contextlib.ExitStack() as stack:
            canary = stack.enter_context(Client(broker.port))
            canary.call(Queue.Declare(0, "orders", durable=True))
            canary.call(Confirm.Select())
            refusals = set()
            for _ in range(130):
                try:
                    stack.callback(Client(broker.port).drop)
                except Refused as refusal:
                    refusals.add(refusal.text)
            assert refusals == {"NOT_ALLOWED - connection refused: node connection limit (128) is reached"}
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", broker.port), timeout=10))
            assert amqpctl(data_dir, "list_queues", "name", "messages").split()[-2:] == ["orders", "0"]
            for number in range(20):
                canary.publish("", "orders", pack_content(PERSISTENT, b"%d" % number)[0])
                assert canary.take(10).method.name == "Basic.Ack"    # type: ignore[union-attr]  # it has come
            amqpctl(data_dir, "status")
        with contextlib.closing(Client(broker.port, timeout_s=30)) as client:
            assert client.call(Queue.Declare(0, "orders", passive=True)).message_count == 20
        assert broker.stop() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
