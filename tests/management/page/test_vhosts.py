"""The pages of vhosts and limits: what they show, what their forms do, and what they refuse."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_forms import errors
from tests.management.page.test_users import HOSTILE
from tests.support.api import Api

SAID = {"description": "for tests", "tags": "one, two,", "default_queue_type": "quorum"}


def test_a_vhost_is_added_changed_and_deleted(api: Api, guest: Visitor) -> None:
    assert guest.post("/vhosts", "add", name="made", **SAID).status == 204
    made = api.get("/vhosts/made")
    assert (made["description"], made["tags"], made["default_queue_type"]) == ("for tests", ["one", "two"], "quorum")
    assert ">made</a>" in guest.text("/vhosts?name=ma") and "for tests" in guest.text("/vhosts")
    shown = guest.text("/vhosts/made")
    assert 'href="/users/guest"' in shown and 'value="one, two"' in shown
    changed = {**SAID, "default_queue_type": "undefined", "tracing": "on", "protected_from_deletion": "on"}
    assert guest.post("/vhosts/made/change", "said", **changed).status == 204
    made = api.get("/vhosts/made")
    assert made["tracing"] and made["protected_from_deletion"] and made["default_queue_type"] == "undefined"
    assert 'name="tracing" value="on" checked' in guest.text("/vhosts/made")
    assert (guest.post("/vhosts/made/delete", typed="other").status,
            guest.post("/vhosts/made/delete", typed="made").status) == (422, 412)
    assert "is protected from deletion" in guest.text("/vhosts/made")
    assert guest.post("/vhosts/made/change", "said", **SAID).status == 204
    assert guest.post("/vhosts/made/delete", typed="made").status == 204
    assert guest.get("/vhosts/made").status == 404


@pytest.mark.parametrize(("changed", "field"), [
    ({"name": ""}, "name"), ({"name": "/"}, "name"), ({"name": "x" * 256}, "name"),
    ({"default_queue_type": "stream"}, "default_queue_type")])
def test_wrong_input_is_told(guest: Visitor, changed: dict[str, str], field: str) -> None:
    reply = guest.post("/vhosts", "add", **{"name": "wrong", **SAID, **changed})
    assert (reply.status, list(errors(reply.body))) == (422, [field])
    assert guest.get("/vhosts/wrong").status == 404


def test_limits_of_vhosts_and_users_are_set_and_listed(api: Api, guest: Visitor) -> None:
    assert "There are no vhosts with limits." in guest.text("/limits")
    api.put("/vhosts/limited")
    fields = {"limit-max-connections": "1000", "limit-max-queues": "-1"}
    reply = guest.post("/vhosts/limited/limits", "limits", **fields)
    assert (reply.status, list(errors(reply.body))) == (422, ["limit-max-queues"])
    assert guest.post("/vhosts/limited/limits", "limits", **{**fields, "limit-max-queues": "0"}).status == 204
    assert api.get("/vhost-limits/limited") == [
        {"vhost": "limited", "value": {"max-connections": 1000, "max-queues": 0}}]
    shown = guest.text("/limits")
    assert "1,000" in shown and "none allowed" in shown and 'href="/vhosts/limited"' in shown
    assert 'value="1000"' in guest.text("/vhosts/limited")
    assert guest.post("/limits/set/vhosts", "set", name="limited", **{**fields, "limit-max-queues": ""}).status == 204
    assert api.get("/vhost-limits/limited")[0]["value"] == {"max-connections": 1000}
    assert guest.post("/limits/set/users", "set", name="guest", **{"limit-max-channels": "99"}).status == 204
    assert ">guest</a>" in guest.text("/limits/users") and ">99</td>" in guest.text("/limits/users")
    for name, error in (("", "Enter the name of a user."), ("none", "There is no such user.")):
        assert errors(guest.post("/limits/set/users", "set", name=name).body) == {"name": error}
    assert guest.post("/limits/set/users", "set", name="guest").status == 204
    assert api.get("/users/guest")["limits"] == {}
    api.delete("/vhosts/limited")


def test_who_only_watches_gets_lists_without_buttons(api: Api) -> None:
    for name, tags in (("sees", "monitoring"), ("owns", "management")):
        visitor = user_with(api, name, tags)
        for path in ("/vhosts", "/limits", "/limits/users"):
            shown = visitor.text(path)
            assert "data-open" not in shown.partition("<main")[2].partition("</main>")[0]
        assert 'href="/queues?vhost=%2F"' in visitor.text("/vhosts")
        assert visitor.get("/vhosts/%2F").status == 401
        for path in ("/vhosts", "/vhosts/%2F/change", "/vhosts/%2F/limits", "/vhosts/%2F/delete", "/limits/set/vhosts"):
            assert visitor.post(path, name="x", typed="/").status == 401


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_work(guest: Visitor, name: str) -> None:
    path = "/vhosts/" + quote(name, safe="")
    said = {**SAID, "description": name}
    assert guest.post("/vhosts", "add", name=name, **said).status == 204
    assert guest.post(path + "/limits", "limits", **{"limit-max-queues": "5"}).status == 204
    for shown in (guest.text(path), guest.text("/vhosts"), guest.text("/limits"), guest.text("/users/guest")):
        assert "<img" not in shown and ">49<" not in shown
    assert guest.post(path + "/change", "said", **said).status == 204
    assert guest.post(path + "/delete", typed=name.replace("\n", "")).status == 204
    assert guest.get(path).status == 404
