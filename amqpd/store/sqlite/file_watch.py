"""Detect that another program deletes, replaces or truncates the files of a store while it is open.

A process can write to a deleted file as long as it has the file open; the content is lost when the process ends. So
the files at these paths are compared with the open files: before a batch is begun, before it counts as committed, and
once a second while there is nothing to write. That takes a few microseconds: one `stat` for each path.

Owns device and inode of each file when the store was opened, and the smallest size that each may have, since only a
checkpoint makes a file smaller.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from amqpd.store.errors import StoreError


class FileWatch:
    """The files of one open store, by path."""

    def __init__(self) -> None:
        self._identities: dict[str, tuple[int, int]] = {}   # device and inode
        self._sizes: dict[str, int] = {}                    # of files that only a checkpoint makes smaller
        self._is_checkpoint = Lock()

    def begin(self, files: Iterable[Path], lock: Path) -> None:
        """Remember these files as they are now. Other than the lock, they only grow between two checkpoints.

        Raises OSError.
        """
        for path in (*files, lock):
            found = os.stat(path)
            self._identities[str(path)] = found.st_dev, found.st_ino
            if path != lock:
                self._sizes[str(path)] = found.st_size

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Allow files to become smaller within the block, and remember their sizes at its end."""
        with self._is_checkpoint:
            yield
            for path in self._sizes:
                self._sizes[path] = _look(path).st_size

    def grown(self, path: Path, size: int) -> None:
        """Note the size to which a file has grown, in bytes."""
        if str(path) in self._sizes:
            self._sizes[str(path)] = size

    def end(self) -> None:
        """Forget all files: they are about to be closed."""
        self._identities.clear()
        self._sizes.clear()

    def check(self) -> None:
        """Check that each path is still the file that is open, and that it was not truncated; any thread may call this.

        Raises StoreError, which says what happened and what to do.
        """
        can_compare = self._is_checkpoint.acquire(blocking=False)     # if not, sizes are just changing
        try:
            for path, identity in list(self._identities.items()):
                size = self._sizes.get(path, 0)     # read before the file is: it may grow after that
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
