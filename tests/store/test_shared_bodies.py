"""Messages that share a large body: it is written once, and deleted with the last of them."""

from __future__ import annotations

import gc
import os
import signal
from itertools import count
from pathlib import Path

import pytest

from amqpd.broker.definitions import Deleted, VhostDefinition
from amqpd.message import Message, StoredMessage
from amqpd.store.journal import Journal
from amqpd.store.sqlite.store import Store
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import checked
from tests.store.store_samples import NOW, contents, define, load, message, query, queue, save, settle
from tests.store.test_body_parts import PARTS, SIZE, commit_on_full_disk, large, query_of, sweep, write

ONE, TWO, THREE = queue(1), queue(2), queue(3)


@pytest.fixture
def journal(store: Store, journal: Journal) -> Journal:
    """A journal that is joined to the store, with three queues."""
    journal.bodies.release = store.release_body
    define(journal, VhostDefinition("/"), THREE)
    save(store, journal)
    return journal


def stored(store: Store, journal: Journal, sent: Message) -> StoredMessage:
    return sent.with_stored_body(write(store, journal, sent).stored)


def parts(store: Store) -> int:
    return len(query_of(store, PARTS))


def test_copies_in_later_batches_have_one_body_until_the_last_of_them_has_left(store, journal, after_crash):
    """As a hand-over to very many queues makes them."""
    sent = stored(store, journal, large(1, holders=2))
    journal.published(ONE, [sent])
    journal.published(TWO, [sent])
    save(store, journal)
    copy = sent.renumbered(2)
    journal.published(THREE, [copy])
    assert journal.filling.weight == 0, "the body counts as what is to be written with the batch"
    save(store, journal)
    found = after_crash()
    assert [contents(found.messages[n]) for n in (1, 2, 3)] == [contents([one]) for one in (sent, sent, copy)]
    assert parts(store) == 3
    body = sent.body
    del sent, copy, found
    settle(journal, ONE, [message(1)])
    settle(journal, TWO, [message(1)])
    save(store, journal)
    assert not store.has_to_sweep
    assert [bytes(m.body) for m in after_crash().messages[3]] == [body]
    settle(journal, THREE, [message(2)])
    save(store, journal)
    assert sweep(store) and parts(store) == 0


def test_a_message_that_has_been_read_gives_its_body_to_a_copy_with_other_properties(store, journal, after_crash):
    """As a dead letter does, whose own row is deleted in the same batch."""
    journal.published(ONE, [stored(store, journal, sent := large(1))])
    save(store, journal)
    found, = store.fetch([1])
    properties = b"\x10\x00\x01"
    copy = found.copy_as(2, found.route, found.facts, found.content_with(properties))
    journal.published(TWO, [copy])
    settle(journal, ONE, [found])
    save(store, journal)
    del found, copy
    assert not store.has_to_sweep and parts(store) == 3
    kept, = after_crash().messages[2]
    assert (kept.properties, kept.body) == (properties, sent.body)
    settle(journal, TWO, [kept])
    save(store, journal)
    assert sweep(store) and parts(store) == 0


@pytest.mark.parametrize("leave", [
    lambda journal, sent: settle(journal, ONE, [sent]),
    lambda journal, sent: journal.changed(Deleted(ONE)),
], ids=["settled", "queue deleted"])
def test_a_body_is_kept_while_a_message_in_memory_may_be_recorded(store, journal, after_crash, leave):
    sent = stored(store, journal, large(1))
    journal.published(ONE, [sent])
    save(store, journal)
    leave(journal, sent)
    save(store, journal)
    assert not store.has_to_sweep and parts(store) == 3
    copy = sent.renumbered(2)
    journal.published(TWO, [copy])
    save(store, journal)
    assert contents(after_crash().messages[2]) == contents([copy])


def test_bodies_of_messages_that_have_been_read_are_counted_apart(store, journal):
    journal.published(ONE, [stored(store, journal, large(1))])
    save(store, journal)
    first, second = store.fetch([1]), store.fetch([1])
    settle(journal, ONE, first)
    save(store, journal)
    del first
    assert not store.has_to_sweep
    del second
    assert sweep(store) and parts(store) == 0


def test_after_a_restart_a_shared_body_is_deleted_with_the_last_row(store, journal, directory, opened):
    sent = stored(store, journal, large(1))
    journal.published(ONE, [sent])
    journal.published(TWO, [sent.renumbered(2)])
    save(store, journal)
    expected = contents([sent.renumbered(2)])
    del sent
    store.close({})
    again, later = opened(directory), Journal()
    load(again)
    settle(later, ONE, [message(1)])
    save(again, later)
    assert not again.has_to_sweep and contents(again.fetch([2])) == expected
    settle(later, TWO, [message(2)])
    save(again, later)
    assert sweep(again) and parts(again) == 0


def test_a_row_that_was_not_committed_does_not_count(store, journal, monkeypatch):
    sent = stored(store, journal, large(1))
    journal.published(ONE, [sent])
    batch = journal.take()

    commit_on_full_disk(store, batch, monkeypatch)
    store.check()
    store.commit(batch)
    del sent, batch
    gc.collect()        # of the error
    settle(journal, ONE, [message(1)])
    save(store, journal)
    assert sweep(store) and parts(store) == 0


def kill_at(directory: Path, nth: int, body: bytes) -> bool:
    """Let a message, a copy and a copy of that be published and leave in turn, in a process killed at a statement."""
    child = os.fork()
    if not child:
        try:
            store = Store.open(directory, now=NOW)
            load(store)
            left = iter(range(nth))
            store.database.connection.set_trace_callback(
                lambda _: None if next(left, None) is not None else os.kill(os.getpid(), signal.SIGKILL))
            journal = Journal()
            journal.bodies.release = store.release_body
            sent: Message = stored(store, journal, message(first := store.first_number, body))
            journal.published(ONE, [sent])
            store.commit(journal.take())
            for number, (source, target) in enumerate([(ONE, TWO), (TWO, THREE)], first + 1):
                copy = sent.renumbered(number)
                journal.published(target, [copy])
                settle(journal, source, [sent])
                sent = copy
                store.commit(journal.take())
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_a_broker_killed_while_a_body_passes_from_row_to_row_has_it_in_one(store, journal, directory, tmp_path, opened):
    store.close({})
    body = os.urandom(SIZE)
    kept = set()
    for nth in count():
        where = tmp_path / f"killed-{nth}"
        where.mkdir(mode=0o700)
        (where / "amqpd.db").write_bytes((directory / "amqpd.db").read_bytes())
        if not kill_at(where, nth, body):
            break
        assert checked(where) == []
        again = opened(where)
        found = load(again)
        assert not found.damaged
        places = [number for number in (1, 2, 3) if found.messages[number]]
        assert len(places) <= 1
        kept |= {*places}
        assert all(bytes(m.body) == body for number in places for m in found.messages[number])
        sweep(again)
        assert parts(again) == 3 * len(places)
        again.abandon()
    assert nth > 15 and kept >= {1, 2}


def test_the_tools_know_shared_bodies(store, journal, directory, tmp_path, opened):
    sent = stored(store, journal, large(1))
    copy = sent.renumbered(2)
    journal.published(ONE, [sent])
    journal.published(TWO, [copy])
    save(store, journal)
    store.close({})
    assert checked(directory) == []
    assert query(directory, "SELECT queue, body FROM messages ORDER BY number") == [
        ("queue-1", sent.body), ("queue-2", sent.body)]
    assert salvage(directory, tmp_path / "saved", NOW).saved["messages"] == 2
    saved = opened(tmp_path / "saved")
    found = load(saved)
    assert [contents(found.messages[n]) for n in (1, 2)] == [contents([sent]), contents([copy])]
    assert parts(saved) == 3


def test_what_is_damaged_of_a_body_stays_when_the_other_messages_with_it_leave(store, journal, directory, opened):
    sent = stored(store, journal, large(1))
    journal.published(ONE, [sent])
    journal.published(TWO, [sent.renumbered(2)])
    save(store, journal)
    del sent
    store.close({})
    query(directory, "UPDATE message_rows SET checksum = checksum + 1 WHERE number = 1")
    again, later = opened(directory), Journal()
    load(again)
    settle(later, TWO, [message(2)])
    save(again, later)
    sweep(again)
    assert parts(again) == 3, "the table `damaged` has lost the body"
    again.close({})
    last = opened(directory)
    load(last)
    sweep(last)
    assert parts(last) == 3
