"""What patterns and policies would match, before they are set."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Api

TRY = "/vhosts/%2F/policy-preview"
SLOW, SLOW_NAME = "(a+)+$", "a" * 254 + "b"


def tried(api: Api, **policy: Any) -> Any:
    """Return the preview of a policy."""
    reply = api.ask("POST", TRY, {"pattern": ".*", "definition": {"max-length": 1}, "name": "new", **policy})
    assert reply.status == 200, reply
    return reply.body


@pytest.fixture
def queues(api: Api) -> None:
    """Some queues."""
    for name, arguments in (("shop.a", {}), ("shop.b", {"x-queue-type": "quorum"}), ("mail", {})):
        api.put(f"/queues/%2F/{name}", {"durable": True, "arguments": arguments})


@pytest.mark.usefixtures("queues")
def test_a_pattern_of_permissions_is_searched_in_all_names(api: Api) -> None:
    found = api.get("/vhosts/%2F/matches?pattern=%5Eshop&most=1")
    assert found["queues"] == {"total": len(api.get("/queues")), "found": 2, "names": ["shop.a"]}
    assert found["exchanges"]["found"] == 0 and not found["is_slow"]
    assert api.get("/vhosts/%2F/matches?pattern=%5Eamq.default%24")["exchanges"]["names"] == ["amq.default"]
    assert api.get("/vhosts/%2F/matches?pattern=")["queues"]["found"] == 0
    assert api.ask("GET", "/vhosts/%2F/matches?pattern=(").status == 400
    assert api.ask("GET", "/vhosts/nowhere/matches?pattern=x").status == 404


@pytest.mark.usefixtures("queues")
def test_the_preview_of_a_policy_tells_what_matches_and_what_is_in_force(api: Api) -> None:
    api.put("/policies/%2F/old", {"pattern": "^shop", "definition": {"max-length": 5}, "priority": 3})
    found = tried(api, pattern="shop", priority=2, **{"apply-to": "queues"})
    assert (found["queues"], found["exchanges"], found["faults"]) == (2, 0, [])
    assert found["matches"] == [
        {"kind": "queue", "name": name, "policy": "old", "is_in_force": False} for name in ("shop.a", "shop.b")]
    assert all(one["is_in_force"] for one in tried(api, pattern="shop", priority=4)["matches"])
    assert all(one["is_in_force"] for one in tried(api, pattern="shop", name="old", priority=-1)["matches"])
    assert all(one["is_in_force"] for one in tried(api, pattern="shop", priority=3, name="a")["matches"])
    assert tried(api, pattern="shop", is_operator=True)["matches"][0]["policy"] is None
    assert tried(api, pattern="shop", definition={"queue-mode": "lazy"})["queues"] == 1       # not for quorum queues
    assert tried(api, pattern="^amq\\.", **{"apply-to": "exchanges"})["exchanges"] == 6
    assert len(tried(api, most=1)["matches"]) == 1 and tried(api, most=10**9)["queues"] >= 3
    api.delete("/policies/%2F/old")
    assert tried(api, pattern="shop")["matches"][0]["policy"] is None
    assert api.get("/policies") == []


def test_what_is_wrong_with_a_policy_is_told_with_its_preview(api: Api) -> None:
    assert tried(api, definition={"max-lenght": 1})["faults"] == [
        "'max-lenght' is not a key of policies, did you mean 'max-length'?"]
    assert tried(api, definition={"max-lenght": 1})["queues"] > 0
    found = tried(api, pattern="(")
    assert found["queues"] == 0 and "invalid" in found["faults"][0]
    assert "unrecognised" in tried(api, **{"apply-to": "everything"})["faults"][0]
    for body in ({}, {"pattern": 1}, {"pattern": "x", "unknown": 1}, {"pattern": "x", "definition": []}):
        assert api.ask("POST", TRY, body).status == 400


def test_a_pattern_that_runs_out_of_time_is_told(api: Api) -> None:
    api.put(f"/queues/%2F/{SLOW_NAME}")
    assert tried(api, pattern=SLOW)["is_slow"] and not tried(api, pattern="a")["is_slow"]
    assert api.get("/vhosts/%2F/matches?pattern=(a%2B)%2B%24")["is_slow"]


def test_previews_need_the_rights_of_what_is_previewed(api: Api) -> None:
    for name, tags, statuses in (("sees", "monitoring", (401, 200)), ("sets", "policymaker", (200, 200))):
        api.put(f"/users/{name}", {"password": name, "tags": tags})
        api.put(f"/permissions/%2F/{name}", {"configure": "", "write": "", "read": ""})
        assert (api.ask("POST", TRY, {"pattern": "x"}, user=(name, name)).status,
                api.ask("GET", "/vhosts/%2F/matches?pattern=x", user=(name, name)).status) == statuses
    api.put("/vhosts/other")
    assert api.ask("GET", "/vhosts/other/matches?pattern=x", user=("sets", "sets")).status == 401
    assert api.ask("POST", "/vhosts/other/policy-preview", {"pattern": "x"}, user=("sets", "sets")).status == 401
