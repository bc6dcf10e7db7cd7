"""The start of a broker: what it leaves when it fails, what it logs, and the effect of SIGHUP."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pamqp.commands import Basic, Confirm, Queue

from tests.crash.broker_process import ROOT, BrokerProcess
from tests.crash.crash_client import Client, pack_content

EXIT_UNAVAILABLE = 69
TIME = r"\S+ \S+ \[info\] <0\.0\.0> "


def start(folder: Path) -> BrokerProcess:
    return BrokerProcess(folder / "data", folder / "log", level="info")


def test_a_start_on_a_backup_does_not_tell_of_a_crash(tmp_path: Path) -> None:
    with start(tmp_path).wait_until_ready() as broker:
        subprocess.run(
            [sys.executable, "-m", "amqpd", "store", "backup", "--data-dir", tmp_path / "data", tmp_path / "copy"],
            check=True, cwd=ROOT)
        broker.stop()
    for line in (
        "this is a copy made by 'amqpd store', in which every message counts as delivered before: loaded 0 durable",
        "loaded 0 durable",
    ):
        (tmp_path / "log").unlink()
        with BrokerProcess(tmp_path / "copy", tmp_path / "log", level="info").wait_until_ready() as broker:
            broker.stop()
        assert re.search(f"^{TIME}{line}", (tmp_path / "log").read_text(), re.MULTILINE)


def test_a_start_at_an_address_in_use_creates_nothing(tmp_path: Path) -> None:
    with start(tmp_path).wait_until_ready() as first:
        second = BrokerProcess(tmp_path / "other", tmp_path / "log2", listen=f"127.0.0.1:{first.port}")
        assert second.wait() == EXIT_UNAVAILABLE
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("is_killed", "line"), [
    (False, "loaded 1 durable queue and 3 messages"),
    (True, "the last run was not stopped cleanly: recovered 1 durable queue and 3 messages"),
], ids=["stopped", "killed"])
def test_the_log_tells_version_directory_and_what_was_there(is_killed: bool, line: str, tmp_path: Path) -> None:
    with start(tmp_path).wait_until_ready() as broker:
        with Client(broker.port) as client:
            client.call(Queue.Declare(0, "orders", durable=True))
            client.call(Confirm.Select())
            for _ in range(3):
                client.publish("", "orders", pack_content(Basic.Properties(delivery_mode=2), b"body")[0])
                client.take(10.0)
        broker.kill() if is_killed else broker.stop()
    (tmp_path / "log").unlink()
    with start(tmp_path).wait_until_ready() as broker:
        broker.stop()
        log = (tmp_path / "log").read_text()
    for text in (
        r"Starting amqpd \S+ \(behaves as RabbitMQ 3\.10\.8\) on Python \S+",
        f"data directory: {re.escape(str(tmp_path / 'data'))}",
        line + r" in \d+\.\d s",
        rf"started TCP listener on 127\.0\.0\.1:{broker.port}",
        r"Server startup complete in \d+\.\d s",
        "stopping: SIGTERM",
        "stopped",
    ):
        assert re.search(f"^{TIME}{text}$", log, re.MULTILINE), f"{text} is not in {log}"


def test_sighup_to_a_service_has_the_configuration_read_again(tmp_path: Path) -> None:
    file = tmp_path / "amqpd.toml"
    file.write_text("")
    with BrokerProcess(
        tmp_path / "data", tmp_path / "log", level="info", variables={"AMQPD_CONFIG_FILE": str(file)},
    ).wait_until_ready() as broker:
        broker.signal(signal.SIGHUP)
        broker.wait_for_line("[info] <0.0.0> SIGHUP: the configuration has been read again: nothing has changed")
        file.write_text("[limits]\nheartbeat_s = 7\nframe_mx = 1\n")
        broker.signal(signal.SIGHUP)
        broker.wait_for_line("[error] <0.0.0> SIGHUP: the configuration stays as it was: ", "line 3: limits.frame_mx")
        file.write_text('[log]\nformat = "json"\n[limits]\nheartbeat_s = 7\nballast_size = 1\n')
        broker.signal(signal.SIGHUP)
        broker.wait_for_line("limits.heartbeat_s now in effect for new connections; limits.ballast_size in effect at")
        broker.signal(signal.SIGHUP)
        broker.wait_for_line('"msg": "SIGHUP: the configuration has been read again: limits.ballast_size in effect')
        with Client(broker.port) as client:
            assert client.heartbeat_offered == 7
        assert broker.stop() == 0


def test_a_terminal_that_is_closed_stops_the_broker_cleanly(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 2)
        os.chdir(ROOT)
        os.execv(sys.executable, [
            sys.executable, "-m", "amqpd", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")])
    said = b""
    while b"\n" not in said:
        said += os.read(terminal, 4_096)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    log = (tmp_path / "log").read_text()
    assert "stopping: SIGHUP" in log and log.rstrip().endswith("stopped")


def test_nohup_keeps_the_broker_running(tmp_path: Path) -> None:
    with BrokerProcess(
        tmp_path / "data", tmp_path / "log", command=("nohup", sys.executable, "-m", "amqpd"), level="info",
    ).wait_until_ready() as broker:
        broker.signal(signal.SIGHUP)
        assert broker.stop() == 0
    log = (tmp_path / "log").read_text()
    assert "SIGHUP" not in log and "stopping: SIGTERM" in log


def test_a_stop_by_an_operator_is_logged(tmp_path: Path) -> None:
    with start(tmp_path).wait_until_ready() as broker:
        program = "import sys; from amqpd.ctl import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", program, "--data-dir", str(tmp_path / "data"), "stop"],
                       cwd=ROOT, check=True, timeout=30)
        assert broker.wait() == 0
    assert re.search(r"stopping: amqpctl stop, by user \S+", (tmp_path / "log").read_text())
