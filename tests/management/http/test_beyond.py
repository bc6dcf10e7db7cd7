"""The routes that RabbitMQ does not have: every example of their page, what they do, and who may use them."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from amqpd.logs import RecentLines
from amqpd.management.http import definitions, operating, previews, queued, topology
from amqpd.management.http.routes import Route, Routes
from tests.support.api import GUEST, Api, basic, running

PAGE = (Path(__file__).parents[3] / "docs" / "management-api.md").read_text()
OWN = [*queued.ROUTES, *operating.ROUTES, *previews.ROUTES, *topology.ROUTES,
       *(route for route in definitions.ROUTES if route.path.startswith("/api/amqpd/"))]
READER, POLICY, WATCHER = ("reader", "pw"), ("policy", "pw"), ("watcher", "pw")
ORDERS = "/queues/%2F/orders"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(memory=False, data_dir=tmp_path_factory.mktemp("data")) as found:
        for user, tag, rights in (
                (READER, "management", {"configure": "", "write": "", "read": "^(orders|amq[.]topic)$"}),
                (POLICY, "policymaker", {"configure": "", "write": "", "read": ""}),
                (WATCHER, "monitoring", {"configure": "", "write": "", "read": ""})):
            assert found.put(f"/users/{user[0]}", {"password": "pw", "tags": tag}) == 201
            assert found.put(f"/permissions/%2F/{user[0]}", rights) == 201
        assert found.put("/vhosts/foreign") == 201
        level = logging.getLogger().level
        yield found
        logging.getLogger().setLevel(level)


@pytest.fixture(autouse=True)
def queues(api: Api) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    """Three messages in `orders`, one dead letter of it, and a consumer that holds the first one."""
    parameters = pika.ConnectionParameters("127.0.0.1", api.amqp_port)
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders", durable=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        channel.queue_declare("later")
        channel.queue_declare("dead")
        for queue in ("orders", "later", "dead"):
            channel.queue_purge(queue)
        channel.queue_bind("orders", "amq.topic", "order.#")
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"poison")
        channel.basic_reject(channel.basic_get("orders")[0].delivery_tag, requeue=False)
        for body in (b"held", b"one", b"test two"):
            channel.basic_publish("", "orders", body, pika.BasicProperties(headers={"country": "DE"}))
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("orders", lambda *_: None, consumer_tag="ctag1")
        connection.process_data_events(0.01)
        yield channel
        with contextlib.suppress(pika.exceptions.AMQPError):
            channel.cancel()
        api.put(ORDERS + "/paused", {"value": False})


class Follower:
    """A client that reads server-sent events."""

    def __init__(self, api: Api, path: str, user: tuple[str, str] = GUEST) -> None:
        self._client = socket.create_connection(("127.0.0.1", api.port), timeout=10)
        self._client.sendall(f"GET /api{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/event-stream\r\n"
                             f"Authorization: {basic(user)}\r\n\r\n".encode())
        self._file = self._client.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = b"".join(iter(self._file.readline, b"\r\n")).lower()

    def lines(self) -> Iterator[bytes]:
        for line in self._file:
            if line.startswith((b"data: ", b"retry: ", b":")):
                yield line

    def next(self) -> Any:
        return next(json.loads(line[6:]) for line in self.lines() if line.startswith(b"data: "))

    def close(self) -> None:
        self._file.close()
        self._client.close()


class Example:
    """One line of the page."""

    def __init__(self, line: str) -> None:
        words = shlex.split(line.replace("$API", ""))[1:]
        self.is_stream = "-N" in words
        self.path = next(word for word in words if word.startswith("/"))
        self.body = json.loads(words[words.index("--json") + 1]) if "--json" in words else None
        default = "GET" if self.body is None else "POST"
        self.method = words[words.index("-X") + 1] if "-X" in words else default

    def route(self) -> Route:
        match = Routes(OWN).find("/api" + self.path.partition("?")[0])
        assert match is not None, self.path
        return match.routes[self.method]


EXAMPLES = [Example(line.strip()[2:]) for line in PAGE.splitlines() if line.startswith("    $ curl ")]


def test_the_page_has_every_route_with_an_example() -> None:
    names = {"vhost": "V", "queue": "Q", "exchange": "X", "consumer": "TAG"}
    assert sorted([one.route().path + one.method for one in EXAMPLES]) == sorted([
        route.path + route.method for route in OWN])
    for route in OWN:
        assert f"| `{route.method} {route.path.format(**names)}` |" in PAGE


def test_every_example_of_the_page_is_carried_out(api: Api, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    for example in EXAMPLES:
        if example.is_stream:
            with contextlib.closing(Follower(api, example.path)) as follower:
                assert (follower.status, b"text/event-stream" in follower.headers) == (200, True)
                assert next(follower.lines()) == b"retry: 2000\n"
            continue
        body = example.body
        if example.path == "/amqpd/backup" and example.method == "POST":
            body = {"to": str(tmp_path / "backup.sqlite")}
        if "/paused" in example.path:
            body = {"value": False}
        path = example.path + ("?seconds=0" if example.path.endswith("/why") else "")       # queues need not be watched
        reply = api.ask(example.method, path, body)
        assert reply.status in (200, 204), (example.path, reply)
        found[example.path.rpartition("/")[2].partition("?")[0]] = reply.body
    assert (tmp_path / "backup.sqlite").read_bytes()[:6] == b"SQLite"
    assert [row[found["unacked"]["columns"].index("consumer_tag")] for row in found["unacked"]["rows"]] == ["ctag1"]
    assert [one["payload"] for one in found["messages"]["messages"]] == ["one", "test two"]
    assert [one["payload"] for one in found["export"]["messages"]] == ["one", "test two"]
    assert (found["move"]["matched"], found["move"]["moved"]) == (1, 0)
    assert (found["retry"]["moved"], found["delete"]["deleted"]) == (1, 1)
    assert found["audit"][-1]["action"] == "PUT /api/queues/%2F/orders/paused"
    assert "amqpd" in found["environment"]


def test_messages_are_moved_and_a_dry_run_is_no_act(api: Api) -> None:
    api.ask("POST", ORDERS + "/messages/move", {"to_queue": "later", "everything": True, "dry_run": True})
    assert not [one for one in api.get("/amqpd/audit") if one["action"].endswith("/move")]
    reply = api.ask("POST", ORDERS + "/messages/move", {"to_queue": "later", "everything": True})
    assert reply.body["moved"] == 2
    assert [one["payload"] for one in api.get("/queues/%2F/later/messages")["messages"]] == ["one", "test two"]
    assert [one["user"] for one in api.get("/amqpd/audit") if one["action"].endswith("/move")] == ["guest"]


def test_a_queue_or_a_user_with_the_name_of_a_route_is_audited(api: Api) -> None:
    assert api.put("/queues/%2F/publish", {}) == 201
    assert api.get("/amqpd/audit?limit=1")[0]["action"] == "PUT /api/queues/%2F/publish"


def test_a_consumer_is_changed_and_cancelled_by_policymakers(
    api: Api, queues: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    consumer = ORDERS + "/consumers/ctag1"
    assert api.put(consumer + "/prefetch", {"value": 7}, user=READER) == 401
    assert api.put(consumer + "/prefetch", {"value": 7}, user=POLICY) == 204
    assert [one["prefetch_count"] for one in api.get("/consumers/%2F")] == [7]
    assert api.delete(consumer, user=POLICY) == 204
    assert api.get("/consumers/%2F") == []
    assert api.delete(consumer) == 404
    assert api.put(ORDERS + "/paused", {"value": True}, user=POLICY) == 204
    assert api.get(ORDERS)["is_paused"]
    assert [one["cause"] for one in api.get(ORDERS + "/why?seconds=0", user=READER)["queues"]] == ["paused"]


@pytest.mark.parametrize(("user", "method", "path", "body", "status"), [
    (READER, "GET", ORDERS + "/messages", None, 200),
    (POLICY, "GET", ORDERS + "/messages", None, 401),
    (POLICY, "POST", ORDERS + "/messages/export", {}, 401),
    (POLICY, "POST", ORDERS + "/messages/delete", {"everything": True}, 401),
    (READER, "POST", ORDERS + "/messages/move", {"to_queue": "later", "everything": True}, 401),
    (READER, "POST", ORDERS + "/messages/move", {"to_exchange": "amq.topic", "everything": True}, 401),
    (READER, "POST", ORDERS + "/messages/retry", {"everything": True}, 401),
    (READER, "GET", ORDERS + "/unacked", None, 200),
    (READER, "POST", "/exchanges/%2F/amq.topic/route", {"routing_key": "a", "user": "reader"}, 200),
    (READER, "POST", "/exchanges/%2F/amq.topic/route", {"routing_key": "a", "user": "guest"}, 401),
    (READER, "GET", "/exchanges/%2F/amq.default/tail", None, 401),
    (POLICY, "GET", ORDERS + "/tail", None, 401),
    (READER, "GET", "/amqpd/events", None, 401),
    (READER, "PUT", "/vhosts/%2F/tracing", {"value": True}, 401),
    (READER, "GET", "/vhosts/%2F/topology", None, 200),
    (READER, "GET", "/vhosts/foreign/topology", None, 401),
    (READER, "POST", "/vhosts/%2F/policy-preview", {"pattern": "^o", "definition": {"max-length": 1}}, 401),
    (READER, "GET", "/vhosts/foreign/matches?pattern=o", None, 401),
    (READER, "GET", "/amqpd/certificates", None, 401),
    (WATCHER, "GET", "/amqpd/certificates", None, 200),
    (WATCHER, "GET", "/amqpd/backup", None, 401),
    (WATCHER, "POST", "/amqpd/definitions-preview", {"queues": []}, 401),
    (WATCHER, "GET", "/amqpd/audit", None, 401),
    (WATCHER, "POST", "/amqpd/backup", {"to": "x"}, 401),
    (WATCHER, "GET", "/amqpd/environment", None, 401),
    (WATCHER, "PUT", "/amqpd/log_level", {"value": "debug"}, 401)])
def test_rights(api: Api, user: tuple[str, str], method: str, path: str, body: Any, status: int) -> None:
    reply = api.ask(method, path, body, user=user)
    assert reply.status == status, reply
    assert len(api.get(ORDERS + "/messages")["messages"]) == 2


def test_topic_permissions_hold_for_moves_and_for_those_who_follow(api: Api) -> None:
    topics = {"exchange": "amq.topic", "write": "^allowed", "read": "^allowed"}
    assert api.put("/users/topical", {"password": "pw", "tags": "management"}) in (201, 204)
    assert api.put("/permissions/%2F/topical", {"configure": "", "write": ".*", "read": ".*"}) in (201, 204)
    assert api.put("/topic-permissions/%2F/topical", topics) in (201, 204)
    move, user = {"to_exchange": "amq.topic", "limit": 1, "dry_run": True}, ("topical", "pw")
    for key, status in ((None, 401), ("other", 401), ("allowed.x", 200)):
        sent = move | ({} if key is None else {"routing_key": key})
        assert api.ask("POST", ORDERS + "/messages/move", sent, user=user).status == status
    assert api.ask("GET", "/exchanges/%2F/amq.topic/tail?key=%23", user=user).status == 401
    with contextlib.closing(Follower(api, "/exchanges/%2F/amq.topic/tail?key=allowed.%23", user)) as follower:
        assert follower.status == 200


def test_the_newest_lines_of_the_log_are_found_by_level_and_text(api: Api) -> None:
    handler, log = RecentLines(), logging.getLogger("amqpd.test")
    assert api.get("/amqpd/log") == []      # nothing has configured a log
    logging.getLogger().addHandler(handler)
    try:
        for number in range(4):
            log.warning("line %d of operators", number)
        log.error("<b>another</b>\n")
        found = api.get("/amqpd/log?level=warning&text=OPERATORS&most=2")
        assert [one["msg"] for one in found] == ["line 2 of operators", "line 3 of operators"]
        assert {"at_ms", "level", "domain", "pid", "msg"} == found[0].keys()
        assert api.get("/amqpd/log?level=error")[-1]["msg"] == "<b>another</b>\\n"
    finally:
        logging.getLogger().removeHandler(handler)
    assert api.ask("GET", "/amqpd/log?level=loud").status == api.ask("GET", "/amqpd/log?most=x").status == 400
    assert api.ask("GET", "/amqpd/log", user=WATCHER).status == 401


def test_an_exclusive_queue_of_another_connection_is_closed(
    api: Api, queues: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    queues.queue_declare("mine", exclusive=True)
    reply = api.ask("GET", "/queues/%2F/mine/messages")
    assert reply.status == 400 and "exclusive access" in reply.body["reason"]


@pytest.mark.parametrize("body", [
    {}, {"to_queue": "later"}, {"to_queue": "later", "everything": 1}, {"to_queue": "later", "filters": {}},
    {"to_queue": "later", "filter": {"txt": "a"}}, {"to_queue": "later", "filter": {"json": ["$["]}},
    {"to_queue": "later", "to_exchange": "amq.topic", "everything": True}, {"to_queue": "later", "ids": [-1]}])
def test_a_selection_that_is_not_understood_is_refused(api: Api, body: Any) -> None:
    assert api.ask("POST", ORDERS + "/messages/move", body).status == 400


@pytest.mark.parametrize("name", ["%C3%A9%20%25", "a%22%5C"])
def test_a_message_goes_through_an_exchange_and_a_queue_of_any_name(api: Api, name: str) -> None:
    assert api.put(f"/queues/%2F/{name}", {}) == 201
    assert api.put(f"/exchanges/%2F/{name}", {"type": "fanout"}) == 201
    assert api.ask("POST", f"/bindings/%2F/e/{name}/q/{name}", {}).status == 201
    sent = {"routing_key": "é", "payload": "a", "payload_encoding": "string", "properties": {}}
    assert api.ask("POST", f"/exchanges/%2F/{name}/publish", sent).body == {"routed": True}
    got = api.ask("POST", f"/queues/%2F/{name}/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"})
    assert [(one["payload"], one["routing_key"]) for one in got.body] == [("a", "é")]
    assert api.ask("POST", f"/exchanges/%2F/{name}/publish", sent | {"routing_key": "x" * 300}).status == 400
    assert api.ask("POST", f"/queues/%2F/{'x' * 300}/get", {
        "count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}).status == 400


def test_messages_are_looked_at_by_their_ids(api: Api) -> None:
    assert api.put("/queues/%2F/by-id", {}) == 201
    for payload in "abc":
        api.ask("POST", "/exchanges/%2F/amq.default/publish", {
            "routing_key": "by-id", "payload": payload, "payload_encoding": "string", "properties": {}})
    first, _, last = [one["id"] for one in api.get("/queues/%2F/by-id/messages")["messages"]]
    found = api.get(f"/queues/%2F/by-id/messages?ids={last},{first},{last + 1}")
    assert [one["payload"] for one in found["messages"]] == ["a", "c"] and found["ready"] == 3
    api.delete("/queues/%2F/by-id")


@pytest.mark.parametrize(("path", "body"), [
    ("get", {"count": 1, "ackmode": {}, "encoding": "auto"}), ("get", {"count": 1, "ackmode": [1], "encoding": {}}),
    ("actions", {"action": [[]]})])
def test_a_word_that_is_no_text_is_refused(api: Api, path: str, body: Any) -> None:
    assert api.ask("POST", f"{ORDERS}/{path}", body).status == 400


@pytest.mark.parametrize("query", [
    "count=x", "count=99999999", "offset=-1", "cursor=a", "older_than=nan", "truncate=1e3", "json=$[", "header==x",
    "ids=x", "ids=1,,2", "ids=-1"])
def test_a_query_that_is_not_understood_is_refused(api: Api, query: str) -> None:
    assert api.ask("GET", f"{ORDERS}/messages?{query}").status == 400


def test_messages_and_events_are_followed_until_the_client_goes(
    api: Api, queues: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    path = "/exchanges/%2F/amq.topic/tail?key=order.%23&heartbeat=0.01"
    with contextlib.closing(Follower(api, path, READER)) as tail, \
            contextlib.closing(Follower(api, "/amqpd/events?patterns=queue.*", WATCHER)) as events:
        assert next(tail.lines()) and next(tail.lines()) == b":\n"
        queues.basic_publish("amq.topic", "other", b"0")
        queues.basic_publish("amq.topic", "order.new", b"1")
        assert tail.next()["routing_key"] == "order.new"
        queues.queue_declare("fresh")
        told = events.next()
        assert (told["event"], told["name"]) == ("queue.created", "fresh")


def test_a_stream_ends_after_its_time_and_head_follows_nothing(api: Api) -> None:
    with contextlib.closing(Follower(api, "/amqpd/events?seconds=0")) as follower:
        assert len(list(follower.lines())) <= 1
    assert api.ask("HEAD", "/amqpd/events").status == 200
    assert api.ask("GET", "/amqpd/events?seconds=0", headers={"Accept": "text/event-stream"}).status == 200
    assert api.ask("GET", "/whoami", headers={"Accept": "text/event-stream"}).status == 406


@pytest.mark.parametrize(("path", "change"), [
    ("/amqpd/events?heartbeat=0.01", ("PUT", "/users/follower", {"password": "pw", "tags": ""})),
    ("/amqpd/events?heartbeat=0.01", ("DELETE", "/users/follower", None)),
    ("/exchanges/%2F/amq.topic/tail?heartbeat=0.01",
     ("PUT", "/permissions/%2F/follower", {"configure": "", "write": "", "read": "^none$"})),
])
def test_who_loses_the_right_follows_no_longer(api: Api, path: str, change: tuple[str, str, Any]) -> None:
    api.put("/users/follower", {"password": "pw", "tags": "monitoring"})
    api.put("/permissions/%2F/follower", {"configure": "", "write": "", "read": ".*"})
    with contextlib.closing(Follower(api, path, ("follower", "pw"))) as follower:
        lines = follower.lines()
        assert next(lines) and next(lines) == b":\n"
        assert api.ask(*change).status == 204
        for _ in lines:
            pass        # until the broker ends the stream


def test_only_so_many_clients_follow_at_a_time(api: Api) -> None:
    with contextlib.ExitStack() as followers:
        for _ in range(32):
            followers.enter_context(contextlib.closing(Follower(api, "/amqpd/events")))
        assert api.ask("GET", "/amqpd/events").status == 503
    while api.ask("HEAD", "/amqpd/events").status == 503:
        pass        # until the broker has noticed that they have gone
