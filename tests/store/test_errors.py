"""The remedy in the error after a failed system call."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError, StoreFull, from_system
from amqpd.store.sqlite.connecting import connect


@pytest.mark.parametrize("number, remedy", [
    (errno.EPERM, "check the permissions of {}"),
    (errno.EACCES, "check the permissions of {}"),
    (errno.EROFS, "the file system can only be read, choose another directory"),
    (errno.EDQUOT, "the quota of this user is used up, free some of it"),
    (errno.EEXIST, "move it away, or choose another path"),
    (errno.EISDIR, "move it away, or choose another path"),
    (errno.ENAMETOOLONG, "choose a shorter name"),
    (errno.EMFILE, "let the process open more files (ulimit -n)"),
    (errno.EIO, "check its disk"),
    (errno.EINVAL, "check its disk and its permissions"),
])
def test_a_remedy_fits_what_the_system_says(tmp_path: Path, number: int, remedy: str) -> None:
    error = from_system(OSError(number, os.strerror(number)), tmp_path, "make")
    assert str(error) == f"cannot make {tmp_path} ({os.strerror(number)}): {remedy.format(tmp_path)}"


def test_a_full_disk_is_an_error_that_may_pass(tmp_path: Path) -> None:
    error = from_system(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert isinstance(error, StoreFull) and str(error) == f"no space left for {tmp_path}: free some on its disk"


def test_what_is_missing_is_not_a_matter_of_permissions(tmp_path: Path) -> None:
    error = OSError(errno.ENOENT, "No such file or directory")
    below = tmp_path / "none" / "file"
    assert str(from_system(error, below)).endswith(f": make the directory {below.parent} first, or choose another path")
    assert "permission" not in str(from_system(error, tmp_path / "file"))


def test_a_file_on_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = from_system(OSError(errno.ENOTDIR, "Not a directory"), tmp_path / "file" / "below" / "it")
    assert str(error).endswith(f": {tmp_path}/file is not a directory, choose another path")


def test_a_directory_that_this_user_may_not_pass_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    error = from_system(OSError(errno.EACCES, "Permission denied"), tmp_path / "below" / "it")
    assert str(error).endswith(f": check the permissions of {tmp_path}")


def test_a_file_that_cannot_be_opened_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="amqpd.db"):
        connect(tmp_path / "amqpd.db")
