"""Whole runs of amqpperf against a broker in a thread of the test."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from msgspec.structs import replace
from pamqp.commands import Queue

from amqpd.config import Tls
from amqpd.config.settings import File
from amqpd.perf.address import Address, read_url
from amqpd.perf.client import Client, method_of
from amqpd.perf.commands import main
from amqpd.perf.coordinator import Run
from amqpd.perf.plan import Plan
from amqpd.perf.topology import Topology
from amqpd.server.runtime import Runtime
from tests.support.api import FREE, running


class Broker:
    """Where a broker of another thread is, and which queues it has."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.port = runtime.addresses[0][1]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def queues(self) -> list[str]:
        """Return the names of its queues."""
        assert self.runtime._listeners is not None
        return [*self.runtime._listeners._broker.vhosts["/"].queues]


CA = trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("tls")
    server = CA.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    CA.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = Tls(listeners=(FREE,), certificate=File(str(folder / "server.pem")),
              key=File(str(folder / "server.pem")), ca=File(str(folder / "ca.pem")))
    with running(tls=tls) as api:
        yield Broker(api.runtime)


def result_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Return the summary of a run that must come to its end."""
    assert main([*arguments, "--json", "-"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def plan(broker: Broker, **changes: Any) -> Plan:
    plan = Plan(
        address=read_url(broker.url), workload="throughput", run_id="abcd", producers=1, consumers=1,
        queues=("q.abcd",), exchange="", keys=("q.abcd",), size=12, rate=1_000.0, count=0, is_persistent=False,
        is_mandatory=False, priority=None, confirm=0, prefetch=10, ack_every=1, queue_arguments={}, is_durable=False)
    return replace(plan, **changes)


def run_of(plan: Plan, show: Callable[[str], object]) -> Run:
    return Run(plan, Topology(plan, "", None, False), 1, 0.0, show, live_s=0.05)


def test_each_message_is_confirmed_delivered_and_acked_and_nothing_is_left(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result_of(
        capsys, broker.url, "-x", "2", "-y", "2", "--queues", "3", "--processes", "2", "-C", "900", "--confirm", "50",
        "--persistent", "-s", "100", "-A", "7", "-q", "20")
    numbers = [found[name] for name in ("published", "confirmed", "delivered", "acked")]
    assert numbers == [1800] * 4
    assert found["latency_ms"]["count"] == found["confirm_latency_ms"]["count"] == 1800
    assert found["latency_ms"]["min"] <= found["latency_ms"]["p50"] <= found["latency_ms"]["max"]
    assert (found["ended"], found["failure"], found["left_behind"], found["refused"]) == ("count", "", [], 0)
    assert found["delivered_per_second"] > 0 and found["broker"]["product"] == "RabbitMQ"
    assert not broker.queues()


def test_an_exchange_copies_to_each_queue_and_is_deleted_at_the_end(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result_of(
        capsys, broker.url, "-t", "fanout", "--queues", "2", "-y", "2", "-C", "100", "--auto-ack", "-s", "0")
    assert (found["published"], found["delivered"], found["latency_ms"]) == (100, 200, {})
    assert "acked" not in found
    assert runtime_exchanges(broker) == runtime_exchanges(broker, predeclared=True)


def runtime_exchanges(broker: Broker, *, predeclared: bool = False) -> set[str]:
    assert broker.runtime._listeners is not None
    names = set(broker.runtime._listeners._broker.vhosts["/"].exchanges)
    return {name for name in names if not name or name.startswith("amq.")} if predeclared else names


@pytest.mark.parametrize("churned", ["connections", "channels", "queues"])
def test_churn_counts_what_was_opened_and_closed(
    broker: Broker, capsys: pytest.CaptureFixture[str], churned: str
) -> None:
    found = result_of(capsys, broker.url, "--workload", f"churn-{churned}", "-x", "2", "-C", "20")
    assert (found["operations"], found["latency_ms"]["count"], found["ended"]) == (40, 40, "count")
    assert not broker.queues()


def test_over_tls_with_a_certificate_that_is_verified(
    broker: Broker, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    port = broker.runtime.tls_addresses[0][1]
    found = result_of(
        capsys, f"amqps://localhost:{port}", "--ca", str(tmp_path / "ca.pem"), "-C", "50", "-s", "30000", "-c", "10")
    assert (found["delivered"], found["acked"], found["broker"]["tls"]) == (50, 50, True)
    assert main([f"amqps://localhost:{port}", "-C", "1"]) == 69
    assert "--ca FILE" in capsys.readouterr().err


def test_a_signal_ends_a_run_with_its_summary(broker: Broker) -> None:
    lines: list[str] = []

    def show(line: str) -> None:
        if not lines and "published 0/s" not in line:
            os.kill(os.getpid(), signal.SIGINT)
            lines.append(line)

    handler = signal.getsignal(signal.SIGINT)
    run = run_of(plan(broker, confirm=5), show)
    summary = run.run()
    assert "published" in lines[0] and "confirm" in lines[0]
    assert summary.how_it_ended == "interrupted" and run.failure is None
    assert 0 < summary.counts.published == summary.counts.confirmed == summary.counts.delivered == summary.counts.acked
    assert "interrupted" in summary.as_text() and not broker.queues()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_queue_that_was_there_is_used_and_stays(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    with_queue(broker, "mine")
    found = result_of(capsys, broker.url, "-u", "mine", "-C", "10", "--predeclared", "-y", "0")
    assert found["published"] == 10
    found = result_of(capsys, broker.url, "-u", "mine", "-x", "0", "-z", "0.3")
    assert (found["delivered"], found["ended"]) == (10, "duration")
    assert broker.queues() == ["mine"]
    without_queue(broker, "mine")


def with_queue(broker: Broker, name: str) -> None:
    client = Client(read_url(broker.url), "test")
    client.call(method_of(Queue.Declare, queue=name), Queue.DeclareOk)
    client.close()


def without_queue(broker: Broker, name: str) -> None:
    client = Client(read_url(broker.url), "test")
    client.call(method_of(Queue.Delete, queue=name), Queue.DeleteOk)
    client.close()


def test_what_the_broker_ends_has_a_summary_and_a_line_with_the_reason(broker: Broker) -> None:
    def show(line: str) -> None:
        if "q.abcd" in broker.queues():
            without_queue(broker, "q.abcd")

    run = run_of(plan(broker), show)
    summary = run.run()
    assert summary.how_it_ended == "failed" and summary.counts.published > 0 and not summary.left_behind
    assert run.failure is not None and run.failure.exit_code == 69
    assert "cancelled a consumer" in run.failure.text


def test_returns_and_refusals_are_counted(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    found = result_of(
        capsys, broker.url, "-C", "20", "-y", "0", "-k", "nowhere", "--mandatory", "-c", "100")
    assert (found["published"], found["returned"], found["confirmed"], found["refused"]) == (20, 20, 20, 0)
    found = result_of(
        capsys, broker.url, "-C", "20", "-y", "0", "-c", "100",
        "--queue-args", "x-max-length=5,x-overflow=reject-publish")
    assert (found["published"], found["confirmed"], found["refused"]) == (20, 5, 15)


@pytest.mark.parametrize("url, words, exit_code", [
    ("amqp://guest:wrong@127.0.0.1:{port}/", "refused the login of user 'guest': ACCESS_REFUSED", 67),
    ("amqp://127.0.0.1:{port}/elsewhere", "has no vhost 'elsewhere'", 67),
    ("amqp://127.0.0.1:{closed}/", "Connection refused; start the broker, or name another address", 69),
    ("ftp://127.0.0.1/", "amqp:// or amqps://", 64),
])
def test_a_run_that_cannot_begin_says_why_in_one_line(
    broker: Broker, capsys: pytest.CaptureFixture[str], url: str, words: str, exit_code: int
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))        # and does not listen
        url = url.format(port=broker.port, closed=bound.getsockname()[1])
        assert main([url, "-C", "1"]) == exit_code
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and not captured.out


@pytest.mark.parametrize("arguments, words", [
    (["-u", "missing", "--predeclared"], "has no queue 'missing' in vhost '/'; declare it"),
    (["-e", "missing"], "has no exchange 'missing' in vhost '/'; declare it, or let --type"),
    (["--predeclared"], "--predeclared needs --queue NAME"),
    (["-q", "5", "-A", "6"], "--multi-ack 6 never comes with --prefetch 5"),
    (["-x", "0", "-y", "0"], "neither producers nor consumers"),
    (["--queue-args", "x-max-length"], "is not NAME=VALUE"),
])
def test_options_that_cannot_work_say_so(
    broker: Broker, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main([broker.url, *arguments, "-C", "1"]) == 64
    assert words in capsys.readouterr().err
    assert not broker.queues()


def test_the_password_is_shown_nowhere(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    address = Address(host="h", port=1, vhost="/", user="u", password="sesame")
    assert "sesame" not in repr(plan(broker, address=address))
    assert main([f"amqp://guest:sesame@127.0.0.1:{broker.port}/", "--json", "-", "-C", "1"]) == 67
    assert "sesame" not in "".join(capsys.readouterr())
