"""Turn errors of SQLite into errors of the store, with the path and the remedy."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from amqpd.store.errors import StoreError, StoreLocked, from_finding, full, one_line

_PRIMARY_CODE = 0xFF        # SQLite's extended codes carry the general one in their lowest byte
_READ_CODES = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)


def from_sqlite(error: sqlite3.Error, path: Path) -> StoreError:
    """Return the error of the store for an error of SQLite on this file."""
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


def from_copying(error: sqlite3.Error, source: Path, copy: Path) -> StoreError:
    """Return the error of the store for an error of SQLite while a new file is made of this one.

    It names the file that could not be used: only the source is read, and damage comes from there.
    """
    is_of_source = is_corruption(error) or getattr(error, "sqlite_errorcode", 0) in _READ_CODES
    return from_sqlite(error, source if is_of_source else copy)


def is_corruption(error: sqlite3.Error) -> bool:
    """Return whether SQLite found damage in a file."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_io_error(error: sqlite3.Error) -> bool:
    """Return whether a system call failed; SQLite does not tell which one, nor why."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE == sqlite3.SQLITE_IOERR


def from_damage(error: Exception, path: Path) -> StoreError:
    """Return the error of the store for an exception that only a damaged file can cause."""
    return from_finding(_text_of(error), path)


def _text_of(error: Exception) -> str:
    return one_line(str(error) if isinstance(error, sqlite3.Error) else f"{type(error).__name__}: {error}")
