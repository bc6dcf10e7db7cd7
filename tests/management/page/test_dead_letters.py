"""The pages of dead letters: which queues they flow to, groups, and what is done to a group after a preview."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_clients import HOSTILE, client
from tests.support.api import Api

GROUP = "reason=rejected&origin=work"


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
    assert f'href="{dead}/retry?{GROUP.replace("&", "&amp;")}"' in shown
    assert guest.get("/dead-letters/%2F/none").status == 404


def test_a_group_is_counted_and_then_retried(api: Api, guest: Visitor, dead: str) -> None:
    assert "Retry 3 messages" in guest.text(f"{dead}/retry?{GROUP}") and ready(api, "work") == 0
    assert guest.post(f"{dead}/retry", reason="rejected", origin="work").status == 400
    reply = guest.post(f"{dead}/retry", reason="rejected", origin="work", limit="3")
    assert (reply.status, "3 of 3 are retried." in reply.headers["hx-trigger"]) == (204, True)
    assert (ready(api, "work"), ready(api, "dead")) == (3, 3)
    assert "Nothing is left to do." in guest.text(f"{dead}/retry?{GROUP}")


def test_a_group_is_moved_or_deleted_and_the_rest_stays(api: Api, guest: Visitor, dead: str) -> None:
    for target, told in (("", b"Enter the name of a queue."), ("none", b'id="to_queue-error"')):
        reply = guest.post(f"{dead}/move", "act", reason="rejected", origin="work", limit="3", to_queue=target)
        assert (reply.status, told in reply.body) == (422, True), reply.body
    assert "Move 3 messages" in guest.text(f"{dead}/move?{GROUP}")
    assert guest.post(f"{dead}/move", reason="rejected", origin="work", limit="1", to_queue="work").status == 204
    assert (ready(api, "work"), ready(api, "dead")) == (1, 5)
    assert "Delete 2 messages" in guest.text(f"{dead}/delete?{GROUP}")
    assert guest.post(f"{dead}/delete", reason="rejected", origin="work", limit="2").status == 204
    assert ready(api, "dead") == 3


def test_no_act_is_on_everything_by_mistake(api: Api, guest: Visitor, dead: str) -> None:
    assert guest.get(f"{dead}/delete").status == guest.post(f"{dead}/delete", limit="9").status == 400
    assert guest.get(f"{dead}/burn?{GROUP}").status == 404
    watcher = user_with(api, "watcher", "monitoring")
    assert "Delete …" not in watcher.text(dead) and ready(api, "dead") == 6
