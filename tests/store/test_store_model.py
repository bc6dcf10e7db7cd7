"""The store in SQLite against the model, with a full disk as a step besides those of every engine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from amqpd.store.errors import StoreFull
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.sqlite.store import Store
from tests.store.store_model import ROWS, SHORT_BLOCKS, StoreModel
from tests.store.store_samples import NOW, crash
from tests.support.sizes import sized

MOST_PAGES = 1_000_000


class StoreMachine(StoreModel):
    """A directory; after each crash a copy of it as it was then."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="amqpd-"))
        self.generation = 0
        self.directory = self.root / "0"
        super().__init__()

    def open_store(self) -> Store:
        return Store.open(self.directory, now=NOW, limits=StoreLimits(blocks=SHORT_BLOCKS))

    def kill(self) -> None:
        self.generation += 1
        crashed = crash(self.directory, self.root / str(self.generation))
        self.store.abandon()
        self.directory = crashed

    def rows(self) -> list[tuple[Any, ...]]:
        return self.store.database.connection.execute(ROWS).fetchall()

    def teardown(self) -> None:
        self.store.abandon()
        shutil.rmtree(self.root)

    @precondition(lambda self: not self.journal.filling.is_empty)
    @rule(is_killed=st.booleans())
    def commit_on_a_full_disk(self, is_killed):
        """Commit on a full disk, and again when there is room, unless the process is killed before."""
        batch = self.journal.take()
        self.limit_pages(1)
        try:
            self.store.commit(batch)
        except StoreFull:
            self.look()
            if is_killed:
                return self.crash_and_start()
            self.limit_pages(MOST_PAGES)
            self.store.commit(batch)
        self.limit_pages(MOST_PAGES)
        self.remember()
        self.look()

    def limit_pages(self, pages: int) -> None:
        """Let the file have so many pages, or as many as it has."""
        self.store.database.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=sized(12, 60), stateful_step_count=30, deadline=None)
