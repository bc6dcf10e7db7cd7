"""Message blocks: which messages share a row, how each leaves it, and the effect of a flipped bit."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from amqpd.broker.definitions import Deleted, VhostDefinition
from amqpd.message import MessageProperties
from amqpd.store.bits import bits_of
from amqpd.store.errors import StoreError
from amqpd.store.rows import message_blocks, waiting
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.rows.message_blocks import (
    FEWEST,
    LARGEST,
    MOST_BYTES,
    SPAN,
    pack_flags,
    pack_blocks,
    unpack_flags,
)
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import checked, stop, tree
from tests.store.store_samples import (
    NOW, PERSISTENT, contents, crash, define, load, message, query, queue, read_properties, save, settle)
from tests.support.sizes import sized

ONE, TWO = queue(1), queue(2)


def run_of(numbers) -> list:
    return [message(number, b"%d" % number, routing_key=f"key-{number % 7}") for number in numbers]


def packed(messages, marked=()) -> tuple[list[list[int]], list[int]]:
    """Return the numbers of the messages of each block, and of those in no block."""
    rows, single = pack_blocks(1, {m.number: m for m in messages}, marked)
    blocks = [[row[0] + place for place, _ in message_blocks.places_and_sizes(row[5])] for row in rows]
    for row, numbers in zip(rows, blocks):
        sizes = [m.body_size for m in messages if m.number in numbers]
        assert row[:5] == (numbers[0], numbers[-1], 1, len(numbers), sum(sizes))
    return blocks, sorted(single)


# Which do

def test_a_block_has_sixteen_messages_or_more():
    assert packed(run_of(range(1, FEWEST))) == ([], [*range(1, FEWEST)])
    assert packed(run_of(range(1, FEWEST + 1))) == ([[*range(1, FEWEST + 1)]], [])


def test_a_block_is_in_the_order_of_numbers():
    assert packed(run_of(range(40, 0, -1))) == ([[*range(1, 41)]], [])


@pytest.mark.parametrize("other", [
    message(21, os.urandom(LARGEST)), message(21, bytes(200), frame_max=108), message(21, holders=2),
    structs.replace(message(21), facts=MessageProperties(persistent=True, priority=5)),
], ids=["large", "two frames", "two queues", "priority"])
def test_a_message_that_is_not_plain_has_a_row_of_its_own(other):
    assert packed([*run_of(range(1, 21)), other]) == ([[*range(1, 21)]], [21])


@pytest.mark.parametrize("size, shares", [(LARGEST, True), (LARGEST + 1, False)])
def test_the_largest_message_of_a_block_has_two_kib_of_frames(size, shares):
    empty = message(21, b"x")
    largest = message(21, bytes(size - len(empty.content) + 1))
    assert len(largest.content) == size
    blocks, single = packed([*run_of(range(1, 21)), largest])
    assert (blocks[0][-1] == 21, single) == (shares, [] if shares else [21])


def test_a_message_with_marks_has_a_row_of_its_own(store, journal, on_disk):
    journal.published(ONE, run_of(range(1, 31)), {7: 1_900_000_000_000})
    journal.requeued(ONE, {8: 2})
    save(store, journal)
    assert on_disk("SELECT number, expires_at, deliveries FROM message_rows") == [
        (7, 1_900_000_000_000, 0), (8, None, 2)]
    assert on_disk("SELECT first, last, count FROM message_blocks") == [(1, 30, 28)]


def test_a_block_ends_where_it_is_large_or_its_numbers_are_far_apart():
    bodies = [message(number, bytes(1_000)) for number in range(1, 100)]
    blocks, single = packed(bodies)
    sizes = [sum([len(bodies[number - 1].content) + len(bodies[number - 1].route.packed_names) for number in block])
             for block in blocks]
    assert len(blocks) > 2 and len(single) < FEWEST
    assert all(MOST_BYTES <= size < MOST_BYTES + LARGEST for size in sizes)
    assert packed(run_of([*range(1, 21), *range(SPAN + 1, SPAN + 21)])) == (
        [[*range(1, 21)], [*range(SPAN + 1, SPAN + 21)]], [])
    assert packed(run_of([*range(1, 21), *range(SPAN + 1, SPAN + 10)])) == (
        [[*range(1, 21)]], [*range(SPAN + 1, SPAN + 10)])


@pytest.mark.parametrize("sent", [
    message(1, b""), message(1, properties=b"\x00\x00"), message(1, exchange="e" * 255, routing_key="k" * 255),
    message(1, exchange="Ünïcode", routing_key="nul \x00"),
], ids=["empty", "no properties", "long names", "odd names"])
def test_a_message_in_a_block_comes_back_octet_for_octet(store, journal, after_crash, sent):
    run = [sent, *run_of(range(2, 31))]
    journal.published(ONE, run)
    save(store, journal)
    back = after_crash().messages[1]
    assert contents(back) == contents(run)
    assert [(m.body_size, m.route.packed_names, m.content) for m in back] == [
        (m.body_size, m.route.packed_names, m.content) for m in run]


# What becomes of them

@pytest.fixture
def saved(store, journal):
    """Messages 1 to 60 of the first queue and 101 to 160 of both queues in turn, in blocks on disk."""
    first, both = run_of(range(1, 61)), run_of(range(101, 161))
    journal.published(ONE, first)
    save(store, journal)
    journal.published(ONE, both[::2])
    journal.published(TWO, both[1::2])
    save(store, journal)
    return {m.number: m for m in first + both}


def test_a_block_is_deleted_with_its_last_message(store, journal, saved, on_disk):
    settle(journal, ONE, [saved[number] for number in range(1, 60)])
    save(store, journal)
    assert on_disk("SELECT count(*) FROM message_blocks WHERE first = 1") == [(1,)]
    settle(journal, ONE, [saved[60]])
    save(store, journal)
    store.check()
    assert on_disk("SELECT first FROM message_blocks WHERE first < 100 UNION ALL SELECT first FROM block_flags") == []
    assert store.info().messages == 60


def test_of_a_block_with_one_gap_the_last_message_leaves_as_well(store, journal):
    numbers = [number for number in range(1, 2 * FEWEST + 2) if number != FEWEST]
    run = run_of(numbers)
    journal.published(ONE, run)
    save(store, journal)
    settle(journal, ONE, run[:-1])
    save(store, journal)
    assert store.info().messages == 1
    settle(journal, ONE, run[-1:])
    save(store, journal)
    assert store.info().messages == 0


def test_messages_are_read_from_any_blocks_and_rows(store, journal, saved):
    single = [message(number) for number in (200, 201)]
    journal.published(ONE, single)
    settle(journal, ONE, [saved[50]])
    save(store, journal)
    numbers = [1, 2, 49, 50, 51, 101, 102, 103, 104, 160, 161, 200, 201, 999]
    known = saved | {m.number: m for m in single}
    assert contents(store.fetch(numbers)) == contents(
        [known[number] for number in numbers if number in known and number != 50])


def test_a_counted_message_gets_a_row_of_its_own(store, journal, saved, after_crash, on_disk):
    journal.requeued(ONE, {3: 2, 103: 1})
    journal.requeued(TWO, {104: 5})
    save(store, journal)
    store.check()
    assert on_disk("SELECT number, deliveries FROM message_rows") == [(3, 2), (103, 1), (104, 5)]
    found = after_crash()
    assert found.deliveries == {1: {3: 2, 103: 1}, 2: {104: 5}}
    assert contents(found.messages[1]) == contents([m for m in saved.values() if m.number < 100 or m.number % 2])


def test_what_was_delivered_is_known_after_a_stop_and_kept_by_what_follows(store, journal, saved, directory, opened):
    store.close({1: [2, 5, 7], 2: [102]})
    again = opened()
    assert load(again).redelivered == {1: {2, 5, 7}, 2: {102}}
    settle(journal, ONE, [saved[2], saved[9]])
    journal.requeued(ONE, {5: 1, 6: 1})
    save(again, journal)
    again.check()
    again.close({1: [8]})
    third = opened()
    assert load(third).redelivered == {1: {5, 7, 8}, 2: {102}}
    third.check()


def test_a_deleted_queue_takes_its_blocks_with_it(store, journal, saved, on_disk):
    settle(journal, ONE, [saved[1]])
    save(store, journal)
    journal.changed(Deleted(ONE))
    save(store, journal)
    store.check()
    assert on_disk("SELECT queue FROM message_blocks") == [(2,)]
    assert on_disk("SELECT * FROM block_flags") == []
    assert store.info().messages == 30


# Marks

@given(places=st.sets(st.integers(0, SPAN - 1), min_size=1), data=st.data())
def test_marks_are_read_as_they_were_written(places, data):
    redelivered = data.draw(st.sets(st.sampled_from(sorted(places))))
    bits, of_them = bits_of(sorted(places)), bits_of(sorted(redelivered)) if redelivered else 0
    assert unpack_flags(pack_flags(bits, of_them)) == (bits, of_them)


def test_a_flipped_bit_in_marks_makes_no_message_leave():
    marks = pack_flags(0b1011, 0b0010)
    for at in range(len(marks)):
        for bit in range(8):
            flipped = bytearray(marks)
            flipped[at] ^= 1 << bit
            assert unpack_flags(bytes(flipped))[0] & 0b1011 == 0b1011


# Damage

@pytest.fixture
def stopped(store, journal, directory, saved):
    """The same, stopped, and four messages of the first block have left."""
    settle(journal, ONE, [saved[number] for number in (4, 20, 21, 60)])
    define(journal, VhostDefinition("/"))
    save(store, journal)
    store.close({1: [7]})
    return directory


GONE = {4, 20, 21, 60}


@pytest.mark.proof
@pytest.mark.parametrize("column", ["heads", "contents"])
def test_a_flipped_bit_takes_one_message_and_is_told_of(stopped, saved, tmp_path, opened, column):
    chance = random.Random(7)
    octets, = query(stopped, f"SELECT {column} FROM message_blocks WHERE first = 1")[0]
    lost = 0
    rounds = sized(8, 80)
    for round_ in range(rounds):
        directory = crash(stopped, tmp_path / f"flipped-{round_}")
        flipped = bytearray(octets)
        flipped[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
        query(directory, f"UPDATE message_blocks SET {column} = ? WHERE first = 1", [bytes(flipped)])
        before = tree(directory)
        assert len(checked(directory)) >= 1
        rescued = salvage(directory, directory.with_name(f"salvaged-{round_}"), NOW)
        assert tree(directory) == before and rescued.damaged == 1
        for place in (directory, directory.with_name(f"salvaged-{round_}")):
            store = opened(place)
            found = load(store)
            store.check()
            store.abandon()
            missing = {number for number in saved if number < 100} - {m.number for m in found.messages[1]} - GONE
            assert len(missing) <= store.info().damaged <= 1        # it may be of one that has left
            assert contents(found.messages[1] + found.messages[2]) == contents(
                sorted([m for m in saved.values() if m.number not in missing | GONE],
                       key=lambda m: (m.number > 100 and not m.number % 2, m.number)))
            lost += len(missing)
        shutil.rmtree(directory)
    assert lost > 1.5 * rounds


def test_each_damaged_message_of_a_block_is_counted(stopped, opened):
    (heads, octets), = query(stopped, "SELECT heads, contents FROM message_blocks WHERE first = 1")
    flipped = bytearray(octets)
    for place, start, *_ in message_blocks.iter_heads(heads):
        if place in (9, 11, 12):
            flipped[start + 3] ^= 1
    query(stopped, "UPDATE message_blocks SET contents = ? WHERE first = 1", [bytes(flipped)])
    store = opened()
    found = load(store)
    assert (found.damaged, store.info().damaged, store.info().messages) == (3, 3, 60 - len(GONE) - 3 + 60)
    assert [number for number in range(1, 61) if number not in {m.number for m in found.messages[1]}] == sorted(
        GONE | {10, 12, 13})
    store.check()


@pytest.mark.parametrize("damage", [
    "UPDATE message_blocks SET bytes = bytes + 1 WHERE first = 1",
    "UPDATE message_blocks SET count = 3 WHERE first = 1",
    "UPDATE message_blocks SET last = 61 WHERE first = 1", "UPDATE block_flags SET flags = flags || '++'",
    "UPDATE message_blocks SET heads = CAST(heads AS TEXT) || 'torn' WHERE first = 1",
    "UPDATE message_blocks SET bytes = 'many' WHERE first = 1",
])
def test_what_does_not_fit_together_is_told_of_and_takes_nothing(stopped, saved, opened, damage):
    query(stopped, damage)
    assert any("the message block from 1 on is damaged" in finding for finding in checked(stopped))
    store = opened()
    found = load(store)
    store.check()
    assert {m.number for m in found.messages[1]} >= {n for n in saved if n < 100 or n % 2} - GONE
    store.close({})
    assert checked(stopped) == []


@pytest.mark.parametrize("damage, finding", [
    ("UPDATE message_blocks SET queue = 9 WHERE first = 1", "message 1 begins a message block in no queue there is"),
    ("DELETE FROM message_blocks WHERE first = 1", "message 1 has flags, but begins no message block"),
])
def test_a_block_that_leads_nowhere_is_told_of(stopped, opened, damage, finding):
    query(stopped, damage)
    assert checked(stopped) == [finding]
    store = opened()
    assert {m.number for m in load(store).messages[1]} == {*range(101, 160, 2)}
    store.check()


def test_a_block_of_an_unknown_queue_is_set_aside(stopped, opened):
    query(stopped, "UPDATE message_blocks SET queue = 9 WHERE first = 1")
    store = opened()
    load(store)
    store.close({})
    assert [number for number, in query(stopped, "SELECT number FROM damaged")] == [
        number for number in range(1, 61) if number not in GONE]
    assert checked(stop(stopped)) == []


def test_properties_that_cannot_be_read_take_one_message_out_of_a_run(store, journal, directory, tmp_path, opened):
    odd = b"\x10\x00\x01"
    define(journal, VhostDefinition("/"))
    journal.published(ONE, [
        message(n, b"%d" % n, exchange="events", properties=odd if n == 7 else PERSISTENT)
        for n in range(1, 2 * FEWEST)])
    save(store, journal)

    def read(properties: bytes) -> MessageProperties:
        if properties == odd:
            raise ValueError("properties of another day")
        return read_properties(properties)

    crashed = crash(directory, tmp_path / "crash")
    assert query(crashed, "SELECT count FROM message_blocks") == [(2 * FEWEST - 1,)]
    for _ in range(2):      # from the block, and from the rows that it was taken apart into
        again = opened(crashed)
        found = load(again, read)
        assert contents(found.messages[1]) == [
            (n, "events", "orders", PERSISTENT, b"%d" % n) for n in range(1, 2 * FEWEST) if n != 7]
        again.close({})
    assert query(crashed, "SELECT number FROM damaged") == [(7,)] and checked(crashed) == []


def test_damage_that_comes_while_the_broker_runs_is_set_aside_when_it_is_read(store, saved, caplog):
    store.database.connection.execute("UPDATE message_blocks SET contents = zeroblob(length(contents)) WHERE first = 1")
    assert [m.number for m in store.fetch([5, 6, 101])] == [101]
    assert [m.number for m in store.fetch([1, 101, 103])] == [101, 103]
    assert (store.info().messages, store.info().damaged) == (60, 60)
    assert f"60 damaged messages of queue '{ONE.name}' in vhost '/' will not be delivered" in caplog.text
    store.check()


def test_a_block_that_cannot_be_taken_apart_stays_whole_and_counts_as_damaged(store, saved, on_disk):
    asked = []

    def can_read(*parts: bytes) -> bool:
        asked.append(parts)
        if len(asked) == 3:
            raise ValueError("something that nobody thought of")
        return True

    assert store._blocks.dissolve(1, NOW, can_read) == 60
    assert not store.database.connection.in_transaction
    assert on_disk("SELECT count(*) FROM message_rows") == [(0,)]
    assert on_disk("SELECT count FROM message_blocks WHERE first = 1") == [(60,)]
    store.check()


def test_a_block_that_is_taken_apart_is_so_at_once(store, saved, on_disk):
    assert store._blocks.dissolve(1, NOW, lambda exchange, key, properties: True) == 0
    assert not store.database.connection.in_transaction
    assert on_disk("SELECT min(number), count(*) FROM message_rows") == [(1, 60)]


@pytest.mark.parametrize("error", [MemoryError(), sqlite3.OperationalError("disk I/O error")], ids=type)
def test_what_is_no_damage_of_a_block_ends_taking_it_apart(store, saved, error):
    def can_read(*parts: bytes) -> bool:
        raise error

    with pytest.raises(type(error)):
        store._blocks.dissolve(1, NOW, can_read)


def test_a_block_for_which_memory_is_short_is_not_taken_for_damaged(stopped, opened, monkeypatch):
    def parse(row):
        raise MemoryError

    store = opened()
    with monkeypatch.context() as patch:
        patch.setattr(waiting, "parse_block", parse)
        with pytest.raises(StoreError) as failure:
            store.load(read_properties)
    store.abandon()
    assert isinstance(failure.value.__cause__, MemoryError)
    assert query(stopped, "SELECT count(*) FROM message_rows") == [(0,)]
    assert len(load(opened()).messages[1]) == 90 - len(GONE)


# Very many that are emptied at once

@pytest.fixture
def many(opened, journal):
    """Thirty blocks of twenty messages each, of which four rows may be deleted at once."""
    store = opened(limits=StoreLimits(deleted_at_once=4))
    load(store)
    for start in range(1, 601, 20):
        journal.published(ONE, run_of(range(start, start + 20)))
        save(store, journal)
    return store


def rows_of(store) -> int:
    return store.database.connection.execute("SELECT count(*) FROM message_blocks").fetchone()[0]


@pytest.mark.parametrize("by", ["purge", "delete"])
def test_what_is_emptied_leaves_the_store_a_piece_at_a_time(many, journal, by):
    if by == "purge":
        journal.settled(ONE, range(1, 601))
    else:
        journal.changed(Deleted(ONE))
    save(many, journal)
    assert (many.info().messages, rows_of(many)) == (0, 26)
    journal.published(TWO, [message(700)])
    save(many, journal)
    assert rows_of(many) == 22, "each commit deletes a piece"
    pieces = 0
    while many.has_to_sweep:
        many.sweep()
        many.check()
        pieces += 1
    assert (pieces, rows_of(many), many.info().messages) == (6, 0, 1)


@pytest.mark.parametrize("by", ["purge", "delete"])
def test_what_is_emptied_is_no_message_after_a_crash(many, journal, directory, tmp_path, opened, by):
    define(journal, VhostDefinition("/"))
    if by == "purge":
        journal.settled(ONE, range(1, 601))
    else:
        journal.changed(Deleted(ONE))
    save(many, journal)
    crashed = crash(directory, tmp_path / "crashed")
    assert checked(crashed) == []
    rescued = salvage(crashed, tmp_path / "salvaged", NOW)
    assert (rescued.saved["messages"], rescued.damaged, rescued.lost) == (0, 0, 0)
    store = opened(crashed, limits=StoreLimits(deleted_at_once=4))
    found = load(store)
    assert not any(found.messages.values()) and found.damaged == 0
    assert store.has_to_sweep
    while store.sweep():
        store.check()
    assert rows_of(store) == 0


def test_a_piece_that_is_not_committed_is_deleted_again(many, journal, monkeypatch):
    journal.settled(ONE, range(1, 601))
    save(many, journal)
    before = rows_of(many)
    real = many._blocks._delete

    def delete(table, firsts):
        real(table, firsts)
        assert table != "block_flags"

    monkeypatch.setattr(many._blocks, "_delete", delete)
    with pytest.raises(StoreError):
        many.sweep()
    monkeypatch.undo()
    many.database._failure = None
    assert rows_of(many) == before
    many.check()
    while many.sweep():
        many.check()
