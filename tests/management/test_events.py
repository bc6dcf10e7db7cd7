"""The events of a broker, as records, as streams and over the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Basic, Connection, Exchange, Queue

from amqpd import ctl
from amqpd.broker.actor import Actor, acting
from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import (
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.events import Event
from amqpd.broker.feed import Feed
from amqpd.broker.operations import set_paused
from amqpd.ctl.client import follow
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.management.event_records import event_record
from amqpd.management.observing_commands import ObservingCommands
from amqpd.management.refusal import Refusal
from amqpd.management.streams import Stream
from amqpd.program import Failure
from amqpd.store.journal import MemoryJournal
from tests.management.desk import bare_node
from tests.support.talk import Stage

CLIENT = "10.0.0.1:40000 -> 10.0.0.2:5672"


class Listener:
    """The records of all events of a broker since it was made."""

    def __init__(self, broker: Broker) -> None:
        self._feed: Feed[Event] = Feed()
        broker.events.listen(self._feed)

    def heard(self) -> list[dict[str, Any]]:
        """The records since the last call, without their times."""
        events, dropped = self._feed.take()
        assert not dropped
        records = [event_record(event) for event in events]
        assert all(record.pop("timestamp_in_ms") > 1_600_000_000_000 for record in records)
        assert json.loads(json.dumps(records)) == records, "not what JSON can hold"
        return records

    def names(self) -> list[str]:
        """The names of the events since the last call."""
        return [record["event"] for record in self.heard()]


def broker_of(stage: Stage) -> tuple[Broker, Listener]:
    return stage.broker, Listener(stage.broker)


def test_consumers_of_a_channel_that_closes_are_told_before_it(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    for tag in "ab":
        talk.client(Basic.Consume(queue="q", consumer_tag=tag)).broker(Basic.ConsumeOk(tag))
    _, listener = broker_of(stage)
    talk.close_channel()
    assert listener.names() == ["consumer.deleted", "consumer.deleted", "channel.closed"]


def test_a_client_s_connection_channel_and_consumer_are_told(stage: Stage) -> None:
    _, listener = broker_of(stage)
    talk = stage.client().open_channel()
    login, connection, channel = listener.heard()
    assert login == {
        "event": "user.authentication.success", "name": "guest", "connection_name": CLIENT,
        "connection_type": "network", "peer_host": "10.0.0.1", "peer_port": 40_000, "host": "10.0.0.2",
        "protocol": "AMQP 0-9-1", "auth_mechanism": "PLAIN", "ssl": False}
    assert connection["event"] == "connection.created" and connection["user"] == "guest"
    assert (connection["pid"], connection["vhost"]) == ("<amqpd@localhost.1.1.0>", "/")
    assert channel == {
        "event": "channel.created", "name": f"{CLIENT} (1)", "number": 1, "pid": "<amqpd@localhost.1.1.1>",
        "connection": connection["pid"], "user": "guest", "vhost": "/", "user_who_performed_action": "guest"}
    talk.client(Queue.Declare(queue="q", exclusive=True)).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    queue, consumer = listener.heard()
    assert queue == {
        "event": "queue.created", "name": "q", "vhost": "/", "durable": False, "auto_delete": False,
        "exclusive": True, "arguments": {}, "owner_pid": connection["pid"], "user_who_performed_action": "guest"}
    assert consumer == {
        "event": "consumer.created", "consumer_tag": "c", "queue": "q", "vhost": "/", "channel": channel["pid"],
        "ack_required": True, "exclusive": False, "prefetch_count": 0, "arguments": {},
        "user_who_performed_action": "guest"}
    talk.client(Basic.Cancel("c")).broker(Basic.CancelOk("c"))
    assert listener.names() == ["consumer.deleted"]
    talk.close_channel()
    assert listener.names() == ["channel.closed"]
    talk.open_channel().client(Connection.Close(200, "", 0, 0)).broker(Connection.CloseOk())
    assert sorted(listener.names()) == [
        "channel.closed", "channel.created", "connection.closed", "queue.deleted"]


def test_a_login_that_fails_is_told_with_the_reason(stage: Stage) -> None:
    _, listener = broker_of(stage)
    stage.stranger().greet().log_in("guest", "wrong").hear_all()
    [login] = listener.heard()
    assert (login["event"], login["name"], login["error"]) == (
        "user.authentication.failure", "guest", "the password is wrong")


def test_what_clients_declare_and_delete_is_told_with_the_user(stage: Stage) -> None:
    _, listener = broker_of(stage)
    talk = stage.client("bob").open_channel()
    listener.heard()
    talk.client(
        Queue.Declare(queue="q", durable=True, arguments={"x-max-length": 5}), Queue.Declare(
            queue="q", durable=True, arguments={"x-max-length": 5}),
        Exchange.Declare(exchange="e", exchange_type="topic"), Queue.Bind(queue="q", exchange="e", routing_key="a.*"))
    talk.hear_all()
    declared = listener.heard()
    assert [one["event"] for one in declared] == ["queue.created", "exchange.created", "binding.created"]
    assert declared[2] == {
        "event": "binding.created", "source_name": "e", "source_kind": "exchange", "destination_name": "q",
        "destination_kind": "queue", "routing_key": "a.*", "arguments": {}, "vhost": "/",
        "user_who_performed_action": "bob"}
    assert declared[0]["arguments"] == {"x-max-length": 5}
    talk.client(Queue.Delete(queue="q"), Exchange.Delete(exchange="e")).hear_all()
    deleted = listener.heard()
    assert [one["event"] for one in deleted] == ["binding.deleted", "queue.deleted", "exchange.deleted"]
    assert {one["user_who_performed_action"] for one in deleted} == {"bob"}
    assert deleted[1] == {"event": "queue.deleted", "name": "q", "vhost": "/", "user_who_performed_action": "bob"}


def test_users_permissions_vhosts_policies_and_parameters_are_told_without_secrets(stage: Stage) -> None:
    broker, listener = broker_of(stage)
    users, vhost = broker.users, VhostDefinition("v", "for tests", ("a",))
    with acting(Actor("root", "pid 1", "control")):
        users.add(UserDefinition("u", "hash"))
        users.change_password("u", "hash 2", "scrypt")
        users.change_password("u", "", "scrypt")
        users.set_tags("u", ("monitoring",))
        users.set_limits("u", {"max-channels": 3})
        users.set_limits("u", {})
        users.put(UserDefinition("u", "hash 3", tags=("administrator",)))
        broker.add_vhost(vhost)
        users.set_permissions(PermissionDefinition("u", "v", ".*", "w", "r"))
        users.set_topic_permissions(TopicPermissionDefinition("u", "v", "amq.topic", "w", "r"))
        users.clear_topic_permissions("u", "v")
        users.clear_permissions("u", "v")
        for is_operator in (False, True):
            broker.vhosts["v"].followers.set_policy(
                PolicyDefinition("v", "p", "^a", {"max-length": 3}, is_operator=is_operator))
            broker.vhosts["v"].followers.clear_policy("p", is_operator=is_operator)
        broker.parameters.set(ParameterDefinition("v", "shovel", "s", {"src-uri": "amqp://u:secret@host"}))
        broker.parameters.clear("v", "shovel", "s")
        broker.parameters.set(ParameterDefinition("v", "vhost-limits", "limits", {"max-queues": 3}))
        broker.parameters.clear("v", "vhost-limits", "limits")
        broker.parameters.set_global(GlobalParameterDefinition("g", 1))
        broker.parameters.clear_global("g")
        broker.delete_vhost("v")
        users.delete("u")
    heard = listener.heard()
    assert [record["event"] for record in heard] == [
        "user.created", "user.password.changed", "user.password.cleared", "user.tags.set", "user.limits.set",
        "user.limits.cleared", "user.password.changed", "user.tags.set", "vhost.created", "permission.created",
        "topic.permission.created", "topic.permission.deleted", "permission.deleted", "policy.set", "policy.cleared",
        "policy.set", "operator.policy.cleared", "parameter.set", "parameter.cleared", "parameter.set",
        "vhost.limits.set", "parameter.cleared", "vhost.limits.cleared", "parameter.set", "parameter.cleared",
        "vhost.deleted", "user.deleted"]
    assert {record["user_who_performed_action"] for record in heard} == {"rmq-cli"}
    assert "secret" not in str(heard) and "hash" not in str(heard)
    assert heard[13] | {"is_operator": True} == heard[15] and heard[13]["definition"] == {"max-length": 3}
    assert heard[10]["exchange"] == heard[11]["exchange"] == "amq.topic" and heard[4]["max-channels"] == 3


def test_the_broker_itself_deletes_as_rabbitmq_names_itself(stage: Stage) -> None:
    broker, listener = broker_of(stage)
    broker.vhosts["/"].declare_queue(OPERATOR, QueueDefinition(0, "/", "q", arguments={"x-expires": 1_000}), None)
    stage.pass_time(2)
    assert [record["user_who_performed_action"] for record in listener.heard()] == ["rmq-internal"] * 2


def test_a_queue_that_is_paused_and_resumed_is_told_once_each(stage: Stage) -> None:
    broker, listener = broker_of(stage)
    queue = broker.vhosts["/"].declare_queue(OPERATOR, QueueDefinition(0, "/", "q"), None)
    listener.heard()
    for is_paused in (True, True, False, False):
        with acting(Actor("ann", "10.0.0.9", "http")):
            set_paused(broker.vhosts["/"], queue, is_paused=is_paused)
    assert listener.heard() == [
        {"event": event, "name": "q", "vhost": "/", "user_who_performed_action": "ann"}
        for event in ("queue.paused", "queue.resumed")]


def test_nothing_is_made_without_a_listener(stage: Stage) -> None:
    broker, listener = broker_of(stage)
    broker.events.leave(listener._feed)
    broker.events.leave(listener._feed)
    stage.client().open_channel().client(Queue.Declare(queue="q")).hear_all()
    assert listener.heard() == [] and not broker.events.listeners


# Streams

async def first(stream: AsyncIterator[Any], count: int) -> list[Any]:
    return [await anext(stream) for _ in range(count)]


def test_a_stream_has_the_events_that_were_asked_for() -> None:
    async def follow_some() -> list[dict[str, Any]]:
        broker = Broker(MemoryJournal())
        stream = ObservingCommands(broker).events(["vhost.*", "user.#"])
        waiting = asyncio.ensure_future(first(stream, 3))
        await asyncio.sleep(0)
        broker.add_vhost(VhostDefinition("v"))
        broker.vhosts["v"].declare_queue(OPERATOR, QueueDefinition(0, "v", "q"), None)
        broker.users.add(UserDefinition("u"))
        broker.users.set_tags("u", ("management",))
        heard = await waiting
        stream.close()
        stream.close()
        assert not broker.events.listeners and [record async for record in stream] == []
        return heard

    assert [record["event"] for record in asyncio.run(follow_some())] == [
        "vhost.created", "user.created", "user.tags.set"]


def test_too_many_patterns_are_refused() -> None:
    observing = ObservingCommands(Broker(MemoryJournal()))
    with pytest.raises(Refusal, match="at most 50 patterns of 255 characters"):
        observing.events(["a"] * 51)
    with pytest.raises(Refusal, match="255 characters"):
        observing.events(["a" * 256])


def test_what_a_slow_reader_misses_is_counted_where_it_is_missing() -> None:
    async def read_slowly() -> list[Any]:
        feed: Feed[int] = Feed(2, 100)
        for item in range(5):
            if feed.has_room(10):
                feed.put(item, 10)
        async with Stream(feed, lambda item: {"item": item}, lambda feed: None) as stream:
            heard = await first(stream, 3)
            for size in (1_000, 1):
                if feed.has_room(size):
                    feed.put(size, size)
            return heard + await first(stream, 2)

    assert asyncio.run(read_slowly()) == [{"item": 0}, {"item": 1}, {"dropped": 3}, {"item": 1_000}, {"dropped": 1}]


# Over the control socket

class Desk:
    """A broker and its control socket."""

    def __init__(self, path: Path) -> None:
        self.path = path / "control.sock"
        self.writers: list[asyncio.StreamWriter] = []
        self.broker = Broker(MemoryJournal())
        self.control = Control(Commands(self.broker, bare_node()), self._wait_committed)

    async def _wait_committed(self) -> None:
        pass

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer clients until the block ends; then all of them have gone."""
        async with self.control.listening(self.path):
            yield
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        while self.control._clients:
            await asyncio.sleep(0)

    async def begin(self, command: str = "events") -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]:
        """Ask for a stream; return both ends of the connection, and the first answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        self.writers.append(writer)
        writer.write(json.dumps({"command": command}).encode() + b"\n")
        return reader, writer, json.loads(await reader.readline())


def test_a_stream_over_the_control_socket_ends_when_the_client_goes(tmp_path: Path) -> None:
    async def talk() -> None:
        desk = Desk(tmp_path)
        async with desk.listening():
            reader, writer, answer = await desk.begin()
            assert answer == {"ok": True, "stream": True}
            desk.broker.users.add(UserDefinition("u"))
            assert json.loads(await reader.readline())["event"] == "user.created"
            writer.close()
            while desk.broker.events.listeners:
                await asyncio.sleep(0)

    asyncio.run(talk())


def test_only_some_clients_may_follow_and_the_others_still_give_commands(tmp_path: Path) -> None:
    async def talk() -> None:
        desk = Desk(tmp_path)
        async with desk.listening():
            streams = [await desk.begin() for _ in range(9)]
            assert [answer["ok"] for *_, answer in streams] == [True] * 8 + [False]
            assert streams[-1][2]["error"].startswith("8 clients follow what happens already")
            assert len(desk.broker.events.listeners) == 8
            _, _, answer = await desk.begin("ping")
            assert answer == {"ok": True, "result": None}
        for reader, *_ in streams[:8]:
            assert await reader.read() == b""       # the broker has stopped

    asyncio.run(talk())


def test_amqpctl_reads_a_stream_until_the_broker_ends(tmp_path: Path) -> None:
    async def talk() -> list[Any]:
        desk = Desk(tmp_path)
        async with desk.listening():
            reading = asyncio.create_task(asyncio.to_thread(
                lambda: list(follow(desk.path, "events", {"patterns": ["user.*"]}, timeout_s=60))))
            while not desk.broker.events.listeners:
                await asyncio.sleep(0)
            desk.broker.users.add(UserDefinition("u"))
            while any(feed._items for feed in desk.broker.events.listeners):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await reading

    [record] = asyncio.run(talk())
    assert record["event"] == "user.created" and record["name"] == "u"


def test_amqpctl_prints_an_object_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    def answer(*asks: Any, **more: Any) -> Iterator[dict[str, Any]]:
        asked.append(asks[1:])
        yield from [{"event": "queue.created", "name": "grün"}, {"dropped": 3}]
        raise KeyboardInterrupt

    monkeypatch.setattr("amqpd.ctl.client.follow", answer)
    assert ctl.main(["events", "queue.*"]) == 0
    assert asked == [("events", {"patterns": ["queue.*"]})]
    assert capsys.readouterr().out == '{"event": "queue.created", "name": "grün"}\n{"dropped": 3}\n'


def test_amqpctl_says_why_nothing_can_be_followed(tmp_path: Path) -> None:
    async def talk() -> None:
        desk = Desk(tmp_path)
        async with desk.listening():
            await asyncio.to_thread(lambda: list(follow(desk.path, "events", {"patterns": 5}, timeout_s=60)))

    with pytest.raises(Failure, match="events: patterns: Expected"):
        asyncio.run(talk())
    with pytest.raises(Failure, match="no amqpd is running"):
        list(follow(tmp_path / "control.sock", "events", {}, timeout_s=60))
