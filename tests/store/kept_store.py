"""A store with three hundred messages after a crash, and a check of what must be left of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition, VhostDefinition
from amqpd.store import files
from amqpd.store.journal import Journal
from amqpd.store.sqlite import connecting
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.rows.message_blocks import BlockLimits
from amqpd.store.sqlite.store import Store
from amqpd.store.tools.checking import findings
from amqpd.store.tools.stopped import reading
from tests.store.store_samples import NOW, crash, define, load, message, query, queue, save

ONE, TWO = queue(1), queue(2)
EXCHANGE = ExchangeDefinition("/", "e", "topic", durable=True)
BINDING = BindingDefinition("/", "e", "queue", "queue-1", "a.#")
BODIES = {number: b"%d " % number * (number % 40) for number in range(1, 301)}
BOTH = range(100, 120)      # in both queues, the others in the first


def keep(directory: Path, *, in_blocks: bool) -> Path:
    """Return the directory of a new store as a crash leaves it: some of what is in it is in the log only.

    All messages but those of both queues, one that ends and a large one can be in blocks; or else none is.
    """
    blocks = BlockLimits() if in_blocks else BlockLimits(fewest=len(BODIES) + 1)
    store = Store.open(directory, now=NOW, limits=StoreLimits(blocks=blocks))
    load(store)
    journal = Journal()
    define(journal, VhostDefinition("/"), ONE, TWO, EXCHANGE, BINDING)
    run = [message(number, BODIES[number], holders=2 * (number in BOTH)) for number in BODIES]
    run[149] = message(150, large_body())
    journal.published(ONE, run[:200], {5: 1_900_000_000_000})
    journal.published(TWO, [run[number - 1] for number in BOTH])
    for one in (ONE, TWO):
        journal.watermark_raised(one, len(BODIES))
    save(store, journal)
    store.database.checkpoint()
    journal.published(ONE, run[200:])
    save(store, journal)
    crashed = crash(directory, directory.with_name("kept"))
    store.abandon()
    return crashed


def large_body() -> bytes:
    return random.Random(1).randbytes(50_000)


def stop(directory: Path) -> Path:
    """Start on a store and stop it cleanly, so that all is in the file."""
    store = Store.open(directory, now=NOW)
    load(store)
    store.close({})
    return directory


def tree(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != files.LOCK}


def checked(directory: Path) -> list[str]:
    with reading(directory / connecting.DATABASE) as (connection, _):
        return list(findings(connection))


def expect_kept(directory: Path, opened: Callable[..., Store], *, without: frozenset[int] = frozenset()) -> None:
    """See that a broker finds there what was kept, all of it as redelivered."""
    assert checked(directory) == []
    store = opened(directory)
    found = load(store)
    store.check()
    whole = {number: large_body() if number == 150 else body for number, body in BODIES.items()}
    assert {m.number: m.body for m in found.messages[1]} == {
        number: body for number, body in whole.items() if number not in without}
    assert [m.number for m in found.messages[2]] == [number for number in BOTH if number not in without]
    assert found.redelivered == {queue: {m.number for m in run} for queue, run in found.messages.items()}
    assert [ONE, TWO] == [d for d in found.definitions if isinstance(d, QueueDefinition)]
    assert EXCHANGE in found.definitions and BINDING in found.definitions
    store.abandon()


def page_of(directory: Path, table: str) -> int:
    """A page with rows of this table, by its root: the second child of that, counted from 1."""
    root, = query(directory, f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'")[0]
    octets = (directory / "amqpd.db").read_bytes()
    page = octets[(root - 1) * 4096:root * 4096]
    assert page[0] == 5, "the root has no children"
    cell = int.from_bytes(page[14:16])      # the second of the cell pointers, which begin at 12
    return int.from_bytes(page[cell:cell + 4])


def spoil(directory: Path, page: int) -> None:
    with (directory / "amqpd.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
