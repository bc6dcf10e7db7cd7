"""Exchanges and queues with very many bindings are deleted at once; their bindings are removed in slices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from pamqp.commands import Basic, Exchange, Queue

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition, VhostDefinition
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import PIECE
from tests.support.journals import RecordingJournal
from tests.support.samples import messages
from tests.support.talk import Stage

MANY = 200


@pytest.fixture
def journal() -> RecordingJournal:
    return RecordingJournal()


@pytest.fixture
def vhost(journal: RecordingJournal) -> Vhost:
    """A vhost whose exchange `x` is bound by many keys to the queue `q`, and by one to `other`; all are durable."""
    broker = Broker(journal)
    broker.add_vhost(VhostDefinition("/"))
    return furnish(broker.vhosts["/"])


def furnish(vhost: Vhost) -> Vhost:
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "x", "topic", durable=True))
    for name in "other", "q":
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, durable=True), OPERATOR)
    for n in range(MANY):
        bind(vhost, "x", "q", f"k{n}")
    bind(vhost, "x", "other", "last")
    return vhost


def bind(vhost: Vhost, source: str, queue: str, key: str) -> None:
    vhost.bind(OPERATOR, BindingDefinition("/", source, "queue", queue, key, {}), OPERATOR)


def restored(journal: RecordingJournal) -> Vhost:
    """The vhost as it would be after a crash."""
    broker = Broker(RecordingJournal(journal.now.copy()))
    broker.restore(journal.now.in_order())
    broker.vhosts["/"].check()
    return broker.vhosts["/"]


def names(vhost: Vhost, key: str) -> list[str]:
    return [queue.name for queue in vhost.routing.route(vhost.exchanges["x"], [key], lambda: {})]


def test_an_exchange_with_very_many_bindings_leaves_in_pieces(vhost: Vhost, journal: RecordingJournal) -> None:
    exchange = vhost.exchanges["x"]
    assert len([*restored(journal).bindings()]) == MANY + 1
    with pytest.raises(MessageNotLoaded) as reason:
        vhost.delete_exchange(OPERATOR, "x")
    called: list[bool] = []
    reason.value.call(lambda: called.append("x" in vhost.leaving.exchanges))
    assert "x" not in vhost.exchanges and len(exchange.bindings) > MANY // 2
    assert vhost.routing.route(exchange, ["k199"], lambda: {}) == []
    while vhost.leaving.has_work:
        after_crash = restored(journal)
        assert "x" not in after_crash.exchanges and not [*after_crash.bindings()], "a crash brings a part of it back"
        before = vhost.worklist.effort.total
        vhost.leaving.work()
        assert vhost.worklist.effort.total - before <= PIECE + 10
    vhost.worklist.work_off()
    assert called == [False] and not exchange.bindings and not [*vhost.bindings()]
    assert "x" not in restored(journal).exchanges
    vhost.delete_exchange(OPERATOR, "x")
    vhost.check()


@pytest.mark.parametrize("leaves", ["queue", "exchange"])
def test_a_binding_with_very_many_arguments_is_a_piece_by_itself(
    vhost: Vhost, leaves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "h", "headers", durable=True))
    vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", "wide", durable=True), OPERATOR)
    exchange = vhost.exchanges["h"]
    for n in range(10):     # more arguments than a client can give one now: an older store may have such
        binding = BindingDefinition("/", "h", "queue", "wide", "", {f"{n} {field}": n for field in range(PIECE)})
        key = exchange.new_key(binding)
        assert key is not None
        vhost.topology.bind(exchange, key, binding, vhost.queues["wide"])
    monkeypatch.setattr("amqpd.broker.exchange.encode_table", None)     # a key is made once, when it is bound
    if leaves == "queue":
        vhost.delete_queue(OPERATOR, "wide", OPERATOR)
    else:
        with pytest.raises(MessageNotLoaded):
            vhost.delete_exchange(OPERATOR, "h")
    left = [len(exchange.bindings)]
    while exchange.bindings:
        before = vhost.worklist.effort.total
        vhost.leaving.work()
        assert vhost.worklist.effort.total - before >= PIECE
        left.append(len(exchange.bindings))
    assert left == [*range(9, -1, -1)]
    vhost.worklist.work_off()
    vhost.check()


def test_nothing_of_the_same_name_is_declared_while_it_leaves(vhost: Vhost) -> None:
    cases: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: vhost.delete_queue(OPERATOR, "q", OPERATOR),
         lambda: vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", "q"), OPERATOR)),
        (lambda: vhost.delete_exchange(OPERATOR, "x"),
         lambda: vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "x", "fanout"))),
    ]
    for delete, declare in cases:
        for n in range(MANY):
            bind(vhost, "x", "other", f"o{n}")
        with suppress(MessageNotLoaded):       # whoever deletes waits too
            delete()
        with pytest.raises(MessageNotLoaded):
            declare()
        vhost.worklist.work_off()
        declare()
        vhost.check()


def test_a_queue_with_very_many_bindings_gets_nothing_while_it_leaves(vhost: Vhost, journal: RecordingJournal) -> None:
    bind(vhost, "x", "other", "k199")
    assert sorted(names(vhost, "k199")) == ["other", "q"]
    assert vhost.delete_queue(OPERATOR, "q", OPERATOR) == 0
    assert vhost.leaving.has_work and len(vhost.exchanges["x"].bindings) > MANY // 2
    assert names(vhost, "k199") == ["other"] and names(vhost, "k198") == []
    while vhost.leaving.has_work:
        after_crash = restored(journal)
        assert after_crash.queues.keys() == {"other"} and len([*after_crash.bindings()]) == 2
        vhost.leaving.work()
    vhost.unbind(OPERATOR, BindingDefinition("/", "x", "queue", "q", "k199", {}), OPERATOR)
    vhost.worklist.work_off()
    assert len(vhost.exchanges["x"].bindings) == 2
    assert restored(journal).queues.keys() == {"other"}
    vhost.check()


def test_a_queue_declared_anew_keeps_its_bindings(vhost: Vhost, journal: RecordingJournal) -> None:
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    assert journal.now.unfinished
    while vhost.leaving.has_work:
        with pytest.raises(MessageNotLoaded):
            vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", "q", durable=True), OPERATOR)
        vhost.leaving.work()
    vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", "q", durable=True), OPERATOR)
    bind(vhost, "x", "q", "k0")
    assert not journal.now.unfinished
    assert names(restored(journal), "k0") == ["q"] and names(restored(journal), "k1") == []


def test_who_waits_for_one_that_leaves_does_not_hear_of_the_others(vhost: Vhost) -> None:
    for n in range(MANY):
        bind(vhost, "x", "other", f"o{n}")
    called: list[str] = []
    for name in "q", "other":
        vhost.delete_queue(OPERATOR, name, OPERATOR)
        vhost.leaving.call_after(vhost.leaving.queues[name])(partial(called.append, name))
    while "q" in vhost.leaving.queues:
        vhost.leaving.work()
    vhost.worklist.effort.begin()
    vhost.worklist.work_on_new()
    assert called == ["q"] and "other" in vhost.leaving.queues
    vhost.worklist.work_off()
    assert called == ["q", "other"]


def test_who_waits_hears_of_the_end_of_the_vhost(vhost: Vhost) -> None:
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    called: list[bool] = []
    vhost.leaving.call_after(vhost.leaving.queues["q"])(partial(called.append, True))
    vhost.topology.end()
    vhost.worklist.work_off()
    assert called == [True]


def test_what_leaves_at_once_or_is_not_durable_is_never_unfinished(vhost: Vhost, journal: RecordingJournal) -> None:
    batch = vhost.changes.awaited_batch
    vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", "fleeting"), OPERATOR)
    for n in range(MANY):
        bind(vhost, "x", "fleeting", f"k{n}")
    vhost.delete_queue(OPERATOR, "fleeting", OPERATOR)
    assert vhost.leaving.has_work and not journal.now.unfinished and vhost.changes.awaited_batch == batch
    vhost.worklist.work_off()
    vhost.delete_queue(OPERATOR, "other", OPERATOR)
    assert not vhost.leaving.has_work and not journal.now.unfinished


def test_two_that_leave_are_finished_with_the_second(vhost: Vhost, journal: RecordingJournal) -> None:
    for n in range(MANY):
        bind(vhost, "x", "other", f"o{n}")
    for name in "q", "other":
        vhost.delete_queue(OPERATOR, name, OPERATOR)
    while "q" in vhost.leaving.queues:
        assert journal.now.unfinished and not [*restored(journal).bindings()]
        vhost.leaving.work()
    assert journal.now.unfinished and not [*restored(journal).bindings()]
    vhost.worklist.work_off()
    assert not journal.now.unfinished


def test_an_auto_delete_exchange_goes_in_a_crash_with_its_last_binding(vhost: Vhost, journal: RecordingJournal) -> None:
    for name in "first", "second", "stays", "unbound":
        vhost.declare_exchange(
            OPERATOR, ExchangeDefinition("/", name, "fanout", durable=True, auto_delete=True))
    for source, destination in ("first", "second"), ("stays", "second"), ("amq.topic", "first"):
        vhost.bind(OPERATOR, BindingDefinition("/", source, "exchange", destination), OPERATOR)
    bind(vhost, "second", "q", "")
    bind(vhost, "stays", "other", "")
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    assert "second" in vhost.exchanges, "too few bindings go before its"
    after_crash = restored(journal)
    vhost.worklist.work_off()
    assert after_crash.exchanges.keys() == vhost.exchanges.keys() >= {"stays", "unbound"}
    assert {*after_crash.exchanges["stays"].bindings} == {*vhost.exchanges["stays"].bindings}
    assert not after_crash.exchanges["amq.topic"].bindings


def test_what_a_failed_deletion_leaves_is_removed_by_the_next_start(
    vhost: Vhost, journal: RecordingJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    monkeypatch.setattr(vhost.topology, "remove_binding", None)
    vhost.worklist.work_off()
    assert not vhost.leaving.has_work and len([*vhost.bindings()]) > 1
    assert len([*restored(journal).bindings()]) == 1


def test_a_stop_before_a_deletion_is_recorded_counts_all_in_the_queue_as_redelivered() -> None:
    broker = Broker(RecordingJournal(), first_number=1_000)
    broker.add_vhost(VhostDefinition("/"))
    vhost = furnish(broker.vhosts["/"])
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "other"}
    for name in "dies", "goes":
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, durable=True, arguments=arguments), OPERATOR)
    dies = vhost.queues["dies"]
    dies.publish(messages(*range(1_000, 1_000 + PIECE), persistent=True))
    broker.next_message_number += PIECE
    dies.reject([one for _ in range(PIECE) if (one := dies.get(no_ack=False))])
    for name in "dies", "goes", "q":
        vhost.delete_queue(OPERATOR, name, OPERATOR)
    bounds = broker.redelivered_to()
    assert bounds.keys() == {dies.definition.number} and bounds[dies.definition.number] >= 1_000 + PIECE
    vhost.worklist.work_off()
    assert not broker.redelivered_to()


def test_a_queue_goes_while_an_exchange_leaves_that_is_bound_to_it(vhost: Vhost, journal: RecordingJournal) -> None:
    with pytest.raises(MessageNotLoaded):
        vhost.delete_exchange(OPERATOR, "x")
    vhost.delete_queue(OPERATOR, "other", OPERATOR)
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    restored(journal)
    vhost.worklist.work_off()
    assert not restored(journal).queues and not [*vhost.bindings()]
    vhost.check()


def test_a_long_chain_of_auto_delete_exchanges_goes_with_its_last_binding(vhost: Vhost) -> None:
    for n in range(1_000):
        vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", f"c{n}", "fanout", auto_delete=True))
        if n:
            vhost.bind(OPERATOR, BindingDefinition("/", f"c{n - 1}", "exchange", f"c{n}", "", {}), OPERATOR)
    bind(vhost, "c999", "other", "")
    vhost.delete_queue(OPERATOR, "other", OPERATOR)
    vhost.worklist.work_off()
    assert not [name for name in vhost.exchanges if name.startswith("c")]
    vhost.check()


def test_a_vhost_is_deleted_while_an_exchange_of_it_leaves(vhost: Vhost, journal: RecordingJournal) -> None:
    exchange = vhost.exchanges["x"]
    with pytest.raises(MessageNotLoaded):
        vhost.delete_exchange(OPERATOR, "x")
    count = len(journal.changes)
    vhost.topology.end()
    vhost.worklist.work_off()
    assert not exchange.bindings and len(journal.changes) == count


def test_a_client_is_answered_when_it_has_left() -> None:
    stage = Stage()
    vhost = furnish(stage.broker.vhosts["/"])
    stage.end_turn()
    talk = stage.client().open_channel()
    talk.publish("q", b"x").publish("q", b"y")
    talk.client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(2))
    assert len(vhost.exchanges["x"].bindings) == 1
    talk.publish("k199", b"x", exchange="x", mandatory=True)
    talk.broker(Basic.Return(312, "NO_ROUTE", "x", "k199"), content=b"x")
    for n in range(MANY):
        bind(vhost, "x", "other", f"o{n}")
    talk.client(Exchange.Delete(exchange="x")).broker(Exchange.DeleteOk())
    assert not [*vhost.bindings()]
    talk.client(Queue.Delete(queue="other")).broker(Queue.DeleteOk(0))


@pytest.mark.parametrize("what", ["queue", "exchange"])
def test_a_binding_of_what_leaves_can_be_removed_meanwhile_and_nothing_happens(vhost: Vhost, what: str) -> None:
    destination = "q" if what == "queue" else "y"
    if what == "exchange":
        vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "y", "fanout"))
        for n in range(MANY):
            vhost.bind(OPERATOR, BindingDefinition("/", "x", "exchange", "y", f"y{n}", {}), OPERATOR)
        with suppress(MessageNotLoaded):
            vhost.delete_exchange(OPERATOR, "y")
    else:
        with suppress(MessageNotLoaded):
            vhost.delete_queue(OPERATOR, "q", OPERATOR)
    last = [one for one in vhost.bindings() if one.destination == destination][-1]
    vhost.unbind(OPERATOR, last, OPERATOR)
    vhost.worklist.work_off()
    assert {one.destination for one in vhost.bindings()} == ({"other"} if what == "queue" else {"other", "q"})
