"""Large field tables are kept as bytes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from amqpd.fields import FieldError, Long, LongString, encode_table
from amqpd.packed_table import MOST_AT_HAND, SMALL, PackedTable, packed_if_large, read_table

WIDE = {f"field {number}": number for number in range(100)}
OF_A_QUEUE = {**WIDE, "x-max-length": Long(7), "x-nested": {"a": [1, "b"]}, "alternate-exchange": "other"}


def test_only_a_large_table_is_packed() -> None:
    assert type(read_table(encode_table({"a": 1}))) is dict
    assert isinstance(read_table(encode_table({"a": "b" * SMALL})), PackedTable)
    small = {"a": 1}
    assert packed_if_large(small, SMALL) is small
    assert packed_if_large(WIDE, SMALL + 1) == WIDE != small


def test_a_packed_table_reads_as_the_table() -> None:
    packed = PackedTable(encode_table(OF_A_QUEUE))
    assert packed == OF_A_QUEUE and OF_A_QUEUE == packed
    assert (len(packed), list(packed), list(packed.items())) == (103, list(OF_A_QUEUE), list(OF_A_QUEUE.items()))
    assert (packed["field 3"], packed["x-max-length"], packed["x-nested"]) == (3, 7, {"a": [1, "b"]})
    assert type(packed["x-max-length"]) is Long
    assert encode_table(packed) == encode_table(OF_A_QUEUE)
    assert packed.get("x-expires") is None and "field 100" not in packed and "x-nested" in packed
    assert packed != {**OF_A_QUEUE, "x-max-length": 8}


def test_what_the_broker_reads_is_found_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = PackedTable(encode_table({**WIDE, "x-max-length": 7, "alternate-exchange": "other"}))
    monkeypatch.setattr("amqpd.packed_table.decode_table", None)
    assert (packed["x-max-length"], packed.get("alternate-exchange"), packed.get("x-queue-type")) == (7, "other", None)


def test_of_very_many_known_names_the_others_are_found_too() -> None:
    table = {f"x-{number}": number for number in range(2 * MOST_AT_HAND)}
    packed = PackedTable(encode_table(table))
    assert [packed[name] for name in table] == [*table.values()] and "x-" not in packed


def test_what_cannot_be_decoded_is_refused_at_once() -> None:
    with pytest.raises(FieldError):
        read_table(encode_table(WIDE) + b"\x01a?")


@pytest.mark.parametrize("entry", [
    {"\\xff" * 255: 1}, {"a": LongString(b"text")}, {"a": [{"b": LongString(b"")}]}, {"a": float("nan")}])
def test_a_stored_table_that_would_become_another_one_stays_as_it_is(entry: dict[str, Any]) -> None:
    table = {**entry, **WIDE}
    assert packed_if_large(table, 4_000) is table


def test_a_packed_table_takes_what_was_sent() -> None:
    encoded = encode_table({f"{number:x}": True for number in range(10_000)})
    tracemalloc.start()
    packed = PackedTable(encoded)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2_000 and len(packed) == 10_000
