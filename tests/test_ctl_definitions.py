"""amqpctl export_definitions and import_definitions, on the control socket of a broker in another thread."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqpd import ctl
from amqpd.broker.broker import Broker
from amqpd.ctl.definitions import MOST_BYTES, write_private
from amqpd.identity import CONTROL_SOCKET
from amqpd.management.definitions_json import parsing
from tests.support.control_sockets import broker_in_thread

SAMPLE = Path(__file__).parent / "management" / "definitions" / "rabbitmq-3.10.8.json"


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker whose control socket is in the data directory that amqpctl looks into."""
    monkeypatch.setenv("AMQPD_DATA_DIR", str(tmp_path))
    with broker_in_thread(tmp_path) as (made, _):
        yield made


def test_what_was_imported_is_exported_to_a_file_of_the_owner(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "definitions.json"
    file.write_text("old")
    file.chmod(0o644)
    assert ctl.main(["import_definitions", str(SAMPLE)]) == 0
    assert ctl.main(["export_definitions", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.out == (
        f'Importing definitions in JSON from a file at "{SAMPLE}" ...\nSuccessfully imported 37 definitions\n'
        f'Exporting definitions in JSON to a file at "{file}" ...\n')
    assert "amqpctl: warning: $.queues[2]: amqpd has no streams; kept for the next export\n" in shown.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "till.1" in [queue["name"] for queue in json.loads(file.read_text())["queues"]]
    assert sorted(tmp_path.iterdir()) == [tmp_path / CONTROL_SOCKET, file]


def test_a_dash_is_stdin_and_stdout(
    broker: Broker, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["-"], []):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"vhosts": [{"name": "shop"}]}')))
        assert ctl.main(["import_definitions", *arguments]) == 0
        assert capsysbinary.readouterr().out == (
            b"Importing definitions in JSON from standard input ...\nSuccessfully imported 1 definition\n")
    assert ctl.main(["export_definitions", "-"]) == 0
    assert [vhost["name"] for vhost in json.loads(capsysbinary.readouterr().out)["vhosts"]] == ["/", "shop"]


def test_a_vhost_is_exported_and_imported_if_it_is_named(
    broker: Broker, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert ctl.main(["-q", "import_definitions", str(SAMPLE)]) == 0
    assert ctl.main(["-q", "export_definitions", "-p", "shop", str(tmp_path / "shop.json")]) == 0
    assert ctl.main(["-q", "-p", "/", "import_definitions", str(tmp_path / "shop.json")]) == 0
    assert {"receipts", "till.1"} <= broker.vhosts["/"].queues.keys()
    assert ctl.main(["export_definitions", "-p", "nope", "-"]) == 65
    assert capsysbinary.readouterr().err.splitlines()[-1] == b"amqpctl: Virtual host 'nope' does not exist"


def test_every_problem_of_a_file_is_a_line(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.json"
    file.write_text('{"vhosts": [{}], "queues": [{"name": "q", "vhost": "nope"}]}')
    assert ctl.main(["import_definitions", str(file)]) == 65
    assert capsys.readouterr().err == (
        "amqpctl: $.vhosts[0]: has no name\n"
        "amqpctl: $.queues[0].vhost: there is no vhost 'nope', neither in the file nor in the broker\n")


def test_an_unchanged_file_is_skipped(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    for said in ("Successfully imported 37 definitions", "The file is unchanged: nothing was imported"):
        assert ctl.main(["import_definitions", "--skip-if-unchanged", str(SAMPLE)]) == 0
        assert capsys.readouterr().out.endswith(f"{said}\n")


@pytest.mark.parametrize("arguments, said", [
    (["import_definitions", "/nonexistent"], "Bad argument: File /nonexistent does not exist"),
    (["import_definitions", "--format", "erlang", "-"], "Bad argument: Format should be json"),
    (["export_definitions", "/nonexistent/file"], "Bad argument: Directory /nonexistent does not exist"),
    (["export_definitions", "-", "--format", "xml"], "Bad argument: Format should be json"),
])
def test_what_rabbitmqctl_refuses_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(arguments) == 65
    assert capsys.readouterr().err == f"amqpctl: {said}\n"


def test_a_file_that_is_too_large_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert MOST_BYTES == parsing.MOST_BYTES
    file = tmp_path / "large.json"
    with file.open("wb") as large:
        large.truncate(MOST_BYTES + 1)
    assert ctl.main(["import_definitions", str(file)]) == 65
    assert capsys.readouterr().err == f"amqpctl: {file}: larger than 20 MiB; import it in parts\n"


def test_a_directory_cannot_be_read_or_written(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert ctl.main(["-q", "import_definitions", str(folder)]) == 74
    assert ctl.main(["-q", "export_definitions", str(folder)]) == 74
    assert capsys.readouterr().err == (
        f"amqpctl: {folder}: cannot be read: Is a directory\namqpctl: {folder}: cannot be written: Is a directory\n")


def test_an_export_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.json").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError):
        write_private(tmp_path / "old.json", b"new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
