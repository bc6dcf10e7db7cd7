"""The directory of a store: who may enter, the lock on it, and the one connection to the file in it.

Always true: files are readable by their owner only; nothing but SQLite opens the database file, since
closing another descriptor of it would drop SQLite's locks; nothing is opened without the lock.

Spec: sqlite.org/pragma.html, sqlite.org/wal.html, sqlite.org/howtocorrupt.html §2.2.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path

from amqpd.store.errors import StoreError, StoreLocked, from_sqlite, from_system

DATABASE = "amqpd.db"
LOCK = "amqpd.lock"
OWNER_ONLY = 0o600
_WRITABLE_BY_OTHERS = 0o022
BUSY_WAIT_S = 1.0
_OCTETS_AT_ONCE = 1 << 20

# In the order they must be made in; `secure_delete` would write every page of a settled message once more.
SETTINGS: tuple[tuple[str, str | int], ...] = (
    ("locking_mode", "exclusive"),
    ("journal_mode", "wal"),
    ("synchronous", 2),
    ("fullfsync", 1),               # on macOS a sync does not reach the disk otherwise; elsewhere it changes nothing
    ("checkpoint_fullfsync", 1),
    ("foreign_keys", 1),
    ("trusted_schema", 0),
    ("cell_size_check", 1),
    ("mmap_size", 0),
    ("wal_autocheckpoint", 0),
    ("secure_delete", 0),
)


def prepare_directory(directory: Path) -> None:
    """Make the directory, with its parents, for the owner only; or see that nobody else can write an existing one.

    Raises StoreError.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = directory.stat().st_mode
    except FileExistsError:
        raise StoreError(f"{directory} is not a directory: move it away, or choose another directory") from None
    except OSError as error:
        raise from_system(error, directory, "make") from error
    if mode & _WRITABLE_BY_OTHERS:
        raise StoreError(f"{directory} can be written by other users: chmod go-w it, or choose another directory")


def take_lock(directory: Path) -> int:
    """Lock the directory for this process; closing the descriptor that is returned lets go of it.

    Raises StoreLocked where another process, or this one, has it; StoreError where it cannot be locked at all.
    """
    path = directory / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
    except OSError as error:
        raise from_system(error, path, "open") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(descriptor)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreLocked(
            f"{path} is held by a running broker (process {holder}): stop it, or choose another directory") from None
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"cannot lock {path} ({error.strerror}): choose a directory on a local disk") from error
    return descriptor


def is_there(path: Path) -> bool:
    """Return whether there is anything by this name. Raises StoreError where the system does not tell."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise from_system(error, path, "look at") from error
    return True


def _sign(descriptor: int) -> None:
    """Write into the lock who has it, as far as the disk has room; it is locked in any case. Raises OSError."""
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def make_empty(path: Path) -> None:
    """Make an empty file that only its owner can read. Raises OSError where there is one already."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY))


def sync_file(path: Path) -> None:
    """Make a file survive a power cut as it is now. Not for a database that this process has open. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_again(path: Path) -> None:
    """Write a file over itself and sync it; none is fine too. Not for the database itself. Raises OSError.

    When a sync has failed the system may show what it has not written, and call it written. Now it has to be.
    """
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        offset = 0
        while octets := os.pread(descriptor, _OCTETS_AT_ONCE, offset):
            offset += os.pwrite(descriptor, octets, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make new names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def uri_of(path: Path) -> str:
    """The file as SQLite takes it together with parameters."""
    return path.absolute().as_uri()


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing database with every setting made, read back and checked. Raises StoreError."""
    with ExitStack() as undo:
        try:
            connection = sqlite3.connect(
                f"{uri_of(path)}?mode=rw", uri=True, timeout=BUSY_WAIT_S, isolation_level=None,
                check_same_thread=False)
            undo.callback(connection.close)
            for name, value in SETTINGS:
                change_setting(connection, path, name, value)
        except sqlite3.Error as error:
            raise from_sqlite(error, path) from error
        undo.pop_all()
    return connection


def change_setting(connection: sqlite3.Connection, path: Path, name: str, value: str | int) -> None:
    """Make one setting of SQLite and see that it holds. Raises StoreError, sqlite3.Error."""
    connection.execute(f"PRAGMA {name} = {value}").fetchall()
    row = connection.execute(f"PRAGMA {name}").fetchone()
    found = row[0] if row else 0        # a build without mmap answers nothing
    if found != value:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} refuses {name}={value} for {path}: it stays {found}")
