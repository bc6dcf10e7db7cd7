"""Actions on many rows: on those that are marked, and on all that match."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from amqpd.management.page.bulk import FAMILIES, MOST_MARKED, PART
from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_clients import client
from tests.support.api import Api, running

HOSTILE = '"><img src=x onerror=alert(1)>'


@pytest.fixture
def api() -> Iterator[Api]:
    """A broker for one test."""
    with running() as api:
        yield api


@pytest.fixture
def guest(api: Api) -> Visitor:
    """The administrator guest."""
    return Visitor(api)


def act(visitor: Visitor, path: str, **fields: Any) -> Any:
    """Return what is answered to a part."""
    reply = visitor.post(f"/bulk/{path}", **fields)
    assert reply.status == 200, reply.body
    return reply.body


def key(*parts: str) -> str:
    """Return the value of a box that is marked."""
    return json.dumps(parts)


def queues(api: Api) -> list[str]:
    """Return the names of all queues."""
    return sorted(one["name"] for one in api.get("/queues"))


def test_marked_queues_are_deleted_and_those_that_cannot_be_are_named_with_the_reason(
    api: Api, guest: Visitor
) -> None:
    for name in ("a", "b", HOSTILE, "kept"):
        guest.post("/queues", "declare", vhost="/", name=name, type="classic")
    with client(api) as channel:
        channel.queue_declare("mine", exclusive=True)
        found = act(guest, "queues/delete", row=[
            key("/", "a"), key("/", "b"), key("/", HOSTILE), key("/", "mine"), key("/", "gone")])
        assert found["done"] == 3 and found["next"] == 0
        assert [one["name"] for one in found["failed"]] == ["mine", "gone"]
        assert "exclusive" in found["failed"][0]["reason"]
        assert found["failed"][1]["reason"] == "It does not exist any more."
        assert queues(api) == ["kept", "mine"]


def test_all_that_match_are_deleted_part_after_part_from_the_last_page(api: Api, guest: Visitor) -> None:
    for number in range(PART + 5):
        api.put(f"/queues/%2F/old-{number:03}")
    api.put("/queues/%2F/other")
    api.put("/vhosts/next")
    api.put("/permissions/next/guest", {"configure": ".*", "write": ".*", "read": ".*"})
    api.put("/queues/next/old-1")
    fields = {"all": "1", "name": "OLD-", "vhost": "/"}
    first = act(guest, "queues/delete", **fields)
    assert first == {"done": 5, "failed": [], "next": 1}
    assert act(guest, "queues/delete", **fields, page="1") == {"done": PART, "failed": [], "next": 0}
    assert queues(api) == ["old-1", "other"]
    assert act(guest, "queues/delete", all="1", name="^o.*r$", regex="1") == {"done": 1, "failed": [], "next": 0}
    assert act(guest, "queues/delete", all="1", name="nothing") == {"done": 0, "failed": [], "next": 0}
    assert queues(api) == ["old-1"]


def test_a_page_that_others_have_emptied_is_passed_over(api: Api, guest: Visitor) -> None:
    api.put("/queues/%2F/one")
    assert act(guest, "queues/pause", all="1", page="7") == {"done": 0, "failed": [], "next": 6}
    assert act(guest, "queues/pause", all="1", page="1") == {"done": 1, "failed": [], "next": 0}


def test_queues_are_paused_resumed_and_purged(api: Api, guest: Visitor) -> None:
    for name in ("a", "b"):
        api.put(f"/queues/%2F/{name}")
        api.ask("POST", "/exchanges/%2F/amq.default/publish", {
            "properties": {}, "routing_key": name, "payload": "x", "payload_encoding": "string"})
    rows = [key("/", "a"), key("/", "b")]
    for action, state in (("pause", True), ("resume", False)):
        assert act(guest, f"queues/{action}", row=rows)["done"] == 2
        found = {one["name"]: one["is_paused"] for one in guest.api.get("/queues")}
        assert found == {"a": state, "b": state}
    assert act(guest, "queues/purge", row=rows)["done"] == 2
    assert [api.get(f"/queues/%2F/{name}")["messages"] for name in ("a", "b")] == [0, 0]


def test_connections_are_closed_with_one_reason(api: Api, guest: Visitor) -> None:
    with client(api) as first, client(api) as second:
        names = [one["name"] for one in api.get("/connections")]
        assert guest.post("/bulk/connections/close", row=[key(names[0])], reason="x" * 300).status == 422
        assert len(api.get("/connections")) == 2
        found = act(guest, "connections/close", row=[key(names[0]), key("nobody")], reason="maintenance")
        assert found["done"] == 1 and found["failed"][0]["name"] == "nobody"
        assert act(guest, "connections/close", all="1") == {"done": 1, "failed": [], "next": 0}
        assert api.get("/connections") == []
        assert first.connection.is_open and second.connection.is_open       # who have not read it yet


def test_consumers_are_cancelled(api: Api, guest: Visitor) -> None:
    with client(api) as channel:
        channel.queue_declare("of.many")
        for number in range(5):
            channel.basic_consume("of.many", lambda *_: None, consumer_tag=f"tag-{number}")
        name = api.get("/consumers")[0]["channel_details"]["name"]
        assert act(guest, "consumers/cancel", row=[key("/", "of.many", "tag-1", name)])["done"] == 1
        assert act(guest, "consumers/cancel", all="1", name="tag-")["done"] == 4
        assert api.get("/consumers") == []


@pytest.mark.parametrize("fields", [
    {}, {"row": ["x"] * (MOST_MARKED + 1)}, {"row": "x"}, {"row": key("/")}, {"row": key("/", "a", "b")},
    {"row": '["/", 7]'}, {"row": "[" * 5_000}, {"all": "1", "page": "0"}, {"all": "1", "page": "x"}])
def test_what_names_no_rows_is_refused(api: Api, guest: Visitor, fields: Any) -> None:
    api.put("/queues/%2F/a")
    assert guest.post("/bulk/queues/delete", **fields).status == 400
    assert queues(api) == ["a"]


@pytest.mark.parametrize("path", ["queues/nothing", "nothing/delete", "queues/close"])
def test_an_action_that_there_is_not_is_refused(guest: Visitor, path: str) -> None:
    assert guest.post(f"/bulk/{path}", all="1").status == 404


def test_a_user_without_rights_is_offered_nothing_and_changes_nothing(api: Api) -> None:
    api.put("/queues/%2F/kept")
    watcher = user_with(api, "watcher", "monitoring")
    for family, found in FAMILIES.items():
        shown = watcher.text(f"/{family}")
        assert "data-bulk=" not in shown and 'name="row"' not in shown
        for action in found.actions:
            assert watcher.post(f"/bulk/{family}/{action.name}", all="1").status == 401
    assert queues(api) == ["kept"]


def test_what_the_api_refuses_to_the_user_is_told_row_by_row(api: Api) -> None:
    api.put("/queues/%2F/kept")
    manager = user_with(api, "manager", "management")
    found = act(manager, "queues/delete", row=[key("/", "kept")])
    assert found == {"done": 0, "failed": [{"name": "kept", "reason": "Access refused."}], "next": 0}
    assert queues(api) == ["kept"]


def test_lists_offer_what_the_user_may_do(api: Api, guest: Visitor) -> None:
    api.put("/queues/%2F/a")
    for family, found in FAMILIES.items():
        shown = guest.text(f"/{family}")
        assert all(f'id="bulk-{action.name}"' in shown for action in found.actions)
    assert '<input type="checkbox" name="row" value="[&#34;/&#34;, &#34;a&#34;]"' in guest.text("/queues")
    manager = user_with(api, "manager", "management").text("/queues")
    assert 'id="bulk-delete"' in manager and 'id="bulk-pause"' not in manager
