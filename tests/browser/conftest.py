"""Fixtures: a broker with something in it, and a browser that has signed in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.api import Api, running

if "BROWSER" not in os.environ:
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.browser.browser import Browser
    from tests.browser.busy import Busy

    @pytest.fixture(scope="module")
    def busy() -> Iterator[Api]:
        """The management API of a broker that is busy."""
        with running() as api, Busy(api.amqp_port, api.port):
            yield api

    @pytest.fixture(scope="session")
    def chromium() -> Iterator[Browser]:
        """A browser, for all tests."""
        with Browser() as browser:
            yield browser

    @pytest.fixture
    def browser(chromium: Browser, busy: Api) -> Iterator[Browser]:
        """The browser, signed in as guest. Each test ends with no error in the console, and no request elsewhere."""
        chromium.begin(f"http://127.0.0.1:{busy.port}")
        chromium.sign_in()
        yield chromium
        assert chromium.complaints() == []
