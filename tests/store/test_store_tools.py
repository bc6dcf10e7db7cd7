"""What is done to a store that no broker has open: checked, copied, salvaged, made smaller, and left as it was."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition, VhostDefinition
from amqpd.store import files
from amqpd.store.errors import StoreError, StoreFull, StoreLocked
from amqpd.store.journal import Journal
from amqpd.store.store import Store
from amqpd.store.tools import compacting, copies
from amqpd.store.tools.checking import MOST_FINDINGS, findings
from amqpd.store.tools.copies import StoreDamaged
from amqpd.store.tools.facts import facts
from amqpd.store.tools.salvaging import Salvaged, salvage
from amqpd.store.tools.stopped import held, reading
from tests.store.store_samples import NOW, contents, crash, define, load, message, query, queue, save
from tests.store.test_store_upgrade import DEFINITIONS, FORMAT_1, MESSAGES, PLACES, make_old

ONE, TWO = queue(1), queue(2)
EXCHANGE = ExchangeDefinition("/", "e", "topic", durable=True)
BINDING = BindingDefinition("/", "e", "queue", "queue-1", "a.#")
BODIES = {number: b"%d " % number * (number % 40) for number in range(1, 301)}
BOTH = range(100, 120)      # in both queues, the others in the first


@pytest.fixture
def kept(store: Store, directory: Path) -> Path:
    """The directory of a store with three hundred messages, not stopped cleanly, some of it in its log only."""
    journal = Journal()
    define(journal, VhostDefinition("/"), ONE, TWO, EXCHANGE, BINDING)
    run = [message(number, BODIES[number], holders=2 * (number in BOTH)) for number in BODIES]
    run[149] = message(150, large_body())
    journal.published(ONE, run[:200], {5: 1_900_000_000_000})
    journal.published(TWO, [run[number - 1] for number in BOTH])
    for one in (ONE, TWO):
        journal.leased(one, len(BODIES))
    save(store, journal)
    store._checkpoint()
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
    with reading(directory / files.DATABASE) as (connection, _):
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


# Facts

def test_facts_tell_of_a_store_and_leave_it_as_it_was(kept):
    before = tree(kept)
    told = facts(kept)
    assert (told.format, told.was_clean) == (2, False)
    assert (told.octets, told.log_octets) == (len(before["amqpd.db"]), len(before["amqpd.db-wal"]))
    assert told.counts == {
        "vhosts": 1, "users": 0, "policies": 0, "exchanges": 1, "queue_rows": 2, "bindings": 1, "message_rows": 300,
        "damaged": 0}
    assert tree(kept) == before
    assert facts(stop(kept)).was_clean


def test_facts_of_an_earlier_format_are_told_too(directory):
    directory.mkdir()
    told = facts(make_old(directory))
    assert (told.format, told.counts["message_rows"], told.counts["damaged"]) == (1, 6, 1)


@pytest.mark.parametrize("ask", [
    facts, lambda directory: held(directory).__enter__(), compacting.compact,
    lambda directory: copies.backup(directory, directory.with_name("target")),
    lambda directory: salvage(directory, directory.with_name("target"), NOW),
])
def test_a_store_that_a_broker_has_open_is_not_touched(directory, store, ask):
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        ask(directory)
    with pytest.raises(StoreError, match="there is no store in .*none: name its directory"):
        ask(directory / "none")
    assert not directory.with_name("target").exists()


# Checking

def test_a_sound_store_has_no_findings_and_stays_as_it_was(kept):
    before = tree(kept)
    assert checked(kept) == []
    assert tree(kept) == before


def test_a_store_of_an_earlier_format_can_be_checked(directory):
    directory.mkdir()
    assert checked(make_old(directory)) == []
    query(directory, "UPDATE messages SET body = x'00' WHERE number = 3")
    assert checked(directory) == ["message 3 does not fit its checksum"]


@pytest.mark.parametrize("damage, found", [
    ("UPDATE message_rows SET body = x'00' WHERE number = 7", "message 7 does not fit its checksum"),
    ("UPDATE message_rows SET exchange = CAST(x'ff' AS TEXT) WHERE number = 7", "message 7 does not fit its checksum"),
    ("UPDATE message_rows SET body = 'text' WHERE number = 7", "message 7 does not fit its checksum"),
    ("UPDATE message_rows SET queue = 9 WHERE number = 7", "message 7 is in no queue there is"),
    ("DELETE FROM entries WHERE number = 100", "message 100 is kept for no queue"),
    ("DELETE FROM message_rows WHERE number = 100", "message 100 has an entry, but is not kept for several queues"),
    ("UPDATE message_rows SET expires_at = 'soon' WHERE number = 7", "message 7 has marks that are no numbers"),
    ("UPDATE entries SET deliveries = 'x' WHERE number = 101", "message 101 has marks that are no numbers"),
    ("UPDATE queue_rows SET arguments = '{' WHERE number = 2", "queue_rows (2,) is no definition"),
    ("UPDATE queue_rows SET arguments = '5' WHERE number = 2", "queue_rows (2,) is no definition"),
    ("UPDATE queue_rows SET name = x'ff' WHERE number = 2", "queue_rows (2,) is no definition"),
    ("DELETE FROM queue_rows WHERE number = 2", "message 100 has an entry in no queue there is"),
])
def test_whatever_does_not_fit_is_found(kept, damage, found):
    query(stop(kept), damage)
    before = tree(kept)
    assert found in checked(kept)
    assert tree(kept) == before


def test_findings_of_one_kind_are_told_up_to_a_hundred(kept):
    query(stop(kept), "UPDATE message_rows SET checksum = 0")
    assert len(checked(kept)) == MOST_FINDINGS + 1
    assert checked(kept)[-1] == "200 more messages do not fit their checksums"


def test_every_flipped_bit_in_a_body_is_found(kept):
    file = stop(kept) / "amqpd.db"
    sound, chance = file.read_bytes(), random.Random(3)
    starts = [at for at in range(0, len(large_body()) - 64, 64) if large_body()[at:at + 64] in sound]
    places = [sound.index(large_body()[at:at + 64]) for at in chance.sample(starts, 50)]
    assert len({*places}) == 50
    for place in places:
        octets = bytearray(sound)
        octets[place + chance.randrange(64)] ^= 1 << chance.randrange(8)
        file.write_bytes(octets)
        assert checked(kept) == ["message 150 does not fit its checksum"]


def test_a_page_that_cannot_be_read_is_a_finding_and_not_the_end(kept):
    spoil(stop(kept), page_of(kept, "message_rows"))
    found = checked(kept)
    assert any("messages cannot be read to their end" in finding for finding in found)


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


# Backup and restore

def test_a_backup_of_a_stopped_store_is_a_store(kept, tmp_path, opened):
    before = tree(kept)
    assert copies.backup(kept, tmp_path / "backup") == 300
    assert tree(kept) == before
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["amqpd.db"]
    expect_kept(tmp_path / "backup", opened)


def test_what_comes_out_of_a_backup_counts_as_delivered_before(kept, tmp_path):
    """The original may go on, and deliver it."""
    copies.backup(stop(kept), tmp_path / "backup")
    assert query(tmp_path / "backup", "SELECT value FROM meta WHERE key = 'clean'") == [(0,)]
    assert query(tmp_path / "backup", "SELECT DISTINCT leased_to FROM queue_rows") == [(300,)]


def test_a_backup_of_a_store_of_an_earlier_format_is_one_too(directory, tmp_path, opened):
    directory.mkdir()
    copies.backup(make_old(directory), tmp_path / "backup")
    found = load(opened(tmp_path / "backup"))
    assert found.definitions == DEFINITIONS
    assert contents(found.messages[1]) == [MESSAGES[number] for number in PLACES[1]]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_backup_replaces_nothing(kept, tmp_path, make):
    make(tmp_path / "backup")
    with pytest.raises(StoreError, match="backup is there already: choose another name"):
        copies.backup(kept, tmp_path / "backup")


def test_a_backup_that_fails_leaves_nothing(kept, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise StoreFull("no space left")

    monkeypatch.setattr(copies, "copy_pages", fail)
    names = {*tmp_path.iterdir()}
    with pytest.raises(StoreFull):
        copies.backup(kept, tmp_path / "backup")
    assert {*tmp_path.iterdir()} == names


def test_a_backup_of_a_damaged_store_is_refused(kept, tmp_path):
    query(stop(kept), "UPDATE message_rows SET body = x'00' WHERE number = 7")
    with pytest.raises(StoreDamaged, match=r"is damaged \(message 7 does not .*amqpd store salvage"):
        copies.backup(kept, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.fixture(params=["a directory", "a file", "a copied directory with a log"])
def made_backup(request: pytest.FixtureRequest, kept: Path, tmp_path: Path) -> Path:
    """Whatever somebody may have as a backup."""
    if "log" in request.param:
        return kept
    copies.backup(kept, tmp_path / "backup")
    return tmp_path / "backup" / ("amqpd.db" if "file" in request.param else "")


def test_a_backup_is_restored_into_a_directory_that_has_no_store(made_backup, tmp_path, opened):
    before = tree(tmp_path / "kept")
    assert copies.restore(made_backup, tmp_path / "new") == 300
    assert tree(tmp_path / "kept") == before
    assert {*tree(tmp_path / "new")} == {"amqpd.db"}
    expect_kept(tmp_path / "new", opened)


@pytest.mark.parametrize("name", ["amqpd.db", "amqpd.db-wal"])
def test_nothing_is_restored_over_a_store(kept, tmp_path, name):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).write_bytes(b"precious")
    with pytest.raises(StoreError, match=f"{name} is there already: move it away"):
        copies.restore(kept, tmp_path / "new")
    assert tree(tmp_path / "new") == {name: b"precious"}


def test_nothing_is_restored_from_a_damaged_backup(kept, tmp_path):
    query(stop(kept), "UPDATE message_rows SET body = x'00' WHERE number = 7")
    with pytest.raises(StoreDamaged, match="message 7"):
        copies.restore(kept, tmp_path / "new")
    assert tree(tmp_path / "new") == {}


def test_nothing_is_restored_from_nothing(tmp_path):
    with pytest.raises(StoreError, match="there is no store in .*nowhere"):
        copies.restore(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# While it is written

def test_a_backup_has_what_was_committed_while_it_was_made(store, directory, tmp_path, opened):
    journal = Journal()
    define(journal, VhostDefinition("/"), ONE)
    journal.published(ONE, [message(number, bytes(3_000)) for number in range(1, 2_001)])
    save(store, journal)
    numbers = iter(range(2_001, 10_000))

    def between(left: int, total: int) -> None:
        number = next(numbers)
        journal.published(ONE, [message(number, bytes(3_000))])
        journal.settled(ONE, [message(number - 2_000)])
        save(store, journal)
        store.checkpoint_if_due()

    store.backup(tmp_path / "copy.db", between)
    last = next(numbers) - 1
    (tmp_path / "copy").mkdir(mode=0o700)
    (tmp_path / "copy.db").rename(tmp_path / "copy" / "amqpd.db")
    assert copies.finish(tmp_path / "copy" / "amqpd.db") == 2_000
    assert last > 2_010, "too few steps to tell"
    found = [m.number for m in load(opened(tmp_path / "copy")).messages[1]]
    # The last step was followed by one more commit, which came too late.
    assert found == [*range(last - 2_000, last)] or found == [*range(last - 1_999, last + 1)]
    save(store, journal)


def test_a_backup_that_cannot_be_written_is_no_failure_of_the_store(store, journal, tmp_path):
    save(store, journal)
    with pytest.raises(StoreError, match="cannot make .*copy.db .No such file"):
        store.backup(tmp_path / "nowhere" / "copy.db", lambda left, total: None)
    journal.published(ONE, [message(1)])
    save(store, journal)


# Salvage

def test_all_of_a_sound_store_is_salvaged(kept, tmp_path, opened):
    before = tree(kept)
    result = salvage(kept, tmp_path / "saved", NOW)
    assert (result.saved["message_rows"], result.lost, result.damaged, result.gaps) == (300, 0, 0, 0)
    assert tree(kept) == before
    expect_kept(tmp_path / "saved", opened)
    assert query(tmp_path / "saved", "SELECT expires_at FROM message_rows WHERE number = 5") == [(1_900_000_000_000,)]


def test_a_damaged_message_is_set_aside(kept, tmp_path, opened):
    query(stop(kept), "UPDATE message_rows SET body = x'00' WHERE number IN (7, 8)")
    result = salvage(kept, tmp_path / "saved", NOW)
    assert (result.saved["message_rows"], result.damaged, result.lost) == (298, 2, 0)
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
    assert (result.saved["message_rows"], result.lost) == (300 - len(gone), len(gone))
    assert result.gaps
    expect_kept(tmp_path / "saved", opened, without=gone)


def test_without_an_index_the_rest_is_found_by_larger_and_larger_steps(kept, tmp_path, opened):
    query(stop(kept), "DROP INDEX message_rows_of_queue")
    query(kept, "VACUUM")
    page = page_of(kept, "message_rows")
    gone = on_page(kept, page)
    spoil(kept, page)
    result = salvage(kept, tmp_path / "saved", NOW)
    assert result.saved["message_rows"] == 300 - len(gone)
    expect_kept(tmp_path / "saved", opened, without=gone)


def test_where_a_queue_cannot_be_read_its_messages_get_another(kept, tmp_path, opened):
    query(stop(kept), "UPDATE queue_rows SET arguments = '{' WHERE number = 2")
    result = salvage(kept, tmp_path / "saved", NOW)
    assert (result.definitions_lost, result.saved["message_rows"]) == (1, 300)
    found = load(opened(tmp_path / "saved"))
    assert [d.name for d in found.definitions if isinstance(d, QueueDefinition)] == ["queue-1", "salvaged-2"]
    assert [m.number for m in found.messages[2]] == [*BOTH]


def test_where_entries_cannot_be_read_messages_of_several_queues_get_another(kept, tmp_path, opened):
    query(stop(kept), "DELETE FROM entries")
    salvage(kept, tmp_path / "saved", NOW)
    found = load(opened(tmp_path / "saved"))
    assert len(found.messages[1]) == 280
    assert {tuple(m.number for m in run) for number, run in found.messages.items() if number > 2} == {
        (number,) for number in BOTH}


def test_what_hangs_on_what_is_lost_is_lost(kept, tmp_path):
    query(stop(kept), "DELETE FROM exchanges")
    query(kept, "DELETE FROM vhosts")
    assert salvage(kept, tmp_path / "saved", NOW).definitions_lost == 1
    assert query(tmp_path / "saved", "SELECT name FROM vhosts") == [("/",)]
    assert query(tmp_path / "saved", "SELECT * FROM bindings") == []


def test_an_earlier_format_is_salvaged_into_todays(directory, tmp_path, opened):
    directory.mkdir()
    result = salvage(make_old(directory), tmp_path / "saved", NOW)
    assert (result.saved["message_rows"], result.lost, result.gaps) == (6, 0, 0)
    found = load(opened(tmp_path / "saved"))
    assert found.definitions == DEFINITIONS
    assert {queue: contents(run) for queue, run in found.messages.items()} == {
        queue: [MESSAGES[number] for number in numbers] for queue, numbers in PLACES.items()}
    assert found.expiries[1] == {1: 1_900_000_000_123, 2: 1_900_000_000_456}
    assert "damaged" in FORMAT_1 and opened(tmp_path / "other").info().damaged == 0


def test_a_salvaged_store_gives_no_number_a_second_time(kept, tmp_path, opened):
    before = opened(kept)
    before.abandon()
    salvage(kept, tmp_path / "saved", NOW)
    assert opened(tmp_path / "saved").first_number > before.first_number


def damages(kept: Path, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Files with a page, or a stretch of one, overwritten; not the first page, without which nothing is known."""
    sound, chance = (kept / "amqpd.db").read_bytes(), random.Random(seed)
    for _ in range(count):
        octets = bytearray(sound)
        start = chance.randrange(4096, len(sound) - 8)
        length = chance.choice((1, 8, 200, 4096, 3 * 4096))
        octets[start:start + length] = chance.randbytes(min(length, len(sound) - start))
        yield start, bytes(octets)


def test_whatever_is_damaged_nothing_wrong_is_saved_and_most_is(kept, tmp_path, opened):
    seed = 20261125
    print(f"\nseed {seed}")
    whole = {number: large_body() if number == 150 else body for number, body in BODIES.items()}
    saved: list[int] = []
    for round_, (_, octets) in enumerate(damages(stop(kept), 40, seed)):
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
        assert saved[-1] == result.saved["message_rows"] and saved[-1] + result.damaged + result.lost <= 301
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


def test_a_result_starts_with_nothing():
    assert Salvaged().saved == {}


# Compacting

def test_a_store_becomes_as_small_as_what_is_in_it(kept, opened):
    query(kept, "CREATE TABLE ballast (octets)")
    query(kept, "INSERT INTO ballast VALUES (zeroblob(3000000))")
    query(kept, "DROP TABLE ballast")
    before, after = compacting.compact(kept)
    assert before > 3_000_000 > 500_000 > after == (kept / "amqpd.db").stat().st_size
    assert {*tree(kept)} == {"amqpd.db"}
    expect_kept(kept, opened)


def test_compacting_needs_room_and_says_how_much(kept, opened, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20))
    with pytest.raises(StoreError, match="needs 1 MiB beside it to be written anew, 1 MiB are free: free some"):
        compacting.compact(kept)
    expect_kept(kept, opened)


@pytest.mark.parametrize("failing", ["expect_sound", "put_in_place"])
def test_compacting_that_fails_leaves_the_store_as_it_was(kept, opened, monkeypatch, failing):
    def fail(*_: object) -> None:
        raise StoreFull("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(compacting, failing, fail)
        with pytest.raises(StoreFull):
            compacting.compact(kept)
    assert {*tree(kept)} == {"amqpd.db"}
    expect_kept(kept, opened)


def test_a_damaged_store_is_not_compacted(kept):
    spoil(stop(kept), page_of(kept, "message_rows"))
    before = tree(kept)
    with pytest.raises(StoreError, match="damaged"):
        compacting.compact(kept)
    assert tree(kept) == before


def test_reading_leaves_no_connection_open(kept):
    with closing(sqlite3.connect(stop(kept) / "amqpd.db", timeout=0)) as other:
        checked(kept)
        other.execute("BEGIN EXCLUSIVE")
