"""The views `messages` and `queues`, which any program with SQLite can read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.broker.definitions import QueueDefinition
from amqpd.store.sqlite import views
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.rows.message_blocks import BlockLimits
from tests.store.store_samples import PERSISTENT, define, message, queue, save, settle

ONE, TWO = queue(1), queue(2)
QUORUM = QueueDefinition(3, "/other", "kept", True, False, True, {"x-queue-type": "quorum"}, is_paused=True)


@pytest.fixture
def shown(store, journal, directory) -> Callable[[str], list[dict[str, Any]]]:
    """Saves what the journal holds and asks the file, as a tool does that trusts no schema."""

    def ask(sql: str) -> list[dict[str, Any]]:
        save(store, journal)
        store.close({1: [1]})
        with closing(sqlite3.connect(f"file:{directory}/amqpd.db?mode=ro", uri=True)) as tool:
            tool.execute("PRAGMA trusted_schema = OFF")
            tool.row_factory = sqlite3.Row
            return [dict(row) for row in tool.execute(sql)]

    return ask


def test_a_message_is_shown_in_each_of_its_queues(journal, shown):
    both = message(2, b"to two", exchange="e", routing_key="a.b", holders=2)
    journal.published(ONE, [message(1, b"hello"), both], {1: 1_900_000_000_123, 2: 0})
    journal.published(TWO, [both])
    journal.requeued(TWO, {2: 3})
    alike = {"vhost": "/", "properties": PERSISTENT}
    shared = alike | {"exchange": "e", "routing_key": "a.b", "size": 6, "text": "to two", "body": b"to two"}
    assert shown("SELECT * FROM messages ORDER BY queue, number") == [
        alike | {
            "queue": "queue-1", "number": 1, "exchange": "", "routing_key": "orders", "size": 5, "text": "hello",
            "redelivered": 1, "deliveries": 0, "expires": "2030-03-17T17:46:40.123Z",
            "expires_at": 1_900_000_000_123, "body": b"hello"},
        shared | {
            "queue": "queue-1", "number": 2, "redelivered": 0, "deliveries": 0, "expires": "1970-01-01T00:00:00.000Z",
            "expires_at": 0},
        shared | {
            "queue": "queue-2", "number": 2, "redelivered": 0, "deliveries": 3, "expires": None, "expires_at": None},
    ]


def test_an_end_beyond_the_calendar_has_no_text(journal, shown):
    journal.published(ONE, [message(1)], {1: 1 << 60})
    assert shown("SELECT expires, expires_at FROM messages") == [{"expires": None, "expires_at": 1 << 60}]


def test_a_queue_is_shown_with_what_is_in_it(journal, shown):
    define(journal, QUORUM)
    both = message(2, bytes(70_000), holders=2)
    journal.published(ONE, [message(1, b"hello"), both])
    journal.published(QUORUM, [both])
    plain = {"vhost": "/", "type": "classic", "auto_delete": 0, "arguments": "{}", "is_paused": 0}
    assert shown("SELECT * FROM queues ORDER BY number") == [
        plain | {"name": "queue-1", "messages": 2, "octets": 70_005, "number": 1},
        plain | {"name": "queue-2", "messages": 0, "octets": 0, "number": 2},
        {"vhost": "/other", "name": "kept", "type": "quorum", "auto_delete": 1,
         "arguments": '{"x-queue-type": "quorum"}', "messages": 1, "octets": 70_000, "number": 3, "is_paused": 1},
    ]


@pytest.mark.parametrize("store, has_blocks", [
    pytest.param(StoreLimits(blocks=BlockLimits(fewest=2)), True, id="in blocks"),
    pytest.param(StoreLimits(blocks=BlockLimits(fewest=1_000)), False, id="a row each"),
], indirect=["store"])
def test_messages_that_share_a_row_are_shown_as_if_they_did_not(store, journal, shown, has_blocks):
    of = {"exchange": "Ü", "routing_key": "k" * 255, "properties": b"\x90\x00\x0atext/plain\x02"}
    run = [message(number, b"%d" % number * (number % 3), **of) for number in range(1, 301)]
    run[70:90] = [message(number, properties=b"\x00\x00") for number in range(71, 91)]
    journal.published(ONE, [m for m in run if m.number % 3])
    journal.published(TWO, [m for m in run if not m.number % 3])
    save(store, journal)
    settle(journal, ONE, [m for m in run[:200] if m.number % 3 and m.number not in (1, 100)])
    expected = [m for m in run if not m.number % 3 or m.number in (1, 100) or m.number > 200]
    assert shown("SELECT * FROM messages ORDER BY number") == [
        {"vhost": "/", "queue": "queue-1" if m.number % 3 else "queue-2", "number": m.number,
         "exchange": m.route.exchange, "routing_key": m.route.routing_key, "size": m.body_size,
         "text": m.body.decode(), "redelivered": int(m.number == 1), "deliveries": 0, "expires": None,
         "expires_at": None, "properties": m.properties, "body": m.body} for m in expected]
    alike = {"vhost": "/", "type": "classic", "auto_delete": 0, "arguments": "{}", "is_paused": 0}
    odd, even = ([m.body_size for m in expected if bool(m.number % 3) == is_odd] for is_odd in (True, False))
    with closing(sqlite3.connect(store.info().path)) as tool:
        tool.row_factory = sqlite3.Row
        assert [dict(row) for row in tool.execute("SELECT * FROM queues ORDER BY number")] == [
            alike | {"name": "queue-1", "messages": len(odd), "octets": sum(odd), "number": 1},
            alike | {"name": "queue-2", "messages": len(even), "octets": sum(even), "number": 2}]
        assert bool(tool.execute("SELECT * FROM message_blocks").fetchall()) == has_blocks


@pytest.mark.parametrize("view, names", {
    "messages": [
        "vhost", "queue", "number", "exchange", "routing_key", "size", "text", "redelivered", "deliveries", "expires",
        "expires_at", "properties", "body"],
    "queues": ["vhost", "name", "type", "auto_delete", "arguments", "messages", "octets", "number", "is_paused"],
}.items())
def test_views_have_the_columns_that_are_promised(shown, view, names):
    """Others rely on them, and on what the module says of them."""
    assert [column["name"] for column in shown(f"PRAGMA table_info({view})")] == names
    assert all(f"`{name}`" in str(views.__doc__) for name in names)


# Bodies as text

def text_of(body: bytes) -> str | None:
    """What the view makes of a body."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE message_rows (number, queue, redelivered, deliveries, expires_at, exchange, "
                           "routing_key, properties, body, body_id, body_size)")
        connection.execute("CREATE TABLE entries (queue, number, redelivered, deliveries, expires_at)")
        connection.execute("CREATE TABLE queue_rows (vhost, name, number)")
        connection.execute("CREATE TABLE body_parts (number, data)")
        connection.execute("INSERT INTO queue_rows VALUES ('/', 'q', 1)")
        connection.execute("CREATE TABLE message_blocks (first, last, queue, count, bytes, heads, contents)")
        connection.execute("CREATE TABLE block_flags (first, flags)")
        connection.execute("INSERT INTO message_rows (number, queue, body) VALUES (1, 1, ?)", (body,))
        for view in views.VIEWS:
            connection.execute(view)
        text, = connection.execute("SELECT text FROM messages").fetchone()
        return text


def expected(body: bytes) -> str | None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    is_odd = any((character < " " and character not in "\t\n\r") or character == "\x7f" for character in text)
    return None if is_odd or (len(body) > 4096 and not text.isascii()) else text


EDGES = bytes.fromhex("00 09 0a 1f 20 5d 5e 7e 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")


@given(body=st.lists(st.sampled_from(EDGES), max_size=6).map(bytes) | st.text(max_size=30).map(str.encode))
def test_a_body_is_shown_as_text_where_python_could_read_it(body):
    assert text_of(body) == expected(body)


@pytest.mark.parametrize("body", [
    b"", b"a" * 300_000, b"a" * 300_000 + b"\0", b"\xc3\xbc" * 2048, b"\xc3\xbc" * 2048 + b"a",
    b"'\"[]^-\t\r\n", b"\xc3",
])
def test_long_bodies_and_odd_ones_are_text_too_or_not(body):
    assert text_of(body) == expected(body)
