"""`amqpd store …`: what the commands print and leave untouched, and backups of a broker under load."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pika
import pytest

from amqpd import cli, program, store_commands
from amqpd.broker.definitions import VhostDefinition
from amqpd.store.sqlite import wal_number
from amqpd.store.journal import Journal
from amqpd.store.sqlite.store import LARGEST_LOG, Store
from tests.crash.broker_process import COMMAND, ROOT, SABOTAGED, BrokerProcess
from tests.store.store_samples import NOW, define, load, message, query, queue

LARGE = 33      # messages of a mebibyte: the log has just been written back, and holds what comes then
PERSISTENT = pika.BasicProperties(delivery_mode=2)


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
        "store": "amqpd-data/amqpd.db", "state": "stopped cleanly", "format": "3",
        "file": "0.1 MiB, 0.0 MiB of it free", "log": "0.0 MiB", "durability": "power", "vhosts": "1", "users": "0",
        "policies": "0", "exchanges": "0", "queues": "1", "bindings": "0", "messages": "2", "damaged": "0"}
    assert tree(data_dir) == before


def test_a_missing_log_is_told_by_info_and_check(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (number,), = query(data_dir, "SELECT value FROM meta WHERE key = 'logs'")
    wal_number.note(data_dir / "amqpd.db", number + 1)
    assert run("info", "--data-dir", data_dir) == 0
    assert "state:      its log is missing: 'amqpd store check' says what to do\n" in capsys.readouterr().out
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

    def ask(settings: object, command: str, arguments: dict[str, str], *_: object) -> dict[str, int]:
        if command == "backup_store":
            raise program.Failure(f"no space left for {arguments['to']}: free some on its disk", 74)
        return {"octets": 1}

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
        "saved: saved vhosts 1, users 0, permissions 0, policies 0, exchanges 0, queues 1, bindings 0, messages 2\n"
        "lost: messages 0, damaged ones set aside 0, definitions 0; places that cannot be read 0\n", "")
    assert tree(data_dir) == before
    for directory in ("copy", "again", "saved"):
        assert query(Path(directory), "SELECT vhost, queue, text FROM messages") == [("/", "queue-1", "hello")] * 2


def test_compact_says_what_it_has_won(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query(data_dir, "CREATE TABLE ballast AS SELECT zeroblob(3000000)")
    query(data_dir, "DROP TABLE ballast")
    assert run("compact") == 0
    assert capsys.readouterr() == ("amqpd-data: 3.0 MiB before, 0.1 MiB now\n", "")


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
    "restore": "left as it is", "salvage": "left as it is", "compact": "left as it was",
}.items())
def test_help_says_what_is_left_untouched(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert said in " ".join(capsys.readouterr().out.split())


# A running broker

class Load:
    """Publishers with confirms and consumers, one of which never answers, until they are told to stop."""

    def __init__(self, port: int, log: Path) -> None:
        self._log = log
        self.largest_log = 0
        self._parameters = pika.ConnectionParameters("127.0.0.1", port)
        self._stop = threading.Event()
        self.confirmed: list[str] = []
        self.published: set[str] = set()
        self.delivered: list[str] = []
        self.slowest_s = 0.0
        with pika.BlockingConnection(self._parameters) as connection:
            channel = connection.channel()
            channel.exchange_declare("both", "fanout", durable=True)
            for name in ("first", "second"):
                channel.queue_declare(name, durable=True)
                channel.queue_bind(name, "both")
            channel.queue_declare("drained", durable=True)
            channel.confirm_delivery()
            for number in range(2, 3 * LARGE, 3):       # so that a backup takes a while
                body = f"large-{number}-".ljust(1 << 20, "x")
                channel.basic_publish("", "first", body, PERSISTENT)
                self.confirmed.append(body)
                self.published.add(body)
        self._threads = [threading.Thread(target=self._publish, args=(name,)) for name in "abc"]
        self._threads.append(threading.Thread(target=self._consume))
        for thread in self._threads:
            thread.start()

    def _publish(self, name: str) -> None:
        with pika.BlockingConnection(self._parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            number = 0
            while not self._stop.is_set():
                number += 1
                body = f"{name}-{number}-".ljust(2_000, "x")
                exchange, key = [("both", ""), ("", "drained"), ("", "first")][number % 3]
                began = time.monotonic()
                self.published.add(body)
                channel.basic_publish(exchange, key, body, PERSISTENT)
                self.confirmed.append(body)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _consume(self) -> None:
        with pika.BlockingConnection(self._parameters) as connection:
            connection.channel().basic_get("first")     # and is never answered
            channel = connection.channel()
            while not self._stop.is_set():
                method, _, body = channel.basic_get("drained")
                if method is not None:
                    self.delivered.append(body.decode())
                    channel.basic_ack(method.delivery_tag)

    def wait_for(self, count: int) -> None:
        """Return when so many have been confirmed."""
        limit = time.monotonic() + 30
        while len(self.confirmed) < count:
            assert time.monotonic() < limit and all(thread.is_alive() for thread in self._threads)
            self.largest_log = max(self.largest_log, self._log.stat().st_size)
            self._stop.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def amqpd(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "store", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=50)


def drain(port: int) -> dict[str, list[tuple[str, bool]]]:
    """Body and `redelivered` of all messages, by queue."""
    found: dict[str, list[tuple[str, bool]]] = {}
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        channel = connection.channel()
        for name in ("first", "second", "drained"):
            found[name] = []
            while (answer := channel.basic_get(name, auto_ack=True))[0] is not None:
                found[name].append((answer[2].decode(), answer[0].redelivered))
    return found


def back_up_under_load(tmp_path: Path, command: tuple[str, ...]) -> tuple[Load, list[str]]:
    """Make `backup` of a broker that is busy; the load, which has ended, and what was confirmed before."""
    with BrokerProcess(tmp_path / "data", tmp_path / "log", command=command).wait_until_ready() as broker:
        load = Load(broker.port, tmp_path / "data" / "amqpd.db-wal")
        try:
            load.wait_for(600)
            before = [*load.confirmed]
            load.slowest_s = 0.0
            done = amqpd("backup", "--data-dir", tmp_path / "data", tmp_path / "backup")
            slowest_s = load.slowest_s
            load.wait_for(len(load.confirmed) + 10)
        finally:
            load.stop()
        assert done.returncode == 0, done.stderr
        assert broker.stop() == 0
    load.slowest_s = slowest_s
    return load, before


def expect_whole(found: dict[str, list[tuple[str, bool]]], load: Load, before: list[str]) -> None:
    """See that what was confirmed before the backup, and went to nobody, is in it once."""
    queues = {"1": ("drained",), "2": ("first",), "0": ("first", "second")}
    for name, messages in found.items():
        counts = Counter(body for body, _ in messages)
        assert max(counts.values(), default=1) == 1, "a message is there twice"
        assert counts.keys() <= load.published
        missing = [
            body for body in before if name in queues[str(int(body.split("-")[1]) % 3)]
            and body not in counts and body not in load.delivered]
        assert not missing, f"{len(missing)} confirmed messages are not in the backup"
        assert all(redelivered for _, redelivered in messages)


def test_a_backup_under_load_has_all_that_was_confirmed_before(tmp_path: Path) -> None:
    load, before = back_up_under_load(tmp_path, COMMAND)
    restored = amqpd("restore", "--data-dir", tmp_path / "elsewhere", tmp_path / "backup")
    assert restored.returncode == 0, restored.stderr
    with BrokerProcess(tmp_path / "elsewhere", tmp_path / "log").wait_until_ready() as broker:
        found = drain(broker.port)
        expect_whole(found, load, before)
        assert broker.stop() == 0
    assert 0 < load.largest_log <= LARGEST_LOG + (2 << 20)
    print(f"\n{len(before)} confirmed before the backup, {len(load.confirmed)} in all, {sum(map(len, found.values()))} "
          f"messages restored, lost 0; the slowest confirm meanwhile took {load.slowest_s * 1000:.0f} ms")


def test_a_backup_without_the_log_would_be_caught(tmp_path: Path) -> None:
    """Teeth of the test above."""
    load, before = back_up_under_load(tmp_path, (*SABOTAGED, "backup_without_log"))
    with BrokerProcess(tmp_path / "backup", tmp_path / "log").wait_until_ready() as broker:
        with pytest.raises((AssertionError, pika.exceptions.ChannelClosedByBroker)):
            expect_whole(drain(broker.port), load, before)


def test_a_running_brokers_store_is_told_of_and_otherwise_left_alone(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data", tmp_path / "log").wait_until_ready() as broker:
        told = amqpd("info", "--data-dir", tmp_path / "data")
        assert "state:      in use by a running broker\n" in told.stdout
        assert "durability: power\n" in told.stdout
        for command in (("check",), ("compact",), ("salvage", tmp_path / "new"), ("restore", tmp_path / "data")):
            refused = amqpd(*command, "--data-dir", tmp_path / "data")
            assert refused.returncode == 75, refused
            assert refused.stderr.count("\n") == 1 and "is held by a running broker" in refused.stderr
        again = amqpd("backup", "--data-dir", tmp_path / "data", tmp_path / "data")
        assert again.returncode == 74 and "is there already" in again.stderr
        assert broker.stop() == 0
    assert not (tmp_path / "new").exists()
