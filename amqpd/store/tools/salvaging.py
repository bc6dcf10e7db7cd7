"""What can be read of a damaged store, in a new one; the damaged one is left as it is.

Owns the way around what cannot be read. Rows are read in the order of their numbers. Where that ends at a damaged
page, the numbers that an index or the entries still know are tried one by one, and then larger and larger steps are
taken until something can be read again.

Only what is sound comes over as a message, in a row of its own: its checksum fits. What does not goes to the table
`damaged`, as it would at a start. A message whose queue cannot be read gets one in its place, so that it can be
looked at.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
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
from amqpd.store.sqlite.body_parts import ID_STEP
from amqpd.store.sqlite.definition_rows import TABLES, Table, definition_of, read_definitions
from amqpd.store.sqlite.message_blocks import taken_apart, unpack_flags
from amqpd.store.sqlite.reading import MessageReader
from amqpd.store.sqlite.recovery import CLOCK_BEHIND
from amqpd.store.sqlite.statements import COUNT_MESSAGES
from amqpd.store.tools.checking import EVERY, UNREADABLE, flaw_of, flaw_of_record, is_damage, sum_of_parts
from amqpd.store.tools.copies import finish, new_directory
from amqpd.store.tools.new_store import NewStore, open_new
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

_LARGEST = (1 << 63) - 1
_CHECKED = "CAST(exchange AS BLOB), CAST(routing_key AS BLOB), properties, body, checksum"
_BLOCK = "first, queue, CAST(heads AS BLOB), CAST(contents AS BLOB)"
_MESSAGE = ("number", "queue", "redelivered", "expires_at", "deliveries", "exchange", "routing_key", "properties",
            "checksum", "body", "body_id", "body_size")

Row = tuple[Any, ...]


class Salvaged(msgspec.Struct):
    """What came over, by table, and what did not: `damaged` messages were set aside, `lost` ones cannot be read.

    Of each of the `gaps` nobody can say what was there, but for the lost messages that are known.
    """

    saved: dict[str, int] = {}
    damaged: int = 0
    lost: int = 0
    definitions_lost: int = 0
    gaps: int = 0


def salvage(
    directory: Path, target: Path, now: int, progress: Progress = nothing, *, every: int = EVERY
) -> Salvaged:
    """Make a new store of what can be read of this one. `now` is in seconds since 1970.

    Raises StoreError where nothing can be read, or the new store cannot be written.
    """
    with held(directory) as path, new_directory(target) as copy:
        schema.create(copy, now)
        with reading(path) as (source, found), closing(open_new(copy)) as out:
            out.execute("PRAGMA synchronous = OFF")     # synced when it is whole
            out.execute("BEGIN IMMEDIATE")
            rescue = _Rescue(source, found, out)
            rescue.definitions()
            rescue.messages(now, progress, every)
            rescue.tidy()
            out.execute("COMMIT")
        finish(copy, copy)
    return rescue.result


class _Rescue:
    """One salvage: what is read, what is written, and what was said of it."""

    def __init__(self, source: sqlite3.Connection, format_: int, out: NewStore) -> None:
        self.result = Salvaged()
        self._source = source
        self._format = format_
        self._out = out
        self._reader = MessageReader(read_own_properties)
        self._entries: dict[int, list[Row]] = {}        # by message number: queue and state
        self._queues: set[int] = set()

    # Definitions

    def definitions(self) -> None:
        """Bring over what is durable, and can be read."""
        for table in TABLES.values():
            columns = select_in(self._format, table.name, table.columns)
            self.result.saved[table.name] = 0 if columns is None else sum([
                self._define(table, row) for row in self._rows(table.name, columns)])
        self._queues = {number for number, in self._out.rows("SELECT number FROM queue_rows")}

    def _define(self, table: Table, row: Row) -> bool:
        definition = definition_of(table, row)
        if definition is not None:
            with suppress(sqlite3.IntegrityError):      # a second queue of that name: damage has many faces
                self._out.execute(table.upsert, table.row_of(definition))
                return True
        self.result.definitions_lost += 1
        return False

    # Messages

    def messages(self, now: int, progress: Progress, every: int) -> None:
        """Bring over messages that are sound, each into its queues."""
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
        """Return the columns of a message, which has no body in parts in earlier formats."""
        names = [*_MESSAGE] if has_parts(self._format) else [*_MESSAGE[:-2], "NULL", "NULL"]
        return ", ".join(names)

    def _rows_of_blocks(self) -> Iterator[tuple[Row, bool]]:
        """What the rows of messages in blocks would be."""
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
        """Which messages of a block wait, and which were delivered, where that can be read and is not as it was."""
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
        """The queue with this number; where that cannot be read, one in its place."""
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
        """Bring over the parts of a body, as far as they can be read."""
        if not isinstance(body_id, int):
            return
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
        """The entries of messages in several queues; those that only the index still has are without state."""
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
        """The numbers of messages that an index or the entries know, whatever their rows are like."""
        known = set(self._entries)
        index = {1: "messages_of_queue"}.get(self._format, "message_rows_of_queue")
        table = name_in(self._format, "message_rows")
        with suppress(*UNREADABLE):
            known.update(number for number, in self._source.execute(
                f"SELECT number FROM main.{table} INDEXED BY {index} WHERE queue IS NOT NULL"))
        return sorted(number for number in known if isinstance(number, int))

    @cached_property
    def _known_blocks(self) -> dict[int, int]:
        """How many messages were in the blocks that the index knows, by their first numbers."""
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

    # What holds together

    def tidy(self) -> None:
        """Leave nothing that hangs on what is not there, and give no number a second time."""
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
        """Delete definitions that no broker can be given; a queue's messages get a queue in its place."""
        while failed := restore(Broker(MemoryJournal()), self._definitions_saved()):
            definition = failed[0].definition       # what comes after it may only miss this one
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
        """Every row that can be read, in the order of its number."""
        search = _Search(self._source, f"main.{name_in(self._format, table)}", columns)
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


class _Search:
    """Looks for where a table can be read, and where it can be again.

    Row by row: of a query for many Python does not give the last row before one that cannot be read.
    """

    def __init__(self, source: sqlite3.Connection, name: str, columns: str) -> None:
        self._source = source
        self._query = f"SELECT rowid, {columns} FROM {name} WHERE rowid"

    def next_row(self, at: int) -> Row | None:
        """The first row from this number on. Raises sqlite3.Error where it cannot be read."""
        row: Row | None = self._source.execute(f"{self._query} >= ? ORDER BY rowid LIMIT 1", (at,)).fetchone()
        if row is not None and row[0] < at:
            raise sqlite3.DatabaseError("a damaged page leads back")
        return row

    def beyond(self, at: int, known: Sequence[int]) -> int | None:
        """The first number from `at` on that the table can be read from, as far as is known; None if there is none."""
        bad = at
        for place in range(bisect_left(known, at), len(known)):
            good = known[place]
            if self._has(good):
                break
            bad = good
        else:
            step = 1
            while not self._can_go_on(bad + step):
                step *= 2
                if bad + step > _LARGEST:
                    return None
            bad, good = bad + step // 2, bad + step
        while good - bad > 1:
            middle = (bad + good) // 2
            if self._can_go_on(middle):
                good = middle
            else:
                bad = middle
        return good

    def _has(self, number: int) -> bool:
        with suppress(*UNREADABLE):
            return self._source.execute(f"{self._query} = ?", (number,)).fetchone() is not None
        return False

    def _can_go_on(self, at: int) -> bool:
        with suppress(*UNREADABLE):
            self.next_row(at)
            return True
        return False


def _sound_state(redelivered: object, expires_at: object, deliveries: object) -> Row:
    """A state as it should be; of others a message stays rather than goes."""
    return (
        1 if redelivered else 0, expires_at if isinstance(expires_at, int) else None,
        deliveries if isinstance(deliveries, int) else 0)
