"""The pages of exchanges: the list, one exchange, its bindings, and where a message would go."""

from __future__ import annotations

import html
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.management.page.conftest import Visitor, user_with
from tests.support.api import Api

HOSTILE = ('"><img src=x onerror=alert(1)>', "%2F", "two\nlines", "\u202eabc", "x" * 255, "../../etc", "{{7*7}}")


@pytest.fixture
def shop(api: Api) -> Iterator[str]:
    """A topic exchange with a queue, an alternate exchange, and a queue for dead letters."""
    api.put("/exchanges/%2F/shop", {"type": "topic", "durable": True, "arguments": {"alternate-exchange": "rest"}})
    api.put("/exchanges/%2F/rest", {"type": "fanout", "durable": True})
    api.put("/queues/%2F/orders", {"durable": True, "arguments": {
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}})
    for queue in ("dead", "leftover"):
        api.put(f"/queues/%2F/{queue}", {"durable": True})
    api.ask("POST", "/bindings/%2F/e/shop/q/orders", {"routing_key": "order.*"})
    api.ask("POST", "/bindings/%2F/e/rest/q/leftover", {})
    yield "/exchanges/%2F/shop"
    for path in ("exchanges/%2F/shop", "exchanges/%2F/rest", "queues/%2F/orders", "queues/%2F/dead",
                 "queues/%2F/leftover"):
        api.ask("DELETE", f"/{path}")


def test_the_list_leads_to_each_exchange_and_names_the_default_one(guest: Visitor, shop: str) -> None:
    listed = guest.text("/exchanges")
    assert f'href="{shop}"' in listed and "(default exchange)" in listed
    assert 'href="/exchanges/%2F/amq.default"' in listed
    assert "No exchange matches." in guest.text("/exchanges?name=nothing-like-this")
    default = guest.text("/exchanges/%2F/amq.default")
    assert "<h1>Default exchange</h1>" in default and 'data-open="delete"' not in default
    assert 'data-open="bind-dialog"' not in default and 'data-open="unbind"' not in default
    assert 'data-open="delete"' not in guest.text("/exchanges/%2F/amq.topic")


def test_an_exchange_is_declared_and_deleted(api: Api, guest: Visitor) -> None:
    given = {"vhost": "/", "name": "made", "type": "headers", "durable": "on", "alternate_exchange": "amq.fanout"}
    for changed, told in (({"name": ""}, "Enter a name."), ({"type": "maze"}, "Choose one of direct"),
                          ({"arguments": "["}, "This is not JSON"), ({"name": "amq.mine"}, "are the broker's own")):
        reply = guest.post("/exchanges", "declare", **{**given, **changed})
        assert reply.status == 422 and told in html.unescape(reply.body.decode()), reply.body
    assert guest.post("/exchanges", "declare", **given).status == 204
    found = api.get("/exchanges/%2F/made")
    assert (found["type"], found["durable"], found["arguments"]) == (
        "headers", True, {"alternate-exchange": "amq.fanout"})
    shown = guest.text("/exchanges/%2F/made")
    assert "gets what reaches no queue from here, by its arguments" in shown and "There are no bindings." in shown
    assert guest.post("/exchanges/%2F/made/delete").status == 204
    assert guest.get("/exchanges/%2F/made").status == 404


def test_the_alternate_exchange_of_a_policy_is_told_with_the_policy(api: Api, guest: Visitor) -> None:
    api.put("/exchanges/%2F/by-policy", {"type": "direct"})
    api.put("/policies/%2F/spare", {
        "pattern": "^by-policy$", "apply-to": "exchanges", "definition": {"alternate-exchange": "amq.topic"}})
    shown = guest.text("/exchanges/%2F/by-policy")
    assert "by policy spare" in shown and 'href="/exchanges/%2F/amq.topic"' in shown
    plain = user_with(api, "plain", "management")
    assert "spare" in plain.text("/exchanges/%2F/by-policy")
    api.delete("/policies/%2F/spare")
    api.delete("/exchanges/%2F/by-policy")


def test_a_binding_is_added_and_deleted(api: Api, guest: Visitor, shop: str) -> None:
    given = {"kind": "queue", "destination": "leftover", "routing_key": "a/b~#", "arguments": '{"n": 1}'}
    for changed, told in (({"destination": ""}, "Enter the name"), ({"destination": "none"}, "There is no such queue"),
                          ({"kind": "box"}, "Choose one of"), ({"arguments": "1"}, "Enter a JSON object")):
        reply = guest.post(f"{shop}/bind", "bind", **{**given, **changed})
        assert (reply.status, told in reply.body.decode()) == (422, True), reply.body
    assert guest.post(f"{shop}/bind", "bind", **given).status == 204
    found = next(one for one in api.get("/exchanges/%2F/shop/bindings/source") if one["destination"] == "leftover")
    assert (found["routing_key"], found["arguments"]) == ("a/b~#", {"n": 1})
    shown = guest.text(f"{shop}?name=left")
    assert "<code>a/b~#</code>" in shown and "1–1 of 1 binding, out of 2" in shown
    named = {name: found[name] for name in ("source", "destination", "destination_type", "properties_key")}
    assert guest.post("/bindings/%2F/delete", **{**named, "properties_key": ""}).status == 400
    assert guest.post("/bindings/%2F/delete", **named).status == 204
    assert guest.post("/bindings/%2F/delete", **named).status == 404
    assert [one["destination"] for one in api.get("/exchanges/%2F/shop/bindings/source")] == ["orders"]


def test_bindings_are_cut_into_pages_and_shown_from_both_ends(api: Api, guest: Visitor, shop: str) -> None:
    for number in range(30):
        api.ask("POST", "/bindings/%2F/e/shop/e/rest", {"routing_key": f"key.{number:02}"})
    shown = guest.text(f"{shop}?size=25")
    assert "1–25 of 31 bindings" in shown and 'rel="next"' in shown
    shown = guest.text("/exchanges/%2F/rest/sources?size=25&sort=routing_key")
    assert "1–25 of 30 bindings" in shown and f'href="{shop}"' in shown and "key.29" not in shown


def test_the_way_of_a_message_is_shown_with_alternate_exchange_and_dead_letters(guest: Visitor, shop: str) -> None:
    assert "Show the way" in guest.text(f"{shop}/route")
    way = guest.text(f"{shop}/route?routing_key=order.made")
    assert "It would reach 1 queue" in way and "bound by <code>order.*</code>" in way
    assert "dead letters</span>" in way and 'href="/queues/%2F/dead"' in way
    way = guest.text(f"{shop}/route?routing_key=other&headers=%7B%7D")
    assert "its alternate exchange gets the message" in way and 'href="/queues/%2F/leftover"' in way
    way = guest.text("/exchanges/%2F/amq.direct/route?routing_key=nothing")
    assert "It would reach no queue" in way


def test_a_message_that_cannot_be_published_is_told_beside_its_field(api: Api, guest: Visitor, shop: str) -> None:
    reply = guest.get(f"{shop}/route?headers=no")
    assert (reply.status, b"This is not JSON" in reply.body) == (422, True)
    reply = guest.get(f"{shop}/route?user=nobody-here")
    assert (reply.status, b'id="user-error"' in reply.body) == (422, True)
    watcher = user_with(api, "watcher", "monitoring")
    refused = watcher.text(f"{shop}/route?routing_key=order.x&user=watcher")
    assert "The broker would refuse this message" in refused and "has no right to write" in refused
    reply = watcher.get(f"{shop}/route?user=guest")
    assert (reply.status, b"Only administrators" in reply.body) == (422, True)


def test_who_only_watches_gets_no_buttons_and_is_refused(api: Api, shop: str) -> None:
    watcher = user_with(api, "watcher", "monitoring")
    for path in ("/exchanges", shop, f"{shop}/sources"):
        shown = watcher.text(path)
        assert "data-open=\"declare-dialog\"" not in shown and "data-open=\"unbind\"" not in shown
        assert "data-open=\"delete\"" not in shown and "data-open=\"bind-dialog\"" not in shown
    assert watcher.post(f"{shop}/delete").status == 401
    assert watcher.post(f"{shop}/bind", kind="queue", destination="orders").status == 401
    assert api.get("/exchanges/%2F/shop")["name"] == "shop"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_on_every_page(api: Api, guest: Visitor, name: str) -> None:
    path = f"/exchanges/%2F/{quote(name, safe='')}"
    queue = f"/queues/%2F/{quote(name, safe='')}"
    assert api.put(path, {"type": "headers"}) == 201 and api.put(queue, {}) == 201
    assert guest.post(f"{path}/bind", kind="queue", destination=name, routing_key=name,
                      arguments='{"<i>": "<script>"}').status == 204
    for page in (f"/exchanges?name={quote(name)}", path, f"{path}/sources",
                 f"{path}/route?routing_key={quote(name)}&headers=%7B%22%3Ci%3E%22%3A%22%3Cscript%3E%22%7D"):
        shown = guest.text(page)
        assert "<img" not in shown and "<script>" not in shown and "<i>" not in shown and ">49<" not in shown
    assert f'href="{queue}"' in guest.text(path)
    found = api.get(f"{path}/bindings/source")[0]
    assert guest.post("/bindings/%2F/delete", **found).status == 204
    assert guest.post(f"{path}/delete").status == 204
    api.delete(queue)
