"""The overview: totals, health in words, ports, what a confirm means, the last lines of both logs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from amqpd.logs import RecentLines
from tests.management.page.conftest import Visitor, user_with
from tests.support.api import Api, running

HOSTILE = "<img src=x onerror=alert(1)>"


def test_the_overview_says_what_the_broker_does_and_whether_all_is_well(api: Api, guest: Visitor) -> None:
    api.put("/queues/%2F/a")
    shown = guest.text("/")
    for text in ("may publish", "No alarm is raised.", "Publishers are blocked above", "Publishers are blocked below",
                 "which behaves as RabbitMQ 3.10.8", "There is no store", f"127.0.0.1:{api.amqp_port}",
                 f"127.0.0.1:{api.port}", "PUT /api/queues/%2F/a"):
        assert text in shown, text
    assert '<a href="/queues">1</a>' in shown
    assert "Commit to disk" not in shown        # without a store


def test_an_alarm_is_told_in_words(api: Api, guest: Visitor) -> None:
    def limit(size: int) -> None:
        api.ask("POST", "/amqpctl", {
            "command": "set_vm_memory_high_watermark", "arguments": {"absolute": size}})

    limit(1_000_000)
    try:
        shown = guest.text("/")
        assert ">blocked</span> until memory is freed. Consumers go on." in shown
        assert "The memory watermark is exceeded" in shown and "may publish" not in shown
    finally:
        limit(1 << 40)
    assert "may publish" in guest.text("/")


def test_what_a_confirm_means_and_how_long_commits_take_is_told_with_a_store(tmp_path: Path) -> None:
    with running(memory=False, data_dir=tmp_path) as api:
        shown = Visitor(api).text("/")
        assert "it survives a power cut" in shown and "Commit to disk" in shown
        node = api.get("/nodes")[0]
        assert node["commit_count"] >= 1 and node["commit_us"] > 0


def test_each_live_part_has_only_what_it_shows(guest: Visitor) -> None:
    live, recent = (guest.get("/", part=part).body.decode() for part in ("live", "recent"))
    assert "Health" in live and "Last log lines" not in live
    assert "Last log lines" in recent and "Health" not in recent


def test_the_last_lines_of_the_log_are_shown_as_text(guest: Visitor) -> None:
    handler = RecentLines()
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("amqpd.test").error("a name: %s", HOSTILE)
        shown = guest.text("/")
    finally:
        logging.getLogger().removeHandler(handler)
    assert "a name: &lt;img src=x onerror=alert(1)&gt;" in shown and HOSTILE not in shown
    assert '<span class="badge bad">error</span>' in shown


@pytest.mark.parametrize(("tags", "sees_node"), [("management", False), ("monitoring", True)])
def test_users_see_what_they_may(api: Api, tags: str, sees_node: bool) -> None:
    shown = user_with(api, f"user-{tags}", tags).text("/")
    assert ("Publishers are blocked above" in shown) is sees_node
    assert "Last log lines" not in shown and "Last administrative acts" not in shown
