"""A vhost: declare, bind, delete and route, with checks in RabbitMQ's order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amqpd.broker.access import User
from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import (
    BindingDefinition,
    Defined,
    Deleted,
    ExchangeDefinition,
    PermissionDefinition,
    QueueDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.departure import Departure
from amqpd.broker.effort import Effort
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost, generated_name
from amqpd.errors import AmqpException, ChannelException, ReplyCode
from tests.support.journals import RecordingJournal
from tests.support.samples import message, messages
from tests.support.subscribers import ListSubscriber, subscribe

ME, YOU = "my connection", "your connection"


@pytest.fixture
def journal() -> RecordingJournal:
    journal = RecordingJournal()
    journal.changed(Defined(VhostDefinition("/")))
    return journal


@pytest.fixture
def vhost(journal: RecordingJournal) -> Iterator[Vhost]:
    numbers = iter(range(1, 1_000))
    vhost = Vhost("/", journal, lambda: next(numbers))
    yield vhost
    vhost.check()


def queue(vhost: Vhost, name: str = "q", owner: str = ME, **properties: Any) -> Queue:
    return vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, **properties), owner)


def exchange(vhost: Vhost, name: str = "x", kind: str = "direct", **properties: Any) -> None:
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", name, kind, **properties))


def bind(vhost: Vhost, source: str, destination: str, key: str = "", *, to: Any = "queue", **arguments: Any) -> None:
    vhost.bind(OPERATOR, BindingDefinition("/", source, to, destination, key, arguments), ME)


def unbind(vhost: Vhost, source: str, destination: str, key: str = "", *, to: Any = "queue", owner: str = ME) -> None:
    vhost.unbind(OPERATOR, BindingDefinition("/", source, to, destination, key), owner)


def routed(vhost: Vhost, exchange: str, *keys: str, **headers: Any) -> list[str]:
    return sorted(found.name for found in vhost.routing.route(vhost.exchanges[exchange], keys, lambda: headers))


def needs_headers(vhost: Vhost, exchange: str, key: str) -> bool:
    walk = vhost.routing.find(vhost.exchanges[exchange], (key,))
    assert walk.step(Effort())
    return walk.needs_headers


def refusal(act: Any, *arguments: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(AmqpException) as refused:
        act(*arguments, **options)
    return refused.value.code, refused.value.text


# Queues

def test_a_vhost_begins_with_its_predeclared_exchanges(vhost: Vhost) -> None:
    assert {name: found.definition.type for name, found in vhost.exchanges.items()} == {
        "": "direct", "amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic", "amq.headers": "headers",
        "amq.match": "headers", "amq.rabbitmq.trace": "topic"}
    assert all(found.definition.durable for found in vhost.exchanges.values())


def test_declaring_again_finds_the_same_queue(vhost: Vhost) -> None:
    declared = vhost.churn.queue_declared
    assert queue(vhost) is queue(vhost)
    assert vhost.churn.queue_declared == declared + 2


def test_names_are_given_where_none_is(vhost: Vhost) -> None:
    first, second = queue(vhost, ""), queue(vhost, "")
    assert first.name != second.name and first.name.startswith("amq.gen-")
    assert vhost.queues[first.name] is first


def test_given_names_cannot_be_guessed() -> None:
    assert len({generated_name("p-") for _ in range(100)}) == 100
    assert len(generated_name("p-")) == 24


def test_a_given_name_cannot_be_declared(vhost: Vhost) -> None:
    name = queue(vhost, "").name
    assert refusal(queue, vhost, name)[0] == ReplyCode.ACCESS_REFUSED


@pytest.mark.parametrize(("changed", "text"), [
    ({"durable": True}, "inequivalent arg 'durable'"), ({"auto_delete": True}, "inequivalent arg 'auto_delete'"),
    ({"arguments": {"x-max-length": 5}}, "inequivalent arg 'x-max-length'"),
])
def test_a_different_declaration_is_refused(vhost: Vhost, changed: dict[str, Any], text: str) -> None:
    queue(vhost)
    code, found = refusal(queue, vhost, **changed)
    assert code == ReplyCode.PRECONDITION_FAILED and found.startswith(text)


def test_an_exclusive_queue_is_its_owner_s_and_not_durable(vhost: Vhost, journal: RecordingJournal) -> None:
    mine = queue(vhost, exclusive=True, durable=True)
    assert not mine.definition.durable and mine.owner is ME
    assert queue(vhost, exclusive=True, durable=True) is mine
    assert refusal(queue, vhost, exclusive=True, owner=YOU)[0] == ReplyCode.RESOURCE_LOCKED
    assert refusal(vhost.queue, "q", YOU)[0] == ReplyCode.RESOURCE_LOCKED
    assert vhost.queue("q", ME) is mine
    assert not journal.now.messages


def test_exclusivity_is_checked_before_equivalence(vhost: Vhost) -> None:
    queue(vhost, exclusive=True)
    assert refusal(queue, vhost, auto_delete=True)[0] == ReplyCode.RESOURCE_LOCKED
    queue(vhost, "shared")
    assert refusal(queue, vhost, "shared", exclusive=True)[0] == ReplyCode.RESOURCE_LOCKED


def test_a_connection_s_exclusive_queues_end_with_it(vhost: Vhost) -> None:
    for name, owner, exclusive in (("a", ME, True), ("b", YOU, True), ("c", ME, False)):
        queue(vhost, name, owner, exclusive=exclusive)
    Departure(vhost.topology.leave(ME), vhost.worklist)
    assert sorted(vhost.queues) == ["b", "c"]


def test_a_deleted_queue_is_gone_from_everywhere(vhost: Vhost) -> None:
    subscriber = ListSubscriber()
    gone = queue(vhost)
    bind(vhost, "amq.fanout", "q")
    subscribe(gone, subscriber, prefetch=1)
    gone.publish(messages(1, 2, 3))
    version = vhost.routing.version
    assert vhost.delete_queue(OPERATOR, "q", ME) == 2
    assert subscriber.cancelled_tags == ["c"] and gone.deleted and not gone.consumers and not gone.ready
    assert routed(vhost, "amq.fanout", "") == [] and list(vhost.bindings()) == []
    assert vhost.routing.version > version
    vhost.topology.remove_queue(gone)
    assert vhost.delete_queue(OPERATOR, "q", ME) == 0


def test_unacked_messages_do_not_keep_a_queue_from_being_empty(vhost: Vhost) -> None:
    queue(vhost).publish(messages(1))
    assert refusal(vhost.delete_queue, OPERATOR, "q", ME, if_empty=True) == (406, "queue 'q' in vhost '/' not empty")
    vhost.queues["q"].get(no_ack=False)
    assert vhost.delete_queue(OPERATOR, "q", ME, if_empty=True) == 0


def test_consumers_keep_a_queue_from_being_unused(vhost: Vhost) -> None:
    subscribe(queue(vhost), ListSubscriber())
    assert refusal(vhost.delete_queue, OPERATOR, "q", ME, if_unused=True) == (406, "queue 'q' in vhost '/' in use")


def test_an_auto_delete_queue_goes_when_its_last_consumer_has_left(vhost: Vhost) -> None:
    found = queue(vhost, auto_delete=True)
    vhost.topology.consumer_left(found)
    assert "q" in vhost.queues, "it never had one"
    first, second = (subscribe(found, ListSubscriber(), tag) for tag in "ab")
    found.unsubscribe(first)
    vhost.topology.consumer_left(found)
    assert "q" in vhost.queues
    found.unsubscribe(second)
    vhost.topology.consumer_left(found)
    assert "q" not in vhost.queues


# Exchanges

def test_a_deleted_exchange_takes_its_bindings_with_it(vhost: Vhost) -> None:
    queue(vhost)
    exchange(vhost)
    bind(vhost, "x", "q", "k")
    bind(vhost, "amq.fanout", "x", to="exchange")
    assert routed(vhost, "amq.fanout", "k") == ["q"]
    vhost.delete_exchange(OPERATOR, "x")
    assert list(vhost.bindings()) == [] and routed(vhost, "amq.fanout", "k") == []
    vhost.delete_exchange(OPERATOR, "x")


def test_being_a_destination_is_no_use_of_an_exchange(vhost: Vhost) -> None:
    exchange(vhost)
    bind(vhost, "amq.fanout", "x", to="exchange")
    vhost.delete_exchange(OPERATOR, "x", if_unused=True)
    exchange(vhost)
    bind(vhost, "x", "amq.fanout", to="exchange")
    assert refusal(vhost.delete_exchange, OPERATOR, "x", if_unused=True) == (406, "exchange 'x' in vhost '/' in use")


def test_an_auto_delete_exchange_goes_with_its_last_binding(vhost: Vhost) -> None:
    queue(vhost)
    exchange(vhost, auto_delete=True)
    bind(vhost, "amq.fanout", "x", to="exchange")
    unbind(vhost, "amq.fanout", "x", to="exchange")
    assert "x" in vhost.exchanges, "it was only a destination"
    bind(vhost, "x", "q", "a")
    bind(vhost, "x", "q", "b")
    unbind(vhost, "x", "q", "a")
    assert "x" in vhost.exchanges
    unbind(vhost, "x", "q", "b")
    assert "x" not in vhost.exchanges


def test_auto_delete_exchanges_go_one_after_another(vhost: Vhost) -> None:
    queue(vhost)
    for name in "xyz":
        exchange(vhost, name, auto_delete=True)
    for source, destination in (("x", "y"), ("y", "z")):
        bind(vhost, source, destination, to="exchange")
    bind(vhost, "z", "q")
    vhost.delete_queue(OPERATOR, "q", ME)
    assert not {"x", "y", "z"} & set(vhost.exchanges)


def test_auto_delete_exchanges_in_a_circle_go_too(vhost: Vhost) -> None:
    for name in "xy":
        exchange(vhost, name, "fanout", auto_delete=True)
    bind(vhost, "x", "y", to="exchange")
    bind(vhost, "y", "x", to="exchange")
    vhost.delete_exchange(OPERATOR, "x")
    assert not {"x", "y"} & set(vhost.exchanges) and list(vhost.bindings()) == []


def test_an_exchange_bound_to_itself_can_be_deleted(vhost: Vhost) -> None:
    exchange(vhost, auto_delete=True)
    bind(vhost, "x", "x", to="exchange")
    vhost.delete_exchange(OPERATOR, "x")
    assert "x" not in vhost.exchanges and list(vhost.bindings()) == []


# Bindings

@pytest.mark.parametrize(("source", "destination", "to", "missing"), [
    ("none", "q", "queue", "no exchange 'none' in vhost '/'"),
    ("amq.topic", "none", "queue", "no queue 'none' in vhost '/'"),
    ("amq.topic", "none", "exchange", "no exchange 'none' in vhost '/'"),
])
def test_a_binding_needs_both_its_ends(vhost: Vhost, source: str, destination: str, to: str, missing: str) -> None:
    queue(vhost)
    assert refusal(bind, vhost, source, destination, to=to) == (404, missing)


def test_another_connection_s_queue_can_be_neither_bound_nor_unbound(vhost: Vhost) -> None:
    queue(vhost, exclusive=True)
    bind(vhost, "amq.fanout", "q")
    unbind(vhost, "amq.direct", "q", owner=YOU)
    assert refusal(unbind, vhost, "amq.fanout", "q", owner=YOU)[0] == ReplyCode.RESOURCE_LOCKED
    assert refusal(vhost.bind, OPERATOR, BindingDefinition("/", "amq.direct", "queue", "q"), YOU)[0] == 405


def test_a_binding_has_256_arguments_at_most(vhost: Vhost) -> None:
    vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", "q"), OPERATOR)
    most = {str(number): number for number in range(256)}
    vhost.bind(OPERATOR, BindingDefinition("/", "amq.headers", "queue", "q", "", most), OPERATOR)
    more = BindingDefinition("/", "amq.headers", "queue", "q", "", {**most, "one more": 1})
    with pytest.raises(ChannelException, match="exchange 'amq.headers' in vhost '/', has 257") as refused:
        vhost.bind(OPERATOR, more, OPERATOR)
    assert refused.value.code == ReplyCode.PRECONDITION_FAILED
    vhost.unbind(OPERATOR, more, OPERATOR)


def test_a_queue_has_a_limit_of_bindings(journal: RecordingJournal) -> None:
    numbers = iter(range(1, 1_000))
    vhost = Vhost("/", journal, lambda: next(numbers), binding_limit=2)
    queue(vhost, durable=True)
    queue(vhost, "other")
    for key in "aba":       # the last one exists, and is not refused
        bind(vhost, "amq.direct", "q", key)
    code, text = refusal(bind, vhost, "amq.topic", "q")
    assert code == ReplyCode.PRECONDITION_FAILED and text.endswith(
        "a queue cannot have more than 2 bindings (limits.bindings_per_queue): queue 'q' in vhost '/' has as many")
    for key in "ab":
        bind(vhost, "amq.direct", "other", key)
    for key in "abc":
        bind(vhost, "amq.direct", "amq.topic", key, to="exchange")
    unbind(vhost, "amq.direct", "q", "a")
    bind(vhost, "amq.topic", "q")
    restarted = Vhost("/", journal, lambda: next(numbers), binding_limit=1)
    restarted.restore(one for one in journal.now.in_order() if not isinstance(one, VhostDefinition))
    kept = [binding for binding in restarted.bindings() if binding.destination == "q"]
    assert len(kept) == 2, "stored bindings beyond a lower limit stay"
    vhost.check()


def test_the_same_binding_again_is_one_binding(vhost: Vhost, journal: RecordingJournal) -> None:
    queue(vhost, durable=True)
    for _ in range(3):
        bind(vhost, "amq.direct", "q", "k")
    assert len(list(vhost.bindings())) == 1 and len(journal.changes) == 3
    unbind(vhost, "amq.direct", "q", "k")
    assert list(vhost.bindings()) == []


# Routing

def test_a_queue_is_reached_once_however_many_ways_lead_there(vhost: Vhost) -> None:
    queue(vhost)
    exchange(vhost, "x", "topic")
    exchange(vhost, "y", "fanout")
    for key in ("#", "a.*", "*.b"):
        bind(vhost, "x", "q", key)
    bind(vhost, "x", "y", "#", to="exchange")
    bind(vhost, "y", "q")
    assert routed(vhost, "x", "a.b", "c.b") == ["q"]


def test_circles_of_exchanges_do_no_harm(vhost: Vhost) -> None:
    queue(vhost)
    for name in "xyz":
        exchange(vhost, name, "fanout")
    for source, destination in ("xy", "yz", "zx", "xx"):
        bind(vhost, source, destination, to="exchange")
    bind(vhost, "z", "q")
    assert routed(vhost, "x", "") == ["q"]


def test_the_alternate_takes_what_finds_no_destination(vhost: Vhost) -> None:
    for name in ("q", "lost"):
        queue(vhost, name)
    exchange(vhost, "alternate", "fanout")
    exchange(vhost, "x", arguments={"alternate-exchange": "alternate"})
    bind(vhost, "alternate", "lost")
    bind(vhost, "x", "q", "k")
    assert (routed(vhost, "x", "k"), routed(vhost, "x", "other")) == (["q"], ["lost"])


def test_a_bound_exchange_that_drops_the_message_is_a_destination(vhost: Vhost) -> None:
    queue(vhost, "lost")
    exchange(vhost, "x", "fanout", arguments={"alternate-exchange": "amq.fanout"})
    bind(vhost, "amq.fanout", "lost")
    bind(vhost, "x", "amq.direct", to="exchange")
    assert routed(vhost, "x", "k") == []


def test_alternates_are_followed_and_visited_once(vhost: Vhost) -> None:
    queue(vhost)
    for name, following in (("x", "y"), ("y", "z"), ("z", "x")):
        exchange(vhost, name, arguments={"alternate-exchange": following})
    assert routed(vhost, "x", "k") == []
    bind(vhost, "z", "q", "k")
    assert routed(vhost, "x", "k") == ["q"]


def test_a_missing_alternate_leads_nowhere_until_it_is_declared(vhost: Vhost) -> None:
    queue(vhost)
    exchange(vhost, "x", arguments={"alternate-exchange": "later"})
    assert routed(vhost, "x", "k") == []
    version = vhost.routing.version
    exchange(vhost, "later", "fanout")
    bind(vhost, "later", "q")
    assert routed(vhost, "x", "k") == ["q"] and vhost.routing.version > version


def test_each_key_is_routed(vhost: Vhost) -> None:
    for name in "abc":
        queue(vhost, name)
        bind(vhost, "amq.direct", name, name)
    assert routed(vhost, "amq.direct", "a", "c") == ["a", "c"]
    assert routed(vhost, "", "a", "b", "nothing") == ["a", "b"]


def test_a_route_depends_on_headers_where_an_exchange_on_its_way_reads_them(vhost: Vhost) -> None:
    exchange(vhost, "direct")
    exchange(vhost, "x", arguments={"alternate-exchange": "direct"})
    assert not needs_headers(vhost, "x", "k")
    bind(vhost, "direct", "amq.headers", "k", to="exchange")
    assert needs_headers(vhost, "x", "k") and needs_headers(vhost, "amq.match", "k")
    assert not needs_headers(vhost, "x", "another") and not needs_headers(vhost, "", "k")
    queue(vhost)
    bind(vhost, "amq.headers", "q", colour="red")
    assert routed(vhost, "direct", "k", colour="red") == ["q"]
    assert routed(vhost, "direct", "k", colour="blue") == []


# Permissions

@pytest.mark.parametrize(("right", "act"), [
    ("configure", lambda vhost, user: vhost.declare_queue(user, QueueDefinition(0, "/", "thing"), ME)),
    ("configure", lambda vhost, user: vhost.delete_queue(user, "thing", ME)),
    ("configure", lambda vhost, user: vhost.declare_exchange(user, ExchangeDefinition("/", "thing", "direct"))),
    ("configure", lambda vhost, user: vhost.delete_exchange(user, "thing")),
    ("read", lambda vhost, user: vhost.purge_queue(user, "thing", ME)),
    ("write", lambda vhost, user: vhost.bind(user, BindingDefinition("/", "amq.topic", "queue", "thing"), ME)),
    ("write", lambda vhost, user: vhost.bind(user, BindingDefinition("/", "amq.topic", "exchange", "thing"), ME)),
    ("read", lambda vhost, user: vhost.bind(user, BindingDefinition("/", "thing", "queue", "q"), ME)),
    ("write", lambda vhost, user: vhost.unbind(user, BindingDefinition("/", "amq.topic", "queue", "thing"), ME)),
])
def test_each_act_needs_its_right_before_anything_exists(vhost: Vhost, right: str, act: Any) -> None:
    user = User(UserDefinition("somebody"))
    patterns = dict.fromkeys(("configure", "write", "read"), ".*") | {right: "^(?!thing)"}
    user.permit(PermissionDefinition("somebody", "/", **patterns))
    code, text = refusal(act, vhost, user)
    assert code == ReplyCode.ACCESS_REFUSED and "'thing' in vhost '/' refused for user 'somebody'" in text


# The journal

def test_only_what_is_durable_at_both_ends_is_recorded(vhost: Vhost, journal: RecordingJournal) -> None:
    for durable in (True, False):
        queue(vhost, f"queue {durable}", durable=durable)
        exchange(vhost, f"exchange {durable}", "fanout", durable=durable)
    for source in ("exchange True", "exchange False"):
        for destination in ("queue True", "queue False"):
            bind(vhost, source, destination)
    assert {change.definition.name for change in journal.changes[1:3]
            if isinstance(change.definition, (QueueDefinition, ExchangeDefinition))} == {"queue True", "exchange True"}
    assert [change.definition for change in journal.changes[3:]] == [
        BindingDefinition("/", "exchange True", "queue", "queue True")]


def test_what_is_deleted_is_recorded_before_its_bindings(vhost: Vhost, journal: RecordingJournal) -> None:
    queue(vhost, durable=True)
    exchange(vhost, durable=True, auto_delete=True)
    bind(vhost, "x", "q", "k")
    vhost.delete_queue(OPERATOR, "q", ME)
    gone = [type(change.definition) for change in journal.changes if isinstance(change, Deleted)]
    assert gone == [QueueDefinition, BindingDefinition, ExchangeDefinition]


def test_a_batch_is_awaited_until_it_is_on_disk(vhost: Vhost, journal: RecordingJournal) -> None:
    queue(vhost, "transient")
    assert vhost.changes.awaited_batch == 0
    queue(vhost, durable=True)
    exchange(vhost)
    assert vhost.changes.awaited_batch == journal.batch
    vhost.changes.on_commit(journal.batch - 1)
    assert vhost.changes.awaited_batch == journal.batch
    vhost.changes.on_commit(journal.commit())
    assert vhost.changes.awaited_batch == 0


def test_a_refused_declaration_changes_nothing(vhost: Vhost, journal: RecordingJournal) -> None:
    before = list(journal.changes), vhost.routing.version, list(vhost.queues), list(vhost.exchanges)
    for act in (
        lambda: queue(vhost, durable=True, arguments={"x-expires": 0}),
        lambda: queue(vhost, durable=True, arguments={"x-dead-letter-exchange": 5}),
        lambda: exchange(vhost, durable=True, arguments={"alternate-exchange": 5}),
        lambda: exchange(vhost, kind="nope", durable=True), lambda: bind(vhost, "amq.direct", "none"),
    ):
        with pytest.raises(AmqpException):
            act()
    assert (list(journal.changes), vhost.routing.version, list(vhost.queues), list(vhost.exchanges)) == before


def test_an_alternate_that_is_no_name_is_refused_as_an_argument(vhost: Vhost) -> None:
    with pytest.raises(ChannelException, match="invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x'"):
        exchange(vhost, arguments={"alternate-exchange": 5})


def test_a_sure_dead_letter_waits_until_it_fits(journal: RecordingJournal) -> None:
    numbers = iter(range(1, 1_000))
    vhost = Vhost("/", journal, lambda: next(numbers), lambda: next(numbers))
    target = queue(vhost, "target", durable=True, arguments={"x-max-length-bytes": 4, "x-overflow": "reject-publish"})
    source = queue(vhost, "source", durable=True, arguments={
        "x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "target",
        "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"})
    source.publish([message(1_001, b"12345", persistent=True)])
    rejected = source.get(no_ack=False)
    assert rejected is not None
    source.reject([rejected])
    vhost.worklist.work_off()
    assert not target.ready and [*journal.now.messages[source.definition.number]] == [1_001]
    vhost.check()


def test_bad_arguments_of_a_queue_without_a_name_are_refused_with_the_name_it_would_have(vhost: Vhost) -> None:
    with pytest.raises(ChannelException, match=r"for queue 'amq\.gen-[^']+' in vhost '/'"):
        queue(vhost, "", arguments={"x-message-ttl": -1})
