"""The commit of a transaction, in slices, as a job of the worklist.

Everything joins one batch of the journal: so it is on disk completely or not at all. Most long commits hold the batch
meanwhile (`broker/hold.py`), for which all confirms wait. Publishes to very many queues take too long for that, so they
are recorded at the end (`broker/deferral.py`).

Once begun, a commit is completed even if its channel is closed. A queue is looked up once: a queue that is deleted
between two slices accepts nothing more, and one that is declared again is another queue.

Spec: tx class; RabbitMQ docs/semantics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple

from amqpd.broker.broker import Broker
from amqpd.broker.counts import ChannelCounts, ExchangeCounts
from amqpd.broker.deferral import Deferral
from amqpd.broker.hand_over import MOST_MESSAGES, WIDE, HandOver
from amqpd.broker.hold import Hold
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue, note_holders
from amqpd.broker.rejects import Rejects
from amqpd.broker.worklist import PIECE, Waiters
from amqpd.message import Message

WAIT_STEPS = 50         # the cost of looking whether rejected messages have been dead-lettered
RUN_STEPS = 6           # the cost of a run of a queue or a consumer, besides a step for each message

Unacked = tuple[Message, Consumer[Queue]]


class Verdict(Enum):
    """The answer of a client to a delivery."""

    ACK = auto()
    REQUEUE = auto()
    REJECT = auto()


class Held(NamedTuple):
    """Publishes with equal properties to the same queues, by name.

    Mandatory ones are returned if none of these queues exists.
    """

    messages: list[Message]
    queues: tuple[str, ...]
    is_mandatory: bool
    exchange: ExchangeCounts        # of the exchange that they were published to


Answered = tuple[dict[int, Unacked], Verdict]
# Returns the batch that makes it durable, or 0; see `Answers.carry_out`.
CarryOut = Callable[[Verdict, dict[Consumer[Queue], list[Message]], Rejects], int]


class Commit:
    """One commit: first the publishes, then the answers; then it waits until rejected messages have been dead-lettered.

    `hold` is its hold on the journal, for a long commit and for one with rejects; with `deferral` its records wait.

    `counts` are those of the channel, `queues` those of the vhost, by name; `carry_out` carries out equal answers.
    `batch` is the journal's batch that it has joined, or 0; `returned` has the messages to return to the client.
    """

    def __init__(
        self, broker: Broker, counts: ChannelCounts, queues: Mapping[str, Queue], carry_out: CarryOut,
        publishes: Sequence[Held], answers: Sequence[Answered], hold: Hold | None,
        deferral: Deferral | None = None,
    ) -> None:
        self.batch = 0
        self.is_partial = False         # a queue has refused a message
        self.returned: deque[Message] = deque()
        self._broker = broker
        self._counts = counts
        self._existing = queues
        self._carry_out = carry_out
        self._publishes = deque(publishes)
        self._answers = deque(answers)
        self._at = 0                    # position in the first of these
        self._hand_over: HandOver | None = None                 # of publishes to very many queues
        self._answered: Iterator[Unacked] | None = None         # what is left of the first answers
        self._requeued: dict[Consumer[Queue], list[Message]] = {}       # collected, for a queue takes them in order
        self._rejects = Rejects()
        self._is_over = not (publishes or answers)
        self._found: dict[str, Queue | None] = {}
        self._hold = hold
        self._deferral = deferral
        self._begun = self._done = 0    # slices
        self._waiters = Waiters(self._broker.worklist)
        self.call = self._waiters.call  # calls back when it is done

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return not self._is_over

    @property
    def has_failed(self) -> bool:
        """Whether a slice has ended with an internal error."""
        return self._begun > self._done

    @property
    def owed(self) -> Iterator[Unacked]:
        """Yield the deliveries whose answer has not been carried out yet."""
        for consumer, run in self._requeued.items():
            yield from ((message, consumer) for message in run)
        is_first = True
        for answered, _ in self._answers:
            yield from islice(answered.values(), 0 if self._publishes or not is_first else self._at, None)
            is_first = False

    @property
    def owed_count(self) -> int:
        """The number of these deliveries."""
        done = self._at if self._answers and not self._publishes else 0
        return sum(map(len, self._requeued.values())) + sum([len(answered) for answered, _ in self._answers]) - done

    def work(self) -> None:
        """Do one slice; see `broker/worklist.py`."""
        self._begun += 1
        with self._deferral.on() if self._deferral is not None else nullcontext():
            self._work()

    def _work(self) -> None:
        try:
            if self._hand_over is not None:
                self._go_on(self._hand_over)
            elif self._publishes:
                self._publish()
            elif self._answers and (not self._requeued or self._answers[0][1] is Verdict.REQUEUE):
                self._answer()
            elif self._requeued:
                self._requeue()
            else:       # the router has work
                self._broker.effort.total += WAIT_STEPS
            self._done += 1
        finally:
            if not (self._hand_over or self._publishes or self._answers or self._requeued or self._rejects.has_unmoved):
                self._end()

    def _end(self) -> None:
        self._is_over = True
        if self._hold is not None:
            self._hold.end()
        if self._deferral is not None:
            self._deferral.end()
            self.batch = self._broker.journal.batch if self.batch else 0
        self._waiters.release()

    # Publishes

    def _publish(self) -> None:
        """Publish in order, each message to all its queues at once; to very many queues in a hand-over of its own."""
        broker = self._broker
        runs: dict[Queue, list[Message]] = {}
        room = PIECE
        is_timed = False
        while self._publishes and room > 0:
            held = self._publishes[0]
            queues = self._find(held.queues)
            width = max(1, len(held.queues))
            if len(queues) >= WIDE:
                if not runs:
                    self._begin_hand_over(held, queues)
                    return
                break
            messages = held.messages[self._at : self._at + max(1, room // width)]
            self._advance(held, len(messages))
            is_timed = is_timed or messages[0].facts.expiration_ms is not None
            room -= 1 + len(messages) * width
            self._number(messages)
            self._counts.add_published(held.exchange, len(messages), len(queues), mandatory=held.is_mandatory)
            if not queues and held.is_mandatory:
                self.returned += messages
            queues = [queue for queue in queues if not queue.deleted]
            if len(queues) > 1:
                note_holders(queues, messages)
            if self._deferral is not None:
                _note_several(messages)
            for queue in queues:
                run = runs.get(queue)
                if run is None:
                    runs[queue] = messages if len(queues) == 1 else [*messages]
                    room -= RUN_STEPS
                else:
                    run += messages
        broker.effort.total += PIECE - room
        for queue, run in runs.items():
            outcome = queue.publish(run, is_timed=is_timed)
            self.batch = max(self.batch, outcome.batch)
            self.is_partial = bool(outcome.refused) or self.is_partial

    def _begin_hand_over(self, held: Held, queues: list[Queue]) -> None:
        messages = held.messages[self._at : self._at + MOST_MESSAGES]
        self._advance(held, len(messages))
        self._counts.add_published(held.exchange, len(messages), len(queues), mandatory=held.is_mandatory)
        self._hand_over = HandOver(
            self._broker, messages, queues, is_timed=messages[0].facts.expiration_ms is not None,
            is_deferred=self._deferral is not None)
        self._go_on(self._hand_over)

    def _go_on(self, hand_over: HandOver) -> None:
        hand_over.work()
        if hand_over.is_done:
            self._hand_over = None
            self.batch = max(self.batch, hand_over.batch)
            self.is_partial = bool(hand_over.refused) or self.is_partial

    def _advance(self, held: Held, count: int) -> None:
        """Count so many messages of the first publishes as done."""
        self._at += count
        if self._at == len(held.messages):
            self._publishes.popleft()
            self._at = 0

    def _number(self, messages: list[Message]) -> None:
        """Assign new numbers to the messages, in order: their position in a queue is that of the commit."""
        broker = self._broker
        for number, message in enumerate(messages, broker.next_message_number):
            message.number = number
        broker.next_message_number += len(messages)

    def _find(self, names: Sequence[str]) -> list[Queue]:
        """Return those of these queues that exist, or existed at their first look-up."""
        found = self._found
        for name in names:
            if name not in found:
                found[name] = self._existing.get(name)
        return [queue for name in names if (queue := found[name]) is not None]

    # Answers

    def _answer(self) -> None:
        """Carry out answers in order, equal ones together."""
        verdict = self._answers[0][1]
        taken: dict[Consumer[Queue], list[Message]] = self._requeued if verdict is Verdict.REQUEUE else {}
        room = PIECE
        while room > 0 and self._answers and self._answers[0][1] is verdict:
            if self._answered is None:
                self._answered = iter(self._answers[0][0].values())
            piece = list(islice(self._answered, room))
            is_last = len(piece) < room
            before = len(taken)
            add_by_consumer(taken, piece)
            room -= len(piece) + RUN_STEPS * (len(taken) - before)
            self._at += len(piece)
            if is_last:
                self._answers.popleft()
                self._answered, self._at = None, 0
        self._broker.effort.total += PIECE - room
        if verdict is not Verdict.REQUEUE:
            self.batch = max(self.batch, self._carry_out(verdict, taken, self._rejects))

    def _requeue(self) -> None:
        """Requeue what was collected, to some queues at a time; each queue does it in slices of its own."""
        taken = {consumer: self._requeued.pop(consumer) for consumer in [*islice(self._requeued, PIECE // RUN_STEPS)]}
        self._broker.effort.total += RUN_STEPS * len(taken)
        self._carry_out(Verdict.REQUEUE, taken, self._rejects)


def _note_several(messages: Sequence[Message]) -> None:
    """Have messages stored as those of several queues.

    Messages that are above them may be on disk before them, and those that share a row are in order there.
    """
    for message in messages:
        message.holders = max(message.holders, 2)


def by_consumer(answered: Collection[Unacked]) -> dict[Consumer[Queue], list[Message]]:
    """Group deliveries by consumer, in order."""
    if len(consumers := {consumer for _, consumer in answered}) == 1:
        return {consumers.pop(): [message for message, _ in answered]}
    taken: dict[Consumer[Queue], list[Message]] = {}
    add_by_consumer(taken, answered)
    return taken


def add_by_consumer(taken: dict[Consumer[Queue], list[Message]], answered: Iterable[Unacked]) -> None:
    """Add deliveries to those of their consumers."""
    for message, consumer in answered:
        run = taken.get(consumer)
        if run is None:
            taken[consumer] = [message]
        else:
            run.append(message)
