"""A broker with injected faults, or in a bad environment: `python sabotaged.py FAULT[=VALUE][+FAULT …] serve …`.

The crash tests must detect every one of these faults. Each is patched into this process from outside, so that the
broker has no code for it. The docstring of a fault tells which promise it breaks.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import msgspec

from amqpd import logs
from amqpd.broker.broker import Broker
from amqpd.broker.dead_letter_router import DeadLetterRouter
from amqpd.broker.definitions import BindingDefinition, Change, Deleted
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.dispatcher import Dispatcher
from amqpd.broker.queue.pages import NO_EXPIRY
from amqpd.broker.queue.queue import Queue
from amqpd.cli import main
from amqpd.message import Message, MessageProperties
from amqpd.properties import read_properties
from amqpd.server import process
from amqpd.server.alarms import Alarms
from amqpd.server.committer import Committer
from amqpd.session import targets
from amqpd.session.connection import Session
from amqpd.store.batch import Batch, QueueChanges
from amqpd.store.errors import StoreError
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.store.rows.message_blocks import BlockLimits
from amqpd.store.port import Recovered
from amqpd.store.sqlite.store import Store

Commit = Callable[[Batch], None]
SLOW_COMMIT_S = 0.15
FAULTS: dict[str, Callable[..., None]] = {}


def fault(sabotage: Callable[..., None]) -> Callable[..., None]:
    """Make a fault known by its function's name."""
    FAULTS[sabotage.__name__] = sabotage
    return sabotage


def patch(owner: object, name: str, replacement: object) -> None:
    """Put something in the place of what is there."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, replacement)


def around_commit(change: Callable[[Commit, Batch], None]) -> None:
    """Have every commit done by `change`, which is given the real one."""
    commit = Store.commit

    def changed(self: Store, batch: Batch) -> None:
        change(partial(commit, self), batch)

    patch(Store, "commit", changed)


def stop_within(limit_s: float) -> None:
    """Have the watchdog end a stop that takes longer."""
    patch(process, "serve", partial(process.serve, stop_limit_s=limit_s))


def publishes(batch: Batch) -> bool:
    """Whether messages are to be written."""
    return any(changes.published for changes in batch.queues.values())


def identity_of(change: Change) -> object:
    """What two definitions of one thing have in common."""
    definition = change.definition
    if isinstance(definition, BindingDefinition):
        return definition.vhost, definition.source, definition.destination, definition.routing_key
    return type(definition), getattr(definition, "vhost", ""), getattr(definition, "name", "")


def around_load(change: Callable[[Recovered], Recovered]) -> None:
    """Have what is read back at start changed."""
    load = Store.load

    def changed(self: Store, read_properties: Callable[[bytes], MessageProperties]) -> Recovered:
        return change(load(self, read_properties))

    patch(Store, "load", changed)


def around_fetch(change: Callable[[list[Message]], list[Message]]) -> None:
    """Have the messages changed that are read from the store."""
    fetch = Store.fetch
    patch(Store, "fetch", lambda self, numbers: change(fetch(self, numbers)))


@fault
def backup_without_log() -> None:
    """A backup has what was confirmed before: but here only what has been written back from the log."""
    def copy(self: Store, to: Path, between: Callable[[int, int], None]) -> None:
        to.write_bytes(Path(self.info().path).read_bytes())

    patch(Store, "backup", copy)
    patch(Store, "is_checkpoint_due", lambda self: False)       # or all might have been written back just before


@fault
def slow_disk() -> None:
    """Nothing is wrong: a commit takes a while."""
    def commit_late(commit: Commit, batch: Batch) -> None:
        time.sleep(SLOW_COMMIT_S)
        commit(batch)

    around_commit(commit_late)


@fault
def short_blocks() -> None:
    """Nothing is wrong: two messages of a batch share a row already, so that more do than in a life."""
    patch(Store, "open", partial(Store.open, limits=StoreLimits(blocks=BlockLimits(fewest=2))))


@fault
def broken_disk() -> None:
    """Nothing is wrong but the disk: what is published cannot be written, a moment after it was tried."""
    def break_down(commit: Commit, batch: Batch) -> None:
        if publishes(batch):
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
        if publishes(batch):
            time.sleep(1_000)
        commit(batch)

    around_commit(hang)
    stop_within(1.0)


@fault
def busy_loop() -> None:
    """A turn of the loop never ends once there is a queue named `busy`. A stop has three seconds for all."""
    page_out = Broker.page_out

    def stay_busy(broker: Broker) -> None:
        while "busy" in broker.vhosts["/"].queues:
            pass
        page_out(broker)

    patch(Broker, "page_out", stay_busy)
    stop_within(3.0)


@fault
def small_backlog() -> None:
    """Nothing is wrong: of the log only little waits to be written."""
    initialise = logs.LineWriter.__init__
    patch(logs.LineWriter, "__init__", partialmethod(initialise, most_bytes=1_000))


@fault
def slow_start() -> None:
    """Nothing is wrong: to load what the store holds never ends."""
    def load(*_: object) -> Recovered:
        logging.getLogger("amqpd").warning("starting slowly")
        time.sleep(1_000)
        raise AssertionError("nobody ended the start")

    patch(Store, "load", load)


@fault
def looks_at_memory_rarely() -> None:
    """The memory alarm comes late."""
    check = Alarms.check_memory

    def check_rarely(self: Alarms) -> float:
        wait_s = check(self)
        return wait_s if self._raised else 8.0

    patch(Alarms, "check_memory", check_rarely)


@fault
def confirms_before_commit() -> None:
    """Promise 1: what waits for a batch continues when the batch is taken, before it is written."""
    slow_disk()
    take = Committer.take

    def take_and_confirm(self: Committer) -> None:
        number = self._journal.filling.number
        take(self)
        if self._journal.filling.number > number:
            self._turn.on_commit(number)

    patch(Committer, "take", take_and_confirm)


@fault
def forgets_acks() -> None:
    """Promise 6: no ack reaches the disk."""
    def commit_without(commit: Commit, batch: Batch) -> None:
        for changes in batch.queues.values():
            changes.settled.clear()
        commit(batch)

    around_commit(commit_without)


@fault
def writes_acks_late() -> None:
    """Promise 6: each batch has the acks of the one before; the last ones are lost, also at a clean stop."""
    held: dict[int, list[int]] = {}

    def commit_older(commit: Commit, batch: Batch) -> None:
        older = dict(held)
        held.clear()
        for number, changes in batch.queues.items():
            held[number], changes.settled = changes.settled, []
        for number, settled in older.items():
            batch.queues.setdefault(number, QueueChanges("")).settled = settled
        commit(batch)

    around_commit(commit_older)


@fault
def forgets_deletions() -> None:
    """Promise 8: what was deleted is restored by a restart, unless it was declared again since."""
    held: list[Deleted] = []

    def commit_without(commit: Commit, batch: Batch) -> None:
        changes: list[Change] = []
        for change in batch.changes:
            if isinstance(change, Deleted):
                held.append(change)
                continue
            if any(identity_of(change) == identity_of(deletion) for deletion in held):
                changes += held     # the store takes nothing twice
                held.clear()
            changes.append(change)
        batch.changes = changes
        commit(batch)

    around_commit(commit_without)


@fault
def commits_in_halves() -> None:
    """Promise 10: what is published in a batch is written before what is settled in it."""
    def commit_twice(commit: Commit, batch: Batch) -> None:
        first = Batch(batch.number)
        first.changes, first.count, first.weight = batch.changes, 1, 1
        for number, changes in batch.queues.items():
            first.queues[number] = QueueChanges(changes.vhost, changes.published)
            changes.published = {}
        commit(first)
        time.sleep(SLOW_COMMIT_S)
        batch.changes = []
        commit(batch)

    around_commit(commit_twice)


@fault
def calls_nothing_redelivered() -> None:
    """Promise 5: after a restart no message is marked as redelivered."""
    around_load(lambda recovered: msgspec.structs.replace(recovered, redelivered={}, redelivered_to={}))


@fault
def requeue_forgets_redelivered() -> None:
    """Promise 5: requeued messages are not marked as redelivered."""
    requeue = Queue.requeue

    def requeue_as_new(self: Queue, run: Sequence[Message]) -> None:
        requeue(self, run)
        self.redelivery.numbers.difference_update([message.number for message in run])

    patch(Queue, "requeue", requeue_as_new)


@fault
def gives_time_again() -> None:
    """Promise 12: after a restart messages have no expiry of their own, and the TTL of a queue begins again."""
    around_load(lambda recovered: msgspec.structs.replace(recovered, messages={
        queue: found._replace(expiries=None, lifetimes=None) for queue, found in recovered.messages.items()}))


@fault
def ends_at_restart() -> None:
    """Promise 12: at a restart everything that has an end has come to it."""
    around_load(lambda recovered: msgspec.structs.replace(recovered, messages={
        queue: found._replace(expiries=found.expiries and array("q", [
            end if end == NO_EXPIRY else 0 for end in found.expiries]))
        for queue, found in recovered.messages.items()}))


@fault
def shifted_clock(shift_ms: str) -> None:
    """Nothing is wrong: the wall clock shows another time."""
    tell, shift_ns = time.time_ns, int(shift_ms) * 1_000_000
    patch(time, "time_ns", lambda: tell() + shift_ns)
    patch(time, "time", lambda: time.time_ns() / 1e9)


@fault
def clock_is_set(by_ms_with_file: str) -> None:
    """Nothing is wrong: the wall clock is set by `MS,PATH` as soon as there is a file at that path."""
    by_ms, _, path = by_ms_with_file.partition(",")
    tell = time.time_ns
    patch(time, "time_ns", lambda: tell() + int(by_ms) * 1_000_000 * os.path.exists(path))
    patch(time, "time", lambda: time.time_ns() / 1e9)


@fault
def restless_clock() -> None:
    """Nothing is wrong: the wall clock jumps to and fro by hours."""
    tell, asked = time.time_ns, itertools.count()
    patch(time, "time_ns", lambda: tell() + (next(asked) % 5 - 2) * 3_600_000_000_000)


@fault
def dead_letters_twice() -> None:
    """Promise 11: each dead letter is in its target queue twice."""
    move = DeadLetterRouter._move

    def move_twice(self: DeadLetterRouter, deaths: Any, run: Sequence[Message], line: Any = None) -> int:
        move(self, type(deaths)(deaths.queue, deaths.dead_route, run, is_stored=False), run)
        return move(self, deaths, run, line)

    patch(DeadLetterRouter, "_move", move_twice)


@fault
def ignores_priority() -> None:
    """Promise 7: all messages count as equally urgent."""
    def as_usual(properties: bytes) -> MessageProperties:
        return msgspec.structs.replace(read_properties(properties), priority=0)

    patch(targets, "read_properties", as_usual)


@fault
def ignores_prefetch() -> None:
    """A consumer gets twice as much as it asked for."""
    credit = Consumer.__dict__["credit"].fget
    patch(Consumer, "credit", property(lambda self: credit(self) + self.prefetch))


@fault
def serves_all() -> None:
    """Of several consumers none is the only active one."""
    make = Dispatcher.__init__

    def make_for_all(self: Dispatcher, *, is_single_active: bool) -> None:
        make(self, is_single_active=False)

    patch(Dispatcher, "__init__", make_for_all)


@fault
def never_misses_a_heartbeat() -> None:
    """Promise 13: who fell silent stays, with all that it was given."""
    patch(Session, "is_overdue", lambda self, now_ms: False)


@fault
def flips_a_bit() -> None:
    """Promise 2: the last octet of a body is not what it was."""
    def flip(run: list[Message]) -> list[Message]:
        for message in run:
            if message.body_size:
                octet = message.content[-2] ^ 1
                message.content = message.content[:-2] + bytes((octet,)) + message.content[-1:]
        return run

    around_fetch(flip)


@fault
def recovers_twice() -> None:
    """Promise 4: every message is in its queue twice."""
    around_fetch(lambda run: [message for message in run for _ in range(2)])


@fault
def recovers_backwards() -> None:
    """Promise 7: the youngest message is first."""
    around_fetch(lambda run: run[::-1])


@fault
def keeps_transient_messages() -> None:
    """Promise 9: everything counts as persistent."""
    def as_persistent(properties: bytes) -> MessageProperties:
        return msgspec.structs.replace(read_properties(properties), persistent=True)

    patch(targets, "read_properties", as_persistent)


if __name__ == "__main__":
    for name, _, value in [argument.partition("=") for argument in sys.argv[1].split("+")]:
        FAULTS[name](*filter(None, [value]))
    sys.exit(main(sys.argv[2:]))
