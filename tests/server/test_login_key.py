"""The key of made-up SCRAM verifiers: it stays the same, and nobody else can read it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from amqpd.server.login_key import LOGIN_KEY, login_key


def test_a_data_directory_keeps_its_key(tmp_path: Path) -> None:
    key = login_key(tmp_path)
    assert len(key) == 32 and login_key(tmp_path) == key
    assert (tmp_path / LOGIN_KEY).stat().st_mode & 0o777 == 0o600


def test_without_a_directory_each_key_is_new() -> None:
    assert login_key(None) != login_key(None)


def test_a_key_that_a_crash_has_cut_is_replaced(tmp_path: Path) -> None:
    (tmp_path / LOGIN_KEY).write_bytes(b"part")
    key = login_key(tmp_path)
    assert len(key) == 32 and login_key(tmp_path) == key


def test_a_key_that_cannot_be_kept_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LOGIN_KEY).mkdir()
    with caplog.at_level(logging.WARNING):
        key = login_key(tmp_path)
    assert len(key) == 32
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / LOGIN_KEY} cannot be used: Is a directory; make it readable and writable for the broker, since "
        "until then each start changes SCRAM's challenges for users that do not exist"]
