"""Fixtures of the disk's tests."""

from __future__ import annotations

import pytest

from amqpd.store.sqlite import run_rows


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two messages of a batch share a row already, so that some do, and some do not."""
    monkeypatch.setattr(run_rows, "FEWEST", 2)
