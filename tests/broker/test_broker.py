"""Vhosts, users, and the restore at start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqpd.broker.broker import CLOSE_STEPS, LOOK_MS, LOOKED_AT_IN_A_MS, Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    Defined,
    Deleted,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.worklist import PIECE
from amqpd.errors import AlreadyThere, ChannelException, NoSuchThing, ProtectedVhost
from tests.support.journals import RecordingJournal
from tests.support.page_stores import stored
from tests.support.samples import message, messages


class FakeConnection:
    """A client's connection that only counts how it was closed."""

    def __init__(self, user_name: str, vhost_name: str) -> None:
        self.user_name = user_name
        self.vhost_name = vhost_name
        self.reasons: list[str] = []
        self.soon = ""

    def force_close(self, reason: str) -> None:
        self.reasons.append(reason)

    def force_close_soon(self, reason: str) -> None:
        self.soon = reason

    def close_forced(self) -> None:
        self.force_close(self.soon)

    def statistics(self) -> dict[str, Any]:
        return {}

    def channel_statistics(self) -> list[dict[str, Any]]:
        return []


@pytest.fixture
def journal() -> RecordingJournal:
    return RecordingJournal()


@pytest.fixture
def broker(journal: RecordingJournal) -> Broker:
    """Return a broker with the vhosts `/` and `other`, and the user `somebody`, who may read in `/`."""
    broker = Broker(journal)
    broker.add_vhost(VhostDefinition("/"))
    broker.add_vhost(VhostDefinition("other"))
    broker.users.add(UserDefinition("somebody", "hash"))
    broker.users.set_permissions(PermissionDefinition("somebody", "/", read=".*"))
    return broker


def connect(broker: Broker, user: str, vhost: str) -> FakeConnection:
    connection = FakeConnection(user, vhost)
    broker.connections[len(broker.connections) + 1] = connection
    return connection


@pytest.mark.parametrize("act", [
    lambda broker: broker.add_vhost(VhostDefinition("/")), lambda broker: broker.users.add(UserDefinition("somebody"))])
def test_what_is_there_cannot_be_added(broker: Broker, act: Callable[[Broker], None]) -> None:
    with pytest.raises(AlreadyThere, match="'(/|somebody)' already exists"):
        act(broker)


@pytest.mark.parametrize("act", [
    lambda broker: broker.delete_vhost("none"), lambda broker: broker.users.delete("none"),
    lambda broker: broker.users.set_permissions(PermissionDefinition("none", "/")),
    lambda broker: broker.users.set_permissions(PermissionDefinition("somebody", "none")),
    lambda broker: broker.users.change_password("none", "", ""),
    lambda broker: broker.users.set_tags("none", ("administrator",)),
    lambda broker: broker.users.clear_permissions("none", "/"),
    lambda broker: broker.users.clear_permissions("somebody", "none"),
])
def test_what_is_not_there_is_refused_by_name(broker: Broker, act: Callable[[Broker], None]) -> None:
    with pytest.raises(NoSuchThing, match="'none'"):
        act(broker)


def test_all_of_it_is_recorded(broker: Broker, journal: RecordingJournal) -> None:
    broker.users.change_password("somebody", "new hash", "scrypt")
    assert journal.now.in_order() == [
        VhostDefinition("/"), VhostDefinition("other"), UserDefinition("somebody", "new hash"),
        PermissionDefinition("somebody", "/", read=".*")]


def test_a_deleted_user_leaves_nothing_behind(broker: Broker, journal: RecordingJournal) -> None:
    broker.users.delete("somebody")
    assert journal.now.in_order() == [VhostDefinition("/"), VhostDefinition("other")]


def test_a_deleted_user_s_connections_are_closed(broker: Broker) -> None:
    his, other = connect(broker, "somebody", "/"), connect(broker, "other", "/")
    broker.users.delete("somebody")
    broker.worklist.work_off()
    assert (his.reasons, other.reasons) == (["user 'somebody' is deleted"], [])


def test_very_many_connections_are_closed_in_pieces_and_do_nothing_meanwhile(broker: Broker) -> None:
    theirs = [connect(broker, "somebody", "/") for _ in range(50)]
    broker.users.delete("somebody")
    assert all(one.soon == "user 'somebody' is deleted" for one in theirs)
    closed = []
    while not broker.worklist.is_empty:
        before = broker.effort.total
        broker.worklist._jobs += broker.worklist._new
        broker.worklist._new.clear()
        broker.worklist._work_on(broker.worklist._jobs.popleft())
        assert broker.effort.total - before <= PIECE + CLOSE_STEPS
        closed.append(sum(bool(one.reasons) for one in theirs))
    assert len(closed) > 5 and closed[-1] == 50 and all(len(one.reasons) == 1 for one in theirs)


def test_a_deleted_vhost_takes_everything_with_it(broker: Broker, journal: RecordingJournal) -> None:
    broker.ensure(QueueDefinition(0, "/", "orders", durable=True))
    broker.vhosts["/"].queues["orders"].publish(messages(1, persistent=True))
    there, elsewhere = connect(broker, "somebody", "/"), connect(broker, "somebody", "other")
    broker.delete_vhost("/")
    broker.worklist.work_off()
    assert (there.reasons, elsewhere.reasons) == (["vhost '/' is deleted"], [])
    assert journal.now.in_order() == [VhostDefinition("other"), UserDefinition("somebody", "hash")]
    assert not broker.users["somebody"].may_enter("/")
    assert isinstance(journal.changes[-1], Deleted) and journal.changes[-1].definition == VhostDefinition("/")


def test_a_protected_vhost_is_not_deleted(broker: Broker, journal: RecordingJournal) -> None:
    broker.add_vhost(VhostDefinition("kept", protected_from_deletion=True))
    with pytest.raises(ProtectedVhost, match="Refusing to delete virtual host 'kept' because it is protected"):
        broker.delete_vhost("kept")
    assert "kept" in broker.vhosts and VhostDefinition("kept", protected_from_deletion=True) in journal.now.in_order()
    broker.replace_vhost(VhostDefinition("kept"))
    broker.delete_vhost("kept")
    assert "kept" not in broker.vhosts


def test_what_is_said_of_a_vhost_is_replaced_and_recorded_once(broker: Broker, journal: RecordingJournal) -> None:
    wanted = VhostDefinition("/", "main", ("a",), "quorum", True)
    broker.replace_vhost(wanted)
    assert wanted in journal.now.in_order()
    journal.commit()
    broker.replace_vhost(wanted)
    assert journal.is_empty
    assert broker.vhost_definitions["/"] == wanted
    with pytest.raises(NoSuchThing):
        broker.replace_vhost(VhostDefinition("nowhere"))


def test_a_vhost_that_is_made_again_is_empty_and_nobody_s(broker: Broker) -> None:
    broker.ensure(QueueDefinition(0, "/", "orders", durable=True))
    broker.delete_vhost("/")
    broker.add_vhost(VhostDefinition("/"))
    assert not broker.vhosts["/"].queues and not broker.users["somebody"].may_enter("/")


def test_new_permissions_make_publishers_look_again(broker: Broker) -> None:
    version = broker.vhosts["/"].routing.version
    broker.users.set_permissions(PermissionDefinition("somebody", "/"))
    assert broker.vhosts["/"].routing.version > version


def test_permissions_that_are_cleared_make_publishers_look_again(broker: Broker, journal: RecordingJournal) -> None:
    version = broker.vhosts["/"].routing.version
    broker.users.clear_permissions("somebody", "/")
    assert broker.vhosts["/"].routing.version > version
    assert not broker.users["somebody"].may_enter("/")
    assert journal.changes[-1] == Deleted(PermissionDefinition("somebody", "/", read=".*"))


def test_to_clear_permissions_that_are_not_there_changes_nothing(broker: Broker, journal: RecordingJournal) -> None:
    recorded = len(journal.changes)
    broker.users.clear_permissions("somebody", "other")
    assert len(journal.changes) == recorded


def test_topic_permissions_are_set_cleared_and_make_publishers_look_again(
    broker: Broker, journal: RecordingJournal
) -> None:
    version = broker.vhosts["/"].routing.version
    for exchange in ("a", "b"):
        broker.users.set_topic_permissions(TopicPermissionDefinition("somebody", "/", exchange, "^x", "^y"))
    user = broker.users["somebody"]
    assert {*user.topic_permissions} == {("/", "a"), ("/", "b")} and broker.vhosts["/"].routing.version == version + 2
    broker.users.clear_topic_permissions("somebody", "/", "a")
    assert {*user.topic_permissions} == {("/", "b")} and broker.vhosts["/"].routing.version == version + 3
    assert TopicPermissionDefinition("somebody", "/", "b", "^x", "^y") in journal.now.in_order()
    broker.users.clear_topic_permissions("somebody", "/")
    assert not user.topic_permissions and journal.now.in_order() == [
        VhostDefinition("/"), VhostDefinition("other"), UserDefinition("somebody", "hash"),
        PermissionDefinition("somebody", "/", read=".*")]


def test_parameters_are_set_replaced_and_cleared(broker: Broker, journal: RecordingJournal) -> None:
    parameters, before = broker.parameters, journal.now.in_order()
    parameters.set(ParameterDefinition("/", "shovel", "s", {"a": 1}))
    parameters.set(ParameterDefinition("/", "shovel", "s", {"a": 2}))
    parameters.set_global(GlobalParameterDefinition("cluster_name", "rabbit"))
    assert parameters.value("/", "shovel", "s") == {"a": 2} and parameters.value("other", "shovel", "s") is None
    assert parameters.global_value("cluster_name") == "rabbit" and parameters.global_value("other") is None
    reborn = Broker(RecordingJournal())
    reborn.restore(journal.now.in_order())
    assert [*reborn.parameters.of_vhost("/")] == [*parameters.of_vhost("/")]
    assert [*reborn.parameters.of_broker] == [*parameters.of_broker]
    parameters.clear("/", "shovel", "s")
    parameters.clear_global("cluster_name")
    assert journal.now.in_order() == before


def test_a_parameter_needs_its_vhost_and_cannot_be_cleared_twice(broker: Broker) -> None:
    with pytest.raises(NoSuchThing, match="no vhost 'nowhere'"):
        broker.parameters.set(ParameterDefinition("nowhere", "c", "n", 1))
    with pytest.raises(NoSuchThing, match="no vhost 'nowhere'"):
        broker.parameters.clear("nowhere", "c", "n")
    with pytest.raises(NoSuchThing, match="no parameter 'n' of component 'c' in vhost '/'"):
        broker.parameters.clear("/", "c", "n")
    with pytest.raises(NoSuchThing, match="no global parameter 'n'"):
        broker.parameters.clear_global("n")


def test_topic_permissions_and_parameters_of_a_deleted_vhost_are_gone(broker: Broker) -> None:
    broker.users.set_topic_permissions(TopicPermissionDefinition("somebody", "/", "e"))
    broker.users.set_topic_permissions(TopicPermissionDefinition("somebody", "other", "e"))
    broker.parameters.set(ParameterDefinition("/", "c", "n", 1))
    broker.delete_vhost("/")
    broker.add_vhost(VhostDefinition("/"))
    assert {*broker.users["somebody"].topic_permissions} == {("other", "e")}
    assert broker.parameters.value("/", "c", "n") is None


def test_limits_of_a_user_are_kept(broker: Broker, journal: RecordingJournal) -> None:
    broker.users.set_limits("somebody", {"max-channels": 5})
    assert journal.changes[-1] == Defined(UserDefinition("somebody", "hash", limits={"max-channels": 5}))
    recorded = len(journal.changes)
    broker.users.set_limits("somebody", {"max-channels": 5})
    assert len(journal.changes) == recorded


def test_tags_are_set_and_a_password_is_changed_each_by_itself(broker: Broker, journal: RecordingJournal) -> None:
    broker.users.set_tags("somebody", ("administrator", "policymaker"))
    broker.users.change_password("somebody", "new", "scrypt")
    wanted = UserDefinition("somebody", "new", "scrypt", ("administrator", "policymaker"))
    assert broker.users["somebody"].definition == wanted
    assert journal.changes[-1] == Defined(wanted)


def test_what_a_config_declares_is_made_once(broker: Broker, journal: RecordingJournal) -> None:
    declared = (
        ExchangeDefinition("/", "x", "topic", durable=True), QueueDefinition(0, "/", "orders", durable=True),
        BindingDefinition("/", "x", "queue", "orders", "#"))
    for definition in declared:
        broker.ensure(definition)
    before = list(journal.changes)
    for definition in declared:
        broker.ensure(definition)
    assert journal.changes == before
    with pytest.raises(ChannelException, match="inequivalent arg 'type'"):
        broker.ensure(ExchangeDefinition("/", "x", "direct", durable=True))


def test_a_new_broker_is_built_from_what_was_kept(broker: Broker, journal: RecordingJournal) -> None:
    for name in ("orders", "others"):
        broker.ensure(QueueDefinition(0, "/", name, durable=True))
    broker.ensure(ExchangeDefinition("/", "x", "topic", durable=True))
    broker.ensure(BindingDefinition("/", "x", "queue", "orders", "#"))
    broker.ensure(BindingDefinition("/", "amq.direct", "exchange", "x", "k"))
    number = broker.vhosts["/"].queues["orders"].definition.number

    recorded = RecordingJournal(journal.now.copy())
    reborn = Broker(recorded, first_number=1 << 40)
    reborn.restore(journal.now.in_order())
    reborn.restore_messages({number: stored(messages(5, 9, persistent=True))}, {number: {9}}, {}, {})
    vhost = reborn.vhosts["/"]
    vhost.check()
    assert recorded.is_empty, "nothing is recorded again"
    assert len(vhost.queues["orders"].ready) == 2
    assert vhost.queues["orders"].redelivery.numbers == {9} and not vhost.queues["others"].ready
    assert vhost.routing.route(vhost.exchanges["amq.direct"], ("k",), lambda: {}) == [vhost.queues["orders"]]
    assert reborn.users["somebody"].may("/", "read", "anything")


def test_numbers_of_a_run_begin_where_it_was_told(journal: RecordingJournal) -> None:
    broker = Broker(journal, first_number=1 << 40)
    broker.add_vhost(VhostDefinition("/"))
    for name in ("a", "b"):
        broker.ensure(QueueDefinition(0, "/", name))
    numbers = {queue.definition.number for queue in broker.vhosts["/"].queues.values()}
    assert len(numbers) == 2 and min(numbers) >= 1 << 40 and broker.next_message_number == 1 << 40


def test_what_was_redelivered_in_durable_queues_is_told_at_the_end(broker: Broker) -> None:
    broker.ensure(QueueDefinition(0, "/", "durable", durable=True))
    broker.ensure(QueueDefinition(0, "/", "transient"))
    for name in ("durable", "transient"):
        queue = broker.vhosts["/"].queues[name]
        run = [message(1, persistent=True), message(2)]
        queue.publish(run)
        queue.get(no_ack=False)
        queue.requeue(run[:1])
    assert broker.redelivered() == {broker.vhosts["/"].queues["durable"].definition.number: [1]}


def test_where_messages_are_unacked_at_the_end_any_may_have_been_delivered(broker: Broker) -> None:
    for name in ("unacked", "acked"):
        broker.ensure(QueueDefinition(0, "/", name, durable=True))
        queue = broker.vhosts["/"].queues[name]
        queue.publish([message(broker.take_message_number(), persistent=True)])
        got = queue.get(no_ack=False)
    assert got is not None
    queue.settle([got])
    last = broker.next_message_number - 1
    (number, bound), = broker.redelivered_to().items()
    assert number == broker.vhosts["/"].queues["unacked"].definition.number and bound >= last


class LargeQueue:
    """A queue with so much in memory, which it pages out on request; see broker/ports.py."""

    def __init__(self, broker: Broker, cost: int, *, is_spared: bool = False) -> None:
        self.cost = cost
        self.is_spared = is_spared
        self.asked: list[int] = []
        self.has_shrunk = False
        self._budget = broker.page_store.budget
        self._budget.used += cost
        self._budget.large[self] = None

    def page_out(self, octets: int) -> None:
        self.asked.append(octets)
        self._budget.used -= octets
        self.cost -= octets

    def shrunk(self) -> None:
        self.has_shrunk = True


def test_no_more_is_paged_out_than_has_to_be_and_those_behind_are_not_asked(broker: Broker) -> None:
    broker.page_store.budget.limit = 4_000_000
    largest, second, last = LargeQueue(broker, 3_000_000), LargeQueue(broker, 2_000_000), LargeQueue(
        broker, 1_000_000, is_spared=True)
    broker.page_out()
    assert (largest.asked, second.asked, broker.is_behind) == ([3_000_000], [], False)
    assert broker.page_store.budget.used == 3_000_000
    last.is_spared = False
    broker.page_out()
    assert last.asked == [], "there is room"


def test_publishers_wait_while_what_consumers_nearly_take_is_too_much(broker: Broker) -> None:
    broker.page_store.budget.limit = 4_000_000
    spared, other = LargeQueue(broker, 3_500_000, is_spared=True), LargeQueue(broker, 1_000_000)
    small = LargeQueue(broker, 1_000)
    broker.page_out()
    assert (spared.asked, other.asked, broker.is_behind, small.has_shrunk) == ([], [1_501_000], True, True)
    broker.page_store.budget.used = 4_000_000
    broker.page_out()
    assert not broker.is_behind


def test_the_more_queues_have_much_in_memory_the_later_they_are_looked_at_again(broker: Broker) -> None:
    budget = broker.page_store.budget
    budget.limit = 1
    many = [LargeQueue(broker, 100_000, is_spared=True) for _ in range(3 * LOOKED_AT_IN_A_MS)]
    broker.page_out()
    many[0].is_spared = False
    for milliseconds, is_asked in ((LOOK_MS + 2, False), (1, True)):
        broker.clock.advance(broker.clock.now_ms + milliseconds)
        broker.page_out()
        assert bool(many[0].asked) == is_asked
