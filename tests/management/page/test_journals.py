"""The pages of the log and of the audit log: filters, the level, and what is never in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from amqpd.logs import RecentLines
from tests.management.page.conftest import Visitor, user_with
from tests.support.api import Api

HOSTILE = '"><img src=x onerror=alert(1)>{{7*7}}'


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A log whose newest lines are kept, as a running amqpd has it."""
    handler, root = RecentLines(), logging.getLogger()
    root.addHandler(handler)
    yield logging.getLogger("amqpd.test")
    root.removeHandler(handler)


def test_the_log_is_filtered_by_level_and_text(guest: Visitor, log: logging.Logger) -> None:
    assert "Nothing has been logged yet." in guest.text("/log")
    log.warning("first of two")
    log.error("second of two %s", HOSTILE)
    shown = guest.text("/log")
    assert shown.index("second of two") < shown.index("first of two") and "<img" not in shown and "}49" not in shown
    assert "first of two" not in guest.text("/log?level=error") and "second of" not in guest.text("/log?text=FIRST")
    assert "No line matches." in guest.text("/log?text=nothing") and "second" in guest.text("/log?level=loud&most=x")
    assert "<html" not in guest.get("/log", part="live").body.decode()


def test_the_level_of_the_log_is_changed(guest: Visitor) -> None:
    before = logging.getLogger().level
    try:
        assert guest.post("/log/level", level="error").status == 204
        assert logging.getLogger().level == logging.ERROR
        assert guest.post("/log/level", level="loud").status == 422
    finally:
        logging.getLogger().setLevel(before)


def test_the_audit_log_is_filtered_and_has_no_secrets(api: Api, guest: Visitor) -> None:
    guest.post("/users", "add", name="audited", password="s3cret!", again="s3cret!", vhost="/")
    guest.post("/users/audited/password", "password", password="s3cret!2", again="s3cret!2")
    api.put("/vhosts/" + "%3Cimg%20src=x%3E", {"description": HOSTILE})
    shown = guest.text("/audit")
    assert "PUT /api/users/audited" in shown and ">API</td>" in shown and "<img" not in shown
    assert "s3cret" not in shown
    shown = guest.text("/audit?action=*audited*")
    assert "PUT /api/users/audited" in shown and "%3Cimg" not in shown
    assert "PUT /api" not in guest.text("/audit?door=config")
    assert "No act matches." in guest.text("/audit?user=nobody") and "No act" in guest.text("/audit?action=%5B%5D%00")


def test_only_administrators_come_to_logs(api: Api) -> None:
    for name, tags in (("sees", "monitoring"), ("sets", "policymaker")):
        visitor = user_with(api, name, tags)
        assert visitor.get("/log").status == visitor.get("/audit").status == 401
        assert visitor.post("/log/level", level="debug").status == 401
