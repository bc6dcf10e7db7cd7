"""A channel's transaction: publishes and answers that wait for the commit.

Owns what is held. Routing and every check that can fail happened when the publish came, so a commit cannot
fail half way; all of it joins one batch of the journal, so it is on disk as a whole or not at all.

Spec: tx class; RabbitMQ docs/semantics.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from pamqp.commands import Tx

from amqpd.broker.consumer import Consumer
from amqpd.broker.queue import Queue
from amqpd.broker.stretch import number_of
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import Message
from amqpd.session.table import Handlers

if TYPE_CHECKING:
    from amqpd.session.channel import Channel

Unacked = tuple[Message, Consumer]


class Verdict(Enum):
    """What a client says of a delivery."""

    ACK = auto()
    REQUEUE = auto()
    REJECT = auto()


LONGEST = 100_000                       # acts
LARGEST = 64 * 1024 * 1024              # octets of bodies


class Transaction:
    """The transaction of one channel; `active` from tx.select on."""

    def __init__(self, channel: Channel) -> None:
        self.active = False
        self._channel = channel
        self._forget()

    def _forget(self) -> None:
        self._publishes: list[dict[Queue, list[Message]]] = []
        self._returns: list[Message] = []
        self._answers: list[tuple[dict[int, Unacked], Verdict]] = []
        self._acts = self._octets = 0

    def handlers(self) -> Handlers:
        """The methods this part of a channel answers."""
        return {Tx.Select: self.on_select, Tx.Commit: self.on_commit, Tx.Rollback: self.on_rollback}

    def on_select(self, method: Tx.Select) -> Tx.SelectOk:
        """From now on publishes and answers wait for a commit. A second one changes nothing."""
        if self._channel.publishing.confirms:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "cannot switch from confirm to tx mode")
        self.active = True
        return Tx.SelectOk()

    # Holding

    def hold_publishes(self, runs: dict[Queue, list[Message]]) -> None:
        """Keep routed publishes for the commit."""
        self._publishes.append(runs)
        for run in runs.values():
            self._count(len(run), sum([message.body_size for message in run]))

    def hold_returns(self, messages: list[Message]) -> None:
        """Keep mandatory messages without a route: they are returned at the commit."""
        self._returns += messages
        self._count(len(messages), sum([message.body_size for message in messages]))

    def hold_answers(self, answered: dict[int, Unacked], verdict: Verdict) -> None:
        """Keep answered deliveries, by tag, for the commit."""
        self._answers.append((answered, verdict))
        self._count(len(answered), 0)

    def _count(self, acts: int, octets: int) -> None:
        self._acts += acts
        self._octets += octets
        if self._acts > LONGEST or self._octets > LARGEST:
            self.roll_back()
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED,
                f"transaction is larger than {LONGEST} acts or {LARGEST} octets; it was rolled back")

    # Ending

    def on_commit(self, method: Tx.Commit) -> Tx.CommitOk:
        """Publish first, then answer, all in one batch; commit-ok goes out once that batch is on disk."""
        self._check_active()
        consuming = self._channel.consuming
        publishes, returns, answers = self._publishes, self._returns, self._answers
        self._forget()
        self._number(publishes)
        batch, is_partial = 0, False
        for runs in publishes:
            for queue, run in runs.items():
                batch = max(batch, queue.publish(run, is_timed=True))
                is_partial = bool(queue.take_refused()) or is_partial
        self._channel.publishing.send_returns(returns)
        for answered, verdict in answers:
            batch = max(batch, consuming.carry_out(verdict, by_consumer(answered)))
        self._channel.hold_output_until(batch)
        if is_partial:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "partial tx completion")
        return Tx.CommitOk()

    def _number(self, publishes: list[dict[Queue, list[Message]]]) -> None:
        """Give the messages new numbers, in their order: their place in a queue is that of the commit."""
        broker = self._channel.broker
        held = {message for runs in publishes for run in runs.values() for message in run}
        for number, message in enumerate(sorted(held, key=number_of), broker.next_message_number):
            message.number = number
        broker.next_message_number += len(held)

    def on_rollback(self, method: Tx.Rollback) -> Tx.RollbackOk:
        """Forget the publishes; the answered deliveries are unacked again."""
        self._check_active()
        self.roll_back()
        return Tx.RollbackOk()

    def roll_back(self) -> None:
        """Undo all that is held."""
        self._channel.consuming.unanswer([answered for answered, _ in self._answers])
        self._forget()

    @property
    def held_publishes(self) -> int:
        """How many messages wait in their queues' runs, and for being returned."""
        return len(self._returns) + sum(len(run) for runs in self._publishes for run in runs.values())

    @property
    def holds_answers(self) -> bool:
        """Return whether any delivery is answered, but not yet for good."""
        return bool(self._answers)

    @property
    def held_answers(self) -> list[Unacked]:
        """The deliveries that are answered, but not yet for good."""
        return [unacked for answered, _ in self._answers for unacked in answered.values()]

    def _check_active(self) -> None:
        if not self.active:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "channel is not transactional")


def by_consumer(answered: dict[int, Unacked]) -> dict[Consumer, list[Message]]:
    """Deliveries sorted by whom they were given to, in the order of their tags."""
    taken: dict[Consumer, list[Message]] = {}
    for message, consumer in answered.values():
        taken.setdefault(consumer, []).append(message)
    return taken
