"""Lists of queues with messages in memory, on disk and unacked: every column."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp.commands import Basic, Queue, Tx

from amqpd.broker.definitions import TopicPermissionDefinition
from amqpd.broker.queue.page_limits import PAGE_MESSAGES
from amqpd.broker.queue.segment import MESSAGE_COST
from amqpd.ctl.lists import LISTINGS
from amqpd.management import queue_usage
from amqpd.management.commands import Commands
from amqpd.management.node_commands import Node
from amqpd.management.queue_usage import MOST_COUNTED
from tests.support.talk import Stage, Talk

PERSISTENT, TRANSIENT = Basic.Properties(delivery_mode=2), Basic.Properties(delivery_mode=1)
RAM = ("messages_ram", "messages_ready_ram", "messages_unacknowledged_ram", "messages_paged_out")
OCTETS = ("message_bytes", "message_bytes_ready", "message_bytes_unacknowledged", "message_bytes_ram",
          "message_bytes_paged_out")


@pytest.fixture
def stage() -> Stage:
    """A broker and its clients."""
    return Stage()


@pytest.fixture
def talk(stage: Stage) -> Iterator[Talk]:
    """A client with channel 1, and the durable queue `q`."""
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q", durable=True)).broker(Queue.DeclareOk("q", 0, 0))
    yield talk
    stage.assert_silent()


class NoAlarms:
    """Alarms that do nothing, since these tests do not need them."""


def commands(stage: Stage, most_counted: int) -> Commands:
    return Commands(stage.broker, Node(
        rabbitmq_version="3.10.8", data_dir=None, durability="none", listeners=[], stop=lambda: None,
        most_counted=most_counted,
        alarms=NoAlarms()))     # type: ignore[arg-type]  # nobody asks


def listed(stage: Stage, *columns: str, most_counted: int = MOST_COUNTED) -> list[Any]:
    """These columns of the queue `q`."""
    found = rows(stage, "list_queues", "name", *columns, most_counted=most_counted)
    return next(row[1:] for row in found if row[0] == "q")


def rows(stage: Stage, command: str, *columns: str, most_counted: int = MOST_COUNTED) -> list[list[Any]]:
    found: list[list[Any]] = commands(stage, most_counted).lookups[command]("/", list(columns))["rows"]
    return found


def publish(talk: Talk, *bodies: bytes, properties: Basic.Properties = PERSISTENT) -> None:
    for body in bodies:
        talk.client(Basic.Publish(routing_key="q"), content=body, properties=properties)


def get(talk: Talk) -> None:
    talk.client(Basic.Get(queue="q")).hear(Basic.GetOk)


@pytest.mark.parametrize("command", [name for name in LISTINGS if not name.endswith("policies")])
def test_every_column_that_amqpctl_knows_is_answered(talk: Talk, command: str) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    publish(talk, b"one")
    talk.hear(Basic.Deliver)
    talk.stage.broker.users.set_topic_permissions(TopicPermissionDefinition("guest", "/", "amq.topic", ".*", ".*"))
    columns = [*LISTINGS[command].default.split(), *LISTINGS[command].others.split()]
    found = rows(talk.stage, command, *columns)
    assert found and all(len(row) == len(columns) for row in found)


def test_what_waits_on_disk_is_told_apart(talk: Talk) -> None:
    count = 2 * PAGE_MESSAGES
    talk.client(*[Basic.Publish(routing_key="q")] * count, content=b"12345", properties=PERSISTENT)
    queue = talk.stage.broker.vhosts["/"].queues["q"]
    queue.pager.page_out(1 << 30)
    assert listed(talk.stage, *RAM) == [PAGE_MESSAGES, PAGE_MESSAGES, 0, PAGE_MESSAGES]
    octets = 5 * PAGE_MESSAGES
    assert listed(talk.stage, *OCTETS) == [2 * octets, 2 * octets, 0, octets, octets]
    assert listed(talk.stage, "memory") == [octets + PAGE_MESSAGES * (MESSAGE_COST + queue_usage.PAGED_COST)]
    assert listed(talk.stage, "messages_persistent", "message_bytes_persistent") == [count, 2 * octets]
    assert listed(talk.stage, "disk_reads", "disk_writes") == [0, ""]
    talk.client(*[Basic.Get(queue="q")] * (PAGE_MESSAGES + 1))
    assert len(talk.hear_all()) == PAGE_MESSAGES + 1
    assert listed(talk.stage, *RAM) == [count, PAGE_MESSAGES - 1, PAGE_MESSAGES + 1, 0]
    assert listed(talk.stage, "disk_reads") == [PAGE_MESSAGES]


def test_a_priority_queue_tells_what_of_all_levels_is_on_disk(talk: Talk) -> None:
    talk.client(Queue.Declare(queue="p", durable=True, arguments={"x-max-priority": 2})).hear(Queue.DeclareOk)
    for level in (0, 1):
        talk.client(*[Basic.Publish(routing_key="p")] * 2 * PAGE_MESSAGES, content=b"x",
                    properties=Basic.Properties(delivery_mode=2, priority=level))
    talk.stage.broker.vhosts["/"].queues["p"].pager.page_out(1 << 30)
    assert rows(talk.stage, "list_queues", "name", *RAM)[1] == [
        "p", 2 * PAGE_MESSAGES, 2 * PAGE_MESSAGES, 0, 2 * PAGE_MESSAGES]


def test_what_clients_have_is_counted(talk: Talk) -> None:
    publish(talk, b"1", b"22", b"333")
    get(talk)
    get(talk)
    assert listed(talk.stage, *OCTETS) == [6, 3, 3, 6, 0]
    assert listed(talk.stage, "memory") == [6 + 3 * MESSAGE_COST]
    talk.client(Basic.Ack(1))
    assert listed(talk.stage, *OCTETS) == [5, 3, 2, 5, 0]


def test_what_a_transaction_has_answered_is_with_the_client_still(talk: Talk) -> None:
    publish(talk, b"1", b"22")
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    get(talk)
    talk.client(Basic.Ack(1))
    assert listed(talk.stage, "message_bytes_unacknowledged") == [1]
    talk.client(Tx.Commit()).broker(Tx.CommitOk())
    assert listed(talk.stage, "message_bytes_unacknowledged") == [0]


def test_what_would_take_long_to_count_is_empty(talk: Talk) -> None:
    publish(talk, b"1", b"22", b"333")
    talk.client(Queue.Declare(queue="other")).hear(Queue.DeclareOk)
    get(talk)
    assert listed(talk.stage, *OCTETS, most_counted=1) == [6, 5, 1, 6, 0]
    get(talk)
    assert listed(talk.stage, *OCTETS, most_counted=1) == ["", 3, "", "", 0]
    assert listed(talk.stage, *RAM, most_counted=1) == [3, 1, 2, 0]
    unknown = "memory", "head_message_timestamp", "message_bytes_persistent"
    assert listed(talk.stage, *unknown, most_counted=1) == ["", "", ""]
    found = rows(talk.stage, "list_queues", "name", "message_bytes", most_counted=1)
    assert found[1] == ["other", 0], "nobody has any of these"


def test_what_clients_have_of_deleted_queues_takes_as_long_to_count(talk: Talk) -> None:
    talk.client(Queue.Declare(queue="gone")).hear(Queue.DeclareOk)
    talk.publish("gone", b"1", b"2", b"3")
    for _ in range(3):
        talk.client(Basic.Get(queue="gone")).hear(Basic.GetOk)
    talk.client(Queue.Delete(queue="gone")).hear(Queue.DeleteOk)
    vhost = talk.stage.broker.vhosts["/"]
    assert queue_usage.unacked_runs(talk.stage.broker, vhost, most=2) is None
    assert listed(talk.stage, "message_bytes", most_counted=2) == [0], "nobody has any of these"
    talk.client(Basic.Ack(1))
    runs = queue_usage.unacked_runs(talk.stage.broker, vhost, most=2)
    assert runs is not None and [len(run) for run in runs.values()] == [2]


def release_contents(talk: Talk) -> None:
    """Much time passes in which the client does not answer."""
    for _ in range(2):
        for _ in talk.session.channels[1].consuming.contents.release_contents():
            pass


def test_what_clients_have_is_told_apart_where_its_content_has_been_released(talk: Talk) -> None:
    timestamp = datetime.fromtimestamp(1_700_000_000, UTC)
    publish(talk, bytes(1_000), bytes(2_000), bytes(4_000), b"1",
            properties=Basic.Properties(delivery_mode=2, timestamp=timestamp))
    for _ in range(3):
        get(talk)
    release_contents(talk)
    talk.client(Basic.Get(queue="q")).hear(Basic.GetOk)
    publish(talk, b"22")
    assert listed(talk.stage, *RAM) == [2, 1, 1, 3]
    assert listed(talk.stage, *OCTETS) == [7_003, 2, 7_001, 3, 7_000]
    assert listed(talk.stage, "memory") == [3 + 5 * MESSAGE_COST]
    assert listed(talk.stage, "head_message_timestamp") == [""], "it was that of the first"
    talk.client(Basic.Ack(3, multiple=True))
    assert listed(talk.stage, *RAM) == [2, 1, 1, 0]
    assert listed(talk.stage, "head_message_timestamp") == [1_700_000_000]


def test_how_many_contents_have_been_released_is_empty_as_well(talk: Talk) -> None:
    publish(talk, bytes(1_000), b"22")
    get(talk)
    assert listed(talk.stage, *RAM, most_counted=0) == [2, 1, 1, 0]
    release_contents(talk)
    assert listed(talk.stage, *RAM, most_counted=0) == ["", 1, "", ""]
    talk.client(Basic.Ack(1))
    assert listed(talk.stage, *RAM, most_counted=0) == [1, 1, 0, 0]


def test_nothing_is_counted_that_nobody_asks_for(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("this was not asked for")

    monkeypatch.setattr(queue_usage, "queue_usage", refuse)
    monkeypatch.setattr(queue_usage, "unacked_runs", refuse)
    assert listed(talk.stage, "messages", "message_bytes_ready", "disk_reads") == [0, 0, 0]
    with pytest.raises(AssertionError, match="this was not asked for"):
        listed(talk.stage, "memory")


# Persistent messages

def test_octets_of_persistent_messages_are_known_where_all_are_or_none(talk: Talk) -> None:
    both = ("messages_persistent", "message_bytes_persistent")
    publish(talk, b"transient", properties=TRANSIENT)
    assert listed(talk.stage, *both) == [0, 0]
    publish(talk, b"1", b"22")
    assert listed(talk.stage, *both) == [2, ""]
    get(talk)
    talk.client(Basic.Ack(1))
    assert listed(talk.stage, *both) == [2, 3]
    get(talk)
    assert listed(talk.stage, *both) == [2, 3]


def test_a_transient_queue_keeps_nothing(talk: Talk) -> None:
    talk.client(Queue.Declare(queue="t")).hear(Queue.DeclareOk)
    talk.client(Basic.Publish(routing_key="t"), content=b"x", properties=PERSISTENT)
    assert rows(talk.stage, "list_queues", "name", "messages_persistent")[1] == ["t", 0]


# The first message

def test_the_head_is_the_first_that_waits_or_that_somebody_has(talk: Talk) -> None:
    assert listed(talk.stage, "head_message_timestamp") == [""]
    for second in (1_700_000_000, 1_700_000_005):
        publish(talk, b"x", properties=Basic.Properties(timestamp=datetime.fromtimestamp(second, UTC)))
    publish(talk, b"x")
    assert listed(talk.stage, "head_message_timestamp") == [1_700_000_000]
    get(talk)
    assert listed(talk.stage, "head_message_timestamp") == [1_700_000_000]
    talk.client(Basic.Ack(1))
    assert listed(talk.stage, "head_message_timestamp") == [1_700_000_005]
    get(talk)
    talk.client(Basic.Ack(2))
    assert listed(talk.stage, "head_message_timestamp") == [""]


# Consumers

def test_of_a_single_active_consumer_s_queue_the_others_wait(talk: Talk) -> None:
    talk.client(Queue.Declare(queue="s", arguments={"x-single-active-consumer": True})).hear(Queue.DeclareOk)
    for queue, tag in (("q", "free"), ("s", "first"), ("s", "second")):
        talk.client(Basic.Consume(queue=queue, consumer_tag=tag)).broker(Basic.ConsumeOk(tag))
    assert rows(talk.stage, "list_consumers", "consumer_tag", "active", "activity_status") == [
        ["free", True, "up"], ["first", True, "single_active"], ["second", False, "waiting"]]
    assert rows(talk.stage, "list_queues", "name", "single_active_consumer_tag", "consumer_capacity") == [
        ["q", "", ""], ["s", "first", ""]]


def test_who_has_a_queue_for_himself_is_told(talk: Talk) -> None:
    assert listed(talk.stage, "exclusive_consumer_pid", "exclusive_consumer_tag", "consumer_utilisation") == ["", "", 0]
    talk.client(Basic.Consume(queue="q", consumer_tag="me", exclusive=True)).broker(Basic.ConsumeOk("me"))
    (channel,), = rows(talk.stage, "list_channels", "pid")
    assert listed(talk.stage, "exclusive_consumer_pid", "exclusive_consumer_tag") == [channel, "me"]


def test_every_queue_has_a_pid_of_its_own(talk: Talk) -> None:
    talk.client(Queue.Declare(queue="other")).hear(Queue.DeclareOk)
    pids = {pid for pid, in [*rows(talk.stage, "list_queues", "pid"), *rows(talk.stage, "list_connections", "pid")]}
    assert len(pids) == 3 and all(pid.startswith("<amqpd@localhost.") for pid in pids)
