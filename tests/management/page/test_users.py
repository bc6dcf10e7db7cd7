"""The pages of users: what they show, what their forms do, and what they refuse."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from amqpd.management.page.patterns import in_words
from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_forms import errors
from tests.support.api import Api

HOSTILE = ('"><img src=x onerror=alert(1)>', "%2F", "two\nlines", "\u202eRTL", "n" * 255, "../..", "{{7*7}}")
ALL = {"configure": ".*", "write": ".*", "read": ".*"}


def test_a_user_is_added_with_tags_and_rights_in_a_vhost(api: Api, guest: Visitor) -> None:
    reply = guest.post("/users", "add", name="anna", password="s3cret", again="s3cret", tag=["monitoring"], vhost="/")
    assert (reply.status, "User anna is added." in reply.headers["hx-trigger"]) == (204, True)
    assert api.get("/users/anna")["tags"] == ["monitoring"]
    assert api.get("/permissions/%2F/anna") == {"user": "anna", "vhost": "/", **ALL}
    assert Visitor(api, "anna", "s3cret").get("/queues").status == 200
    assert ">anna</a>" in guest.text("/users") and "monitoring" in guest.text("/users?name=ann")


@pytest.mark.parametrize(("changed", "field", "error"), [
    ({"name": ""}, "name", "Enter a name."), ({"name": "guest"}, "name", "There is a user of this name."),
    ({"name": "x" * 256}, "name", "The name of a user has 1 to 255 bytes."),
    ({"password": "", "again": ""}, "password", "Enter a password."),
    ({"again": "t0psecret!"}, "again", "This is not the same password."),
    ({"vhost": "nowhere"}, "vhost", "There is no such vhost.")])
def test_wrong_input_is_told_and_no_password_comes_back(
    api: Api, guest: Visitor, changed: dict[str, str], field: str, error: str
) -> None:
    fields = {"name": "wrong", "password": "s3cret!", "again": "s3cret!", "vhost": "/", **changed}
    reply = guest.post("/users", "add", **fields)
    assert (reply.status, errors(reply.body)) == (422, {field: error})
    assert b"s3cret!" not in reply.body and b"t0psecret!" not in reply.body
    assert api.ask("GET", "/users/wrong").status == 404


def test_no_page_shows_a_password_or_its_hash(api: Api, guest: Visitor) -> None:
    api.put("/users/hidden", {"password": "h1dden", "tags": ""})
    digest = api.get("/users/hidden")["password_hash"]
    for path in ("/users", "/users/hidden", "/users?columns=name,password_hash", "/audit"):
        shown = guest.get(path).body.decode()
        assert digest not in shown and "h1dden" not in shown


def test_tags_password_and_limits_are_changed_apart_from_each_other(api: Api, guest: Visitor) -> None:
    api.put("/users/parts", {"password": "one", "tags": "management,of-others"})
    assert guest.post("/users/parts/tags", "tags", tag=["policymaker", "monitoring"]).status == 204
    assert api.get("/users/parts")["tags"] == ["monitoring", "policymaker", "of-others"]
    assert Visitor(api, "parts", "one").get("/queues").status == 200
    reply = guest.post("/users/parts/password", "password", password="two", again="twoo")
    assert (reply.status, list(errors(reply.body))) == (422, ["again"])
    assert guest.post("/users/parts/password", "password", password="two", again="two").status == 204
    assert api.get("/users/parts")["tags"] == ["monitoring", "policymaker", "of-others"]
    assert Visitor(api, "parts", "two").get("/queues").status == 200
    reply = guest.post("/users/parts/limits", "limits", **{"limit-max-connections": "many", "limit-max-channels": "5"})
    assert (reply.status, list(errors(reply.body))) == (422, ["limit-max-connections"])
    fields = {"limit-max-connections": "3", "limit-max-channels": "5"}
    assert guest.post("/users/parts/limits", "limits", **fields).status == 204
    assert api.get("/users/parts")["limits"] == {"max-connections": 3, "max-channels": 5}
    assert guest.post("/users/parts/limits", "limits", **{**fields, "limit-max-channels": ""}).status == 204
    assert api.get("/users/parts")["limits"] == {"max-connections": 3}


def test_permissions_are_set_with_a_preview_of_what_they_match(api: Api, guest: Visitor) -> None:
    api.put("/users/worker", {"password": "x", "tags": ""})
    for name in ("shop.a", "shop.b", "other"):
        api.put(f"/queues/%2F/{name}")
    fields = {"vhost": "/", "configure": "", "write": "^shop\\.", "read": "("}
    shown = guest.post("/users/worker/permissions/preview", "preview", **fields).body.decode()
    assert "<dd>nothing: 0 queues of" in shown and "names that begin with “shop.”: 2 queues of" in shown
    assert "shop.a, shop.b" in shown and "The pattern cannot be used" in shown and "<html" not in shown
    reply = guest.post("/users/worker/permissions", "permission", **fields)
    assert reply.status == 422 and list(errors(reply.body)) == ["read"] and b'value="^shop\\.' in reply.body
    assert guest.post("/users/worker/permissions", "permission", **{**fields, "read": ".*"}).status == 204
    assert api.get("/permissions/%2F/worker")["write"] == "^shop\\."
    assert "names that begin with “shop.”" in guest.text("/users/worker")
    assert errors(guest.post("/users/worker/permissions", "permission", **{**fields, "vhost": "no"}).body) == {
        "vhost": "Choose one of /."}
    assert guest.post("/users/worker/permissions/delete", vhost="/").status == 204
    assert api.get("/users/worker/permissions") == []
    assert guest.post("/users/worker/permissions/delete", vhost="/").status == 404


def test_a_pattern_that_backtracks_is_told(api: Api, guest: Visitor) -> None:
    api.put("/queues/%2F/" + "a" * 254 + "b")
    fields = {"vhost": "/", "configure": "(a+)+$", "write": ".*", "read": ""}
    shown = guest.post("/users/guest/permissions/preview", "preview", **fields).body.decode()
    assert "takes too long for some names" in shown


def test_topic_permissions_are_set_and_removed(api: Api, guest: Visitor) -> None:
    api.put("/users/topical", {"password": "x", "tags": ""})
    fields = {"topic-vhost": "/", "exchange": "amq.topic", "topic-write": "^a\\.", "topic-read": "["}
    reply = guest.post("/users/topical/topic-permissions", "topic", **fields)
    assert (reply.status, list(errors(reply.body))) == (422, ["topic-read"])
    assert errors(guest.post("/users/topical/topic-permissions", "topic", **{**fields, "exchange": ""}).body)
    assert guest.post("/users/topical/topic-permissions", "topic", **{**fields, "topic-read": ".*"}).status == 204
    assert api.get("/users/topical/topic-permissions")[0]["write"] == "^a\\."
    assert "<code>^a\\.</code>" in guest.text("/users/topical")
    gone = {"vhost": "/", "exchange": "amq.topic"}
    assert guest.post("/users/topical/topic-permissions/delete", **gone).status == 204
    assert api.get("/users/topical/topic-permissions") == []


def test_administrators_do_not_lock_themselves_out_by_mistake(api: Api) -> None:
    api.put("/users/boss", {"password": "boss", "tags": "administrator"})
    boss = Visitor(api, "boss", "boss")
    assert "This is you." in boss.text("/users/boss") and "your own account" in boss.text("/users/boss")
    reply = boss.post("/users/boss/tags", "tags", tag=["monitoring"])
    assert reply.status == 422 and "You would lose the rights of an administrator" in errors(reply.body)["tag"]
    refused = boss.post("/users/boss/delete", "delete-errors")
    assert (refused.status, b"type its name" in refused.body) == (422, True)
    assert api.get("/users/boss")["tags"] == ["administrator"]
    assert boss.post("/users/boss/tags", "tags", tag=["monitoring"], sure="on").status == 204
    assert api.get("/users/boss")["tags"] == ["monitoring"]
    api.put("/users/boss", {"password": "boss", "tags": "administrator"})
    assert Visitor(api, "boss", "boss").post("/users/boss/delete", typed="boss").status == 204
    assert api.ask("GET", "/users/boss").status == 404


def test_only_administrators_come_to_users(api: Api) -> None:
    for name, tags in (("sees", "monitoring"), ("sets", "policymaker"), ("owns", "management")):
        visitor = user_with(api, name, tags)
        for path in ("/users", "/users/guest"):
            assert visitor.get(path).status == 401
        for path in ("/users", "/users/guest/tags", "/users/guest/password", "/users/guest/permissions",
                     "/users/guest/limits", "/users/guest/topic-permissions", "/users/guest/delete",
                     "/users/guest/permissions/preview"):
            assert visitor.post(path, name="x", password="x", again="x").status == 401
        assert 'href="/users"' not in visitor.text("/queues")
    assert api.get("/users/guest")["tags"] == ["administrator"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_work(api: Api, guest: Visitor, name: str) -> None:
    path = "/users/" + quote(name, safe="")
    assert guest.post("/users", "add", name=name, password="x", again="x", vhost="/").status == 204
    for shown in (guest.text(path), guest.text("/users")):
        assert "<img" not in shown and ">49<" not in shown
    assert guest.post(path + "/tags", "tags", tag="management").status == 204
    assert guest.post(path + "/permissions", "permission", vhost="/", configure=name, write="", read="").status in (
        204, 422)
    assert guest.post(path + "/delete").status == 204
    assert guest.get(path).status == 404


@pytest.mark.parametrize(("pattern", "words"), [
    ("", "nothing"), ("^$", "nothing"), (".*", "everything"), ("^shop\\.", "names that begin with “shop.”"),
    ("^a-b$", "exactly “a-b”"), ("dead$", "names that end with “dead”"), ("dead", "names that contain “dead”"),
    ("^x.*", "names that begin with “x”"), ("^(a|b)$", "names in which this is found"),
    ("a.b", "names in which this is found"), ("^\\d", "names in which this is found")])
def test_patterns_are_told_in_words(pattern: str, words: str) -> None:
    assert in_words(pattern) == words
