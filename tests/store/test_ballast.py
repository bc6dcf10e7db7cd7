"""The ballast: it really uses the disk, is freed when the disk is full, and is rebuilt when there is room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpd.store import ballast as ballast_module
from amqpd.store.ballast import BALLAST, Ballast, allocate
from amqpd.store.errors import StoreError, StoreFull, StoreLocked

SIZE = 4 << 20


class Step:
    """Something that fails this often before it is done."""

    def __init__(self, *errors: StoreError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def ballast(tmp_path: Path) -> Ballast:
    """A ballast that is there."""
    ballast = Ballast(tmp_path, SIZE)
    assert ballast.ensure()
    return ballast


@pytest.fixture
def set_free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that sets the free bytes of the disk."""
    return lambda octets: monkeypatch.setattr(ballast_module, "free_bytes", lambda directory: octets)


def file_of(ballast: Ballast) -> Path:
    return ballast._path


def test_making_it_leaves_no_descriptor_open(ballast: Ballast) -> None:
    before = os.listdir("/dev/fd")
    for _ in range(3):
        file_of(ballast).unlink()
        assert ballast.ensure()
    assert os.listdir("/dev/fd") == before


def test_it_takes_its_size_on_the_disk_and_is_the_owner_s_only(ballast: Ballast) -> None:
    found = file_of(ballast).stat()
    assert (found.st_size, found.st_mode & 0o777) == (SIZE, 0o600)
    assert found.st_blocks * 512 >= SIZE


def test_where_nothing_can_be_reserved_zeroes_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with (tmp_path / "file").open("wb") as file:
        allocate(file.fileno(), SIZE + 5)
    found = (tmp_path / "file").stat()
    assert found.st_size == SIZE + 5 and found.st_blocks * 512 >= SIZE


def test_it_is_kept_as_it_is_and_made_anew_where_it_is_not_whole(ballast: Ballast, tmp_path: Path) -> None:
    number = file_of(ballast).stat().st_ino
    assert ballast.ensure() and file_of(ballast).stat().st_ino == number
    os.truncate(file_of(ballast), 0)
    os.truncate(file_of(ballast), SIZE)         # a hole
    assert ballast.ensure() and file_of(ballast).stat().st_blocks * 512 >= SIZE
    other = Ballast(tmp_path, 2 * SIZE)
    assert other.ensure() and file_of(other).stat().st_size == 2 * SIZE


def test_it_is_not_made_where_less_than_twice_its_size_is_free(
    tmp_path: Path, set_free: Callable[[int], None]
) -> None:
    set_free(2 * SIZE - 1)
    ballast = Ballast(tmp_path, SIZE)
    assert not ballast.ensure() and not (tmp_path / BALLAST).exists()
    set_free(2 * SIZE)
    assert ballast.ensure() and (tmp_path / BALLAST).exists()


def test_a_size_of_0_takes_it_away(ballast: Ballast, tmp_path: Path) -> None:
    assert Ballast(tmp_path, 0).ensure() and not file_of(ballast).exists()


def test_what_is_done_with_room_is_done_once(ballast: Ballast) -> None:
    step = Step()
    assert ballast.with_room(step) == "done" and step.calls == 1
    assert file_of(ballast).exists() and not ballast.is_spent


def test_a_full_disk_frees_it_and_the_same_is_done_again(ballast: Ballast) -> None:
    log: list[str] = []
    ballast.on_spent = lambda: log.append("spent")
    step = Step(StoreFull("full"))
    assert ballast.with_room(step) == "done" and step.calls == 2
    assert log == ["spent"] and ballast.is_spent and not file_of(ballast).exists()


def test_a_disk_that_is_full_again_is_the_end(ballast: Ballast) -> None:
    step = Step(StoreFull("full"), StoreFull("full again"))
    with pytest.raises(StoreFull, match="full again"):
        ballast.with_room(step)
    with pytest.raises(StoreFull, match="and again"):
        ballast.with_room(Step(StoreFull("and again")))
    assert step.calls == 2


@pytest.mark.parametrize("error", [StoreError("broken"), StoreLocked("held")])
@pytest.mark.parametrize("is_start", [True, False])
def test_no_other_error_is_tried_again(ballast: Ballast, error: StoreError, *, is_start: bool) -> None:
    step = Step(error)
    with pytest.raises(StoreError, match=str(error)):
        ballast.with_room(step, is_start=is_start)
    assert step.calls == 1 and file_of(ballast).exists()


def test_at_the_start_whatever_fails_on_a_full_disk_is_tried_again(
    ballast: Ballast, set_free: Callable[[int], None]
) -> None:
    set_free(4_096)
    assert ballast.with_room(Step(StoreError("disk I/O error")), is_start=True) == "done"
    with pytest.raises(StoreError):
        ballast.with_room(Step(StoreError("disk I/O error")))


def test_a_directory_that_is_not_there_yet_has_no_ballast(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot make"):
        Ballast(tmp_path / "none", SIZE).with_room(Step(StoreError("cannot make")), is_start=True)


def test_it_is_made_again_when_twice_its_size_is_free(ballast: Ballast, set_free: Callable[[int], None]) -> None:
    ballast.with_room(Step(StoreFull("full")))
    set_free(2 * SIZE - 1)
    assert not ballast.ensure() and ballast.is_spent
    set_free(2 * SIZE)
    assert ballast.ensure() and not ballast.is_spent and file_of(ballast).exists()


def test_a_ballast_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ballast_module, "allocate", refuse)
    assert not Ballast(tmp_path, SIZE).ensure() and not (tmp_path / BALLAST).exists()
