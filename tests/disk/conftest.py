"""Fixtures of the disk's tests."""

from __future__ import annotations

import pytest

from amqpd.store import body_writes
from tests.disk.workload import PART_BYTES


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the parts of bodies have some thousand bytes, several to a piece."""
    monkeypatch.setattr(body_writes, "PART_BYTES", PART_BYTES)
