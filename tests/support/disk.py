"""A disk under SQLite that records every operation, and fails on request.

It is a VFS of SQLite, written in Python on top of the default VFS of the `sqlite3` module: it passes each call on,
records it, and fails it if the test has requested that. It needs no compiler, no root and no file system of its own.
The calls of amqpd without SQLite go through `os`, and are recorded in the same list.

Always true while a `Disk` is at work:
- `acts` has every change of every file below the directory, in order, with the bytes that were written, and the syncs.
  Files have numbers, since a rename does not change the file;
- nothing is really synced, since there is no real power cut: whoever reads `acts` interprets the syncs.

Spec: sqlite.org/vfs.html, sqlite.org/c3ref/io_methods.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

NAME = "amqpd-recording-disk"

OK, IOERR, FULL, CANTOPEN = 0, 10, 13, 14
SHORT_READ = 522
OPEN_READ_ONLY, OPEN_READ_WRITE, OPEN_CREATE = 0x1, 0x2, 0x4
OPEN_JOURNAL = 0x800 | 0x4000 | 0x80000     # the main one, a super-journal, a log: SQLite syncs the directory of these
# What SQLite's own VFS answers when the system call behind an operation fails.
SYSTEM_ERRORS = {
    "read": IOERR | 1 << 8, "write": IOERR | 3 << 8, "sync": IOERR | 4 << 8, "truncate": IOERR | 6 << 8,
    "delete": IOERR | 10 << 8, "open": CANTOPEN}
KINDS = ("read", "write", "sync", "truncate", "delete", "open", "rename")


class Act(NamedTuple):
    """One change of the disk: what, of which file (0 for the directory), and with what.

    `create` and `delete` have a name as `value`, `rename` the old and the new one; `write` its offset and octets,
    `truncate` the new size; `sync` nothing. After a `lost`, a sync that failed, the system may have forgotten what
    was not synced, and the next sync will succeed without it. `mark` is not the disk's: somebody wants to know when
    it was.
    """

    kind: str
    file: int
    value: Any = None


class Fault(NamedTuple):
    """The `nth` operation of a kind fails, counted from 1; with `for_good`, every later one too.

    `how` is "EIO"; or "ENOSPC", which SQLite tells apart from other errors where it writes; or "short", when half of
    a write is done before the disk is full. A disk that fails for good with EIO fails in everything.
    """

    kind: str
    nth: int
    how: str = "EIO"
    for_good: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.nth} {self.how}{' for good' * self.for_good}"


class Vfs(ctypes.Structure):
    """`sqlite3_vfs`, as far as we know it."""

    _fields_ = [
        ("version", c_int), ("file_size", c_int), ("longest_name", c_int), ("next", c_void_p), ("name", c_char_p),
        ("data", c_void_p), ("open", c_void_p), ("delete", c_void_p), ("others", c_void_p * 13)]


class Methods(ctypes.Structure):
    """`sqlite3_io_methods`, as far as we know it."""

    _fields_ = [
        ("version", c_int), ("close", c_void_p), ("read", c_void_p), ("write", c_void_p), ("truncate", c_void_p),
        ("sync", c_void_p), ("others", c_void_p * 13)]


class OpenFile(ctypes.Structure):
    """`sqlite3_file`."""

    _fields_ = [("methods", POINTER(Methods))]


OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_TRANSFER = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


@cache
def sqlite_library() -> ctypes.CDLL:
    """The very library that the module `sqlite3` works with. AssertionError where it cannot be reached from outside."""
    maps = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = {fields[5] for fields in maps if len(fields) == 6}
    for path in [*sorted(path for path in mapped if "libsqlite3" in path), None]:
        library = ctypes.CDLL(path)
        if hasattr(library, "sqlite3_vfs_find"):
            library.sqlite3_vfs_find.restype = POINTER(Vfs)
            return library
    raise AssertionError(
        "this Python carries SQLite within itself, where no test can put a failing disk under it: "
        "run the tests with a Python that uses the system's libsqlite3, as Debian's and pyenv's do")


class _Handle:
    """An open file below the directory: its number, and whether its first sync syncs the directory too."""

    def __init__(self, file: int, name: str, methods: Methods, *, syncs_directory: bool) -> None:
        self.file = file
        self.name = name
        self.methods = methods
        self.syncs_directory = syncs_directory


class Disk:
    """The disk that holds this directory, while `at_work`. What is there already counts as synced."""

    def __init__(self, directory: Path, fault: Fault | None = None) -> None:
        self.directory = directory.resolve()
        self.acts: list[Act] = []
        self.fault = fault
        self.counts = dict.fromkeys(KINDS, 0)
        self.has_failed = False
        self.names: dict[str, int] = {}
        self.is_off = False             # what is done then goes nowhere: the process has been ended
        self.read_only: set[str] = set()        # files that nobody may write,
        self.unreadable: set[str] = set()       # or open at all
        self._numbers = iter(range(1, 1 << 30))
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if path.is_file():
                self._take_in(path)

    def _take_in(self, path: Path) -> None:
        file = self.names[path.name] = next(self._numbers)
        self.acts += [
            Act("create", file, path.name), Act("write", file, (0, path.read_bytes())), Act("sync", file),
            Act("sync", 0)]

    def mark(self, value: Any) -> None:
        """Note where in `acts` we are."""
        self.acts.append(Act("mark", 0, value))

    @contextmanager
    def at_work(self) -> Iterator[Disk]:
        """Be the disk that every new connection and `os` find."""
        with ExitStack() as undo:
            undo.enter_context(_vfs().under(self))
            for name in ("open", "pwrite", "rename", "replace", "unlink", "fsync"):
                undo.enter_context(patch.object(os, name, _OsCall(self, name, getattr(os, name))))
            yield self

    def holds(self, path: str) -> bool:
        """Whether this path is right below the directory."""
        return os.path.dirname(path) == str(self.directory)

    def verdict(self, kind: str) -> str:
        """Count an operation; return its error, or ""."""
        self.counts[kind] += 1
        fault = self.fault
        if fault is None:
            return ""
        if self.has_failed:
            is_hit = fault.for_good and (kind == fault.kind or fault.how == "EIO")
        else:
            is_hit = kind == fault.kind and self.counts[kind] == fault.nth
        self.has_failed |= is_hit
        return fault.how if is_hit else ""

    # What is done to names

    def created(self, name: str) -> int:
        """Note a new file by this name, unless there is one; its number."""
        if name not in self.names:
            self.names[name] = next(self._numbers)
            self.acts.append(Act("create", self.names[name], name))
        return self.names[name]

    def renamed(self, old: str, new: str) -> None:
        """Note that a file was renamed, and perhaps replaced another one."""
        self.names[new] = self.names.pop(old)
        self.acts.append(Act("rename", self.names[new], (old, new)))

    def deleted(self, name: str) -> None:
        """Note that a name is gone."""
        self.acts.append(Act("delete", self.names.pop(name), name))


class _OsCall:
    """A function of `os` that records its calls for the directory of the disk, and fails as the disk does."""

    def __init__(self, disk: Disk, name: str, real: Callable[..., Any]) -> None:
        self._disk = disk
        self._name = name
        self._real = real

    def __call__(self, target: Any, *others: Any, **named: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.path.abspath(target)
        if path != str(self._disk.directory) and not self._disk.holds(path):
            return self._real(target, *others, **named)
        if self._disk.is_off:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        kind = {"pwrite": "write", "replace": "rename", "unlink": "delete", "fsync": "sync"}.get(self._name, self._name)
        if how := self._disk.verdict(kind):
            if kind == "sync" and path != str(self._disk.directory):
                self._disk.acts.append(Act("lost", self._disk.names[os.path.basename(path)]))
            code = errno.EIO if how == "EIO" else errno.ENOSPC
            raise OSError(code, os.strerror(code), path)
        existed = os.path.lexists(path)
        answer = None if kind == "sync" else self._real(target, *others, **named)
        self._tell(kind, path, others, existed=existed)
        return answer

    def _tell(self, kind: str, path: str, others: tuple[Any, ...], *, existed: bool) -> None:
        disk, name = self._disk, os.path.basename(path)
        if kind == "sync":
            disk.acts.append(Act("sync", 0 if path == str(disk.directory) else disk.names[name]))
        elif kind == "write":
            disk.acts.append(Act("write", disk.names[name], (others[1], bytes(others[0]))))
        elif kind == "rename":
            disk.renamed(name, os.path.basename(others[0]))
        elif kind == "delete" and name in disk.names:
            disk.deleted(name)
        elif kind == "open" and not existed:
            disk.created(name)


class _RecordingVfs:
    """The VFS itself. There is one for the process, as SQLite keeps the address of it; it serves one disk at a time."""

    def __init__(self) -> None:
        self._library = sqlite_library()
        self._below = self._library.sqlite3_vfs_find(None)
        self._real_open = OPEN(self._below[0].open)
        self._real_delete = DELETE(self._below[0].delete)
        self._ours = Vfs.from_buffer_copy(self._below[0])
        self._ours.name = NAME.encode()
        self._callbacks = [OPEN(self._guarded(self._open)), DELETE(self._guarded(self._delete))]
        self._ours.open, self._ours.delete = [ctypes.cast(callback, c_void_p) for callback in self._callbacks]
        self._wrapped: dict[int, Methods] = {}
        self._handles: dict[int, _Handle] = {}
        self._disk: Disk | None = None
        self._mistakes: list[Exception] = []

    @contextmanager
    def under(self, disk: Disk) -> Iterator[None]:
        """Be the VFS of every connection that is opened meanwhile."""
        assert self._disk is None, "one disk at a time"
        self._disk = disk
        self._library.sqlite3_vfs_register(ctypes.byref(self._ours), 1)
        try:
            yield
        finally:
            self._library.sqlite3_vfs_register(self._below, 1)
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._ours))
            self._disk = None
            for mistake in self._mistakes:
                raise mistake

    def _guarded(self, operation: Callable[..., int]) -> Callable[..., int]:
        """The operation as SQLite may call it: an exception would be lost there, and count as success."""
        def call(*arguments: Any) -> int:
            try:
                return operation(*arguments)
            except Exception as mistake:
                self._mistakes.append(mistake)
                return IOERR
        return call

    def _open(self, vfs: int, name: int | None, file: int, flags: int, flags_out: int) -> int:
        path = ctypes.string_at(name).decode() if name else ""
        disk = self._disk
        if disk is None or not disk.holds(path):
            return self._real_open(vfs, name, file, flags, flags_out)
        opened = OpenFile.from_address(file)
        if disk.is_off or os.path.basename(path) in disk.unreadable or disk.verdict("open"):
            opened.methods = POINTER(Methods)()
            return CANTOPEN
        if os.path.basename(path) in disk.read_only:
            flags = flags & ~(OPEN_READ_WRITE | OPEN_CREATE) | OPEN_READ_ONLY
        code = self._real_open(vfs, name, file, flags, flags_out)
        if code == OK:
            name = os.path.basename(path)
            number = disk.created(name)
            methods = opened.methods[0]
            syncs_directory = bool(flags & OPEN_CREATE and flags & OPEN_JOURNAL)
            self._handles[file] = _Handle(number, name, methods, syncs_directory=syncs_directory)
            opened.methods = ctypes.pointer(self._wrap(methods))
        return code

    def _delete(self, vfs: int, name: int, syncs_directory: int) -> int:
        path = ctypes.string_at(name).decode()
        disk = self._disk
        if disk is None or not disk.holds(path):
            return self._real_delete(vfs, name, syncs_directory)
        if disk.is_off or disk.verdict("delete"):
            return SYSTEM_ERRORS["delete"]
        code = self._real_delete(vfs, name, 0)
        if code == OK:
            disk.deleted(os.path.basename(path))
            if syncs_directory:
                disk.acts.append(Act("sync", 0))
        return code

    # Files

    def _wrap(self, methods: Methods) -> Methods:
        """The methods of files like this one, with ours in the place of some."""
        address = ctypes.addressof(methods)
        if address not in self._wrapped:
            ours = Methods.from_buffer_copy(methods)
            replaced = {
                "close": _CLOSE(self._guarded(self._close)), "read": _TRANSFER(self._guarded(self._read)),
                "write": _TRANSFER(self._guarded(self._write)), "sync": SYNC(self._guarded(self._sync)),
                "truncate": _TRUNCATE(self._guarded(self._truncate))}
            for name, callback in replaced.items():
                setattr(ours, name, ctypes.cast(callback, c_void_p))
            self._callbacks += replaced.values()
            self._wrapped[address] = ours
        return self._wrapped[address]

    def _close(self, file: int) -> int:
        handle = self._handles.pop(file)
        OpenFile.from_address(file).methods = ctypes.pointer(handle.methods)
        return _CLOSE(handle.methods.close)(file)

    def _begin(self, kind: str) -> str:
        """Return the error of an operation. A file that is open after the end of its disk always fails."""
        if self._disk is None or self._disk.is_off:
            return "EIO"
        return self._disk.verdict(kind)

    def _read(self, file: int, buffer: int, size: int, offset: int) -> int:
        if self._begin("read"):
            return SYSTEM_ERRORS["read"]
        return _TRANSFER(self._handles[file].methods.read)(file, buffer, size, offset)

    def _write(self, file: int, buffer: int, size: int, offset: int) -> int:
        how = self._begin("write")
        if how == "short":
            self._really_write(file, buffer, size // 2, offset)
        if how:
            return SYSTEM_ERRORS["write"] if how == "EIO" else FULL
        return self._really_write(file, buffer, size, offset)

    def _really_write(self, file: int, buffer: int, size: int, offset: int) -> int:
        handle = self._handles[file]
        code = _TRANSFER(handle.methods.write)(file, buffer, size, offset)
        if code == OK and self._disk is not None:
            self._disk.acts.append(Act("write", handle.file, (offset, ctypes.string_at(buffer, size))))
        return code

    def _truncate(self, file: int, size: int) -> int:
        if self._begin("truncate"):
            return SYSTEM_ERRORS["truncate"]
        handle = self._handles[file]
        code = _TRUNCATE(handle.methods.truncate)(file, size)
        if code == OK and self._disk is not None:
            self._disk.acts.append(Act("truncate", handle.file, size))
        return code

    def _sync(self, file: int, flags: int) -> int:
        handle = self._handles[file]
        if self._begin("sync"):
            if self._disk is not None:
                self._disk.acts.append(Act("lost", handle.file))
            return SYSTEM_ERRORS["sync"]
        if self._disk is not None:
            self._disk.acts.append(Act("sync", handle.file))
            if handle.syncs_directory:
                self._disk.acts.append(Act("sync", 0))
        handle.syncs_directory = False
        return OK


@cache
def _vfs() -> _RecordingVfs:
    vfs = _RecordingVfs()
    # If the module knew another library, it would not know this name.
    with vfs.under(Disk(Path(os.devnull))), closing(sqlite3.connect(f"file:?vfs={NAME}", uri=True)):
        return vfs
