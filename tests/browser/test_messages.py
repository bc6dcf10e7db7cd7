"""Messages in a browser: each way to search for them, what is done to them, and publish and get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from tests.browser.browser import NARROW, WIDE, Browser
from tests.browser.test_every_page import AXE, NAMES, SERIOUS, axe
from tests.support.api import Api

QUEUE = "/queues/%2F/looked.at"
PATH = QUEUE + "/messages"
IN_SIGHT = ("text", "json", "header")
CONDITIONS = (
    ("text", "green", 2), ("routing_key", "looked.at", 6), ("header", "colour=green", 1), ("property", "type=note", 1),
    ("json", "$.tea.kind=green", 1), ("older_than", "1 d", 1), ("younger_than", "1 d", 1), ("min_deliveries", "1", 0),
    ("max_deliveries", "0", 6), ("reason", "rejected", 1), ("origin", "looked.from", 1), ("redelivered", "false", 6))


@pytest.fixture
def looked_at(busy: Api) -> Iterator[Api]:
    """The API of a broker with a queue of six messages, one of them a dead letter."""
    busy.put("/queues/%2F/looked.at")
    busy.put("/queues/%2F/looked.to")
    busy.put("/queues/%2F/looked.from", {"arguments": {
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "looked.at"}})
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", busy.amqp_port)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        def send(body: bytes, queue: str = "looked.at", **properties: Any) -> None:
            channel.basic_publish("", queue, body, pika.BasicProperties(**properties))

        send(b'{"tea": {"kind": "green"}, "cups": [1, 2, 3]}')
        send(b"green paper", headers={"colour": "green"})
        send(NAMES[1].encode(), headers={NAMES[0]: NAMES[5]}, type="note")
        send(b"\x00\xff", timestamp=1_600_000_000)
        send(b"new", timestamp=4_000_000_000)
        send(b"dead", "looked.from")
        channel.basic_reject(channel.basic_get("looked.from")[0].delivery_tag, requeue=False)
        channel.queue_declare("looked.at", passive=True)
    yield busy
    for queue in ("looked.at", "looked.to", "looked.from"):
        busy.delete(f"/queues/%2F/{queue}")


def ready(api: Api, queue: str) -> int:
    """Return how many messages a queue has."""
    return int(api.get(f"/queues/%2F/{queue}/messages?count=1")["ready"])


def width(browser: Browser) -> int:
    """Return how wide the page is."""
    return int(browser.driver.execute_script("return document.documentElement.scrollWidth"))


def test_messages_are_found_by_each_condition(browser: Browser, looked_at: Api) -> None:
    for name, value, count in CONDITIONS:
        browser.open(PATH)
        if name not in IN_SIGHT:
            browser.click("details.more summary")
        browser.fill(name, value)
        browser.press("Search", "form[role=search]")
        browser.wait_for(f"{count} message", ".told")
        assert browser.driver.current_url.partition("?")[2].startswith(f"{name}=")
        assert len(browser.all("tbody input[name=id]")) == count, name
    assert ready(looked_at, "looked.at") == 6


def test_a_wrong_condition_is_told_beside_its_field(browser: Browser, looked_at: Api) -> None:
    browser.open(PATH)
    browser.click("details.more summary")
    browser.fill("older_than", "soon")
    browser.press("Search", "form[role=search]")
    browser.wait_for("Enter a time such as", "details.more")
    assert browser.find("#older_than-error").is_displayed()


def test_messages_are_moved_retried_and_deleted(browser: Browser, looked_at: Api) -> None:
    browser.open(PATH)
    for box in browser.all("tbody input[name=id]")[:2]:
        box.click()
    browser.wait_for("2 marked", ".bulk")
    browser.press("Move …", ".bulk")
    browser.fill("target", "none", "#act")
    browser.press("Move 2 messages", "#act")
    browser.wait(lambda: browser.all("#target-error"))
    browser.fill("target", "looked.to", "#act")
    browser.press("Move 2 messages", "#act")
    browser.wait_for("2 of 2 are moved.", "#flash")
    assert (ready(looked_at, "looked.at"), ready(looked_at, "looked.to")) == (4, 2)
    browser.open(PATH + "?reason=rejected")
    browser.press("All that match")
    browser.press("Retry …", ".sheet")
    browser.press("Retry 1 message", "#act")
    browser.wait_for("1 of 1 are retried.", "#flash")
    assert ready(looked_at, "looked.from") == 1 and browser.driver.current_url.endswith("?reason=rejected")
    browser.open(PATH)
    browser.press("All messages")
    browser.press("Delete …", ".sheet")
    browser.press("Delete 3 messages", "#act")
    browser.wait_for("3 of 3 are deleted.", "#flash")
    browser.wait_for("There are no ready messages.", "main")
    assert ready(looked_at, "looked.at") == 0


def test_messages_are_exported(browser: Browser, looked_at: Api) -> None:
    browser.open(PATH + "?text=green")
    lines = browser.driver.execute_async_script(
        "const done = arguments[0]; fetch(document.querySelector('a[href*=\"/export\"]').href).then((answer) => "
        "answer.text()).then(done)").splitlines()
    assert [json.loads(line)["payload"] for line in lines][1] == "green paper" and len(lines) == 2


def test_a_message_is_read_in_every_way_and_runs_nothing(browser: Browser, looked_at: Api) -> None:
    for place, text in enumerate(("cups", "green paper", NAMES[1], "00 ff", "new", "a consumer rejected it")):
        for size in (WIDE, NARROW):
            browser.resize(*size)
            browser.open(PATH)
            assert width(browser) <= size[0]
            browser.all("tbody th a")[place].click()
            browser.wait_for(text, "main")
            assert width(browser) <= size[0]
        assert not browser.all("main img[src=x], main svg[onload], main script")
        for tab in [one.text for one in browser.all("section .tabs a")]:
            browser.press(tab, "section .tabs")
            browser.wait_for(tab, "section .tabs [aria-current]")


def test_a_message_is_published_again_with_changes(browser: Browser, looked_at: Api) -> None:
    browser.open(PATH + "?header=colour")
    browser.click("tbody th a")
    browser.press("Publish again …")
    browser.fill("routing_key", "looked.to", "#publish")
    browser.fill("payload", "blue paper", "#publish")
    browser.press("Publish the message", "#publish")
    browser.wait_for("Published. It went to looked.to.", "#publish")
    sent = looked_at.get("/queues/%2F/looked.to/messages")["messages"]
    assert [(one["payload"], one["properties"]["headers"]) for one in sent] == [("blue paper", {"colour": "green"})]


def test_a_message_is_published_and_got(browser: Browser, looked_at: Api) -> None:
    browser.open("/queues/%2F/looked.to")
    browser.press("Publish", ".tabs")
    browser.fill("payload", NAMES[1], "#publish")
    browser.fill("headers", "{", "#publish")
    browser.press("Publish the message", "#publish")
    browser.wait_for("This is not JSON", "#publish")
    browser.fill("headers", '{"a": 1}', "#publish")
    browser.press("Publish the message", "#publish")
    browser.wait_for("Published. It went to looked.to.", "#publish")
    browser.press("Get", ".tabs")
    for mode, left in (("ack_requeue_true", 1), ("ack_requeue_false", 0)):
        browser.fill("count", "5", "#get")
        browser.fill("mode", mode, "#get")
        browser.press("Get messages", "#get")
        browser.wait_for("1 message", "#get h2")
        browser.wait(lambda left=left: ready(looked_at, "looked.to") == left)
        assert NAMES[1] in browser.text("#get") and not browser.all("main img[src=x]")


def test_the_pages_of_messages_have_no_serious_issue(browser: Browser, looked_at: Api) -> None:
    script, wrong, first = axe(), [], looked_at.get("/queues/%2F/looked.at/messages")["messages"][0]["id"]
    browser.driver.set_script_timeout(60)
    for theme in ("light", "dark"):
        browser.theme(theme)
        for path in (PATH, PATH + "?older_than=soon", f"{PATH}/act/move?all=1", f"{PATH}/{first}",
                     f"{PATH}/{first}?as=hex", QUEUE, QUEUE + "/publish", QUEUE + "/get",
                     "/exchanges/%2F/shop/publish"):
            browser.open(path)
            browser.driver.execute_script(script)
            wrong += [(theme, path, *one[1:]) for one in browser.driver.execute_async_script(AXE) if one[0] in SERIOUS]
            assert width(browser) <= WIDE[0]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_pages_of_a_queue_are_no_wider_than_a_phone(browser: Browser, looked_at: Api) -> None:
    browser.resize(*NARROW)
    for path in (QUEUE, "/queues/%2F/orders.created", QUEUE + "/publish", QUEUE + "/get", f"{PATH}/act/move?all=1"):
        browser.open(path)
        assert browser.text("h1") and width(browser) <= NARROW[0], path
