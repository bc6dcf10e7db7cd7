"""Deleted queues are freed at once, without the garbage collector, with their messages and everything that waits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.clock import FEWEST_ENTRIES, Clock
from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition, VhostDefinition
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import FEWEST_GONE, LONG_WALK
from amqpd.broker.vhost import Vhost
from amqpd.message import MessageProperties
from amqpd.store.journal import MemoryJournal
from tests.support.counting import kept_by
from tests.support.page_stores import PageStoreInMemory
from tests.support.samples import message
from tests.support.subscribers import ListSubscriber, subscribe

MANY = 300
EXPIRING = [replace(message(n), facts=MessageProperties(expiration_ms=100_000 - n)) for n in range(1, 50)]


@pytest.fixture(autouse=True)
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def broker() -> Broker:
    broker = Broker(MemoryJournal())
    broker.add_vhost(VhostDefinition("/"))
    return broker


@pytest.fixture
def vhost(broker: Broker) -> Vhost:
    return broker.vhosts["/"]


def work_off(broker: Broker) -> None:
    """Do all that was left for later turns."""
    while not broker.worklist.is_empty:
        broker.effort.begin()
        broker.worklist.work()


def declare(vhost: Vhost, name: str = "q", **properties: Any) -> Queue:
    return vhost.declare_queue(OPERATOR, QueueDefinition(number=0, vhost="/", name=name, **properties), OPERATOR)


def nothing(vhost: Vhost, queue: Queue) -> None:
    """Leave it as it is."""


def fill(vhost: Vhost, queue: Queue) -> None:
    queue.publish([message(number) for number in range(1, 4)])


def fill_with_expiries(vhost: Vhost, queue: Queue) -> None:
    queue.publish(EXPIRING, is_timed=True)


def bind(vhost: Vhost, queue: Queue) -> None:
    for exchange in ("amq.direct", "amq.topic", "amq.fanout", "amq.headers"):
        vhost.bind(OPERATOR, BindingDefinition("/", exchange, "queue", queue.name, "a.b"), OPERATOR)


def consume(vhost: Vhost, queue: Queue) -> None:
    fill(vhost, queue)
    subscribe(queue, ListSubscriber())


def consume_and_leave(vhost: Vhost, queue: Queue) -> None:
    fill(vhost, queue)
    queue.unsubscribe(subscribe(queue, ListSubscriber(), no_ack=True))
    queue.dispatch()


def get(vhost: Vhost, queue: Queue) -> None:
    fill(vhost, queue)
    queue.get(no_ack=False)


DECLARED: dict[str, dict[str, Any]] = {
    "plain": {}, "exclusive": {"exclusive": True}, "auto-delete": {"auto_delete": True}, "durable": {"durable": True},
    "expires": {"arguments": {"x-expires": 1_000_000}}, "ttl": {"arguments": {"x-message-ttl": 1_000_000}},
    "priority": {"arguments": {"x-max-priority": 10}}, "dead letters": {"arguments": {"x-dead-letter-exchange": ""}},
    "limited": {"arguments": {"x-max-length": 2}}, "single": {"arguments": {"x-single-active-consumer": True}},
}
USES: list[Callable[[Vhost, Queue], None]] = [
    nothing, fill, fill_with_expiries, bind, consume, consume_and_leave, get]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@pytest.mark.parametrize("declared", DECLARED)
def test_a_queue_is_freed_when_it_is_deleted(
    broker: Broker, vhost: Vhost, declared: str, use: Callable[[Vhost, Queue], None]
) -> None:
    queue = declare(vhost, **DECLARED[declared])
    use(vhost, queue)
    work_off(broker)
    known = weakref.ref(queue)
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    work_off(broker)
    del queue
    assert known() is None


@pytest.mark.parametrize("exchanges_go", [True, False])
def test_queues_and_exchanges_that_a_long_way_led_to_are_freed(
    broker: Broker, vhost: Vhost, exchanges_go: bool
) -> None:
    """A long way is remembered, and few of those that it led to are kept for that when they are gone."""
    known: list[weakref.ref[Any]] = []
    for lot in range(20):
        vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", f"x{lot}", "fanout"))
        source = vhost.exchanges[f"x{lot}"]
        known.append(weakref.ref(source))
        for number in range(LONG_WALK):
            queue = declare(vhost, f"{lot}.{number}")
            known.append(weakref.ref(queue))
            vhost.bind(OPERATOR, BindingDefinition("/", source.name, "queue", queue.name), OPERATOR)
        assert len(vhost.routing.route(source, [""], lambda: {})) == LONG_WALK
        for number in range(LONG_WALK):
            vhost.delete_queue(OPERATOR, f"{lot}.{number}", OPERATOR)
        if exchanges_go:
            vhost.delete_exchange(OPERATOR, source.name)
        work_off(broker)
        del queue, source
    kept = sum([each() is not None for each in known])
    assert kept <= 2 * FEWEST_GONE + 20 * (not exchanges_go)


def test_a_queue_that_waits_for_the_disk_is_freed_and_who_waits_for_it_is_called(broker: Broker, vhost: Vhost) -> None:
    page_store = PageStoreInMemory(lambda number: None)  # type: ignore[arg-type, return-value]  # nothing is read
    vhost._page_store = page_store
    queue = declare(vhost)
    calls = []
    page_store.is_open = False
    queue.pager.call(lambda: calls.append(queue_name))
    queue_name, known = queue.name, weakref.ref(queue)
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    del queue
    assert known() is None
    page_store.is_open = True
    page_store.serve()
    assert calls == ["q"]


@pytest.mark.parametrize("declared", DECLARED)
def test_many_queues_that_came_and_went_leave_nothing(broker: Broker, vhost: Vhost, declared: str) -> None:
    def come_and_go() -> None:
        for number in range(MANY):
            queue = declare(vhost, f"q{number}", **DECLARED[declared])
            fill_with_expiries(vhost, queue)
            vhost.delete_queue(OPERATOR, queue.name, OPERATOR)
            work_off(broker)

    come_and_go()
    objects = len(gc.get_objects())
    assert kept_by(come_and_go) < 40 * MANY + 2 * FEWEST_ENTRIES * 150
    assert len(gc.get_objects()) < objects + MANY / 2 + 2 * FEWEST_ENTRIES


def test_many_exchanges_and_bindings_that_came_and_went_leave_nothing(broker: Broker, vhost: Vhost) -> None:
    declare(vhost)

    def come_and_go() -> None:
        for number in range(MANY):
            for kind in ("direct", "topic", "fanout", "headers"):
                definition = ExchangeDefinition("/", f"{kind}{number}", kind)
                vhost.declare_exchange(OPERATOR, definition)
                key = f"{number}.a.*" if kind == "topic" else f"{number}"
                vhost.bind(OPERATOR, BindingDefinition("/", definition.name, "queue", "q", key), OPERATOR)
                binding = BindingDefinition("/", f"amq.{kind}", "exchange", definition.name, key)
                vhost.bind(OPERATOR, binding, OPERATOR)
                vhost.routing.route(vhost.exchanges[f"amq.{kind}"], (f"{number}.a.b",), lambda: {})
                vhost.delete_exchange(OPERATOR, definition.name)

    come_and_go()
    objects = len(gc.get_objects())
    assert kept_by(come_and_go) < 40 * MANY
    assert len(gc.get_objects()) < objects + MANY / 2


# Wake-ups

class Sleeper:
    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_a_wake_up_that_was_cancelled_does_not_come_and_keeps_nobody() -> None:
    clock, sleeper, other = Clock(), Sleeper(), Sleeper()
    wake_up = clock.wake_at(10, sleeper)
    clock.wake_at(20, other)
    clock.cancel(wake_up)
    clock.cancel(wake_up)
    assert clock.next_wake_ms == 20
    clock.advance(30)
    assert (sleeper.woken, other.woken, clock.next_wake_ms) == (0, 1, None)
    known = weakref.ref(sleeper)
    del sleeper
    assert known() is None


def test_cancelled_wake_ups_take_no_room_for_long() -> None:
    clock, sleeper = Clock(), Sleeper()
    kept = [clock.wake_at(5_000 + number, sleeper) for number in range(100)]
    for number in range(10_000):
        clock.cancel(clock.wake_at(1_000_000 - number, sleeper))
        assert len(clock._asleep) <= FEWEST_ENTRIES + 2 * len(kept) + 3
    clock.advance(6_000)
    assert sleeper.woken == 100
