"""Load the shared fixtures, which are in `tests/support`."""

from __future__ import annotations

pytest_plugins = (
    "tests.support.profiles", "tests.support.fixtures", "tests.support.no_sync", "tests.support.quick_scrypt",
    "tests.support.process")
