"""Forms: errors beside their fields, and what they do."""

from __future__ import annotations

import re

import pytest

from amqpd.management.page.forms import Form
from tests.management.page.conftest import Visitor
from tests.support.api import Api


def errors(reply: bytes) -> dict[str, str]:
    """Return the errors of a form by the names of their fields."""
    return dict(re.findall(r'<span class="error" id="([\w-]+)-error" role="alert">([^<]*)</span>', reply.decode()))


GOOD = {"vhost": "/", "name": "made", "type": "quorum", "durable": "on", "max_length": "10", "message_ttl": "",
        "dead_letter_exchange": "dead", "arguments": '{"x-expires": 60000}'}


def test_a_queue_is_declared_with_a_form(api: Api, guest: Visitor) -> None:
    assert guest.post("/queues", "declare", **GOOD).status == 204
    queue = api.get("/queues/%2F/made")
    assert queue["durable"] and queue["arguments"] == {
        "x-queue-type": "quorum", "x-max-length": 10, "x-dead-letter-exchange": "dead", "x-expires": 60000}


def test_what_a_form_says_in_words_becomes_arguments(api: Api, guest: Visitor) -> None:
    assert guest.post("/queues", "declare", vhost="/", name="worded", type="classic", overflow="reject-publish",
                      single_active_consumer="on", dead_letter_exchange="dead", dead_letter_routing_key="key",
                      max_priority="5", expires="60000").status == 204
    assert api.get("/queues/%2F/worded")["arguments"] == {
        "x-overflow": "reject-publish", "x-single-active-consumer": True, "x-dead-letter-exchange": "dead",
        "x-dead-letter-routing-key": "key", "x-max-priority": 5, "x-expires": 60000}
    api.delete("/queues/%2F/worded")


@pytest.mark.parametrize(("field", "value", "error"), [
    ("name", "", "Enter a name."), ("vhost", "nowhere", "Choose one of /."),
    ("type", "stream", "Choose one of classic"),
    ("max_length", "-1", "Enter a whole number"), ("max_length", "many", "Enter a whole number"),
    ("message_ttl", "1" * 30, "Enter a whole number"), ("expires", "x", "Enter a whole number"),
    ("max_priority", "-5", "Enter a whole number"), ("overflow", "spill", "Choose one of reject-publish"),
    ("arguments", "{", "This is not JSON"),
    ("arguments", "[1]", "Enter a JSON object")])
def test_wrong_input_is_told_beside_its_field_and_kept(
    guest: Visitor, field: str, value: str, error: str
) -> None:
    reply = guest.post("/queues", "declare", **{**GOOD, field: value})
    found = errors(reply.body)
    assert reply.status == 422 and list(found) == [field] and found[field].startswith(error)
    assert b"<html" not in reply.body and b'value="dead"' in reply.body
    assert f'id="f-{field}"' in reply.body.decode() and b'aria-invalid="true"' in reply.body


def test_what_the_broker_refuses_is_told_above_the_form(guest: Visitor) -> None:
    reply = guest.post("/queues", "declare", **{**GOOD, "arguments": '{"x-expires": 0}'})
    assert reply.status == 422 and b"PRECONDITION_FAILED" in reply.body or b"x-expires" in reply.body


def test_purge_and_delete(api: Api, guest: Visitor) -> None:
    api.put("/queues/%2F/full")
    body = {"properties": {}, "routing_key": "full", "payload": "x", "payload_encoding": "string"}
    api.ask("POST", "/exchanges/%2F/amq.default/publish", body)
    assert "drops the 1 ready message of" in guest.text("/queues/%2F/full")
    assert guest.post("/queues/%2F/full/purge").status == 204
    assert api.get("/queues/%2F/full")["messages"] == 0
    assert guest.post("/queues/%2F/full/delete").status == 204
    gone = guest.post("/queues/%2F/full/delete", part="delete-errors")
    assert (gone.status, gone.body) == (404, b"Not Found.")


@pytest.mark.parametrize("body", [b"\xff\xfe=%ff&&&=", b"a=" + b"b" * 100_000, b"=&=", b"name"])
def test_no_body_breaks_a_form(guest: Visitor, body: bytes) -> None:
    reply = guest.api.ask("POST", "/queues", body, user=None, prefix="", headers={
        "Content-Type": "application/x-www-form-urlencoded", "Cookie": guest.cookie, "HX-Request": "true",
        "HX-Target": "form#declare"})
    assert reply.status == 422


def test_a_form_has_so_many_fields_at_most(guest: Visitor) -> None:
    assert guest.api.ask("POST", "/queues", b"a=1&" * 3_000, user=None, prefix="", headers={
        "Content-Type": "application/x-www-form-urlencoded", "Cookie": guest.cookie}).status == 400


def test_a_form_without_a_request_is_empty() -> None:
    form = Form()
    assert form.is_valid and not form.values and form.whole("a") is None and form.json_object("b") == {}
