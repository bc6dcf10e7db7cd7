"""Fixtures of the disk's tests."""

from __future__ import annotations

import pytest

from amqpd.store import body_writes
from amqpd.store.sqlite import message_blocks, rows
from tests.disk.workload import LARGE_BODY, PART_BYTES


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two messages of a batch share a row already, so that some do, and some do not."""
    monkeypatch.setattr(message_blocks, "FEWEST", 2)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bodies of some thousand bytes in parts, several to a piece."""
    monkeypatch.setattr(rows, "LARGE_BODY", LARGE_BODY)
    monkeypatch.setattr(body_writes, "PART_BYTES", PART_BYTES)
