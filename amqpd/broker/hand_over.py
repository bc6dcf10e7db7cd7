"""Publish messages to very many queues in pieces, between which other clients are served.

In a queue the numbers of messages rise, and those of one batch of the journal are above those of the batch before. So
if other messages have been numbered since the last piece, or a batch has been taken, the remaining queues get copies
with new numbers; then the store keeps their content once more, except large bodies, which the copies share. After a
crash some queues may have the messages and others not, which is allowed since they are not confirmed. Messages that
have several numbers are confirmed only when the last batch is on disk: acks of consumers are known by number, so they
do not say that every queue has been acked.

Once begun, a hand-over is completed even if the client is gone. A queue that is deleted meanwhile gets nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from amqpd.broker.effort import QUEUE_STEPS, SLICE
from amqpd.broker.queue.queue import Queue
from amqpd.broker.worklist import PIECE, Waiters
from amqpd.message import Message

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker

log = logging.getLogger("amqpd")

WIDE = 250              # queues, from which on messages are handed over in pieces
MOST_MESSAGES = 40      # of one hand-over


class HandOver:
    """A hand-over in progress, as a job of the worklist or a part of one.

    `batch` is the journal's batch that makes it durable, or 0 if nothing has to be written. With `is_deferred` its
    records join one batch at the end; see `deferral.py`.

    `has_renumbered` says that the messages do not have the same numbers in all queues.
    `refused` has the positions of messages that a queue refused, or failed to accept.
    """

    def __init__(
        self, broker: Broker, messages: Sequence[Message], queues: Sequence[Queue], *, is_timed: bool,
        is_deferred: bool = False,
    ) -> None:
        self.count = len(messages)
        self.batch = 0
        self.refused: set[int] = set()
        self.is_done = self.has_renumbered = False
        self._broker = broker
        self._messages = messages
        self._queues = queues
        self._is_timed = is_timed
        self._is_deferred = is_deferred
        self._at = 0
        self._number_after = self._journal_batch = -1       # the values after the last piece, if any was published
        self._waiters = Waiters(broker.worklist)
        self.call = self._waiters.call      # calls back when it is done

    @property
    def first_number(self) -> int:
        """The number that the first message has in the last queue."""
        return self._messages[0].number

    @property
    def last_number(self) -> int:
        """The number that the last message has in the last queue."""
        return self._messages[-1].number

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return not self.is_done

    def work(self) -> None:
        """See `broker/worklist.py`."""
        steps = QUEUE_STEPS + self.count
        start, self._at = self._at, min(self._at + max(1, PIECE // steps), len(self._queues))
        self._broker.effort.total += steps * (self._at - start)
        queues = [queue for queue in self._queues[start : self._at] if not queue.deleted]
        try:
            if queues:
                self._publish_to(queues)
        finally:
            if self._at == len(self._queues):
                self.is_done = True
                self._waiters.release()

    def _publish_to(self, queues: Sequence[Queue]) -> None:
        try:
            self._renumber(queues)
            for queue in queues:
                self._publish(queue)
        finally:
            self._journal_batch = self._broker.journal.batch
            self._number_after = self._broker.next_message_number

    def _renumber(self, queues: Sequence[Queue]) -> None:
        """Assign new numbers to the messages, if the old ones may be too low by now."""
        broker = self._broker
        number = broker.next_message_number
        if number == self._number_after and (self._is_deferred or broker.journal.batch == self._journal_batch):
            return
        self.has_renumbered = self._number_after >= 0
        self._messages = [message.renumbered(new) for new, message in enumerate(self._messages, number)]
        broker.next_message_number = number + self.count
        # About as many as are served before the next renumbering, and at least two.
        durable = sum([queue.definition.durable for queue in queues])
        for message in self._messages:
            message.holders = max(2, durable * SLICE // PIECE) if message.facts.persistent else 0

    def _publish(self, queue: Queue) -> None:
        try:
            outcome = queue.publish(self._messages, is_timed=self._is_timed)
            self.batch = max(self.batch, outcome.batch)
            first = self._messages[0].number
            self.refused.update([message.number - first for message in outcome.refused])
        except Exception:
            log.exception("queue '%s' in vhost '%s' could not take %d messages", queue.name, queue.definition.vhost,
                          self.count)
            self.refused.update(range(self.count))
