"""The end of a connection, a channel or a queue, as a job of the worklist that works in slices.

For a connection or channel: its consumers are removed, unacked messages requeued, exclusive queues deleted. Queues that
are not deleted yet stay locked for other connections. Close-ok is sent when the job is done. For a queue: its consumers
are cancelled, and the spill files of its messages deleted. The first slice is done at once, and nearly every job has no
other; only if very many end in one turn, it waits for a later one.

Spec: queue.declare, channel.close; RabbitMQ docs/queues (exclusive queues).
"""

from __future__ import annotations

from collections.abc import Iterator

from amqpd.broker.step_job import Act, StepJob
from amqpd.broker.worklist import Worklist

REMOVE_STEPS = 20       # the cost of removing a queue with a binding or two; see broker/effort.py


class Departure(StepJob):
    """The end of one connection, channel or queue; the server waits for all of these before it stops."""

    __slots__ = ()

    def __init__(self, acts: Iterator[Act], worklist: Worklist) -> None:
        super().__init__(acts, worklist, begins_at_once=not worklist.effort.turn_is_spent)
