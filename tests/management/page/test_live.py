"""The stream that tells pages when to ask again."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator

import pytest

from amqpd.management.page.live import MOST_OF_USER
from tests.management.page.conftest import Visitor, user_with
from tests.support.api import Api, running


@pytest.fixture
def api() -> Iterator[Api]:
    """A broker for one test."""
    with running() as api:
        yield api


@contextlib.contextmanager
def following(visitor: Visitor) -> Iterator[http.client.HTTPResponse]:
    """The stream of one page; its first line has come."""
    client = http.client.HTTPConnection("127.0.0.1", visitor.api.port, timeout=20)
    with contextlib.closing(client):
        client.request("GET", "/live", headers={"Cookie": visitor.cookie})
        answer = client.getresponse()
        if answer.status == 200:
            assert answer.readline() == b"retry: 5000\n"
        yield answer


def event(answer: http.client.HTTPResponse) -> bytes:
    """Return the next event; nothing at the end."""
    for line in answer:
        if line.startswith(b"data: "):
            return line.removeprefix(b"data: ").strip()
    return b""


def test_a_page_is_told_that_something_has_changed_and_nothing_more(api: Api) -> None:
    with following(Visitor(api)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        api.put("/queues/%2F/new")
        assert event(answer) == b"changed"
        assert event(answer) == b"tick"     # without a change, as often as numbers are sampled


def test_who_has_not_signed_in_follows_nothing(api: Api) -> None:
    assert api.ask("GET", "/live", user=None, prefix="").status == 303


def test_only_so_many_pages_of_a_user_are_live_and_places_are_free_again(api: Api) -> None:
    guest, other = Visitor(api), user_with(api, "other", "management")
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_OF_USER):
            assert stack.enter_context(following(guest)).status == 200
        with following(guest) as refused, following(other) as allowed:
            assert (refused.status, allowed.status) == (503, 200)
    for _ in range(1_000):
        with following(guest) as answer:
            if answer.status == 200:
                return
    raise AssertionError("no place is free again")


def test_a_user_who_is_deleted_follows_no_more(api: Api) -> None:
    user = user_with(api, "leaving", "management")
    with following(user) as answer:
        api.delete("/users/leaving")
        assert event(answer) == b""
