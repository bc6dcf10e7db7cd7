"""The limits of the ready messages of a queue, in messages and in bytes of body, and what happens at the limit.

`drop-head` (default) drops the messages at the head; `reject-publish` and `reject-publish-dlx` refuse new ones.

Always true between calls: the ready messages are within the limits, except while a job drops some of them.

RabbitMQ docs/maxlength.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from amqpd.broker.dead_letter import MAXLEN
from amqpd.broker.queue.dead_letters import DeadLetters
from amqpd.broker.queue.fifo import NO_LIMIT, Fifo
from amqpd.broker.queue.jobs import QueueJobs
from amqpd.broker.rules import DROP_HEAD, REJECT_PUBLISH_DLX, QueueRules
from amqpd.broker.worklist import PIECE
from amqpd.message import Message


class LengthLimits:
    """The limits of one queue. `refuses` or `drops_head` says what happens there; neither is set without limits."""

    __slots__ = (
        "refuses", "drops_head", "dead_letters_refused", "is_trimming",
        "_max_length", "_max_bytes", "_ready", "_jobs", "_dead_letters")

    def __init__(self, ready: Fifo, jobs: QueueJobs, dead_letters: DeadLetters) -> None:
        self.refuses = self.drops_head = self.dead_letters_refused = False
        self.is_trimming = False        # a job drops messages
        self._max_length = self._max_bytes = NO_LIMIT
        self._ready = ready
        self._jobs = jobs
        self._dead_letters = dead_letters

    def apply(self, rules: QueueRules) -> None:
        """Apply these rules from now on."""
        self._max_length = NO_LIMIT if rules.max_length is None else rules.max_length
        self._max_bytes = NO_LIMIT if rules.max_length_bytes is None else rules.max_length_bytes
        is_limited = rules.max_length is not None or rules.max_length_bytes is not None
        self.drops_head = is_limited and rules.overflow == DROP_HEAD
        self.refuses = is_limited and rules.overflow != DROP_HEAD
        self.dead_letters_refused = rules.overflow == REJECT_PUBLISH_DLX
        self.trim()

    def fitting(self, run: Sequence[Message], start: int) -> int:
        """Return how many of these messages, from `start` on, fit into the limits."""
        most = min(len(run) - start, max(0, self._max_length - len(self._ready)))
        if self._max_bytes != NO_LIMIT:
            left = self._max_bytes - self._ready.body_bytes
            for place in range(most):
                left -= run[start + place].body_size
                if left < 0:
                    return place
        return most

    def has_room_for(self, body_size: int) -> bool:
        """Return whether a message with a body of this size is accepted, even if another one is dropped for it."""
        return not self.refuses or (
            len(self._ready) < self._max_length and self._ready.body_bytes + body_size <= self._max_bytes)

    @property
    def is_exceeded(self) -> bool:
        """Whether messages at the head have to be dropped."""
        return self.drops_head and (len(self._ready) > self._max_length or self._ready.body_bytes > self._max_bytes)

    def trim(self) -> None:
        """Drop the messages at the head that exceed the limits."""
        if self.is_exceeded and not self.is_trimming:
            self.is_trimming = True
            self._jobs.run(self._trim_in_pieces())

    def _trim_in_pieces(self) -> Iterator[None]:
        try:
            while self.is_exceeded:
                if not self._dead_letters.is_behind:
                    self._dead_letters.drop_removed(
                        self._ready.trim(self._max_length, self._max_bytes, PIECE), MAXLEN)
                if self.is_exceeded:
                    yield
        finally:
            self.is_trimming = False
