"""A fixture of tests of the management API; a module whose broker must have something already has one of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.api import Api, running


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """The management API of a new broker, for all tests of a module."""
    with running() as found:
        yield found
