"""Why the store cannot be opened, or cannot go on: each text is one line that says what, where, and what to do.

Not for clients: `server/` ends the process with such a line, or raises the disk alarm and tries again.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


class StoreError(Exception):
    """The store cannot be opened, or has failed for good and must not be tried again."""


class StoreLocked(StoreError):
    """Another process has the store open."""


class StoreFull(StoreError):
    """The disk is full: nothing of the batch was written, and the same batch may be committed again."""


def full(path: Path) -> StoreFull:
    """Return the error of the store for a disk that is known to be full."""
    return StoreFull(f"no space left for {path}: free some on its disk")


def from_finding(finding: str, path: Path | str) -> StoreError:
    """Return the error of the store for damage that a check has found."""
    return StoreError(
        f"{path} is damaged ({one_line(finding)}): restore a backup, or save what can be read with "
        "'amqpd store salvage'")


def from_system(error: OSError, path: Path, verb: str = "use") -> StoreError:
    """Return the error of the store for a system call that failed on this path; `verb` says what was to be done."""
    if error.errno == errno.ENOSPC:
        return full(path)
    return StoreError(f"cannot {verb} {path} ({reason_of(error)}): {remedy_for(error, path)}")


def reason_of(error: OSError) -> str:
    """Return what the system says of a call that failed."""
    return error.strerror or str(error) or type(error).__name__


def remedy_for(error: OSError, path: Path) -> str:
    """Return what helps where a system call failed on this path."""
    match error.errno:
        case errno.ENOENT if not os.path.lexists(_absolute(path).parent):
            return f"make the directory {_absolute(path).parent} first, or choose another path"
        case errno.ENOENT:
            return "see that nothing else deletes files there, and try again"
        case errno.EACCES | errno.EPERM:
            return f"check the permissions of {_forbidding(path)}"
        case errno.EROFS:
            return "the file system can only be read, choose another directory"
        case errno.ENOSPC:
            return "free some space on its disk"
        case errno.EDQUOT:
            return "the quota of this user is used up, free some of it"
        case errno.ENOTDIR:
            return f"{_not_directory(path)} is not a directory, choose another path"
        case errno.EEXIST | errno.ENOTEMPTY | errno.EISDIR:
            return "move it away, or choose another path"
        case errno.ENAMETOOLONG:
            return "choose a shorter name"
        case errno.ELOOP:
            return "its symbolic links lead in a circle: choose another path"
        case errno.EMFILE | errno.ENFILE:
            return "let the process open more files (ulimit -n)"
        case errno.ENOLCK | errno.EOPNOTSUPP:
            return "choose a directory on a local disk"
        case errno.EIO:
            return "check its disk"
        case _:
            return "check its disk and its permissions"


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError:         # the current directory is gone
        return path


def _forbidding(path: Path) -> Path:
    """Return the first directory on the way that this user may not pass, or else what is at its end."""
    for directory in reversed(_absolute(path).parents):
        if not os.access(directory, os.X_OK):
            return directory
    return path if os.path.lexists(path) else _absolute(path).parent


def _not_directory(path: Path) -> Path:
    """Return the first part of the way that should be a directory."""
    return next((part for part in reversed(_absolute(path).parents) if not part.is_dir()), path)


def from_mistake(error: Exception, path: Path) -> StoreError:
    """Return the error of the store for any other exception: only a mistake of ours can cause one."""
    return from_mistake_at(error, str(path))


def from_mistake_at(error: Exception, place: str) -> StoreError:
    """Return the same for a store that is no file."""
    text = one_line(f"{type(error).__name__}: {error}")
    return StoreError(f"cannot use {place} ({text}): this is a mistake in amqpd, report it")


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters: it may quote what was read from a damaged file."""
    return " ".join("".join([character if character.isprintable() else " " for character in text]).split())
