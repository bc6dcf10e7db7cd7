"""What the tests of the store share: small messages and queues, and the files of a store as a crash leaves them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from amqpd.broker.definitions import Defined, Definition, QueueDefinition
from amqpd.message import Facts, Message, Route, pack_content
from amqpd.store.journal import Journal
from amqpd.store.store import Store

NOW = 1_800_000_000
PERSISTENT = b"\x10\x00\x02"        # flags, then delivery mode 2


def message(
    number: int, body: bytes = b"hello", *, exchange: str = "", routing_key: str = "orders",
    properties: bytes = PERSISTENT, holders: int = 0, frame_max: int = 131_072,
) -> Message:
    names = b"".join(bytes((len(name.encode()),)) + name.encode() for name in (exchange, routing_key))
    route = Route(exchange, routing_key, names, 1, frame_max)
    content = pack_content(1, frame_max, properties, body)
    return Message(number, route, Facts(persistent=True), content, len(body), holders)


def queue(number: int, name: str = "", vhost: str = "/") -> QueueDefinition:
    return QueueDefinition(number, vhost, name or f"queue-{number}", durable=True)


def read_facts(properties: bytes) -> Facts:
    return Facts(persistent=True)


def save(store: Store, journal: Journal) -> None:
    """Commit what the journal holds, and look whether the store is still in order."""
    store.commit(journal.take())
    store.check()


def define(journal: Journal, *definitions: Definition) -> None:
    for definition in definitions:
        journal.changed(Defined(definition))


def crash(directory: Path, to: Path) -> Path:
    """A directory with what the disk would hold, had the process been killed now."""
    to.mkdir(mode=0o700)
    for name in ("amqpd.db", "amqpd.db-wal"):
        if (directory / name).exists():
            shutil.copy(directory / name, to / name)
    return to


def query(directory: Path, sql: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
    """Ask, or change, a store that no broker has open; as any SQLite tool could."""
    with closing(sqlite3.connect(directory / "amqpd.db")) as connection, connection:
        return connection.execute(sql, tuple(parameters)).fetchall()


def contents(messages: Iterable[Message]) -> list[tuple[int, str, str, bytes, bytes]]:
    """What must come back of messages."""
    return [(m.number, m.route.exchange, m.route.routing_key, m.properties, m.body) for m in messages]
