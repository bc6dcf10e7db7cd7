"""What every test can use is in `tests/support`; here it is only named."""

from __future__ import annotations

pytest_plugins = (
    "tests.support.profiles", "tests.support.fixtures", "tests.support.no_sync", "tests.support.process")
