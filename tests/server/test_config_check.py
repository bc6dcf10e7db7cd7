"""The configuration check finds conflicts with the data directory without a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqpd.broker.definitions import VhostDefinition
from amqpd.config import Config, load
from amqpd.server.config_check import Findings, check_config
from amqpd.store.journal import Journal
from amqpd.store.sqlite.store import Store
from tests.store.store_samples import NOW, define
from tests.store.store_samples import load as load_store
from tests.store.store_samples import query, queue

QUEUE = 'queues = [{name = "queue-1", auto_delete = true}]'
CONFLICT = "inequivalent arg 'auto_delete' for queue 'queue-1' in vhost '/': received 'true' but current is 'false'"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The data directory of a stopped store with a queue."""
    store = Store.open(tmp_path / "data", now=NOW)
    load_store(store)
    journal = Journal()
    define(journal, VhostDefinition("/"), queue(1))
    store.commit(journal.take())
    store.close({})
    return tmp_path / "data"


def check(directory: Path, text: str, *, memory: bool = False) -> Findings:
    path = directory.with_name("amqpd.toml")
    path.write_text(text)
    config: Config = load(str(path), {}, {"data_dir": str(directory), "memory": memory})
    return check_config(config, ["here"])


def test_a_conflict_with_the_store_is_found_and_the_store_stays_as_it_was(directory: Path) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "amqpd.lock"}
    (problem,), remarks = check(directory, QUEUE)
    assert problem.endswith(f"{CONFLICT}; delete what is stored or change the line") and not remarks
    assert {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "amqpd.lock"} == before


def test_what_is_stored_need_not_be_declared(directory: Path) -> None:
    assert check(directory, 'bindings = [{source = "amq.topic", destination = "queue-1"}]') == ([], [])
    (problem,), _ = check(directory, 'bindings = [{source = "amq.topic", destination = "other"}]')
    assert "no queue 'other' in vhost '/'" in problem


def test_a_broker_in_memory_has_no_store(directory: Path) -> None:
    assert check(directory, QUEUE, memory=True) == ([], [])


def test_a_directory_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    assert check(tmp_path / "none", QUEUE) == ([], [])
    assert not (tmp_path / "none").exists()


def test_the_store_of_a_running_broker_is_not_looked_at(directory: Path) -> None:
    store = Store.open(directory, now=NOW)
    found = check(directory, QUEUE + '\nbindings = [{source = "stored", destination = "stored"}]')
    store.abandon()
    assert found == ([], [f"a broker runs in {directory}: its store was not checked"])


def test_a_store_that_cannot_be_read_is_not_looked_at(directory: Path) -> None:
    query(directory, "UPDATE queue_rows SET arguments = '{'")
    problems, (remark,) = check(directory, QUEUE)
    assert not problems and remark.startswith(f"the store in {directory} was not checked: queue_rows (1,)")


def test_of_users_that_cannot_be_read_nothing_is_told(directory: Path) -> None:
    open_to_all = 'listeners = ["0.0.0.0:0"]\n'
    assert any("the only user is guest" in problem for problem in check(directory, open_to_all).problems)
    missing = directory.with_name("missing.json")
    told, = check(directory, f'{open_to_all}load_definitions = "{missing}"').problems
    assert told.startswith(f"{missing}: cannot be read")
