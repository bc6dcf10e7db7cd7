"""Salvage: what can be read of a damaged store is written to a new one."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amqpd.broker.definitions import PermissionDefinition, QueueDefinition, UserDefinition, VhostDefinition
from amqpd.store.errors import StoreError
from amqpd.store.journal import Journal
from amqpd.store.tools import salvaging
from amqpd.store.tools.row_search import LARGEST, RowSearch
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import BODIES, BOTH, checked, expect_kept, large_body, page_of, spoil, stop, tree
from tests.store.store_samples import NOW, contents, define, load, message, query, queue, save
from tests.store.test_store_tools import ROWS_AND_BLOCKS
from tests.store.test_store_upgrade import FORMATS, definitions_in, make_old, messages_in, places_in
from tests.support.sizes import sized


@ROWS_AND_BLOCKS
def test_all_of_a_sound_store_is_salvaged(kept, tmp_path, opened):
    before = tree(kept)
    result = salvage(kept, tmp_path / "saved", NOW)
    assert (result.saved["messages"], result.lost, result.damaged, result.gaps) == (300, 0, 0, 0)
    assert tree(kept) == before
    expect_kept(tmp_path / "saved", opened)
    assert query(tmp_path / "saved", "SELECT expires_at FROM message_rows WHERE number = 5") == [(1_900_000_000_000,)]


def test_a_damaged_message_is_set_aside(kept, tmp_path, opened):
    query(stop(kept), "UPDATE message_rows SET body = x'00' WHERE number IN (7, 8)")
    result = salvage(kept, tmp_path / "saved", NOW)
    assert (result.saved["messages"], result.damaged, result.lost) == (298, 2, 0)
    expect_kept(tmp_path / "saved", opened, without=frozenset({7, 8}))
    assert query(tmp_path / "saved", "SELECT number, body, noticed FROM damaged") == [
        (7, b"\0", NOW), (8, b"\0", NOW)]


def on_page(kept: Path, page: int) -> frozenset[int]:
    """The numbers of messages on a page of the table, read by the file format's rules."""
    octets = (kept / "amqpd.db").read_bytes()[(page - 1) * 4096:page * 4096]
    assert octets[0] == 13, "no leaf"
    numbers = set()
    for cell in range(int.from_bytes(octets[3:5])):
        at = int.from_bytes(octets[8 + 2 * cell:10 + 2 * cell])
        while octets[at] >= 0x80:       # the length of the row
            at += 1
        number = 0
        for octet in octets[at + 1:]:
            number = number << 7 | octet & 0x7F
            if octet < 0x80:
                break
        numbers.add(number)
    return frozenset(numbers)


def test_around_a_page_that_cannot_be_read_everything_is_saved(kept, tmp_path, opened):
    page = page_of(stop(kept), "message_rows")
    gone = on_page(kept, page)
    spoil(kept, page)
    before = tree(kept)
    result = salvage(kept, tmp_path / "saved", NOW)
    assert tree(kept) == before
    assert 0 < len(gone) < 100
    assert (result.saved["messages"], result.lost) == (300 - len(gone), len(gone))
    assert result.gaps
    expect_kept(tmp_path / "saved", opened, without=gone)


def test_without_an_index_the_rest_is_found_by_larger_and_larger_steps(kept, tmp_path, opened):
    query(stop(kept), "DROP INDEX message_rows_of_queue")
    query(kept, "VACUUM")
    page = page_of(kept, "message_rows")
    gone = on_page(kept, page)
    spoil(kept, page)
    result = salvage(kept, tmp_path / "saved", NOW)
    assert result.saved["messages"] == 300 - len(gone)
    expect_kept(tmp_path / "saved", opened, without=gone)


@ROWS_AND_BLOCKS
def test_where_a_queue_cannot_be_read_its_messages_get_another(kept, tmp_path, opened):
    query(stop(kept), "UPDATE queue_rows SET arguments = '{' WHERE number = 2")
    result = salvage(kept, tmp_path / "saved", NOW)
    assert (result.definitions_lost, result.saved["messages"]) == (1, 300)
    found = load(opened(tmp_path / "saved"))
    assert [d.name for d in found.definitions if isinstance(d, QueueDefinition)] == ["queue-1", "salvaged-2"]
    assert [m.number for m in found.messages[2]] == [*BOTH]


@ROWS_AND_BLOCKS
def test_where_entries_cannot_be_read_messages_of_several_queues_get_another(kept, tmp_path, opened):
    query(stop(kept), "DELETE FROM entries")
    salvage(kept, tmp_path / "saved", NOW)
    found = load(opened(tmp_path / "saved"))
    assert len(found.messages[1]) == 280
    assert {tuple(m.number for m in run) for number, run in found.messages.items() if number > 2} == {
        (number,) for number in BOTH}


@ROWS_AND_BLOCKS
def test_what_hangs_on_what_is_lost_is_lost(kept, tmp_path):
    query(stop(kept), "DELETE FROM exchanges")
    query(kept, "DELETE FROM vhosts")
    assert salvage(kept, tmp_path / "saved", NOW).definitions_lost == 1
    assert query(tmp_path / "saved", "SELECT name FROM vhosts") == [("/",)]
    assert query(tmp_path / "saved", "SELECT * FROM bindings") == []


def test_permissions_of_a_user_who_cannot_be_read_are_lost_with_that_user(directory, store, tmp_path):
    journal = Journal()
    define(
        journal, VhostDefinition("/"), UserDefinition("ada"), UserDefinition("bob"),
        PermissionDefinition("ada", "/", ".*", ".*", ".*"), PermissionDefinition("bob", "/", ".*", ".*", ".*"))
    save(store, journal)
    store.close({})
    query(directory, "UPDATE users SET tags = '{' WHERE name = 'ada'")
    result = salvage(directory, tmp_path / "saved", NOW)
    assert (result.definitions_lost, result.saved["users"], result.saved["permissions"]) == (2, 1, 2)
    assert query(tmp_path / "saved", "SELECT user FROM permissions") == [("bob",)]


@ROWS_AND_BLOCKS
def test_progress_is_told_of_every_so_many_messages(kept, tmp_path):
    told = []
    salvage(kept, tmp_path / "saved", NOW, lambda done, total: told.append((done, total)), every=120)
    assert told == [(120, 300), (240, 300)]


def test_a_message_whose_queue_is_no_number_gets_a_queue_of_its_own(kept, tmp_path, opened):
    query(stop(kept), "UPDATE message_rows SET queue = 'orders' WHERE number = 7")
    salvage(kept, tmp_path / "saved", NOW)
    found = load(opened(tmp_path / "saved"))
    assert [m.number for m in found.messages[0]] == [7] and 7 not in {m.number for m in found.messages[1]}
    assert [one.name for one in found.definitions if isinstance(one, QueueDefinition)].count("salvaged-0") == 1


def test_messages_that_cannot_be_counted_are_told_of_as_none_in_all(kept):
    with closing(sqlite3.connect(":memory:")) as empty:
        assert salvaging._Rescue(empty, 6, None)._count() == 0


def test_a_state_that_is_no_number_becomes_one_with_which_the_message_stays(kept, tmp_path, opened):
    query(stop(kept), "UPDATE message_rows SET expires_at = 'soon', redelivered = 'x', deliveries = 'y' WHERE number=7")
    query(kept, "UPDATE message_rows SET deliveries = 3, redelivered = 0 WHERE number IN (5, 8)")
    query(kept, "UPDATE entries SET deliveries = 4, redelivered = 1 WHERE number = 101 AND queue = 2")
    salvage(kept, tmp_path / "saved", NOW)
    columns = "number, redelivered, expires_at, deliveries"
    assert query(tmp_path / "saved", f"SELECT {columns} FROM message_rows WHERE number IN (5, 7, 8, 101)") == [
        (5, 0, 1_900_000_000_000, 3), (7, 1, None, 0), (8, 0, None, 3), (101, 0, None, 0)]
    assert query(tmp_path / "saved", f"SELECT {columns} FROM entries WHERE number = 101 AND queue = 2") == [
        (101, 1, None, 4)]


def test_what_was_delivered_of_a_block_is_known_in_its_rows(store, journal, directory, tmp_path):
    journal.published(queue(1), [message(number, b"x") for number in range(1, 31)])
    define(journal, VhostDefinition("/"))
    save(store, journal)
    store.close({1: [7, 9]})
    salvage(directory, tmp_path / "saved", NOW)
    assert query(tmp_path / "saved", "SELECT redelivered, count(*), sum(deliveries) FROM message_rows GROUP BY 1") == [
        (0, 28, 0), (1, 2, 0)]


def test_of_what_is_noted_of_a_store_only_its_clock_and_numbers_are_taken_over(kept, tmp_path):
    (epoch,), = query(stop(kept), "SELECT value FROM meta WHERE key = 'epoch'")
    for key, value in (("clock_behind", 5_000), ("epoch", epoch + 7), ("odd", 1)):
        query(kept, "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
    salvage(kept, tmp_path / "saved", NOW)
    found = dict(query(tmp_path / "saved", "SELECT key, value FROM meta"))
    assert (found["clock_behind"], found["epoch"]) == (5_000, epoch + 7) and "odd" not in found


def test_a_clock_that_is_no_number_is_not_taken_over(kept, tmp_path):
    query(stop(kept), "INSERT OR REPLACE INTO meta (key, value) VALUES ('clock_behind', 'soon')")
    salvage(kept, tmp_path / "saved", NOW)
    assert query(tmp_path / "saved", "SELECT value FROM meta WHERE key = 'clock_behind'") == []


@ROWS_AND_BLOCKS
def test_numbers_that_an_index_knows_tell_where_to_read_on(kept, tmp_path, monkeypatch):
    wanted = {
        "message_rows": [number for number, in query(stop(kept), "SELECT number FROM message_rows ORDER BY 1")],
        "message_blocks": [first for first, in query(kept, "SELECT first FROM message_blocks ORDER BY 1")],
        "queue_rows": []}
    page = page_of(kept, "message_rows") if not wanted["message_blocks"] else 0
    known = {}
    monkeypatch.setattr(salvaging._Rescue, "tidy", lambda self: known.update(
        {table: self._known_in(table) for table in wanted}))
    if page:
        spoil(kept, page)
    salvage(kept, tmp_path / "saved", NOW)
    assert known == wanted


# Where a table can be read again

ROWS = range(1, 200)


@pytest.fixture
def table() -> Iterator[sqlite3.Connection]:
    """A table of which rows cannot be read while their numbers are in `bad`."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in ROWS])
        yield connection


def search_of(table: sqlite3.Connection, bad: Collection[int]) -> RowSearch:
    def read(number: int) -> int:
        if number in bad:
            raise ValueError
        return number

    table.create_function("read", 1, read)
    return RowSearch(table, "numbers", "read(number)")


@pytest.mark.parametrize("start, end", [(1, 2), (1, 3), (50, 51), (50, 57), (50, 113), (50, 114), (150, 200)])
@pytest.mark.parametrize("known", [[], [*ROWS], [*ROWS][::20], [*ROWS][:100]], ids=["none", "all", "some", "few"])
def test_the_first_row_behind_a_gap_is_found(table, start, end, known):
    search = search_of(table, range(start, end))
    assert start == 1 or search.next_row(0) == (1, 1)
    with pytest.raises(sqlite3.Error):
        search.next_row(start)
    assert search.beyond(start, known) == end
    assert search.next_row(end) == ((end, end) if end in ROWS else None)


def test_where_nothing_can_be_read_any_more_the_search_ends(table):
    table.execute("INSERT INTO numbers VALUES (?)", [LARGEST])
    assert search_of(table, {*ROWS, LARGEST}).beyond(1, []) is None


@pytest.mark.parametrize("format_", FORMATS)
def test_an_earlier_format_is_salvaged_into_todays(directory, tmp_path, opened, format_):
    directory.mkdir()
    result = salvage(make_old(directory, format_), tmp_path / "saved", NOW)
    count = len({number for numbers in places_in(format_).values() for number in numbers})
    assert (result.saved["messages"], result.lost, result.gaps) == (count, 0, 0)
    assert query(tmp_path / "saved", "SELECT number, noticed FROM damaged") == [(7, 1_800_000_000)]
    found = load(opened(tmp_path / "saved"))
    assert found.definitions == definitions_in(format_)
    assert {queue: contents(run) for queue, run in found.messages.items()} == {
        queue: messages_in(format_, queue) for queue in found.messages}
    assert found.expiries[1] == {1: 1_900_000_000_123, 2: 1_900_000_000_456}


def test_paused_queues_and_the_audit_log_are_salvaged(kept, tmp_path, opened):
    acts = [(number, NOW, "ann", "", "control", "pause_queue", "{}") for number in (1, 2)]
    stop(kept)
    for act in acts:
        query(kept, "INSERT INTO audit_log VALUES (?, ?, ?, ?, ?, ?, ?)", act)
    query(kept, "INSERT INTO audit_log VALUES (3, 'then', 'ann', '', 'control', 'x', '{}')")
    query(kept, "UPDATE queue_rows SET is_paused = 1 WHERE number = 2")
    salvage(kept, tmp_path / "saved", NOW)
    assert query(tmp_path / "saved", "SELECT * FROM audit_log") == acts
    assert query(tmp_path / "saved", "SELECT number, is_paused FROM queue_rows ORDER BY 1") == [(1, 0), (2, 1)]


def test_a_salvaged_store_gives_no_number_a_second_time(kept, tmp_path, opened):
    before = opened(kept)
    load(before)
    before.abandon()
    salvage(kept, tmp_path / "saved", NOW)
    assert opened(tmp_path / "saved").first_number > before.first_number


def damages(kept: Path, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Files with a page, or a segment of one, overwritten; not the first page, without which nothing is known."""
    sound, chance = (kept / "amqpd.db").read_bytes(), random.Random(seed)
    for _ in range(count):
        octets = bytearray(sound)
        start = chance.randrange(4096, len(sound) - 8)
        length = chance.choice((1, 8, 200, 4096, 3 * 4096))
        octets[start:start + length] = chance.randbytes(min(length, len(sound) - start))
        yield start, bytes(octets)


@pytest.mark.proof
@ROWS_AND_BLOCKS
def test_whatever_is_damaged_nothing_wrong_is_saved_and_most_is(kept, tmp_path, opened):
    seed = 20261125
    print(f"\nseed {seed}")
    whole = {number: large_body() if number == 150 else body for number, body in BODIES.items()}
    saved: list[int] = []
    for round_, (_, octets) in enumerate(damages(stop(kept), sized(12, 40), seed)):
        (kept / "amqpd.db").write_bytes(octets)
        target = tmp_path / f"saved-{round_}"
        try:
            result = salvage(kept, target, NOW)
        except StoreError as error:
            assert "is damaged" in str(error) and not target.exists()
            saved.append(0)
            continue
        finally:
            assert (kept / "amqpd.db").read_bytes() == octets
        store = opened(target)
        found = load(store)
        store.check()
        store.abandon()
        for run in found.messages.values():
            assert all(m.number in whole and m.body == whole[m.number] for m in run)
        saved.append(len({m.number for run in found.messages.values() for m in run}))
        assert saved[-1] == result.saved["messages"] and saved[-1] + result.damaged + result.lost <= 301
        shutil.rmtree(target)
    average = sum(saved) / len(saved)
    print(f"{len(saved)} damaged stores: at least {min(saved)} of 300 messages saved, {average:.1f} on average")
    # Nothing can be read where the page that leads to all others is gone, or those that say which tables there are.
    assert average > 200


def test_a_store_that_cannot_say_what_is_in_it_is_refused(kept, tmp_path):
    octets = stop(kept).joinpath("amqpd.db").read_bytes()
    spoilt = octets.replace(b"CREATE TABLE message_rows", b"CREATE TABLE \xff\xfe\xfd\xfcsage_rows")
    (kept / "amqpd.db").write_bytes(spoilt)
    with pytest.raises(StoreError, match=r"amqpd.db is damaged \("):
        salvage(kept, tmp_path / "saved", NOW)
    with pytest.raises(StoreError, match=r"amqpd.db is damaged \("):
        checked(kept)
    assert not (tmp_path / "saved").exists()


def test_what_is_no_store_cannot_be_salvaged(tmp_path):
    (tmp_path / "amqpd.db").write_bytes(b"no database at all, " * 500)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        salvage(tmp_path, tmp_path / "saved", NOW)
    assert not (tmp_path / "saved").exists()
