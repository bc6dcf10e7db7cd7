"""Take pictures of every page: 1440 and 400 px wide, light and dark, of a busy broker, an empty one, one under alarm.

    python -m tests.browser.shots --to DIR [--only PART-OF-A-PATH] [--broker busy] [--seconds 12]
"""

from __future__ import annotations

import argparse
import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.browser.browser import NARROW, WIDE, Browser
from tests.browser.busy import Busy
from tests.support.api import Api, running

PAUSE = threading.Event()
# Besides those of the navigation. With " !SELECTOR", that is clicked first, such as the button that opens a dialog.
OF_BUSY = (
    "/queues/%2F/orders.created", "/queues/%2F/orders.created !#live", "/queues !.head button",
    "/queues/%2F/invoices", "/queues?name=zzz", "/queues/%2F/none",
    "/queues ![data-mark-all]", "/connections !tbody th a",
    "/users/deploy", "/users/guest", "/users !.head button", "/users/deploy !.title button", "/vhosts/staging",
    "/vhosts !.head button", "/limits !.head button", "/limits/users", "/policies/%2F/orders-limit",
    "/policies !.head button", "/operator-policies",
    "/exchanges/%2F/shop", "/exchanges/%2F/shop/route?routing_key=order.created", "/exchanges !.head button",
    "/dead-letters/%2F/dead.letters",
    "/queues/%2F/dead.letters/messages/act/retry?reason=rejected&origin=orders.created",
    "/queues/%2F/dead.letters/messages", "/queues/%2F/dead.letters/messages !tbody th a",
    "/queues/%2F/dead.letters/messages ![data-mark-all]", "/queues/%2F/invoices/messages !tbody th a",
    "/queues/%2F/orders.created/messages?text=nowhere&older_than=x", "/queues/%2F/search.index/messages",
    "/queues/%2F/dead.letters/messages/act/move?all=1", "/queues/%2F/invoices/bindings",
    "/queues/%2F/invoices/publish", "/queues/%2F/invoices/get",
    "/exchanges/%2F/shop/publish",
    "/topology?around=queue:orders.created", "/topology?exchange=shop&routing_key=order.created",
    "/channels !tbody th a", "/channels?sort=consumer_count&reverse=1 !tbody th a")


@contextlib.contextmanager
def broker(kind: str) -> Iterator[Api]:
    """Run a broker: busy, empty, or with an alarm."""
    with running() as api:
        if kind == "empty":
            yield api
            return
        with Busy(api.amqp_port, api.port):
            if kind == "alarm":
                body = {"command": "set_vm_memory_high_watermark", "arguments": {"absolute": 1_000_000}}
                api.ask("POST", "/amqpctl", body)
            yield api


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--broker", choices=("busy", "empty", "alarm"), default="busy")
    parser.add_argument("--seconds", type=float, default=12, help="for how long the broker is busy before")
    parser.add_argument("--wide", action="store_true", help="only 1440 px, light")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    with broker(arguments.broker) as api, Browser() as browser:
        browser.begin(f"http://127.0.0.1:{api.port}")
        browser.shoot(arguments.to / "login-wide-light.png", is_whole=False)
        browser.sign_in()
        PAUSE.wait(arguments.seconds)
        found = [one.get_attribute("href").removeprefix(browser.origin) for one in browser.all(".side li a")]
        for page in (*found, *(OF_BUSY if arguments.broker != "empty" else ())):
            if arguments.only in page:
                take(browser, page, arguments.to, arguments.broker, only_wide=arguments.wide)
        for line in browser.complaints():
            print("complaint:", line)


def take(browser: Browser, page: str, folder: Path, kind: str, *, only_wide: bool) -> None:
    """Take the pictures of one page."""
    path, _, selector = page.partition(" !")
    name = re.sub(r"\W+", "-", page.replace("%2F", "")).strip("-") or "overview"
    for width, size in (("wide", WIDE), ("narrow", NARROW)):
        for theme in ("light", "dark"):
            if only_wide and (width, theme) != ("wide", "light"):
                continue
            browser.resize(*size)
            browser.theme(theme)
            browser.open(path)
            if selector:
                browser.click(selector)
            PAUSE.wait(0.4)
            browser.shoot(folder / f"{kind}-{name}-{width}-{theme}.png", is_whole=not selector)
    print(page, flush=True)


if __name__ == "__main__":
    main()
