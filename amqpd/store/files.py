"""The directory of a store: who may enter it, its lock, and files that survive a power cut.

Always true: files are readable by their owner only; nothing is opened without the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from amqpd.store.errors import StoreError, StoreLocked, from_system

LOCK = "amqpd.lock"
OWNER_ONLY = 0o600
_WRITABLE_BY_OTHERS = 0o022
_BYTES_AT_ONCE = 1 << 20


def prepare_directory(directory: Path) -> None:
    """Make the directory and its parents for the owner only; or check that only the owner can write an existing one.

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
    """Write the process id into the lock file; on a full disk it stays empty, and locked. Raises OSError."""
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


def write_again(path: Path, bytes_at_once: int = _BYTES_AT_ONCE) -> None:
    """Write a file over itself and sync it, if it exists. Not for the database itself. Raises OSError.

    After a sync has failed, the system may show pages that are not on disk, and take them for written. Written again,
    they reach the disk.
    """
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        offset = 0
        while piece := os.pread(descriptor, bytes_at_once, offset):
            offset += os.pwrite(descriptor, piece, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make new names in a directory survive a power cut. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
