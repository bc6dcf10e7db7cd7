"""Answers to deliveries: acks, nacks, rejects and recover, at once or held for a commit.

`session/unacked.py` finds the deliveries of an answer; here the queues are told, and messages are delivered for which
the answers made room.

Spec: basic.ack, basic.reject, basic.recover; RabbitMQ docs/confirms, docs/nack.
"""

from __future__ import annotations

from collections.abc import Iterable

from pamqp.commands import Basic

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.rejects import Rejects
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.message import Message
from amqpd.session.channel_state import ChannelState
from amqpd.session.commit import Unacked, Verdict, by_consumer
from amqpd.session.deferred_input import Unfinished
from amqpd.session.prefetch import Prefetch
from amqpd.session.table import Handlers
from amqpd.session.unacked import ANSWERS_AT_ONCE, UnackedDeliveries, unknown_tag
from amqpd.session.uncommitted import Uncommitted


class Answers:
    """The answers of one channel."""

    def __init__(
        self, channel: ChannelState, unacked: UnackedDeliveries, prefetch: Prefetch, uncommitted: Uncommitted
    ) -> None:
        self._channel = channel
        self._effort = channel.effort
        self._counts = channel.counts
        self._uncommitted = uncommitted
        self._unacked = unacked
        self._prefetch = prefetch

    def handlers(self) -> Handlers:
        """Return the methods that this part of a channel handles."""
        return {
            Basic.Ack: self.on_ack,
            Basic.Nack: self.on_nack,
            Basic.Reject: self.on_reject,
            Basic.Recover: self.on_recover,
            Basic.RecoverAsync: self.on_recover_async,
        }

    # Methods

    def on_acks(self, tags: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take a run of acks; return those that must wait for the next turn, since the others are enough for this one.

        If one is refused, those before it are valid. Spec: basic.ack.
        """
        if self._uncommitted.is_active:
            return self._hold_acks(tags)
        rest: list[tuple[int, int]] = []
        if len(tags) > ANSWERS_AT_ONCE:
            tags, rest = tags[:ANSWERS_AT_ONCE], tags[ANSWERS_AT_ONCE:]
        self._effort.total += len(tags)
        answered: list[Unacked] = []
        by_tag = self._unacked.by_tag
        try:
            for place, (tag, multiple) in enumerate(tags):
                if multiple:
                    answered += self._unacked.take_piece(tag).values()
                    if self._unacked.is_answer_unfinished:
                        return tags[place:] + rest
                elif one := by_tag.pop(tag, None):
                    answered.append(one)
                else:
                    raise unknown_tag(tag)
            return rest
        finally:
            taken = by_consumer(answered)
            self._settle(taken)
            self._dispatch_after(taken)

    def _hold_acks(self, tags: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Keep acks for the commit, as many as a turn allows, and return the others."""
        self._effort.total += min(len(tags), ANSWERS_AT_ONCE)
        unacked = self._unacked
        for place, (tag, multiple) in enumerate(tags[:ANSWERS_AT_ONCE]):
            taken = unacked.take_piece(tag) if multiple else unacked.take(tag)
            self._uncommitted.hold_answers(taken, Verdict.ACK)
            if unacked.is_answer_unfinished:
                return tags[place:]
        return tags[ANSWERS_AT_ONCE:]

    def on_ack(self, method: Basic.Ack) -> None:
        """Take one ack that did not come in a run."""
        self.on_acks([(int(method.delivery_tag or 0), bool(method.multiple))])

    def on_nack(self, method: Basic.Nack) -> None:
        """Requeue or reject one or several deliveries. RabbitMQ docs/nack."""
        self._give_back(method.delivery_tag, multiple=method.multiple, requeue=method.requeue)

    def on_reject(self, method: Basic.Reject) -> None:
        """Requeue or reject one delivery. Spec: basic.reject."""
        self._give_back(int(method.delivery_tag or 0), multiple=False, requeue=method.requeue)

    def _give_back(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """Requeue or reject. Raises Unfinished while there are more deliveries than one turn allows."""
        verdict = Verdict.REQUEUE if requeue else Verdict.REJECT
        uncommitted, unacked = self._uncommitted, self._unacked
        taken = unacked.take_piece(tag) if multiple else unacked.take(tag)
        if uncommitted.is_active:
            uncommitted.hold_answers(taken, verdict)
        else:
            self.carry_out(verdict, by_consumer(taken.values()), self._channel.owner.confirms.rejects)
        if unacked.is_answer_unfinished:
            raise Unfinished

    def on_recover(self, method: Basic.Recover) -> None:
        """Requeue everything that is unacked; recover-ok is sent before any redelivery. Spec: basic.recover."""
        if not method.requeue:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "requeue=false")
        if not self._unacked.is_answer_unfinished:
            self._channel.reply(Basic.RecoverOk())
        self.on_recover_async(method)

    def on_recover_async(self, method: Basic.RecoverAsync | Basic.Recover) -> None:
        """Requeue all unacked messages, without an answer. Raises Unfinished if there are more than a turn allows."""
        if not method.requeue:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "requeue=false")
        self._requeue(by_consumer(self._unacked.take_piece(0).values()))
        if self._unacked.is_answer_unfinished:
            raise Unfinished

    # Effects on the queues

    def carry_out(self, verdict: Verdict, taken: dict[Consumer[Queue], list[Message]], rejects: Rejects) -> int:
        """Ack, reject or requeue these deliveries; return the journal's batch that makes it durable, or 0.

        `rejects` counts the rejected messages that are not in that batch, since they have not been dead-lettered yet.
        """
        if verdict is Verdict.REQUEUE:
            self._requeue(taken)
            return 0
        batch = self._settle(taken, in_transaction=True) if verdict is Verdict.ACK else self._reject(taken, rejects)
        self._dispatch_after(taken)
        return batch

    def _settle(self, taken: dict[Consumer[Queue], list[Message]], *, in_transaction: bool = False) -> int:
        """Settle these deliveries. Returns as `carry_out` does."""
        batch = 0
        for consumer, run in taken.items():
            self._prefetch.answered(consumer, len(run))
            self._counts.acked += len(run)
            batch = max(batch, consumer.queue.settle(run, in_transaction=in_transaction))
        return batch

    def _reject(self, taken: dict[Consumer[Queue], list[Message]], rejects: Rejects) -> int:
        batch = 0
        for consumer, run in taken.items():
            self._prefetch.answered(consumer, len(run))
            batch = max(batch, consumer.queue.reject(run, rejects))
        return batch

    def _requeue(self, taken: dict[Consumer[Queue], list[Message]]) -> None:
        """Requeue these messages at their original positions."""
        by_queue: dict[Queue, list[Message]] = {}
        for consumer, run in taken.items():
            self._prefetch.answered(consumer, len(run))
            by_queue.setdefault(consumer.queue, []).extend(run)
        for queue, run in by_queue.items():
            queue.requeue(run)
        self._dispatch_after(taken)

    def _dispatch_after(self, taken: Iterable[Consumer[Queue]]) -> None:
        """Deliver messages for which answers made room."""
        if self._prefetch.shared:
            self._prefetch.hand_out()
        for queue in {consumer.queue: None for consumer in taken}:
            queue.dispatch()
