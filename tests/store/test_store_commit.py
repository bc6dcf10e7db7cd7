"""What a commit writes: rows of messages and definitions, in one transaction; what settles and deletes remove."""

from __future__ import annotations

import os
import sqlite3
import threading

import pytest

from amqpd.broker.definitions import (
    BindingDefinition,
    Defined,
    Deleted,
    ExchangeDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.store.batch import Batch
from amqpd.store.errors import StoreError, StoreFull
from amqpd.store.sqlite.limits import LARGEST_WAL, StoreLimits
from amqpd.store.sqlite.schema import newest_format
from amqpd.message import LARGE_BODY
from tests.store.store_samples import contents, define, load, message, queue, save, settle

ONE, TWO = queue(1), queue(2)


def listen(store) -> list[str]:
    """Return a list of the statements of SQLite from now on."""
    said: list[str] = []
    store.database.connection.set_trace_callback(said.append)
    return said


# Messages

def test_deferred_messages_are_on_disk_as_a_whole_and_in_the_order_of_their_numbers(store, journal, after_crash):
    """Messages above them are on disk before them, and some that the queue dropped for them stay as long."""
    before = [message(number) for number in range(1, 21)]
    journal.published(ONE, before)
    save(store, journal)
    journal.deferral.begin()
    deferred = [message(number, holders=2) for number in (30, 41, 42)]
    for run in (deferred[:1], deferred[1:]):
        with journal.deferral.on():
            journal.published(ONE, run)
            journal.published(TWO, run)
            journal.settled(ONE, [run[0].number - 25])
        others = [message(number) for number in range(run[-1].number + 1, run[-1].number + 9)]
        journal.published(ONE, others)
        before += others
        save(store, journal)
        assert contents(after_crash().messages[1]) == contents(before)
    journal.deferral.end()
    save(store, journal)
    back = after_crash().messages
    expected = sorted([*before, *deferred], key=lambda one: one.number)
    assert contents(back[1]) == contents([one for one in expected if one.number not in (5, 16)])
    assert contents(back[2]) == contents(deferred)


@pytest.mark.parametrize("sent", [
    message(1, b""),
    message(1, b"hello"),
    message(1, os.urandom(300_000)),
    message(1, os.urandom(300_000), frame_max=4_096),
    message(1, b"small frames", frame_max=9),
    message(1, properties=b"\x00\x00"),
    message(1, exchange="e" * 255, routing_key="k" * 255),
    message(1, exchange="Ünïcode", routing_key="nul \x00 and 'quotes'; --"),
], ids=["empty", "small", "large", "many frames", "tiny frames", "no properties", "long names", "odd names"])
def test_a_message_comes_back_octet_for_octet(store, journal, after_crash, sent):
    journal.published(ONE, [sent])
    save(store, journal)
    back = after_crash().messages[1]
    assert contents(back) == contents([sent])
    assert back[0].body_size == sent.body_size
    assert back[0].route.packed_names == sent.route.packed_names


@pytest.mark.parametrize("frame_max", [4_096, 131_072, 16 << 20], ids=["small frames", "usual frames", "one frame"])
def test_a_large_body_is_written_in_pieces(store, journal, after_crash, frame_max):
    """Bound to a statement as a whole it would be copied while no other thread can run."""
    sent = message(1, os.urandom(3 * LARGE_BODY + 5), frame_max=frame_max)
    journal.published(ONE, [sent])
    said = listen(store)
    save(store, journal)
    assert max(map(len, said)) < 10_000
    assert contents(after_crash().messages[1]) == contents([message(1, sent.body)])


def test_large_and_small_bodies_share_a_batch(store, journal, after_crash, on_disk):
    run = [message(number, os.urandom(size)) for number, size in enumerate([9, LARGE_BODY + 1, 99, LARGE_BODY + 2], 1)]
    shared = message(5, os.urandom(LARGE_BODY + 3), holders=2)
    journal.published(ONE, run, {2: 5_000, 3: 6_000})
    for each in (ONE, TWO):
        journal.published(each, [shared])
    journal.requeued(ONE, {4: 7})
    save(store, journal)
    assert on_disk("SELECT number, expires_at, deliveries FROM message_rows WHERE queue ORDER BY number") == [
        (1, None, 0), (2, 5_000, 0), (3, 6_000, 0), (4, None, 7)]
    back = after_crash().messages
    assert contents(back[1]) == contents([*run, shared]) and contents(back[2]) == contents([shared])


def test_small_rows_share_a_statement_beside_a_large_body(store, journal):
    journal.published(ONE, [message(number, bytes(3_000)) for number in range(1, 65)])
    journal.published(ONE, [message(65, bytes(64 << 20))])
    said = listen(store)
    save(store, journal)
    assert sum(line.startswith("INSERT INTO message_rows") for line in said) == 2


def test_a_large_body_for_which_the_disk_has_no_room_is_written_again(store, journal, after_crash):
    save(store, journal)
    sent = message(1, os.urandom(4 * LARGE_BODY))
    journal.published(ONE, [sent])
    batch = journal.take()
    store.database.connection.execute("PRAGMA max_page_count = 500")
    with pytest.raises(StoreFull):
        store.commit(batch)
    assert after_crash().messages == {1: [], 2: []}
    store.database.connection.execute("PRAGMA max_page_count = 100000")
    store.commit(batch)
    store.check()
    assert contents(after_crash().messages[1]) == contents([sent])


def test_a_batch_of_16_mib_is_one_commit(store, journal, after_crash):
    run = [message(number, os.urandom(1 << 20)) for number in range(1, 17)]
    journal.published(ONE, run)
    save(store, journal)
    assert contents(after_crash().messages[1]) == contents(run)


@pytest.mark.parametrize("count", [1, 2, 511, 512, 1_337])
def test_a_batch_may_have_any_number_of_messages(store, journal, after_crash, count):
    run = [message(number, b"%d" % number) for number in range(1, count + 1)]
    journal.published(ONE, run)
    save(store, journal)
    assert contents(after_crash().messages[1]) == contents(run)


def test_a_message_of_one_queue_is_one_row(store, journal, on_disk):
    journal.published(ONE, [message(1, b"readable", exchange="e", routing_key="k")])
    save(store, journal)
    columns = "number, queue, exchange, routing_key, properties, body, redelivered"
    assert on_disk(f"SELECT {columns} FROM message_rows") == [(1, 1, "e", "k", b"\x10\x00\x02", b"readable", 0)]
    assert on_disk("SELECT * FROM entries") == []


def test_a_message_settled_before_its_batch_is_taken_leaves_no_row(store, journal, on_disk):
    journal.published(ONE, [message(1), message(2)])
    settle(journal, ONE, [message(1)])
    save(store, journal)
    assert on_disk("SELECT number FROM message_rows") == [(2,)]


@pytest.mark.parametrize("settled", [
    [1], [100], [3, 4, 5], [5, 3, 4], range(1, 101), range(1, 101, 2), [1, 3, 4, 9, 50, 51, 52, 70, 99],
])
def test_settled_messages_go_and_the_others_stay(store, journal, on_disk, settled):
    run = [message(number) for number in range(1, 101)]
    journal.published(ONE, run)
    save(store, journal)
    settle(journal, ONE, [run[number - 1] for number in settled])
    save(store, journal)
    left = on_disk("SELECT number FROM messages ORDER BY number")
    assert left == [(number,) for number in range(1, 101) if number not in settled]
    assert store.info().messages == len(left)


def test_settles_in_several_queues_are_one_commit(store, journal, on_disk):
    odd, even = ([message(number) for number in range(start, 101, 2)] for start in (1, 2))
    journal.published(ONE, odd)
    journal.published(TWO, even)
    save(store, journal)
    settle(journal, ONE, odd[:40])
    settle(journal, TWO, even[10:])
    save(store, journal)
    left = [m.number for m in odd[40:]] + [m.number for m in even[:10]]
    assert on_disk("SELECT number FROM messages ORDER BY number") == [(number,) for number in sorted(left)]


def test_a_move_between_queues_is_one_commit(store, journal, after_crash):
    journal.published(ONE, [message(1)])
    save(store, journal)
    settle(journal, ONE, [message(1)])
    journal.published(TWO, [message(2)])
    assert [len(run) for run in after_crash().messages.values()] == [1, 0]
    save(store, journal)
    assert [len(run) for run in after_crash().messages.values()] == [0, 1]


def test_an_empty_batch_is_not_written(store, journal, directory):
    save(store, journal)
    before = store.info().wal_bytes
    store.commit(journal.take())
    assert store.info().wal_bytes == before


# Messages of several queues

@pytest.fixture
def shared(store, journal):
    """Two messages, each in both queues, on disk."""
    run = [message(1, holders=2), message(2, holders=2)]
    journal.published(ONE, run)
    journal.published(TWO, run)
    save(store, journal)
    return run


def test_a_message_of_several_queues_is_stored_once(shared, on_disk):
    assert on_disk("SELECT number, queue FROM message_rows") == [(1, None), (2, None)]
    assert on_disk("SELECT queue, number FROM entries ORDER BY queue, number") == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_a_message_of_several_queues_comes_back_in_each(shared, after_crash):
    messages = after_crash().messages
    assert contents(messages[1]) == contents(messages[2]) == contents(shared)


def test_a_message_of_several_queues_goes_with_the_last_of_them(store, journal, shared, on_disk):
    settle(journal, ONE, shared)
    save(store, journal)
    assert on_disk("SELECT count(*) FROM message_rows") == [(2,)]
    settle(journal, TWO, shared[:1])
    save(store, journal)
    assert on_disk("SELECT number FROM message_rows") == [(2,)]
    assert on_disk("SELECT queue, number FROM entries ORDER BY queue, number") == [(2, 2)]


def test_a_message_settled_everywhere_in_one_batch_goes_at_once(store, journal, shared, on_disk):
    settle(journal, ONE, shared)
    settle(journal, TWO, shared)
    save(store, journal)
    assert on_disk("SELECT * FROM message_rows") == on_disk("SELECT * FROM entries") == []
    assert store.info().messages == 0


def test_a_message_settled_in_one_queue_before_its_batch_is_in_the_others_only(store, journal, on_disk):
    run = [message(1, holders=2)]
    journal.published(ONE, run)
    journal.published(TWO, run)
    settle(journal, ONE, run)
    save(store, journal)
    assert on_disk("SELECT queue, number FROM entries ORDER BY queue, number") == [(2, 1)]
    settle(journal, TWO, run)
    save(store, journal)
    assert on_disk("SELECT * FROM message_rows") == []


def test_blocks_may_mix_messages_of_one_queue_and_of_several(store, journal, on_disk):
    alone, both = message(1), message(2, holders=2)
    journal.published(ONE, [alone, both])
    journal.published(TWO, [both])
    save(store, journal)
    settle(journal, ONE, [alone, both])
    save(store, journal)
    assert on_disk("SELECT number, queue FROM message_rows") == [(2, None)]
    assert on_disk("SELECT queue, number FROM entries ORDER BY queue, number") == [(2, 2)]


# Expiries and delivery counts

def test_when_a_message_expires_is_in_its_row(store, journal, on_disk):
    journal.published(ONE, [message(1), message(2)], {2: 1_800_000_000_123})
    journal.published(TWO, [message(3)])
    save(store, journal)
    assert on_disk("SELECT number, expires_at, deliveries FROM message_rows") == [
        (1, None, 0), (2, 1_800_000_000_123, 0), (3, None, 0)]


def test_a_message_of_several_queues_expires_in_each_at_its_own_time(store, journal, on_disk):
    run = [message(1, holders=2), message(2, holders=2)]
    journal.published(ONE, run, {1: 1_000, 2: 2_000})
    journal.published(TWO, run, {2: 3_000})
    save(store, journal)
    assert on_disk("SELECT queue, number, expires_at, deliveries FROM entries ORDER BY queue, number") == [
        (1, 1, 1_000, 0), (1, 2, 2_000, 0), (2, 1, None, 0), (2, 2, 3_000, 0)]


@pytest.mark.parametrize("requeued", [[1], [3, 4, 5], range(1, 101), range(1, 101, 2), [1, 3, 4, 9, 50, 51, 52, 99]])
def test_requeued_messages_have_their_delivery_counts_and_the_others_none(store, journal, on_disk, requeued):
    journal.published(ONE, [message(number) for number in range(1, 101)])
    save(store, journal)
    journal.requeued(ONE, counts := {number: number % 3 + 1 for number in requeued})
    save(store, journal)
    found = on_disk("SELECT number, deliveries FROM messages ORDER BY number")
    assert found == [(number, counts.get(number, 0)) for number in range(1, 101)]


def test_a_delivery_count_takes_the_place_of_the_one_before(store, journal, on_disk):
    journal.published(ONE, [message(1)], {1: 5_000})
    save(store, journal)
    for count in (1, 2, 300):
        journal.requeued(ONE, {1: count})
        save(store, journal)
    assert on_disk("SELECT expires_at, deliveries FROM message_rows") == [(5_000, 300)]


def test_a_message_of_several_queues_is_counted_in_each(store, journal, shared, on_disk):
    journal.requeued(ONE, {1: 2, 2: 1})
    journal.requeued(TWO, {2: 5})
    save(store, journal)
    assert on_disk("SELECT queue, number, deliveries FROM entries ORDER BY queue, number") == [
        (1, 1, 2), (1, 2, 1), (2, 1, 0), (2, 2, 5)]


def test_a_message_requeued_before_it_was_written_is_written_once(store, journal, on_disk):
    save(store, journal)
    alone, both = message(1), message(2, holders=2)
    journal.published(ONE, [alone, both])
    journal.published(TWO, [both])
    journal.requeued(ONE, {1: 1, 2: 1})
    journal.requeued(ONE, {1: 2})
    said = listen(store)
    save(store, journal)
    assert not [statement for statement in said if statement.startswith("UPDATE")]
    assert on_disk("SELECT number, deliveries FROM message_rows") == [(1, 2), (2, 0)]
    assert on_disk("SELECT queue, deliveries FROM entries ORDER BY queue") == [(1, 1), (2, 0)]


def test_requeued_and_then_settled_in_one_batch_is_settled(store, journal, shared, on_disk):
    journal.published(ONE, [message(3)])
    save(store, journal)
    journal.requeued(ONE, {1: 1, 3: 1})
    settle(journal, ONE, [shared[0], message(3)])
    save(store, journal)
    assert on_disk("SELECT number FROM message_rows") == [(1,), (2,)]
    assert on_disk("SELECT queue, number, deliveries FROM entries ORDER BY queue, number") == [
        (1, 2, 0), (2, 1, 0), (2, 2, 0)]


# Dead letters: settled in one queue, published in others

@pytest.fixture
def moves(store, journal, shared):
    """Moves of what is on disk, recorded but not committed: to one queue, to two, of a message of several queues."""
    define(journal, queue(3))
    journal.published(ONE, [message(3), message(4), message(5)], {3: 5_000, 4: 6_000})
    journal.requeued(ONE, {4: 2})
    save(store, journal)
    settle(journal, ONE, [message(3), message(4), shared[0]])
    journal.published(TWO, [message(6), message(7, holders=2), message(8, bytes(100_000))])
    journal.published(queue(3), [message(7, holders=2)], {7: 9_000})
    journal.requeued(ONE, {5: 1})
    return journal.take()


UNMOVED = {1: [1, 2, 3, 4, 5], 2: [1, 2], 3: []}
MOVED = {1: [2, 5], 2: [1, 2, 6, 7, 8], 3: [7]}


def numbers_of(found) -> dict[int, list[int]]:
    return {number: [m.number for m in run] for number, run in found.messages.items()}


def test_moves_are_one_transaction(store, moves, after_crash):
    said = listen(store)
    assert numbers_of(after_crash()) == UNMOVED
    store.commit(moves)
    assert [said[0], said[-1]] == ["BEGIN IMMEDIATE", "COMMIT"]
    assert not [statement for statement in said[1:-1] if statement.startswith(("BEGIN", "COMMIT", "ROLLBACK"))]
    store.check()
    found = after_crash()
    assert numbers_of(found) == MOVED
    assert found.expiries == {3: {7: 9_000}}
    assert found.deliveries == {1: {5: 1}}


@pytest.mark.parametrize("act", [
    "INSERT ON message_rows", "INSERT ON entries", "DELETE ON message_rows", "DELETE ON entries",
    "UPDATE ON message_rows"])
def test_moves_that_fail_at_whatever_step_leave_everything_where_it_was(store, moves, after_crash, act):
    # RAISE(FAIL) undoes nothing by itself: what the statements before have done is still there.
    store.database.connection.execute(
        f"CREATE TEMP TRIGGER failure AFTER {act} BEGIN SELECT RAISE(FAIL, 'the disk is on fire'); END")
    with pytest.raises(StoreError, match="the disk is on fire"):
        store.commit(moves)
    store.check()
    found = after_crash()
    assert numbers_of(found) == UNMOVED
    assert found.expiries == {1: {3: 5_000, 4: 6_000}}
    assert found.deliveries == {1: {4: 2}}


def test_moves_on_a_full_disk_are_made_when_there_is_room(store, moves, after_crash):
    store.database.connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StoreFull):
        store.commit(moves)
    store.check()
    assert numbers_of(after_crash()) == UNMOVED
    store.database.connection.execute("PRAGMA max_page_count = 100000")
    store.commit(moves)
    store.check()
    assert numbers_of(after_crash()) == MOVED


# Deletions

def test_the_messages_of_a_deleted_queue_go_with_it(store, journal, on_disk):
    journal.published(ONE, [message(1)])
    journal.published(TWO, [message(2)])
    save(store, journal)
    journal.changed(Deleted(ONE))
    save(store, journal)
    assert on_disk("SELECT number FROM message_rows") == [(2,)]
    assert on_disk("SELECT number FROM queue_rows") == [(2,)]
    assert store.info().messages == 1


def test_a_queue_made_published_to_and_deleted_in_one_batch_leaves_nothing(store, journal, on_disk):
    run = [message(1, holders=2), message(2, holders=2)]
    for definition in (ONE, TWO):
        journal.published(definition, run)
    settle(journal, TWO, run[:1])
    journal.changed(Deleted(ONE))
    save(store, journal)
    assert on_disk("SELECT number FROM message_rows") == [(2,)]
    journal.changed(Deleted(TWO))
    save(store, journal)
    assert on_disk("SELECT * FROM message_rows") == on_disk("SELECT * FROM queue_rows") == []


def test_messages_stay_for_the_queues_that_are_left(store, journal, shared, on_disk):
    settle(journal, ONE, shared[:1])
    journal.changed(Deleted(TWO))
    save(store, journal)
    assert on_disk("SELECT number FROM message_rows") == [(2,)]
    assert on_disk("SELECT queue, number FROM entries ORDER BY queue, number") == [(1, 2)]


def test_settling_after_another_queue_was_deleted_leaves_nothing(store, journal, shared, on_disk):
    journal.changed(Deleted(TWO))
    save(store, journal)
    settle(journal, ONE, shared)
    save(store, journal)
    assert on_disk("SELECT * FROM message_rows") == on_disk("SELECT * FROM entries") == []


def test_everything_in_a_vhost_goes_with_it(store, journal, on_disk):
    elsewhere = [queue(3, vhost="elsewhere"), queue(4, vhost="elsewhere")]
    define(
        journal, VhostDefinition("/"), VhostDefinition("elsewhere"), UserDefinition("ann"), *elsewhere,
        PermissionDefinition("ann", "/"), PermissionDefinition("ann", "elsewhere"),
        PolicyDefinition("elsewhere", "p", "", {"expires": 5}),
        TopicPermissionDefinition("ann", "elsewhere", "e"), ParameterDefinition("elsewhere", "c", "p", 1),
        ExchangeDefinition("elsewhere", "e", "fanout", durable=True),
        BindingDefinition("elsewhere", "e", "queue", "queue-3"))
    journal.published(ONE, [message(1)])
    run = [message(2, holders=2)]
    for definition in elsewhere:
        journal.published(definition, run)
    save(store, journal)
    journal.changed(Deleted(VhostDefinition("elsewhere")))
    save(store, journal)
    assert on_disk("SELECT number FROM message_rows") == [(1,)]
    assert on_disk("SELECT number FROM queue_rows") == [(1,), (2,)]
    for table in ("entries", "policies", "exchanges", "bindings", "topic_permissions", "parameters"):
        assert on_disk(f"SELECT * FROM {table}") == []
    assert on_disk("SELECT vhost FROM permissions") == [("/",)]


def test_permissions_of_one_vhost_are_cleared(store, journal, on_disk):
    define(journal, UserDefinition("ann"), UserDefinition("bob"), VhostDefinition("other"))
    ours = PermissionDefinition("ann", "/")
    define(journal, ours, PermissionDefinition("ann", "other"), PermissionDefinition("bob", "/"))
    journal.changed(Deleted(ours))
    save(store, journal)
    assert on_disk("SELECT user, vhost FROM permissions ORDER BY user") == [("ann", "other"), ("bob", "/")]


def test_permissions_go_with_their_user(store, journal, on_disk):
    define(journal, UserDefinition("ann"), UserDefinition("bob"))
    define(journal, PermissionDefinition("ann", "/"), PermissionDefinition("bob", "/"))
    define(journal, TopicPermissionDefinition("ann", "/", "e"), TopicPermissionDefinition("bob", "/", "e"))
    journal.changed(Deleted(UserDefinition("ann")))
    save(store, journal)
    assert on_disk("SELECT user FROM topic_permissions") == [("bob",)]
    assert on_disk("SELECT user FROM permissions") == on_disk("SELECT name FROM users") == [("bob",)]


def test_changes_are_written_in_order(store, journal, on_disk):
    for number in (3, 4, 5):
        journal.changed(Defined(queue(number, "again")))
        journal.changed(Deleted(queue(number, "again")))
    journal.changed(Defined(queue(6, "again")))
    save(store, journal)
    assert on_disk("SELECT number FROM queue_rows WHERE name = 'again'") == [(6,)]


# Failures

def test_a_full_disk_leaves_the_batch_to_be_committed_again(store, journal, after_crash):
    save(store, journal)
    journal.published(ONE, [message(number, bytes(10_000)) for number in range(1, 100)])
    journal.changed(Deleted(TWO))
    batch = journal.take()
    store.database.connection.execute("PRAGMA max_page_count = 40")
    with pytest.raises(StoreFull, match="no space left for .*amqpd.db"):
        store.commit(batch)
    found = after_crash()
    assert found.messages == {1: [], 2: []}
    store.database.connection.execute("PRAGMA max_page_count = 100000")
    store.commit(batch)
    store.check()
    assert {number: len(run) for number, run in after_crash().messages.items()} == {1: 99}


def test_after_any_other_failure_nothing_is_written_any_more(store, journal, on_disk):
    journal.published(ONE, [message(1)])
    save(store, journal)
    journal.published(ONE, [message(1), message(2)])
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        store.commit(journal.take())
    journal.published(ONE, [message(3)])
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        store.commit(journal.take())
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        store.close({})
    assert on_disk("SELECT number FROM message_rows") == [(1,)]
    assert on_disk("SELECT value FROM meta WHERE key = 'clean'") == [(0,)]


def test_a_mistake_of_ours_is_a_failure_too(store, journal):
    define(journal, queue(3, "no text: \ud800"))
    for batch in (journal.take(), Batch(9)):
        batch.change(Defined(ONE))
        with pytest.raises(StoreError, match="amqpd.db .UnicodeEncodeError.* mistake in amqpd"):
            store.commit(batch)
    assert not store.database.connection.in_transaction


def test_a_connection_that_is_gone_is_a_failure(store, journal):
    store.database.connection.close()
    with pytest.raises(StoreError, match="closed database"):
        store.commit(journal.take())


# Threads, checkpoints, numbers

def test_another_thread_may_commit_and_the_first_one_close(store, journal, opened):
    journal.published(ONE, [message(1)])
    thread = threading.Thread(target=store.commit, args=(journal.take(),))
    thread.start()
    thread.join()
    store.close({})
    assert len(load(opened()).messages[1]) == 1


def test_the_log_is_written_back_when_it_has_grown(opened, journal):
    store = opened(limits=StoreLimits(largest_wal=100_000))
    load(store)
    journal.published(ONE, [message(1, bytes(20_000))])
    save(store, journal)
    store.checkpoint_if_due()
    assert 20_000 < store.info().wal_bytes < 100_000
    journal.published(ONE, [message(2, bytes(100_000))])
    save(store, journal)
    store.checkpoint_if_due()
    assert store.info().wal_bytes == 0
    assert store.info().file_bytes > 120_000


def test_the_default_bound_of_the_log_is_8_mib():
    assert StoreLimits().largest_wal == LARGEST_WAL == 8 * 1024 * 1024


def test_large_messages_leave_little_to_write_when_they_go(store, journal):
    run = [message(1, os.urandom(4 << 20))]
    journal.published(ONE, run)
    save(store, journal)
    store.database.checkpoint()
    settle(journal, ONE, run)
    save(store, journal)
    assert store.info().wal_bytes < 100_000


def test_info_says_what_there_is(store, journal, directory):
    journal.published(ONE, [message(1), message(2)])
    save(store, journal)
    info = store.info()
    assert (info.path, info.durability, info.format) == (
        f"{directory}/amqpd.db", "power", newest_format())
    assert (info.messages, info.damaged) == (2, 0)
    assert info.file_bytes > 0
    assert info.wal_bytes > 0


def test_confirms_for_the_process_survive_the_process(opened, journal, after_crash):
    store = opened(durability="process")
    load(store)
    journal.published(ONE, [message(1)])
    save(store, journal)
    assert len(after_crash().messages[1]) == 1


def test_a_tool_can_check_a_checksum(store, journal, on_disk):
    from binascii import crc32

    journal.published(ONE, [message(1, b"body", exchange="ex", routing_key="key")])
    save(store, journal)
    assert on_disk("SELECT checksum FROM message_rows") == [(crc32(b"\x02ex\x03key" + b"\x10\x00\x02" + b"body"),)]


def test_the_files_are_whole_for_sqlite(store, journal, on_disk):
    journal.published(ONE, [message(number) for number in range(1, 1_000)])
    save(store, journal)
    assert on_disk("PRAGMA integrity_check") == [("ok",)]
    assert sqlite3.threadsafety == 3, "info may be asked while another thread commits"
