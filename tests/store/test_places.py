"""The description of the position of a message."""

from __future__ import annotations

import pytest

from amqpd.store.sqlite.places import describe_message, listed, queues_of
from amqpd.store.tools.stopped import reading
from tests.store.kept_store import stop
from tests.store.store_samples import query

FIRST, SECOND = "queue 'queue-1' in vhost '/'", "queue 'queue-2' in vhost '/'"
ROWS_AND_BLOCKS = pytest.mark.parametrize("kept", ["rows", "blocks"], indirect=True)


@ROWS_AND_BLOCKS
@pytest.mark.parametrize("number, told", [
    (1, f"{FIRST}, message 1 of 300 (number 1)"),
    (99, f"{FIRST}, message 99 of 300 (number 99)"),
    (100, f"{FIRST}, message 100 of 300 and {SECOND}, message 1 of 20 (number 100)"),
    (300, f"{FIRST}, message 300 of 300 (number 300)"),
    (999, "message 999"),
])
def test_a_message_is_described_by_its_places(kept, number, told):
    with reading(kept / "amqpd.db") as (connection, _):
        assert describe_message(connection, number) == told


@pytest.mark.parametrize("kept", ["blocks"], indirect=True)
def test_messages_that_have_left_a_run_are_not_counted(kept):
    (first, count), = query(stop(kept), "SELECT first, count FROM message_blocks ORDER BY first LIMIT 1")
    marks = b"-" * 3 + b"+" * 1_021
    query(kept, f"INSERT OR REPLACE INTO block_flags VALUES ({first}, x'{marks.hex()}')")
    with reading(kept / "amqpd.db") as (connection, _):
        assert describe_message(connection, first + 3).startswith(f"{FIRST}, message {first} of ")


@ROWS_AND_BLOCKS
def test_queues_are_named_once(kept):
    (first,) = query(kept, "SELECT min(first) FROM message_blocks")[0]
    with reading(kept / "amqpd.db") as (connection, _):
        assert queues_of(connection, [100, 101, 150, 999], [] if first is None else [first]) == [FIRST, SECOND]


@pytest.mark.parametrize("column, told", [
    ("name", "queue '\ufffd' in vhost '/', message 7"), ("vhost", "queue 'queue-1' in vhost '\ufffd', message 7")])
def test_damage_is_left_out_of_the_words(kept, column, told):
    query(stop(kept), f"UPDATE queue_rows SET {column} = x'ff' WHERE number = 1")
    with reading(kept / "amqpd.db") as (connection, _):
        assert describe_message(connection, 7).startswith(told)


def test_few_queues_are_listed_and_the_rest_counted():
    assert [listed(["a"]), listed(["a", "b"]), listed(list("abcde"))] == ["a", "a and b", "a, b, c and 2 more"]
