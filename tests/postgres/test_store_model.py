"""The store in PostgreSQL against the model, with connections that break as a step besides those of every engine."""

from __future__ import annotations

from typing import Any

import psycopg
from hypothesis import settings
from hypothesis.stateful import precondition, rule

from amqpd.store.postgres.limits import StoreLimits
from amqpd.store.postgres.store import Store
from tests.postgres.servers import new_url
from tests.store.store_model import ROWS, SHORT_BLOCKS, StoreModel
from tests.store.store_samples import NOW
from tests.support.sizes import sized


class PostgresMachine(StoreModel):
    """A database."""

    def __init__(self) -> None:
        self.url = new_url()
        super().__init__()

    def open_store(self) -> Store:
        return Store.open(self.url, now=NOW, limits=StoreLimits(blocks=SHORT_BLOCKS))

    def kill(self) -> None:
        self.store.abandon()

    def rows(self) -> list[tuple[Any, ...]]:
        return self.store.database.read(ROWS)

    def teardown(self) -> None:
        self.store.abandon()

    @precondition(lambda self: not self.journal.filling.is_empty)
    @rule()
    def commit_on_a_connection_that_was_cut(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()")
        self.save()
        self.look()


TestPostgresStore = PostgresMachine.TestCase
TestPostgresStore.settings = settings(max_examples=sized(8, 60), stateful_step_count=30, deadline=None)
