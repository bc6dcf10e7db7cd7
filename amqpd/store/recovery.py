"""What the store holds, read back at start: definitions, and the messages of each durable queue.

Nothing damaged passes: a message whose checksum does not fit, or that no queue's entry leads to, is moved to
the table `damaged` and counted, and never delivered.
"""

from __future__ import annotations

import json
import sqlite3
from binascii import crc32
from collections.abc import Callable, Iterable
from operator import attrgetter

import msgspec

from amqpd.broker.definitions import Definition, QueueDefinition
from amqpd.message import Facts, Message, Route, pack_content
from amqpd.store.rows import TABLES

_CHANNEL = 1
_FRAME_MAX = 131_072
_REMEMBERED = 10_000        # different routes, and different properties

# A flipped bit can make another type of a value: then it is as if there were none.
_MARKS = "redelivered, CASE typeof(expires_at) WHEN 'integer' THEN expires_at END, CAST(deliveries AS INTEGER)"
_SELECT_MESSAGES = f"""
    SELECT number, queue, CAST(exchange AS BLOB), CAST(routing_key AS BLOB), properties, body, checksum, {_MARKS}
    FROM message_rows ORDER BY number"""
_SELECT_ENTRIES = f"SELECT queue, number, {_MARKS} FROM entries"

_number = attrgetter("number")


class Recovered(msgspec.Struct, frozen=True):
    """What the last run left.

    `definitions` come in an order in which they can be restored. `messages` has an item for each durable queue,
    by number, its messages in order; `redelivered` the numbers of those that may have been delivered before.
    `expiries` and `deliveries` have, by queue and message number, when a message expires in ms since 1970, and how
    often it had been delivered when it was last put back; only of those that do, and were. `damaged` is how many
    rows did not pass their check this time.
    """

    definitions: list[Definition]
    messages: dict[int, list[Message]]
    redelivered: dict[int, set[int]]
    expiries: dict[int, dict[int, int]]
    deliveries: dict[int, dict[int, int]]
    damaged: int
    was_clean: bool


def recover(
    connection: sqlite3.Connection, read_facts: Callable[[bytes], Facts], *, was_clean: bool, now: int
) -> Recovered:
    """Read everything, within a transaction. After an unclean stop any message may have been delivered before.

    Raises sqlite3.Error, and what `read_facts` raises.
    """
    definitions = [
        table.definition_of(row) for table in TABLES.values() for row in connection.execute(table.select)]
    queues = [definition.number for definition in definitions if isinstance(definition, QueueDefinition)]
    reading = _Reading(queues, read_facts)
    reading.read_messages(connection)
    reading.read_entries(connection)
    if reading.damaged or reading.has_stray_entries:
        _set_aside(connection, reading.damaged, now)
    messages = reading.messages
    redelivered = reading.redelivered
    if not was_clean:
        redelivered = {queue: {message.number for message in run} for queue, run in messages.items()}
    return Recovered(
        definitions, messages, redelivered, reading.expiries, reading.deliveries, len(reading.damaged), was_clean)


class _Reading:
    """The messages that have been read so far, and what was wrong with others."""

    def __init__(self, queues: Iterable[int], read_facts: Callable[[bytes], Facts]) -> None:
        self.messages: dict[int, list[Message]] = {queue: [] for queue in queues}
        self.redelivered: dict[int, set[int]] = {queue: set() for queue in self.messages}
        self.expiries: dict[int, dict[int, int]] = {}
        self.deliveries: dict[int, dict[int, int]] = {}
        self.damaged: list[int] = []
        self.has_stray_entries = False
        self._shared: dict[int, Message] = {}
        self._read_facts = read_facts
        self._routes: dict[tuple[bytes, bytes], tuple[Route, int]] = {}
        self._facts: dict[bytes, Facts] = {}

    def read_messages(self, connection: sqlite3.Connection) -> None:
        """Read every row of `messages`."""
        routes, facts, messages = self._routes, self._facts, self.messages
        for (number, queue, exchange, routing_key, properties, body, checksum,
             redelivered, expires_at, deliveries) in connection.execute(_SELECT_MESSAGES):
            try:
                route, names_sum = routes.get((exchange, routing_key)) or self._route(exchange, routing_key)
                is_sound = crc32(body, crc32(properties, names_sum)) == checksum
            except (TypeError, ValueError):     # a flipped bit can make another type of a value, or no text of a name
                is_sound = False
            if not is_sound or not (queue is None or queue in messages):
                self.damaged.append(number)
                continue
            message = Message(
                number, route, facts.get(properties) or self._remember_facts(properties),
                pack_content(_CHANNEL, _FRAME_MAX, properties, body), len(body))
            if queue is None:
                self._shared[number] = message
            else:
                messages[queue].append(message)
                if redelivered or expires_at is not None or deliveries:
                    self._mark(queue, number, redelivered, expires_at, deliveries)

    def _route(self, exchange: bytes, routing_key: bytes) -> tuple[Route, int]:
        """The route of these names, and the checksum to go on from. Raises TypeError, ValueError for no such names."""
        octets = bytes((len(exchange),)) + exchange + bytes((len(routing_key),)) + routing_key
        route = Route(exchange.decode(), routing_key.decode(), octets, _CHANNEL, _FRAME_MAX)
        if len(self._routes) >= _REMEMBERED:
            self._routes.clear()
        self._routes[exchange, routing_key] = found = route, crc32(octets)
        return found

    def _remember_facts(self, properties: bytes) -> Facts:
        facts = self._read_facts(properties)
        if len(self._facts) >= _REMEMBERED:
            self._facts.clear()
        self._facts[properties] = facts
        return facts

    def read_entries(self, connection: sqlite3.Connection) -> None:
        """Put the messages of several queues into each of them."""
        touched: set[int] = set()
        for queue, number, *marks in connection.execute(_SELECT_ENTRIES):
            message, run = self._shared.get(number), self.messages.get(queue)
            if message is None or run is None:
                self.has_stray_entries = True
                continue
            message.holders += 1
            run.append(message)
            touched.add(queue)
            self._mark(queue, number, *marks)
        for queue in touched:
            self.messages[queue].sort(key=_number)
        self.damaged += [number for number, message in self._shared.items() if not message.holders]

    def _mark(self, queue: int, number: int, redelivered: int, expires_at: int | None, deliveries: int) -> None:
        if redelivered:
            self.redelivered[queue].add(number)
        if expires_at is not None:
            self.expiries.setdefault(queue, {})[number] = expires_at
        if deliveries:
            self.deliveries.setdefault(queue, {})[number] = deliveries


def _set_aside(connection: sqlite3.Connection, damaged: list[int], now: int) -> None:
    """Move damaged rows out of the way, and drop the entries that lead nowhere."""
    columns = "number, queue, exchange, routing_key, properties, body, checksum, redelivered, expires_at, deliveries"
    numbers = json.dumps(damaged)
    connection.execute(
        f"INSERT INTO damaged ({columns}, noticed) SELECT {columns}, ? FROM message_rows "
        "WHERE number IN (SELECT value FROM json_each(?))", (now, numbers))
    connection.execute("DELETE FROM message_rows WHERE number IN (SELECT value FROM json_each(?))", (numbers,))
    connection.execute(
        "DELETE FROM entries WHERE number NOT IN (SELECT number FROM message_rows) "
        "OR queue NOT IN (SELECT number FROM queue_rows)")
