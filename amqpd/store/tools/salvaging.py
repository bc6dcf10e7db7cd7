"""Copy everything that can be read of a damaged store to a new one; the damaged store is not changed.

Rows are read in the order of their numbers. After a damaged page, the numbers that an index or the table of entries
still has are tried one by one; then `row_search.py` tries larger and larger steps until something can be read.

A message is copied to a row of its own if its checksum is right, and otherwise to the table `damaged`, as at a start.
If the queue of a message cannot be read, the message goes to a new queue, where an operator can look at it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import Definition, QueueDefinition
from amqpd.properties import read_own_properties
from amqpd.store.journal import MemoryJournal
from amqpd.store.restoring import restore
from amqpd.store.sqlite import schema
from amqpd.store.sqlite.audit_rows import AUDIT_COLUMNS
from amqpd.store.rows.body_use import ID_STEP
from amqpd.store.rows.definition_rows import TABLES, Table, definition_of
from amqpd.store.sqlite.definitions import read_definitions
from amqpd.store.rows.message_blocks import taken_apart, unpack_flags
from amqpd.store.rows.reading import MessageReader
from amqpd.store.sqlite.recovery import CLOCK_BEHIND
from amqpd.store.sqlite.statements import COUNT_MESSAGES
from amqpd.store.tools.checking import EVERY, UNREADABLE, flaw_of, flaw_of_record, is_damage, sum_of_parts
from amqpd.store.tools.copies import finish, new_directory
from amqpd.store.tools.new_store import NewStore, open_new
from amqpd.store.tools.row_search import Row, RowSearch
from amqpd.store.tools.stopped import (
    Progress,
    column_in,
    has_blocks,
    has_parts,
    held,
    name_in,
    nothing,
    reading,
    select_in,
)

_CHECKED = "CAST(exchange AS BLOB), CAST(routing_key AS BLOB), properties, body, checksum"
_BLOCK = "first, queue, CAST(heads AS BLOB), CAST(contents AS BLOB)"
_AUDIT = ("id", *AUDIT_COLUMNS)
_MESSAGE = ("number", "queue", "redelivered", "expires_at", "deliveries", "exchange", "routing_key", "properties",
            "checksum", "body", "body_id", "body_size")


class Salvaged(msgspec.Struct):
    """The result: rows that were `saved`, by table; messages in the table `damaged`; and `lost` ones, unreadable.

    `gaps` is the number of places that could not be read. They may have had more than the known lost messages.
    """

    saved: dict[str, int] = {}
    damaged: int = 0
    lost: int = 0
    definitions_lost: int = 0
    gaps: int = 0


def salvage(
    directory: Path, target: Path, now: int, progress: Progress = nothing, *, every: int = EVERY
) -> Salvaged:
    """Copy what can be read of this store to a new one. `now` is in seconds since 1970.

    `progress` is called for every so many messages. Raises StoreError if nothing can be read, or if the new store
    cannot be written.
    """
    with held(directory) as path, new_directory(target) as copy:
        schema.create(copy, now)
        with reading(path) as (source, found), closing(open_new(copy)) as out:
            out.execute("PRAGMA synchronous = OFF")     # synced when it is complete
            out.execute("BEGIN IMMEDIATE")
            rescue = _Rescue(source, found, out)
            rescue.definitions()
            rescue.messages(now, progress, every)
            rescue.audit_log()
            rescue.tidy()
            out.execute("COMMIT")
        finish(copy, copy)
    return rescue.result


class _Rescue:
    """One salvage: it reads the source, writes to `out`, and counts in `result`."""

    def __init__(self, source: sqlite3.Connection, format_: int, out: NewStore) -> None:
        self.result = Salvaged()
        self._source = source
        self._format = format_
        self._out = out
        self._reader = MessageReader(read_own_properties)
        self._entries: dict[int, list[Row]] = {}        # by message number: queue and state
        self._queues: set[int] = set()
        self._copied: set[int] = set()      # bodies in parts

    # Definitions

    def definitions(self) -> None:
        """Copy the definitions that can be read."""
        for table in TABLES.values():
            columns = select_in(self._format, table.name, table.columns)
            self.result.saved[table.name] = 0 if columns is None else sum([
                self._define(table, row) for row in self._rows(table.name, columns)])
        self._queues = {number for number, in self._out.rows("SELECT number FROM queue_rows")}

    def _define(self, table: Table, row: Row) -> bool:
        definition = definition_of(table, row)
        if definition is not None:
            with suppress(sqlite3.IntegrityError):      # for example a second queue with this name, after damage
                self._out.execute(table.upsert, table.row_of(definition))
                return True
        self.result.definitions_lost += 1
        return False

    # Messages

    def messages(self, now: int, progress: Progress, every: int) -> None:
        """Copy the messages, each to its queues, and damaged ones to the table `damaged`."""
        self._read_entries()
        total = self._count()
        for done, (row, is_good) in enumerate(chain(self._own_rows(), self._rows_of_blocks()), 1):
            if done % every == 0:
                progress(done, total)
            self._save(row, now, is_good=is_good)
        if self.result.gaps:
            self.result.lost += len(set(self._known).difference([number for number, in self._out.rows(
                "SELECT number FROM message_rows UNION ALL SELECT number FROM damaged")]))
        self.result.saved["messages"] = self._out.rows("SELECT count(*) FROM message_rows")[0][0]
        for row in self._rows("damaged", f"{self._message_columns}, noticed"):
            self._set_aside(row)

    def _own_rows(self) -> Iterator[tuple[Row, bool]]:
        for row in self._rows("message_rows", f"{_CHECKED}, {self._message_columns}"):
            parts = sum_of_parts(self._source, *row[-2:])
            yield row[5:], not flaw_of(self._reader, *row[:5], parts=parts)

    @property
    def _message_columns(self) -> str:
        """The columns of a message; formats before 4 have none for bodies in parts."""
        names = [*_MESSAGE] if has_parts(self._format) else [*_MESSAGE[:-2], "NULL", "NULL"]
        return ", ".join(names)

    def _rows_of_blocks(self) -> Iterator[tuple[Row, bool]]:
        """Yield the messages of blocks as rows of their own, and whether each is undamaged."""
        if not has_blocks(self._format):
            return
        on_disk = dict(self._known_blocks)
        for first, queue, heads, contents in self._rows("message_blocks", _BLOCK):
            on_disk.pop(first, None)
            waiting, redelivered = self._flags.get(first, (-1, 0))
            for number, record, was_delivered in taken_apart(first, heads, contents, waiting, redelivered):
                names: Row = (record.exchange, record.routing_key)
                is_good = not flaw_of_record(self._reader, record)
                if is_good:
                    names = tuple([name.decode() for name in names])
                yield (number, queue, was_delivered, None, 0, *names, record.properties, record.row_checksum,
                       record.body, None, None), is_good
        self.result.lost += sum(on_disk.values())

    @cached_property
    def _flags(self) -> dict[int, tuple[int, int]]:
        """The flags that can be read, by first number of the block: bits of messages that are left, and delivered."""
        return {
            first: unpack_flags(flags) for first, flags in self._rows(
                "block_flags", f"first, CAST({column_in(self._format, 'flags')} AS BLOB)")
            if flags}

    def _save(self, row: Row, now: int, *, is_good: bool) -> None:
        number, queue = row[:2]
        if not is_good:
            self.result.damaged += 1
            self._set_aside((*row, now))
            return
        if queue is None:
            places = self._entries.get(number) or [(self._queue_for(number), 1, None, 0)]
            self._insert_message(number, None, 0, None, 0, *row[5:])
            for place, *state in places:
                self._insert("entries", (self._queue_for(place), number, *_sound_state(*state)))
        else:
            self._insert_message(number, self._queue_for(queue), *_sound_state(*row[2:5]), *row[5:])

    def _queue_for(self, number: object) -> int:
        """Return the number of a queue in the new store; if it was not copied, create a queue in its place."""
        number = number if isinstance(number, int) else 0
        if number not in self._queues:
            definition = QueueDefinition(number, "/", f"salvaged-{number}", durable=True)
            table = TABLES[QueueDefinition]
            self._out.execute(table.upsert, table.row_of(definition))
            self._queues.add(number)
        return number

    def _insert_message(self, *row: Any) -> None:
        self._out.execute(
            f"INSERT OR IGNORE INTO message_rows ({', '.join(_MESSAGE)}) VALUES ({', '.join('?' * len(row))})", row)
        self._copy_parts(row[-2])

    def _copy_parts(self, body_id: object) -> None:
        """Copy the parts of a body that can be read; messages may share a body."""
        if not isinstance(body_id, int) or body_id in self._copied:
            return
        self._copied.add(body_id)
        for number in range(body_id, body_id + ID_STEP):
            try:
                row = self._source.execute("SELECT data FROM body_parts WHERE number = ?", (number,)).fetchone()
            except UNREADABLE as error:
                self._note_gap(error)
                continue
            if row is not None:
                self._out.execute("INSERT OR IGNORE INTO body_parts VALUES (?, ?)", (number, row[0]))

    def _insert(self, table: str, row: Row) -> None:
        self._out.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    def _set_aside(self, row: Row) -> None:
        self._out.execute(
            f"INSERT OR IGNORE INTO damaged ({', '.join(_MESSAGE)}, noticed) VALUES ({', '.join('?' * len(row))})", row)
        self._copy_parts(row[-3])

    def _read_entries(self) -> None:
        """Read the entries of messages in several queues; an entry from the index alone counts as redelivered."""
        found: dict[tuple[int, int], Row] = {}
        for query in (
            "SELECT queue, number, redelivered, expires_at, deliveries FROM entries",
            "SELECT queue, number, redelivered, expires_at, deliveries FROM entries ORDER BY queue DESC, number DESC",
            "SELECT queue, number, 1, NULL, 0 FROM entries INDEXED BY entries_of_message",
        ):
            try:
                for queue, number, *state in self._source.execute(query):
                    found.setdefault((queue, number), (queue, *state))
                break
            except UNREADABLE as error:
                self._note_gap(error)
        for (_, number), row in found.items():
            self._entries.setdefault(number, []).append(row)

    @cached_property
    def _known(self) -> list[int]:
        """The numbers of messages in an index or in the entries, in rising order; their rows may be damaged."""
        known = set(self._entries)
        index = {1: "messages_of_queue"}.get(self._format, "message_rows_of_queue")
        table = name_in(self._format, "message_rows")
        with suppress(*UNREADABLE):
            known.update(number for number, in self._source.execute(
                f"SELECT number FROM main.{table} INDEXED BY {index} WHERE queue IS NOT NULL"))
        return sorted(number for number in known if isinstance(number, int))

    @cached_property
    def _known_blocks(self) -> dict[int, int]:
        """The counts of messages in blocks, from the index, by first number."""
        known: dict[int, int] = {}
        with suppress(*UNREADABLE):
            table = name_in(self._format, "message_blocks")
            known.update(self._source.execute(
                f"SELECT first, count FROM main.{table} INDEXED BY {table}_of_queue"))
        return known

    def _known_in(self, table: str) -> list[int]:
        if table == "message_blocks":
            return sorted(self._known_blocks)
        return self._known if table == "message_rows" else []

    def _count(self) -> int:
        try:
            return int(self._source.execute(COUNT_MESSAGES).fetchone()[0])
        except UNREADABLE:
            return 0

    # Audit log

    def audit_log(self) -> None:
        """Copy the rows of the audit log that can be read."""
        columns = select_in(self._format, "audit_log", _AUDIT)
        for row in () if columns is None else self._rows("audit_log", columns):
            if isinstance(row[1], int) and all(isinstance(value, str) for value in row[2:]):
                self._insert("audit_log", row)

    # What holds together

    def tidy(self) -> None:
        """Delete definitions that refer to missing ones, and set the epoch so that no number is assigned again."""
        execute, bindings = self._out.execute, "bindings AS binding"
        execute("""
            INSERT OR IGNORE INTO vhosts (name, description, tags) SELECT vhost, '', '[]' FROM (
                SELECT vhost FROM exchanges UNION SELECT vhost FROM queue_rows UNION SELECT vhost FROM policies
                UNION SELECT vhost FROM permissions UNION SELECT vhost FROM topic_permissions
                UNION SELECT vhost FROM parameters)""")
        for table in ("permissions", "topic_permissions"):
            self.result.definitions_lost += execute(
                f"DELETE FROM {table} WHERE user NOT IN (SELECT name FROM users)").rowcount
        self.result.definitions_lost += execute(f"""
            DELETE FROM {bindings} WHERE NOT EXISTS (
                SELECT * FROM queue_rows WHERE destination_type = 'queue'
                AND vhost = binding.vhost AND name = destination
            ) AND NOT EXISTS (
                SELECT * FROM exchanges WHERE destination_type = 'exchange'
                AND vhost = binding.vhost AND name = destination
            ) AND NOT (destination_type = 'exchange' AND destination GLOB 'amq.*') OR NOT EXISTS (
                SELECT * FROM exchanges WHERE vhost = binding.vhost AND name = source
            ) AND source NOT GLOB 'amq.*'""").rowcount
        self._leave_out_unrestorable()
        largest = max([self._out.rows(f"SELECT coalesce(max(number), 0) FROM {table}")[0][0] for table in (
            "message_rows", "damaged", "queue_rows", "body_parts")])
        epoch = largest >> schema.EPOCH_SHIFT
        for row in self._rows("meta", "key, value"):
            if row[0] == "epoch" and isinstance(row[1], int):
                epoch = max(epoch, row[1])
            elif row[0] == CLOCK_BEHIND and isinstance(row[1], int):
                execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)
        execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (epoch,))

    def _leave_out_unrestorable(self) -> None:
        """Delete definitions that a broker cannot restore; the messages of such a queue go to a new queue."""
        while failed := restore(Broker(MemoryJournal()), self._definitions_saved()):
            definition = failed[0].definition       # the others may fail only because of this one
            table = TABLES[type(definition)]
            self._out.execute(table.delete, table.key_of(definition))
            self.result.definitions_lost += 1
            if isinstance(definition, QueueDefinition):
                self._queues.discard(definition.number)
                self._queue_for(definition.number)

    def _definitions_saved(self) -> list[Definition]:
        with self._out.errors_named():
            return read_definitions(self._out)

    # Reading

    def _rows(self, table: str, columns: str) -> Iterator[Row]:
        """Yield every row that can be read, in the order of the numbers."""
        search = RowSearch(self._source, f"main.{name_in(self._format, table)}", columns)
        at: int | None = 0
        while at is not None:
            try:
                row = search.next_row(at)
            except UNREADABLE as error:
                self._note_gap(error)
                at = search.beyond(at, self._known_in(table))
                continue
            if row is None:
                return
            at = row[0] + 1
            yield row[1:]

    def _note_gap(self, error: Exception) -> None:
        if not is_damage(error):
            raise error
        self.result.gaps += 1


def _sound_state(redelivered: object, expires_at: object, deliveries: object) -> Row:
    """Return a valid state; a damaged one becomes a state with which the message is kept."""
    return (
        1 if redelivered else 0, expires_at if isinstance(expires_at, int) else None,
        deliveries if isinstance(deliveries, int) else 0)
