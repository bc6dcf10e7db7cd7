"""Fixtures of the tests that need PostgreSQL; they are left out unless they are asked for: POSTGRES=1."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

if "POSTGRES" not in os.environ:
    collect_ignore_glob = ["test_*.py"]
else:
    from amqpd.store.journal import Journal
    from amqpd.store.postgres.store import Store
    from tests.postgres.servers import new_url
    from tests.store.store_samples import NOW, define, load, queue

    @pytest.fixture
    def url() -> str:
        """The URL of a new database."""
        return new_url()

    @pytest.fixture
    def opened(url: str) -> Iterator[Callable[..., Store]]:
        """A function that opens the store there, or at another URL; open stores are abandoned at the end."""
        stores = []

        def open_store(where: str = url, **settings: Any) -> Store:
            stores.append(Store.open(where, now=NOW, **settings))
            return stores[-1]

        yield open_store
        for store in stores:
            store.abandon()

    @pytest.fixture
    def store(opened: Callable[..., Store]) -> Store:
        """An open, empty store."""
        store = opened()
        load(store)
        return store

    @pytest.fixture
    def journal() -> Journal:
        """A journal with the declarations of two queues, numbers 1 and 2, which are not committed yet."""
        journal = Journal()
        define(journal, queue(1), queue(2))
        return journal
