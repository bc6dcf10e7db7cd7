"""A broker with one thing wrong with it, or with a slow disk: `python sabotaged.py FAULT serve …`.

The crash tests have to catch every one of these faults. Each is patched into this process from outside, so that the
broker itself knows nothing of them. A fault's docstring says which promise it breaks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from amqpd.broker.definitions import Deleted
from amqpd.cli import main
from amqpd.message import Facts
from amqpd.properties import read_facts
from amqpd.server import alarms
from amqpd.server import run as running
from amqpd.server.committer import Committer
from amqpd.session import publishing
from amqpd.store.errors import StoreError
from amqpd.store.journal import Batch
from amqpd.store.recovery import Recovered
from amqpd.store.store import Store

Commit = Callable[[Batch], None]
SLOW_COMMIT_S = 0.15
FAULTS: dict[str, Callable[[], None]] = {}


def fault(sabotage: Callable[[], None]) -> Callable[[], None]:
    """Make a fault known by its function's name."""
    FAULTS[sabotage.__name__] = sabotage
    return sabotage


def patch(owner: object, name: str, replacement: Callable[..., object]) -> None:
    """Put something in the place of what is there."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, replacement)


def around_commit(change: Callable[[Commit, Batch], None]) -> None:
    """Have every commit done by `change`, which is given the real one."""
    commit = Store.commit

    def changed(self: Store, batch: Batch) -> None:
        change(partial(commit, self), batch)

    patch(Store, "commit", changed)


def around_load(change: Callable[[Recovered], Recovered]) -> None:
    """Have what is read back at start changed."""
    load = Store.load

    def changed(self: Store, read_facts: Callable[[bytes], Facts]) -> Recovered:
        return change(load(self, read_facts))

    patch(Store, "load", changed)


@fault
def backup_without_log() -> None:
    """A backup has what was confirmed before: but here only what has been written back from the log."""
    def copy(self: Store, to: Path, between: Callable[[int, int], None]) -> None:
        to.write_bytes(Path(self.info().path).read_bytes())

    patch(Store, "backup", copy)


@fault
def slow_disk() -> None:
    """Nothing is wrong: a commit takes a while."""
    def commit_late(commit: Commit, batch: Batch) -> None:
        time.sleep(SLOW_COMMIT_S)
        commit(batch)

    around_commit(commit_late)


@fault
def broken_disk() -> None:
    """Nothing is wrong but the disk: what is published cannot be written, a moment after it was tried."""
    def break_down(commit: Commit, batch: Batch) -> None:
        if batch.published:
            time.sleep(SLOW_COMMIT_S)
            raise StoreError("cannot use /data/amqpd.db (disk I/O error): check its disk and its permissions")
        commit(batch)

    around_commit(break_down)


@fault
def broken_disk_goes_on() -> None:
    """Promise 1: an error of the disk is passed over, and what was not written is confirmed."""
    broken_disk()
    commit = Store.commit

    def swallow(self: Store, batch: Batch) -> None:
        with suppress(StoreError):
            commit(self, batch)

    patch(Store, "commit", swallow)


@fault
def hanging_disk() -> None:
    """Nothing is wrong but the disk: a commit of what is published never ends. A stop has a second for all."""
    def hang(commit: Commit, batch: Batch) -> None:
        if batch.published:
            time.sleep(1_000)
        commit(batch)

    around_commit(hang)
    running.STOP_LIMIT_S = 1.0


@fault
def looks_at_memory_rarely() -> None:
    """The memory alarm comes late."""
    alarms.MEMORY_MIN_S = alarms.MEMORY_MAX_S = 8.0


@fault
def confirms_before_commit() -> None:
    """Promise 1: what waits for a batch is let go when the batch is taken, and written a while later."""
    slow_disk()
    take = Committer.take

    def take_and_confirm(self: Committer) -> None:
        number = self._journal.filling.number
        take(self)
        if self._journal.filling.number > number:
            self._passes.on_commit(number)

    patch(Committer, "take", take_and_confirm)


@fault
def forgets_acks() -> None:
    """Promise 6: no ack reaches the disk."""
    def commit_without(commit: Commit, batch: Batch) -> None:
        batch.settled.clear()
        commit(batch)

    around_commit(commit_without)


@fault
def forgets_deletions() -> None:
    """Promise 8: what was deleted is back after a restart."""
    def commit_without(commit: Commit, batch: Batch) -> None:
        batch.changes = [change for change in batch.changes if not isinstance(change, Deleted)]
        commit(batch)

    around_commit(commit_without)


@fault
def commits_in_halves() -> None:
    """Promise 10: what is published in a batch is written before what is settled in it."""
    def commit_twice(commit: Commit, batch: Batch) -> None:
        first = Batch(batch.number)
        first.changes, first.published, first.count, first.weight = batch.changes, batch.published, 1, 1
        commit(first)
        time.sleep(SLOW_COMMIT_S)
        batch.changes, batch.published = [], {}
        commit(batch)

    around_commit(commit_twice)


@fault
def calls_nothing_redelivered() -> None:
    """Promise 5: after a restart everything looks as if it had never been with anybody."""
    around_load(lambda recovered: msgspec.structs.replace(recovered, redelivered={}))


@fault
def flips_a_bit() -> None:
    """Promise 2: the last octet of a body is not what it was."""
    def flip(recovered: Recovered) -> Recovered:
        for run in recovered.messages.values():
            for message in run:
                if message.body_size:
                    octet = message.content[-2] ^ 1
                    message.content = message.content[:-2] + bytes((octet,)) + message.content[-1:]
        return recovered

    around_load(flip)


@fault
def recovers_twice() -> None:
    """Promise 4: every message is in its queue twice."""
    around_load(lambda recovered: msgspec.structs.replace(
        recovered, messages={queue: run + run for queue, run in recovered.messages.items()}))


@fault
def recovers_backwards() -> None:
    """Promise 7: the youngest message is first."""
    around_load(lambda recovered: msgspec.structs.replace(
        recovered, messages={queue: run[::-1] for queue, run in recovered.messages.items()}))


@fault
def keeps_transient_messages() -> None:
    """Promise 9: everything counts as persistent."""
    def as_persistent(properties: bytes) -> Facts:
        return msgspec.structs.replace(read_facts(properties), persistent=True)

    patch(publishing, "read_facts", as_persistent)


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
