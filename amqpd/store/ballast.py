"""Bytes of the disk that nobody uses until it is full: freed, they let consumers drain what is stored.

Owns the file of the ballast. On a full disk SQLite refuses even to delete and to write its log back, so that what
would make room cannot be done; with this much freed, the batch that did not fit, and all deletions after it, do.
It is twice what may wait to be written. Whoever frees it raises the disk alarm: see `on_spent`.

Always true: the file takes its whole size on the disk, or is not there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from amqpd.store.errors import StoreError, StoreFull, StoreLocked
from amqpd.store.files import OWNER_ONLY

BALLAST = "amqpd.ballast"
NEXT_TO_NOTHING = 1 << 20       # bytes: with less than that free, whatever fails at start fails for want of room
PIECE = bytes(1 << 20)
BLOCK = 512                     # bytes, the unit of st_blocks

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Ballast:
    """The ballast of a store in this directory; with a size of 0 there is none.

    `is_spent` is True from when it was freed until it is whole again. `on_spent` is called in the thread that
    frees it.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self.is_spent = False
        self.on_spent: Callable[[], object] = _nobody
        self._directory = directory
        self._path = directory / BALLAST
        self._size = size

    def with_room(self, step: Callable[[], Result], *, is_start: bool = False) -> Result:
        """Do a step; where the disk is full, free the ballast and do it once more.

        At the start a full disk shows in other ways too: SQLite cannot even make the index of its log then. Later
        only StoreFull says that nothing was written. Raises what the step raises when there is nothing to free.
        """
        try:
            return step()
        except StoreLocked:
            raise
        except StoreError as error:
            if not self._is_whole():
                raise
            if not isinstance(error, StoreFull) and not (is_start and is_full(self._directory)):
                raise
            self._spend()
        return step()

    def _spend(self) -> None:
        self._remove()
        self.is_spent = True
        logger.warning("the disk of %s is full: %s was freed, so that what is stored can be consumed",
                       self._directory, self._path)
        self.on_spent()

    def ensure(self) -> bool:
        """Make it unless it exists or less than twice its size is free; return whether it exists, if one is wanted."""
        if not self._size:
            self._remove()
        elif not self._is_whole() and not (free_bytes(self._directory) >= 2 * self._size and self._make()):
            return False
        self.is_spent = False
        return True

    def _is_whole(self) -> bool:
        try:
            found = os.stat(self._path)
        except OSError:
            return False
        return bool(self._size) and found.st_size == self._size and found.st_blocks * BLOCK >= self._size

    def _make(self) -> bool:
        self._remove()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
        except OSError as error:
            logger.warning("cannot make %s (%s): a full disk will stop the broker", self._path, error.strerror)
            return False
        try:
            allocate(descriptor, self._size)
        except OSError as error:
            logger.warning("cannot make %s (%s): a full disk will stop the broker", self._path, error.strerror)
            self._remove()
            return False
        finally:
            os.close(descriptor)
        return True

    def _remove(self) -> None:
        with suppress(OSError):
            os.truncate(self._path, 0)      # where names are only ever added, that alone frees it
        with suppress(OSError):
            os.unlink(self._path)


def allocate(descriptor: int, size: int) -> None:
    """Have an empty file take this many bytes on its disk. Raises OSError."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (OSError, AttributeError):
        # Not every file system can, nor every system (macOS); what is written is there in any case.
        left = size
        while left:
            left -= os.write(descriptor, PIECE[:left])
        os.fsync(descriptor)


def free_bytes(directory: Path) -> int:
    """Return how many bytes this process may still write on the directory's file system."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def is_full(directory: Path) -> bool:
    """Return whether so little is free that whatever fails fails for want of room."""
    return free_bytes(directory) < NEXT_TO_NOTHING


def _nobody() -> None:
    """Do nothing: nobody has asked to hear of a freed ballast yet."""
