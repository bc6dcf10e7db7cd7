"""The pages of policies: the preview, the form with its errors, and who may set what."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_forms import errors
from tests.management.page.test_users import HOSTILE
from tests.support.api import Api

GOOD = {"vhost": "/", "name": "made", "pattern": "^shop\\.", "apply_to": "queues", "priority": "3",
        "max-length": "1000", "overflow": "reject-publish", "dead-letter-exchange": "dead",
        "more": '{"queue-mode": "lazy"}'}
MADE = {"vhost": "/", "name": "made", "pattern": "^shop\\.", "apply-to": "queues", "priority": 3, "definition": {
    "max-length": 1000, "overflow": "reject-publish", "dead-letter-exchange": "dead", "queue-mode": "lazy"}}


def test_a_policy_is_previewed_added_changed_and_deleted(api: Api, guest: Visitor) -> None:
    for name in ("shop.a", "shop.b", "mail"):
        api.put(f"/queues/%2F/{name}")
    api.put("/policies/%2F/stronger", {"pattern": "^shop\\.a", "definition": {"max-length": 1}, "priority": 9})
    shown = guest.post("/policies/preview", "preview", **GOOD).body.decode()
    assert "Matches 2 queues of 3 and 0 exchanges of 7" in shown and "<html" not in shown
    assert "keeps stronger, which is tried before" in shown and "has none now" in shown
    assert api.ask("GET", "/policies/%2F/made").status == 404
    assert guest.post("/policies", "add", **GOOD).status == 204
    assert api.get("/policies/%2F/made") == MADE
    shown = guest.text("/policies")
    assert 'href="/policies/%2F/made"' in shown and "^shop\\." in shown
    shown = guest.text("/policies/%2F/made")
    assert 'value="1000"' in shown and "has made now" in shown and "queue-mode" in shown
    changed = {**GOOD, "name": "ignored", "max-length": "", "more": ""}
    assert guest.post("/policies/%2F/made", "change", **changed).status == 204
    assert api.get("/policies/%2F/made")["definition"] == {
        "overflow": "reject-publish", "dead-letter-exchange": "dead"}
    assert guest.post("/policies/%2F/made/delete").status == 204
    assert guest.get("/policies/%2F/made").status == 404
    api.delete("/policies/%2F/stronger")


@pytest.mark.parametrize(("changed", "field", "error"), [
    ({"name": ""}, "name", "Enter a name."), ({"pattern": ""}, "pattern", "Enter a pattern"),
    ({"pattern": "("}, "pattern", "pattern should be regular expression but is invalid"),
    ({"vhost": "nowhere"}, "vhost", "Choose one of"), ({"apply_to": "streams!"}, "apply_to", "Choose one of"),
    ({"priority": "high"}, "priority", "Enter a whole number"), ({"max-length": "many"}, "max-length", "Enter a whole"),
    ({"max-length": "-1"}, "max-length", "-1 is not a valid maximum length"),
    ({"overflow": "burst"}, "overflow", "Choose one of"), ({"more": "{"}, "more", "This is not JSON"),
    ({"more": '{"max-lenght": 1}'}, "more", "&#39;max-lenght&#39; is not a key of policies, did you mean"),
    ({"dead-letter-exchange": "x" * 300}, "dead-letter-exchange", "&#39;xxx")])
def test_wrong_input_is_told_beside_its_field(
    api: Api, guest: Visitor, changed: dict[str, str], field: str, error: str
) -> None:
    reply = guest.post("/policies", "add", **{**GOOD, "name": "wrong", **changed})
    found = errors(reply.body)
    assert reply.status == 422 and list(found) == [field] and found[field].startswith(error)
    assert guest.post("/policies/preview", "preview", **{**GOOD, **changed}).status in (200, 422)
    assert api.ask("GET", "/policies/%2F/wrong").status == 404


def test_an_empty_policy_and_a_name_that_is_taken_are_refused(api: Api, guest: Visitor) -> None:
    empty = {"vhost": "/", "name": "empty", "pattern": "x", "apply_to": "all", "priority": ""}
    reply = guest.post("/policies", "add", **empty)
    assert reply.status == 422 and b"Set at least one of the keys." in reply.body
    api.put("/policies/%2F/taken", {"pattern": "x", "definition": {"max-length": 1}})
    assert "There is a policy of this name" in errors(guest.post("/policies", "add", **{
        **GOOD, "name": "taken"}).body)["name"]
    assert api.get("/policies/%2F/taken")["definition"] == {"max-length": 1}
    api.delete("/policies/%2F/taken")


def test_operator_policies_have_their_own_keys(api: Api, guest: Visitor) -> None:
    fields = {"vhost": "/", "name": "op", "pattern": ".*", "apply_to": "queues", "priority": "0", "max-length": "5"}
    refused = guest.post("/operator-policies", "add", **{**fields, "more": '{"queue-mode": "lazy"}'})
    assert "is not a key of operator policies" in errors(refused.body)["more"]
    assert guest.post("/operator-policies", "add", **fields).status == 204
    assert api.get("/operator-policies/%2F/op")["definition"] == {"max-length": 5}
    assert "/operator-policies/%2F/op" in guest.text("/operator-policies")
    assert 'name="dead-letter-exchange"' not in guest.text("/operator-policies/%2F/op")
    assert guest.post("/operator-policies/%2F/op/delete").status == 204


def test_policymakers_set_policies_and_others_only_see_them(api: Api, guest: Visitor) -> None:
    guest.post("/policies", "add", **GOOD)
    maker, watcher = user_with(api, "maker", "policymaker"), user_with(api, "watches", "monitoring")
    assert 'data-open="add-dialog"' in maker.text("/policies")
    assert 'data-open="add-dialog"' not in maker.text("/operator-policies")
    assert maker.post("/policies", "add", **{**GOOD, "name": "second"}).status == 204
    assert maker.post("/policies/preview", "preview", **GOOD).status == 200
    for path in ("/policies", "/operator-policies"):
        shown = watcher.text(path)
        assert "add-dialog" not in shown and "/%2F/made" not in shown
        assert watcher.post(path, "add", **GOOD).status == watcher.post(path + "/preview", **GOOD).status == 401
    assert "made" in watcher.text("/policies")
    assert watcher.post("/policies/%2F/made/delete").status == watcher.get("/policies/%2F/made").status == 401
    assert maker.post("/operator-policies", "add", **GOOD).status == 401
    for name in ("made", "second"):
        api.delete(f"/policies/%2F/{name}")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_work(api: Api, guest: Visitor, name: str) -> None:
    path = "/policies/%2F/" + quote(name, safe="")
    assert api.put("/queues/%2F/" + quote(name, safe="")) < 300
    fields = {**GOOD, "name": name, "pattern": ".*", "dead-letter-exchange": name}
    assert guest.post("/policies", "add", **fields).status == 204
    preview = guest.post("/policies/preview", "preview", **fields).body.decode()
    for shown in (guest.text(path), guest.text("/policies"), preview):
        assert "<img" not in shown and ">49<" not in shown
    assert guest.post(path, "change", **fields).status == guest.post(path + "/delete").status == 204
    api.delete("/queues/%2F/" + quote(name, safe=""))
