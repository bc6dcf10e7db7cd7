"""What holds for every page: no serious issue for screen readers and keyboards, nothing moves, and no name runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.browser import NARROW, Browser
from tests.support.api import Api

pytestmark = pytest.mark.timeout(300)       # each test opens very many pages
SERIOUS = ("serious", "critical")
MOST_SHIFT = 0.01       # of a page, as browsers measure it; 0.1 counts as good
AXE = """
const done = arguments[0];
axe.run(document, {resultTypes: ["violations"]}).then((found) => done(found.violations.map((one) => [
  one.impact, one.id, one.help, one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))])));
"""
SHIFTS = """
const done = arguments[0], found = [];
new PerformanceObserver((list) => list.getEntries().forEach((one) => {
  if (!one.hadRecentInput) found.push([one.value, one.sources.map((source) => source.node && source.node.outerHTML
    ? source.node.outerHTML.slice(0, 120) : String(source.node))]);
})).observe({type: "layout-shift", buffered: true});
const after = () => requestAnimationFrame(() => requestAnimationFrame(() => done(found)));
document.addEventListener("htmx:after:swap", after);
if (!document.querySelector("[data-live]")) setTimeout(() => done(found), 300);
"""
NAMES = [
    f"{one}{number}" for number in range(6) for one in (
        "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onfocus='alert(1)' autofocus='",
        "{{7*7}}{% raw %}", "javascript:alert(1)//", "</title></textarea><svg/onload=alert(1)>", "a\u2028b\u202ec",
        "%2F..%2f../../etc/passwd?a=b#c", "&lt;img src=x&gt;&amp;", "\n\t`${alert(1)}`\\u0022")]


def axe() -> str:
    """Return the script of axe-core, which npm has installed in a folder of NODE_PATH."""
    for folder in os.environ.get("NODE_PATH", "").split(os.pathsep):
        file = Path(folder, "axe-core", "axe.min.js")
        if folder and file.exists():
            return file.read_text()
    pytest.fail("axe-core is not there: npm install --prefix /tmp/axe axe-core, and NODE_PATH=/tmp/axe/node_modules")


def pages(browser: Browser) -> list[str]:
    """Return the paths of all pages of the navigation, and of what the first rows of lists lead to."""
    browser.open("/")
    found = [path_of(browser, one) for one in browser.all(".side li a")]
    for path in tuple(found):
        browser.open(path)
        found += [path_of(browser, one) for one in browser.all("tbody tr:first-child th a")[:1]]
    found += [f"/queues/%2F/orders.created{part}" for part in ("", "/messages", "/bindings", "/publish", "/get")]
    browser.open("/queues/%2F/dead.letters/messages")
    found += [path_of(browser, browser.all("tbody tr:first-child th a")[0]), "/queues?name=nothing-like-this",
              "/queues/%2F/dead.letters/messages/act/move?all=1", "/exchanges/%2F/shop/publish"]
    return list(dict.fromkeys(found))


def path_of(browser: Browser, link: Any) -> str:
    """Return the path that a link leads to."""
    return str(link.get_attribute("href")).removeprefix(browser.origin)


def test_no_page_has_a_serious_issue_for_readers_and_keyboards(browser: Browser) -> None:
    script, wrong = axe(), []
    browser.driver.set_script_timeout(60)
    for theme in ("light", "dark"):
        browser.theme(theme)
        for path in pages(browser):
            browser.open(path)
            browser.driver.execute_script(script)
            wrong += [(theme, path, *one[1:]) for one in browser.driver.execute_async_script(AXE) if one[0] in SERIOUS]
    assert not wrong, "\n".join(map(str, wrong))


def test_nothing_moves_after_a_page_has_been_loaded(browser: Browser) -> None:
    browser.driver.set_script_timeout(30)
    moved: dict[tuple[int, str], list[tuple[float, Any]]] = {}
    for size in ((1440, 900), NARROW):
        browser.resize(*size)
        for path in ("/", "/queues", "/queues/%2F/orders.created", "/connections", "/channels", "/consumers"):
            browser.open(path)
            moved[size[0], path] = browser.driver.execute_async_script(SHIFTS)
    # A number of a live list that becomes longer makes its column wider; what is more than that is a fault.
    wrong = {page: found for page, found in moved.items() if sum(one[0] for one in found) > MOST_SHIFT}
    assert not wrong, "\n".join(map(str, wrong.items()))


def test_no_hostile_name_runs_on_any_page(browser: Browser, busy: Api) -> None:
    assert len(NAMES) == 60
    encoded = [quote(name, safe="") for name in NAMES]
    for name, path in zip(NAMES, encoded):
        busy.put(f"/queues/%2F/{path}", {"arguments": {"x-dead-letter-exchange": name}})
        busy.put(f"/exchanges/%2F/{path}", {"type": "topic", "arguments": {"alternate-exchange": name}})
        busy.ask("POST", f"/bindings/%2F/e/{path}/q/{path}", {"routing_key": name, "arguments": {name: name}})
    for name, path in zip(NAMES[:10], encoded):
        busy.put(f"/vhosts/{path}", {"description": name, "tags": name})
        busy.put(f"/users/{path}", {"password": "x", "tags": "management"})
        busy.put(f"/policies/%2F/{path}", {"pattern": "^nothing$", "definition": {"dead-letter-routing-key": name}})
    listed = [f"{path}?size=500" for path in pages(browser) if "/" not in path[1:] and "?" not in path]
    try:
        shown = [f"/{kind}/%2F/{one}" for kind in ("queues", "exchanges") for one in encoded]
        shown += [f"/{kind}?name={one}" for kind in ("queues", "exchanges") for one in encoded[:10]]
        shown += [f"/exchanges/%2F/{one}/route?routing_key={one}" for one in encoded[:10]]
        for path in [*listed, *shown]:
            browser.open(path)      # the fixture finds errors, requests that left, and scripts that were refused
            assert browser.driver.execute_script(
                "return document.querySelectorAll('main img[src=x], main svg[onload], main script').length") == 0
            assert browser.driver.title.endswith("· amqpd")
    finally:
        for path in encoded:
            busy.delete(f"/queues/%2F/{path}")
            busy.delete(f"/exchanges/%2F/{path}")
        for path in encoded[:10]:
            busy.delete(f"/vhosts/{path}")
            busy.delete(f"/users/{path}")
            busy.delete(f"/policies/%2F/{path}")
