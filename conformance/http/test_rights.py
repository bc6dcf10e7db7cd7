"""§33 The management API: which tag may do what, for every route and method, on one's own vhost and on another's."""
from __future__ import annotations

import pytest

from conformance.http import rights
from conformance.http.api import Api

pytestmark = [pytest.mark.needs("http"), pytest.mark.timeout(300), pytest.mark.usefixtures("statistics")]


@pytest.fixture(scope="module")
def table(api: Api, broker_url: str) -> dict[str, dict[str, dict[str, str]]]:
    """What everybody is answered."""
    return rights.table(api, broker_url)


@pytest.mark.parametrize("row", [request.text for request in rights.rows()])
def test_each_tag_may_do_what_it_may_on_rabbitmq(
        table: dict[str, dict[str, dict[str, str]]], row: str, capabilities: frozenset[str]) -> None:
    for whose, recorded in rights.read()[row].items():
        for tag, expected in recorded.items():
            found = table[row][whose][tag]
            is_same = rights.is_as_recorded(expected, found, may_crash="http-crashes" in capabilities)
            assert is_same, f"{tag}, {whose}: must be {expected}, is {found}"
