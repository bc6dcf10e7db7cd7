"""Lists on pages: the address says what is shown, and the server sorts, filters and cuts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.management.page.conftest import Visitor
from tests.support.api import Api, running


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """A broker with queues in two vhosts."""
    with running() as api:
        api.put("/vhosts/other")
        api.put("/permissions/other/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        for number in range(60):
            api.put(f"/queues/%2F/q{number:02}", {"durable": True})
        api.put("/queues/other/alone")
        for _ in range(3):
            body = {"properties": {}, "routing_key": "q07", "payload": "x", "payload_encoding": "string"}
            api.ask("POST", "/exchanges/%2F/amq.default/publish", body)
        yield api


def names(visitor: Visitor, path: str) -> list[str]:
    """Return the names in a list."""
    return re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)<', visitor.text(path))


def test_a_list_is_cut_into_pages(guest: Visitor) -> None:
    first, second = guest.text("/queues"), guest.text("/queues?page=2")
    assert len(names(guest, "/queues")) == 50 and len(names(guest, "/queues?page=2")) == 11
    assert "1–50 of 61 queues" in first and "51–61 of 61 queues" in second
    assert 'href="/queues?page=2"' in first
    assert len(names(guest, "/queues?size=100")) == 61


def test_the_first_page_is_shown_when_rows_of_a_later_one_have_gone(guest: Visitor) -> None:
    assert names(guest, "/queues?page=9")[0] == "alone"


def test_the_address_says_sort_filter_vhost_and_columns(guest: Visitor) -> None:
    assert names(guest, "/queues?sort=messages_ready&reverse=1")[0] == "q07"
    assert names(guest, "/queues?name=Q1") == [f"q1{digit}" for digit in range(10)]
    assert names(guest, "/queues?name=%5Eq.7&regex=1") == [f"q{digit}7" for digit in range(6)]
    assert names(guest, "/queues?vhost=other") == ["alone"]
    shown = guest.text("/queues?columns=name,message_bytes_ready&name=q07")
    assert re.findall(r'aria-sort="(\w+)"', shown) == ["ascending", "none"]
    assert '<td class="number">3 B</td>' in shown
    assert 'aria-sort="descending"' in guest.text("/queues?sort=messages&reverse=1")


def test_a_sort_by_what_is_no_column_is_by_name(guest: Visitor) -> None:
    assert names(guest, "/queues?sort=__class__") == names(guest, "/queues")


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=99999999999999999999", "size=501", "size=-1"])
def test_a_number_that_is_none_is_refused(guest: Visitor, query: str) -> None:
    assert guest.get(f"/queues?{query}").status == 400


def test_an_expression_that_cannot_be_searched_for_is_told_beside_the_field(guest: Visitor) -> None:
    assert "not a regular expression" in guest.text("/queues?name=(&regex=1")


def test_an_empty_list_says_what_to_do(guest: Visitor) -> None:
    assert "No queue matches." in guest.text("/queues?name=nothing-like-this")
    with running() as other:
        assert "There are no queues.</strong> Clients declare queues" in Visitor(other).text("/queues")
