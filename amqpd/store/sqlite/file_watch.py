"""Notice that somebody deletes, replaces or cuts the files of a store while it is open.

A deleted file can be written for as long as it is open, and everything goes well until the process ends: then all of
it is gone. So the names are compared with what was opened: before a batch is begun, before it is declared committed,
and once a second while nothing happens. That takes a few microseconds, since only names are looked up.

Owns which file each name led to when the store was opened, and the size below which nothing but a checkpoint takes a
file; see `checkpoint`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from amqpd.store.errors import StoreError


class FileWatch:
    """The files of one open store, by the names they were opened by."""

    def __init__(self) -> None:
        self._identities: dict[str, tuple[int, int]] = {}   # device and inode
        self._sizes: dict[str, int] = {}                    # of files that only a checkpoint makes smaller
        self._is_checkpoint = Lock()

    def begin(self, files: Iterable[Path], lock: Path) -> None:
        """Remember what is there now: files that only grow between two checkpoints, and the lock. Raises OSError."""
        for path in (*files, lock):
            found = os.stat(path)
            self._identities[str(path)] = found.st_dev, found.st_ino
            if path != lock:
                self._sizes[str(path)] = found.st_size

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Let files become smaller within this block; what size they are at its end is remembered."""
        with self._is_checkpoint:
            yield
            for path in self._sizes:
                self._sizes[path] = _look(path).st_size

    def grown(self, path: Path, size: int) -> None:
        """Remember that a file has this size now."""
        if str(path) in self._sizes:
            self._sizes[str(path)] = size

    def end(self) -> None:
        """Forget all files: they are about to be closed."""
        self._identities.clear()
        self._sizes.clear()

    def check(self) -> None:
        """See that every name still leads to the file that is open, and that nobody has cut it; from any thread.

        Raises StoreError, with what has happened and the remedy.
        """
        can_compare = self._is_checkpoint.acquire(blocking=False)     # else sizes change just now
        try:
            for path, identity in list(self._identities.items()):
                size = self._sizes.get(path, 0)     # before the look: the file may grow, and be noted, after it
                found = _look(path)
                if (found.st_dev, found.st_ino) != identity:
                    raise _gone(path, "another file is in its place")
                if can_compare and found.st_size < size:
                    raise _gone(path, f"it was cut to {found.st_size} bytes")
        finally:
            if can_compare:
                self._is_checkpoint.release()


def _look(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise _gone(path, error.strerror or str(error)) from error


def _gone(path: str, finding: str) -> StoreError:
    return StoreError(
        f"{path} was deleted, replaced, moved or cut while the broker ran ({finding}): put the files of its directory "
        "back as they were, or restore a backup, and start again")
