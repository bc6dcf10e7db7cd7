"""Large bodies in parts: written before their messages, complete or missing after a crash, deleted with them."""

from __future__ import annotations

import os
import signal
import sqlite3
from itertools import count
from pathlib import Path

import pytest

from amqpd.broker.definitions import Deleted, VhostDefinition
from amqpd.message import LARGE_BODY, Message
from amqpd.store.batch import Batch
from amqpd.store.body_writes import PART_BYTES, PIECE_PARTS, BodyWrite
from amqpd.store.errors import StoreFull
from amqpd.store.journal import Journal
from amqpd.store.rows.body_use import DELETED_AT_ONCE, ID_STEP
from amqpd.store.sqlite.store import Store
from amqpd.store.tools import compacting, copies
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import checked, stop
from tests.store.store_samples import NOW, contents, crash, define, load, message, query, queue, save, settle

ONE, TWO = queue(1), queue(2)
SIZE = 2 * PART_BYTES + 5       # three parts
PARTS = "SELECT number, length(data) FROM body_parts ORDER BY number"


@pytest.fixture
def journal(store: Store, journal: Journal) -> Journal:
    """A journal that is joined to the store, with two queues."""
    journal.bodies.release = store.release_body
    define(journal, VhostDefinition("/"))
    save(store, journal)
    return journal


def large(number: int, size: int = SIZE, **options: object) -> Message:
    return message(number, os.urandom(size), **options)


def write(store: Store, journal: Journal, sent: Message) -> BodyWrite:
    """Write the body of a message, in pieces."""
    body = journal.write_body(sent)
    while (piece := journal.bodies.next_piece()) is not None:
        store.write_body(piece)
        piece.end()
    assert body.is_done
    return body


def publish(store: Store, journal: Journal, *run: Message, queues: tuple = (ONE,)) -> None:
    """Write the bodies of messages, and publish these, as a session does."""
    for sent in run:
        stored = sent.with_stored_body(write(store, journal, sent).stored)
        for each in queues:
            journal.published(each, [stored])
    journal.filling.check()


def sweep(store: Store) -> int:
    """Delete the unused parts; return how many slices that took."""
    for pieces in count():
        if not store.has_to_sweep:
            store.check()
            return pieces
        store.sweep()


# Whole or not at all

@pytest.mark.parametrize("frame_max", [131_072, 4_096])
@pytest.mark.parametrize("size", [LARGE_BODY + 1, 2 * PART_BYTES, SIZE])
def test_a_body_in_parts_comes_back(store, journal, after_crash, on_disk, size, frame_max):
    sent = large(7, size, frame_max=frame_max)
    publish(store, journal, sent)
    assert journal.filling.weight < 1_000, "it counts as what is to be written with the batch"
    save(store, journal)
    assert contents(store.fetch([7])) == contents([sent])
    assert contents(after_crash().messages[1]) == contents([sent])
    full, rest = divmod(size, PART_BYTES)
    assert [length for _, length in on_disk(PARTS)] == [PART_BYTES] * full + [rest] * bool(rest)
    assert on_disk("SELECT length(body), body_size, body_id % 1024 FROM message_rows") == [(0, size, 0)]


def test_small_and_large_ones_share_a_batch_and_a_message_of_two_queues_is_written_once(store, journal, after_crash):
    sent = [large(number, holders=2) for number in (3, 5)]
    journal.published(ONE, [message(2)])
    publish(store, journal, *sent, queues=(ONE, TWO))
    inline = large(9)       # as a dead letter is
    journal.published(ONE, [inline])
    save(store, journal)
    found = after_crash()
    assert contents(found.messages[1]) == contents([message(2), *sent, inline])
    assert contents(found.messages[2]) == contents(sent)
    assert len(query_of(store, PARTS)) == 6


def test_a_message_whose_expiry_and_deliveries_are_kept_may_have_a_body_in_parts(store, journal, after_crash):
    sent = large(1)
    journal.published(ONE, [sent.with_stored_body(write(store, journal, sent).stored)], {1: 1_900_000_000_000})
    journal.requeued(ONE, {1: 2})
    save(store, journal)
    found = after_crash()
    assert contents(found.messages[1]) == contents([sent])
    assert (found.expiries, found.deliveries) == ({1: {1: 1_900_000_000_000}}, {1: {1: 2}})


def test_parts_without_a_message_are_deleted_after_a_crash_in_pieces(store, journal, directory, tmp_path, opened):
    publish(store, journal, large(1))
    save(store, journal)
    write(store, journal, large(2, 2 * DELETED_AT_ONCE * PART_BYTES))
    crashed = crash(directory, tmp_path / "crashed")
    assert checked(crashed) == [], "parts that are to be deleted are no damage"
    again = opened(crashed)
    assert [m.number for m in load(again).messages[1]] == [1]
    assert len(query_of(again, PARTS)) == 3 + 2 * DELETED_AT_ONCE
    assert sweep(again) == 2
    assert len(query_of(again, PARTS)) == 3


def query_of(store: Store, sql: str) -> list[tuple[object, ...]]:
    return store.database.connection.execute(sql).fetchall()


def test_numbers_of_parts_are_never_used_twice(store, journal, directory, tmp_path, opened):
    write(store, journal, large(1))
    first, = query_of(store, "SELECT min(number) FROM body_parts")[0:1]
    assert first[0] == store.first_number and not store.first_number % ID_STEP
    again = opened(crash(directory, tmp_path / "crashed"))
    load(again)
    sweep(again)
    journal = Journal()
    write(again, journal, large(1))
    assert query_of(again, "SELECT min(number) FROM body_parts") == [(again.first_number,)]
    assert again.first_number > first[0] + ID_STEP


def kill_at(directory: Path, nth: int, bodies: list[bytes]) -> bool:
    """Publish two large messages in a process that is killed at its nth statement; False if it got through."""
    child = os.fork()
    if not child:
        try:
            store = Store.open(directory, now=NOW)
            load(store)
            left = iter(range(nth))
            store.database.connection.set_trace_callback(
                lambda _: None if next(left, None) is not None else os.kill(os.getpid(), signal.SIGKILL))
            journal = Journal()
            for number, body in enumerate(bodies, store.first_number):
                publish(store, journal, message(number, body, holders=2), queues=(ONE, TWO))
                store.commit(journal.take())
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_a_broker_killed_between_any_two_parts_leaves_whole_messages_only(store, journal, directory, tmp_path, opened):
    store.close({})
    bodies = [os.urandom(SIZE) for _ in range(2)]
    kept = set()
    for nth in count():
        where = tmp_path / f"killed-{nth}"
        where.mkdir(mode=0o700)
        (where / "amqpd.db").write_bytes((directory / "amqpd.db").read_bytes())
        if not kill_at(where, nth, bodies):
            break
        assert checked(where) == []
        again = opened(where)
        found = load(again)
        assert not found.damaged
        for run in found.messages.values():
            assert [m.body for m in run] == bodies[: len(run)]
        assert len(found.messages[1]) == len(found.messages[2])
        kept.add(len(found.messages[1]))
        sweep(again)
        assert len(query_of(again, PARTS)) == 3 * len(found.messages[1])
        again.abandon()
    print(f"\nkilled at {nth} statements")
    assert nth > 20 and kept == {0, 1}


# What nobody needs any more

@pytest.mark.parametrize("leave", [
    lambda journal, sent: settle(journal, ONE, [sent]),
    lambda journal, sent: journal.changed(Deleted(ONE)),
], ids=["settled", "queue deleted"])
@pytest.mark.parametrize("at_once", [False, True], ids=["later", "in its batch"])
def test_a_body_is_deleted_with_its_message(store, journal, leave, at_once):
    other = large(2)
    publish(store, journal, other, queues=(TWO,))
    sent = large(1)
    publish(store, journal, sent)
    if not at_once:
        save(store, journal)
    leave(journal, sent)
    save(store, journal)
    assert store.has_to_sweep
    sweep(store)
    assert len(query_of(store, PARTS)) == 3
    assert contents(store.fetch([2])) == contents([other])


def test_a_body_of_two_queues_is_deleted_with_the_last(store, journal):
    sent = large(1, holders=2)
    publish(store, journal, sent, queues=(ONE, TWO))
    save(store, journal)
    for definition, is_last in ((ONE, False), (TWO, True)):
        assert contents(store.fetch([1])) == contents([sent])
        settle(journal, definition, [sent])
        save(store, journal)
        assert store.has_to_sweep is is_last
    sweep(store)
    assert query_of(store, PARTS) == []


def test_a_body_whose_message_is_not_published_is_deleted(store, journal):
    write(store, journal, large(1)).end()
    assert store.has_to_sweep
    sweep(store)
    assert query_of(store, PARTS) == []


def test_a_body_that_is_given_up_while_it_is_written_is_deleted(store, journal):
    """Its client may be gone while a piece is in the hands of the thread."""
    body = journal.write_body(large(1, 3 * PIECE_PARTS * PART_BYTES))
    store.write_body(piece := journal.bodies.next_piece())
    piece.end()
    piece = journal.bodies.next_piece()
    called = []
    body.call(lambda: called.append("called"))
    body.end()
    del body
    store.write_body(piece)
    piece.end()
    del piece
    assert called == ["called"], "who waits for it is called"
    assert journal.bodies.next_piece() is None and journal.bodies.is_empty
    assert sweep(store) and query_of(store, PARTS) == []


def test_a_body_that_is_dropped_twice_tells_of_it_once_and_is_not_written_any_more(journal):
    body, calls = journal.write_body(large(1)), []
    body.call(lambda: calls.append(body.is_dropped))
    body.end()
    body.end()
    assert calls == [True]
    body.note_written([0] * body.part_count)        # a piece that was on its way
    assert not body.is_done and body.is_dropped


def test_deleting_keeps_pace_with_writing(store, journal):
    """However busy the store is: a batch, and each part that is written, deletes some."""
    sizes = []
    for number in range(1, 13):
        sent = large(number, 8 * PART_BYTES)
        publish(store, journal, sent)
        save(store, journal)
        settle(journal, ONE, [sent])
        save(store, journal)
        sizes.append(len(query_of(store, PARTS)))
    assert max(sizes) <= 16


def test_pieces_of_several_bodies_are_written_in_turn(store, journal):
    sent = [large(number, 3 * PIECE_PARTS * PART_BYTES) for number in (1, 2)]
    bodies = [journal.write_body(each) for each in sent]
    turns = []
    while (piece := journal.bodies.next_piece()) is not None:
        turns.append(bodies.index(piece.body))
        store.write_body(piece)
        piece.end()
    assert turns == [0, 1] * 3


# When the disk is full

def test_a_piece_for_which_the_disk_has_no_room_is_written_again(store, journal, after_crash):
    pages, = query_of(store, "PRAGMA page_count")[0]
    store.database.connection.execute(f"PRAGMA max_page_count = {pages + 300}")
    sent = large(1)
    body = journal.write_body(sent)
    with pytest.raises(StoreFull):
        store.write_body(piece := journal.bodies.next_piece())
    store.check()
    assert query_of(store, PARTS) == []
    store.database.connection.execute("PRAGMA max_page_count = 1000000")
    while piece is not None:
        store.write_body(piece)
        piece.end()
        piece = journal.bodies.next_piece()
    journal.published(ONE, [sent.with_stored_body(body.stored)])
    save(store, journal)
    assert contents(after_crash().messages[1]) == contents([sent])


def commit_on_full_disk(store: Store, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit a batch whose last statements find no room, and see that this is reported."""
    def full(_: object) -> None:
        error = sqlite3.OperationalError("full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store._writer, "_count_deliveries", full)
        with pytest.raises(StoreFull):
            store.commit(batch)


def test_what_was_to_be_deleted_with_a_batch_that_found_no_room_is_deleted_later(store, journal, monkeypatch):
    write(store, journal, large(1)).end()
    journal.published(ONE, [message(2)])
    batch = journal.take()

    commit_on_full_disk(store, batch, monkeypatch)
    store.commit(batch)
    store.check()
    sweep(store)
    assert query_of(store, PARTS) == []


# Damage

DAMAGE = [
    ("DELETE FROM body_parts WHERE number = {} + 1", "lacks parts of its body"),
    ("UPDATE body_parts SET data = x'00' WHERE number = {} + 2", "lacks parts of its body"),
    ("UPDATE body_parts SET data = CAST('x' || substr(CAST(data AS TEXT), 1, 9) AS TEXT) WHERE number = {}",
     "lacks parts of its body"),
    ("UPDATE body_parts SET data = zeroblob(length(data)) WHERE number = {} + 1", "does not fit its checksum"),
    ("UPDATE message_rows SET body_size = body_size + 1 WHERE number = 2", "lacks parts of its body"),
    ("UPDATE message_rows SET body_id = body_id + 7 * 1024 WHERE number = 2", "lacks parts of its body"),
    ("UPDATE message_rows SET body_id = 'odd' WHERE number = 2", "lacks parts of its body"),
    ("UPDATE message_rows SET checksum = checksum + 1 WHERE number = 2", "does not fit its checksum"),
]


@pytest.fixture(params=DAMAGE, ids=lambda damage: damage[0][:48])
def damaged(request, store, journal, directory):
    """The directory of a store of three large messages, the second of which is damaged; and what is found."""
    sent = [large(number) for number in (1, 2, 3)]
    publish(store, journal, *sent)
    save(store, journal)
    body_id, = query_of(store, "SELECT body_id FROM message_rows WHERE number = 2")[0]
    store.close({})
    statement, finding = request.param
    query(directory, statement.format(body_id))
    return directory, sent, finding


def test_a_damaged_body_is_found_with_its_place(damaged):
    directory, _, finding = damaged
    assert checked(directory) == [f"queue 'queue-1' in vhost '/', message 2 of 3 (number 2) {finding}"]


def test_a_message_with_a_damaged_body_is_set_aside_and_told(damaged, opened, caplog):
    directory, sent, _ = damaged
    store = opened(directory)
    assert contents(load(store).messages[1]) == contents([sent[0], sent[2]])
    assert "1 damaged message of queue 'queue-1' in vhost '/' will not be delivered" in caplog.text
    store.check()
    sweep(store)
    store.close({})
    assert checked(directory) == []
    assert query(directory, "SELECT number, queue FROM damaged") == [(2, 1)]


def test_what_is_left_of_a_damaged_body_stays(store, journal, directory, opened):
    publish(store, journal, large(1))
    save(store, journal)
    store.close({})
    query(directory, "DELETE FROM body_parts WHERE number % 1024 = 1")
    for _ in range(2):
        store = opened(directory)
        load(store)
        sweep(store)
        store.close({})
    assert len(query(directory, PARTS)) == 2
    assert query(directory, "SELECT body_size FROM damaged") == [(SIZE,)]


def test_the_others_are_salvaged(damaged, tmp_path, opened):
    directory, sent, _ = damaged
    result = salvage(directory, tmp_path / "saved", NOW)
    assert (result.saved["messages"], result.damaged, result.lost) == (2, 1, 0)
    saved = opened(tmp_path / "saved")
    assert contents(load(saved).messages[1]) == contents([sent[0], sent[2]])
    assert query_of(saved, "SELECT number FROM damaged") == [(2,)]
    sweep(saved)
    journal = Journal()
    publish(saved, journal, again := large(saved.first_number))
    save(saved, journal)
    assert contents(saved.fetch([again.number])) == contents([again])


def test_parts_on_a_page_that_cannot_be_read_are_those_of_one_message(store, journal, directory, tmp_path, opened):
    """The pages that a part runs over to are not looked at before it is read: only its own message is damaged."""
    sent = [large(number) for number in (1, 2, 3)]
    publish(store, journal, *sent)
    save(store, journal)
    store.close({})
    octets = bytearray((directory / "amqpd.db").read_bytes())
    at = octets.index(sent[1].body[50_000:50_064])
    octets[at : at + 64] = bytes(64)
    (directory / "amqpd.db").write_bytes(octets)
    assert checked(directory) == [
        "queue 'queue-1' in vhost '/', message 2 of 3 (number 2) does not fit its checksum"]
    assert salvage(directory, tmp_path / "saved", NOW).damaged == 1
    assert contents(load(opened(tmp_path / "saved")).messages[1]) == contents([sent[0], sent[2]])


# What else reads them

def test_the_views_show_them(store, journal, directory):
    text = b"line\n" * (PART_BYTES // 4)
    publish(store, journal, sent := message(1, text), large(2))
    publish(store, journal, shared := large(3, holders=2), queues=(ONE, TWO))
    save(store, journal)
    store.close({})
    rows = query(directory, "SELECT queue, number, size, text, body FROM messages ORDER BY queue, number")
    assert [row[:3] for row in rows] == [
        ("queue-1", 1, sent.body_size), ("queue-1", 2, SIZE), ("queue-1", 3, SIZE), ("queue-2", 3, SIZE)]
    assert rows[0][3:] == (text.decode(), text)
    assert [row[4] for row in rows[2:]] == [shared.body] * 2
    assert query(directory, "SELECT messages, octets FROM queues ORDER BY name") == [
        (3, sent.body_size + 2 * SIZE), (1, SIZE)]


def test_copies_and_a_compacted_store_have_them(store, journal, directory, tmp_path, opened):
    publish(store, journal, sent := large(1))
    save(store, journal)
    store.close({})
    assert copies.backup(directory, tmp_path / "backup") == 1
    assert copies.restore(tmp_path / "backup", tmp_path / "restored") == 1
    compacting.compact(directory)
    for where in (directory, tmp_path / "backup", tmp_path / "restored"):
        assert contents(load(opened(where)).messages[1]) == contents([sent])


def test_a_clean_stop_and_a_start_keep_them(store, journal, directory, opened):
    publish(store, journal, sent := large(1))
    save(store, journal)
    store.close({1: {1}})
    found = load(opened(stop(directory)))
    assert contents(found.messages[1]) == contents([sent])
    assert found.redelivered[1] == {1}
