"""A channel's transaction: publishes and answers that wait for the commit.

Owns what is held. Routing and every check that can fail happened when the publish came, so a commit cannot
fail half way; all of it joins one batch of the journal, so it is on disk as a whole or not at all. Queues are
held by name and looked up at the commit, as on RabbitMQ: one may have come, gone, or been declared anew.

Spec: tx class; RabbitMQ docs/semantics.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from pamqp.commands import Tx

from amqpd.broker.consumer import Consumer
from amqpd.broker.queue import Queue, note_holders
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


class Held(NamedTuple):
    """Publishes that go to the same queues, by name; a mandatory one is returned where none of these exists."""

    messages: list[Message]
    queues: tuple[str, ...]
    is_mandatory: bool


class Transaction:
    """The transaction of one channel; `active` from tx.select on."""

    def __init__(self, channel: Channel) -> None:
        self.active = False
        self._channel = channel
        self._forget()

    def _forget(self) -> None:
        self._publishes: list[Held] = []
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
        self._channel.publishing.forget_targets()
        return Tx.SelectOk()

    # Holding

    def hold_publishes(self, held: Held) -> None:
        """Keep routed publishes for the commit."""
        self._publishes.append(held)
        self._count(
            len(held.messages) * max(1, len(held.queues)), sum([message.body_size for message in held.messages]))

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
        publishes, answers = self._publishes, self._answers
        self._channel.broker.effort.total += self._acts
        self._forget()
        self._number(publishes)
        batch, is_partial = 0, False
        for queue, run in self._find_queues(publishes).items():
            batch = max(batch, queue.publish(run, is_timed=True))
            is_partial = bool(queue.take_refused()) or is_partial
        for answered, verdict in answers:
            batch = max(batch, consuming.carry_out(verdict, by_consumer(answered)))
        self._channel.hold_output_until(batch)
        if is_partial:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "partial tx completion")
        return Tx.CommitOk()

    def _number(self, publishes: list[Held]) -> None:
        """Give the messages new numbers, in their order: their place in a queue is that of the commit."""
        broker = self._channel.broker
        for held in publishes:
            for number, message in enumerate(held.messages, broker.next_message_number):
                message.number = number
            broker.next_message_number += len(held.messages)

    def _find_queues(self, publishes: list[Held]) -> dict[Queue, list[Message]]:
        """Return the run of messages of each queue that exists now; return mandatory ones without any to the client."""
        existing = self._channel.vhost.queues
        runs: dict[Queue, list[Message]] = {}
        for held in publishes:
            queues = [existing[name] for name in held.queues if name in existing]
            if not queues and held.is_mandatory:
                self._channel.publishing.send_returns(held.messages)
            if len(queues) > 1:
                note_holders(queues, held.messages)
            for queue in queues:
                runs.setdefault(queue, []).extend(held.messages)
        return runs

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
        """How many messages wait for the commit."""
        return sum([len(held.messages) for held in self._publishes])

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
