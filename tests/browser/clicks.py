"""Count the clicks that ten daily tasks take on this page and on that of RabbitMQ, as docs/web-page.md has them.

    python -m tests.browser.clicks --rabbitmq http://127.0.0.1:15673 --amqp 127.0.0.1:5673

Both begin each task on the overview. Typing, and choosing a file, is not counted: it is the same on both. A question of
the browser ("Are you sure?") is answered with a click.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pika
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.browser import Browser
from tests.support.api import basic, running

GUEST = ("guest", "guest")
DEFINITIONS = {"queues": [
    {"name": "imported", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}]}


class Clicks:
    """A browser that counts."""

    def __init__(self, browser: Browser, file: Path) -> None:
        self.browser = browser
        self.file = file
        self.count = 0

    def on(self, text: str, selector: str = "a, button, summary, h2, input[type=submit]") -> None:
        """Click what has this text, or begins with it; wait until it is there."""
        self.browser.wait(lambda: self._found(text, selector), text)
        self._found(text, selector)[0].click()
        self.count += 1

    def _found(self, text: str, selector: str) -> list[Any]:
        shown = [one for one in self.browser.all(selector) if one.is_displayed()]
        texts = [(one, (one.text or one.get_attribute("value") or "").strip()) for one in shown]
        exact = [one for one, found in texts if found == text]
        return exact or [one for one, found in texts if found.startswith(text)]

    def sure(self) -> None:
        """Answer the browser's question with yes."""
        self.browser.wait(lambda: self.browser.driver.switch_to.alert)
        self.browser.driver.switch_to.alert.accept()
        self.count += 1

    def type(self, selector: str, text: str) -> None:
        """Type into a field, which is not counted."""
        self.browser.find(selector).clear()
        self.browser.find(selector).send_keys(text)

    def see(self, text: str) -> None:
        """Wait until this is seen."""
        self.browser.wait_for(text)


# On amqpd's page

def own_find(page: Clicks) -> None:
    """Find a queue by a part of its name."""
    page.on("Queues", ".side a")
    page.type("main input[type=search]", "jo" + Keys.ENTER)
    page.see("jobs")


def own_purge(page: Clicks) -> None:
    """Purge a queue."""
    page.on("Queues", ".side a")
    page.on("jobs")
    page.on("Purge", ".head button")
    page.on("Purge the queue")
    page.see("is purged")


def own_look(page: Clicks) -> None:
    """See what is in the messages of a queue."""
    page.on("Queues", ".side a")
    page.on("jobs")
    page.on("Messages", ".tabs a")
    page.see("body of one")


def own_publish(page: Clicks) -> None:
    """Publish a message to a queue."""
    page.on("Queues", ".side a")
    page.on("jobs")
    page.on("Publish", ".tabs a")
    page.type("[name=payload]", "typed")
    page.on("Publish the message")
    page.see("It went to")


def own_why(page: Clicks) -> None:
    """See why a queue stands still, and who holds its messages."""
    page.on("Queues", ".side a")
    page.on("jobs")
    page.see("Why is nothing moving?")


def own_user(page: Clicks) -> None:
    """Add a user with all rights in a vhost."""
    page.on("Users", ".side a")
    page.on("Add a user", ".head button")
    page.type("#add-dialog [name=name]", "newcomer")
    for name in ("password", "again"):
        page.type(f"#add-dialog [name={name}]", "secret-password")
    page.browser.fill("vhost", "/", "#add-dialog")
    page.on("Add the user")
    page.see("newcomer")


def own_policy(page: Clicks) -> None:
    """Add a policy that limits the length of queues."""
    page.on("Policies", ".side a")
    page.on("Add a policy", ".head button")
    page.type("dialog [name=name]", "short")
    page.type("dialog [name=pattern]", "^short")
    page.type('dialog [name="max-length"]', "100")
    page.on("Add the policy", "dialog button")
    page.see("short")


def own_close(page: Clicks) -> None:
    """Close a connection."""
    page.on("Connections", ".side a")
    page.on("127.0.0.1", "tbody th a")
    page.on("Close", ".head button")
    page.on("Close the connection")
    page.see("closed")


def own_import(page: Clicks) -> None:
    """Import definitions."""
    page.on("Definitions", ".side a")
    page.browser.find("input[type=file]").send_keys(str(page.file))
    page.on("Show what would change")
    page.on("Import 1 definition", "main button")
    page.see("imported")


def own_retry(page: Clicks) -> None:
    """Send dead letters back to the queue where they died."""
    page.on("Dead letters", ".side a")
    page.on("dead", "main table a")
    page.on("Retry …", "main a")
    page.on("Retry ", "main button")
    page.see("are retried")


# On RabbitMQ's page

def their_find(page: Clicks) -> None:
    """See `own_find`."""
    page.on("Queues", "#tabs a")
    page.type("#queues-name", "jo" + Keys.ENTER)
    page.see("jobs")


def _their_queue(page: Clicks, name: str = "jobs") -> None:
    page.on("Queues", "#tabs a")
    page.on(name, "table.list a")
    page.see(f"Queue {name}")


def their_purge(page: Clicks) -> None:
    """See `own_purge`."""
    _their_queue(page)
    page.on("Purge", "h2")
    page.on("Purge Messages")
    page.sure()


def their_look(page: Clicks) -> None:
    """See `own_look`."""
    _their_queue(page)
    page.on("Get messages", "h2")
    page.on("Get Message(s)")
    page.see("body of one")


def their_publish(page: Clicks) -> None:
    """See `own_publish`."""
    _their_queue(page)
    page.on("Publish message", "h2")
    page.type("textarea[name=payload]", "typed")
    page.on("Publish message", "input[type=submit]")
    page.see("Message published")


def their_why(page: Clicks) -> None:
    """See `own_why`: it is not told; the consumers with their prefetch are as near as one comes."""
    _their_queue(page)
    page.on("Consumers", "h2")
    page.see("no consumers")


def their_user(page: Clicks) -> None:
    """See `own_user`."""
    page.on("Admin", "#tabs a")
    page.on("Add a user", "h2")
    page.type("[name=username]", "newcomer")
    page.type("[name=password]", "secret-password")
    page.type("[name=password_confirm]", "secret-password")
    page.on("Add user", "input[type=submit]")
    page.on("newcomer", "table.list a")
    page.on("Set permission", "input[type=submit]")
    page.see(".*")


def their_policy(page: Clicks) -> None:
    """See `own_policy`."""
    page.on("Admin", "#tabs a")
    page.on("Policies", "#rhs a")
    page.on("Add / update a policy", "h2")
    page.type("[name=name]", "short")
    page.type("[name=pattern]", "^short")
    page.on("Max length", "span.argument-link")
    page.type("[name=definition_1_mfvalue]", "100")
    page.on("Add / update policy", "input[type=submit]")
    page.see("short")


def their_close(page: Clicks) -> None:
    """See `own_close`."""
    page.on("Connections", "#tabs a")
    page.on("127.0.0.1", "table.list a")
    page.on("Close this connection", "h2")
    page.on("Force Close")
    page.sure()


def their_import(page: Clicks) -> None:
    """See `own_import`: nothing tells what would change."""
    page.on("Import definitions", "h2")
    page.browser.find("input[type=file]").send_keys(str(page.file))
    page.on("Upload broker definitions")
    page.sure()


def their_retry(page: Clicks) -> None:
    """See `own_retry`: messages are moved with the shovel plugin, all of a queue, to one that is typed."""
    _their_queue(page, "dead")
    page.on("Move messages", "h2")
    page.see("shovel")
    page.count += 1     # its button, which is there with that plugin


class Task(NamedTuple):
    """A task, on both pages."""

    own: Callable[[Clicks], None]
    theirs: Callable[[Clicks], None]
    note: str = ""


TASKS = (
    Task(own_why, their_why, "RabbitMQ shows the consumers, not the reason"),
    Task(own_look, their_look, "RabbitMQ takes messages out and puts them back"), Task(own_publish, their_publish),
    Task(own_purge, their_purge), Task(own_retry, their_retry, "RabbitMQ needs the shovel plugin"),
    Task(own_close, their_close), Task(own_user, their_user), Task(own_policy, their_policy),
    Task(own_import, their_import, "RabbitMQ does not tell what would change"), Task(own_find, their_find))


def prepare(api: str, host: str, port: int) -> pika.BlockingConnection:
    """Make what the tasks need, and return the connection that one of them closes."""
    for path, arguments in (("queues/%2F/dead", {}), ("queues/%2F/jobs", {
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})):
        asked = urllib.request.Request(
            f"{api}/api/{path}", json.dumps({"arguments": arguments}).encode(), method="PUT",
            headers={"Authorization": basic(GUEST), "Content-Type": "application/json"})
        urllib.request.urlopen(asked).close()
    connection = pika.BlockingConnection(pika.ConnectionParameters(host, port, heartbeat=0))
    channel = connection.channel()
    for queue in ("jobs", "dead"):
        channel.queue_purge(queue)
    for number in range(4):
        channel.basic_publish("", "jobs", b"body of one" if number else b"dies")
    channel.basic_reject(channel.basic_get("jobs")[0].delivery_tag, requeue=False)
    channel.queue_declare("jobs", passive=True)
    return connection


def run(browser: Browser, task: Callable[[Clicks], None], file: Path, overview: str) -> int:
    """Do a task, and return its clicks."""
    browser.driver.get("about:blank")
    browser.open(overview)
    page = Clicks(browser, file)
    task(page)
    return page.count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rabbitmq", required=True, help="address of its management page")
    parser.add_argument("--amqp", required=True, help="HOST:PORT of it")
    arguments = parser.parse_args()
    host, _, port = arguments.amqp.rpartition(":")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file, running() as api, Browser() as browser:
        json.dump(DEFINITIONS, file)
        file.flush()
        counts: dict[int, list[int]] = {}
        for number, (origin, amqp_host, amqp_port) in enumerate((
                (f"http://127.0.0.1:{api.port}", "127.0.0.1", api.amqp_port), (arguments.rabbitmq, host, int(port)))):
            kept = prepare(origin, amqp_host, amqp_port)
            browser.begin(origin)
            if number:
                browser.driver.get(origin)
                for name in ("username", "password"):
                    browser.find(f"[name={name}]").send_keys("guest")
                browser.driver.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
                browser.wait_for("Overview")
            else:
                browser.sign_in()
            for place, task in enumerate(TASKS):
                counts.setdefault(place, []).append(
                    run(browser, task.theirs if number else task.own, Path(file.name), "/#/" if number else "/"))
            del kept
    print("| task | amqpd | RabbitMQ 3.10.8 | |\n|---|---|---|---|")
    for place, task in enumerate(TASKS):
        what = str(task.own.__doc__).rstrip(".")
        print(f"| {what} | {counts[place][0]} | {counts[place][1]} | {task.note} |")


if __name__ == "__main__":
    main()
