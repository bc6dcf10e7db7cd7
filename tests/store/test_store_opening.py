"""Opening a store: owner of directory and file, settings, numbers, formats, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError, StoreLocked
from amqpd.store.journal import Journal
from amqpd.store.sqlite import connecting, schema
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.sqlite.store import Store
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import checked
from tests.store.store_samples import NOW, crash, define, load, message, query, queue, save


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.suffix != ".lock"}


def make_foreign(directory: Path, *statements: str) -> Path:
    directory.mkdir(mode=0o700)
    with closing(sqlite3.connect(directory / "amqpd.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return directory


# The directory

def test_a_missing_directory_is_made_for_its_owner_only(directory, opened):
    opened(directory / "deep" / "er")
    assert mode_of(directory / "deep" / "er") == 0o700


def test_only_the_owner_can_read_the_files(directory, store, journal):
    save(store, journal)
    names = {path.name: mode_of(path) for path in directory.iterdir()}
    assert names == dict.fromkeys(("amqpd.db", "amqpd.db-wal", "amqpd.lock", "amqpd.log-number"), 0o600)


def test_a_directory_that_others_can_write_is_refused(directory, opened):
    directory.mkdir()
    directory.chmod(0o770)
    with pytest.raises(StoreError, match=f"{directory} can be written by other users: chmod"):
        opened()


def test_a_file_in_the_directorys_place_is_refused(directory, opened):
    directory.write_text("")
    with pytest.raises(StoreError, match=f"{directory} is not a directory"):
        opened()


def test_a_directory_that_cannot_be_made_is_refused(directory, opened):
    directory.write_text("")
    with pytest.raises(StoreError, match="cannot make"):
        opened(directory / "below")


def test_a_directory_may_have_any_name(tmp_path, opened, journal):
    odd = tmp_path / "50% of #1? no: ünïcode"
    save(opened(odd), journal)
    assert (odd / "amqpd.db-wal").stat().st_size


# The lock

def test_a_second_broker_is_told_who_holds_the_lock(directory, store):
    with pytest.raises(StoreLocked, match=f"{directory}/amqpd.lock is held .*process {os.getpid()}"):
        Store.open(directory, now=NOW)


def test_the_lock_is_free_again_after_a_clean_stop(store, opened):
    store.close({})
    opened()


def test_the_lock_is_free_again_after_a_refusal(directory, opened):
    (directory / "amqpd.db").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(StoreError, match="is not a file"):
            opened()


def test_a_lock_that_cannot_be_opened_is_an_error_of_its_own(directory, opened):
    (directory / "amqpd.lock").mkdir(parents=True)
    with pytest.raises(StoreError, match="amqpd.lock"):
        opened()


def test_a_database_tool_at_work_keeps_the_broker_out(directory, opened):
    opened().close({})
    with closing(sqlite3.connect(directory / "amqpd.db")) as tool:
        tool.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreLocked, match="is in use by another program"):
            opened(limits=StoreLimits(busy_wait_s=0))


# Settings

@pytest.mark.parametrize("name, value", connecting.SETTINGS)
def test_settings_hold(store, name, value):
    assert store.database.connection.execute(f"PRAGMA {name}").fetchone()[0] == value


def test_confirms_may_be_promised_for_the_process_only(opened):
    store = opened(durability="process")
    load(store)
    assert store.database.connection.execute("PRAGMA synchronous").fetchone() == (1,)
    assert store.info().durability == "process"


def test_a_setting_that_sqlite_does_not_take_is_refused(directory, opened):
    opened().close({})
    with pytest.raises(StoreError, match="refuses journal_mode=wall .* stays off"):
        connecting.connect(directory / "amqpd.db", settings=(("journal_mode", "off"), ("journal_mode", "wall")))


# Numbers

def test_no_run_starts_at_a_number_that_an_earlier_one_may_have_given(directory, tmp_path, opened):
    first = opened()
    load(first)
    killed = opened(crash(directory, tmp_path / "killed"))
    first.close({})
    stopped = opened()
    assert first.first_number < killed.first_number
    assert first.first_number < stopped.first_number
    assert (stopped.first_number - first.first_number) >= 1 << 40


# Formats

def add_colour(db):
    db.table("queue_rows").add_column("colour", str)


def fail(db):
    add_colour(db)
    raise sqlite3.OperationalError("out of paint")


def test_an_older_format_is_brought_up_to_date_and_a_copy_kept(directory, opened, caplog):
    caplog.set_level("INFO")
    opened().close({})
    assert not caplog.messages
    opened(steps=(*schema.STEPS, add_colour)).close({})
    newest = schema.newest_format()
    assert caplog.messages == [
        f"store upgraded from format {newest} to {newest + 1}; the old file is kept as "
        f"{directory}/amqpd.db.format-{newest}"]
    assert query(directory, "PRAGMA user_version") == [(schema.newest_format() + 1,)]
    assert query(directory, "SELECT colour FROM queue_rows") == []
    copy = directory / f"amqpd.db.format-{schema.newest_format()}"
    assert mode_of(copy) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.newest_format(),)


def test_a_step_that_fails_leaves_the_older_format(directory, opened):
    opened().close({})
    for _ in range(2):
        with pytest.raises(StoreError, match="out of paint"):
            opened(steps=(*schema.STEPS, fail))
    assert query(directory, "PRAGMA user_version") == [(schema.newest_format(),)]
    assert "colour" not in query(directory, "SELECT sql FROM sqlite_master WHERE name = 'queue_rows'")[0][0]


def test_a_copy_that_cannot_be_made_stops_the_change_of_format(directory, opened):
    opened().close({})
    (directory / f"amqpd.db.format-{schema.newest_format()}").mkdir()
    with pytest.raises(StoreError, match="cannot make .*amqpd.db.format-"):
        opened(steps=(*schema.STEPS, add_colour))


def test_a_start_that_was_killed_while_the_store_was_made_is_made_good(directory, opened):
    directory.mkdir(mode=0o700)
    for leftover in ("amqpd.db.new", "amqpd.db.new-journal"):
        (directory / leftover).write_bytes(b"half of a page")
    opened()
    assert sorted(path.name for path in directory.iterdir()) == ["amqpd.db", "amqpd.db-wal", "amqpd.lock"]


def test_a_store_that_cannot_be_made_is_an_error(directory, opened):
    (directory / "amqpd.db.new").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot make .*amqpd.db"):
        opened()
    assert not (directory / "amqpd.db").exists()


def test_a_disk_that_is_full_while_the_store_is_made_leaves_none(directory, opened):
    def too_large(db):
        db.execute("PRAGMA max_page_count = 1")
        db.execute("CREATE TABLE more (body BLOB)")

    with pytest.raises(StoreError, match="no space left"):
        opened(steps=(too_large,))
    assert not (directory / "amqpd.db").exists()


def test_opening_an_existing_store_needs_no_sqlite_utils(opened, monkeypatch):
    opened().close({})
    monkeypatch.setitem(sys.modules, "sqlite_utils", None)      # an import would fail
    opened()


# Files that are not ours

@pytest.mark.parametrize("statements, complaint", [
    (["CREATE TABLE theirs (a)"], "belongs to another program"),
    (["PRAGMA application_id = 7"], "belongs to another program"),
    (["PRAGMA journal_mode = WAL", "CREATE TABLE theirs (a)"], "belongs to another program"),
    ([f"PRAGMA application_id = {schema.APPLICATION_ID}", "PRAGMA user_version = 99"], "has format 99"),
    ([f"PRAGMA application_id = {schema.APPLICATION_ID}"], "has format 0"),
])
def test_a_file_we_did_not_write_is_refused_and_left_alone(directory, opened, statements, complaint):
    before = tree(make_foreign(directory, *statements))
    with pytest.raises(StoreError, match=f"{directory}/amqpd.db {complaint}"):
        opened()
    assert tree(directory) == before


@pytest.mark.parametrize("octets, complaint", [
    (b"no database at all, " * 500, "is not an SQLite database"),
    (b"SQLite format 3\0", "is not an SQLite database"),
    (b"", "is empty, it has 0 bytes: restore a backup"),
])
def test_a_file_that_is_no_store_is_refused_and_left_alone(directory, opened, octets, complaint):
    directory.mkdir(mode=0o700)
    (directory / "amqpd.db").write_bytes(octets)
    with pytest.raises(StoreError, match=complaint):
        opened()
    assert tree(directory) == {"amqpd.db": octets}


def test_a_newer_format_that_only_the_log_tells_of_is_refused(directory, tmp_path, opened):
    opened().database.connection.execute("PRAGMA user_version = 99")
    before = tree(crashed := crash(directory, tmp_path / "crash"))
    with pytest.raises(StoreError, match=f"has format 99, this amqpd reads 1 to {schema.newest_format()}"):
        opened(crashed)
    assert tree(crashed) == before


# Damage

def fill(store: Store) -> None:
    journal = Journal()
    define(journal, queue(1))
    journal.published(queue(1), [message(number, bytes(3000)) for number in range(1, 100)])
    save(store, journal)


def spoil(directory: Path) -> None:
    """Overwrite a page in the middle of the file."""
    with (directory / "amqpd.db").open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xa5" * 4096)


def start_and_end(directory: Path) -> None:
    with ExitStack() as undo:
        store = Store.open(directory, now=NOW)
        undo.callback(store.abandon)
        load(store)


def test_damage_is_looked_for(directory, tmp_path, opened):
    store = opened()
    load(store)
    fill(store)
    store.database.checkpoint()
    journal = Journal()
    define(journal, queue(2))       # so that there is a log
    save(store, journal)
    crashed = crash(directory, tmp_path / "crash")
    spoil(crashed)
    before = tree(crashed)
    with pytest.raises(StoreError, match=f"{crashed}/amqpd.db is damaged .*restore a backup"):
        opened(crashed)
    assert tree(crashed) == before


def test_damage_is_looked_for_after_a_clean_stop_too(directory, opened):
    store = opened()
    fill(store)
    store.close({})
    spoil(directory)
    before = tree(directory)
    with pytest.raises(StoreError, match="is damaged"):
        start_and_end(directory)
    assert tree(directory) == before


@pytest.mark.parametrize("change", [
    "DELETE FROM meta WHERE key = 'epoch'",
    "UPDATE meta SET value = 'x' WHERE key = 'epoch'",
    "UPDATE queue_rows SET arguments = '{'",
])
def test_values_that_nobody_wrote_are_damage(directory, opened, change):
    store = opened()
    load(store)
    fill(store)
    store.close({})
    query(directory, change)
    before = tree(directory)
    with pytest.raises(StoreError, match="is damaged .*restore a backup"):
        start_and_end(directory)
    assert tree(directory) == before


@pytest.mark.parametrize("flipped", [1, 2])
def test_a_format_that_is_not_that_of_the_tables_is_damage(directory, opened, flipped):
    """A flipped bit makes it an earlier one, and a step to today's would be taken a second time."""
    opened().close({})
    query(directory, f"PRAGMA user_version = {flipped}")
    before = tree(directory)
    found = f"its header says format {flipped}, its tables are of format {schema.newest_format()}"
    with pytest.raises(StoreError, match=found):
        opened()
    told = f"the header says format {flipped}, the tables are of format {schema.newest_format()}"
    assert checked(directory) == [told]
    assert tree(directory) == before
    assert salvage(directory, directory.with_name("saved"), NOW).gaps == 0


# The audit log

def test_the_audit_log_keeps_the_newest_rows(directory, opened):
    opened().close({})
    rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?) " \
        "INSERT INTO audit_log (at_ms, user, address, door, action, detail) SELECT n, '', '', '', '', '' FROM n"
    query(directory, rows, [schema.AUDIT_ROWS + 5])
    assert query(directory, "SELECT count(*), min(at_ms), max(at_ms) FROM audit_log") == [
        (schema.AUDIT_ROWS, 6, schema.AUDIT_ROWS + 5)]
