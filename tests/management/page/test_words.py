"""How numbers, sizes and times are written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from amqpd.management.page import words

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(("filter_", "value", "text"), [
    (words.number, 1234567, "1,234,567"), (words.number, 0, "0"), (words.number, 0.1234, "0.123"),
    (words.number, None, "–"), (words.number, 1234.5, "1,234"), (words.rate, 0.0, ""), (words.rate, 0.01, "< 0.1/s"),
    (words.rate, 12.34, "12.3/s"), (words.rate, 1234.5, "1,234/s"), (words.size, 0, "0 B"),
    (words.size, 1023, "1,023 B"),
    (words.size, 1536, "1.5 KiB"), (words.size, 5 << 20, "5 MiB"), (words.size, 200 << 20, "200 MiB"),
    (words.size, 3 << 50, "3,072 TiB"), (words.lasting, 0, "0 s"), (words.lasting, 61, "1 min 1 s"),
    (words.lasting, 90_000, "1 day 1 h"), (words.lasting, 3_600, "1 h"), (words.lasting, 86_400 * 2, "2 days"),
    (words.yes, True, "yes"), (words.yes, None, "no")])
def test_a_value_is_written_for_readers(filter_: Any, value: Any, text: str) -> None:
    assert filter_(value) == text


@pytest.mark.parametrize(("value", "text"), [
    ("2026-01-02 03:04:00", "5 s ago"), (1767323045000, "now"), (1767323105000, "in 1 min"),
    ("2026-01-01 00:00:00", "1 day 3 h ago")])
def test_a_time_is_relative_with_the_exact_one_as_a_title(value: Any, text: str) -> None:
    shown = words.ago(value, NOW)
    assert f">{text}</time>" in shown and 'title="202' in shown


@pytest.mark.parametrize("value", [None, "", 0])
def test_no_time_is_a_dash(value: Any) -> None:
    assert words.ago(value, NOW) == "–"


@pytest.mark.parametrize("value", ["<b>", 10 ** 30, -10 ** 30])
def test_what_is_no_time_is_text(value: Any) -> None:
    assert words.ago(value, NOW) == str(value)


def test_a_count_has_its_noun() -> None:
    assert [words.counted(number, "queue") for number in (0, 1, 1000)] == ["0 queues", "1 queue", "1,000 queues"]
    assert words.counted(2, "policy", "policies") == "2 policies"
