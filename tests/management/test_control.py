"""The commands of amqpctl on a broker, and the control socket."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
import socket
import stat
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    Change,
    ExchangeDefinition,
    PermissionDefinition,
    QueueDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.passwords import PasswordForm, hash_known_password, password_matches
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.scram import read_verifier
from amqpd.broker.statistics import ChannelStatistics, ConnectionStatistics
from amqpd.fields import LongString, Timestamp
from amqpd.identity import CONTROL_SOCKET, NODE_NAME
from amqpd.management import control, listings
from amqpd.management.commands import Commands
from amqpd.management.control import Control, bind_private, describe_peer
from amqpd.management.node_commands import Node
from amqpd.management.refusal import Refusal
from amqpd.message import Message, MessageProperties, Route, pack_content
from amqpd.tls_facts import PeerCertificate, TlsFacts
from tests.support.loops import until

NAME = "127.0.0.1:40000 -> 127.0.0.1:5672"
CONNECTION = ConnectionStatistics(
    name=NAME, user="guest", vhost="/", peer_host="127.0.0.1", peer_port=40_000, host="127.0.0.1", port=5_672,
    auth_mechanism="PLAIN", state="running", channels=1, channel_max=2_047, frame_max=131_072, heartbeat_s=60,
    client_properties={"product": "test", "connection_name": "orders"}, connected_at_ms=1_700_000_000_000,
    received_bytes=500, received_count=4, sent_bytes=700, sent_count=3, unsent_bytes=9)
CHANNEL = ChannelStatistics(
    name=f"{NAME} (3)", number=3, connection=NAME, user="guest", vhost="/", consumers=2, prefetch=10,
    shared_prefetch=20, unacked=4, unconfirmed=5, uncommitted=6, uncommitted_acks=7, dropped_replies=8,
    has_confirms=True, is_transactional=False)


class ListJournal:
    """A journal that keeps its records in a list."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def changed(self, change: Change) -> int:
        self.changes.append(change)
        return len(self.changes)

    def audited(self, entry: object) -> int:
        return len(self.changes)

    def write_body(self, message: object) -> None:
        """Write nothing: no message waits for it."""

    def published(self, queue: QueueDefinition, run: object) -> int:
        return 0

    def settled(self, queue: QueueDefinition, run: object) -> int:
        return 0


class FakeConnection:
    """A connection with one channel."""

    user_name = "guest"
    vhost_name = "/"

    def __init__(self) -> None:
        self.closed_for: str | None = None
        self.listed = CONNECTION
        self.owner = object()

    def force_close(self, reason: str) -> None:
        self.closed_for = reason

    def statistics(self) -> ConnectionStatistics:
        return self.listed

    @property
    def unacked_count(self) -> int:
        return 0

    def unacked_runs(self) -> list[tuple[Queue, list[Message]]]:
        return []

    def channel_statistics(self) -> list[ChannelStatistics]:
        return [CHANNEL]


class FakeSubscriber:
    """A channel that takes no deliveries."""

    room = credit = 0
    address = (7, 1)

    def deliver(self, consumer: Consumer, run: object) -> None:
        raise AssertionError("there is no room")

    def cancelled(self, consumer: Consumer) -> None:
        pass


class FakeAlarms:
    """Notes what is set."""

    def __init__(self) -> None:
        self.set: list[tuple[str, float]] = []

    def set_memory_watermark(self, fraction: float) -> None:
        self.set.append(("memory", fraction))

    def set_memory_watermark_absolute(self, limit_bytes: int) -> None:
        self.set.append(("memory, absolute", limit_bytes))

    def set_disk_free_limit(self, limit_bytes: int) -> None:
        self.set.append(("disk", limit_bytes))

    def set_disk_free_limit_relative(self, fraction: float) -> None:
        self.set.append(("disk, relative", fraction))

    def statistics(self) -> dict[str, Any]:
        return {"alarms": [], "disk_free_limit": 7}


class Desk:
    """A broker with vhost "/" and user guest, and its control socket."""

    def __init__(self) -> None:
        self.journal = ListJournal()
        self.broker = Broker(self.journal)
        self.broker.add_vhost(VhostDefinition("/"))
        self.broker.users.add(UserDefinition("guest", *hash_known_password("guest"), ("administrator",)))
        self.vhost = self.broker.vhosts["/"]
        self.stops = 0
        self.log: list[str] = []
        self.alarms = FakeAlarms()
        node = Node(
            rabbitmq_version="3.10.8", data_dir=None, durability="none", alarms=self.alarms,
            listeners=[("127.0.0.1", 5672)], stop=self._stop)
        self.node = node
        self.control = Control(Commands(self.broker, node), self._wait_committed)

    def _stop(self) -> None:
        self.stops += 1

    async def _wait_committed(self) -> None:
        self.log.append(f"committed {len(self.journal.changes)}")

    def answer(self, command: str, **arguments: Any) -> dict[str, Any]:
        """What a request is answered with, through JSON."""
        request = json.dumps({"command": command, "arguments": arguments}).encode()
        return asyncio.run(self.control.answer(request))

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result of a command that is carried out."""
        answer = self.answer(command, **arguments)
        assert answer["ok"], answer
        return answer["result"]

    def refusal(self, command: str, **arguments: Any) -> tuple[str, int]:
        """Text and exit code of a command that is refused."""
        answer = self.answer(command, **arguments)
        assert not answer["ok"], answer
        return answer["error"], answer["exit_code"]

    def rows(self, command: str, *columns: str, vhost: str = "/") -> list[list[Any]]:
        """The rows of a list."""
        rows: list[list[Any]] = self.ask(command, vhost=vhost, columns=columns)["rows"]
        return rows

    def queue(self, name: str, *, owner: object = OPERATOR, messages: int = 0, **fields: Any) -> Queue:
        """Declare a queue and put messages into it."""
        queue = self.vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, **fields), owner)
        route = Route("", name, b"", 1, 131_072)
        content = pack_content(1, 131_072, b"\0\0", b"body")
        queue.publish([Message(number, route, MessageProperties(), content, 4) for number in range(1, messages + 1)])
        return queue


@pytest.fixture
def desk() -> Desk:
    """A broker to command."""
    return Desk()


# Lists

def test_the_store_is_told_of_and_copied_where_there_is_one(desk: Desk) -> None:
    copies: list[Path] = []

    async def backup(to: Path, tell: Callable[[int, int], None]) -> None:
        copies.append(to)
        tell(3, 4)
        if to.name == "full":
            raise Refusal("the disk is full", 74)

    desk.node.store_info, desk.node.backup = lambda: {"messages": 3}, backup
    assert desk.ask("store_info") == {"messages": 3}
    assert desk.ask("backup_store", to="/tmp/copy.db") is None
    assert desk.ask("backup_store", to="/tmp/backup", unfinished="/tmp/.unfinished") is None
    assert copies == [Path("/tmp/copy.db"), Path("/tmp/.unfinished")]
    latest = desk.node.backups.latest
    assert latest is not None and (latest.to, latest.left, latest.total, latest.error) == ("/tmp/backup", 3, 4, "")
    assert latest.ended_ms >= latest.begun_ms > 0
    assert desk.refusal("backup_store", to="/tmp/full") == ("the disk is full", 74)
    assert desk.node.backups.latest is not None and desk.node.backups.latest.error == "the disk is full"


@pytest.mark.parametrize("command, arguments", [("store_info", {}), ("backup_store", {"to": "/tmp/copy.db"})])
def test_in_memory_there_is_no_store(desk: Desk, command: str, arguments: dict[str, Any]) -> None:
    assert desk.refusal(command, **arguments) == ("this amqpd keeps everything in memory: it has no store", 69)


def test_queues_are_listed_with_their_counts(desk: Desk) -> None:
    desk.queue("orders", durable=True, messages=2, arguments={"x-max-length": 5})
    assert desk.rows("list_queues", "name", "messages", "messages_ready", "durable", "type", "arguments") == [
        ["orders", 2, 2, True, "classic", [("x-max-length", "signedint", 5)]]]


def test_an_exclusive_queue_names_its_owner_as_list_connections_does(desk: Desk) -> None:
    connection = desk.broker.connections[7] = FakeConnection()
    desk.queue("mine", owner=connection.owner, exclusive=True)
    assert desk.rows("list_queues", "owner_pid", "exclusive") == [["<amqpd@localhost.1.7.0>", True]]
    assert desk.rows("list_connections", "pid") == [["<amqpd@localhost.1.7.0>"]]


def test_the_default_exchange_and_its_bindings_are_listed(desk: Desk) -> None:
    desk.queue("orders")
    assert ["", "direct"] in desk.rows("list_exchanges", "name", "type")
    assert desk.rows("list_bindings", "source_name", "destination_name", "destination_kind", "routing_key") == [
        ["", "orders", "queue", "orders"]]


def test_bindings_are_listed_with_their_arguments(desk: Desk) -> None:
    desk.vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "a", "topic"))
    desk.vhost.bind(OPERATOR, BindingDefinition("/", "amq.topic", "exchange", "a", "k.*", {"x": 1}), OPERATOR)
    assert desk.rows("list_bindings", "source_name", "source_kind", "destination_name", "destination_kind",
                     "routing_key", "arguments") == [
        ["amq.topic", "exchange", "a", "exchange", "k.*", [("x", "signedint", 1)]]]


def test_connections_and_channels_are_listed_with_their_pids(desk: Desk) -> None:
    desk.broker.connections[7] = FakeConnection()
    connection = {
        "pid": "<amqpd@localhost.1.7.0>", "name": NAME, "user": "guest", "vhost": "/", "peer_host": "127.0.0.1",
        "peer_port": 40_000, "host": "127.0.0.1", "port": 5_672, "protocol": "AMQP 0-9-1", "auth_mechanism": "PLAIN",
        "ssl": False, "state": "running", "channels": 1, "channel_max": 2_047, "frame_max": 131_072, "timeout": 60,
        "client_properties": [("product", "longstr", "test"), ("connection_name", "longstr", "orders")],
        "user_provided_name": "orders", "connected_at": 1_700_000_000_000, "recv_oct": 500, "recv_cnt": 4,
        "send_oct": 700, "send_cnt": 3, "send_pend": 9, "ssl_cipher": ""}
    channel = {
        "pid": "<amqpd@localhost.1.7.3>", "connection": "<amqpd@localhost.1.7.0>", "name": f"{NAME} (3)", "number": 3,
        "user": "guest", "vhost": "/", "consumer_count": 2, "prefetch_count": 10, "global_prefetch_count": 20,
        "messages_unacknowledged": 4, "messages_unconfirmed": 5, "messages_uncommitted": 6, "acks_uncommitted": 7,
        "replies_dropped": 8, "confirm": True, "transactional": False}
    assert desk.rows("list_connections", *connection) == [list(connection.values())]
    assert desk.rows("list_channels", *channel) == [list(channel.values())]


def test_a_tls_connection_is_listed_with_its_protocol_and_the_certificate_of_the_client(desk: Desk) -> None:
    connection = desk.broker.connections[7] = FakeConnection()
    columns = [
        "ssl", "ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash", "peer_cert_subject", "peer_cert_issuer",
        "peer_cert_validity"]
    assert desk.rows("list_connections", *columns) == [[False, "", "", "", "", "", "", ""]]
    tls = TlsFacts(protocol="tlsv1.2", cipher="aes_256_gcm", key_exchange="ecdhe_rsa", hash="sha384")
    connection.listed = replace(CONNECTION, tls=tls)
    assert desk.rows("list_connections", *columns) == [
        [True, "tlsv1.2", "ecdhe_rsa", "aes_256_gcm", "sha384", "", "", ""]]
    certificate = PeerCertificate(
        subject="CN=shop,O=Example", issuer="CN=Example CA", common_name="shop", not_before=1_700_000_000,
        not_after=1_800_000_000)
    connection.listed = replace(CONNECTION, tls=tls, peer_certificate=certificate)
    assert desk.rows("list_connections", *columns[5:]) == [
        ["CN=shop,O=Example", "CN=Example CA", "2023-11-14T22:13:20Z - 2027-01-15T08:00:00Z"]]


def test_consumers_are_listed_queue_by_queue(desk: Desk) -> None:
    queue = desk.queue("orders")
    queue.subscribe(Consumer("tag", queue, FakeSubscriber(), no_ack=True, exclusive=True, prefetch=5))
    assert desk.rows("list_consumers", "queue_name", "consumer_tag", "ack_required", "prefetch_count", "active") == [
        ["orders", "tag", False, 5, True]]
    assert desk.rows("list_queues", "consumers", "exclusive_consumer_tag") == [[1, "tag"]]


def test_a_consumer_that_waits_at_the_limit_of_unanswered_deliveries_is_told_apart(desk: Desk) -> None:
    queue = desk.queue("orders")
    for tag, prefetch, no_ack in (("full", 0, False), ("limited", 3, False), ("free", 0, False), ("no-ack", 0, True)):
        consumer = Consumer(tag, queue, FakeSubscriber(), no_ack=no_ack, prefetch=prefetch, unacked_limit=3)
        queue.subscribe(consumer)
        consumer.in_flight = 2 if tag == "free" else 3
    columns = ["consumer_tag", "messages_unacknowledged", "unacked_limit_reached"]
    assert desk.rows("list_consumers", *columns) == [
        ["full", 3, True], ["limited", 3, False], ["free", 2, False], ["no-ack", 3, False]]


def test_users_vhosts_and_permissions_are_listed(desk: Desk) -> None:
    desk.broker.users.set_permissions(PermissionDefinition("guest", "/", "a", "b", "c"))
    desk.broker.add_vhost(VhostDefinition("shop"))
    assert desk.rows("list_users", "user", "tags") == [["guest", ["administrator"]]]
    assert desk.rows("list_vhosts", "name") == [["/"], ["shop"]]
    assert desk.rows("list_permissions", "user", "configure", "write", "read") == [["guest", "a", "b", "c"]]
    assert desk.rows("list_permissions", "user", vhost="shop") == []


def test_what_a_user_may_do_is_listed_vhost_by_vhost(desk: Desk) -> None:
    desk.broker.add_vhost(VhostDefinition("shop"))
    desk.broker.users.set_permissions(PermissionDefinition("guest", "/", "a", "b", "c"))
    desk.broker.users.set_permissions(PermissionDefinition("guest", "shop", "", "", "^x"))
    assert desk.ask("list_user_permissions", user="guest") == {
        "columns": ["vhost", "configure", "write", "read"], "rows": [["/", "a", "b", "c"], ["shop", "", "", "^x"]]}


@pytest.mark.parametrize("command", [
    "list_queues", "list_exchanges", "list_bindings", "list_consumers", "list_permissions", "list_policies",
    "list_operator_policies",
])
def test_a_vhost_that_does_not_exist_is_an_error_to_every_list(desk: Desk, command: str) -> None:
    assert desk.refusal(command, vhost="nope", columns=[]) == ("Virtual host 'nope' does not exist", 65)


def test_an_unknown_column_is_refused(desk: Desk) -> None:
    assert desk.refusal("list_vhosts", vhost="/", columns=["nope"]) == ("Info key(s) nope are not supported", 64)


def test_a_field_table_keeps_its_types_in_json() -> None:
    table = {"i": 2**40, "t": Timestamp(5), "b": b"\xff", "s": LongString(b"\xff"), "d": Decimal("1.5"),
             "a": [1, None, {"x": True}]}
    assert listings.field_table(table) == [
        ("i", "long", 2**40), ("t", "timestamp", 5), ("b", "binary", "\\xff"), ("s", "longstr", "\\xff"),
        ("d", "decimal", "1.5"),
        ("a", "array", [("signedint", 1), ("void", None), ("table", [("x", "bool", True)])])]


# Queues and connections

def test_a_purge_drops_the_ready_messages(desk: Desk) -> None:
    queue = desk.queue("orders", messages=3)
    assert desk.ask("purge_queue", vhost="/", queue="orders") is None
    assert not queue.ready


def test_to_purge_or_delete_what_does_not_exist_is_refused_as_rabbitmqctl_does(desk: Desk) -> None:
    assert desk.refusal("purge_queue", vhost="/", queue="q") == ("not_found: no queue 'q' in vhost '/'", 69)
    assert desk.refusal("delete_queue", vhost="/", queue="q") == ("Queue not found", 64)


def test_a_deleted_queue_tells_how_many_messages_were_ready(desk: Desk) -> None:
    desk.queue("orders", messages=3)
    assert desk.ask("delete_queue", vhost="/", queue="orders", if_empty=False, if_unused=True) == 3
    assert not desk.vhost.queues


def test_a_queue_is_kept_unless_it_is_as_asked(desk: Desk) -> None:
    queue = desk.queue("orders", messages=1)
    queue.subscribe(Consumer("tag", queue, FakeSubscriber()))
    assert desk.refusal("delete_queue", vhost="/", queue="orders", if_unused=True) == ("Queue is in use", 64)
    assert desk.refusal("delete_queue", vhost="/", queue="orders", if_empty=True) == ("Queue is not empty", 64)
    assert "orders" in desk.vhost.queues


def test_another_connections_exclusive_queue_can_be_purged_and_deleted(desk: Desk) -> None:
    desk.queue("mine", owner=FakeConnection(), exclusive=True, messages=1)
    desk.ask("purge_queue", vhost="/", queue="mine")
    assert desk.ask("delete_queue", vhost="/", queue="mine") == 0


@pytest.mark.parametrize("token", [NAME, "<amqpd@localhost.1.7.0>"])
def test_a_connection_is_closed_by_its_name_or_pid(desk: Desk, token: str) -> None:
    connection = desk.broker.connections[7] = FakeConnection()
    desk.ask("close_connection", connection=token, explanation="bye")
    assert connection.closed_for == "bye"


def test_a_connection_that_does_not_exist_is_refused(desk: Desk) -> None:
    assert desk.refusal("close_connection", connection="x", explanation="") == ("no connection 'x'", 69)


@pytest.mark.parametrize("arguments, count", [
    ({}, 3), ({"vhost": "/"}, 2), ({"vhost": "nope"}, 0), ({"limit": 1}, 1), ({"vhost": "/", "limit": 5}, 2),
])
def test_all_connections_to_a_vhost_are_closed(desk: Desk, arguments: dict[str, Any], count: int) -> None:
    connections = [FakeConnection() for _ in range(3)]
    connections[2].vhost_name = "shop"
    desk.broker.connections |= dict(enumerate(connections))     # type: ignore[arg-type]    # the fakes do what is asked
    assert desk.ask("close_all_connections", explanation="bye", **arguments) == count
    assert [one.closed_for for one in connections].count("bye") == count
    assert connections[2].closed_for is None or "vhost" not in arguments


def test_all_connections_of_a_user_are_closed(desk: Desk) -> None:
    connections = [FakeConnection() for _ in range(2)]
    connections[1].user_name = "till"
    desk.broker.connections |= dict(enumerate(connections))     # type: ignore[arg-type]    # the fakes do what is asked
    assert desk.ask("close_all_user_connections", user="till", explanation="bye") == 1
    assert [one.closed_for for one in connections] == [None, "bye"]


# Users and vhosts

def test_a_user_without_a_password_cannot_log_in_with_one(desk: Desk) -> None:
    assert desk.ask("authenticate_user", user="guest", password="guest") is None
    desk.ask("clear_password", user="guest")
    for password in ("guest", ""):
        assert desk.refusal("authenticate_user", user="guest", password=password)[1] == 65
    assert desk.broker.users["guest"].definition.tags == ("administrator",)


def test_a_password_that_is_set_is_stored_in_the_form_of_the_node(desk: Desk) -> None:
    commands = Commands(desk.broker, replace(desk.node, password_form=PasswordForm(with_scram=True)))
    desk.control = Control(commands, desk._wait_committed)
    desk.ask("add_user", user="till", password="secret")
    first = read_verifier(desk.broker.users["till"].definition.scram_sha256)
    desk.ask("change_password", user="till", password="other")
    second = read_verifier(desk.broker.users["till"].definition.scram_sha256)
    assert first is not None and second is not None and first != second
    desk.ask("add_user", user="external", password="")
    assert desk.broker.users["external"].definition == UserDefinition("external")


def test_a_password_that_is_changed_leaves_no_verifier_of_the_former_one(desk: Desk) -> None:
    desk.broker.users.add(UserDefinition("till", scram_sha256="a verifier"))
    desk.ask("change_password", user="till", password="other")
    assert not desk.broker.users["till"].definition.scram_sha256


def test_a_new_user_can_log_in_and_do_nothing(desk: Desk) -> None:
    desk.ask("add_user", user="till", password="secret")
    user = desk.broker.users["till"]
    assert password_matches(user.definition, "secret")
    assert not user.permissions and not user.definition.tags


def test_an_empty_password_lets_nobody_in(desk: Desk) -> None:
    desk.ask("add_user", user="till", password="")
    assert not password_matches(desk.broker.users["till"].definition, "")


def test_a_password_is_changed(desk: Desk) -> None:
    desk.ask("change_password", user="guest", password="new")
    assert password_matches(desk.broker.users["guest"].definition, "new")


def test_a_deleted_user_is_gone(desk: Desk) -> None:
    desk.ask("delete_user", user="guest")
    assert not desk.broker.users


def test_permissions_are_set(desk: Desk) -> None:
    desk.ask("set_permissions", vhost="/", user="guest", configure="", write="^a", read=".*")
    assert desk.broker.users["guest"].may("/", "write", "ab")
    assert not desk.broker.users["guest"].may("/", "configure", "ab")


def test_permissions_are_cleared_and_may_have_been(desk: Desk) -> None:
    desk.ask("set_permissions", vhost="/", user="guest", configure=".*", write=".*", read=".*")
    for _ in range(2):
        desk.ask("clear_permissions", vhost="/", user="guest")
        assert not desk.broker.users["guest"].may_enter("/")


def test_topic_permissions_are_set_listed_and_cleared(desk: Desk) -> None:
    for exchange in "a", "b":
        desk.ask("set_topic_permissions", vhost="/", user="guest", exchange=exchange, write="^w", read="^r")
    assert desk.rows("list_topic_permissions", "user", "exchange", "write", "read") == [
        ["guest", "a", "^w", "^r"], ["guest", "b", "^w", "^r"]]
    assert desk.ask("list_user_topic_permissions", user="guest") == {
        "columns": ["vhost", "exchange", "write", "read"], "rows": [["/", "a", "^w", "^r"], ["/", "b", "^w", "^r"]]}
    desk.ask("clear_topic_permissions", vhost="/", user="guest", exchange="a")
    assert desk.rows("list_topic_permissions", "exchange") == [["b"]]
    desk.ask("clear_topic_permissions", vhost="/", user="guest")
    assert desk.rows("list_topic_permissions", "exchange") == []


@pytest.mark.parametrize("tags", [[], ["monitoring", "policymaker"]])
def test_a_user_has_the_tags_he_was_given_last(desk: Desk, tags: list[str]) -> None:
    desk.ask("set_user_tags", user="guest", tags=tags)
    assert desk.rows("list_users", "user", "tags") == [["guest", tags]]


def test_a_password_is_tried(desk: Desk) -> None:
    assert desk.ask("authenticate_user", user="guest", password="guest") is None
    assert desk.log == []


def test_a_vhost_is_added_once_and_deleted(desk: Desk) -> None:
    desk.ask("add_vhost", vhost="shop")
    desk.ask("add_vhost", vhost="shop")
    assert list(desk.broker.vhosts) == ["/", "shop"]
    desk.ask("delete_vhost", vhost="shop")
    assert list(desk.broker.vhosts) == ["/"]


def test_a_vhost_is_described_tagged_and_listed(desk: Desk) -> None:
    desk.ask("add_vhost", vhost="shop", description="a b", tags=["x"], default_queue_type="quorum")
    columns = ("name", "description", "tags", "default_queue_type", "protected_from_deletion", "tracing")
    assert desk.rows("list_vhosts", *columns)[1:] == [["shop", "a b", ["x"], "quorum", False, False]]
    desk.ask("add_vhost", vhost="shop", description="other")
    desk.ask("set_vhost_tags", vhost="shop", tags=["y", "z"])
    assert desk.rows("list_vhosts", *columns)[1:] == [["shop", "a b", ["y", "z"], "quorum", False, False]]
    desk.ask("update_vhost_metadata", vhost="shop", description="", tags=None, default_queue_type="")
    assert desk.rows("list_vhosts", *columns) == [
        ["/", "", [], "undefined", False, False], ["shop", "", ["y", "z"], "undefined", False, False]]


def test_a_protected_vhost_is_not_deleted_before_the_protection_is_removed(desk: Desk) -> None:
    desk.ask("add_vhost", vhost="shop")
    desk.ask("enable_vhost_deletion_protection", vhost="shop")
    assert desk.rows("list_vhosts", "name", "protected_from_deletion") == [["/", False], ["shop", True]]
    assert desk.refusal("delete_vhost", vhost="shop") == (
        "Cannot delete this virtual host: it is protected from deletion. To lift the protection, inspect and update "
        "its metadata", 69)
    desk.ask("disable_vhost_deletion_protection", vhost="shop")
    desk.ask("delete_vhost", vhost="shop")


def test_limits_of_a_vhost_are_replaced_listed_and_cleared(desk: Desk) -> None:
    desk.ask("add_vhost", vhost="shop")
    desk.ask("set_vhost_limits", vhost="shop", definition='{"max-queues": 5}')
    desk.ask("set_vhost_limits", vhost="shop", definition='{"max-connections": 7}')
    assert desk.ask("list_vhost_limits", vhost="shop")["rows"] == [["shop", '{"max-connections":7}']]
    assert desk.ask("list_vhost_limits", vhost="/") == {"columns": ["vhost", "limits"], "rows": []}
    assert desk.ask("list_vhost_limits")["rows"] == [["shop", '{"max-connections":7}']]
    assert desk.broker.vhosts["shop"].limits == {"max-connections": 7}
    desk.ask("clear_vhost_limits", vhost="shop")
    assert desk.ask("list_vhost_limits")["rows"] == [] and desk.broker.vhosts["shop"].limits == {}


def test_limits_of_a_user_are_merged_listed_and_cleared(desk: Desk) -> None:
    desk.ask("set_user_limits", user="guest", definition='{"max-connections": 5, "max-channels": 7}')
    desk.ask("set_user_limits", user="guest", definition='{"max-channels": -1}')
    assert desk.ask("list_user_limits")["rows"] == [["guest", '{"max-channels":-1,"max-connections":5}']]
    desk.ask("clear_user_limits", user="guest", limit="max-channels")
    assert desk.ask("list_user_limits", user="guest")["rows"] == [["guest", '{"max-connections":5}']]
    desk.ask("clear_user_limits", user="guest", limit="all")
    assert desk.ask("list_user_limits", user="guest")["rows"] == [["guest", "{}"]]
    assert desk.ask("list_user_limits")["rows"] == []


def test_parameters_are_set_listed_and_cleared(desk: Desk) -> None:
    assert desk.ask("set_parameter", vhost="/", component="vhost-limits", name="limits", value='{"max-queues":7}') == ""
    said = desk.ask("set_parameter", vhost="/", component="shovel", name="s", value='{"b": [1, "é"], "a": null}')
    assert said == "amqpd has no component shovel: the parameter is kept and exported, and has no effect"
    assert desk.ask("list_parameters", vhost="/") == {"columns": ["component", "name", "value"], "rows": [
        ["vhost-limits", "limits", '{"max-queues":7}'], ["shovel", "s", '{"a":null,"b":[1,"é"]}']]}
    assert desk.broker.vhosts["/"].limits == {"max-queues": 7}
    desk.ask("clear_parameter", vhost="/", component="shovel", name="s")
    desk.ask("clear_parameter", vhost="/", component="vhost-limits", name="limits")
    assert desk.ask("list_parameters", vhost="/")["rows"] == [] and desk.broker.vhosts["/"].limits == {}
    desk.ask("set_global_parameter", name="g", value="true")
    assert desk.ask("list_global_parameters") == {"columns": ["name", "value"], "rows": [["g", "true"]]}
    desk.ask("clear_global_parameter", name="g")
    assert desk.ask("list_global_parameters")["rows"] == []


@pytest.mark.parametrize("command, arguments", [
    ("set_parameter", {"vhost": "/", "component": "shovel", "name": "s"}), ("set_global_parameter", {"name": "g"})])
def test_a_value_that_is_not_json_is_refused(desk: Desk, command: str, arguments: dict[str, str]) -> None:
    text, exit_code = desk.refusal(command, **arguments, value="{x")
    assert text.startswith("JSON decoding error. Reason: ") and exit_code == 69


NO_VHOST = ("Virtual host 'x' does not exist", 65)
NO_PARAMETER = ("Parameter does not exist", 69)
NO_TILL = ('User "till" does not exist', 67)
RIGHTS = {"configure": "", "write": "", "read": ""}


def wrong_password(user: str) -> tuple[str, int]:
    return f"Error: failed to authenticate user \"{user}\"\nuser '{user}' - invalid credentials", 65


@pytest.mark.parametrize("command, arguments, refusal", [
    ("add_user", {"user": "guest", "password": "x"}, ('User "guest" already exists', 70)),
    ("add_user", {"user": "", "password": "x"}, ("Bad argument: user cannot be an empty string", 65)),
    ("add_user", {"user": "é" * 128, "password": "x"}, ("Bad argument: user cannot be longer than 255 bytes", 65)),
    ("delete_user", {"user": "till"}, NO_TILL),
    ("change_password", {"user": "till", "password": "x"}, NO_TILL),
    ("change_password", {"user": "guest", "password": ""},
     ("Bad argument: password cannot be an empty string", 65)),
    ("set_permissions", {"vhost": "/", "user": "till", **RIGHTS}, ("User till does not exist", 67)),
    ("set_permissions", {"vhost": "x", "user": "guest", **RIGHTS}, ("Virtual host x does not exist", 69)),
    ("clear_password", {"user": "till"}, ('{:no_such_user, "till"}', 69)),
    ("set_permissions", {"vhost": "/", "user": "guest", **RIGHTS, "read": "a" * 1025},
     (f"regular expression '{'a' * 1025}' is invalid: longer than 1024 bytes", 69)),
    ("clear_permissions", {"vhost": "x", "user": "till"}, ("User till does not exist", 67)),
    ("clear_permissions", {"vhost": "x", "user": "guest"}, ("Virtual host x does not exist", 69)),
    ("set_topic_permissions", {"vhost": "/", "user": "till", "exchange": "e", "write": "", "read": ""},
     ("User till does not exist", 67)),
    ("set_topic_permissions", {"vhost": "x", "user": "guest", "exchange": "e", "write": "", "read": ""},
     ("Virtual host x does not exist", 69)),
    ("set_topic_permissions", {"vhost": "/", "user": "guest", "exchange": "e", "write": "", "read": "("},
     ("regular expression '(' is invalid: missing ) at position 1", 69)),
    ("clear_topic_permissions", {"vhost": "/", "user": "till"}, ("User till does not exist", 67)),
    ("clear_topic_permissions", {"vhost": "x", "user": "guest"}, ("Virtual host x does not exist", 69)),
    ("list_user_topic_permissions", {"user": "till"}, ('{:no_such_user, "till"}', 69)),
    ("list_user_permissions", {"user": "till"}, ('{:no_such_user, "till"}', 69)),
    ("set_user_tags", {"user": "till", "tags": []}, NO_TILL),
    ("authenticate_user", {"user": "guest", "password": "x"}, wrong_password("guest")),
    ("authenticate_user", {"user": "till", "password": "x"}, wrong_password("till")),
    ("add_vhost", {"vhost": ""}, ("Bad argument: vhost cannot be an empty string", 65)),
    ("delete_vhost", {"vhost": "x"}, NO_VHOST),
    ("add_vhost", {"vhost": "v", "default_queue_type": "stream"},
     ("Default queue type must be one of: classic, quorum. Provided: stream", 65)),
    ("update_vhost_metadata", {"vhost": "/", "default_queue_type": "x"},
     ("Default queue type must be one of: classic, quorum. Provided: x", 65)),
    ("update_vhost_metadata", {"vhost": "x", "description": "d"}, NO_VHOST),
    ("set_vhost_tags", {"vhost": "x", "tags": []}, NO_VHOST),
    ("enable_vhost_deletion_protection", {"vhost": "x"}, NO_VHOST),
    ("disable_vhost_deletion_protection", {"vhost": "x"}, NO_VHOST),
    ("set_vhost_limits", {"vhost": "x", "definition": '{"max-queues":1}'}, NO_VHOST),
    ("set_vhost_limits", {"vhost": "/", "definition": '{"max-queue":7}'},
     ('Validation failed\n\nUnrecognised terms [{<<"max-queue">>,7}] in limits', 69)),
    ("set_vhost_limits", {"vhost": "/", "definition": '{"max-queues":"x"}'},
     ('Validation failed\n\nmax-queues should be a number, actually was <<"x">>', 69)),
    ("set_vhost_limits", {"vhost": "/", "definition": '{"max-queues":true,"max-connections":1.5}'},
     ("Validation failed\n\nmax-queues should be a number, actually was true\n"
      "max-connections should be a number, actually was 1.5", 69)),
    ("set_vhost_limits", {"vhost": "/", "definition": f'{{"max-queues":{10 ** 18}}}'},
     (f"Validation failed\n\nmax-queues should be a number up to {1 << 53}", 69)),
    ("set_vhost_limits", {"vhost": "/", "definition": "[1]"},
     ('Validation failed\n\nlimits must be a JSON object, such as {"max-connections": 10}', 69)),
    ("clear_vhost_limits", {"vhost": "/"}, NO_PARAMETER),
    ("clear_vhost_limits", {"vhost": "x"}, NO_PARAMETER),
    ("list_vhost_limits", {"vhost": "x"}, NO_VHOST),
    ("set_user_limits", {"user": "till", "definition": '{"max-channels":5}'}, ('{:no_such_user, "till"}', 69)),
    ("set_user_limits", {"user": "guest", "definition": '{"max-channel":5}'},
     ('Unrecognised terms [{<<"max-channel">>,5}] in user-limits', 69)),
    ("set_user_limits", {"user": "guest", "definition": '{"max-channels":"5"}'},
     ('max-channels should be a number, actually was <<"5">>', 69)),
    ("set_user_limits", {"user": "guest", "definition": "[]"},
     ('limits must be a JSON object, such as {"max-connections": 10}', 69)),
    ("clear_user_limits", {"user": "till", "limit": "all"}, ('{:no_such_user, "till"}', 69)),
    ("clear_user_limits", {"user": "guest", "limit": "x"},
     ("Bad argument: limit must be one of max-connections, max-channels, all", 65)),
    ("list_user_limits", {"user": "till"}, ('{:no_such_user, "till"}', 69)),
    ("set_parameter", {"vhost": "/", "component": "nope", "name": "x", "value": "{}"},
     ("Validation failed\n\ncomponent nope not found\n", 69)),
    ("set_parameter", {"vhost": "x", "component": "shovel", "name": "x", "value": "{}"}, NO_VHOST),
    ("set_parameter", {"vhost": "/", "component": "shovel", "name": "", "value": "{}"},
     ("Bad argument: parameter name cannot be an empty string", 65)),
    ("set_parameter", {"vhost": "/", "component": "vhost-limits", "name": "other", "value": '{"max-queues":1}'},
     ("Validation failed\n\nthe name in component vhost-limits is limits", 69)),
    ("set_parameter", {"vhost": "/", "component": "vhost-limits", "name": "limits", "value": '{"max-queue":1}'},
     ('Validation failed\n\nUnrecognised terms [{<<"max-queue">>,1}] in limits', 69)),
    ("set_parameter", {"vhost": "/", "component": "policy", "name": "p", "value": "{}"},
     ("policies may not be set using this method; use 'amqpctl set_policy'", 69)),
    ("set_parameter", {"vhost": "/", "component": "operator_policy", "name": "z", "value": "5"},
     ("Validation failed\n\nz not a list 5\n", 69)),
    ("set_parameter", {"vhost": "/", "component": "operator_policy", "name": "x", "value": '{"pattern":"^a"}'},
     ('Validation failed\n\nKey "definition" not found in x\nKey "priority" not found in x\n', 69)),
    ("set_parameter", {"vhost": "/", "component": "operator_policy", "name": "x",
                       "value": '{"pattern":3,"definition":[1],"priority":1,"more":1}'},
     ('Validation failed\n\nUnrecognised terms [{<<"more">>,1}] in x\ndefinition must be a dictionary: [1]\n'
      "pattern should be a binary but was 3\n", 69)),
    ("set_parameter", {"vhost": "/", "component": "operator_policy", "name": "x",
                       "value": '{"pattern":"^a","definition":{"max-length":-5},"priority":3}'},
     ("Validation failed\n\n-5 is not a valid maximum length\n", 69)),
    ("set_parameter", {"vhost": "x", "component": "operator_policy", "name": "x", "value": "{}"}, NO_VHOST),
    ("clear_parameter", {"vhost": "/", "component": "operator_policy", "name": "x"}, NO_PARAMETER),
    ("clear_parameter", {"vhost": "x", "component": "shovel", "name": "x"}, NO_PARAMETER),
    ("list_parameters", {"vhost": "x"}, NO_VHOST),
    ("clear_global_parameter", {"name": "x"}, NO_PARAMETER),
])
def test_a_refusal_has_rabbitmqctls_text_and_exit_code(
    desk: Desk, command: str, arguments: dict[str, Any], refusal: tuple[str, int]
) -> None:
    changes = len(desk.journal.changes)
    assert desk.refusal(command, **arguments) == refusal
    assert len(desk.journal.changes) == changes


def test_a_pattern_that_is_no_regular_expression_is_refused(desk: Desk) -> None:
    text, exit_code = desk.refusal("set_permissions", vhost="/", user="guest", configure="(", write="", read="")
    assert text.startswith("regular expression '(' is invalid: missing )")
    assert exit_code == 69


# Policies

POLICY_COLUMNS = ("vhost", "name", "pattern", "apply-to", "definition", "priority")


@pytest.mark.parametrize("command, arguments", [
    ("set_policy", {"name": "p", "pattern": "", "definition": '{"max-length":5}', "priority": 1}),
    ("clear_policy", {"name": "old"})])
def test_a_change_of_policies_is_answered_when_all_queues_have_followed(
    desk: Desk, command: str, arguments: dict[str, Any]
) -> None:
    desk.ask("set_policy", vhost="/", name="old", pattern="", definition='{"max-length":3}')
    queues = [
        desk.vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", f"q{n}"), OPERATOR) for n in range(300)]
    request = json.dumps({"command": command, "arguments": {"vhost": "/", **arguments}}).encode()

    async def ask() -> None:
        answer = asyncio.create_task(desk.control.answer(request))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not answer.done() and {queue.rules.max_length for queue in queues} > {3}
        desk.broker.worklist.work_off()
        assert (await answer)["ok"] and 3 not in {queue.rules.max_length for queue in queues}

    asyncio.run(ask())


def test_policies_are_set_listed_and_cleared(desk: Desk) -> None:
    said = '{"max-length": 5, "dead-letter-exchange": "ü/"}'
    desk.ask("set_policy", vhost="/", name="p", pattern="^q", definition=said, priority=3, apply_to="queues")
    desk.ask("set_policy", vhost="/", name="low", pattern="", definition='{"expires":1}')
    desk.ask("set_operator_policy", vhost="/", name="o", pattern="", definition='{"max-length":3}')
    assert desk.rows("list_policies", *POLICY_COLUMNS) == [
        ["/", "low", "", "all", '{"expires":1}', 0],
        ["/", "p", "^q", "queues", '{"dead-letter-exchange":"ü/","max-length":5}', 3]]
    assert desk.rows("list_operator_policies", *POLICY_COLUMNS) == [["/", "o", "", "all", '{"max-length":3}', 0]]
    desk.ask("clear_policy", vhost="/", name="p")
    desk.ask("clear_operator_policy", vhost="/", name="o")
    assert desk.rows("list_policies", "name") == [["low"]]
    assert desk.rows("list_operator_policies", "name") == []


def test_operator_policies_are_parameters_too(desk: Desk) -> None:
    queue = desk.queue("q")
    value = '{"pattern":"^q","definition":{"max-length":5},"priority":3,"apply-to":"queues"}'
    assert desk.ask("set_parameter", vhost="/", component="operator_policy", name="y", value=value) == ""
    assert queue.rules.max_length == 5
    assert desk.rows("list_operator_policies", *POLICY_COLUMNS) == [["/", "y", "^q", "queues", '{"max-length":5}', 3]]
    assert desk.ask("list_parameters", vhost="/")["rows"] == [
        ["operator_policy", "y", '{"apply-to":"queues","definition":{"max-length":5},"pattern":"^q","priority":3}']]
    desk.ask("clear_parameter", vhost="/", component="operator_policy", name="y")
    assert desk.rows("list_operator_policies", "name") == [] and queue.rules.max_length is None


def test_queues_and_exchanges_tell_which_policies_hold(desk: Desk) -> None:
    desk.queue("q")
    desk.ask("set_policy", vhost="/", name="p", pattern="^q$", definition='{"max-length":5,"overflow":"drop-head"}')
    desk.ask("set_policy", vhost="/", name="x", pattern="direct", definition='{"alternate-exchange":"e"}')
    desk.ask("set_operator_policy", vhost="/", name="o", pattern="", definition='{"max-length":3}', apply_to="queues")
    assert desk.rows("list_queues", "policy", "operator_policy", "effective_policy_definition") == [
        ["p", "o", [("max-length", "signedint", 3), ("overflow", "longstr", "drop-head")]]]
    policies = dict(desk.rows("list_exchanges", "name", "policy"))
    assert (policies["amq.direct"], policies["amq.topic"]) == ("x", "")


@pytest.mark.parametrize("sort", ["policy", "operator_policy"])
@pytest.mark.parametrize("changed, refusal", [
    ({"definition": '{"max-length":-1}'}, ("Validation failed\n\n-1 is not a valid maximum length\n", 69)),
    ({"definition": "{}", "apply_to": "x"}, (
        "Validation failed\n\nno policy provided\n"
        "apply-to 'x' unrecognised; should be 'all', 'queues', 'exchanges', 'classic_queues', 'quorum_queues' or "
        "'streams'\n", 69)),
    ({"definition": "[]"}, ("Validation failed\n\ndefinition must be a dictionary\n", 69)),
    ({"definition": '{"max-length":5'}, ("JSON decoding error. Reason: Input data was truncated", 69)),
    ({"vhost": "x"}, ("Virtual host 'x' does not exist", 65)),
])
def test_a_policy_that_makes_no_sense_has_rabbitmqctls_text(
    desk: Desk, sort: str, changed: dict[str, str], refusal: tuple[str, int]
) -> None:
    arguments = {"vhost": "/", "name": "p", "pattern": "", "definition": '{"max-length":5}', **changed}
    assert desk.refusal(f"set_{sort}", **arguments) == refusal
    assert desk.rows("list_policies", "name") == desk.rows("list_operator_policies", "name") == []


@pytest.mark.parametrize("definition", ["[" * 50_000, '{"a":1e999}', '{"a":NaN}', '{"a":"\\ud800"}'])
def test_a_definition_that_is_no_json_is_refused(desk: Desk, definition: str) -> None:
    text, exit_code = desk.refusal("set_policy", vhost="/", name="p", pattern="", definition=definition)
    assert text.startswith("JSON decoding error. Reason: ")
    assert exit_code == 69


@pytest.mark.parametrize("sort", ["policy", "operator_policy"])
def test_to_clear_a_policy_that_does_not_exist_is_refused(desk: Desk, sort: str) -> None:
    assert desk.refusal(f"clear_{sort}", vhost="/", name="p") == ("Parameter does not exist", 69)


# The node

def test_the_management_api_is_a_listener(desk: Desk) -> None:
    desk.node.http_listeners += [("127.0.0.1", 15672, False), ("::1", 15671, True)]
    desk.node.metrics_listeners += [("127.0.0.1", 15692, False), ("::1", 15691, True)]
    listed = [(one["port"], one["protocol"]) for one in desk.ask("status")["listeners"]]
    assert listed == [(5672, "amqp"), (15672, "http"), (15671, "https"), (15692, "http/prometheus"),
                      (15691, "https/prometheus")]


def test_the_cluster_is_one_node_with_a_name(desk: Desk) -> None:
    assert desk.ask("cluster_status")["cluster_name"] == NODE_NAME
    desk.ask("set_cluster_name", name="shop")
    status = desk.ask("cluster_status")
    assert (status["cluster_name"], status["running_nodes"]) == ("shop", [NODE_NAME])
    assert status["listeners"] == {NODE_NAME: desk.ask("status")["listeners"]}
    assert desk.refusal("set_cluster_name", name="") == ("Bad argument: cluster name cannot be an empty string", 65)


def test_the_log_level_is_set_until_the_next_start(desk: Desk) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        for level in ("debug", "none", "warning"):
            desk.ask("set_log_level", level=level)
            assert root.isEnabledFor(logging.DEBUG) is (level == "debug")
            assert root.isEnabledFor(logging.CRITICAL) is (level != "none")
        assert desk.refusal("set_log_level", level="loud") == (
            "level loud is not supported. Try one of debug, info, warning, error, critical, none", 69)
        assert root.level == logging.WARNING
    finally:
        root.setLevel(before)


def test_variables_are_told_without_their_secrets(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQPD_LISTENERS", ":5672")
    monkeypatch.setenv("RABBITMQ_DEFAULT_PASS", "open sesame")
    monkeypatch.setenv("HOME", "/root")
    variables = dict(desk.ask("os_env")["rows"])
    assert variables["AMQPD_LISTENERS"] == ":5672" and "HOME" not in variables
    assert variables["RABBITMQ_DEFAULT_PASS"] == "***"


def test_feature_flags_that_amqpd_has_are_enabled(desk: Desk) -> None:
    listed = dict(desk.ask("list_feature_flags", columns=["name", "state"])["rows"])
    assert (listed["quorum_queue"], listed["stream_queue"]) == ("enabled", "unavailable")
    for name in ("all", "quorum_queue"):
        desk.ask("enable_feature_flag", name=name)
    assert desk.refusal("enable_feature_flag", name="stream_queue")[1] == 69
    assert desk.refusal("enable_feature_flag", name="bogus")[1] == 64
    assert desk.refusal("list_feature_flags", columns=["bogus"]) == ("Info key(s) bogus are not supported", 64)


# Answers

def test_a_change_is_answered_once_it_is_committed(desk: Desk) -> None:
    desk.ask("add_vhost", vhost="shop")
    assert desk.log == [f"committed {len(desk.journal.changes)}"]


def test_looking_waits_for_no_commit(desk: Desk) -> None:
    desk.ask("ping")
    desk.ask("status")
    assert not desk.log


def test_stop_begins_a_stop(desk: Desk) -> None:
    desk.ask("stop")
    assert desk.stops == 1


def test_status_tells_what_there_is(desk: Desk) -> None:
    desk.queue("orders")
    status = desk.ask("status")
    assert status["totals"] == {"connection_count": 0, "queue_count": 1, "virtual_host_count": 1}
    assert status["pid"] == os.getpid()
    assert (status["alarms"], status["disk_free_limit"], status["durability"]) == ([], 7, "none")
    assert status["listeners"] == [
        {"node": NODE_NAME, "interface": "127.0.0.1", "port": 5672, "protocol": "amqp", "purpose": "AMQP 0-9-1"}]


@pytest.mark.parametrize("request_, text, exit_code", [
    (b"no json\n", "not understood: JSON is malformed: ", 65),
    (b"{}\n", "not understood: Object missing required field `command`", 65),
    (b'{"command": "__init__"}\n', "this amqpd has no command '__init__'", 64),
    (b'{"command": "purge_queue", "arguments": {"vhost": "/"}}\n',
     "purge_queue: missing a required argument: 'queue'", 64),
])
def test_a_request_that_makes_no_sense_is_refused(desk: Desk, request_: bytes, text: str, exit_code: int) -> None:
    answer = asyncio.run(desk.control.answer(request_))
    assert answer["error"].startswith(text)
    assert answer["exit_code"] == exit_code


def test_a_bug_is_answered_and_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> dict[str, Any]:
        raise AttributeError("a bug")

    monkeypatch.setattr(desk.alarms, "statistics", fail)
    assert desk.refusal("status") == ("internal error: AttributeError", 70)
    assert "internal error" in caplog.text


def test_the_limits_of_alarms_are_set(desk: Desk) -> None:
    desk.ask("set_vm_memory_high_watermark", fraction=0.5)
    desk.ask("set_vm_memory_high_watermark", absolute=1_000)
    desk.ask("set_disk_free_limit", absolute=2_000)
    desk.ask("set_disk_free_limit", mem_relative=1.5)
    assert desk.alarms.set == [("memory", 0.5), ("memory, absolute", 1_000), ("disk", 2_000), ("disk, relative", 1.5)]
    assert desk.refusal("set_vm_memory_high_watermark", fraction=1.5) == (
        "Bad argument: The threshold should be a fraction between 0.0 and 1.0", 65)


# The socket

@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    yield tmp_path_factory.mktemp("s")


def while_listening(desk: Desk, path: Path, do: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def listen() -> Any:
        async with desk.control.listening(path):
            return await asyncio.wait_for(do(), 5)

    return asyncio.run(listen())


def test_requests_on_one_connection_are_answered_in_order(desk: Desk, folder: Path) -> None:
    path = folder / "data" / CONTROL_SOCKET

    async def talk() -> list[dict[str, Any]]:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"command": "ping"}\n{"command": "nope"}\n')
        answers = [json.loads(await reader.readline()) for _ in range(2)]
        writer.close()
        return answers

    assert [answer["ok"] for answer in while_listening(desk, path, talk)] == [True, False]


def test_nobody_but_the_owner_may_open_the_socket(desk: Desk, folder: Path) -> None:
    path = folder / CONTROL_SOCKET

    async def look() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert while_listening(desk, path, look) == 0o600


def test_talks_end_and_the_socket_goes_when_listening_ends(desk: Desk, folder: Path) -> None:
    path = folder / CONTROL_SOCKET

    async def listen() -> bytes:
        async with desk.control.listening(path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"command": "ping"}\n')
            await reader.readline()
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return rest

    assert asyncio.run(listen()) == b""
    assert not path.exists()


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_request_that_is_too_long_is_answered_and_broken_off(desk: Desk, folder: Path, end: bytes) -> None:
    path = folder / CONTROL_SOCKET

    async def flood() -> tuple[Any, bytes]:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x" * 2_000_000 + end)
        answer = json.loads(await reader.readline())
        writer.write_eof()
        rest = await reader.read()
        writer.close()
        return answer, rest

    answer = {"ok": False, "error": "a request may have at most 65536 bytes", "exit_code": 65}
    assert while_listening(desk, path, flood) == (answer, b"")


async def asks(path: Path, command: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has asked this."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(json.dumps({"command": command}).encode() + b"\n")
    return reader, writer


def test_the_longest_idle_client_goes_for_a_newcomer(desk: Desk, folder: Path) -> None:
    path = folder / CONTROL_SOCKET

    async def talk() -> None:
        first = await asks(path, "ping")
        assert json.loads(await first[0].readline())["ok"]
        silent = [await asyncio.open_unix_connection(path) for _ in range(3 * control.MOST_CLIENTS)]
        last = await asks(path, "ping")
        assert json.loads(await last[0].readline())["ok"]
        for reader, _ in (first, *silent[: 2 * control.MOST_CLIENTS]):
            assert await reader.readline() == b""
        for _, writer in (first, *silent, last):
            writer.close()

    while_listening(desk, path, talk)


def test_where_all_are_busy_a_newcomer_is_told_to_try_again(desk: Desk, folder: Path) -> None:
    path = folder / CONTROL_SOCKET

    async def talk() -> None:
        may_end = asyncio.Event()
        desk.control._commands.lookups["wait"] = may_end.wait
        busy = [await asks(path, "wait") for _ in range(control.MOST_CLIENTS)]
        await until(lambda: len(desk.control._clients) == control.MOST_CLIENTS and not desk.control._idle)
        late = await asks(path, "ping")
        assert json.loads(await late[0].readline()) == {
            "ok": False, "error": "too many clients are connected to the control socket: try again", "exit_code": 75}
        may_end.set()
        for reader, writer in busy:
            assert json.loads(await reader.readline())["ok"]
            writer.close()
        late[1].close()

    while_listening(desk, path, talk)


def test_who_does_not_read_its_answer_goes(
    desk: Desk, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / CONTROL_SOCKET
    desk.control = Control(desk.control._commands, desk._wait_committed, answer_limit_s=0.1)

    async def talk() -> None:
        desk.control._commands.lookups["much"] = lambda: "x" * (8 << 20)
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, str(path))
            await asyncio.get_running_loop().sock_sendall(client, b'{"command": "much"}\n')
            await until(lambda: "did not read its answer" in caplog.text)
        await until(lambda: not desk.control._clients)

    while_listening(desk, path, talk)


def test_a_socket_that_a_crash_has_left_is_replaced(desk: Desk, folder: Path) -> None:
    path = folder / CONTROL_SOCKET
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def connect() -> None:
        reader, writer = await asks(path, "ping")
        assert json.loads(await reader.readline())["ok"]
        writer.close()

    while_listening(desk, path, connect)


def test_the_socket_of_a_running_broker_is_left_alone(folder: Path) -> None:
    path = folder / CONTROL_SOCKET
    with bind_private(path) as running:
        running.listen()
        with pytest.raises(OSError, match="another amqpd is listening"):
            bind_private(path)
    assert path.exists()


def test_a_file_in_the_sockets_place_is_left_alone(folder: Path) -> None:
    path = folder / CONTROL_SOCKET
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        bind_private(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(("command", "arguments", "line"), [
    ("add_user", {"user": "alice", "password": "s3cret"}, "amqpctl add_user user=alice password=***, by user root"),
    ("add_vhost", {"vhost": "prod"}, "amqpctl add_vhost vhost=prod, by user root"),
    ("set_policy", {"vhost": "/", "name": "p", "pattern": "x" * 300, "definition": '{"max-length": 1}'},
     f"amqpctl set_policy vhost=/ name=p pattern={'x' * 200}… definition={{\"max-length\": 1}}, by user root"),
    ("set_vhost_limits", {"vhost": "/", "definition": "{}"},
     "amqpctl set_vhost_limits vhost=/ definition={}, by user root"),
    ("set_parameter", {"vhost": "/", "component": "shovel", "name": "s", "value": '{"src-uri": "amqp://u:p@h"}'},
     "amqpctl set_parameter vhost=/ component=shovel name=s value=***, by user root"),
    ("set_disk_free_limit", {"absolute": 5}, "amqpctl set_disk_free_limit absolute=5, by user root"),
])
def test_what_an_operator_changes_is_logged_without_passwords(
    command: str, arguments: dict[str, Any], line: str, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "amqpd.control")
    request = json.dumps({"command": command, "arguments": arguments}).encode()
    assert asyncio.run(desk.control.answer(request, "user root"))["ok"]
    assert caplog.messages == [line]


def test_neither_lookups_nor_what_is_refused_is_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "amqpd.control")
    desk.answer("list_users", vhost="", columns=[])
    assert not desk.answer("delete_user", user="nobody")["ok"]
    assert caplog.messages == []


def test_the_peer_of_a_socket_is_told_by_user_and_process() -> None:
    left, right = socket.socketpair()
    with left, right:
        expected = f"user {pwd.getpwuid(os.getuid()).pw_name} (pid {os.getpid()})"
        assert describe_peer(left) == expected if hasattr(socket, "SO_PEERCRED") else "the owner of the control socket"


def test_the_doctor_is_told_the_status_the_users_and_the_clock(desk: Desk) -> None:
    asked: list[Any] = []

    def diagnose(status: dict[str, Any], users: list[UserDefinition], clock_behind_ms: int) -> list[str]:
        asked.append((status["durability"], [user.name for user in users], clock_behind_ms))
        return ["a finding"]

    assert desk.ask("doctor") == []
    desk.node.diagnose = diagnose
    assert desk.ask("doctor") == ["a finding"]
    assert asked == [("none", ["guest"], 0)]


@pytest.mark.parametrize(("command", "arguments", "error"), [
    ("list_queues", {"vhost": "/", "columns": 5}, "list_queues: columns: Expected `array`, got `int`"),
    ("purge_queue", {"vhost": "/", "queue": ["q"]}, "purge_queue: queue: Expected `str`, got `array`"),
    ("explain_route", {"vhost": "/", "exchange": "", "routing_key": "q", "headers": []},
     "explain_route: headers: Expected `object | null`, got `array`"),
    ("explain_queues", {"vhost": "/", "watched_s": "1"}, "explain_queues: watched_s: Expected `float`, got `str`"),
])
def test_an_argument_of_another_type_is_refused(
    desk: Desk, command: str, arguments: dict[str, Any], error: str
) -> None:
    assert desk.refusal(command, **arguments) == (error, 64)


def test_the_arguments_of_all_commands_have_types(desk: Desk) -> None:
    commands = Commands(desk.broker, desk.node)
    for command in (*commands.lookups.values(), *commands.changes.values(), *commands.streams.values()):
        assert control._kinds_of(command)
