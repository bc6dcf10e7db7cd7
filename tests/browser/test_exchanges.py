"""Exchanges in a browser: declare one, bind it, ask where a message would go, unbind, delete."""

from __future__ import annotations

from tests.browser.browser import NARROW, Browser
from tests.support.api import Api


def test_an_exchange_is_declared_bound_and_deleted(browser: Browser, busy: Api) -> None:
    browser.open("/exchanges")
    browser.press("Declare an exchange")
    browser.fill("name", "amq.own", "#declare")
    browser.fill("type", "topic", "#declare")
    browser.press("Declare the exchange", "#declare")
    browser.wait_for("Names that begin with amq. are the broker's own", "#declare")
    browser.fill("name", "from-browser", "#declare")
    browser.press("Declare the exchange", "#declare")
    browser.wait_for("Exchange from-browser is declared.", "#flash")
    assert browser.text("h1") == "from-browser" and "There are no bindings." in browser.text("#live")
    browser.press("Add a binding")
    browser.fill("destination", "none", "#bind")
    browser.press("Add the binding", "#bind")
    browser.wait_for("There is no such queue in the vhost.", "#bind")
    browser.fill("destination", "invoices", "#bind")
    browser.fill("routing_key", "paid.*", "#bind")
    browser.press("Add the binding", "#bind")
    browser.wait_for("invoices is bound.", "#flash")
    browser.wait_for("paid.*", "#live")
    browser.press("Where would a message go?")
    browser.fill("routing_key", "paid.today")
    browser.press("Show the way", "main")
    browser.wait_for("It would reach 1 queue", "main")
    assert "invoices" in browser.text(".way") and "paid.*" in browser.text(".way")
    browser.press("Bindings from it", ".tabs")
    browser.click("[data-open=unbind]")
    assert "invoices gets no more messages of from-browser" in browser.text("#unbind")
    browser.press("Delete the binding", "#unbind")
    browser.wait_for("The binding of invoices is deleted.", "#flash")
    browser.wait_for("There are no bindings.", "#live")
    browser.press("Delete", ".head")
    browser.press("Delete the exchange", "#delete")
    browser.wait_for("Exchange from-browser is deleted.", "#flash")
    assert busy.ask("GET", "/exchanges/%2F/from-browser").status == 404


def test_the_pages_of_exchanges_are_no_wider_than_a_phone(browser: Browser) -> None:
    browser.resize(*NARROW)
    for path in ("/exchanges", "/exchanges/%2F/shop", "/exchanges/%2F/shop/route?routing_key=order.created"):
        browser.open(path)
        assert browser.text("h1")
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= NARROW[0]
