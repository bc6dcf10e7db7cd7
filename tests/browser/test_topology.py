"""The topology in a browser: click through, look around a node, search, light the way of a message."""

from __future__ import annotations

from tests.browser.browser import NARROW, Browser


def test_the_picture_leads_to_neighbours_and_to_pages(browser: Browser) -> None:
    browser.open("/topology?vhost=%2F")
    browser.find("svg.topology")
    browser.click('[aria-label="What is around payments.retry"]')
    browser.wait_for("Around payments.retry, up to 2 arrows away.", "main")
    browser.fill("depth", "1")
    browser.wait_for("up to 1 arrow away.", "main")
    labels = {one.get_attribute("aria-label") for one in browser.all("svg .box")}
    assert labels == {"queue payments.retry", "queue payments.failed", "exchange shop"}
    browser.press("Show all", "form.bar")
    browser.fill("name", "no.route")
    browser.press("Find", "form.bar")
    browser.wait(lambda: len(browser.all("svg .box")) == 2)
    browser.click('[aria-label="queue no.route"]')
    browser.wait_for("no.route", "h1")


def test_the_way_of_a_message_is_lit(browser: Browser) -> None:
    browser.open("/topology?vhost=%2F")
    browser.press("Where would a message go?", "form.bar")
    browser.fill("exchange", "broadcast", "form.bar")
    browser.fill("routing_key", "order.created", "form.bar")
    browser.press("Light the way", "form.bar")
    browser.wait_for("The message would reach", "main")
    lit = {one.get_attribute("aria-label") for one in browser.all("svg .box.lit")}
    assert {"exchange broadcast", "exchange shop", "queue orders.created", "exchange shop.dead"} <= lit
    assert "queue invoices" not in lit and browser.all("svg .line.lit")
    browser.press("Each step in words")
    browser.wait_for("It would reach", "main")


def test_a_wide_picture_scrolls_inside_a_narrow_page(browser: Browser) -> None:
    browser.resize(*NARROW)
    browser.open("/topology?vhost=%2F")
    browser.find("svg.topology")
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= NARROW[0]
