"""Dead letters in a browser: find the queue, look at a group, move it after a preview."""

from __future__ import annotations

from tests.browser.browser import NARROW, Browser
from tests.support.api import Api


def test_a_group_of_dead_letters_is_moved_after_it_was_counted(browser: Browser, busy: Api) -> None:
    browser.open("/dead-letters?vhost=%2F")
    browser.press("dead.letters", "table")
    browser.wait_for("ready messages were looked at", "main")
    before = busy.get("/queues/%2F/dead.letters/messages?count=1&reason=rejected&origin=orders.created")["ready"]
    busy.put("/queues/%2F/moved-by-browser")
    browser.press("Move …", "table")
    browser.wait_for("died first in orders.created", "main")
    browser.fill("target", "none", "#act")
    browser.click("#act [type=submit]")
    browser.wait(lambda: browser.all("#target-error"))
    browser.fill("target", "moved-by-browser", "#act")
    browser.click("#act [type=submit]")
    browser.wait_for("are moved.", "#flash")
    assert 0 < busy.get("/queues/%2F/moved-by-browser/messages?count=1")["ready"] <= before
    busy.delete("/queues/%2F/moved-by-browser")


def test_the_pages_of_dead_letters_are_no_wider_than_a_phone(browser: Browser) -> None:
    browser.resize(*NARROW)
    for path in ("/dead-letters", "/dead-letters/%2F/dead.letters"):
        browser.open(path)
        assert browser.text("h1")
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= NARROW[0]
