"""The message browser: filters, one message in each way, and what is done to messages after they were counted."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from amqpd.management.page import bodies
from amqpd.management.page.bodies import views_of
from amqpd.management.page.messages import QUICK
from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_clients import HOSTILE, client
from tests.support.api import Api

HERE = "/queues/%2F/browsed/messages"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


def publish(api: Api, payload: bytes, key: str = "browsed", exchange: str = "amq.default", **properties: Any) -> None:
    """Publish one message."""
    assert api.ask("POST", f"/exchanges/%2F/{exchange}/publish", {
        "routing_key": key, "payload": base64.b64encode(payload).decode(), "payload_encoding": "base64",
        "properties": properties}).body == {"routed": True}


@pytest.fixture
def browsed(api: Api) -> Iterator[list[int]]:
    """A queue with messages of some kinds; their numbers."""
    api.put("/queues/%2F/browsed")
    publish(api, b'{"order": {"id": 7}}', content_type="application/json", headers={"region": "eu"}, priority=5)
    publish(api, HOSTILE.encode(), headers={HOSTILE: HOSTILE}, timestamp=1_000_000_000)
    publish(api, PNG, message_id="picture")
    publish(api, msgspec.msgpack.encode({"packed": [1, 2]}), content_type="application/msgpack")
    publish(api, b"\xff\xfe binary")
    yield [one["id"] for one in api.get("/queues/%2F/browsed/messages?count=10")["messages"]]
    for queue in ("browsed", "aside", "jobs"):
        api.ask("DELETE", f"/queues/%2F/{queue}")


def ready(api: Api, queue: str = "browsed") -> int:
    """Return how many messages a queue has."""
    return int(api.get(f"/queues/%2F/{queue}/messages?count=1")["ready"])


def test_all_messages_are_listed_and_stay(api: Api, guest: Visitor, browsed: list[int]) -> None:
    shown = guest.text(HERE)
    assert "<b>5 ready messages</b>" in shown and "<img src=x" not in shown
    assert "an image, PNG" in shown and "ff fe 20 62" in shown and '<time datetime="2001-09-09' in shown
    assert all(f'href="{HERE}/{number}"' in shown for number in browsed) and ready(api) == 5


@pytest.mark.parametrize(("query", "number"), [
    ("text=order", 0), ("json=%24.order.id%3D7", 0), ("header=region%3Deu", 0), ("property=priority%3D5", 0),
    ("property=message_id%3Dpicture", 2), ("older_than=100", 1), ("older_than=1.5+h", 1), ("older_than=7d", 1)])
def test_a_filter_leaves_what_matches(guest: Visitor, browsed: list[int], query: str, number: int) -> None:
    shown = guest.text(f"{HERE}?{query}")
    assert "<b>1 message</b> of 5 matches" in shown and "1 shown, 5 looked at" in shown
    assert f'href="{HERE}/{browsed[number]}"' in shown
    assert f'href="{HERE}/act/move?{query}"' in shown and f'href="{HERE}/export?{query}"' in shown


@pytest.mark.parametrize("query", [
    "min_deliveries=1", "redelivered=true", "reason=rejected", "origin=none", "routing_key=none", "younger_than=5",
    "younger_than=15min"])
def test_a_filter_that_nothing_matches_says_so(guest: Visitor, browsed: list[int], query: str) -> None:
    assert "No message matches." in guest.text(f"{HERE}?{query}")


@pytest.mark.parametrize(("query", "field"), [
    ("json=abc", "json"), ("json=%24%5B", "json"), ("header=%3Dx", "header"), ("property=%3Dx", "property"),
    ("older_than=x", "older_than"), ("younger_than=5+years", "younger_than"),
    ("max_deliveries=-1", "max_deliveries"), ("redelivered=perhaps", "redelivered")])
def test_what_is_wrong_with_a_filter_stands_beside_its_field(
    guest: Visitor, browsed: list[int], query: str, field: str,
) -> None:
    reply = guest.get(f"{HERE}?{query}")
    assert (reply.status, f'id="{field}-error"'.encode() in reply.body) == (422, True)


def test_a_long_queue_is_shown_part_by_part(api: Api, guest: Visitor, browsed: list[int]) -> None:
    for number in range(50):
        publish(api, b"%d" % number)
    shown = guest.text(HERE)
    assert "<b>55 ready messages</b>" in shown and "50 shown" in shown and shown.count('name="id"') == 50
    following = shown.split('" rel="next"')[0].rpartition('href="')[2].replace("&amp;", "&")
    shown = guest.text(following)
    assert shown.count('name="id"') == 5 and ">51</a>" in shown and "From the start" in shown


def test_a_search_in_very_many_messages_is_counted_when_asked(api: Api, guest: Visitor) -> None:
    api.put("/queues/%2F/jobs")
    with client(api) as channel:
        for _ in range(QUICK):
            channel.basic_publish("", "jobs", b"x")
        channel.basic_publish("", "jobs", b"needle")
        channel.queue_declare("jobs", passive=True)
    path = "/queues/%2F/jobs/messages"
    shown = guest.text(f"{path}?text=needle")
    assert "is not counted" in shown and f'href="{path}?counted=1&amp;text=needle"' in shown
    assert "No message matches so far" in shown and "Go on looking" in shown
    assert "<b>1 message</b> of 10,001 matches" in guest.text(f"{path}?text=needle&counted=1")
    api.delete("/queues/%2F/jobs")


@pytest.mark.parametrize("deaths", [
    5, [5], [{}], [{"routing-keys": 5, "count": {"a": 1}, "time": "x", "queue": [1], "reason": HOSTILE}],
    [{"routing-keys": "key", "time": 1 << 60, "exchange": {}, "queue": HOSTILE}]])
def test_deaths_that_a_publisher_made_up_break_no_page(
    api: Api, guest: Visitor, browsed: list[int], deaths: Any
) -> None:
    publish(api, b"liar", headers={"x-death": deaths, "x-last-death-reason": deaths})
    number = api.get("/queues/%2F/browsed/messages?text=liar")["messages"][0]["id"]
    for path in (HERE, f"{HERE}/{number}", f"{HERE}?reason=rejected", "/dead-letters/%2F/browsed"):
        assert "<img src=x" not in guest.text(path)


def test_a_message_is_shown_in_the_way_that_suits_its_body(guest: Visitor, browsed: list[int]) -> None:
    document, hostile, picture, packed, binary = (guest.text(f"{HERE}/{number}") for number in browsed)
    assert "<b>order</b>" in document and "<b>id</b>" in document and "region" in document
    assert "<img src=x" not in hostile and "&lt;img" in hostile
    assert f'src="{HERE}/{browsed[2]}/image"' in picture and "89 50 4e 47" in guest.text(f"{HERE}/{browsed[2]}?as=hex")
    assert "<b>packed</b>" in packed and "2 entries" in packed
    assert "ff fe 20 62" in binary
    assert 'aria-label="Body">{&#34;order&#34;' in guest.text(f"{HERE}/{browsed[0]}?as=text")
    assert "7b 22 6f" in guest.text(f"{HERE}/{browsed[0]}?as=hex")


def test_a_message_that_is_not_there_is_told(guest: Visitor, browsed: list[int]) -> None:
    for name in ("999", "none", "1" * 30, "-1"):
        assert guest.get(f"{HERE}/{name}").status == 404
    assert "is not ready any more" in guest.get(f"{HERE}/999").body.decode()
    assert guest.get("/queues/%2F/none/messages").status == 404


def test_a_body_is_downloaded_as_it_is_and_never_shown_by_the_browser(guest: Visitor, browsed: list[int]) -> None:
    reply = guest.get(f"{HERE}/{browsed[1]}/body")
    assert reply.body == HOSTILE.encode()
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"].startswith("attachment;")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_an_image_has_an_address_of_its_own_that_runs_nothing(guest: Visitor, browsed: list[int]) -> None:
    reply = guest.get(f"{HERE}/{browsed[2]}/image")
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "image/png", PNG)
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert guest.get(f"{HERE}/{browsed[1]}/image").status == guest.get(f"{HERE}/999/image").status == 404


def test_a_long_body_is_shown_in_part_and_the_download_has_all(api: Api, guest: Visitor, browsed: list[int]) -> None:
    body = "0\"é🐰\n56789abcdef".encode() * 100_000
    publish(api, body)
    publish(api, b"\xff" * len(body))
    text, binary = [one["id"] for one in api.get("/queues/%2F/browsed/messages?offset=5&truncate=0")["messages"]]
    shown = guest.text(f"{HERE}/{text}")
    assert "The first 64 KiB" in shown and len(shown) < 100_000 and "The first 4 KiB" in guest.text(f"{HERE}/{binary}")
    lines = [json.loads(line) for line in guest.get(f"{HERE}/export?id={text}&id={binary}").body.splitlines()]
    assert lines[0]["payload"].encode() == body and base64.b64decode(lines[1]["payload"]) == b"\xff" * len(body)
    assert guest.get(f"{HERE}/{text}/body").body == body and len(guest.get(f"{HERE}/{binary}/body").body) == len(body)
    reply = guest.get(f"/exchanges/%2F/amq.default/publish?queue=browsed&id={text}")
    assert (reply.status, b"too long for this form" in reply.body) == (400, True)


def test_messages_are_exported_as_lines(api: Api, guest: Visitor, browsed: list[int]) -> None:
    for number in range(250):
        publish(api, b"%d" % number)
    lines = guest.get(f"{HERE}/export").body.splitlines()
    assert len(lines) == 255 and json.loads(lines[0])["payload"] == '{"order": {"id": 7}}'
    found = guest.get(f"{HERE}/export?id={browsed[2]}&id={browsed[0]}").body.splitlines()
    assert [json.loads(line)["id"] for line in found] == [browsed[0], browsed[2]]
    assert len(guest.get(f"{HERE}/export?header=region").body.splitlines()) == 1


def test_marked_messages_are_counted_and_then_moved(api: Api, guest: Visitor, browsed: list[int]) -> None:
    api.put("/queues/%2F/aside")
    shown = guest.text(f"{HERE}/act/move?id={browsed[0]}&id={browsed[2]}&id=5")
    assert "Move 2 messages" in shown and "of 3 marked" in shown and ready(api) == 5
    fields = {"id": [browsed[0], browsed[2]], "limit": 2, "kind": "queue"}
    for target, error in (("", b"Enter a name."), ("none", b'id="target-error"')):
        reply = guest.post(f"{HERE}/act/move", "act", **fields, target=target)
        assert (reply.status, error in reply.body) == (422, True)
    reply = guest.post(f"{HERE}/act/move", **fields, target="aside", text="e")
    assert (reply.status, json.loads(reply.headers["hx-trigger"])["amqpd:done"]["to"]) == (204, f"{HERE}?text=e")
    assert (ready(api), ready(api, "aside")) == (3, 2)


def test_messages_are_moved_to_an_exchange_with_a_routing_key(api: Api, guest: Visitor, browsed: list[int]) -> None:
    api.put("/queues/%2F/aside")
    api.ask("POST", "/bindings/%2F/e/amq.topic/q/aside", {"routing_key": "moved.#"})
    reply = guest.post(
        f"{HERE}/act/move", header="region", limit="5", kind="exchange", target="amq.topic", key="moved.here")
    assert "1 of 1 are moved." in reply.headers["hx-trigger"] and ready(api, "aside") == 1


def test_only_as_many_are_deleted_as_were_counted(api: Api, guest: Visitor, browsed: list[int]) -> None:
    shown = guest.text(f"{HERE}/act/delete?all=1")
    assert "Delete 5 messages" in shown and "all that are ready" in shown and 'name="all" value="1"' in shown
    assert guest.post(f"{HERE}/act/delete", all="1").status == guest.post(f"{HERE}/act/delete", limit="5").status == 400
    assert guest.get(f"{HERE}/act/delete").status == 400
    assert "2 of 2 are deleted." in guest.post(f"{HERE}/act/delete", limit="2", all="1").headers["hx-trigger"]
    assert ready(api) == 3
    assert "Nothing is left to do" in guest.text(f"{HERE}/act/delete?text=nowhere")


def test_dead_letters_are_retried_without_their_headers_if_wanted(api: Api, guest: Visitor, browsed: list[int]) -> None:
    api.put("/queues/%2F/jobs", {"arguments": {
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "browsed", "x-max-length": 0}})
    publish(api, b"died", "jobs")
    died = api.get("/queues/%2F/browsed/messages?reason=maxlen")["messages"][0]["id"]
    shown = guest.text(f"{HERE}/{died}")
    assert "Where it died" in shown and "the queue was full" in shown and f'href="{HERE}/act/retry?id={died}"' in shown
    api.delete("/queues/%2F/jobs")
    api.put("/queues/%2F/jobs")
    assert "Retry 1 message" in guest.text(f"{HERE}/act/retry?id={died}")
    assert guest.post(f"{HERE}/act/retry", id=str(died), limit="1", forget_deaths="on").status == 204
    assert api.get("/queues/%2F/jobs/messages")["messages"][0]["properties"].get("headers", {}) == {}


@pytest.mark.parametrize("path", ["act/none", "act/none?id=1"])
def test_there_is_no_other_act(guest: Visitor, browsed: list[int], path: str) -> None:
    assert guest.get(f"{HERE}/{path}").status == 404
    assert guest.post(f"{HERE}/act/none", limit="1").status == 404


def test_numbers_that_no_browser_sends_are_refused(guest: Visitor, browsed: list[int]) -> None:
    for query in ("id=x", "id=" + "1" * 30, "&".join(["id=1"] * 1_001), "older_than=x"):
        assert guest.get(f"{HERE}/act/delete?{query}").status == 400


def test_who_may_not_read_a_queue_sees_no_message_of_it(api: Api, browsed: list[int]) -> None:
    visitor = user_with(api, "blind", "management")
    api.put("/permissions/%2F/blind", {"configure": ".*", "write": ".*", "read": "^$"})
    for path in ("", f"/{browsed[0]}", f"/{browsed[0]}/body", "/export", "/act/delete?all=1"):
        assert visitor.get(HERE + path).status in (401, 403), path
    assert visitor.post(f"{HERE}/act/delete", limit="5", all="1").status in (401, 403) and ready(api) == 5


# Bodies

def record(body: bytes, content_type: str = "") -> dict[str, Any]:
    """Return a message as the API tells it to a page."""
    shown = body[:bodies.SHOWN]
    try:
        payload, encoding = shown.decode(), "string"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(shown).decode(), "base64"
    return {"payload": payload, "payload_encoding": encoding, "payload_bytes": len(body), "properties": {
        "content_type": content_type}}


def test_bodies_are_bounded_in_every_way() -> None:
    wide = views_of(record(json.dumps({"many": list(range(5_000)), "text": "x" * 10_000}).encode()))
    assert wide.tree is not None and wide.tree.branches[0].is_cut and wide.tree.branches[0].size == 5_000
    deep = views_of(record(b"[" * 100 + b"]" * 100))
    assert deep.tree is not None
    one, depth = deep.tree, 0
    while one.branches:
        one, depth = one.branches[0], depth + 1
    assert depth == bodies.MOST_DEPTH and one.is_cut
    long = views_of(record(b"x" * (2 << 20)))
    assert long.text is not None and len(long.text) == bodies.SHOWN and long.is_text_cut and long.is_hex_cut
    assert views_of(record(b"[" + b"1," * bodies.SHOWN + b"1]")).tree is None


@pytest.mark.parametrize("body", [
    b"", b"1", b'"text"', b"[" * 60_000, b"{", b"\xc1", b"\xdf" + struct.pack(">I", 1 << 31), b"\x91" * 5_000,
    b"\xdd\xff\xff\xff\xff", b"[1" + b"0" * 5_000 + b"]", b"RIFF\0\0\0\0WEBP", b"\x81\xc0\x01",
    b"\xd6\xff\0\0\0\0", msgspec.msgpack.encode([msgspec.msgpack.Ext(5, b"ab"), 1e999])])
def test_no_body_breaks_the_page(body: bytes) -> None:
    for kind in ("", "application/msgpack"):
        assert "hex" in views_of(record(body, kind)).names


@pytest.mark.parametrize(("start", "kind"), [
    (PNG, "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF89a", "gif"), (b"RIFF\0\0\0\0WEBP", "webp"), (b"<svg", "")])
def test_only_pictures_without_scripts_are_shown(start: bytes, kind: str) -> None:
    assert bodies.image_type(start) == (f"image/{kind}" if kind else "")
    assert views_of(record(start)).image is bool(kind)


def test_who_only_watches_looks_and_acts_on_nothing(api: Api, browsed: list[int]) -> None:
    watcher = user_with(api, "watcher", "monitoring")
    assert len(watcher.get(f"{HERE}/export").body.splitlines()) == 5 and "Delete …" not in watcher.text(HERE)
    assert "Delete …" not in watcher.text(f"{HERE}/{browsed[0]}")
    for act in ("move", "retry", "delete"):
        assert watcher.get(f"{HERE}/act/{act}?all=1").status == 401
        assert watcher.post(f"{HERE}/act/{act}", all="1", limit="5", kind="queue", target="x").status == 401
    assert ready(api) == 5
