"""Bindings, messages, queues, users, vhosts and limits over the management API."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.management.http.properties_json import NUMBERS, PROPERTIES, decode_properties, encode_properties
from tests.support.api import Api

AMQ_TOPIC = "/bindings/%2F/e/amq.topic/q/bound"


# Bindings

@pytest.mark.parametrize("key", ["", "~", "a.b", "a*#", "a/b %2F", "é~", "+"])
def test_a_binding_is_found_by_the_last_segment_of_its_location(api: Api, key: str) -> None:
    assert api.put("/queues/%2F/bound") in (201, 204)
    made = [api.ask("POST", AMQ_TOPIC, {"routing_key": key, "arguments": arguments})
            for arguments in ({}, {"x": 1}, {"x": 2})]
    assert {reply.status for reply in made} == {201}
    paths = [f"{AMQ_TOPIC}/{reply.headers['location'].partition('/')[2]}" for reply in made]
    assert len(set(paths)) == 3
    found = [api.get(path) for path in paths]
    assert [one["arguments"] for one in found] == [{}, {"x": 1}, {"x": 2}]
    for one, path in zip(found, paths):
        assert one["routing_key"] == key
        assert path == f"{AMQ_TOPIC}/{quote(one['properties_key'], safe='')}"
        assert api.delete(path) == 204
        assert api.ask("GET", path).status == 404


def test_the_default_exchange_has_the_bindings_of_queues_and_takes_no_others(api: Api) -> None:
    assert api.put("/queues/%2F/bound") in (201, 204)
    (found,) = api.get("/bindings/%2F/e/amq.default/q/bound")
    assert (found["source"], found["routing_key"], found["properties_key"]) == ("", "bound", "bound")
    reply = api.ask("POST", "/bindings/%2F/e/amq.default/q/bound", {"routing_key": "x"})
    assert (reply.status, reply.body["reason"]) == (401, "Access refused.")


# Properties

VALUES = {
    "text": st.text(max_size=60), "octet": st.integers(0, 255), "long": st.integers(0, (1 << 64) - 1),
    "table": st.dictionaries(
        st.text(max_size=40), st.recursive(
            st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=40) | st.floats(allow_nan=False),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
            max_leaves=6), max_size=4)}


@given(st.fixed_dictionaries({}, optional={name: VALUES[kind] for name, kind in PROPERTIES}))
def test_properties_are_read_as_they_were_written(properties: dict[str, Any]) -> None:
    assert decode_properties(encode_properties(properties)) == properties


def test_numbers_of_properties_are_cut_to_their_size() -> None:
    for name, kind in PROPERTIES:
        if kind in NUMBERS:
            assert decode_properties(encode_properties({name: 1 << 64 | 7})) == {name: 7}


# Messages

def published(api: Api, queue: str, payload: str, encoding: str = "string") -> Any:
    return api.ask("POST", "/exchanges/%2F/amq.default/publish", {
        "routing_key": queue, "payload": payload, "payload_encoding": encoding,
        "properties": {"message_id": payload}}).body


def got(api: Api, queue: str, mode: str, **more: Any) -> Any:
    sent = {"count": 10, "ackmode": mode, "encoding": "auto", **more}
    return api.ask("POST", f"/queues/%2F/{queue}/get", sent).body


@pytest.mark.parametrize("mode, is_kept, is_dead", [
    ("ack_requeue_true", True, False), ("reject_requeue_true", True, False),
    ("ack_requeue_false", False, False), ("reject_requeue_false", False, True)])
def test_messages_that_were_got_stay_or_leave_or_are_dead_lettered(
        api: Api, mode: str, is_kept: bool, is_dead: bool) -> None:
    dead, queue = f"dead.{mode}", f"got.{mode}"
    assert api.put(f"/queues/%2F/{dead}") == 201
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    assert api.put(f"/queues/%2F/{queue}", {"arguments": arguments}) == 201
    assert published(api, queue, "one") == published(api, queue, "two") == {"routed": True}
    found = got(api, queue, mode)
    assert [(one["payload"], one["message_count"], one["redelivered"]) for one in found] == [
        ("one", 1, False), ("two", 0, False)]
    assert found[0]["properties"] == {"message_id": "one"}
    again = got(api, queue, "ack_requeue_false")
    assert [(one["payload"], one["redelivered"]) for one in again] == (
        [("one", True), ("two", True)] if is_kept else [])
    assert [one["payload"] for one in got(api, dead, "ack_requeue_false")] == (["one", "two"] if is_dead else [])


def test_a_body_is_a_text_or_base64_and_can_be_cut(api: Api) -> None:
    assert api.put("/queues/%2F/bodies") == 201
    binary = base64.b64encode(b"\xff\xfe\xfd").decode()
    published(api, "bodies", binary, "base64")
    published(api, "bodies", "text")
    shown = [(one["payload"], one["payload_encoding"], one["payload_bytes"])
             for one in got(api, "bodies", "ack_requeue_true", truncate=2)]
    assert shown == [(base64.b64encode(b"\xff\xfe").decode(), "base64", 3), ("te", "string", 4)]
    assert published(api, "nowhere", "x") == {"routed": False}


# Queues

NUMBERS_OF_QUEUES = {
    "messages", "messages_ready", "messages_unacknowledged", "message_bytes", "message_bytes_ready", "consumers",
    "memory", "messages_ram", "messages_persistent"}


def test_an_empty_queue_has_every_key_of_a_busy_one(api: Api) -> None:
    assert api.put("/queues/%2F/counted", {"durable": True}) == 201
    empty = api.get("/queues/%2F/counted")
    assert NUMBERS_OF_QUEUES <= {key for key, value in empty.items() if isinstance(value, int)}
    published(api, "counted", "12345")
    busy = api.get("/queues/%2F/counted")
    assert empty.keys() <= busy.keys()
    assert (empty["messages"], busy["messages"], busy["message_bytes"]) == (0, 1, 5)
    assert busy["type"] == "classic" and busy["state"] == "running" and busy["exclusive"] is False
    assert api.delete("/queues/%2F/counted?if-empty=true") == 400
    assert api.delete("/queues/%2F/counted/contents") == 204
    assert api.delete("/queues/%2F/counted?if-empty=true") == 204


# Users, vhosts and limits

def test_who_adds_a_vhost_may_do_everything_there_and_nobody_else(api: Api) -> None:
    assert api.put("/users/adder", {"password_hash": "", "tags": "administrator"}) == 201
    assert (api.put("/vhosts/added"), api.put("/vhosts/added", {"description": "d", "tags": "a,b"})) == (201, 204)
    assert api.get("/vhosts/added/permissions") == [
        {"user": "guest", "vhost": "added", "configure": ".*", "write": ".*", "read": ".*"}]
    found = api.get("/vhosts/added")
    assert (found["description"], found["tags"]) == ("d", ["a", "b"])
    assert api.get("/users/adder/permissions") == []
    assert "adder" in [one["name"] for one in api.get("/users/without-permissions")]


def test_a_user_keeps_limits_when_password_and_tags_are_replaced_and_several_are_deleted_together(api: Api) -> None:
    for name in ("first", "second"):
        assert api.put(f"/users/{name}", {"password_hash": "", "tags": ["management"]}) == 201
    assert api.put("/user-limits/first/max-channels", {"value": 5}) == 204
    assert api.put("/users/first", {"password_hash": "", "tags": "monitoring,own"}) == 204
    found = api.get("/users/first")
    assert (found["tags"], found["limits"]) == (["monitoring", "own"], {"max-channels": 5})
    assert api.get("/user-limits/first") == [{"user": "first", "value": {"max-channels": 5}}]
    assert api.ask("POST", "/users/bulk-delete", {"users": ["first", "nobody"]}).status == 400
    assert api.ask("POST", "/users/bulk-delete", {"users": ["first", "second"]}).status == 204
    assert not {"first", "second"} & {one["name"] for one in api.get("/users")}


def test_a_limit_of_a_vhost_is_in_force_at_once_and_can_be_removed(api: Api) -> None:
    assert api.put("/vhosts/limited") == 201
    assert api.put("/vhost-limits/limited/max-queues", {"value": 1}) == 204
    assert api.get("/vhost-limits/limited") == [{"vhost": "limited", "value": {"max-queues": 1}}]
    assert (api.put("/queues/limited/one"), api.put("/queues/limited/two")) == (201, 400)
    assert api.delete("/vhost-limits/limited/max-queues") == 204
    assert (api.put("/queues/limited/two"), api.get("/vhost-limits/limited")) == (201, [])
    assert api.put("/vhost-limits/limited/nonsense", {"value": 1}) == 400
