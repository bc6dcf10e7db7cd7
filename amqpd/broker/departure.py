"""The end of a connection, a channel or a queue: some of what it held at a time, as a job of the worklist.

The consumers of a connection or channel leave, what it has not answered goes back, and exclusive queues go. Those that
are left are locked for everybody as before. Close-ok waits until all are gone. Of a queue consumers are told, and the
files of messages on disk go. The first piece is done at once, and nearly every end has no other; only where very many
end in one turn it waits for a later one.

Spec: queue.declare, channel.close; RabbitMQ docs/queues (exclusive queues).
"""

from __future__ import annotations

from collections.abc import Iterator

from amqpd.broker.step_job import Act, StepJob
from amqpd.broker.worklist import Worklist

REMOVE_STEPS = 20       # what it takes to remove a queue with a binding or two; see broker/effort.py


class Departure(StepJob):
    """The end of something; the server waits for all of these before it stops."""

    __slots__ = ()

    def __init__(self, acts: Iterator[Act], worklist: Worklist) -> None:
        super().__init__(acts, worklist, begins_at_once=not worklist.effort.turn_is_spent)
