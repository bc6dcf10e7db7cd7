"""The space of a store: it is used again, given back, and the log stays small."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpd.message import Message
from amqpd.store.journal import Journal
from amqpd.store.sqlite import shrinking
from amqpd.store.sqlite.limits import LARGEST_WAL, StoreLimits
from amqpd.store.sqlite.store import Store
from amqpd.store.tools.compacting import compact
from tests.store.store_samples import contents, crash, define, load, message, queue, settle
from tests.store.test_store_upgrade import make_old

ONE = queue(1)
PAGE = 4096
RUN = 500           # messages of a batch


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    """Return an open, empty store without syncs: only its size matters here."""
    store = opened(durability="process")
    load(store)
    return store


@pytest.fixture
def journal() -> Journal:
    journal = Journal()
    define(journal, ONE)
    return journal


def write(store: Store, journal: Journal) -> None:
    """What the committer's thread does with a batch."""
    store.commit(journal.take())
    store.checkpoint_if_due()


def fill(store: Store, journal: Journal, count: int, first: int, size: int = 1_000) -> list[list[Message]]:
    body = os.urandom(size)
    backlog = []
    for start in range(first, first + count, RUN):
        backlog.append([message(number, body) for number in range(start, start + RUN)])
        journal.published(ONE, backlog[-1])
        write(store, journal)
    return backlog


def drain(store: Store, journal: Journal, backlog: list[list[Message]]) -> None:
    for run in backlog:
        settle(journal, ONE, run)
        write(store, journal)


def size(store: Store) -> int:
    """The octets of the file, once all of the log is in it."""
    store.database.checkpoint()
    return store.info().file_bytes


@pytest.mark.parametrize("octets, count", [(20, 20_000), (1_000, 10_000), (30_000, 500)])
def test_the_room_of_a_drained_backlog_is_used_again(store, journal, octets, count):
    drain(store, journal, fill(store, journal, count, 1, octets))
    first = size(store)
    for round_ in range(1, 4):
        drain(store, journal, fill(store, journal, count, 1 + round_ * count, octets))
    print(f"\n{count} messages of {octets} octets: {first} octets after the first time, {size(store)} after the fourth")
    assert size(store) <= 1.02 * first + 32 * PAGE


def test_a_backlog_that_moves_on_takes_no_more_room(store, journal):
    backlog = fill(store, journal, 5_000, 1)
    first = size(store)
    for start in range(5_001, 30_001, RUN):
        backlog += fill(store, journal, RUN, start)
        drain(store, journal, [backlog.pop(0)])
    # One batch of ten more is there at times.
    assert size(store) <= 1.15 * first


def shrink(store: Store) -> int:
    """What the committer's thread does while it has nothing to write; how many pieces that were."""
    pieces = 1
    while store.shrink():
        pieces += 1
        assert pieces < 1_000
    return pieces


def test_an_idle_store_gives_back_what_a_backlog_took(store, journal, directory, tmp_path, opened):
    drain(store, journal, fill(store, journal, 36_000, 1))
    left = fill(store, journal, RUN, 100_001)
    before = size(store)
    pieces = shrink(store)
    print(f"\n{before >> 20} MiB before, {size(store) >> 20} MiB after {pieces} pieces")
    assert size(store) <= (StoreLimits().kept_free_pages + 400) * PAGE < before / 2
    store.check()
    found = load(opened(crash(directory, tmp_path / "crash")))
    assert contents(found.messages[1]) == contents([m for run in left for m in run])


def test_a_store_killed_while_it_shrinks_has_lost_nothing(store, journal, directory, tmp_path, opened):
    backlog = fill(store, journal, 48_000, 1)
    drain(store, journal, backlog[:-2])
    size(store)
    pieces = 0
    while store.shrink():
        pieces += 1
        if pieces % 4 == 1:
            again = opened(crash(directory, tmp_path / f"crash-{pieces}"))
            assert contents(load(again).messages[1]) == contents([m for run in backlog[-2:] for m in run])
            again.check()
            again.abandon()
    assert pieces > 4


def test_an_idle_store_gives_back_a_piece_at_a_time_and_keeps_its_log_short(opened, journal):
    store = opened(durability="process", limits=StoreLimits(largest_wal=1 << 12, long_wal=1 << 13))
    load(store)
    drain(store, journal, fill(store, journal, 2 * RUN, 1))
    while store.has_to_sweep:
        store.sweep()

    def free() -> int:
        pages: int = store.database.connection.execute("PRAGMA freelist_count").fetchone()[0]
        return pages

    before, left = size(store), free()
    free_at_first = left
    assert left > 200
    for piece, kept in ((20, left - 40), (20, left - 65), (1, left - 65), (1, left - 66)):
        limits = StoreLimits(kept_free_pages=kept, shrink_pages=piece)
        while left > kept:
            left = max(kept, left - piece)
            assert shrinking.shrink(store.database, limits) == (left > kept)
            assert free() == left and not store.database.is_checkpoint_due()
        assert store.database.wal.size == 0 and store.info().file_bytes == before - (free_at_first - left) * PAGE
        assert not shrinking.shrink(store.database, limits) and free() == left


def test_what_is_in_use_keeps_as_much_room_beside_it(store, journal):
    backlog = fill(store, journal, 36_000, 1)
    drain(store, journal, backlog[:30])
    before = size(store)
    shrink(store)
    assert size(store) == before, "less than half was free"


def test_a_small_store_is_left_alone(store, journal):
    drain(store, journal, fill(store, journal, 5_000, 1))
    before = size(store)
    assert not store.shrink()
    assert size(store) == before


def test_a_store_that_was_made_in_format_1_shrinks_once_it_was_compacted(directory: Path, opened: Callable[..., Store]):
    directory.mkdir(mode=0o700)
    old = opened(make_old(directory, 1))
    load(old)
    assert old.database.connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    assert not old.shrink()
    old.close({})
    compact(directory)
    assert opened().database.connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


# The log

def test_the_log_stays_bounded_under_endless_load(store, journal):
    largest, backlog = 0, [[message(0)]]
    journal.published(ONE, backlog[0])
    for start in range(1, 50_001, RUN):
        backlog += fill(store, journal, RUN, start)
        drain(store, journal, [backlog.pop(0)])
        largest = max(largest, store.info().wal_bytes)
    print(f"\n50,000 messages of 1,000 octets: the log had {largest / (1 << 20):.1f} MiB at most")
    assert LARGEST_WAL / 2 < largest <= LARGEST_WAL + (1 << 20), f"the log had {largest} octets"


def test_a_log_that_is_never_written_back_would_be_caught(opened, journal):
    """Teeth of the test above."""
    store = opened(limits=StoreLimits(largest_wal=1 << 40))
    load(store)
    with pytest.raises(AssertionError, match="the log had"):
        test_the_log_stays_bounded_under_endless_load(store, journal)


def test_a_backup_that_takes_long_does_not_let_the_log_grow(store, journal, tmp_path):
    backlog = fill(store, journal, 20_000, 1)
    largest = 0
    numbers = iter(range(100_001, 10_000_000, RUN))

    def between(left: int, total: int) -> None:
        nonlocal largest
        backlog.extend(fill(store, journal, RUN, next(numbers)))
        drain(store, journal, [backlog.pop(0)])
        largest = max(largest, store.info().wal_bytes)

    store.backup(tmp_path / "copy.db", between)
    assert next(numbers) > 110_000
    assert largest <= LARGEST_WAL + (1 << 20)
