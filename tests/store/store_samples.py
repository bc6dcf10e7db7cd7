"""Shared by the tests of the store: small messages and queues, and copies of the files as a crash leaves them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from amqpd.broker.definitions import Defined, Definition, QueueDefinition
from amqpd.broker.queue.pages import NO_EXPIRY
from amqpd.message import Message, MessageProperties, Route, pack_content
from amqpd.store.journal import Journal
from amqpd.store.sqlite.store import Store

NOW = 1_800_000_000
PERSISTENT = b"\x10\x00\x02"        # flags, then delivery mode 2


def message(
    number: int, body: bytes = b"hello", *, exchange: str = "", routing_key: str = "orders",
    properties: bytes = PERSISTENT, holders: int = 0, frame_max: int = 131_072,
) -> Message:
    names = b"".join(bytes((len(name.encode()),)) + name.encode() for name in (exchange, routing_key))
    route = Route(exchange, routing_key, names, 1, frame_max)
    content = pack_content(1, frame_max, properties, body)
    return Message(number, route, MessageProperties(persistent=True), content, len(body), holders)


def queue(number: int, name: str = "", vhost: str = "/") -> QueueDefinition:
    return QueueDefinition(number, vhost, name or f"queue-{number}", durable=True)


def read_properties(properties: bytes) -> MessageProperties:
    return MessageProperties(persistent=True)


def save(store: Store, journal: Journal) -> None:
    """Commit the journal's batch, and check the store."""
    store.commit(journal.take())
    store.check()


def define(journal: Journal, *definitions: Definition) -> None:
    for definition in definitions:
        journal.changed(Defined(definition))


def settle(journal: Journal, definition: QueueDefinition, run: Iterable[Message]) -> None:
    """Record that these messages have left this queue."""
    journal.settled(definition, [message.number for message in run])


def crash(directory: Path, to: Path) -> Path:
    """A directory with what the disk would hold, had the process been killed now."""
    to.mkdir(mode=0o700)
    for name in ("amqpd.db", "amqpd.db-wal", "amqpd.log-number"):
        if (directory / name).exists():
            shutil.copy(directory / name, to / name)
    return to


def query(directory: Path, sql: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
    """Ask, or change, a store that no broker has open; as any SQLite tool could."""
    with closing(sqlite3.connect(directory / "amqpd.db")) as connection, connection:
        return connection.execute(sql, tuple(parameters)).fetchall()


def contents(messages: Iterable[Message]) -> list[tuple[int, str, str, bytes, bytes]]:
    """What must come back of messages."""
    return [(m.number, m.route.exchange, m.route.routing_key, m.properties, bytes(m.body)) for m in messages]


class Whole(NamedTuple):
    """What a store restores, with contents; by queue number, and only for messages that have a value."""

    definitions: list[Definition]
    messages: dict[int, list[Message]]
    redelivered: dict[int, set[int]]
    expiries: dict[int, dict[int, int]]
    deliveries: dict[int, dict[int, int]]
    damaged: int
    was_clean: bool


def load(store: Store, facts_of: Callable[[bytes], MessageProperties] = read_properties) -> Whole:
    """Load a store, and fetch all that waits in it."""
    found = store.load(facts_of)
    before = store.info().damaged - found.damaged
    messages = {queue: store.fetch(waiting.numbers.tolist()) for queue, waiting in found.messages.items()}
    redelivered, expiries, deliveries = {}, {}, {}
    for queue, run in messages.items():
        numbers = {message.number for message in run}
        bound = found.redelivered_to.get(queue, 0)
        redelivered[queue] = {
            number for number in numbers if number <= bound or number in found.redelivered.get(queue, set())}
        waiting = found.messages[queue]
        ends = {
            number: end for number, end in zip(waiting.numbers, waiting.expiries or ())
            if end != NO_EXPIRY and number in numbers}
        if ends:
            expiries[queue] = ends
        counts = {number: n for number, n in found.deliveries.get(queue, {}).items() if number in numbers}
        if counts:
            deliveries[queue] = counts
    return Whole(
        found.definitions, messages, redelivered, expiries, deliveries, store.info().damaged - before,
        found.was_clean)
