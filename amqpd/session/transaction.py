"""A channel's transaction: tx.select, tx.commit and tx.rollback.

`session/uncommitted.py` holds publishes and answers until then. Routing and every check that can fail happen when the
publish arrives, so a commit cannot fail half way; `session/commit.py` carries it out.

Spec: tx class; RabbitMQ docs/semantics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from pamqp.commands import Tx

from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.worklist import Later
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import Message
from amqpd.session.channel_confirms import ChannelConfirms
from amqpd.session.channel_state import ChannelState
from amqpd.session.commit import Commit, Verdict
from amqpd.session.commit_bodies import CommitBodies
from amqpd.session.consuming import Consuming
from amqpd.session.deferred_input import Unfinished
from amqpd.session.returns import send_returns
from amqpd.session.table import Handlers
from amqpd.session.targets import Targets
from amqpd.session.uncommitted import Uncommitted

AT_ONCE = 2_000                         # acts, beyond which a commit continues in later turns
RETURN_STEPS, RETURNED_BYTES_A_STEP = 5, 1024          # see broker/effort.py


class Transaction:
    """The transaction of one channel. A channel with confirms cannot begin one."""

    def __init__(
        self, channel: ChannelState, uncommitted: Uncommitted, confirms: ChannelConfirms, targets: Targets,
        consuming: Consuming,
    ) -> None:
        self._channel = channel
        self._uncommitted = uncommitted
        self._confirms = confirms
        self._targets = targets
        self._consuming = consuming

    def handlers(self) -> Handlers:
        """Return the methods that this part of a channel handles."""
        return {Tx.Select: self.on_select, Tx.Commit: self.on_commit, Tx.Rollback: self.on_rollback}

    def on_select(self, method: Tx.Select) -> Tx.SelectOk:
        """Begin to hold publishes and answers for a commit. A second tx.select changes nothing."""
        if self._confirms.is_on:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "cannot switch from confirm to tx mode")
        self._uncommitted.is_active = True
        self._targets.by_arguments.clear()      # the publishes of a transaction are checked one by one
        return Tx.SelectOk()

    # The commit

    def on_commit(self, method: Tx.Commit) -> Tx.CommitOk:
        """Publish first, then answer, all in one batch; commit-ok is sent once that batch is on disk.

        Large bodies are written to the store before. Raises MessageNotLoaded until all of that is done, and Unfinished
        while there is more to return: the method must be carried out again.
        """
        self._check_active()
        uncommitted = self._uncommitted
        commit = uncommitted.commit
        if commit is None:
            self._write_bodies()
            commit = uncommitted.commit = self._begin_commit()
        if commit.has_work:
            raise MessageNotLoaded(commit.call)
        self._send_returns(commit.returned)
        uncommitted.commit = None
        if commit.has_failed:
            raise RuntimeError("a part of a transaction could not be carried out")
        self._channel.owner.hold_output_until(commit.batch)
        if commit.is_partial:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "partial tx completion")
        return Tx.CommitOk()

    def _write_bodies(self) -> None:
        """Write large bodies to the store. Raises MessageNotLoaded until that is done."""
        uncommitted = self._uncommitted
        if uncommitted.large:
            if uncommitted.bodies is None:
                uncommitted.bodies = CommitBodies(
                    self._channel.broker.journal, self._channel.vhost.queues, uncommitted.large)
            body = uncommitted.bodies.next()
            if body is not None:
                raise MessageNotLoaded(body.call)

    def _begin_commit(self) -> Commit:
        """Carry out what is held, or begin to. Raises MessageNotLoaded during another long commit of the same kind."""
        broker, uncommitted = self._channel.broker, self._uncommitted
        has_rejects = any([verdict is Verdict.REJECT for _, verdict in uncommitted.answers])
        is_long = uncommitted.acts > AT_ONCE
        # Rejected messages are dead-lettered by jobs of their own, in the batch that is held.
        is_deferred = is_long and uncommitted.is_wide and not has_rejects
        deferral = broker.journal.deferral if is_deferred else None
        hold = broker.journal.hold if has_rejects or is_long and not is_deferred else None
        if deferral is not None and not deferral.begin():
            raise MessageNotLoaded(self._wait_for_deferral)
        if hold is not None and not hold.begin():
            raise MessageNotLoaded(self._wait_for_hold)
        commit = Commit(
            broker, self._channel.counts, self._channel.vhost.queues, self._consuming.answers.carry_out,
            uncommitted.publishes, uncommitted.answers, hold, deferral)
        uncommitted.forget()
        if is_long or has_rejects:
            broker.worklist.add(commit)
        else:
            while commit.has_work:
                commit.work()
        return commit

    def _wait_for_hold(self, go_on: Callable[[], None]) -> None:
        broker = self._channel.broker
        broker.journal.hold.call(Later(broker.worklist, go_on).ask)

    def _wait_for_deferral(self, go_on: Callable[[], None]) -> None:
        broker = self._channel.broker
        broker.journal.deferral.call(Later(broker.worklist, go_on).ask)

    def _send_returns(self, returned: deque[Message]) -> None:
        """Return mandatory messages that reached no queue. Raises Unfinished while there are more than a slice."""
        effort = self._channel.effort
        while returned:
            message = returned.popleft()
            send_returns(self._channel, [message])
            effort.total += RETURN_STEPS + message.body_size // RETURNED_BYTES_A_STEP
            if returned and effort.is_spent:
                raise Unfinished

    # The rollback

    def on_rollback(self, method: Tx.Rollback) -> Tx.RollbackOk:
        """Drop the publishes; answered deliveries become unacked again. Raises Unfinished until that is done."""
        self._check_active()
        uncommitted = self._uncommitted
        rollback = uncommitted.rollback = uncommitted.rollback or self._roll_back()
        for _ in rollback:
            if self._channel.effort.is_spent:
                raise Unfinished
        uncommitted.rollback = None
        return Tx.RollbackOk()

    def _roll_back(self) -> Iterator[None]:
        """Undo everything that is held, in slices."""
        uncommitted = self._uncommitted
        uncommitted.discard_publishes()
        if uncommitted.answers:
            yield from self._consuming.deliveries.put_back(uncommitted.answers)
            self._consuming.contents.report()
        uncommitted.forget()

    def _check_active(self) -> None:
        if not self._uncommitted.is_active:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "channel is not transactional")
