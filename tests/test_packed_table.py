"""Large field tables are kept as bytes."""

from __future__ import annotations

import ast
import re
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import amqpd
from amqpd.fields import FieldError, Float, Long, LongString, Value, encode_table
from amqpd.packed_table import KNOWN, SMALL, PackedTable, known_names, packed_if_large, read_table, with_known

WIDE = {f"field {number}": number for number in range(100)}
OF_A_QUEUE = {**WIDE, "x-max-length": Long(7), "x-nested": {"a": [1, "b"]}, "alternate-exchange": "other"}


def test_only_a_large_table_is_packed() -> None:
    assert type(read_table(encode_table({"a": 1}))) is dict
    assert isinstance(read_table(encode_table({"a": "b" * SMALL})), PackedTable)
    small = {"a": 1}
    assert packed_if_large(small, SMALL) is small
    assert packed_if_large(WIDE, SMALL + 1) == WIDE != small


def test_a_packed_table_reads_as_the_table() -> None:
    packed = read_table(encode_table(OF_A_QUEUE))
    assert packed == OF_A_QUEUE and OF_A_QUEUE == packed
    assert (len(packed), list(packed), list(packed.items())) == (103, list(OF_A_QUEUE), list(OF_A_QUEUE.items()))
    assert (packed["field 3"], packed["x-max-length"], packed["x-nested"]) == (3, 7, {"a": [1, "b"]})
    assert type(packed["x-max-length"]) is Long
    assert encode_table(packed) == encode_table(OF_A_QUEUE)
    assert packed.get("x-expires") is None and "field 100" not in packed and "x-nested" in packed
    assert packed != {**OF_A_QUEUE, "x-max-length": 8}
    assert packed
    with pytest.raises(KeyError):
        packed["x-expires"]


@pytest.mark.parametrize("pack", [
    lambda table: read_table(encode_table(table)), lambda table: packed_if_large(table, SMALL + 1)],
    ids=["received", "stored"])
@pytest.mark.parametrize("unknown", [{}, {"x-unknown": {}}, {"x-unknown": [], "x-another": 1}], ids=str)
def test_what_the_broker_reads_is_found_without_decoding(
    pack: Callable[[dict[str, Value]], Mapping[str, Value]], unknown: dict[str, Value], no_decoding: None
) -> None:
    known: dict[str, Value] = {"x-max-length": 7, "alternate-exchange": "other", "x-queue-master-locator": {"a": [1]}}
    packed = pack({**known, **WIDE, **unknown})
    assert isinstance(packed, PackedTable) and packed
    for name in KNOWN:
        assert (name in packed, packed.get(name, 3)) == (name in known, known.get(name, 3))
    assert sorted(known_names(packed)) == sorted(known)
    assert all(packed[name] == value for name, value in known.items())


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no table be decoded."""
    for name in ("decode_table", "decode_checked_table"):
        monkeypatch.setattr(f"amqpd.packed_table.{name}", None)


def test_the_names_of_a_small_table_are_all_told() -> None:
    assert list(known_names({"b": 1, "x-max-length": 2})) == ["b", "x-max-length"]


def test_a_known_entry_is_added_without_decoding(no_decoding: None) -> None:
    table = with_known(read_table(encode_table({**WIDE, "x-expires": 1})), "x-queue-type", "quorum")
    assert isinstance(table, PackedTable) and table["x-queue-type"] == "quorum" and table["x-expires"] == 1
    assert with_known({"a": 1}, "x-queue-type", "quorum") == {"a": 1, "x-queue-type": "quorum"}


def test_a_table_with_an_added_entry_reads_as_one() -> None:
    assert with_known(read_table(encode_table(WIDE)), "x-queue-type", "quorum") == {**WIDE, "x-queue-type": "quorum"}


def test_of_two_entries_with_one_name_the_first_counts() -> None:
    packed = read_table(encode_table({"x-max-length": 1}) + encode_table({**WIDE, "x-max-length": 2}))
    assert packed["x-max-length"] == packed.unpacked()["x-max-length"] == 1      # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [[0] * SMALL, {"a": [{}] * SMALL}], ids=["array", "table"])
def test_a_large_array_or_table_of_a_known_name_is_not_kept_decoded(value: Value) -> None:
    table: dict[str, Value] = {"x-queue-master-locator": value}
    for packed in (read_table(encode_table(table)), packed_if_large(table, SMALL + 1)):
        assert packed["x-queue-master-locator"] == value
        assert packed["x-queue-master-locator"] is not packed["x-queue-master-locator"]
        assert "x-queue-master-locator" in packed and packed.get("x-queue-master-locator") == value


def test_all_names_that_the_broker_looks_up_are_known() -> None:
    """A look-up of another name would decode the whole table."""
    root = Path(amqpd.__file__).parent
    texts = {
        node.value for room in ("broker", "session", "store") for file in (root / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    found = {text for text in texts if re.fullmatch("x-[a-z-]+[a-z]", text)}
    headers = {text for text in found if re.match("x-(first-|last-|)death", text)} | {"x-delivery-count"}
    assert found - headers == KNOWN - {"alternate-exchange"}


def test_what_cannot_be_decoded_is_refused_at_once() -> None:
    with pytest.raises(FieldError):
        read_table(encode_table(WIDE) + b"\x01a?")


@pytest.mark.parametrize("entry", [
    {"\\xff" * 255: 1}, {"a": LongString(b"text")}, {"a": [{"b": LongString(b"")}]}, {"a": float("nan")},
    {"a": Float(0.1)}, {"a": [[], Float(0.1)]}])
def test_a_stored_table_that_would_become_another_one_stays_as_it_is(entry: dict[str, Any]) -> None:
    table = {**entry, **WIDE}
    assert packed_if_large(table, 4_000) is table


def test_a_stored_table_with_values_that_are_read_back_is_packed() -> None:
    table = {**WIDE, "a": LongString(b"\xff"), "b": [Float(0.5), {"c": LongString(b"\xfe")}], "d": 0.1}
    packed = packed_if_large(table, 4_000)
    assert isinstance(packed, PackedTable) and packed == table


def test_a_packed_table_takes_what_was_sent() -> None:
    encoded = encode_table({f"{number:x}": True for number in range(10_000)})
    tracemalloc.start()
    packed = read_table(encoded)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2_000 and len(packed) == 10_000
