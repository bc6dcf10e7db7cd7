"""Check a store without changing it.

Owns the checks, in this order: pages and indexes, by SQLite; the format; definitions; messages and entries that belong
together; the checksum of each message, which alone finds a flipped bit in a body; message blocks; and a trial of what a
start reads. Each finding is a line of text.

Spec: sqlite.org/pragma.html#pragma_integrity_check.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from amqpd.broker.broker import Broker
from amqpd.properties import read_own_properties
from amqpd.store.journal import MemoryJournal
from amqpd.store.restoring import restore
from amqpd.store.rows.block_bits import parse_block
from amqpd.store.sqlite.block_index import SELECT_BLOCKS
from amqpd.store.sqlite.body_parts import checksum_from_parts
from amqpd.store.rows.definition_rows import TABLES, definition_of
from amqpd.store.rows.message_blocks import Record, records_of
from amqpd.store.rows.message_rows import checksum_of
from amqpd.store.sqlite.places import describe_message
from amqpd.store.rows.reading import MessageReader, Unreadable
from amqpd.store.sqlite.recovery import survey
from amqpd.store.sqlite.schema import format_of_tables
from amqpd.store.sqlite.statements import COUNT_MESSAGES, ORPHAN_ROWS
from amqpd.store.tools.stopped import Progress, nothing
from amqpd.wording import counted

MOST_FINDINGS = 100         # of one kind
DOES_NOT_FIT = "does not fit its checksum"
LACKS_PARTS = "lacks parts of its body"
EVERY = 1_000               # messages between two steps of progress
_BLOCK = "first, CAST(heads AS BLOB), CAST(contents AS BLOB)"
_COLUMNS = "number, CAST(exchange AS BLOB), CAST(routing_key AS BLOB), properties, body, checksum, body_id, body_size"

_ODD_STATE = (
    "typeof(redelivered) <> 'integer' OR typeof(expires_at) NOT IN ('integer', 'null') "
    "OR typeof(deliveries) <> 'integer'")
_ODD_STATES = " UNION ALL ".join([
    f"SELECT number, 'has a state that is no numbers' FROM {table} WHERE {_ODD_STATE}"
    for table in ("message_rows", "entries")])


def findings(
    connection: sqlite3.Connection, progress: Progress = nothing, *, every: int = EVERY
) -> Iterator[str]:
    """Yield what is wrong, a line each; report progress every so many messages, and at the last one.

    Raises sqlite3.Error if the disk fails; damage of the file is one of the findings.
    """
    yield from _or_unreadable("the file", _of_pages(connection))
    yield from _or_unreadable("the format", _of_format(connection))
    yield from _or_unreadable("definitions", _of_definitions(connection))
    yield from _or_unreadable("messages and entries", _of_places(connection))
    yield from _or_unreadable("messages", _of_messages(connection, progress, every))
    yield from _or_unreadable("message blocks", _of_blocks(connection))
    yield from _or_unreadable("what a start reads", _of_start(connection))


# If SQLite quotes damaged text in an error, Python cannot decode the error itself.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)


def is_damage(error: Exception) -> bool:
    """Return whether the content of the file caused this error, and not the disk."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in (
        sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def _or_unreadable(what: str, part: Iterator[str]) -> Iterator[str]:
    try:
        yield from part
    except UNREADABLE as error:
        if not is_damage(error):
            raise
        yield f"{what} cannot be read to their end: {error}"


def _of_pages(connection: sqlite3.Connection) -> Iterator[str]:
    for text, in connection.execute(f"PRAGMA integrity_check({MOST_FINDINGS})"):
        yield from (line for line in str(text).splitlines() if line != "ok" and not line.startswith("*** in database"))


def _of_format(connection: sqlite3.Connection) -> Iterator[str]:
    said, has = connection.execute("PRAGMA user_version").fetchone()[0], format_of_tables(connection)
    if said != has:
        yield f"the header says format {said}, the tables are of format {has}"


def _of_definitions(connection: sqlite3.Connection) -> Iterator[str]:
    for table in TABLES.values():
        for row in connection.execute(table.select):
            if definition_of(table, row) is None:
                yield f"{table.name} {row[:len(table.key)]} is no definition"


def _of_places(connection: sqlite3.Connection) -> Iterator[str]:
    for query in (ORPHAN_ROWS, _ODD_STATES):
        for number, text in connection.execute(f"{query} LIMIT {MOST_FINDINGS}"):
            yield f"{describe_message(connection, number)} {text}"


def _of_messages(connection: sqlite3.Connection, progress: Progress, every: int) -> Iterator[str]:
    total: int = connection.execute(COUNT_MESSAGES).fetchone()[0]
    found = 0
    for done, (number, flaw) in enumerate(_messages(connection), 1):
        if done % every == 0 or done == total:
            progress(done, total)
        if flaw:
            found += 1
            if found <= MOST_FINDINGS:
                yield f"{describe_message(connection, number)} {flaw}"
    if more := max(0, found - MOST_FINDINGS):
        yield f"{counted(more, 'more message is', 'more messages are')} damaged"


def _messages(connection: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    """Yield the number of each message with its flaw, or "".

    Messages that have left a block, but are still in its row, are included.
    """
    reader = MessageReader(read_own_properties)
    for number, *columns, body_id, body_size in connection.execute(f"SELECT {_COLUMNS} FROM message_rows"):
        yield number, flaw_of(reader, *columns, parts=sum_of_parts(connection, body_id, body_size))
    for first, heads, contents in connection.execute(f"SELECT {_BLOCK} FROM message_blocks"):
        for record in records_of(heads, contents):
            yield first + record.place, flaw_of_record(reader, record)


def _of_blocks(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield a line for each block whose columns contradict each other."""
    for row in connection.execute(SELECT_BLOCKS):
        try:
            parse_block(row)
        except (TypeError, ValueError) as error:
            yield f"the message block from {row[0]} on is damaged: {error}"


def _of_start(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the definitions that a start could not restore, by restoring them in a broker without a store."""
    reader = MessageReader(read_own_properties)
    try:
        recovered = survey(connection, reader).recovered
    except ValueError:      # an unreadable definition, which is a finding already
        return
    broker = Broker(MemoryJournal())
    for unrestored in restore(broker, recovered.definitions):
        yield str(unrestored)


SumOfParts = Callable[[int], "int | None"]


def sum_of_parts(connection: sqlite3.Connection, body_id: object, size: object) -> SumOfParts | None:
    """Return a function that computes the checksum of a message whose body is in parts; None if it is not in parts.

    The function takes the checksum of names and properties. It returns None if parts are missing or damaged.
    """
    if body_id is None:
        return None

    def find(before: int) -> int | None:
        if not (isinstance(body_id, int) and isinstance(size, int)):
            return None
        try:
            return checksum_from_parts(connection, body_id, size, before)
        except UNREADABLE as error:
            if not is_damage(error):
                raise
            return None

    return find


def flaw_of(
    reader: MessageReader, exchange: object, routing_key: object, properties: object, body: object, checksum: object,
    *, parts: SumOfParts | None = None,
) -> str:
    """Return what is wrong with the row of a message, or ""; exchange and routing key are given as bytes."""
    if not (isinstance(exchange, bytes) and isinstance(routing_key, bytes)
            and isinstance(properties, bytes) and isinstance(body, bytes)):
        return DOES_NOT_FIT
    try:
        for name in (exchange, routing_key):
            name.decode()
        found = checksum_of(exchange, routing_key, properties, body)
        if parts is not None:
            found_in_parts = parts(found)
            if found_in_parts is None:
                return LACKS_PARTS
            found = found_in_parts
        if found != checksum:
            return DOES_NOT_FIT
        reader.facts(properties)
    except Unreadable as error:
        return f"has properties that cannot be read: {error}"
    except ValueError:      # a name that is not UTF-8, or too long for a short string
        return DOES_NOT_FIT
    return ""


def flaw_of_record(reader: MessageReader, record: Record) -> str:
    """Return what is wrong with a message of a block, or ""."""
    if not record.is_sound:
        return DOES_NOT_FIT
    return flaw_of(
        reader, record.exchange, record.routing_key, record.properties, record.body, record.row_checksum)
