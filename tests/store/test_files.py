"""Directory and files of a store: the lock, what is synced, and the errors when the system refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path

import pytest

from amqpd.store import files
from amqpd.store import spill as spill_module
from amqpd.store.ballast import Ballast
from amqpd.store.errors import StoreError, StoreFull, StoreLocked
from amqpd.store.sqlite import connecting, inspection
from amqpd.store.sqlite.schema import newest_format
from amqpd.store.spill import Spill
from amqpd.store.tools import stopped
from tests.store.kept_store import checked
from tests.store.store_samples import read_properties
from tests.store.test_spill import sample


def refusing(number: int) -> object:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def descriptors() -> set[str]:
    return {*os.listdir("/dev/fd")}


# The lock

def test_a_lock_names_its_process_and_is_let_go_of_with_its_descriptor(tmp_path: Path) -> None:
    lock = files.take_lock(tmp_path)
    assert (tmp_path / files.LOCK).read_text() == f"{os.getpid()}\n"
    before = descriptors()
    with pytest.raises(StoreLocked, match=rf"is held by a running broker \(process {os.getpid()}\): stop it"):
        files.take_lock(tmp_path)
    assert descriptors() == before
    os.close(lock)
    os.close(files.take_lock(tmp_path))


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    with pytest.raises(StoreError, match=r"cannot lock .*amqpd.lock \(No locks available\): choose a directory on a l"):
        files.take_lock(tmp_path)
    assert descriptors() == before


@pytest.mark.parametrize("number, is_fine", [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_lock_need_not_be_signed_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, is_fine: bool
) -> None:
    monkeypatch.setattr(os, "truncate", refusing(number))
    if is_fine:
        os.close(files.take_lock(tmp_path))
    else:
        with pytest.raises(StoreError, match="cannot lock"):
            files.take_lock(tmp_path)


@pytest.mark.parametrize("mode, is_fine", [(0o700, True), (0o755, True), (0o720, False), (0o702, False)])
def test_nobody_else_may_write_the_directory(tmp_path: Path, mode: int, *, is_fine: bool) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)
    if is_fine:
        files.prepare_directory(directory)
    else:
        with pytest.raises(StoreError, match="can be written by other users: chmod go-w it"):
            files.prepare_directory(directory)


def test_a_directory_is_made_for_its_owner_with_its_parents(tmp_path: Path) -> None:
    files.prepare_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file is not a directory: move it away"):
        files.prepare_directory(tmp_path / "file")


# Written again

def test_a_file_is_written_over_itself_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[bytes, int]] = []
    synced: list[int] = []
    real = os.pwrite

    def write(descriptor: int, octets: bytes, offset: int) -> int:
        written.append((octets, offset))
        return real(descriptor, octets, offset)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fsync", synced.append)
    files.write_again(tmp_path / "none")
    assert not written and not synced and not (tmp_path / "none").exists()
    path = tmp_path / "file"
    path.write_bytes(b"some octets, and more")
    before = descriptors()
    files.write_again(path, bytes_at_once=7)
    assert written == [(b"some oc", 0), (b"tets, a", 7), (b"nd more", 14)] and len(synced) == 1
    assert path.read_bytes() == b"some octets, and more" and descriptors() == before


# What is looked at before a start

def test_a_store_that_this_user_may_not_write_is_refused(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK | os.W_OK)
    with pytest.raises(StoreError, match=r"this user cannot read and write .*amqpd.db: check its permissions"):
        inspection.check_ours(kept / connecting.DATABASE)


@pytest.mark.parametrize("is_full, kind", [(True, StoreFull), (False, StoreError)])
def test_where_there_is_no_room_for_an_index_of_the_log_the_disk_is_full(
    kept: Path, monkeypatch: pytest.MonkeyPatch, kind: type[StoreError], *, is_full: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR | 18 << 8
        raise error

    monkeypatch.setattr(inspection, "is_full", lambda directory: is_full)
    monkeypatch.setattr(inspection, "_examine", fail)
    with pytest.raises(StoreError) as failed:
        inspection.examine(kept / connecting.DATABASE)
    assert type(failed.value) is kind


def test_what_python_cannot_read_of_a_store_is_damage(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        b"\xff".decode()

    monkeypatch.setattr(inspection, "_examine", fail)
    with pytest.raises(StoreError, match=r"amqpd.db is damaged \(UnicodeDecodeError: "):
        inspection.examine(kept / connecting.DATABASE)


def test_on_a_full_disk_a_stopped_store_is_read_without_an_index_of_its_log(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stopped._connect

    class Refusing(sqlite3.Connection):
        def execute(self, *_: object) -> sqlite3.Cursor:    # type: ignore[override]
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

    def connect(path: Path, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", factory=Refusing) if mode == "mode=ro" else real(path, mode)

    monkeypatch.setattr(stopped, "_connect", connect)
    with pytest.raises(StoreError, match="disk I/O error"):
        checked(kept)
    monkeypatch.setattr(stopped, "is_full", lambda directory: True)
    before = {path.name: path.stat().st_size for path in kept.iterdir()}
    with stopped.reading(kept / connecting.DATABASE) as (connection, format_):
        assert format_ == newest_format() and connection.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)
        assert connection.execute("SELECT count(*) FROM message_rows").fetchone()[0] == 300
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM message_rows")
    assert {path.name: path.stat().st_size for path in kept.iterdir()} == before
    connection.execute("PRAGMA query_only = OFF")       # it is open yet: nothing was written back


# What cannot be made or read

def test_a_ballast_that_the_system_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ballast = Ballast(tmp_path, 1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing(errno.EROFS))
        assert not ballast.ensure()
    assert "(Read-only file system): a full disk will stop the broker" in caplog.text
    assert ballast.ensure()


def test_a_transient_message_that_cannot_be_read_is_dropped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spilled = Spill(tmp_path, read_properties).write([sample(1, b"a"), sample(2, b"b", key="odd"), sample(3, b"c")])
    real = spill_module.route_of

    def route_of(names: bytes, *rest: int) -> object:
        if b"odd" in names:
            raise ValueError("no such names")
        return real(names, *rest)

    monkeypatch.setattr(spill_module, "route_of", route_of)
    assert [one.number for one in spilled.read()] == [1, 3]
    assert "cannot be read and is dropped: ValueError: no such names" in caplog.text
