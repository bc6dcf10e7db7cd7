"""Fixtures of the tests of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpd.store.journal import Journal
from amqpd.store.sqlite.limits import LIMITS
from amqpd.store.sqlite.store import Store
from tests.store.kept_store import keep
from tests.store.store_samples import NOW, Whole, crash, define, load, query, queue


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def opened(directory: Path) -> Iterator[Callable[..., Store]]:
    """Return a function that opens the store, here or in another directory; open stores are abandoned at the end."""
    stores = []

    def open_store(where: Path = directory, **settings: Any) -> Store:
        stores.append(Store.open(where, now=NOW, **settings))
        return stores[-1]

    yield open_store
    for store in stores:
        store.abandon()


@pytest.fixture
def store(request: pytest.FixtureRequest, opened: Callable[..., Store]) -> Store:
    """Return an open, empty store; the parameter is its limits."""
    store = opened(limits=getattr(request, "param", LIMITS))
    load(store)
    return store


@pytest.fixture
def journal() -> Journal:
    """Return a journal with the declarations of two queues, numbers 1 and 2, which are not committed yet."""
    journal = Journal()
    define(journal, queue(1), queue(2))
    return journal


@pytest.fixture
def kept(request: pytest.FixtureRequest, directory: Path) -> Path:
    """Return the directory of a store with 300 messages after a crash; in rows of their own, or in blocks."""
    return keep(directory, in_blocks=getattr(request, "param", "rows") == "blocks")


@pytest.fixture
def after_crash(
    directory: Path, tmp_path: Path, opened: Callable[..., Store]
) -> Callable[[], Whole]:
    """Return a function that loads a copy of the files as a crash would leave them now."""
    crashes = iter(range(100))

    def recover() -> Whole:
        return load(opened(crash(directory, tmp_path / f"crash-{next(crashes)}")))

    return recover


@pytest.fixture
def on_disk(directory: Path, tmp_path: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    """Return a function that queries a copy of the files, as they are now, with plain SQLite."""
    copies = iter(range(100))

    def ask(sql: str) -> list[tuple[Any, ...]]:
        return query(crash(directory, tmp_path / f"copy-{next(copies)}"), sql)

    return ask
