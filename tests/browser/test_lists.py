"""Lists in a browser: mark rows, act on them and on all that match, close a connection, change a prefetch."""

from __future__ import annotations

import pika
import pytest

from tests.browser.browser import Browser
from tests.management.page.test_clients import client
from tests.support.api import Api


def mark_all(browser: Browser) -> None:
    """Mark all rows of the page."""
    browser.click("[data-mark-all]")
    browser.find(".bulk")


def test_marked_queues_are_deleted_with_the_number_told_before(browser: Browser, busy: Api) -> None:
    for number in range(3):
        busy.put(f"/queues/%2F/marked-{number}")
    browser.open("/queues?name=marked-")
    assert not browser.all(".bulk")[0].is_displayed()
    browser.click("input[name=row]")
    assert browser.text(".bulk").startswith("1 marked")
    browser.press("Delete", ".bulk")
    assert browser.text("#bulk-delete h2") == "Delete 1 queue?"
    assert browser.text("#bulk-delete [data-names]") == "marked-0"
    browser.press("Keep", "#bulk-delete")
    mark_all(browser)
    browser.press("Pause", ".bulk")
    browser.press("Pause 3 queues", "#bulk-pause")
    browser.wait_for("3 queues are paused.", "#flash")
    browser.wait(lambda: browser.text("table").count("paused") == 3)
    busy.delete("/queues/%2F/marked-1")
    mark_all(browser)
    browser.press("Delete", ".bulk")
    browser.press("Delete 3 queues", "#bulk-delete")
    browser.wait_for("marked-1: It does not exist any more.", "#bulk-delete")
    assert "2 queues are deleted. 1 queue failed:" in browser.text("#bulk-delete")
    browser.press("Close", "#bulk-delete")
    browser.wait_for("No queue matches.", "#live")


def test_all_that_match_are_deleted_once_their_number_is_typed(browser: Browser, busy: Api) -> None:
    for number in range(230):
        busy.put(f"/queues/%2F/bulk-{number:03}")
    browser.open("/queues?name=bulk-&size=25")
    mark_all(browser)
    browser.click("[data-all]")
    browser.press("Delete", ".bulk")
    browser.press("Delete 230 queues", "#bulk-delete")
    assert busy.get("/queues?page=1&name=bulk-")["filtered_count"] == 230
    browser.find("#bulk-delete-typed").send_keys("229")
    browser.press("Delete 230 queues", "#bulk-delete")
    browser.wait_for("Type 230, which is how many there are.", "#bulk-delete")
    browser.find("#bulk-delete-typed").clear()
    browser.find("#bulk-delete-typed").send_keys("230")
    browser.press("Delete 230 queues", "#bulk-delete")
    browser.wait_for("230 queues are deleted.", "#flash")
    assert busy.get("/queues?page=1&name=bulk-")["filtered_count"] == 0


def test_a_mark_stays_with_its_row_while_the_list_is_live(browser: Browser, busy: Api) -> None:
    for name in ("live-b", "live-c"):
        busy.put(f"/queues/%2F/{name}")
    browser.open("/queues?name=live-")
    browser.click("input[name=row]")
    busy.put("/queues/%2F/live-a")
    browser.driver.execute_script(
        "document.activeElement.blur(); window.ticks = 0;"
        "document.addEventListener('amqpd:tick', () => { window.ticks += 1; })")
    browser.wait(lambda: browser.driver.execute_script("return window.ticks") >= 1)
    assert "live-a" not in browser.text("table")
    browser.press("Unmark", ".bulk")
    browser.wait_for("live-a", "table")
    assert not browser.all("input[name=row]:checked")
    for name in ("live-a", "live-b", "live-c"):
        busy.delete(f"/queues/%2F/{name}")


def test_a_connection_is_looked_at_and_closed_with_a_reason(browser: Browser, busy: Api) -> None:
    with client(busy, "to be closed") as channel:
        name = next(one["name"] for one in busy.get("/connections") if one["user_provided_name"] == "to be closed")
        browser.open("/connections?size=500")
        browser.press(name, "table")
        assert browser.text("h1") == name and "to be closed" in browser.text("header")
        browser.press("Close")
        browser.find("#close-reason").send_keys("maintenance at noon")
        browser.press("Close the connection", "#close")
        browser.wait_for(f"Connection {name} is closed.", "#flash")
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="maintenance at noon"):
            channel.connection.process_data_events(5)


def test_the_prefetch_of_a_consumer_is_changed(browser: Browser, busy: Api) -> None:
    browser.open("/consumers?name=ctag&columns=consumer_tag,queue.name,channel_details.name,prefetch_count")
    browser.press(next(one.text for one in browser.all("tbody td:nth-child(4) a")), "table")
    browser.click("[data-open=prefetch]")
    browser.find("#prefetch-value").clear()
    browser.find("#prefetch-value").send_keys("many")
    browser.press("Change the prefetch", "#prefetch")
    browser.wait_for("Enter a whole number from 0 to 65,535", "#prefetch")
    browser.find("#prefetch-value").clear()
    browser.find("#prefetch-value").send_keys("42")
    browser.press("Change the prefetch", "#prefetch")
    browser.wait_for("may leave 42 messages unacked", "#flash")
    browser.wait_for("42", "table")
