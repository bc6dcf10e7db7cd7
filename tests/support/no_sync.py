"""Skip all syncs of the test process, from the start of pytest on, since there is no real power cut.

A sync takes milliseconds, and the store makes many. `tests.support.disk` records where syncs are made, and what a power
cut leaves without them; brokers that tests start as other processes sync as usual.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
from contextlib import closing
from ctypes import c_void_p
from typing import Any

from tests.support.disk import DELETE, OPEN, SYNC, Methods, OpenFile, Vfs, sqlite_library

NAME = "amqpd-no-sync"


class _NoSyncVfs:
    """SQLite's own VFS, but for the syncs of its files. As SQLite keeps its address, it is never given up."""

    def __init__(self) -> None:
        library = sqlite_library()
        below = library.sqlite3_vfs_find(None)
        self._real_open = OPEN(below[0].open)
        self._real_delete = DELETE(below[0].delete)
        self._vfs = Vfs.from_buffer_copy(below[0])
        self._vfs.name = NAME.encode()
        self._callbacks: list[Any] = [OPEN(self._open), DELETE(self._delete), SYNC(lambda file, flags: 0)]
        self._vfs.open, self._vfs.delete, self._sync = [ctypes.cast(callback, c_void_p) for callback in self._callbacks]
        self._methods: dict[int, Methods] = {}      # by the address of those that they stand for
        library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)

    def _open(self, vfs: int, name: int | None, file: int, flags: int, flags_out: int) -> int:
        code: int = self._real_open(vfs, name, file, flags, flags_out)
        opened = OpenFile.from_address(file)
        if not code and opened.methods:
            address = ctypes.addressof(opened.methods[0])
            if address not in self._methods:
                methods = self._methods[address] = Methods.from_buffer_copy(opened.methods[0])
                methods.sync = self._sync
            opened.methods = ctypes.pointer(self._methods[address])
        return code

    def _delete(self, vfs: int, name: int, syncs_directory: int) -> int:
        code: int = self._real_delete(vfs, name, 0)
        return code


def _fsync(descriptor: int) -> None:
    """Sync nothing, of a descriptor that is open."""
    os.fstat(descriptor)


_kept: list[_NoSyncVfs] = []


def pytest_configure() -> None:
    """Skip all syncs from now on. If SQLite's library cannot be found, SQLite still syncs; tests/disk reports that."""
    os.fsync = _fsync
    with closing(sqlite3.connect(":memory:")):
        try:
            _kept.append(_NoSyncVfs())
        except AssertionError:
            return
