"""The pages of dead letters: which queues they flow to, groups, and what is done to a group after a preview."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_clients import HOSTILE, client
from tests.support.api import Api

GROUP = "reason=rejected&origin=work"
ACT = "/queues/%2F/dead/messages/act"


@pytest.fixture
def dead(api: Api) -> Iterator[str]:
    """A queue with three rejected messages of `work`, two of a queue with a hostile name, and one that never died."""
    api.put("/exchanges/%2F/dlx", {"type": "fanout"})
    api.put("/queues/%2F/dead")
    api.ask("POST", "/bindings/%2F/e/dlx/q/dead", {})
    api.put("/policies/%2F/dies", {"pattern": "^work$", "apply-to": "queues", "definition": {
        "dead-letter-exchange": "dlx"}})
    api.put("/queues/%2F/work")
    api.put(f"/queues/%2F/{quote(HOSTILE, safe='')}", {"arguments": {
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}})
    with client(api) as channel:
        for queue, count in (("work", 3), (HOSTILE, 2)):
            for _ in range(count):
                channel.basic_publish("", queue, b"x")
            for _ in range(count):
                channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)
        channel.basic_publish("", "dead", b"alive")
        channel.queue_declare("dead", passive=True)
    yield "/dead-letters/%2F/dead"
    for path in ("queues/%2F/dead", "queues/%2F/work", f"queues/%2F/{quote(HOSTILE, safe='')}", "exchanges/%2F/dlx",
                 "policies/%2F/dies"):
        api.ask("DELETE", f"/{path}")


def ready(api: Api, queue: str) -> int:
    """Return how many messages a queue has."""
    return int(api.get(f"/queues/%2F/{queue}/messages?count=1")["ready"])


def test_queues_are_found_by_policies_arguments_and_bindings(guest: Visitor, dead: str) -> None:
    shown = guest.text("/dead-letters")
    assert f'href="{dead}"' in shown and 'href="/queues/%2F/work"' in shown
    assert 'href="/dead-letters/%2F/work"' not in shown and "<img" not in shown


def test_dead_letters_are_grouped_by_reason_and_origin(guest: Visitor, dead: str) -> None:
    shown = guest.text(dead)
    assert "6 of 6 ready messages were looked at" in shown and "not a dead letter" in shown and "<img" not in shown
    group = GROUP.replace("&", "&amp;")
    assert f'href="{ACT}/retry?{group}"' in shown and f'href="/queues/%2F/dead/messages?{group}"' in shown
    assert guest.get("/dead-letters/%2F/none").status == 404


def test_a_group_is_counted_and_then_retried(api: Api, guest: Visitor, dead: str) -> None:
    assert "Retry 3 messages" in guest.text(f"{ACT}/retry?{GROUP}") and ready(api, "work") == 0
    reply = guest.post(f"{ACT}/retry", reason="rejected", origin="work", limit="3")
    assert (reply.status, "3 of 3 are retried." in reply.headers["hx-trigger"]) == (204, True)
    assert (ready(api, "work"), ready(api, "dead")) == (3, 3)
    assert "Nothing is left to do" in guest.text(f"{ACT}/retry?{GROUP}")


def test_who_only_watches_is_offered_nothing(api: Api, guest: Visitor, dead: str) -> None:
    watcher = user_with(api, "watcher", "monitoring")
    assert "Delete …" not in watcher.text(dead) and "Delete …" in guest.text(dead)
