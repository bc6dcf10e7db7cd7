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
    """Opens the store, here or in another directory; what is still open at the end is let go of."""
    stores = []

    def open_store(where: Path = directory, **settings: Any) -> Store:
        stores.append(Store.open(where, now=NOW, **settings))
        return stores[-1]

    yield open_store
    for store in stores:
        store.abandon()


@pytest.fixture
def store(request: pytest.FixtureRequest, opened: Callable[..., Store]) -> Store:
    """An open store with nothing in it; its parameter is its limits."""
    store = opened(limits=getattr(request, "param", LIMITS))
    load(store)
    return store


@pytest.fixture
def journal() -> Journal:
    """A journal that has two queues, numbers 1 and 2, to be saved with whatever comes next."""
    journal = Journal()
    define(journal, queue(1), queue(2))
    return journal


@pytest.fixture
def kept(request: pytest.FixtureRequest, directory: Path) -> Path:
    """The directory of a store with three hundred messages, which was not stopped cleanly; a row each, or in blocks."""
    return keep(directory, in_blocks=getattr(request, "param", "rows") == "blocks")


@pytest.fixture
def after_crash(
    directory: Path, tmp_path: Path, opened: Callable[..., Store]
) -> Callable[[], Whole]:
    """What a new broker finds if the one at hand is killed now."""
    crashes = iter(range(100))

    def recover() -> Whole:
        return load(opened(crash(directory, tmp_path / f"crash-{next(crashes)}")))

    return recover


@pytest.fixture
def on_disk(directory: Path, tmp_path: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    """Asks a copy of the files as they are now, with plain SQLite."""
    copies = iter(range(100))

    def ask(sql: str) -> list[tuple[Any, ...]]:
        return query(crash(directory, tmp_path / f"copy-{next(copies)}"), sql)

    return ask
