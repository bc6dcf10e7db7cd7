"""The administration in a browser: users and rights, vhosts, policies with a preview, wrong input in each form."""

from __future__ import annotations

import json
from pathlib import Path

from tests.browser.browser import NARROW, Browser
from tests.browser.busy import HOSTILE
from tests.support.api import Api


def test_a_user_is_added_and_given_rights_with_a_preview(browser: Browser, busy: Api) -> None:
    browser.open("/users")
    browser.press("Add a user")
    for name, value in (("name", "eve"), ("password", "s3cret"), ("again", "s3crets")):
        browser.fill(name, value, "#add")
    browser.press("Add the user", "#add")
    browser.wait_for("This is not the same password.", "#add")
    assert browser.find("#add [name=password]").get_attribute("value") == ""
    for name in ("password", "again"):
        browser.fill(name, "s3cret", "#add")
    browser.click("#add [value=monitoring]")
    browser.press("Add the user", "#add")
    browser.wait_for("User eve is added.", "#flash")
    assert browser.text("h1") == "eve"
    browser.press("Set permissions")
    browser.fill("write", "^orders", "#permission")
    browser.wait_for("names that begin with “orders”: 3 queues", "#preview")
    browser.fill("read", "(", "#permission")
    browser.wait_for("The pattern cannot be used", "#preview")
    browser.press("Set the permissions", "#permission")
    browser.wait_for("The pattern cannot be used", "#permission .error")
    browser.fill("read", ".*", "#permission")
    browser.press("Set the permissions", "#permission")
    browser.wait_for("The permissions of eve in / are set.", "#flash")
    assert busy.get("/permissions/%2F/eve")["write"] == "^orders"
    browser.press("Delete")
    browser.press("Delete the user", "#delete")
    browser.wait_for("User eve is deleted.", "#flash")


def test_a_policy_is_written_with_a_live_preview(browser: Browser, busy: Api) -> None:
    browser.open("/policies")
    browser.press("Add a policy")
    browser.fill("name", "shorter", "#add")
    browser.fill("pattern", "^orders\\.c", "#add")
    browser.wait_for("Matches 1 queue of", "#preview")
    browser.wait_for("keeps orders-limit, which is tried before", "#preview")
    browser.fill("priority", "9", "#add")
    browser.wait_for("has orders-limit now", "#preview")
    browser.fill("max-length", "many", "#add")
    browser.press("Add the policy", "#add")
    browser.wait_for("Enter a whole number", "#add")
    browser.fill("max-length", "900000", "#add")
    browser.fill("more", '{"max-lenght": 1}', "#add")
    browser.wait_for("did you mean 'max-length'?", "#preview")
    browser.fill("more", " ", "#add")
    browser.press("Add the policy", "#add")
    browser.wait_for("The policy shorter is in force.", "#flash")
    assert busy.get("/queues/%2F/orders.created")["policy"] == "shorter"
    browser.open("/policies/%2F/shorter")
    browser.press("Delete")
    browser.press("Delete the policy", "#delete")
    browser.wait_for("The policy shorter is deleted.", "#flash")


def test_a_vhost_is_deleted_only_by_its_name(browser: Browser, busy: Api) -> None:
    browser.open("/vhosts")
    browser.press("Add a vhost")
    browser.fill("name", "/", "#add")
    browser.press("Add the vhost", "#add")
    browser.wait_for("There is a vhost of this name.", "#add")
    browser.fill("name", "short-lived", "#add")
    browser.press("Add the vhost", "#add")
    browser.wait_for("Vhost short-lived is added.", "#flash")
    browser.fill("limit-max-queues", "-5", "#limits")
    browser.press("Set the limits", "#limits")
    browser.wait_for("Enter a whole number", "#limits")
    browser.press("Delete")
    browser.press("Delete the vhost", "#delete")
    browser.wait_for("Type the name of the vhost", "#delete-errors")
    browser.fill("typed", "short-lived", "#delete")
    browser.press("Delete the vhost", "#delete")
    browser.wait_for("Vhost short-lived is deleted.", "#flash")
    assert busy.ask("GET", "/vhosts/short-lived").status == 404


def test_definitions_are_imported_after_a_preview(browser: Browser, busy: Api, tmp_path: Path) -> None:
    file = tmp_path / "definitions.json"
    file.write_text("{")
    browser.open("/definitions")
    browser.press("Show what would change", "#import")
    browser.wait_for("Choose a file", "#result")
    browser.find("#file").send_keys(str(file))
    browser.press("Show what would change", "#import")
    browser.wait_for("The file cannot be imported; nothing has changed.", "#result")
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"vhosts": [{"name": "imported"}], "queues": [
        {"name": HOSTILE, "vhost": "imported", "durable": True, "auto_delete": False, "arguments": {}}]}))
    browser.find("#file").send_keys(str(other))
    browser.press("Show what would change", "#import")
    browser.wait_for("2 would be added, 0 changed", "#result")
    assert HOSTILE in browser.text("#result") and busy.ask("GET", "/vhosts/imported").status == 404
    browser.press("Import 2 definitions", "#import")
    browser.wait_for("The definitions are imported.", "#flash")
    assert busy.get("/queues/imported")[0]["name"] == HOSTILE
    busy.delete("/vhosts/imported")


def test_the_log_and_the_audit_log_are_searched(browser: Browser, busy: Api) -> None:
    browser.open("/audit")
    browser.fill("action", "*orders-limit*", "main")
    browser.press("Find", "main")
    browser.wait(lambda: len(browser.all("#live tbody tr")) == 1)
    assert "PUT /api/policies/%2F/orders-limit" in browser.text("#live") and "value" not in browser.text("#live")
    browser.open("/log")
    browser.press("Change the level")
    browser.fill("level", "error", "dialog[open]")
    browser.press("Keep", "dialog[open]")
    browser.fill("text", "nothing has this text", "main")
    browser.press("Find", "main")
    browser.wait_for("No line matches.", "#live")


def test_the_node_is_checked_and_a_backup_without_a_store_is_not_offered(browser: Browser, busy: Api) -> None:
    browser.open("/node")
    assert "There is no store" in browser.text()
    browser.press("Check the broker and its machine")
    browser.wait_for("no alarm is raised", "main")


def test_who_watches_sees_no_buttons(browser: Browser, busy: Api) -> None:
    busy.put("/users/watching", {"password": "x", "tags": "monitoring"})
    browser.press("Sign out", ".side")
    browser.wait(lambda: browser.driver.current_url.endswith("/login"))
    browser.sign_in("watching", "x")
    for path in ("/vhosts", "/policies", "/operator-policies", "/limits"):
        browser.open(path)
        assert browser.all("main .head button") == []
    titles = [one.text for one in browser.all(".side li a")]
    assert "Vhosts" in titles and not {"Users", "Definitions", "Log", "Audit log"} & set(titles)
    busy.delete("/users/watching")


def test_narrow_pages_of_the_administration_do_not_scroll_sideways(browser: Browser) -> None:
    browser.resize(*NARROW)
    for path in ("/users", "/users/guest", "/vhosts", "/vhosts/staging", "/policies", "/policies/%2F/orders-limit",
                 "/limits", "/limits/users", "/definitions", "/node?checks=1", "/log", "/audit"):
        browser.open(path)
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= NARROW[0], path


def test_hostile_names_run_no_script(browser: Browser) -> None:
    browser.open("/users")
    browser.press(HOSTILE, "#live")
    browser.wait(lambda: browser.text("h1") == HOSTILE)
    browser.open("/vhosts")
    browser.press(HOSTILE, "#live")
    browser.wait(lambda: browser.text("h1") == HOSTILE)
    browser.press("Delete")
    assert HOSTILE in browser.text("#delete")
