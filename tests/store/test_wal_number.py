"""A write-ahead log that is gone after a crash: detected if it was deleted, not if a program wrote it back."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from amqpd.broker.definitions import VhostDefinition
from amqpd.store.errors import StoreError, StoreFull
from amqpd.store.journal import Journal
from amqpd.store.sqlite import wal_number
from amqpd.store.sqlite.store import Store
from amqpd.store.tools import compacting, copies
from amqpd.store.tools.facts import facts
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import tree
from tests.store.store_samples import NOW, crash, define, load, message, query, queue, save

LOG, NOTE = "amqpd.db-wal", "amqpd.log-number"


@pytest.fixture
def crashed(directory: Path, opened, tmp_path: Path) -> Path:
    """A store that was killed, with message 1 in the file, and message 2 in the log."""
    store = opened()
    load(store)
    journal = Journal()
    define(journal, VhostDefinition("/"), queue(1))
    for number in (1, 2):
        journal.published(queue(1), [message(number)])
        save(store, journal)
        if number == 1:
            store.database.checkpoint()
    left = crash(directory, tmp_path / "crashed")
    store.abandon()
    return left


def found_in(store: Store) -> list[int]:
    found = load(store)
    store.check()
    return [one.number for one in found.messages[1]]


def write_back(directory: Path) -> None:
    """Open the store as another program with SQLite does: this writes the log back."""
    query(directory, "SELECT count(*) FROM meta")
    assert not (directory / LOG).exists()


def expect_missed(directory: Path) -> None:
    before = tree(directory)
    with pytest.raises(StoreError) as refusal:
        Store.open(directory, now=NOW)
    assert str(refusal.value) == (
        f"{directory}/{LOG} is missing, and with it what was committed last: put it back, restore a backup, or delete "
        f"{directory}/{NOTE} to go on without")
    assert tree(directory) == before


def test_a_log_that_is_there_is_used(crashed, opened):
    assert found_in(opened(crashed)) == [1, 2]


def test_a_deleted_log_is_missed(crashed):
    (crashed / LOG).unlink()
    expect_missed(crashed)


def test_the_first_log_of_a_store_is_missed_too(directory, tmp_path, opened):
    store = opened()
    load(store)
    left = crash(directory, tmp_path / "crashed")
    (left / LOG).unlink()
    expect_missed(left)


def test_so_is_the_first_log_after_a_clean_stop(directory, tmp_path, opened):
    store = opened()
    load(store)
    store.close({})
    load(opened())
    left = crash(directory, tmp_path / "crashed")
    (left / LOG).unlink()
    expect_missed(left)


def test_putting_it_back_helps(crashed, opened):
    (crashed / LOG).rename(crashed / "elsewhere")
    expect_missed(crashed)
    (crashed / "elsewhere").rename(crashed / LOG)
    assert found_in(opened(crashed)) == [1, 2]


def test_whoever_deletes_the_note_goes_on_without(crashed, opened):
    (crashed / LOG).unlink()
    (crashed / NOTE).unlink()
    assert found_in(opened(crashed)) == [1]


def test_a_log_that_a_tool_wrote_back_is_not_missed(crashed, opened):
    write_back(crashed)
    assert found_in(opened(crashed)) == [1, 2]


def test_nor_one_that_the_last_run_wrote_back_and_its_crash_took_away(directory, opened):
    """A process that can say goodbye to SQLite leaves no log."""
    store = opened()
    load(store)
    store.abandon()
    assert not (directory / LOG).exists() and (directory / NOTE).exists()
    load(opened())


def test_a_backup_in_the_place_of_a_crashed_store_is_not_held_against_its_note(crashed, tmp_path, opened):
    copies.backup(crashed, tmp_path / "backup")
    (crashed / LOG).unlink()
    shutil.copy(tmp_path / "backup" / "amqpd.db", crashed / "amqpd.db")
    assert found_in(opened(crashed)) == [1, 2]


def test_nor_is_an_older_store(crashed, opened):
    (crashed / LOG).unlink()
    query(crashed, "DELETE FROM meta WHERE key = 'wal_number'")
    assert found_in(opened(crashed)) == [1]


@pytest.mark.parametrize("octets", [b"", bytes(30), b"00000000000000000002 00000000\n", b"\xff" * 30])
def test_of_a_note_that_cannot_be_read_nothing_follows(crashed, opened, octets):
    (crashed / NOTE).write_bytes(octets)
    (crashed / LOG).unlink()
    assert found_in(opened(crashed)) == [1]


def test_a_clean_stop_leaves_no_note(directory, opened):
    store = opened()
    load(store)
    assert (directory / NOTE).exists()
    store.close({})
    assert sorted(path.name for path in directory.iterdir()) == ["amqpd.db", "amqpd.lock"]


def test_a_start_that_is_refused_after_a_crash_leaves_the_note(crashed, opened):
    write_back(crashed)
    with closing(sqlite3.connect(crashed / "amqpd.db")) as tool:
        tool.execute("UPDATE meta SET value = 'x' WHERE key = 'epoch'")
        tool.commit()
    before = tree(crashed)
    with pytest.raises(StoreError, match="no epoch"):
        opened(crashed)
    assert tree(crashed) == before


# Tools

def test_facts_tell_whether_the_log_is_missing(crashed):
    assert not facts(crashed).misses_wal
    (crashed / LOG).unlink()
    assert facts(crashed).misses_wal
    (crashed / NOTE).unlink()
    assert not facts(crashed).misses_wal


def test_a_store_without_its_log_is_not_copied_or_compacted(crashed, tmp_path):
    (crashed / LOG).unlink()
    before = tree(crashed)
    for tool in (lambda: copies.backup(crashed, tmp_path / "backup"), lambda: compacting.compact(crashed)):
        with pytest.raises(StoreError, match="-wal is missing"):
            tool()
    assert tree(crashed) == before and not (tmp_path / "backup").exists()


def test_what_is_in_the_file_can_be_salvaged(crashed, tmp_path):
    (crashed / LOG).unlink()
    assert salvage(crashed, tmp_path / "saved", NOW).saved["messages"] == 1


# Noting

def test_a_full_disk_is_met_before_the_first_commit(directory, opened, monkeypatch):
    monkeypatch.setattr(wal_number, "prepare", fail_with(errno.ENOSPC))
    with pytest.raises(StoreFull, match=f"no space left for {directory}/amqpd.db: free some on its disk"):
        load(opened())


def test_a_commit_that_cannot_be_noted_for_want_of_room_is_safe_and_the_next_is_noted(
    directory, tmp_path, opened, monkeypatch
):
    store, journal = opened(), Journal()
    with monkeypatch.context() as patch:
        patch.setattr(wal_number, "note", fail_with(errno.ENOSPC))
        load(store)
        define(journal, queue(1))
        save(store, journal)
        assert int((directory / NOTE).read_bytes().strip(b"\0") or 0) == 0
    journal.published(queue(1), [message(1)])
    save(store, journal)
    left = crash(directory, tmp_path / "crashed")
    (left / LOG).unlink()
    expect_missed(left)


def test_a_note_that_fails_otherwise_is_the_end(opened, monkeypatch):
    store = opened()
    monkeypatch.setattr(wal_number, "note", fail_with(errno.EIO))
    with pytest.raises(StoreError, match="Input/output error"):
        load(store)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="Input/output error"):
        store.shrink()


def fail_with(code: int):
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_to_reserve_space_for_the_note_leaves_one_that_is_there(tmp_path: Path) -> None:
    database = tmp_path / "amqpd.db"
    wal_number.note(database, 77)
    noted = wal_number.note_beside(database).read_bytes()
    wal_number.prepare(database)
    assert wal_number.note_beside(database).read_bytes() == noted
