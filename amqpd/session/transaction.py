"""A channel's transaction: publishes and answers that wait for the commit.

Owns what is held. Routing and every check that can fail happened when the publish came, so a commit cannot
fail half way; how it is carried out is in `session/commit.py`. Queues are held by name and looked up at the commit,
as on RabbitMQ: one may have come, gone, or been declared anew.

Spec: tx class; RabbitMQ docs/semantics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from pamqp.commands import Tx

from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.worklist import PIECE, Discard, Later
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import Message
from amqpd.session.commit import Answered, Commit, Held, Unacked, Verdict
from amqpd.session.contents import release_contents
from amqpd.session.deferred_input import Unfinished
from amqpd.session.table import Handlers

if TYPE_CHECKING:
    from amqpd.session.channel import Channel

AT_ONCE = 2_000                         # acts, beyond which a commit goes on in later turns
RETURN_STEPS, RETURNED_OCTETS_A_STEP = 5, 1024          # see broker/effort.py


class Transaction:
    """The transaction of one channel; `active` from tx.select on."""

    def __init__(self, channel: Channel) -> None:
        self.active = False
        self._channel = channel
        self._commit: Commit | None = None      # one that is under way
        self._rollback: Iterator[None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._publishes: list[Held] = []
        self._answers: list[Answered] = []
        self._acts = self._octets = 0
        self._released = 0      # answers whose messages on disk have released their contents

    def handlers(self) -> Handlers:
        """The methods this part of a channel answers."""
        return {Tx.Select: self.on_select, Tx.Commit: self.on_commit, Tx.Rollback: self.on_rollback}

    def on_select(self, method: Tx.Select) -> Tx.SelectOk:
        """From now on publishes and answers wait for a commit. A second one changes nothing."""
        if self._channel.publishing.confirms.is_on:
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
        if not answered:
            return
        self._answers.append((answered, verdict))
        self._count(len(answered), 0)

    def _count(self, acts: int, octets: int) -> None:
        self._acts += acts
        self._octets += octets
        settings = self._channel.owner.settings
        if self._acts > settings.transaction_acts or self._octets > settings.transaction_octets:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED, f"transaction is larger than {settings.transaction_acts} acts or "
                f"{settings.transaction_octets} octets; it was rolled back")

    # Ending

    def on_commit(self, method: Tx.Commit) -> Tx.CommitOk:
        """Publish first, then answer, all in one batch; commit-ok goes out once that batch is on disk.

        Raises MessageNotLoaded while that takes, and Unfinished while there is more to return: then it is to be carried
        out again.
        """
        self._check_active()
        commit = self._commit
        if commit is None:
            commit = self._commit = self._begin_commit()
        if commit.has_work:
            raise MessageNotLoaded(commit.call)
        self._send_returns(commit.returned)
        self._commit = None
        if commit.has_failed:
            raise RuntimeError("a part of a transaction could not be carried out")
        self._channel.hold_output_until(commit.batch)
        if commit.is_partial:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "partial tx completion")
        return Tx.CommitOk()

    def _begin_commit(self) -> Commit:
        """Carry out what is held, or begin to. Raises MessageNotLoaded where another long commit is under way."""
        broker = self._channel.broker
        hold = broker.journal.hold if self._acts > AT_ONCE else None
        if hold is not None and not hold.begin():
            raise MessageNotLoaded(self._wait_for_hold)
        commit = Commit(self._channel, self._publishes, self._answers, hold)
        self._forget()
        if hold is not None:
            broker.worklist.add(commit)
        else:
            while commit.has_work:
                commit.work()
        return commit

    def _wait_for_hold(self, go_on: Callable[[], None]) -> None:
        broker = self._channel.broker
        broker.journal.hold.call(Later(broker.worklist, go_on).ask)

    def _send_returns(self, returned: deque[Message]) -> None:
        """Return mandatory messages that reached no queue. Raises Unfinished while there are more than a slice."""
        channel = self._channel
        effort = channel.broker.effort
        while returned:
            message = returned.popleft()
            channel.publishing.send_returns([message])
            effort.total += RETURN_STEPS + message.body_size // RETURNED_OCTETS_A_STEP
            if returned and effort.is_spent:
                raise Unfinished

    def on_rollback(self, method: Tx.Rollback) -> Tx.RollbackOk:
        """Forget the publishes; the answered deliveries are unacked again. Raises Unfinished while that takes."""
        self._check_active()
        rollback = self._rollback = self._rollback or self._roll_back()
        effort = self._channel.broker.effort
        for _ in rollback:
            if effort.is_spent:
                raise Unfinished
        self._rollback = None
        return Tx.RollbackOk()

    def _roll_back(self) -> Iterator[None]:
        """Undo all that is held, in pieces."""
        self._discard_publishes()
        yield from self._channel.consuming.put_back(self._answers)
        self._forget()

    def _discard_publishes(self) -> None:
        publishes, self._publishes = self._publishes, []
        if len(publishes) > PIECE:
            Discard(self._channel.broker.worklist, [publishes])
        else:
            Discard(self._channel.broker.worklist, [held.messages for held in publishes])

    def end(self) -> list[dict[int, Unacked]]:
        """The channel is going: forget what is held, and return the answered deliveries."""
        answers = [answered for answered, _ in self._answers]
        self._discard_publishes()
        self._forget()
        self._rollback = None
        return answers

    @property
    def held_publishes(self) -> int:
        """How many messages wait for the commit."""
        return sum([len(held.messages) for held in self._publishes])

    @property
    def holds_answers(self) -> bool:
        """Return whether any delivery is answered, but not yet for good."""
        return bool(self._answers) or self._rollback is not None

    @property
    def holds_contents(self) -> bool:
        """Return whether there are answers whose contents may be released."""
        return self._released < len(self._answers)

    def release_contents(self) -> Iterator[int]:
        """Release the contents of answered deliveries, in pieces of so many; see broker/unacked_contents.py."""
        while self._released < len(self._answers):
            answered, _ = self._answers[self._released]
            if release_contents(answered, answered):
                return
            self._released += 1
            yield len(answered)

    @property
    def held_answers(self) -> list[Unacked]:
        """The deliveries that are answered, but not yet for good."""
        under_way = self._commit.owed if self._commit is not None else ()
        return [*under_way, *chain.from_iterable([answered.values() for answered, _ in self._answers])]

    @property
    def held_count(self) -> int:
        """How many these are."""
        under_way = self._commit.owed_count if self._commit is not None else 0
        return under_way + sum([len(answered) for answered, _ in self._answers])

    def _check_active(self) -> None:
        if not self.active:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "channel is not transactional")
