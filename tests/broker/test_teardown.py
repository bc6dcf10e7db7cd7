"""A deleted vhost: it disappears at once and with one record, and is taken apart in slices."""

from __future__ import annotations

import weakref

import pytest

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import BindingDefinition, Deleted, ExchangeDefinition, QueueDefinition, VhostDefinition
from amqpd.broker.queue.queue import Outcome
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import PIECE
from tests.support.journals import RecordingJournal
from tests.support.samples import messages
from tests.support.subscribers import ListSubscriber, subscribe

MANY = 200


@pytest.fixture
def journal() -> RecordingJournal:
    return RecordingJournal()


@pytest.fixture
def broker(journal: RecordingJournal) -> Broker:
    """A broker whose only vhost has many durable queues that are bound to a topic exchange and to `amq.fanout`."""
    broker = Broker(journal)
    broker.add_vhost(VhostDefinition("/"))
    vhost = broker.vhosts["/"]
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "topics", "topic", durable=True))
    for n in range(MANY):
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", f"q{n}", durable=True), OPERATOR)
        for exchange in "topics", "amq.fanout":
            vhost.bind(OPERATOR, BindingDefinition("/", exchange, "queue", f"q{n}", f"#.{n}", {}), OPERATOR)
    return broker


@pytest.fixture
def vhost(broker: Broker) -> Vhost:
    return broker.vhosts["/"]


def test_a_vhost_with_much_in_it_goes_in_pieces_after_one_record(
    broker: Broker, vhost: Vhost, journal: RecordingJournal
) -> None:
    ends = [weakref.ref(queue) for queue in vhost.queues.values()]
    records = len(journal.changes)
    broker.delete_vhost("/")
    del vhost
    assert [change.definition for change in journal.changes[records:]] == [VhostDefinition("/")]
    pieces = 0
    while not broker.worklist.is_empty:
        before = broker.effort.total
        broker.effort.begin(PIECE)
        broker.worklist._jobs += broker.worklist._new
        broker.worklist._new.clear()
        broker.worklist._work_on(broker.worklist._jobs.popleft())
        assert broker.effort.total - before < PIECE + 50
        pieces += 1
    assert pieces > 10
    assert not any(end() for end in ends), "not freed"
    assert len(journal.changes) == records + 1


def test_a_binding_with_very_many_arguments_is_a_piece_by_itself(broker: Broker, vhost: Vhost) -> None:
    vhost = broker.add_vhost(VhostDefinition("wide")) or broker.vhosts["wide"]
    vhost.declare_queue(OPERATOR, QueueDefinition(0, "wide", "q"), OPERATOR)
    for n in range(10):
        wide = {f"{n} {field}": n for field in range(PIECE)}
        vhost.restore([BindingDefinition("wide", "amq.headers", "queue", "q", "", wide)])     # of an older store
    exchange = vhost.exchanges["amq.headers"]
    broker.delete_vhost("wide")
    left = []
    while exchange.bindings:
        left.append(len(exchange.bindings))
        broker.worklist._jobs += broker.worklist._new
        broker.worklist._new.clear()
        broker.worklist._work_on(broker.worklist._jobs.popleft())
    assert left == [*range(10, 0, -1)]


def test_nothing_is_recorded_of_what_still_happens_in_a_deleted_vhost(
    broker: Broker, vhost: Vhost, journal: RecordingJournal
) -> None:
    queue = vhost.queues["q0"]
    consumer = subscribe(queue, ListSubscriber(), prefetch=2_000)
    run = messages(*range(1, 2_001), persistent=True)
    queue.publish(run)
    queue.unsubscribe(consumer)
    queue.requeue(run)          # which takes several pieces
    assert queue.jobs.has_work
    broker.delete_vhost("/")
    assert not journal.now.messages
    assert queue.publish(messages(3_000, persistent=True)) == Outcome()
    broker.worklist.work_off()
    assert isinstance(journal.changes[-1], Deleted)


def test_a_vhost_that_is_made_again_at_once_is_not_touched(broker: Broker, vhost: Vhost) -> None:
    broker.delete_vhost("/")
    broker.add_vhost(VhostDefinition("/"))
    new = broker.vhosts["/"]
    new.declare_queue(OPERATOR, QueueDefinition(0, "/", "q0", durable=True), OPERATOR)
    new.bind(OPERATOR, BindingDefinition("/", "amq.fanout", "queue", "q0", "#.0", {}), OPERATOR)
    broker.worklist.work_off()
    new.check()
    assert [queue.name for queue in new.routing.route(new.exchanges["amq.fanout"], ["k"], lambda: {})] == ["q0"]


def test_consumers_of_a_deleted_vhost_hear_of_it(broker: Broker, vhost: Vhost) -> None:
    subscriber = ListSubscriber()
    subscribe(vhost.queues["q0"], subscriber)
    broker.delete_vhost("/")
    broker.worklist.work_off()
    assert len(subscriber.cancelled_tags) == 1
