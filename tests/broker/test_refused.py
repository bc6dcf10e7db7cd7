"""Dead letters that a full queue refuses: they wait, on disk if needed, and are moved when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest

from amqpd.broker.access import Operator
from amqpd.broker.clock import Clock
from amqpd.broker.dead_letter_router import RETRY_MS, RETRY_STEPS
from amqpd.broker.definitions import BindingDefinition, QueueDefinition
from amqpd.broker.effort import Effort
from amqpd.broker.queue.dead_letters import DeadLetters
from amqpd.broker.queue.page_limits import PAGE_MESSAGES
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import PIECE, Worklist
from tests.support.journals import RecordingJournal
from tests.support.page_stores import PageStoreInMemory
from tests.support.samples import message

OPERATOR = Operator()
SURE = {
    "x-queue-type": "quorum", "x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once",
    "x-dead-letter-exchange": "amq.direct", "x-dead-letter-routing-key": "dead", "x-message-ttl": 1}
PAGES = 3 * PAGE_MESSAGES


class Scene:
    """A vhost with a full queue `full`, to which messages are dead-lettered."""

    def __init__(self) -> None:
        self.numbers = count(1)
        self.journal = RecordingJournal()
        self.page_store = PageStoreInMemory(self.journal.read)
        self.clock = Clock(1_000, 1_000_000)
        self.effort = Effort()
        self.worklist = Worklist(self.effort)
        self.vhost = Vhost(
            "/", self.journal, lambda: next(self.numbers), lambda: next(self.numbers), self.clock, self.page_store,
            self.worklist)
        self.full = self.declare("full", {"x-max-length": 0, "x-overflow": "reject-publish"})
        self.bind("full")

    def bind(self, name: str, *, is_bound: bool = True) -> None:
        change = self.vhost.bind if is_bound else self.vhost.unbind
        change(OPERATOR, BindingDefinition("/", "amq.direct", "queue", name, "dead", {}), self)

    def declare(self, name: str, arguments: dict[str, Any]) -> Queue:
        return self.vhost.declare_queue(
            OPERATOR, QueueDefinition(0, "/", name, durable=True, arguments=arguments), owner=self)

    def publish(self, queue: Queue, count: int, *, persistent: bool = True) -> None:
        first = next(self.numbers)
        self.numbers = iter(range(first + count, 1 << 40))  # type: ignore[assignment]
        queue.publish([message(first + n, b"%d" % n, persistent=persistent) for n in range(count)])
        self.journal.commit()
        self.page_store.safe_number = first + count - 1

    def pass_time(self, milliseconds: int = RETRY_MS) -> None:
        """Let time pass, and do all that is to be done."""
        self.clock.advance(self.clock.now_ms + milliseconds)
        self.worklist.work_off()

    def make_room(self, most: int) -> None:
        self.full.apply(msgspec.structs.replace(self.full.rules, max_length=most))

    def stored(self, queue: Queue) -> int:
        return len(self.journal.now.messages[queue.definition.number])


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.vhost.check()


def bodies(queue: Queue) -> list[bytes]:
    return [one.body for one in queue.ready]


def test_very_many_queues_are_tried_again_in_pieces_and_for_little(scene: Scene) -> None:
    sources = [scene.declare(f"q{number}", SURE) for number in range(400)]
    for source in sources:
        scene.publish(source, 1)
    scene.pass_time()
    wake_ups = [when_ms for when_ms, number in scene.clock._asleep
                if scene.clock._sleepers.get(number) is scene.vhost.dead_letters]
    assert wake_ups == [scene.clock.now_ms + RETRY_MS], "there is one for all"
    for _ in range(3):
        scene.clock.advance(scene.clock.now_ms + RETRY_MS)
        before, pieces = scene.effort.total, 0
        while not scene.worklist.is_empty:
            start = scene.effort.total
            scene.effort.stop = start
            scene.worklist.work()
            pieces += 1
            assert scene.effort.total - start < PIECE + 100
        assert 2 < pieces < 20
        assert scene.effort.total - before == RETRY_STEPS * len(sources)
    scene.make_room(400)
    scene.pass_time()
    assert len(scene.full.ready) == 400
    assert not any(map(scene.stored, sources)) and scene.stored(scene.full) == 400
    scene.pass_time()
    assert not scene.vhost.dead_letters._refused


@pytest.mark.parametrize("persistent", [True, False])
def test_what_is_refused_goes_to_disk_and_comes_back_in_order(scene: Scene, persistent: bool) -> None:
    source = scene.declare("source", SURE)
    scene.publish(source, PAGES, persistent=persistent)
    scene.pass_time()
    in_memory = scene.page_store.budget.used
    assert in_memory > 300 * PAGES
    for large in scene.page_store.budget.largest(0, 10):
        large.page_out(1 << 30)
    scene.page_store.write_spill_files()
    assert scene.page_store.budget.used < in_memory // 2
    scene.make_room(PAGES - 5)
    scene.page_store.is_open = False
    scene.pass_time()
    assert PAGE_MESSAGES <= len(scene.full.ready) < PAGES - 5
    scene.page_store.is_open = True
    while scene.page_store.is_waited_for:
        scene.page_store.serve()
        scene.worklist.work_off()
    assert bodies(scene.full) == [b"%d" % n for n in range(PAGES - 5)]
    scene.make_room(PAGES)
    scene.pass_time()
    assert bodies(scene.full) == [b"%d" % n for n in range(PAGES)]
    assert scene.stored(source) == source.dead_letters.moving == 0
    assert not any(spill_file.left for spill_file in scene.page_store.spill_files)
    scene.page_store.budget.largest(0, 10)
    assert [*scene.page_store.budget.large] == [scene.full.pager]


def test_what_a_deleted_queue_had_refused_is_dropped(scene: Scene) -> None:
    source = scene.declare("source", SURE)
    used = scene.page_store.budget.used
    scene.publish(source, PAGES, persistent=False)
    scene.pass_time()
    for large in scene.page_store.budget.largest(0, 10):
        large.page_out(1 << 30)
    scene.page_store.write_spill_files()
    assert any(spill_file.left for spill_file in scene.page_store.spill_files)
    scene.vhost.topology.remove_queue(source)
    scene.pass_time()
    assert not any(spill_file.left for spill_file in scene.page_store.spill_files)
    assert scene.page_store.budget.used == used and not scene.vhost.dead_letters._refused


def test_one_that_cannot_be_read_any_more_is_forgotten(scene: Scene) -> None:
    source = scene.declare("source", SURE)
    scene.publish(source, PAGES)
    scene.pass_time()
    for large in scene.page_store.budget.largest(0, 10):
        large.page_out(1 << 30)
    read = scene.page_store._read
    scene.page_store._read = lambda numbers: [one for one in read(numbers) if one.body != b"%d" % (PAGES - 5)]
    scene.make_room(PAGES)
    scene.pass_time()
    assert bodies(scene.full) == [b"%d" % n for n in range(PAGES) if n != PAGES - 5]
    assert scene.stored(source) == source.dead_letters.moving == 0


def test_what_is_refused_goes_where_the_routes_lead_later(scene: Scene) -> None:
    source = scene.declare("source", SURE)
    scene.publish(source, 3)
    scene.pass_time()
    other = scene.declare("other", {})
    scene.bind("other")
    scene.pass_time()
    assert not other.ready, "not as long as one of its queues refuses it"
    scene.bind("full", is_bound=False)
    scene.pass_time()
    assert bodies(other) == [b"0", b"1", b"2"] and scene.stored(source) == 0


def test_an_earlier_one_that_is_refused_later_is_the_next(scene: Scene) -> None:
    source = scene.declare("source", {key: value for key, value in SURE.items() if key != "x-message-ttl"} | {
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "limited"})
    limited = scene.declare("limited", {"x-max-length-bytes": 3, "x-overflow": "reject-publish"})
    first, second = message(next(scene.numbers), b"tiny"[:2]), message(next(scene.numbers), b"large")
    limited.publish([message(next(scene.numbers), b"xx")])
    source.publish([first, second])
    taken = [source.get(no_ack=False), source.get(no_ack=False)]
    for one in reversed(taken):
        assert one is not None
        source.reject([one])
        scene.worklist.work_off()
    limited.get(no_ack=True)
    scene.pass_time()
    assert bodies(limited) == [b"ti"]


def test_an_error_sets_aside_what_was_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scene.declare("source", SURE)
    scene.publish(source, 2)
    scene.pass_time()
    scene.make_room(2)

    def fail(self: DeadLetters, run: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(DeadLetters, "moved", fail)
        scene.pass_time()
    assert len(source.dead_letters.aside) == 2
