"""The audit log in the store: written with a batch, bounded, and read from the newest entries on."""

from __future__ import annotations

import pytest

from amqpd.broker.audit_entry import AuditEntry
from tests.store.store_samples import load, save


def entry(number: int, user: str = "till", door: str = "control", action: str = "add_user") -> AuditEntry:
    return AuditEntry(number, user, "pid 7", door, action, '{"user": "ü"}')


def test_entries_are_on_disk_with_their_batch_and_survive_a_crash(store, journal, opened, directory):
    load(store)
    assert journal.audited(entry(1)) == journal.batch and journal.filling.audited == [entry(1)]
    journal.filling.check()
    journal.audited(entry(2))
    save(store, journal)
    assert store.audit_log(limit=10) == [entry(1), entry(2)]
    store.abandon()
    store = opened(directory)
    load(store)
    assert store.audit_log(limit=1) == [entry(2)]


@pytest.mark.parametrize("wanted, numbers", [
    ({}, [1, 2, 3, 4]), ({"user": "ann"}, [2]), ({"door": "http"}, [3]), ({"action": "set_*"}, [4]),
    ({"action": "set_user"}, []), ({"since_ms": 3}, [3, 4]), ({"user": "till", "since_ms": 2}, [3, 4]),
    ({"user": "' OR 1=1 --"}, []),
])
def test_entries_are_filtered(store, journal, wanted, numbers):
    load(store)
    for one in (entry(1), entry(2, user="ann"), entry(3, door="http"), entry(4, action="set_user_tags")):
        journal.audited(one)
    save(store, journal)
    assert [found.at_ms for found in store.audit_log(limit=10, **wanted)] == numbers


def test_many_entries_of_one_batch_are_written_and_the_oldest_deleted(store, journal):
    load(store)
    for number in range(10_500):
        journal.audited(entry(number))
    save(store, journal)
    assert [found.at_ms for found in store.audit_log(limit=20_000)] == [*range(500, 10_500)]
