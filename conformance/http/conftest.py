"""Fixtures for the management API."""
from __future__ import annotations

import pytest

from conformance.http.api import Api
from conformance.http.playing import Played, needs_statistics


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest) -> Api:
    """The management API of the broker under test.

    Its tests hold messages unacked for longer than a consumer timeout of some seconds.
    """
    if request.config.getoption("--consumer-timeout"):
        pytest.skip("needs a broker without a short consumer timeout, so a run of its own")
    return Api.at(request.config.getoption("--http"))


@pytest.fixture(scope="session")
def statistics(api: Api) -> None:
    """For tests of what a broker counts."""
    if not api.has_statistics():
        pytest.skip(needs_statistics(True))


@pytest.fixture(scope="session")
def played(request: pytest.FixtureRequest, api: Api, broker_url: str) -> Played:
    """The scenarios, each played when it is first asked for."""
    return Played(api, broker_url, request.config.getoption("--ctl"))
