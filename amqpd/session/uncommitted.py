"""What the transaction of one channel holds until its commit: publishes, and answers to deliveries.

Owns these, and the commit or rollback that is under way. Who publishes or answers on the channel hands them in here;
`session/transaction.py` takes them out again. Queues are held by name and looked up at the commit, as on RabbitMQ: one
may have come, gone, or been declared anew.

Always true between calls: no more is held than one transaction may hold.

Spec: tx class; RabbitMQ docs/semantics.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from amqpd.broker.worklist import PIECE, Discard, Worklist
from amqpd.errors import ChannelException, ReplyCode
from amqpd.session.commit import Answered, Commit, Held, Unacked, Verdict
from amqpd.session.contents import release_contents
from amqpd.session.settings import SessionSettings


class Uncommitted:
    """What one channel holds. `is_active` from tx.select on; `acts` are the publishes, for each queue, and answers."""

    def __init__(self, settings: SessionSettings, worklist: Worklist) -> None:
        self.is_active = False
        self.commit: Commit | None = None       # one that is under way
        self.rollback: Iterator[None] | None = None
        self._settings = settings
        self._worklist = worklist
        self.forget()

    def forget(self) -> None:
        """Hold nothing any more."""
        self.publishes: list[Held] = []
        self.answers: list[Answered] = []
        self.acts = self._octets = 0
        self._released = 0      # answers whose messages on disk have released their contents

    # In

    def hold_publishes(self, held: Held) -> None:
        """Keep routed publishes for the commit."""
        self.publishes.append(held)
        self._count(
            len(held.messages) * max(1, len(held.queues)), sum([message.body_size for message in held.messages]))

    def hold_answers(self, answered: dict[int, Unacked], verdict: Verdict) -> None:
        """Keep answered deliveries, by tag, for the commit."""
        if not answered:
            return
        self.answers.append((answered, verdict))
        self._count(len(answered), 0)

    def _count(self, acts: int, octets: int) -> None:
        self.acts += acts
        self._octets += octets
        settings = self._settings
        if self.acts > settings.transaction_acts or self._octets > settings.transaction_octets:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED, f"transaction is larger than {settings.transaction_acts} acts or "
                f"{settings.transaction_octets} octets; it was rolled back")

    # Out

    def discard_publishes(self) -> None:
        """Drop the publishes."""
        publishes, self.publishes = self.publishes, []
        if len(publishes) > PIECE:
            Discard(self._worklist, [publishes])
        else:
            Discard(self._worklist, [held.messages for held in publishes])

    def end(self) -> list[dict[int, Unacked]]:
        """Forget what is held, since the channel is going, and return the answered deliveries."""
        answers = [answered for answered, _ in self.answers]
        self.discard_publishes()
        self.forget()
        self.rollback = None
        return answers

    # What is held

    @property
    def message_count(self) -> int:
        """Return how many messages wait for the commit."""
        return sum([len(held.messages) for held in self.publishes])

    @property
    def holds_answers(self) -> bool:
        """Return whether any delivery is answered, but not yet for good."""
        return bool(self.answers) or self.rollback is not None

    @property
    def answered(self) -> list[Unacked]:
        """Return the deliveries that are answered, but not yet for good."""
        under_way = self.commit.owed if self.commit is not None else ()
        return [*under_way, *chain.from_iterable([answered.values() for answered, _ in self.answers])]

    @property
    def answered_count(self) -> int:
        """Return how many these are."""
        under_way = self.commit.owed_count if self.commit is not None else 0
        return under_way + sum([len(answered) for answered, _ in self.answers])

    # Contents

    @property
    def holds_contents(self) -> bool:
        """Return whether there are answers whose contents may be released."""
        return self._released < len(self.answers)

    def release_contents(self) -> Iterator[int]:
        """Release the contents of answered deliveries, in pieces of so many; see broker/unacked_contents.py."""
        while self._released < len(self.answers):
            answered, _ = self.answers[self._released]
            if release_contents(answered, answered, self._settings.small_content):
                return
            self._released += 1
            yield len(answered)
