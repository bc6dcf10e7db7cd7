"""`amqpd store …`: what the commands print and leave untouched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from amqpd import cli, program, store_commands
from amqpd.broker.definitions import VhostDefinition
from amqpd.store.sqlite import wal_number
from amqpd.store.journal import Journal
from amqpd.store.sqlite.store import Store
from tests.store.store_samples import NOW, define, load, message, query, queue


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a stopped store with two messages, in the place where it is looked for."""
    for variable in ("AMQPD_CONFIG_FILE", "AMQPD_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    directory = Path("amqpd-data")
    store = Store.open(directory, now=NOW)
    load(store)
    journal = Journal()
    define(journal, VhostDefinition("/"), queue(1))
    journal.published(queue(1), [message(1), message(2)])
    store.commit(journal.take())
    store.close({})
    return directory


def run(*arguments: object) -> int:
    return cli.main(["store", *map(str, arguments)])


def tree(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix == ".db"}


# What they print

def test_info_tells_what_there_is(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(data_dir)
    assert run("info") == 0
    told = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: value.strip() for name, value in told.items()} == {
        "store": "amqpd-data/amqpd.db", "state": "stopped cleanly", "format": "6",
        "file": "0.2 MiB, 0.0 MiB of it free", "wal": "0.0 MiB", "durability": "power", "vhosts": "1", "users": "0",
        "policies": "0", "exchanges": "0", "queues": "1", "bindings": "0", "messages": "2", "damaged": "0"}
    assert tree(data_dir) == before


def test_a_missing_log_is_told_by_info_and_check(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (number,), = query(data_dir, "SELECT value FROM meta WHERE key = 'wal_number'")
    wal_number.note(data_dir / "amqpd.db", number + 1)
    assert run("info", "--data-dir", data_dir) == 0
    told = capsys.readouterr().out
    assert "state:      its write-ahead log is missing: 'amqpd store check' says what to do\n" in told
    assert run("check", "--data-dir", data_dir) == 74
    assert capsys.readouterr().err == (
        "amqpd: amqpd-data/amqpd.db-wal is missing, and with it what was committed last: put it back, restore a "
        "backup, or delete amqpd-data/amqpd.log-number to go on without\n")


def test_check_says_that_a_store_is_fine(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--data-dir", data_dir) == 0
    assert capsys.readouterr() == ("amqpd-data: fine; messages 2\n", "")


def test_check_tells_each_finding_on_a_line_and_ends_with_65(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query(data_dir, "UPDATE message_rows SET checksum = 0")
    assert run("check") == 65
    told = capsys.readouterr()
    assert told.out == "".join([
        f"queue 'queue-1' in vhost '/', message {number} of 2 (number {number}) does not fit its checksum\n"
        for number in (1, 2)])
    assert told.err == (
        "amqpd: amqpd-data is damaged, 2 problems found; save what can be read with 'amqpd store salvage'\n")


def test_one_problem_is_not_several(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query(data_dir, "UPDATE message_rows SET checksum = 0 WHERE number = 1")
    assert run("check") == 65
    assert ", 1 problem found; " in capsys.readouterr().err


def test_info_tells_a_backup_from_what_ended_otherwise(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backup", "copy") == 0
    assert run("info", "--data-dir", "copy") == 0
    assert "a copy made by 'amqpd store': every message in it counts as delivered before" in capsys.readouterr().out


def test_what_a_running_broker_cannot_write_is_told_by_the_name_that_was_asked_for(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(data_dir, now=NOW)
    (data_dir / store_commands.CONTROL_SOCKET).touch()

    def ask(settings: object, command: str, arguments: dict[str, str], *_: object) -> Any:
        if command == "backup_store":
            assert arguments["to"] == str(Path("copy").absolute())      # which the audit log names
            raise program.Failure(f"no space left for {arguments['unfinished']}: free some on its disk", 74)
        return msgspec.to_builtins(store.info())        # as the control socket does

    monkeypatch.setattr(store_commands, "_ask", ask)
    assert run("backup", "copy") == 74
    store.abandon()
    assert capsys.readouterr().err == "amqpd: no space left for copy/amqpd.db: free some on its disk\n"
    assert not Path("copy").exists()


def test_what_the_system_refuses_is_no_bug_of_ours(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(data_dir.absolute() / "amqpd.db"))

    monkeypatch.setattr("amqpd.store.sqlite.inspection.check_ours", fail)
    assert run("compact") == 74
    assert capsys.readouterr().err == (
        f"amqpd: cannot use {data_dir.absolute()}/amqpd.db (Permission denied): check the permissions of "
        f"{data_dir.absolute()}/amqpd.db\n")


def test_backup_restore_and_salvage_make_stores(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(data_dir)
    assert [run("backup", "copy"), run("restore", "copy", "--data-dir", "again"), run("salvage", "saved")] == [0, 0, 0]
    assert capsys.readouterr() == (
        "copy: fine; messages 2\nagain: restored; messages 2\n"
        "saved: saved vhosts 1, users 0, permissions 0, topic_permissions 0, global_parameters 0, parameters 0, "
        "policies 0, exchanges 0, queues 1, bindings 0, messages 2\n"
        "lost: messages 0, damaged ones set aside 0, definitions 0; places that cannot be read 0\n", "")
    assert tree(data_dir) == before
    for directory in ("copy", "again", "saved"):
        assert query(Path(directory), "SELECT vhost, queue, text FROM messages") == [("/", "queue-1", "hello")] * 2


def test_compact_says_what_it_has_won(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query(data_dir, "CREATE TABLE ballast AS SELECT zeroblob(3000000)")
    query(data_dir, "DROP TABLE ballast")
    assert run("compact") == 0
    assert capsys.readouterr() == ("amqpd-data: 3.0 MiB before, 0.2 MiB now\n", "")


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_damaged_store_is_neither_backed_up_nor_restored(
    data_dir: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    query(data_dir, "UPDATE message_rows SET checksum = 0 WHERE number = 2")
    arguments = ["new"] if command == "backup" else [data_dir, "--data-dir", "new"]
    assert run(command, *arguments) == 65
    assert capsys.readouterr().err.startswith(
        "amqpd: amqpd-data/amqpd.db is damaged (queue 'queue-1' in vhost '/', message 2 of 2 (number 2) does not fit ")
    assert not Path("new", "amqpd.db").exists()


def test_what_is_there_already_is_74_and_wrong_settings_are_78(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("backup", data_dir) == 74
    assert run("check", "--data-dir", "nowhere") == 74
    assert run("check", "--config", "nowhere.toml") == 78
    assert [line.split("; ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "amqpd: amqpd-data is there already: choose another name",
        "amqpd: there is no store in nowhere: name its directory with --data-dir",
        "amqpd: nowhere.toml: cannot be read: No such file or directory"]


def test_another_tool_at_work_is_75(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(data_dir, now=NOW)       # without a control socket
    assert [run("info"), run("check"), run("backup", "copy"), run("compact")] == [75] * 4
    store.abandon()
    assert capsys.readouterr().err.count("is held by") == 4


@pytest.mark.parametrize("arguments, label", [
    (["check"], "checking"), (["backup", "copy"], "copying"), (["salvage", "copy"], "reading"),
    (["restore", "amqpd-data", "--data-dir", "new"], "checking"), (["compact"], "writing"),
])
def test_long_work_shows_progress_on_a_terminal_only(
    data_dir: Path, arguments: list[str], label: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run(*arguments) == 0
    assert label in capsys.readouterr().err


@pytest.mark.parametrize("command, said", {
    "info": "Changes nothing", "check": "Changes nothing", "backup": "Changes nothing in the data directory",
    "restore": "not changed", "salvage": "not changed", "compact": "nothing is changed",
}.items())
def test_help_says_what_is_left_untouched(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert said in " ".join(capsys.readouterr().out.split())
