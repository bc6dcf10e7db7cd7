"""No content of a message can prevent a start, and no definition can end one with a traceback.

An exception is raised in each step of reading, one after the other, for one message or for all that look like it. The
other messages are restored; this one is moved to the table `damaged`, counted and logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpd import properties
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    PermissionDefinition,
    PolicyDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.queue.pages import OnDisk
from amqpd.broker.queue.segment import Budget
from amqpd.config import Config
from amqpd.errors import AmqpException, ReplyCode
from amqpd.message import MessageProperties
from amqpd.properties import read_own_properties
from amqpd.server.page_store import DiskPageStore
from amqpd.server.startup import StartError, open_broker
from amqpd.store.ballast import Ballast
from amqpd.store.errors import StoreError
from amqpd.store.journal import Journal, MemoryJournal
from amqpd.store.restoring import restore
from amqpd.store.spill import Spill
from amqpd.store.rows import reading, waiting
from amqpd.store.sqlite import block_index
from amqpd.store.sqlite.store import Store
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import checked
from tests.store.store_samples import NOW, define, load, message, query, queue, save

ONE, TWO = queue(1), queue(2)
ODD = b"\x10\x00\x01"       # properties of the message that cannot be read
ODD_NUMBER = 30
ALL = {*range(1, 61)}
ERRORS = [ValueError, KeyError, RecursionError, AmqpException(ReplyCode.SYNTAX_ERROR, "too many fields")]


@pytest.fixture
def filled(store: Store, directory: Path) -> Path:
    """A stopped store: a block of forty messages, and twenty with rows of their own that expire; one of each is odd."""
    journal = Journal()
    define(journal, VhostDefinition("/"), ONE, TWO)
    odd = {ODD_NUMBER, ODD_NUMBER + 20}
    run = [message(number, b"%d" % number, properties=ODD if number in odd else b"\x10\x00\x02") for number in ALL]
    journal.published(ONE, run[:40])
    journal.published(ONE, run[40:], {number: (NOW + 1_000) * 1_000 for number in range(41, 61)})
    save(store, journal)
    assert query_blocks(store) == 1
    store.close({})
    return directory


def query_blocks(store: Store) -> int:
    count: int = store.database.connection.execute("SELECT count(*) FROM message_blocks").fetchone()[0]
    return count


def started(data_dir: Path) -> Broker:
    """The broker that a start makes of a directory."""
    broker, storage = open_broker(Config(data_dir=data_dir), Ballast(data_dir, 0), lambda error: None)
    assert storage is not None
    storage.store.abandon()
    return broker


def failing(error: Any) -> Callable[[bytes], MessageProperties]:
    def read(octets: bytes) -> MessageProperties:
        if octets == ODD:
            raise error
        return read_own_properties(octets)

    return read


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_properties_that_cannot_be_read_cost_their_message_only(
    filled: Path, opened: Callable[..., Store], caplog: pytest.LogCaptureFixture, error: Any
) -> None:
    found = load(opened(), failing(error))
    assert {m.number for m in found.messages[1]} == ALL - {ODD_NUMBER, ODD_NUMBER + 20}
    assert found.damaged == 2 and "2 damaged messages" not in caplog.text and "damaged message" in caplog.text


def test_they_are_kept(filled: Path, opened: Callable[..., Store]) -> None:
    store = opened()
    load(store, failing(ValueError))
    store.check()
    store.close({})
    kept = query(filled, "SELECT number, body FROM damaged ORDER BY number")
    assert kept == [(number, b"%d" % number) for number in (ODD_NUMBER, ODD_NUMBER + 20)]


def test_check_finds_them_and_what_salvage_makes_starts(
    filled: Path, tmp_path: Path, opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpd.store.tools.checking.read_own_properties", failing(ValueError("too many fields")))
    monkeypatch.setattr("amqpd.store.tools.salvaging.read_own_properties", failing(ValueError("too many fields")))
    said = "has properties that cannot be read: ValueError: too many fields"
    told = [line for line in checked(filled) if line.endswith(said)]
    assert len(told) == 2
    for number, line in zip((ODD_NUMBER, ODD_NUMBER + 20), sorted(told)):
        assert line.startswith("queue 'queue-1' in vhost '/', message ") and f"(number {number})" in line
    result = salvage(filled, tmp_path / "new", NOW)
    assert result.damaged == 2 and checked(tmp_path / "new") == []
    assert len(load(opened(tmp_path / "new"), failing(ValueError)).messages[1]) == len(ALL) - 2


# A fault in each step, the k-th time it is taken

STEPS = [
    (reading, "route_of"), (reading, "frames_around"), (reading, "Message"), (reading, "names_of"),
    (reading, "are_sizes_of"), (reading, "crc32"), (waiting, "parse_block"), (block_index, "taken_apart"),
    (reading.MessageReader, "_before"), (reading.MessageReader, "_route"), (properties, "read_own_properties"),
]


@pytest.mark.parametrize("nth", [1, 2, 5, 30])
@pytest.mark.parametrize("where, step", STEPS, ids=[step for _, step in STEPS])
def test_a_fault_in_a_step_costs_one_message_at_most_and_no_start(
    filled: Path, opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, where: Any, step: str, nth: int
) -> None:
    calls = 0
    real = getattr(where, step)

    def faulty(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise ArithmeticError("injected")
        return real(*arguments, **named)

    monkeypatch.setattr(where, step, faulty)
    store = opened()
    found = load(store, properties.read_own_properties)
    numbers = {m.number for m in found.messages[1]}
    aside = {number for number, in store.database.connection.execute("SELECT number FROM damaged")}
    assert numbers | aside == ALL and len(aside) <= 1 and not numbers & aside
    store.check()
    store.close({})
    monkeypatch.undo()
    again = load(opened(), read_own_properties)
    assert {m.number for m in again.messages[1]} == numbers


def test_a_block_that_cannot_be_taken_apart_is_left_as_it_is(
    filled: Path, opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, step in ((waiting, "parse_block"), (block_index, "taken_apart")):
        monkeypatch.setattr(where, step, lambda *_: 1 // 0)
    store = opened()
    found = load(store, read_own_properties)
    assert {m.number for m in found.messages[1]} == {*range(41, 61)}
    assert query_blocks(store) == 1, "it is not lost"
    store.abandon()
    monkeypatch.undo()
    assert {m.number for m in load(opened(), read_own_properties).messages[1]} == ALL


# What is not read is not lost

def test_after_a_read_that_failed_nothing_is_written(
    filled: Path, tmp_path: Path, opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, failures = opened(), list[StoreError]()
    load(store, read_own_properties)
    page_store = DiskPageStore(store, Spill(tmp_path, read_own_properties), Budget(1), failures.append)
    monkeypatch.setattr(store, "fetch", fail)
    assert page_store.fetch(OnDisk([1, 2, 3])) == [] and failures
    journal = Journal()
    journal.settled(ONE, [1, 2, 3])
    with pytest.raises(StoreError, match="cannot be read"):
        store.commit(journal.take())
    store.abandon()
    monkeypatch.undo()
    assert {m.number for m in load(opened(), read_own_properties).messages[1]} == ALL


def fail(numbers: list[int]) -> None:
    raise StoreError("it cannot be read")


# Definitions

ODD_ROWS = [
    ("INSERT INTO exchanges VALUES ('/', 'e', 'x-unknown', 0, 0, '{}')", "exchange 'e' in vhost '/'"),
    ("INSERT INTO bindings VALUES ('/', 'amq.topic', 'queue', 'gone', 'a', '{}')",
     "binding of queue 'gone' to exchange 'amq.topic' in vhost '/'"),
    ("INSERT INTO bindings VALUES ('/', 'gone', 'queue', 'queue-1', 'a', '{}')",
     "binding of queue 'queue-1' to exchange 'gone' in vhost '/'"),
    ("INSERT INTO queue_rows VALUES (7, 'nowhere', 'q', 0, '{}', 0, 0)", "queue 'q' in vhost 'nowhere'"),
    ("INSERT INTO permissions VALUES ('nobody', '/', '', '', '')", "permissions of user 'nobody' in vhost '/'"),
    ("UPDATE queue_rows SET arguments = '[1]' WHERE number = 2", "queue_rows (2,"),
]


@pytest.mark.parametrize("sql, told", ODD_ROWS, ids=[told for _, told in ODD_ROWS])
def test_a_definition_that_cannot_be_restored_is_one_line_and_salvage_leaves_it_out(
    filled: Path, tmp_path: Path, opened: Callable[..., Store], sql: str, told: str
) -> None:
    query(filled, sql)
    assert [finding for finding in checked(filled) if finding.startswith(told)]
    with pytest.raises(StartError, match=re.escape(told)) as caught:
        started(filled)
    assert "\n" not in str(caught.value) and "amqpd store salvage" in str(caught.value)
    assert caught.value.exit_code == 74
    salvage(filled, tmp_path / "new", NOW)
    assert checked(tmp_path / "new") == []
    broker = started(tmp_path / "new")
    assert isinstance(broker, Broker)
    assert sum(len(q.ready) for q in broker.vhosts["/"].queues.values()) == len(ALL)
    assert BindingDefinition("/", "amq.topic", "queue", "gone", "a") not in broker.vhosts["/"].bindings()


def test_stored_patterns_that_cannot_be_used_do_not_stop_a_start_and_match_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An earlier version may have taken them."""
    permission = PermissionDefinition("u", "/", "(", ".*", ".*")
    policy = PolicyDefinition("/", "p", "(", {"max-length": 1})
    broker = Broker(MemoryJournal())
    assert restore(broker, [VhostDefinition("/"), UserDefinition("u"), permission, policy]) == []
    assert broker.users["u"].may("/", "write", "(") and not broker.users["u"].may("/", "configure", "(")
    assert broker.vhosts["/"].policies.of_exchange("(").policy is None
    assert [line.partition(" of ")[2].partition(" matches")[0] for line in caplog.messages] == [
        "policy 'p' in vhost '/'", "the configure permission of user 'u' in vhost '/'"]
