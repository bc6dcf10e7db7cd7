"""The doctor: what is wrong with a broker or its machine is found, and each finding has a remedy."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpd import cli
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import hash_known_password
from amqpd.config import Config, Limits, Listener
from amqpd.server import machine_checks
from amqpd.server.doctor import examine_running
from amqpd.server.machine_checks import (
    Finding,
    check_clock,
    check_descriptors,
    check_disk,
    check_file_system,
    check_memory,
    check_permissions,
    check_swap,
    holder_of,
)
from tests.store.kept_store import keep, page_of, spoil

Doctor = Callable[..., tuple[int, list[dict[str, str]]]]
STATUS: dict[str, Any] = {
    "alarms": [], "tls_certificates": [],
    "listeners": [{"interface": "127.0.0.1", "port": port, "protocol": protocol}
                  for port, protocol in ((5672, "amqp"), (15672, "http"), (15692, "http/prometheus"))],
    "file_descriptors": {"total_used": 10, "total_limit": 1_000}, "vm_memory_high_watermark_limit": 1 << 30,
    "durability": "power"}


def levels(findings: list[Finding]) -> dict[str, str]:
    """The worst level of each check."""
    worst: dict[str, str] = {}
    for one in findings:
        assert one.remedy or one.level == "ok", f"{one} has no remedy"
        if worst.get(one.check) in (None, "ok") or one.level == "problem":
            worst[one.check] = one.level
    return worst


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """`amqpd doctor --json`: the exit code and the findings."""
    monkeypatch.setenv("AMQPD_LISTENERS", "127.0.0.1:0")
    monkeypatch.setenv("AMQPD_MANAGEMENT_LISTENERS", "127.0.0.1:0")
    monkeypatch.setenv("AMQPD_MANAGEMENT_METRICS_LISTENERS", "127.0.0.1:0")

    def examine(*arguments: str) -> tuple[int, list[dict[str, str]]]:
        code = cli.main(["doctor", "--json", "--data-dir", str(tmp_path / "data"), *arguments])
        return code, json.loads(capsys.readouterr().out)

    return examine


def of(found: list[dict[str, str]], check: str) -> list[tuple[str, str]]:
    """Level and text of the findings of a check."""
    return [(one["level"], one["text"]) for one in found if one["check"] == check]


# Before a start

def test_nothing_is_wrong_with_an_empty_directory_and_nothing_is_made_there(doctor: Doctor, tmp_path: Path) -> None:
    code, found = doctor()
    assert code == 0 and not [one for one in found if one["level"] == "problem"]
    assert {one["check"] for one in found} >= {
        "configuration", "ports", "disk", "permissions", "store", "descriptors", "memory", "clock", "durability"}
    assert not (tmp_path / "data").exists()


def test_the_configuration_is_checked_first(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "amqpd.toml"
    file.write_text("[limits]\nheartbeat = 5\n")
    code, found = doctor("--config", str(file))
    assert code == 69 and "heartbeat" in of(found, "configuration")[0][1]
    file.write_text('[[queues]]\nname = "q"\narguments = { "x-max-length" = -1 }\n')
    code, found = doctor("--config", str(file))
    assert code == 69 and of(found, "configuration")[0][0] == "problem" and of(found, "disk")


def test_a_port_that_is_in_use_is_told_with_who_has_it(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert holder_of(port).startswith(f"process {os.getpid()} (")
        monkeypatch.setenv("AMQPD_LISTENERS", f"127.0.0.1:{port}")
        code, found = doctor()
    assert code == 69
    (level, text), *_ = of(found, "ports")
    assert level == "problem" and f"Address already in use by process {os.getpid()}" in text


def test_the_store_is_looked_at_and_damage_is_a_problem(doctor: Doctor, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    keep(data, in_blocks=False)
    code, found = doctor()
    assert (code, of(found, "store")) == (0, [("ok", f"{data / 'amqpd.db'}: its pages are sound")])
    spoil(data, page_of(data, "message_rows"))
    code, found = doctor()
    assert code == 69 and of(found, "store")[0][0] == "problem"


def test_what_others_may_read_is_told(doctor: Doctor, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "amqpd.toml"
    data.mkdir(mode=0o755)
    file.write_text('default_user = "till"\ndefault_password = "secret"\n')
    file.chmod(0o644)
    code, found = doctor("--config", str(file))
    assert code == 0
    assert of(found, "permissions") == [
        ("warning", f"other users may use {data} (mode 755)"), ("warning", f"other users may use {file} (mode 644)")]
    data.chmod(0o700)
    file.chmod(0o600)
    assert [level for level, _ in of(doctor("--config", str(file))[1], "permissions")] == ["ok"]


def test_findings_are_text_with_the_worst_first(
    doctor: Doctor, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    assert cli.main(["doctor", "--data-dir", str(tmp_path / "data")]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"warning  permissions: other users may use {tmp_path / 'data'} (mode 755)")
    assert lines[at + 1] == f"         remedy: chmod go= {tmp_path / 'data'}"
    assert lines[-1].startswith("0 problems, ") and lines[-2].startswith("ok ")


# While it runs

def test_a_running_broker_tells_alarms_certificates_files_and_the_clock(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, limits=Limits(ballast_size=0))
    tmp_path.chmod(0o700)
    guest = UserDefinition("guest", *hash_known_password("guest"))
    well = examine_running(config, STATUS, [guest], 0)
    assert "problem" not in levels(well).values()
    exposed, = [one.text for one in well if one.check == "exposure"]
    assert exposed == ("open to this machine: 127.0.0.1:5672, the management API on 127.0.0.1:15672, "
                       "metrics, without a login, on 127.0.0.1:15692; 1 user")
    worse = {
        **STATUS, "alarms": [{"resource": "disk"}], "file_descriptors": {"total_used": 950, "total_limit": 1_000},
        "tls_certificates": [{"setting": "tls.certificate", "file": "a.pem", "days_left": -1}],
        "vm_memory_high_watermark_limit": 1}
    found = levels(examine_running(config, worse, [guest], 120_000))
    assert {check for check, level in found.items() if level == "problem"} == {
        "alarms", "certificates", "descriptors", "memory"}
    assert found["clock"] == "warning"
    soon = {**STATUS, "tls_certificates": [{"setting": "tls.certificate", "file": "a.pem", "days_left": 5}]}
    assert levels(examine_running(config, soon, [guest], 0))["certificates"] == "warning"


def test_guest_with_the_known_password_on_the_network_is_told(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, listeners=(Listener("0.0.0.0:5672"),), loopback_users=())
    guest = UserDefinition("guest", *hash_known_password("guest"))
    assert levels(examine_running(config, STATUS, [guest], 0))["exposure"] == "warning"


# The machine

@pytest.mark.parametrize(("line", "level"), [
    ("server:/data {} nfs4 rw 0 0", "warning"),
    ("tmpfs {} tmpfs rw 0 0", "warning"),
    ("overlay {} overlay rw 0 0", "warning"),
    ("/dev/sda1 {} ext4 rw,nobarrier 0 0", "warning"),
    ("/dev/sda1 {} ext4 rw 0 0", "ok"),
])
def test_file_systems_that_cannot_be_believed(tmp_path: Path, line: str, level: str) -> None:
    mounts, place = tmp_path / "mounts", tmp_path / "a place"
    place.mkdir()
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n" + line.format(str(place).replace(" ", "\\040")) + "\n")
    found, = check_file_system(place / "data", is_synced=True, mounts=mounts)
    assert found.level == level
    elsewhere, = check_file_system(tmp_path, is_synced=True, mounts=mounts)
    assert elsewhere.level == "ok"
    assert not [*check_file_system(place, is_synced=True, mounts=tmp_path / "none")]


def test_disk_memory_swap_and_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "free_bytes", lambda path: 150)
    assert [check_disk(tmp_path, limit).level for limit in (70, 100, 200)] == ["ok", "warning", "problem"]
    monkeypatch.setattr(machine_checks, "available_bytes", lambda: 1_000)
    monkeypatch.setattr(machine_checks, "resident_bytes", lambda: 700)
    assert [check_memory(limit, is_running=True).level for limit in (800, 600, 950)] == ["ok", "problem", "warning"]
    status = tmp_path / "status"
    for kilobytes, level in ((0, "ok"), (4_096, "warning")):
        status.write_text(f"VmRSS:\t 99 kB\nVmSwap:\t   {kilobytes} kB\n")
        assert [one.level for one in check_swap(status)] == [level]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_024, 1_024))
    assert check_descriptors(20_000).text == (
        "only 896 connections can be open, since the process may open 1,024 files")
    assert check_descriptors(500).level == "ok"


def test_a_clock_that_cannot_be_right(tmp_path: Path) -> None:
    file = tmp_path / "amqpd.db"
    file.touch()
    now = file.stat().st_mtime
    assert [check_clock(file, when).level for when in (now, now - 3_600, 0.0)] == ["ok", "warning", "problem"]


def test_a_directory_of_another_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert [one.level for one in check_permissions(tmp_path, [])] == ["problem", "warning"]
