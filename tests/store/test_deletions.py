"""A deletion in slices is atomic for a crash: a queue or exchange is there with all its bindings, or with none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    QueueDefinition,
    VhostDefinition,
)
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.vhost import Vhost
from amqpd.store.journal import Journal, MemoryJournal
from amqpd.store.restoring import restore
from amqpd.store.sqlite.store import Store
from amqpd.store.tools.checking import findings
from amqpd.store.tools.stopped import reading
from tests.store.store_samples import Whole, crash, define, load, query, save
from tests.support.samples import message

MANY = 200          # bindings: more than one piece removes
DELETE: dict[str, Callable[[Vhost], object]] = {
    "queue": lambda vhost: vhost.delete_queue(OPERATOR, "q", OPERATOR),
    "exchange": lambda vhost: vhost.delete_exchange(OPERATOR, "x"),
    "source": lambda vhost: vhost.delete_exchange(OPERATOR, "from"),
}


class Scene:
    """A broker on a store: the exchange `from` is bound to `x` by many keys, and `x` to the queues `q` and `other`."""

    def __init__(self, store: Store) -> None:
        self.journal = Journal()
        self.store = store
        self.broker = Broker(self.journal, first_number=store.first_number)
        self.broker.add_vhost(VhostDefinition("/"))
        self.vhost = self.broker.vhosts["/"]
        for name in "from", "x":
            self.vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", name, "topic", durable=True))
        for name in "q", "other":
            self.declare_queue(name)
        for n in range(MANY):
            self.bind("from", "exchange", "x", f"k{n}")
            self.bind("x", "queue", "q", f"k{n}")
        self.bind("x", "queue", "other", "last")
        self.vhost.queues["q"].publish([message(store.first_number + 500, persistent=True)])
        self.save()

    def declare_queue(self, name: str) -> None:
        self.vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, durable=True), OPERATOR)

    def bind(self, source: str, kind: Any, destination: str, key: str) -> None:
        self.vhost.bind(OPERATOR, BindingDefinition("/", source, kind, destination, key), OPERATOR)

    def save(self) -> None:
        save(self.store, self.journal)

    def delete(self, what: str) -> None:
        with suppress(MessageNotLoaded):
            DELETE[what](self.vhost)
        assert self.vhost.leaving.has_work, "all left at once"

    def pieces(self) -> Iterator[None]:
        """Each piece of what is to be done, and the commit of it."""
        self.save()
        yield
        while self.vhost.leaving.has_work:
            self.vhost.leaving.work()
            self.save()
            yield


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


def restored(found: Whole) -> Vhost:
    """The vhost that a start builds."""
    broker = Broker(MemoryJournal())
    assert not restore(broker, found.definitions)
    broker.vhosts["/"].check()
    return broker.vhosts["/"]


def bindings_of(vhost: Vhost) -> list[tuple[str, str, str]]:
    return sorted((binding.source, binding.destination, binding.routing_key) for binding in vhost.bindings())


@pytest.mark.parametrize("what", DELETE)
def test_a_crash_at_any_step_brings_back_all_or_nothing(
    scene: Scene, after_crash: Callable[[], Whole], what: str
) -> None:
    before = bindings_of(restored(after_crash()))
    assert len(before) == 2 * MANY + 1
    scene.delete(what)
    assert bindings_of(restored(after_crash())) == before, "a deletion that is not written counts"
    steps = 0
    for _ in scene.pieces():
        found = after_crash()
        now = restored(found)
        assert now.queues.keys() == scene.vhost.queues.keys()
        assert now.exchanges.keys() == scene.vhost.exchanges.keys()
        expected = [ends for ends in before if {"queue": "q", "exchange": "x", "source": "from"}[what] not in ends]
        assert bindings_of(now) == expected
        assert sum(map(len, found.messages.values())) == (what != "queue")
        steps += 1
    assert steps > 3
    assert bindings_of(scene.vhost) == bindings_of(now)


def test_a_start_finishes_a_deletion_for_good(
    scene: Scene, directory: Path, tmp_path: Path, opened: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    scene.delete("queue")
    scene.save()
    crashed = crash(directory, tmp_path / "crashed")
    left = query(crashed, "SELECT count(*) FROM bindings WHERE destination = 'q'")[0][0]
    assert 0 < left < MANY
    assert query(crashed, "SELECT value FROM meta WHERE key = 'unfinished'") == [(1,)]
    with reading(crashed / "amqpd.db") as (connection, _):
        assert not [*findings(connection)], "what a deletion has left is taken for damage"
    with caplog.at_level(logging.INFO):
        store = opened(crashed)
        load(store)
    assert f"{left} bindings and exchanges removed" in caplog.text
    store.abandon()
    assert query(crashed, "SELECT count(*) FROM bindings WHERE destination = 'q'") == [(0,)]
    assert not query(crashed, "SELECT value FROM meta WHERE key = 'unfinished'")


def test_the_bindings_of_a_queue_declared_anew_stay(scene: Scene, after_crash: Callable[[], Whole]) -> None:
    scene.delete("queue")
    for _ in scene.pieces():
        if scene.vhost.leaving.has_work:
            with pytest.raises(MessageNotLoaded):
                scene.declare_queue("q")
    scene.declare_queue("q")
    for key in "k0", "new":
        scene.bind("x", "queue", "q", key)
    scene.save()
    assert [ends for ends in bindings_of(restored(after_crash())) if "q" in ends] == [
        ("x", "q", "k0"), ("x", "q", "new")]


def test_a_queue_is_declared_anew_in_the_batch_in_which_the_old_one_has_left(
    scene: Scene, after_crash: Callable[[], Whole]
) -> None:
    scene.delete("queue")
    scene.broker.worklist.work_off()
    scene.declare_queue("q")
    scene.bind("x", "queue", "q", "k0")
    scene.delete("source")
    scene.save()
    assert [ends for ends in bindings_of(restored(after_crash())) if "q" in ends] == [("x", "q", "k0")]


def test_a_vhost_that_goes_in_the_middle_of_a_deletion_leaves_nothing_unfinished(
    scene: Scene, after_crash: Callable[[], Whole], on_disk: Callable[[str], list[tuple[int]]]
) -> None:
    scene.broker.add_vhost(VhostDefinition("stays"))
    scene.delete("queue")
    scene.save()
    scene.broker.delete_vhost("/")
    scene.save()
    assert on_disk("SELECT value FROM meta WHERE key = 'unfinished'") == [(0,)]
    assert after_crash().definitions == [VhostDefinition("stays")]


def test_two_vhosts_are_finished_with_the_second(
    scene: Scene, on_disk: Callable[[str], list[tuple[int]]]
) -> None:
    scene.journal.unfinished(True)      # another vhost
    scene.delete("queue")
    unfinished = "SELECT value FROM meta WHERE key = 'unfinished'"
    scene.save()
    assert on_disk(unfinished) == [(2,)]
    scene.broker.worklist.work_off()
    scene.save()
    assert on_disk(unfinished) == [(1,)]
    scene.journal.unfinished(False)
    scene.save()
    assert on_disk(unfinished) == [(0,)]


STRAYS: dict[str, list[Definition]] = {
    "queue": [BindingDefinition("/", "amq.topic", "queue", "gone")],
    "source": [BindingDefinition("/", "gone", "queue", "q")],
    "exchange": [BindingDefinition("/", "amq.topic", "exchange", "gone")],
    "auto-delete": [
        ExchangeDefinition("/", "a", "fanout", durable=True, auto_delete=True),
        ExchangeDefinition("/", "b", "fanout", durable=True, auto_delete=True),
        BindingDefinition("/", "amq.topic", "exchange", "a"), BindingDefinition("/", "a", "exchange", "b"),
        BindingDefinition("/", "b", "queue", "gone")],
}
KEPT: list[Definition] = [
    VhostDefinition("/"), ExchangeDefinition("/", "unbound", "fanout", durable=True, auto_delete=True),
    ExchangeDefinition("/", "x", "fanout", durable=True, auto_delete=True), QueueDefinition(1, "/", "q", durable=True),
    BindingDefinition("/", "amq.topic", "exchange", "amq.fanout"), BindingDefinition("/", "x", "queue", "q")]


@pytest.mark.parametrize("strays", STRAYS.values(), ids=STRAYS)
def test_a_start_removes_what_has_lost_an_end_and_nothing_else(
    store: Store, after_crash: Callable[[], Whole], strays: list[Definition]
) -> None:
    journal = Journal()
    define(journal, *KEPT, *strays)
    journal.unfinished(True)
    save(store, journal)
    found = after_crash().definitions
    assert len(found) == len(KEPT) and all(definition in found for definition in KEPT)


@pytest.mark.parametrize("strays", STRAYS.values(), ids=STRAYS)
def test_without_an_unfinished_deletion_a_lost_end_is_damage(
    store: Store, after_crash: Callable[[], Whole], strays: list[Definition]
) -> None:
    journal = Journal()
    define(journal, *KEPT, *strays)
    journal.unfinished(True)
    journal.unfinished(False)
    save(store, journal)
    found = after_crash().definitions
    assert all(definition in found for definition in strays)
    assert restore(Broker(MemoryJournal()), found)


def test_bindings_of_a_vhost_that_is_not_there_are_damage(store: Store, after_crash: Callable[[], Whole]) -> None:
    journal = Journal()
    define(journal, stray := BindingDefinition("gone", "x", "queue", "q"))
    journal.unfinished(True)
    save(store, journal)
    assert after_crash().definitions == [stray]
