"""First steps in a browser: sign in, declare, look, purge, delete, sign out; keys, theme, live parts."""

from __future__ import annotations

from tests.browser.browser import NARROW, Browser
from tests.browser.busy import HOSTILE
from tests.support.api import Api


def test_a_queue_is_declared_looked_at_purged_and_deleted(browser: Browser, busy: Api) -> None:
    browser.open("/queues")
    browser.press("Declare a queue")
    browser.fill("name", "made.by.hand", "#declare")
    browser.fill("max_length", "many", "#declare")
    browser.press("Declare the queue", "#declare")
    browser.wait_for("Enter a whole number", "#declare")
    assert browser.find("#declare [name=name]").get_attribute("value") == "made.by.hand"
    browser.fill("max_length", "1000", "#declare")
    browser.press("Declare the queue", "#declare")
    browser.wait_for("Queue made.by.hand is declared.", "#flash")
    assert browser.text("h1") == "made.by.hand"
    browser.press("Purge")
    browser.press("Purge the queue", "#purge")
    browser.wait_for("is purged", "#flash")
    browser.press("Delete")
    browser.press("Delete the queue", "#delete")
    browser.wait_for("Queue made.by.hand is deleted.", "#flash")
    assert browser.driver.current_url.endswith("/queues")
    assert busy.ask("GET", "/queues/%2F/made.by.hand").status == 404


def test_a_hostile_name_runs_nothing(browser: Browser) -> None:
    browser.open("/queues")
    browser.driver.execute_script("window.alert = () => { document.title = 'run'; }")
    browser.press(HOSTILE, "table")
    browser.wait(lambda: browser.text("h1") == HOSTILE)
    assert browser.driver.title != "run"


def test_charts_are_drawn_and_numbers_stay_live(browser: Browser) -> None:
    browser.open("/")
    browser.wait(lambda: len(browser.all(".plot canvas")) >= 2)
    before = browser.text("#live")
    browser.wait(lambda: browser.text("#live") != before)
    browser.driver.execute_script(
        "const s = document.querySelector('[data-range]'); s.value = '1h';"
        "s.dispatchEvent(new Event('change', {bubbles: true}))")
    browser.wait(lambda: len(browser.all(".plot canvas")) >= 2)


def test_keys_lead_to_pages_and_to_the_search(browser: Browser) -> None:
    browser.find("body").send_keys("g", "q")
    browser.wait(lambda: browser.driver.current_url.endswith("/queues"))
    browser.find("body").send_keys("/")
    assert browser.driver.switch_to.active_element.get_attribute("name") == "name"
    browser.driver.switch_to.active_element.send_keys("mails.n\n")
    browser.wait_for("emails.newsletter", "table")
    assert "name=mails.n" in browser.driver.current_url and "orders" not in browser.text("table")


def test_the_theme_is_switched_and_kept(browser: Browser) -> None:
    browser.open("/queues")
    light = browser.find("body").value_of_css_property("color")
    browser.click("[data-theme-switch]")
    assert browser.find("body").value_of_css_property("color") != light
    browser.open("/")
    assert browser.find("html").get_attribute("data-theme") == "dark"


def test_rabbitmqs_addresses_lead_to_their_pages(browser: Browser) -> None:
    browser.open("/#/queues/%2F/orders.created")
    browser.wait(lambda: browser.text("h1") == "orders.created")


def test_a_narrow_page_has_a_menu_and_no_sideways_scroll(browser: Browser) -> None:
    browser.resize(*NARROW)
    for path in ("/", "/queues", "/queues/%2F/orders.created"):
        browser.open(path)
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= NARROW[0]
    browser.press("Menu", ".top")
    browser.press("Queues", ".side")
    browser.wait(lambda: browser.text("h1") == "Queues")


def test_signing_out_ends_it(browser: Browser) -> None:
    browser.press("Sign out", ".side")
    browser.wait(lambda: browser.driver.current_url.endswith("/login"))
    browser.open("/queues")
    assert "/login?to=%2Fqueues" in browser.driver.current_url
