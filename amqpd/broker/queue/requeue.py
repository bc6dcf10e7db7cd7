"""Requeue unacked messages at their original positions, counted as delivered before.

A message that has failed more often than the rules allow is dropped instead. Very many messages are requeued in slices;
the queue delivers nothing meanwhile, see `jobs.py`.

Spec: basic.recover; RabbitMQ docs/semantics (requeueing), docs/quorum-queues (poison message handling).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from amqpd.broker.dead_letter import DELIVERY_LIMIT
from amqpd.broker.queue.dead_letters import DeadLetters
from amqpd.broker.queue.expiry import Expiry
from amqpd.broker.queue.fifo import Fifo
from amqpd.broker.queue.length_limits import LengthLimits
from amqpd.broker.queue.pager import Pager
from amqpd.broker.queue.records import QueueRecords
from amqpd.broker.queue.segment import number_of
from amqpd.broker.rules import QueueRules
from amqpd.broker.worklist import PIECE
from amqpd.message import Message


class Requeue:
    """The requeueing of one queue."""

    __slots__ = (
        "_delivery_limit", "_ready", "_records", "_pager", "_dead_letters", "_limits", "_expiry")

    def __init__(
        self, ready: Fifo, records: QueueRecords, pager: Pager, dead_letters: DeadLetters,
        limits: LengthLimits, expiry: Expiry,
    ) -> None:
        self._delivery_limit: int | None = None
        self._ready = ready
        self._records = records
        self._pager = pager
        self._dead_letters = dead_letters
        self._limits = limits
        self._expiry = expiry

    def apply(self, rules: QueueRules) -> None:
        """Apply these rules from now on."""
        self._delivery_limit = rules.delivery_limit

    def in_pieces(self, run: Sequence[Message]) -> Iterator[None]:
        """Requeue these messages, a piece at a time."""
        back: list[list[Message]] = []
        for start in range(0, len(run), PIECE):
            back.append(sorted(self._count_failures(run[start : start + PIECE]), key=number_of))
            if start + PIECE < len(run):
                yield
        # From the last to the first: so each piece belongs at the head, and finding its place costs nothing.
        left = sum(map(len, back))
        records = self._records
        deadlines = records.deadlines
        for piece in _from_the_last(back):
            left -= len(piece)
            records.unacked -= len(piece)
            self._ready.put_back(piece)
            if not self._pager.is_large:
                self._pager.note_size()
            if deadlines:
                deadlines.take_back(piece)
            if left:
                yield
        self._limits.trim()
        self._expiry.drop_due()

    def _count_failures(self, run: Sequence[Message]) -> Sequence[Message]:
        """Count a failed delivery of each of these; drop those that have failed too often, and return the others."""
        records = self._records
        records.requeued(run)
        if self._delivery_limit is None:
            return run
        run, failed = records.redelivery.split(run, self._delivery_limit)
        if failed:
            records.unacked -= len(failed)
            self._dead_letters.drop_unacked(failed, DELIVERY_LIMIT)     # forgets the counts
        return run


def _from_the_last(runs: list[list[Message]]) -> Iterator[list[Message]]:
    """Yield messages, of which each run is in order, in pieces from the highest number to the lowest."""
    runs = [run for run in runs if run]
    if all([before[-1].number < after[0].number for before, after in zip(runs, runs[1:])]):
        while runs:
            yield runs.pop()
        return
    merged = heapq.merge(*map(reversed, runs), key=number_of, reverse=True)
    while piece := [*islice(merged, PIECE)]:
        yield piece[::-1]
