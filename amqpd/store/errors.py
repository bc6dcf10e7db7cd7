"""Why the store cannot be opened, or cannot go on: each text is one line that says what, where, and what to do.

Not for clients: `server/` ends the process with such a line, or raises the disk alarm and tries again.
"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

_PRIMARY_CODE = 0xFF        # SQLite's extended codes carry the general one in their lowest octet


class StoreError(Exception):
    """The store cannot be opened, or has failed for good and must not be tried again."""


class StoreLocked(StoreError):
    """Another process has the store open."""


class StoreFull(StoreError):
    """The disk is full: nothing of the batch was written, and the same batch may be committed again."""


def from_sqlite(error: sqlite3.Error, path: Path) -> StoreError:
    """The error of the store that an error of SQLite on this file means."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code == sqlite3.SQLITE_FULL:
        return full(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLocked(f"{path} is in use by another program: end that, or choose another directory")
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path} is not an SQLite database: move it away, or choose another directory")
    if code == sqlite3.SQLITE_CORRUPT:
        return from_damage(error, path)
    return StoreError(f"cannot use {path} ({_text_of(error)}): check its disk and its permissions")


def is_io_error(error: sqlite3.Error) -> bool:
    """Return whether a call of the system failed: which one, and why, SQLite does not tell."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE == sqlite3.SQLITE_IOERR


def full(path: Path) -> StoreFull:
    """Return the error of the store for a disk that is known to be full."""
    return StoreFull(f"no space left for {path}: free some on its disk")


def from_damage(error: Exception, path: Path) -> StoreError:
    """The error of the store that an exception means which only what nobody has written there can cause."""
    return from_finding(_text_of(error), path)


def from_finding(finding: str, path: Path) -> StoreError:
    """The error of the store for damage that was looked for and found."""
    return StoreError(
        f"{path} is damaged ({_in_a_line(finding)}): restore a backup, or save what can be read with "
        "'amqpd store salvage'")


def from_system(error: OSError, path: Path) -> StoreError:
    """The error of the store that a failed system call on this file, or on one beside it, means."""
    if error.errno == errno.ENOSPC:
        return full(path)
    return StoreError(f"cannot use {error.filename or path} ({error.strerror}): check its disk and its permissions")


def from_mistake(error: Exception, path: Path) -> StoreError:
    """The error of the store that any other exception means: one that only our own mistake can cause."""
    return StoreError(f"cannot use {path} ({_text_of(error)}): this is a mistake in amqpd, report it")


def _text_of(error: Exception) -> str:
    return _in_a_line(str(error) if isinstance(error, sqlite3.Error) else f"{type(error).__name__}: {error}")


def _in_a_line(text: str) -> str:
    """SQLite quotes what it has read, whatever that is."""
    return " ".join("".join([character if character.isprintable() else " " for character in text]).split())
