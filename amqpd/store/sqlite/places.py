"""Describe where a message of the store is: its queue, and its position there.

This is for diagnoses of damaged stores: details that cannot be read are left out.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Sequence

from amqpd.broker.arguments import describe_queue
from amqpd.store.rows.listing import listed
from amqpd.store.rows.message_blocks import iter_heads, unpack_flags
from amqpd.store.sqlite.statements import COUNT_WAITING

_LARGEST = (1 << 63) - 1
_NAMES = "CAST(vhost AS BLOB), CAST(name AS BLOB)"
_QUEUES_OF = f"""
    SELECT {_NAMES} FROM queue_rows WHERE number IN (
        SELECT queue FROM message_rows WHERE number IN (SELECT value FROM json_each(:numbers))
        UNION SELECT queue FROM entries WHERE number IN (SELECT value FROM json_each(:numbers))
        UNION SELECT queue FROM message_blocks WHERE first IN (SELECT value FROM json_each(:blocks)))
    ORDER BY vhost, name"""
_HOLDING = """
    SELECT queue FROM message_rows WHERE number = :number AND queue IS NOT NULL
    UNION SELECT queue FROM entries WHERE number = :number
    UNION SELECT queue FROM message_blocks WHERE :number BETWEEN first AND last"""
_WAITING_IN_SINGLE_ROWS = """
    SELECT (SELECT count(*) FROM message_rows WHERE queue = :queue AND number <= :number)
        + (SELECT count(*) FROM entries WHERE queue = :queue AND number <= :number)"""
_WAITING_IN_BLOCKS = f"""
    SELECT coalesce(sum({COUNT_WAITING}), 0) FROM message_blocks LEFT JOIN block_flags USING (first)
    WHERE queue = :queue AND last <= :number"""
_BLOCK_AROUND = """
    SELECT first, CAST(heads AS BLOB), CAST(flags AS BLOB) FROM message_blocks LEFT JOIN block_flags USING (first)
    WHERE queue = :queue AND first <= :number AND last > :number"""


def queues_of(connection: sqlite3.Connection, numbers: Sequence[int], blocks: Sequence[int]) -> list[str]:
    """Describe the queues of these messages, and of blocks with these first numbers. Raises sqlite3.Error."""
    rows = connection.execute(_QUEUES_OF, {"numbers": json.dumps(numbers), "blocks": json.dumps(blocks)})
    return [_described(*names) for names in rows]


def describe_message(connection: sqlite3.Connection, number: int) -> str:
    """Return the queues of a message with its position in each; only its number if no queue can be found."""
    try:
        queues = [queue for queue, in connection.execute(_HOLDING, {"number": number})]
        places = [text for queue in queues if (text := _place(connection, queue, number))]
    except (sqlite3.Error, TypeError, ValueError, struct.error):
        places = []
    return f"{listed(places)} (number {number})" if places else f"message {number}"


def _place(connection: sqlite3.Connection, queue: object, number: int) -> str | None:
    names = connection.execute(f"SELECT {_NAMES} FROM queue_rows WHERE number = ?", (queue,)).fetchone()
    if names is None:
        return None
    place, count = _count_to(connection, queue, number), _count_to(connection, queue, _LARGEST)
    return f"{_described(*names)}, message {place:,} of {count:,}"


def _count_to(connection: sqlite3.Connection, queue: object, number: int) -> int:
    """Return how many messages wait in a queue up to this number."""
    wanted = {"queue": queue, "number": number}
    queries = (_WAITING_IN_SINGLE_ROWS, _WAITING_IN_BLOCKS)
    count = sum([connection.execute(query, wanted).fetchone()[0] for query in queries])
    for first, heads, flags in connection.execute(_BLOCK_AROUND, wanted):
        waiting = unpack_flags(flags)[0] if flags else -1
        count += sum([waiting >> place & 1 for place, *_ in iter_heads(heads) if first + place <= number])
    return int(count)


def _described(vhost: bytes, name: bytes) -> str:
    return describe_queue(name.decode(errors="replace"), vhost.decode(errors="replace"))
