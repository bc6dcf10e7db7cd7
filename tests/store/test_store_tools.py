"""The tools for a store that no broker has open: info, check, copy, compact; salvage has its own file."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from amqpd.broker.definitions import VhostDefinition
from amqpd.properties import read_own_properties
from amqpd.store.errors import StoreError, StoreFull, StoreLocked
from amqpd.store.journal import Journal
from amqpd.store import files
from amqpd.store.sqlite import connecting
from amqpd.store.tools import checking, compacting, copies, stopped
from amqpd.store.tools.checking import MOST_FINDINGS, findings
from amqpd.store.tools.copies import StoreDamaged
from amqpd.store.tools.facts import facts
from amqpd.store.tools.salvaging import salvage
from amqpd.store.sqlite.schema import newest_format
from amqpd.store.tools.stopped import held, name_in, reading
from tests.store.kept_store import ONE, checked, expect_kept, large_body, page_of, spoil, stop, tree
from tests.store.store_samples import NOW, contents, define, load, message, query, save
from tests.store.test_store_upgrade import FORMATS, definitions_in, make_old, messages_in, places_in

ROWS_AND_BLOCKS = pytest.mark.parametrize("kept", ["rows", "blocks"], indirect=True)


# Facts

@ROWS_AND_BLOCKS
def test_facts_tell_of_a_store_and_leave_it_as_it_was(kept):
    before = tree(kept)
    told = facts(kept)
    assert (told.format, told.was_clean) == (newest_format(), False)
    assert (told.file_bytes, told.wal_bytes) == (len(before["amqpd.db"]), len(before["amqpd.db-wal"]))
    assert told.counts == {
        "vhosts": 1, "users": 0, "policies": 0, "exchanges": 1, "queue_rows": 2, "bindings": 1, "messages": 300,
        "damaged": 0}
    assert tree(kept) == before
    assert facts(stop(kept)).was_clean


@pytest.mark.parametrize("format_", FORMATS)
def test_facts_of_an_earlier_format_are_told_too(directory, format_):
    directory.mkdir()
    told = facts(make_old(directory, format_))
    count = len({number for numbers in places_in(format_).values() for number in numbers})
    assert (told.format, told.counts["messages"], told.counts["damaged"]) == (format_, count, 1)


@pytest.mark.parametrize("ask", [
    facts, lambda directory: held(directory).__enter__(), compacting.compact,
    lambda directory: copies.backup(directory, directory.with_name("target")),
    lambda directory: salvage(directory, directory.with_name("target"), NOW),
])
def test_a_store_that_a_broker_has_open_is_not_touched(directory, store, ask):
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        ask(directory)
    with pytest.raises(StoreError, match="there is no store in .*none: name its directory"):
        ask(directory / "none")
    assert not directory.with_name("target").exists()


# Checking

@ROWS_AND_BLOCKS
def test_a_sound_store_has_no_findings_and_stays_as_it_was(kept):
    before = tree(kept)
    assert checked(kept) == []
    assert tree(kept) == before


@pytest.mark.parametrize("format_", FORMATS)
def test_a_store_of_an_earlier_format_can_be_checked(directory, format_):
    directory.mkdir()
    assert checked(make_old(directory, format_)) == []
    query(directory, f"UPDATE {name_in(format_, 'message_rows')} SET body = x'00' WHERE number = 3")
    assert checked(directory) == [
        f"queue 'orders' in vhost '/', message 3 of {len(places_in(format_)[1])} (number 3) does not fit its checksum"]


# Where messages are, that are damaged.
SEVENTH = "queue 'queue-1' in vhost '/', message 7 of 300 (number 7)"
IN_BOTH = (
    "queue 'queue-1' in vhost '/', message {0} of 300 and queue 'queue-2' in vhost '/', message {1} of 20 (number {0})")
WITHOUT_THE_SECOND = "queue 'queue-1' in vhost '/', message 100 of 300 (number 100)"


@pytest.mark.parametrize("damage, found", [
    ("UPDATE message_rows SET body = x'00' WHERE number = 7", f"{SEVENTH} does not fit its checksum"),
    ("UPDATE message_rows SET exchange = CAST(x'ff' AS TEXT) WHERE number = 7",
     f"{SEVENTH} does not fit its checksum"),
    ("UPDATE message_rows SET body = 'text' WHERE number = 7", f"{SEVENTH} does not fit its checksum"),
    ("UPDATE message_rows SET queue = 9 WHERE number = 7", "message 7 is in no queue there is"),
    ("DELETE FROM entries WHERE number = 100", "message 100 is kept for no queue"),
    ("DELETE FROM message_rows WHERE number = 100",
     f"{IN_BOTH.format(100, 1)} has an entry, but is not kept for several queues"),
    ("UPDATE message_rows SET expires_at = 'soon' WHERE number = 7", f"{SEVENTH} has a state that is no numbers"),
    ("UPDATE entries SET deliveries = 'x' WHERE number = 101",
     f"{IN_BOTH.format(101, 2)} has a state that is no numbers"),
    ("UPDATE queue_rows SET arguments = '{' WHERE number = 2", "queue_rows (2,) is no definition"),
    ("UPDATE queue_rows SET arguments = '5' WHERE number = 2", "queue_rows (2,) is no definition"),
    ("UPDATE queue_rows SET name = x'ff' WHERE number = 2", "queue_rows (2,) is no definition"),
    ("DELETE FROM queue_rows WHERE number = 2", f"{WITHOUT_THE_SECOND} has an entry in no queue there is"),
])
def test_whatever_does_not_fit_is_found(kept, damage, found):
    query(stop(kept), damage)
    before = tree(kept)
    assert found in checked(kept)
    assert tree(kept) == before


def test_findings_of_one_kind_are_told_up_to_a_hundred(kept):
    query(stop(kept), "UPDATE message_rows SET checksum = 0")
    assert len(checked(kept)) == MOST_FINDINGS + 1
    assert checked(kept)[-1] == "200 more messages are damaged"


def test_every_flipped_bit_in_a_body_is_found(kept):
    file = stop(kept) / "amqpd.db"
    sound, chance = file.read_bytes(), random.Random(3)
    starts = [at for at in range(0, len(large_body()) - 64, 64) if large_body()[at:at + 64] in sound]
    places = [sound.index(large_body()[at:at + 64]) for at in chance.sample(starts, 50)]
    assert len({*places}) == 50
    for place in places:
        octets = bytearray(sound)
        octets[place + chance.randrange(64)] ^= 1 << chance.randrange(8)
        file.write_bytes(octets)
        assert checked(kept) == [
            "queue 'queue-1' in vhost '/', message 150 of 300 (number 150) does not fit its checksum"]


def test_a_page_that_cannot_be_read_is_a_finding_and_not_the_end(kept):
    spoil(stop(kept), page_of(kept, "message_rows"))
    found = checked(kept)
    assert any("messages cannot be read to their end" in finding for finding in found)


def test_what_sqlite_finds_is_told_without_its_headings():
    class Damaged:
        def execute(self, _: str) -> list[tuple[str]]:
            return [("*** in database main ***\nPage 7: never used\nPage 9: never used",), ("row 3 missing",), ("ok",)]

    assert [*checking._of_pages(Damaged())] == ["Page 7: never used", "Page 9: never used", "row 3 missing"]


def test_checks_and_copies_tell_how_far_they_are(kept, tmp_path):
    told = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    with reading(stop(kept) / "amqpd.db") as (connection, _):
        assert list(findings(connection, tell, every=130)) == []
    assert told == [(130, 300), (260, 300), (300, 300)]
    told.clear()
    copies.backup(kept, tmp_path / "backup", tell, pages=10)
    assert told[0][0] == 10 and told[-1][0] == told[-1][1] > 20 and told == sorted(told)
    told.clear()
    copies.restore(tmp_path / "backup", tmp_path / "new", tell)
    assert told == [(300, 300)]
    told.clear()
    compacting.compact(kept, tell, steps=100)
    assert told and all(0 <= done and total > 1 << 20 for done, total in told)


# Backup and restore

def test_a_backup_is_on_disk_before_it_has_its_name_and_the_name_after_it(kept, tmp_path, monkeypatch):
    done = []
    for name in ("sync_file", "sync_directory"):
        def call(path, name=name, real=getattr(files, name)):
            done.append((name, path.name))
            real(path)

        monkeypatch.setattr(files, name, call)
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: (done.append(("rename", new.name)), rename(old, new)))
    copies.backup(kept, tmp_path / "backup")
    (what, _), (_, making), renamed, last = done[-4:]
    assert what == "sync_file" and making.startswith("backup.") and renamed == ("rename", "backup")
    assert last == ("sync_directory", tmp_path.name)


@pytest.mark.parametrize("act, broken, path", [
    (lambda kept, to: copies.backup(kept, to), (copies.wal_number, "delete_from"), "backup/amqpd.db"),
    (lambda kept, to: compacting.compact(kept), (compacting, "_write_anew"), "amqpd.db.new"),
], ids=["backup", "compact"])
def test_an_error_of_sqlite_is_one_of_the_store(kept, tmp_path, monkeypatch, act, broken, path):
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("out of order")

    names = {*tmp_path.iterdir()}
    monkeypatch.setattr(*broken, fail)
    with pytest.raises(StoreError, match=rf"cannot use .*{path} .*out of order"):
        act(kept, tmp_path / "backup")
    assert {*tmp_path.iterdir()} == names


@ROWS_AND_BLOCKS
def test_a_backup_of_a_stopped_store_is_a_store(kept, tmp_path, opened):
    before = tree(kept)
    assert copies.backup(kept, tmp_path / "backup") == 300
    assert tree(kept) == before
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["amqpd.db"]
    expect_kept(tmp_path / "backup", opened)


@ROWS_AND_BLOCKS
def test_a_copy_is_told_as_such_until_a_broker_opens_it(kept, tmp_path, opened):
    copies.backup(kept, tmp_path / "backup")
    copies.restore(tmp_path / "backup", tmp_path / "restored")
    salvage(kept, tmp_path / "salvaged", NOW)
    assert not facts(kept).is_copy
    for name in ("backup", "restored", "salvaged"):
        assert facts(tmp_path / name).is_copy
        store = opened(tmp_path / name)
        assert load_recovered(store).is_copy
        store.abandon()
        assert not facts(tmp_path / name).is_copy
        store = opened(tmp_path / name)
        assert not load_recovered(store).is_copy
        store.close({})


def load_recovered(store):
    return store.load(read_own_properties)


@ROWS_AND_BLOCKS
@pytest.mark.parametrize("error, complaint", [
    (StoreFull("no space left for {}: free some"), "no space left for {}/amqpd.db: free some"),
    (StoreError("cannot make {} (out of paint)"), r"cannot make {}/amqpd.db \(out of paint\)"),
    (PermissionError(errno.EACCES, "Permission denied"), "cannot make {} .*: check the permissions of"),
    (OSError(errno.EROFS, "Read-only file system"), "cannot make {} .*: the file system can only be read"),
    (OSError(errno.ENOSPC, "No space left on device"), "no space left for {}: free some"),
])
def test_a_backup_that_fails_names_the_target_and_nothing_that_is_gone(kept, tmp_path, monkeypatch, error, complaint):
    def fail(_: object, source: Path, copy: Path, **__: object) -> None:
        raise type(error)(str(error).format(copy)) if isinstance(error, StoreError) else error

    monkeypatch.setattr(copies, "copy_pages", fail)
    with pytest.raises(StoreError, match=complaint.format(tmp_path / "backup")) as failed:
        copies.backup(kept, tmp_path / "backup")
    assert ".new" not in str(failed.value)


def test_the_parent_of_a_backup_has_to_be_there(kept, tmp_path):
    target = tmp_path / "none" / "backup"
    with pytest.raises(StoreError, match=f"cannot make {target} .*: make the directory {target.parent} first, or"):
        copies.backup(kept, target)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f": {tmp_path}/file is not a directory, choose another path"):
        copies.backup(kept, tmp_path / "file" / "backup")


# What the system does not let see, tested without the rights of a user who sees all

@pytest.fixture
def hidden(tmp_path, monkeypatch):
    """A directory in which nothing can be looked at."""
    directory = tmp_path / "hidden"
    directory.mkdir(mode=0o700)
    real_lstat, real_access = os.lstat, os.access

    def lstat(path, **named):
        if Path(path).parent == directory:
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return real_lstat(path, **named)

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(
        os, "access", lambda path, mode, **named: Path(path) != directory and real_access(path, mode, **named))
    return directory


@pytest.mark.parametrize("ask", [
    facts, lambda directory: copies.backup(directory, directory.with_name("target")),
    lambda directory: copies.restore(directory, directory.with_name("target")),
    lambda directory: copies.restore(directory / "amqpd.db", directory.with_name("target")),
], ids=["facts", "backup", "restore", "restore a file"])
def test_a_directory_that_cannot_be_looked_into_is_not_one_without_a_store(hidden, ask):
    with pytest.raises(StoreError) as refused:
        ask(hidden)
    assert str(refused.value) == (
        f"cannot look at {hidden}/amqpd.db (Permission denied): check the permissions of {hidden}")


def test_an_empty_file_is_told_as_one_and_a_backup_takes_its_place(kept, tmp_path, opened):
    copies.backup(kept, tmp_path / "backup")
    directory = tmp_path / "emptied"
    directory.mkdir(mode=0o700)
    for name in ("amqpd.db", "amqpd.db-wal"):
        (directory / name).touch()
    for ask in (facts, opened, compacting.compact):
        with pytest.raises(StoreError, match="emptied/amqpd.db is empty, it has 0 bytes: restore a backup with 'amqpd"):
            ask(directory)
    assert copies.restore(tmp_path / "backup", directory) == 300
    expect_kept(directory, opened)


@pytest.mark.parametrize("name", ["amqpd.db", "amqpd.db-wal", "amqpd.db-journal"])
def test_what_is_there_and_not_empty_is_not_replaced(kept, tmp_path, name):
    directory = tmp_path / "used"
    directory.mkdir(mode=0o700)
    (directory / "amqpd.db").touch()
    (directory / name).write_bytes(b"theirs")
    with pytest.raises(StoreError, match=f"{name} is there already: move it away"):
        copies.restore(kept, directory)
    assert (directory / name).read_bytes() == b"theirs"


@ROWS_AND_BLOCKS
def test_what_comes_out_of_a_backup_counts_as_delivered_before(kept, tmp_path):
    """The original may go on, and deliver it."""
    copies.backup(stop(kept), tmp_path / "backup")
    assert query(tmp_path / "backup", "SELECT value FROM meta WHERE key = 'clean'") == [(0,)]
    assert query(tmp_path / "backup", "SELECT DISTINCT delivery_watermark FROM queue_rows") == [(300,)]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_backup_of_a_store_of_an_earlier_format_is_one_too(directory, tmp_path, opened, format_):
    directory.mkdir()
    copies.backup(make_old(directory, format_), tmp_path / "backup")
    found = load(opened(tmp_path / "backup"))
    assert found.definitions == definitions_in(format_)
    assert contents(found.messages[1]) == messages_in(format_, 1)
    assert found.redelivered == {queue: {*numbers} for queue, numbers in places_in(format_).items()}


@ROWS_AND_BLOCKS
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_backup_replaces_nothing(kept, tmp_path, make):
    make(tmp_path / "backup")
    with pytest.raises(StoreError, match="backup is there already: choose another name"):
        copies.backup(kept, tmp_path / "backup")


@ROWS_AND_BLOCKS
def test_a_backup_that_fails_leaves_nothing(kept, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise StoreFull("no space left")

    monkeypatch.setattr(copies, "copy_pages", fail)
    names = {*tmp_path.iterdir()}
    with pytest.raises(StoreFull):
        copies.backup(kept, tmp_path / "backup")
    assert {*tmp_path.iterdir()} == names


def test_a_backup_of_a_damaged_store_is_refused(kept, tmp_path):
    query(stop(kept), "UPDATE message_rows SET body = x'00' WHERE number = 7")
    with pytest.raises(StoreDamaged, match=r"kept/amqpd.db is damaged \(.* message 7 of 300 .* does not .*salvage"):
        copies.backup(kept, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.fixture(params=["a directory", "a file", "a copied directory with a log"])
def made_backup(request: pytest.FixtureRequest, kept: Path, tmp_path: Path) -> Path:
    """Return a backup of one of the possible kinds."""
    if "log" in request.param:
        return kept
    copies.backup(kept, tmp_path / "backup")
    return tmp_path / "backup" / ("amqpd.db" if "file" in request.param else "")


def test_a_backup_is_restored_into_a_directory_that_has_no_store(made_backup, tmp_path, opened):
    before = tree(tmp_path / "kept")
    assert copies.restore(made_backup, tmp_path / "new") == 300
    assert tree(tmp_path / "kept") == before
    assert {*tree(tmp_path / "new")} == {"amqpd.db"}
    expect_kept(tmp_path / "new", opened)


@ROWS_AND_BLOCKS
@pytest.mark.parametrize("name", ["amqpd.db", "amqpd.db-wal"])
def test_nothing_is_restored_over_a_store(kept, tmp_path, name):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).write_bytes(b"precious")
    with pytest.raises(StoreError, match=f"{name} is there already: move it away"):
        copies.restore(kept, tmp_path / "new")
    assert tree(tmp_path / "new") == {name: b"precious"}


def test_nothing_is_restored_from_a_damaged_backup(kept, tmp_path):
    query(stop(kept), "UPDATE message_rows SET body = x'00' WHERE number = 7")
    with pytest.raises(StoreDamaged, match="message 7"):
        copies.restore(kept, tmp_path / "new")
    assert tree(tmp_path / "new") == {}


@pytest.mark.parametrize("count, has_more", [(3, False), (4, True)])
def test_three_findings_are_told_and_that_there_are_more(kept, count, has_more):
    query(stop(kept), f"UPDATE message_rows SET checksum = 0 WHERE number <= {count}")
    with pytest.raises(StoreDamaged) as refused:
        copies.expect_sound(kept / "amqpd.db")
    assert (str(refused.value).count(" does not fit its checksum"), "; …" in str(refused.value)) == (3, has_more)


def test_nothing_is_restored_from_nothing(tmp_path):
    with pytest.raises(StoreError, match="there is no store in .*nowhere"):
        copies.restore(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# While it is written

def test_a_backup_has_what_was_committed_while_it_was_made(store, directory, tmp_path, opened):
    journal = Journal()
    define(journal, VhostDefinition("/"), ONE)
    journal.published(ONE, [message(number, bytes(3_000)) for number in range(1, 2_001)])
    save(store, journal)
    numbers = iter(range(2_001, 10_000))

    def between(left: int, total: int) -> None:
        number = next(numbers)
        journal.published(ONE, [message(number, bytes(3_000))])
        journal.settled(ONE, [number - 2_000])
        save(store, journal)
        store.checkpoint_if_due()

    store.backup(tmp_path / "copy.db", between)
    last = next(numbers) - 1
    (tmp_path / "copy").mkdir(mode=0o700)
    (tmp_path / "copy.db").rename(tmp_path / "copy" / "amqpd.db")
    assert copies.finish(tmp_path / "copy" / "amqpd.db", directory) == 2_000
    assert last > 2_010, "too few steps to tell"
    found = [m.number for m in load(opened(tmp_path / "copy")).messages[1]]
    # The last step was followed by one more commit, which came too late.
    assert found == [*range(last - 2_000, last)] or found == [*range(last - 1_999, last + 1)]
    save(store, journal)


def test_a_backup_that_cannot_be_written_is_no_failure_of_the_store(store, journal, tmp_path):
    save(store, journal)
    with pytest.raises(StoreError, match="cannot make .*copy.db .No such file"):
        store.backup(tmp_path / "nowhere" / "copy.db", lambda left, total: None)
    journal.published(ONE, [message(1)])
    save(store, journal)


# Compacting

@ROWS_AND_BLOCKS
def test_a_store_becomes_as_small_as_what_is_in_it(kept, opened):
    query(kept, "CREATE TABLE ballast (octets)")
    query(kept, "INSERT INTO ballast VALUES (zeroblob(3000000))")
    query(kept, "DROP TABLE ballast")
    before, after = compacting.compact(kept)
    assert before > 3_000_000 > 500_000 > after == (kept / "amqpd.db").stat().st_size
    assert {*tree(kept)} == {"amqpd.db", "amqpd.log-number"}
    expect_kept(kept, opened)


@ROWS_AND_BLOCKS
def test_compacting_needs_room_and_says_how_much(kept, opened, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20))
    with pytest.raises(StoreError, match="needs 1 MiB beside it to be written anew, 1 MiB are free: free some"):
        compacting.compact(kept)
    expect_kept(kept, opened)


@ROWS_AND_BLOCKS
@pytest.mark.parametrize("failing", ["expect_sound", "put_in_place"])
def test_compacting_that_fails_leaves_the_store_as_it_was(kept, opened, monkeypatch, failing):
    def fail(*_: object, **__: object) -> None:
        raise StoreFull("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(compacting, failing, fail)
        with pytest.raises(StoreFull):
            compacting.compact(kept)
    assert {*tree(kept)} == {"amqpd.db", "amqpd.log-number"}
    expect_kept(kept, opened)


def test_a_store_whose_log_is_still_there_is_not_replaced(kept, opened, monkeypatch):
    """The log would be applied to the new file. Another program has it open, which locks should have kept out."""
    with closing(sqlite3.connect(kept / "amqpd.db")) as other, monkeypatch.context() as patch:
        other.execute("SELECT count(*) FROM message_rows").fetchall()
        patch.setattr(connecting, "connect", lambda path: sqlite3.connect(path, isolation_level=None))
        with pytest.raises(StoreError, match="amqpd.db is in use by another program: end that$"):
            compacting.compact(kept)
        assert not (kept / "amqpd.db.new").exists()
    expect_kept(kept, opened)


def test_a_damaged_store_is_not_compacted(kept):
    spoil(stop(kept), page_of(kept, "message_rows"))
    before = tree(kept)
    with pytest.raises(StoreError, match="damaged"):
        compacting.compact(kept)
    assert tree(kept) == before


def test_reading_leaves_no_connection_open(kept):
    with closing(sqlite3.connect(stop(kept) / "amqpd.db", timeout=0)) as other:
        checked(kept)
        other.execute("BEGIN EXCLUSIVE")


def test_what_is_read_is_neither_trusted_nor_changed(kept):
    with reading(kept / "amqpd.db") as (connection, _):
        settings = [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("trusted_schema", "cell_size_check")]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM message_rows")
    assert settings == [0, 1]


class Unreadable(sqlite3.Connection):
    """A connection that fails with `error` when the schema is read, and notes that it is closed."""

    error: sqlite3.Error
    closed = 0

    def execute(self, statement, *parameters):
        if "schema_version" in statement:
            raise self.error
        return super().execute(statement, *parameters)

    def close(self):
        type(self).closed += 1
        super().close()


@pytest.fixture
def tried(monkeypatch):
    """How the file was opened: the first connection is of the class `Unreadable`, the others can read."""
    modes = []
    connect = stopped._connect

    def note(path, mode):
        modes.append(mode)
        return sqlite3.connect(path, factory=Unreadable) if len(modes) == 1 else connect(path, mode)

    monkeypatch.setattr(stopped, "_connect", note)
    monkeypatch.setattr(Unreadable, "closed", 0)
    return modes


@pytest.mark.parametrize("kind, code, is_full", [
    (sqlite3.OperationalError, sqlite3.SQLITE_IOERR_SHMSIZE, False),
    (sqlite3.OperationalError, sqlite3.SQLITE_CANTOPEN, True),
    (sqlite3.DatabaseError, sqlite3.SQLITE_MISUSE, True)])
def test_what_cannot_be_read_is_not_tried_in_another_way_unless_the_disk_is_full(
    kept, monkeypatch, tried, kind, code, is_full
):
    monkeypatch.setattr(Unreadable, "error", kind("this fails"), raising=False)
    Unreadable.error.sqlite_errorcode = code
    monkeypatch.setattr(stopped, "is_full", lambda directory: is_full)
    with pytest.raises(StoreError, match=r"cannot use .*amqpd.db \(this fails\)"):
        with reading(kept / "amqpd.db"):
            pass
    assert (tried, Unreadable.closed) == (["mode=ro"], 1)


def test_on_a_full_disk_the_index_of_the_log_is_kept_in_memory(kept, monkeypatch, tried):
    monkeypatch.setattr(Unreadable, "error", sqlite3.OperationalError("disk I/O error"), raising=False)
    Unreadable.error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    monkeypatch.setattr(stopped, "is_full", lambda directory: directory == kept)
    before = tree(kept)
    with reading(kept / "amqpd.db") as (connection, _):
        count, = connection.execute("SELECT count(*) FROM message_rows").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM message_rows")
        assert tree(kept) == before, "there is no index beside the log"
    assert (count, tried, Unreadable.closed) == (300, ["mode=ro", "mode=rw"], 1)
    assert connection.execute("SELECT 1").fetchone() == (1,), "closed, it would write the log back"
    connection.close()
