"""Dead letters are moved in slices: in order, each exactly once, whatever fails, and with little memory."""

from __future__ import annotations

import logging
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any

import pytest
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from amqpd.broker.access import Operator
from amqpd.broker.clock import WAKE_STEPS, Clock
from amqpd.broker.dead_letter import DeadCopies, DeadLetterRoute
from amqpd.broker.dead_letter_router import STEPS_A_MESSAGE
from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition
from amqpd.broker.effort import SLICE, Effort
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.message import Message, pack_content
from amqpd.properties import read_properties
from tests.support.journals import RecordingJournal
from tests.support.samples import FRAME_MAX, message, route

OPERATOR = Operator()
TO_DEAD_LETTER_QUEUES = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


class Scene:
    """A vhost with a durable queue `source` whose messages expire after 1 s into the queue `dead`."""

    def __init__(self, **arguments: Any) -> None:
        self.numbers = count(1)
        self.journal = RecordingJournal()
        self.clock = Clock(1_000, 1_000_000)
        self.effort = Effort()
        self.vhost = Vhost(
            "/", self.journal, lambda: next(self.numbers), lambda: next(self.numbers), self.clock,
            worklist=Worklist(self.effort))
        self.dead = self.declare("dead")
        self.source = self.declare("source", {"x-message-ttl": 1_000} | TO_DEAD_LETTER_QUEUES | arguments)

    def declare(self, name: str, arguments: dict[str, Any] | None = None) -> Queue:
        definition = QueueDefinition(0, "/", name, durable=True, arguments=arguments or {})
        return self.vhost.declare_queue(OPERATOR, definition, owner=self)

    def publish(self, queue: Queue, count: int) -> list[Message]:
        run = [message(next(self.numbers), b"%d" % number, persistent=True) for number in range(count)]
        self.effort.begin()
        queue.publish(run)
        return run

    def expire(self) -> None:
        self.effort.begin()
        self.clock.advance(self.clock.now_ms + 1_000)

    def bodies(self, queue: Queue) -> list[bytes]:
        return [one.body for one in queue.ready]

    def stored(self, queue: Queue) -> list[bytes]:
        return self.journal.now.bodies(queue.name)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.vhost.check()


def bodies(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_many_are_moved_in_slices_in_order_and_each_is_in_one_queue_at_every_moment(scene: Scene) -> None:
    many = 5 * SLICE // STEPS_A_MESSAGE
    scene.publish(scene.source, many)
    scene.expire()
    slices = 0
    while not scene.vhost.worklist.is_empty:
        before = scene.effort.total
        scene.effort.begin()
        scene.vhost.worklist.work()
        assert scene.effort.total - before <= SLICE + 2 * PIECE + STEPS_A_MESSAGE
        assert len(scene.stored(scene.source)) + len(scene.stored(scene.dead)) == many
        slices += 1
    assert slices >= 5
    assert scene.bodies(scene.dead) == scene.stored(scene.dead) == bodies(many)


def test_what_a_queue_refuses_is_dead_lettered_and_was_never_in_it() -> None:
    scene = Scene(**{"x-max-length": 1, "x-overflow": "reject-publish-dlx"})
    scene.publish(scene.source, 3)
    scene.vhost.worklist.work_off()
    assert (scene.bodies(scene.source), scene.bodies(scene.dead)) == ([b"0"], [b"1", b"2"])
    statistics = scene.source.statistics()
    assert (statistics.settled, statistics.dead_lettered, scene.source.dead_letters.moving) == (0, 0, 0)
    scene.vhost.check()


def test_another_queue_s_dead_letters_do_not_wait_for_those_of_a_long_one(scene: Scene) -> None:
    other = scene.declare("other", {"x-max-length": 1} | TO_DEAD_LETTER_QUEUES)
    scene.publish(scene.source, 10 * SLICE // STEPS_A_MESSAGE)
    scene.expire()
    scene.publish(other, 2)
    scene.effort.begin()
    scene.vhost.worklist.work()
    assert b"0" in scene.bodies(scene.dead) and not scene.vhost.worklist.is_empty
    assert not scene.stored(other)[1:], "the first of the other queue has been moved"
    scene.vhost.worklist.work_off()


def reject(scene: Scene, queue: Queue, count: int) -> None:
    """Let so many messages of a queue die, more than are moved in a piece."""
    scene.publish(queue, count)
    run = [one for _ in range(count) if (one := queue.get(no_ack=False))]
    scene.effort.begin()
    queue.reject(run)


def is_kept(scene: Scene, queue: Queue) -> bool:
    return queue.definition in scene.journal.now.definitions.values()


def test_what_died_before_its_queue_was_deleted_is_moved_before_that_is_recorded(scene: Scene) -> None:
    many = 5 * SLICE // STEPS_A_MESSAGE
    reject(scene, scene.source, many)
    scene.vhost.delete_queue(OPERATOR, "source", None)
    assert "source" not in scene.vhost.queues and is_kept(scene, scene.source)
    slices = 0
    while is_kept(scene, scene.source):
        assert len(scene.stored(scene.source)) + len(scene.stored(scene.dead)) == many
        before = scene.effort.total
        scene.effort.begin()
        scene.vhost.worklist.work()
        assert scene.effort.total - before <= SLICE + 2 * PIECE + STEPS_A_MESSAGE
        slices += 1
    assert slices >= 2
    assert scene.bodies(scene.dead) == scene.stored(scene.dead) == bodies(many)
    scene.vhost.worklist.work_off()
    assert scene.declare("source") is not scene.source


def test_an_ack_counts_while_the_dead_letters_of_a_deleted_queue_are_moved(scene: Scene) -> None:
    scene.publish(scene.source, 1)
    unacked = scene.source.get(no_ack=False)
    assert unacked is not None
    reject(scene, scene.source, 5 * SLICE // STEPS_A_MESSAGE)
    scene.vhost.delete_queue(OPERATOR, "source", None)
    assert unacked in scene.journal.now.messages[scene.source.definition.number].values()
    scene.source.settle([unacked])
    assert unacked not in scene.journal.now.messages[scene.source.definition.number].values()
    scene.vhost.worklist.work_off()
    assert not is_kept(scene, scene.source)


def test_what_died_in_a_cascade_is_moved_before_its_queue_s_deletion_is_recorded(scene: Scene) -> None:
    """What is rejected goes to 20 queues, expires there at once, and dies of that while the line is another one's."""
    names = [f"between {n}" for n in range(20)]
    scene.vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "all", "fanout", durable=True))
    between = [scene.declare(name, {"x-message-ttl": 0} | TO_DEAD_LETTER_QUEUES) for name in names]
    for name in names:
        scene.vhost.bind(OPERATOR, BindingDefinition("/", "all", "queue", name), owner=scene)
    first = scene.declare("first", {"x-dead-letter-exchange": "all"})
    reject(scene, first, 200)
    for _ in range(1_000):
        if any(scene.vhost.dead_letters.has_dead_letters_of(queue) for queue in between):
            break
        scene.effort.begin(1)
        scene.vhost.worklist.work()
    waiting = [queue for queue in between if scene.vhost.dead_letters.has_dead_letters_of(queue)]
    assert waiting and all(scene.stored(queue) for queue in waiting)
    expected = sum(len(scene.stored(queue)) for queue in waiting)
    before = len(scene.stored(scene.dead))
    for queue in waiting:
        scene.vhost.delete_queue(OPERATOR, queue.name, None)
    assert any(is_kept(scene, queue) for queue in waiting)
    while any(is_kept(scene, queue) for queue in waiting):
        scene.effort.begin(1)
        scene.vhost.worklist.work()
    assert len(scene.stored(scene.dead)) >= before + expected
    scene.vhost.worklist.work_off()


def test_what_is_rejected_after_its_queue_was_deleted_is_no_dead_letter(scene: Scene) -> None:
    scene.publish(scene.source, 1)
    unacked = scene.source.get(no_ack=False)
    assert unacked is not None
    many = 5 * SLICE // STEPS_A_MESSAGE
    reject(scene, scene.source, many)
    scene.vhost.delete_queue(OPERATOR, "source", None)
    assert is_kept(scene, scene.source)
    scene.source.reject([unacked])
    assert unacked not in scene.journal.now.messages[scene.source.definition.number].values()
    scene.vhost.worklist.work_off()
    assert len(scene.bodies(scene.dead)) == many and not is_kept(scene, scene.source)


def test_a_queue_that_dead_letters_what_it_refuses_need_not_have_an_exchange_for_that(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    queue = scene.declare("alone", {"x-max-length": 1, "x-overflow": "reject-publish-dlx"})
    scene.publish(queue, 3)
    scene.vhost.worklist.work_off()
    assert scene.bodies(queue) == [b"0"] and not caplog.records
    assert queue.dead_letters.count == 0 and not scene.vhost.dead_letters.has_work


def test_a_vhost_is_deleted_while_the_dead_letters_of_a_deleted_queue_are_moved(scene: Scene) -> None:
    reject(scene, scene.source, 5 * SLICE // STEPS_A_MESSAGE)
    scene.vhost.delete_queue(OPERATOR, "source", None)
    scene.vhost.topology.end()
    stored = scene.stored(scene.source)
    scene.vhost.worklist.work_off()
    assert scene.stored(scene.source) == stored, "something was recorded in a vhost that is gone"


def test_a_cascade_through_queues_that_keep_nothing_needs_little_memory_and_ends(scene: Scene) -> None:
    """Each of n queues sends what expires at once to all the others: a message dies once in each, in every order."""
    names = [f"q{number}" for number in range(5)]
    scene.vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "all", "fanout", durable=True))
    queues = [scene.declare(name, {"x-message-ttl": 0, "x-dead-letter-exchange": "all"}) for name in names]
    for name in names:
        scene.vhost.bind(OPERATOR, BindingDefinition("/", "all", "queue", name), owner=scene)
    scene.publish(queues[0], 1)
    most = 0
    while not scene.vhost.worklist.is_empty:
        scene.effort.begin(1)
        scene.vhost.worklist.work()
        most = max(most, sum(len(scene.stored(queue)) for queue in queues))
    assert sum(queue.records.counts.published for queue in queues) == 1 + 4 + 4 * 3 + 4 * 3 * 2 + 4 * 3 * 2
    assert most < 5 * 5
    assert not any(scene.stored(queue) for queue in queues)


def test_what_cannot_be_copied_is_set_aside_and_the_rest_is_moved(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = DeadCopies.copy

    def copy(self: DeadCopies, message: Message, number: int) -> Message:
        if message.body == b"50":
            raise OverflowError("a header that nobody thought of")
        return make(self, message, number)

    monkeypatch.setattr(DeadCopies, "copy", copy)
    scene.publish(scene.source, 101)
    scene.expire()
    scene.vhost.worklist.work_off()
    assert scene.bodies(scene.dead) == [body for body in bodies(101) if body != b"50"]
    assert scene.stored(scene.source) == [b"50"], "it is kept"
    assert scene.source.statistics().set_aside == 1
    assert (scene.source.dead_letters.moving, scene.source.dead_letters.count) == (0, 1)
    assert "queue 'source' in vhost '/': message" in caplog.text and "is set aside" in caplog.text


def test_a_target_that_fails_leaves_the_messages_in_their_queue(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Any, **how: Any) -> int:
        raise RuntimeError("a fault of the target")

    monkeypatch.setattr(scene.dead, "publish", refuse)
    scene.publish(scene.source, 3)
    scene.expire()
    scene.vhost.worklist.work_off()
    assert scene.stored(scene.source) == bodies(3) and len(scene.source.dead_letters.aside) == 3


def test_what_is_set_aside_goes_with_its_queue_and_stays_otherwise(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpd.broker.dead_letter_router.DeadLetterRoute", None)      # what a fault would be
    scene.publish(scene.source, 3)
    scene.expire()
    scene.vhost.worklist.work_off()
    assert scene.stored(scene.source) == bodies(3) and len(scene.source.dead_letters.aside) == 3
    monkeypatch.undo()
    scene.publish(scene.source, 2)
    scene.expire()
    scene.vhost.worklist.work_off()
    assert scene.bodies(scene.dead) == bodies(2) and len(scene.source.dead_letters.aside) == 3


def test_a_queue_that_is_deleted_while_it_is_busy_leaves_no_job_behind(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.publish(scene.source, 3 * PIECE)
    scene.expire()
    assert scene.source.jobs.has_work
    scene.vhost.delete_queue(OPERATOR, "source", scene)
    scene.vhost.worklist.work_off()
    assert not caplog.records


# Whatever raises

# What catches the errors of the others, and asks for what is to be tried again; everything else may fail.
GUARDS = {
    "_work_on", "work", "work_off", "work_on", "has_work", "is_empty", "begin", "is_spent", "run", "advance", "wake",
    "wake_at", "_ask_to_be_woken", "set_aside", "_end", "_drop_in_pieces", "_trim_in_pieces", "send",
    "_queues_up", "count"}


class Injected(Exception):
    """What no code expects."""


def raising_at(call: int, act: Callable[[], None]) -> int:
    """Do it, and let the function of the broker that is called as the n-th raise; return how many were called."""
    calls = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        code = frame.f_code
        if event == "call" and "amqpd/broker/" in code.co_filename and code.co_name not in GUARDS:
            calls += 1
            if calls == call:
                raise Injected

    sys.setprofile(profile)
    try:
        act()
    except Injected:
        pass        # it reached whoever asked: in life a session, or the turn of the loop
    finally:
        sys.setprofile(None)
    return calls


def kill_all(scene: Scene) -> None:
    scene.clock.advance(scene.clock.now_ms + 1_000)
    scene.vhost.worklist.work_off()


def overflow(scene: Scene) -> None:
    scene.source.publish([message(next(scene.numbers), b"new", persistent=True)])
    scene.vhost.worklist.work_off()


@pytest.fixture
def silent() -> Iterator[None]:
    """Nothing is logged: it is hundreds of tracebacks."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("act", [kill_all, overflow])
def test_no_message_is_lost_and_no_other_queue_hit_whatever_raises(act: Callable[[Scene], None]) -> None:
    tried = 0
    for call in count(1):
        scene = Scene(**{"x-max-length": 3})
        scene.publish(scene.source, 3)
        bystander = scene.declare("bystander", {"x-message-ttl": 1_000} | TO_DEAD_LETTER_QUEUES)
        scene.publish(bystander, 2)
        calls = raising_at(call, lambda: act(scene))
        tried = call
        sys.setprofile(None)
        scene.vhost.worklist.work_off()
        kept = scene.stored(scene.source) + scene.stored(scene.dead) + scene.stored(bystander)
        assert {*bodies(3)} <= {*kept}, f"lost with the call number {call}"
        for _ in range(3):
            scene.clock.advance(scene.clock.now_ms + 1_001)
            scene.vhost.worklist.work_off()
        if act is overflow:
            assert not scene.stored(bystander), f"the bystander's messages stay with the call number {call}"
        if calls < call:
            break
    assert tried > 50


class Sleeper:
    """Notes its name when it is woken; the one named `bad` fails then."""

    def __init__(self, name: str, woken: list[str]) -> None:
        self.name = name
        self.woken = woken

    def wake(self) -> None:
        self.woken.append(self.name)
        if self.name == "bad":
            raise Injected


def test_the_next_sleeper_is_woken_whatever_the_one_before_does() -> None:
    woken: list[str] = []
    clock = Clock(0, 0)
    for name in ("bad", "good"):
        clock.wake_at(5, Sleeper(name, woken))
    clock.advance(5)
    assert woken == ["bad", "good"] and clock.next_wake_ms is None


def test_sleepers_are_woken_as_far_as_the_slice_goes() -> None:
    woken: list[str] = []
    clock, effort = Clock(0, 0), Effort()
    for at, name in enumerate("abcd"):
        clock.wake_at(at, Sleeper(name, woken))
    effort.stop = effort.total + WAKE_STEPS + 1
    clock.advance(2, effort)
    assert woken == ["a", "b"] and clock.next_wake_ms == 2 and effort.total == 2 * WAKE_STEPS
    effort.stop = effort.total + 1_000
    clock.advance(2, effort)
    assert woken == ["a", "b", "c"] and clock.next_wake_ms == 3
    cancelled = clock.wake_at(3, Sleeper("e", woken))
    clock.cancel(cancelled)
    clock.advance(5)
    assert woken == ["a", "b", "c", "d"] and clock.next_wake_ms is None


def test_dead_letters_that_go_to_very_many_queues_are_moved_one_at_a_time() -> None:
    scene = Scene(**{"x-dead-letter-exchange": "wide"})
    scene.vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "wide", "fanout", durable=True))
    for number in range(100):
        scene.declare(f"q{number}")
        scene.vhost.bind(OPERATOR, BindingDefinition("/", "wide", "queue", f"q{number}", "", {}), scene)
    scene.publish(scene.source, 10)
    scene.expire()
    pieces = []
    while not scene.vhost.worklist.is_empty:
        before, there = scene.effort.total, len(scene.stored(scene.source))
        scene.effort.begin_turn()
        scene.effort.stop = scene.effort.total      # spent after one piece
        scene.vhost.worklist.work()
        pieces.append(there - len(scene.stored(scene.source)))
        if pieces[-1]:
            assert scene.effort.total - before > 1_000, "a queue costs more than a step"
    assert max(pieces) == 1 and sum(pieces) == 10
    assert all(scene.bodies(scene.vhost.queues[f"q{number}"]) == bodies(10) for number in range(100))
    scene.vhost.check()


def test_dead_letters_with_large_bodies_cost_by_their_octets() -> None:
    scene = Scene()
    large = [message(next(scene.numbers), bytes(300_000), persistent=True) for _ in range(3)]
    scene.source.publish(large)
    scene.expire()
    pieces = []
    while not scene.vhost.worklist.is_empty:
        before, there = scene.effort.total, len(scene.stored(scene.dead))
        scene.effort.stop = scene.effort.total      # spent after one piece
        scene.vhost.worklist.work()
        moved = len(scene.stored(scene.dead)) - there
        pieces.append(moved)
        assert scene.effort.total - before >= moved * 290
    assert sum(pieces) == 3 and max(pieces) <= 2
    assert scene.bodies(scene.dead) == [bytes(300_000)] * 3


def test_a_copy_of_a_dead_letter_takes_no_more_memory_than_it_has_octets() -> None:
    dead_route = DeadLetterRoute("source", "expired", "", "dead")
    large = message(1, bytes(4_000_000))
    tracemalloc.start()
    try:
        copy = DeadCopies(dead_route, 0).copy(large, 2)
        assert tracemalloc.get_traced_memory()[1] < 4_200_000
    finally:
        tracemalloc.stop()
    assert copy.body == large.body


# Ways

def test_dead_letters_go_by_their_headers_each(scene: Scene) -> None:
    source = scene.declare("by headers", {"x-dead-letter-exchange": "amq.headers"})
    for number in range(3):
        name = f"h{number}"
        scene.declare(name)
        scene.vhost.bind(OPERATOR, BindingDefinition("/", "amq.headers", "queue", name, "", {"n": number}), scene)
    run = []
    for number in (2, 0, 7, 0):
        properties = Basic.Properties(headers={"n": number}, delivery_mode=2)
        octets = ContentHeader(0, 0, properties).marshal()[12:]
        run.append(Message(
            next(scene.numbers), route(), read_properties(octets), pack_content(1, FRAME_MAX, octets, b""), 0))
    source.publish(run)
    assert [source.get(no_ack=False) for _ in run] == run
    source.reject(run)
    scene.vhost.worklist.work_off()
    assert [len(scene.vhost.queues[f"h{number}"].ready) for number in range(3)] == [2, 0, 1]
    assert source.statistics().dead_lettered == 4 and not scene.stored(source)


def test_dead_letters_to_an_exchange_that_is_not_there_are_dropped(scene: Scene) -> None:
    source = scene.declare("lost", {"x-dead-letter-exchange": "nowhere"})
    reject(scene, source, 3)
    scene.vhost.worklist.work_off()
    assert not scene.stored(source) and source.dead_letters.count == 0
    assert source.statistics().dead_lettered == 3


def test_what_dies_in_a_cascade_comes_after_what_died_before_it_in_its_queue(scene: Scene) -> None:
    between = scene.declare("between", {"x-max-length": 0} | TO_DEAD_LETTER_QUEUES)
    first = scene.declare("first", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "between"})
    many = 10
    run = [message(next(scene.numbers), b"first", persistent=True)]
    first.publish(run)
    first.get(no_ack=False)
    first.reject(run)
    scene.publish(between, many)
    assert scene.vhost.dead_letters.has_dead_letters_of(between)
    scene.vhost.worklist.work_off()
    assert scene.bodies(scene.dead) == [*bodies(many), b"first"]
    assert not scene.stored(between) and not scene.stored(first)
    assert not scene.vhost.dead_letters.has_dead_letters_of(between)


def test_a_rejected_message_may_come_back_to_its_queue_and_an_expired_one_may_not(scene: Scene) -> None:
    own = scene.declare("own", {"x-message-ttl": 1_000, "x-dead-letter-exchange": ""} | {
        "x-dead-letter-routing-key": "own"})
    reject(scene, own, 2)
    scene.vhost.worklist.work_off()
    assert scene.bodies(own) == bodies(2)
    scene.expire()
    scene.vhost.worklist.work_off()
    assert scene.bodies(own) == [] and not scene.stored(own)


def test_a_queue_of_which_very_many_dead_letters_wait_is_behind(scene: Scene) -> None:
    router = scene.vhost.dead_letters
    router.most_waiting = 10
    reject(scene, scene.source, 10)
    assert not router.is_behind(scene.source)
    reject(scene, scene.source, 1)
    assert router.is_behind(scene.source) and not router.is_behind(scene.dead) and router.has_work
    assert scene.source.dead_letters.is_behind and not scene.dead.dead_letters.is_behind
    scene.vhost.worklist.work_off()
    assert not router.is_behind(scene.source) and not router.has_work
    assert len(scene.bodies(scene.dead)) == 11
