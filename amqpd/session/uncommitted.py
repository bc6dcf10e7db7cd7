"""The publishes and answers that a transaction of one channel holds until its commit.

Owns these, and the current commit or rollback. The publishing and answering parts of the channel add to them;
`session/transaction.py` takes them out. Queues are held by name and looked up at the commit, as on RabbitMQ: a queue
may have been declared, deleted, or declared again.

Always true between calls: no more is held than one transaction may hold.

Spec: tx class; RabbitMQ docs/semantics.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from amqpd.broker.hand_over import WIDE
from amqpd.broker.worklist import PIECE, Discard, Worklist
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import LARGE_BODY
from amqpd.session.commit_bodies import CommitBodies
from amqpd.session.commit import Answered, Commit, Held, Unacked, Verdict
from amqpd.session.contents import release_contents
from amqpd.session.settings import SessionSettings


LARGE_PART = 256 << 10      # bytes, beyond which a body is written ahead if all of the transaction exceeds LARGE_BODY
LARGE_OF_MANY = 32 << 10    # bytes, beyond which a body is written ahead that goes to very many queues in hand-overs


class Uncommitted:
    """The transaction of one channel. `is_active` after tx.select; `acts` counts publishes to queues, and answers.

    `bodies` are written before the commit begins.
    """

    def __init__(self, settings: SessionSettings, worklist: Worklist) -> None:
        self.is_active = False
        self.commit: Commit | None = None       # the current one
        self.rollback: Iterator[None] | None = None
        self._settings = settings
        self._worklist = worklist
        self.forget()

    def forget(self) -> None:
        """Drop everything."""
        self.publishes: list[Held] = []
        self.answers: list[Answered] = []
        self._large: list[Held] = []
        self.bodies: CommitBodies | None = None
        self.acts = self._bytes = 0
        self._acts_of_many = 0      # publishes to very many queues
        self._released = 0      # answers whose contents have been released

    # In

    def hold_publishes(self, held: Held) -> None:
        """Keep routed publishes for the commit."""
        self.publishes.append(held)
        is_wide = len(held.queues) >= WIDE
        if is_wide:
            self._acts_of_many += len(held.messages) * len(held.queues)
        most = LARGE_OF_MANY if is_wide else LARGE_PART
        if held.messages[0].body_size > most:       # the others of these have the same size
            self._large.append(held)
        self._count(
            len(held.messages) * max(1, len(held.queues)), sum([message.body_size for message in held.messages]))

    def hold_answers(self, answered: dict[int, Unacked], verdict: Verdict) -> None:
        """Keep answered deliveries, by tag, for the commit."""
        if not answered:
            return
        self.answers.append((answered, verdict))
        self._count(len(answered), 0)

    def _count(self, acts: int, size: int) -> None:
        self.acts += acts
        self._bytes += size
        settings = self._settings
        if self.acts > settings.transaction_acts or self._bytes > settings.transaction_bytes:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED, f"transaction is larger than {settings.transaction_acts} operations "
                f"(limits.transaction_operations) or {settings.transaction_bytes} bytes (limits.transaction_size); it "
                "was rolled back")

    # Out

    @property
    def is_wide(self) -> bool:
        """Whether most of what is held are publishes to very many queues."""
        return 2 * self._acts_of_many > self.acts

    @property
    def large(self) -> list[Held]:
        """The publishes whose bodies should be written to the store before the commit."""
        return self._large if self._bytes > LARGE_BODY or self._acts_of_many else []

    def discard_publishes(self) -> None:
        """Drop the publishes."""
        publishes, self.publishes = self.publishes, []
        self._large = []
        if len(publishes) > PIECE:
            Discard(self._worklist, [publishes])
        else:
            Discard(self._worklist, [held.messages for held in publishes])

    def end(self) -> list[dict[int, Unacked]]:
        """Drop everything, since the channel is ending, and return the answered deliveries."""
        answers = [answered for answered, _ in self.answers]
        if self.bodies is not None:
            self.bodies.end()
        self.discard_publishes()
        self.forget()
        self.rollback = None
        return answers

    # What is held

    @property
    def message_count(self) -> int:
        """The number of messages that wait for the commit."""
        return sum([len(held.messages) for held in self.publishes])

    @property
    def holds_answers(self) -> bool:
        """Whether a delivery is answered, but not settled."""
        return bool(self.answers) or self.rollback is not None

    @property
    def answered(self) -> list[Unacked]:
        """The deliveries that are answered, but not settled."""
        under_way = self.commit.owed if self.commit is not None else ()
        return [*under_way, *chain.from_iterable([answered.values() for answered, _ in self.answers])]

    @property
    def answered_count(self) -> int:
        """The number of these deliveries."""
        under_way = self.commit.owed_count if self.commit is not None else 0
        return under_way + sum([len(answered) for answered, _ in self.answers])

    # Contents

    @property
    def holds_contents(self) -> bool:
        """Whether there are answers whose contents may be released."""
        return self._released < len(self.answers)

    def release_contents(self) -> Iterator[int]:
        """Release contents of answered deliveries, in slices; yield their numbers; see broker/unacked_contents.py."""
        while self._released < len(self.answers):
            answered, _ = self.answers[self._released]
            if release_contents(answered, answered, self._settings.small_content):
                return
            self._released += 1
            yield len(answered)
