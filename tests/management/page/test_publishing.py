"""The forms that publish a message and get messages, and the page of a queue that they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from amqpd.management.page.publishing import reached
from amqpd.management.page.queues import effective
from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_clients import HOSTILE, client
from tests.support.api import Api

QUEUE = "/queues/%2F/typed"


@pytest.fixture
def typed(api: Api) -> Iterator[str]:
    """A queue that is bound to amq.topic."""
    api.put(QUEUE, {"durable": True, "arguments": {"x-max-length": 3, "x-message-ttl": 90_000}})
    api.ask("POST", "/bindings/%2F/e/amq.topic/q/typed", {"routing_key": "typed.#"})
    yield "typed"
    api.delete(QUEUE)


def messages(api: Api) -> list[dict[str, object]]:
    """Return the messages of the queue."""
    found: list[dict[str, object]] = api.get(f"{QUEUE}/messages?count=10")["messages"]
    return found


def test_a_message_is_published_with_all_that_was_typed_and_the_answer_names_the_queue(
    api: Api, guest: Visitor, typed: str,
) -> None:
    assert "Publish the message" in guest.text("/exchanges/%2F/amq.topic/publish")
    reply = guest.post(
        "/exchanges/%2F/amq.topic/publish", "publish", routing_key="typed.here", payload="one\r\ntwo",
        payload_encoding="string", content_type="text/plain", persistent="on", headers='{"region": "eu"}',
        properties='{"correlation_id": "7"}')
    assert reply.status == 200 and f'It went to <a href="{QUEUE}">typed</a>.' in reply.body.decode()
    message = messages(api)[0]
    assert (message["payload"], message["persistent"], message["routing_key"]) == ("one\ntwo", True, "typed.here")
    assert message["properties"] == {
        "content_type": "text/plain", "correlation_id": "7", "delivery_mode": 2, "headers": {"region": "eu"}}


def test_a_message_that_reaches_no_queue_says_so(guest: Visitor, typed: str) -> None:
    reply = guest.post("/exchanges/%2F/amq.topic/publish", "publish", routing_key="none", payload="x",
                       payload_encoding="string")
    assert reply.status == 200 and "no queue took it" in reply.body.decode()


def test_a_message_is_published_to_a_queue_as_base64(api: Api, guest: Visitor, typed: str) -> None:
    assert "by the default exchange" in guest.text(f"{QUEUE}/publish")
    reply = guest.post(f"{QUEUE}/publish", "publish", payload="/w\r\n==", payload_encoding="base64")
    assert reply.status == 200 and "It went to" in reply.body.decode()
    assert (messages(api)[0]["payload"], messages(api)[0]["persistent"]) == ("/w==", False)
    assert guest.get("/queues/%2F/none/publish").status == 404


@pytest.mark.parametrize(("field", "value"), [
    ("headers", "{"), ("headers", "[]"), ("properties", "7"), ("properties", '{"priority": "high"}'),
    ("payload_encoding", "rot13")])
def test_what_is_wrong_with_a_message_stands_beside_its_field(
    api: Api, guest: Visitor, typed: str, field: str, value: str,
) -> None:
    reply = guest.post(f"{QUEUE}/publish", "publish", **{"payload": "x", "payload_encoding": "string", field: value})
    assert (reply.status, f'id="{field}-error"' in reply.body.decode()) == (422, True), reply.body.decode()
    assert messages(api) == []


def test_a_body_that_is_not_base64_is_told_beside_the_body(guest: Visitor, typed: str) -> None:
    reply = guest.post(f"{QUEUE}/publish", "publish", payload="###", payload_encoding="base64")
    assert (reply.status, b'id="payload-error"' in reply.body) == (422, True)


def test_a_message_is_published_again_with_changes(api: Api, guest: Visitor, typed: str) -> None:
    guest.post(f"{QUEUE}/publish", payload=HOSTILE, payload_encoding="string", headers='{"a": 1}', persistent="on",
               properties='{"message_id": "m"}')
    shown = guest.text(f"/exchanges/%2F/amq.default/publish?queue=typed&id={messages(api)[0]['id']}")
    assert "&lt;img" in shown and "<img src=x" not in shown and "&#34;message_id&#34;: &#34;m&#34;" in shown
    assert "&#34;a&#34;: 1" in shown and 'value="typed"' in shown
    assert guest.get("/exchanges/%2F/amq.default/publish?queue=typed&id=5").status == 404


def test_messages_are_got_and_put_back_or_taken_away(api: Api, guest: Visitor, typed: str) -> None:
    guest.post(f"{QUEUE}/publish", payload='{"a": 1}', payload_encoding="string")
    assert "1 message is ready." in guest.text(f"{QUEUE}/get")
    reply = guest.post(f"{QUEUE}/get", "get", count="5", mode="ack_requeue_true")
    assert reply.status == 200 and "<b>a</b>" in reply.body.decode() and messages(api)[0]["redelivered"]
    guest.post(f"{QUEUE}/get", "get", count="5", mode="ack_requeue_false")
    assert messages(api) == []
    assert "0 messages: the queue has none" in guest.post(
        f"{QUEUE}/get", "get", count="1", mode="ack_requeue_true").body.decode()


@pytest.mark.parametrize(("count", "mode", "field"), [
    ("", "ack_requeue_true", "count"), ("0", "ack_requeue_true", "count"), ("101", "ack_requeue_true", "count"),
    ("1", "none", "mode")])
def test_a_get_that_makes_no_sense_is_told(guest: Visitor, typed: str, count: str, mode: str, field: str) -> None:
    reply = guest.post(f"{QUEUE}/get", "get", count=count, mode=mode)
    assert (reply.status, f'id="{field}-error"' in reply.body.decode()) == (422, True)


def test_a_dead_letter_queue_behind_a_queue_is_not_one_that_a_message_reached() -> None:
    steps = [{"kind": "exchange", "depth": 0, "name": "in"}, {"kind": "queue", "depth": 1, "name": "a"},
             {"kind": "dead_letters", "depth": 2}, {"kind": "exchange", "depth": 3, "name": ""},
             {"kind": "queue", "depth": 4, "name": "dead"}, {"kind": "queue", "depth": 1, "name": "b"}]
    assert reached(steps) == ["a", "b"]


# The page of a queue

def test_of_arguments_and_policies_the_lower_number_holds_and_otherwise_the_argument() -> None:
    assert effective({"x-max-length": 5, "x-overflow": "drop-head", "x-expires": 7}, {
        "max-length": 9, "overflow": "reject-publish", "expires": 3, "message-ttl": 1}) == {
        "max-length": 5, "overflow": "drop-head", "expires": 3, "message-ttl": 1}


def test_a_queue_tells_its_rules_in_words(api: Api, guest: Visitor, typed: str) -> None:
    shown = guest.text(QUEUE)
    assert "It keeps at most 3 ready messages." in shown and "Messages expire 1 min 30 s after they came." in shown
    assert "there is no dead-letter exchange" in shown
    assert "rejected or expire, or for which there is no room, are" in shown
    api.put("/policies/%2F/dies", {"pattern": "^typed$", "definition": {
        "dead-letter-exchange": "", "dead-letter-routing-key": "the.dead", "overflow": "reject-publish"}})
    shown = guest.text(QUEUE)
    assert 'go to queue <a href="/queues/%2F/the.dead">the.dead</a>' in shown and "publishes are refused" in shown
    assert "Messages that are rejected or expire go to queue" in shown and "no room" not in shown
    api.put("/policies/%2F/dies", {"pattern": "^typed$", "definition": {"dead-letter-exchange": "amq.fanout"}})
    assert 'go to exchange <a href="/exchanges/%2F/amq.fanout">amq.fanout</a>, with their own routing key' in (
        guest.text(QUEUE))
    api.delete("/policies/%2F/dies")


def test_a_queue_that_stands_still_says_why_and_who_holds_its_messages(api: Api, guest: Visitor, typed: str) -> None:
    assert "Why is nothing moving?" not in guest.text(QUEUE)
    with client(api) as channel:
        for _ in range(2):
            channel.basic_publish("", "typed", b"x")
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("typed", lambda *_: None, consumer_tag="worker")
        channel.queue_declare("typed", passive=True)
        shown = guest.text(QUEUE)
        assert "Why is nothing moving?" in shown and "has used its prefetch (1)" in shown
        assert "Unacked messages, the oldest first" in shown and shown.count(">worker<") == 2
        assert 'data-open="prefetch"' in shown and 'data-open="cancel"' in shown


def test_the_bindings_of_a_queue_are_shown_added_and_deleted(api: Api, guest: Visitor, typed: str) -> None:
    assert "typed.#" in guest.text(f"{QUEUE}/bindings") and 'data-open="unbind"' in guest.text(f"{QUEUE}/bindings")
    for fields, field in (({}, "exchange"), ({"exchange": "none"}, "exchange"),
                          ({"exchange": "amq.topic", "arguments": "{"}, "arguments")):
        reply = guest.post(f"{QUEUE}/bind", "bind", **fields)
        assert (reply.status, f'id="{field}-error"' in reply.body.decode()) == (422, True)
    assert guest.post(f"{QUEUE}/bind", exchange="amq.direct", routing_key="other").status == 204
    assert "other" in guest.text(f"{QUEUE}/bindings") and len(api.get(f"{QUEUE}/bindings")) == 3


def test_a_queue_is_paused_and_resumed(api: Api, guest: Visitor, typed: str) -> None:
    assert guest.post(f"{QUEUE}/paused", paused="on").status == 204
    assert api.get(QUEUE)["is_paused"] and "an operator has paused it" in guest.text(QUEUE).replace("An ", "an ")
    assert guest.post(f"{QUEUE}/paused").status == 204 and not api.get(QUEUE)["is_paused"]


def test_who_only_watches_can_change_nothing(api: Api, guest: Visitor, typed: str) -> None:
    guest.post(f"{QUEUE}/publish", payload="x", payload_encoding="string")
    watcher = user_with(api, "looker", "monitoring")
    shown = watcher.text(QUEUE)
    for path in (f"{QUEUE}/publish", f"{QUEUE}/get", "/exchanges/%2F/amq.topic/publish"):
        assert watcher.get(path).status == 401
        assert f'href="{path}"' not in watcher.text(path.rpartition("/")[0])
        assert f'href="{path}"' in guest.text(path.rpartition("/")[0])
    for button in ("Purge", "Pause</button>", 'data-open="delete"', "Unbind"):
        assert button not in shown
    assert "All messages" not in watcher.text(f"{QUEUE}/messages")
    reply = watcher.post(f"{QUEUE}/publish", "publish", payload="y", payload_encoding="string")
    assert reply.status == 401 and len(messages(api)) == 1
    for act, fields in (("paused", {"paused": "on"}), ("purge", {}), ("delete", {}), (
            "get", {"count": "1", "mode": "ack_requeue_false"})):
        assert watcher.post(f"{QUEUE}/{act}", **fields).status == 401
    assert json.dumps(messages(api)[0]["payload"]) == '"x"'
