"""Files of an open store are deleted, replaced, truncated or moved: nothing counts as written after that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError
from amqpd.store.journal import Journal
from amqpd.store.sqlite.file_watch import FileWatch
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.sqlite.store import Store
from tests.store.store_samples import define, load, message, queue, save

ONE = queue(1)
FILES = ("amqpd.db", "amqpd.db-wal", "amqpd.lock")


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("other"))
    os.replace(path.with_name("other"), path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGE: dict[str, Callable[[Path], None]] = {
    **{f"{name} deleted": lambda directory, name=name: (directory / name).unlink() for name in FILES},
    **{f"{name} replaced": lambda directory, name=name: replace(directory / name) for name in FILES},
    **{f"{name} cut": lambda directory, name=name: cut(directory / name) for name in FILES[:2]},
    "directory deleted": shutil.rmtree,
    "directory renamed": lambda directory: directory.rename(directory.with_name("elsewhere")),
    "directory replaced": lambda directory: (
        shutil.copytree(directory, directory.with_name("copy")), shutil.rmtree(directory),
        directory.with_name("copy").rename(directory)),  # type: ignore[dict-item]  # what it returns is of no interest
}


@pytest.fixture
def filled(store: Store, journal: Journal) -> Store:
    """A store with something in its file and in its log."""
    save(store, journal)
    store.database.checkpoint()
    journal.published(ONE, [message(number, b"x" * 1000) for number in range(1, 40)])
    save(store, journal)
    store.checkpoint_if_due()
    return store


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_happens_to_open_files_is_noticed(filled: Store, journal: Journal, directory: Path, damage: str) -> None:
    filled.check_files()
    DAMAGE[damage](directory)
    with pytest.raises(StoreError, match=rf"{directory}/amqpd.* was deleted, replaced, moved or cut .*start again"):
        filled.check_files()
    journal.published(ONE, [message(50, b"lost")])
    with pytest.raises(StoreError, match="was deleted, replaced, moved or cut"):
        save(filled, journal)


def test_the_stores_own_work_is_not_taken_for_damage(
    opened: Callable[..., Store], journal: Journal, tmp_path: Path
) -> None:
    store = opened(limits=StoreLimits(largest_wal=100_000, kept_free_pages=1))
    load(store)
    numbers = range(1, 3_000)
    define(journal, ONE)
    for number in numbers:
        journal.published(ONE, [message(number, b"x" * 1000)])
        if number % 50 == 0:
            save(store, journal)
            store.checkpoint_if_due()
            store.check_files()
    store.backup(tmp_path / "copy", lambda left, total: store.check_files())
    size = store.database.path.stat().st_size
    journal.settled(ONE, numbers)
    save(store, journal)
    while store.shrink():
        store.check_files()
    store.check_files()
    assert store.database.path.stat().st_size < size
    store.close({})
    store.check_files()


def test_a_file_that_grows_while_it_is_looked_at_is_not_taken_for_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's thread writes, and notes the size, between a look of the loop at the file and what is made of it."""
    log, lock, watch = tmp_path / "log", tmp_path / "lock", FileWatch()
    log.write_bytes(b"some")
    lock.touch()
    watch.begin([log], lock)
    look = os.stat

    def grow_afterwards(path: str) -> os.stat_result:
        found = look(path)
        watch.grown(log, 8)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", grow_afterwards)
        watch.check()
    with pytest.raises(StoreError, match="it was cut to 4 bytes"):
        watch.check()
