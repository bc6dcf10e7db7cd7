"""The audit log: who did what, by which door, without secrets."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pwd
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from amqpd import ctl
from amqpd.broker.actor import Actor, acting
from amqpd.broker.audit import LONGEST_DETAIL, AuditLog, without_secrets
from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import ParameterDefinition, UserDefinition, VhostDefinition
from amqpd.ctl import web
from amqpd.management.audited import audited
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.program import Failure
from tests.management.desk import bare_node
from tests.support.api import GUEST, Api, basic
from tests.support.journals import RecordingJournal

ANN = Actor("ann", "10.0.0.9", "http")


class Desk:
    """A broker in memory with vhost "/", and its commands."""

    def __init__(self) -> None:
        self.journal = RecordingJournal()
        self.committed: list[int] = []      # entries that were recorded when an answer waited for the commit
        self.broker = Broker(self.journal, clock=Clock(0, 1_700_000_000_000))
        self.broker.add_vhost(VhostDefinition("/"))
        self.control = Control(Commands(self.broker, bare_node()), self._wait_committed)

    async def _wait_committed(self) -> None:
        self.committed.append(len(self.journal.entries))

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer to a command."""
        return asyncio.run(self.control.answer(json.dumps({"command": command, "arguments": arguments}).encode()))

    def log(self, **wanted: Any) -> list[dict[str, Any]]:
        """What is listed."""
        answer = self.ask("list_audit_log", **wanted)
        assert answer["ok"], answer
        entries: list[dict[str, Any]] = json.loads(json.dumps(answer["result"]))
        return entries


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_act_is_recorded_with_its_actor_and_committed_before_the_answer(desk: Desk) -> None:
    with acting(ANN):
        assert desk.ask("add_user", user="till", password="secret")["ok"]
    assert desk.log() == [{
        "at_ms": 1_700_000_000_000, "user": "ann", "address": "10.0.0.9", "door": "http", "action": "add_user",
        "detail": {"user": "till", "password": "***"}}]
    assert desk.committed == [1] and len(desk.journal.entries) == 1


def test_lookups_and_what_is_refused_are_not_recorded(desk: Desk) -> None:
    desk.ask("list_users", vhost="", columns=["user"])
    assert not desk.ask("delete_user", user="nobody")["ok"]
    assert not desk.ask("no_such_command")["ok"]
    assert desk.log() == []


def test_acts_that_change_nothing_stored_are_recorded_too(desk: Desk) -> None:
    desk.ask("trace_on", vhost="/")
    desk.ask("export_definitions")
    desk.ask("stop")
    assert [entry["action"] for entry in desk.log()] == ["trace_on", "export_definitions", "stop"]


def test_the_log_is_filtered_and_the_newest_are_last(desk: Desk) -> None:
    for user in ("a", "b", "c"):
        with acting(Actor(user, "", "control" if user == "a" else "http")):
            desk.ask("add_vhost", vhost=user)
            desk.ask("set_vhost_tags", vhost=user, tags=[user])
        desk.broker.clock.now_ms += 1_000

    def found(**wanted: Any) -> list[tuple[str, str]]:
        return [(entry["user"], entry["action"]) for entry in desk.log(**wanted)]

    assert found(limit=1) == [("c", "set_vhost_tags")]
    assert found(user="b") == [("b", "add_vhost"), ("b", "set_vhost_tags")]
    assert found(door="control") == [("a", "add_vhost"), ("a", "set_vhost_tags")]
    assert found(action="set_*", limit=2) == [("b", "set_vhost_tags"), ("c", "set_vhost_tags")]
    assert found(since_ms=1_700_000_002_000) == [("c", "add_vhost"), ("c", "set_vhost_tags")]
    assert found(user="nobody") == []
    for limit in (0, 10_001):
        assert desk.ask("list_audit_log", limit=limit)["error"] == "the limit has to be from 1 to 10000"


def test_in_memory_only_the_newest_are_kept() -> None:
    log = AuditLog(RecordingJournal(), Clock(), most_recent=3)
    for number in range(5):
        log.record(f"act {number}", {})
    assert [entry.action for entry in log.recent] == ["act 2", "act 3", "act 4"]


@pytest.mark.parametrize("detail, kept", [
    ({"password": "x", "password_hash": "x", "value": {"a": 1}, "payload": "x"}, "***"),
    ({"src-uri": "amqp://u:p@h", "uri": "x", "client_secret": "x", "dest-uri": ["x"]}, "***"),
])
def test_secrets_are_shown_as_stars_wherever_they_are(detail: dict[str, Any], kept: str) -> None:
    assert set(without_secrets(detail).values()) == {kept}
    assert without_secrets({"x": [detail]}) == {"x": [dict.fromkeys(detail, kept)]}


def test_texts_are_cut_and_a_very_long_detail_too() -> None:
    log = AuditLog(RecordingJournal(), Clock())
    log.record("a" * 300, {"x": "y" * 300, "none": None, "n": 1, "b": True, "f": 0.5, "o": {1}})
    log.record("long", {str(number): "x" * 100 for number in range(100)})
    log.record("odd", {"x": "\ud800"})
    first, second, third = [json.loads(entry.detail) for entry in log.recent]
    assert first == {"x": "y" * 200 + "…", "n": 1, "b": True, "f": 0.5, "o": "{1}"}
    assert len(log.recent[0].action) == 201
    assert [*second] == ["too_long"] and len(log.recent[1].detail) < LONGEST_DETAIL
    assert third == {"x": "\\ud800"} and log.recent[2].detail.encode()


def test_what_the_configuration_changes_is_recorded(desk: Desk) -> None:
    broker = desk.broker
    with audited(broker, Actor("", "", "config")):
        broker.users.add(UserDefinition("till", "hash"))
        broker.parameters.set(ParameterDefinition("/", "shovel", "s", {"src-uri": "amqp://u:secret@h"}))
        broker.users.set_tags("till", ("management",))
        broker.users.set_tags("till", ("management",))      # changes nothing
    broker.users.set_tags("till", ())
    assert [(entry["door"], entry["action"], entry["detail"]) for entry in desk.log()] == [
        ("config", "user.created", {"name": "till"}),
        ("config", "parameter.set", {"name": "s", "vhost": "/", "component": "shovel"}),
        ("config", "user.tags.set", {"name": "till", "tags": ["management"]})]
    assert not broker.events.listeners


def test_a_configuration_that_is_refused_records_nothing(desk: Desk) -> None:
    with pytest.raises(ZeroDivisionError), audited(desk.broker, Actor("", "", "config")):
        desk.broker.users.add(UserDefinition("till"))
        raise ZeroDivisionError
    assert desk.log() == [] and not desk.broker.events.listeners


# By the doors

def test_an_operator_at_the_control_socket_is_named_as_the_system_does(tmp_path: Path) -> None:
    desk = Desk()

    async def talk() -> None:
        async with desk.control.listening(tmp_path / "control.sock"):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"))
            writer.write(b'{"command": "trace_on", "arguments": {"vhost": "/"}}\n')
            await reader.readline()
            writer.close()
            await writer.wait_closed()
        while desk.control._clients:
            await asyncio.sleep(0)

    asyncio.run(talk())
    [entry] = desk.log()
    assert (entry["user"], entry["address"], entry["door"]) == (
        pwd.getpwuid(os.getuid()).pw_name, f"pid {os.getpid()}", "control")


def test_the_management_api_records_its_user_and_address_and_the_first_start_what_it_made(api: Api) -> None:
    def command(name: str, **arguments: Any) -> Any:
        return api.ask("POST", "/amqpctl", {"command": name, "arguments": arguments}).body

    assert command("add_vhost", vhost="audited")["ok"]
    log = command("list_audit_log")["result"]
    assert [(entry["user"], entry["address"], entry["door"], entry["action"], entry["detail"])
            for entry in log if entry["door"] == "http"] == [
        ("guest", "127.0.0.1", "http", "add_vhost", {"vhost": "audited"})]
    assert [entry["action"] for entry in log if entry["door"] == "config"] == [
        "vhost.created", "user.created", "permission.created"]


def test_changes_by_other_routes_are_recorded_by_method_and_path_without_secrets(api: Api) -> None:
    assert api.put("/users/till", {"password": "secret", "tags": "management"}) == 201
    assert api.put("/users/till", {"tags": 5}) == 400
    assert api.put("/queues/%2F/orders", {"durable": True}) == 201
    published = {"routing_key": "orders", "payload": "x", "payload_encoding": "string", "properties": {}}
    assert api.ask("POST", "/exchanges/%2F/amq.default/publish", published).status == 200
    assert api.delete("/queues/%2F/orders") == 204
    log = api.ask("POST", "/amqpctl", {"command": "list_audit_log", "arguments": {"action": "*/api/*"}}).body["result"]
    assert [(entry["action"], entry["detail"]) for entry in log] == [
        ("PUT /api/users/till", {"password": "***", "tags": "management"}),
        ("PUT /api/queues/%2F/orders", {"durable": True}),
        ("DELETE /api/queues/%2F/orders", {})]
    assert {(entry["user"], entry["door"]) for entry in log} == {("guest", "http")}


def test_amqpctl_follows_over_http(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQPCTL_PASSWORD", "guest")
    url = f"http://guest@127.0.0.1:{api.port}"
    records = web.follow(url, "tail", {"vhost": "/", "exchange": ""}, timeout_s=20)
    published = {"routing_key": "nowhere", "payload": "x", "payload_encoding": "string", "properties": {}}
    found: list[Any] = []
    reading = threading.Thread(target=lambda: found.append(next(records)))
    reading.start()
    while reading.is_alive():       # until it is followed
        assert api.ask("POST", "/exchanges/%2F/amq.default/publish", published).status == 200
    assert (found[0]["payload"], found[0]["routed_queues"]) == ("x", [])
    records.close()
    with pytest.raises(Failure, match="no exchange 'none'"):
        list(web.follow(url, "tail", {"vhost": "/", "exchange": "none"}, timeout_s=20))
    monkeypatch.setenv("AMQPCTL_PASSWORD", "wrong")
    with pytest.raises(Failure, match="wrong user or password for "):
        list(web.follow(url, "events", {}, timeout_s=20))


def test_a_command_that_follows_something_is_answered_line_by_line(api: Api) -> None:
    client = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
    with closing(client):
        client.request(
            "POST", "/api/amqpctl", json.dumps({"command": "events", "arguments": {"patterns": ["vhost.*"]}}),
            {"Content-Type": "application/json", "Authorization": basic(GUEST)})
        answer = client.getresponse()
        assert json.loads(answer.readline()) == {"ok": True, "stream": True}
        assert api.ask("POST", "/amqpctl", {"command": "add_vhost", "arguments": {"vhost": "told"}}).body["ok"]
        event = json.loads(answer.readline())
    assert (event["event"], event["name"], event["user_who_performed_action"]) == ("vhost.created", "told", "guest")


# amqpctl

def test_amqpctl_lists_the_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    entry = {"at_ms": 1_700_000_000_000, "user": "till", "address": "pid 7", "door": "control",
             "action": "set_user_tags", "detail": {"user": "ann", "tags": ["a"]}}

    def answer(path: object, command: str, arguments: Any, **more: Any) -> Any:
        asked.append((command, arguments))
        return [entry]

    monkeypatch.setattr("amqpd.ctl.client.ask", answer)
    assert ctl.main(["list_audit_log", "--limit", "5", "--user", "till", "--door", "control", "--action", "set_*"]) == 0
    assert asked == [("list_audit_log", {
        "limit": 5, "user": "till", "door": "control", "action": "set_*", "since_ms": 0})]
    heading, columns, row = capsys.readouterr().out.splitlines()
    assert (heading, columns) == ("Listing the audit log ...", "time\tuser\taddress\tdoor\taction\tdetail")
    assert row.split("\t")[1:] == ["till", "pid 7", "control", "set_user_tags", 'user=ann tags=["a"]']
    assert ctl.main(["--formatter", "json", "list_audit_log", "--since", "24"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["detail"] == entry["detail"]
    assert asked[1][1]["since_ms"] > 1_700_000_000_000
