"""Drop the ready messages of a queue that have expired, and report when the queue itself has expired.

Owns the queue's wake-up at the clock. `deadlines.py` has the expiries of messages in memory, the FIFO those in pages.

Always true between calls: the clock wakes the queue no later than its next message, or the queue itself, expires.

RabbitMQ docs/ttl.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from amqpd.broker.clock import Clock
from amqpd.broker.dead_letter import EXPIRED
from amqpd.broker.queue.dead_letters import DeadLetters
from amqpd.broker.queue.deadlines import Deadlines
from amqpd.broker.queue.fifo import Fifo
from amqpd.broker.queue.jobs import QueueJobs
from amqpd.broker.queue.pages import NEVER_DUE
from amqpd.broker.rules import QueueRules
from amqpd.broker.worklist import PIECE
from amqpd.message import Message

RETRY_MS = 1_000         # after an internal error, before expired messages are tried again


class Expiry:
    """The expiry of one queue. `unused` is called when the queue has been unused for `expires_ms`."""

    __slots__ = (
        "ttl_ms", "_expires_ms", "_clock", "_deadlines", "_ready", "_jobs", "_dead_letters", "_consumers", "_unused",
        "_is_expiring", "_wakes_at", "_wake_up", "_last_used_ms")

    def __init__(
        self, clock: Clock, deadlines: Deadlines, ready: Fifo, jobs: QueueJobs, dead_letters: DeadLetters,
        consumers: Collection[object], unused: Callable[[], None] | None,
    ) -> None:
        self.ttl_ms: int | None = None
        self._expires_ms: int | None = None
        self._clock = clock
        self._deadlines = deadlines
        self._ready = ready
        self._jobs = jobs
        self._dead_letters = dead_letters
        self._consumers = consumers
        self._unused = unused
        self._is_expiring = False       # a job drops messages
        self._wakes_at: int | None = None
        self._wake_up = 0               # the clock's number of the wake-up
        self._last_used_ms = clock.now_ms

    def apply(self, rules: QueueRules) -> None:
        """Apply these rules from now on; messages that are in the queue keep their expiries."""
        self.ttl_ms, self._expires_ms = rules.message_ttl_ms, rules.expires_ms
        self.use()

    def end(self) -> None:
        """Stop: the queue is deleted."""
        self._clock.cancel(self._wake_up)
        self._unused = None

    # Messages

    def expiries_of(self, run: Iterable[Message]) -> dict[Message, int]:
        """Return the expiries of those messages that have one: by the queue's time to live, or their own if shorter."""
        ttl, now = self.ttl_ms, self._clock.now_ms
        expiries = {}
        for message in run:
            own = message.facts.expiration_ms
            if own is None:
                own = ttl
            elif ttl is not None and ttl < own:
                own = ttl
            if own is not None:
                expiries[message] = now + own
        return expiries

    def drop_due(self) -> None:
        """Drop the ready messages that have expired, and set the wake-up for the next one."""
        next_ms = self._deadlines.next_ms if self._deadlines else None
        next_expiry, now = self._ready.next_expiry, self._clock.now_ms
        if next_ms is not None and next_ms <= now or next_expiry is not None and next_expiry <= now:
            if not self._is_expiring:
                self._is_expiring = True
                self._jobs.run(self._drop_in_pieces())
            return
        self._ask_to_be_woken(next_ms)
        self._ask_to_be_woken(next_expiry)

    def _drop_in_pieces(self) -> Iterator[None]:
        deadlines, ready, dead_letters = self._deadlines, self._ready, self._dead_letters
        # Requested first, so that the rest is tried again after an error.
        next_ms: int | None = self._clock.now_ms + RETRY_MS
        next_expiry: int | None = None
        try:
            while True:
                now = self._clock.now_ms
                if not dead_letters.is_behind:
                    self._drop_next(now)
                soonest, next_expiry = deadlines.next_ms if deadlines else None, ready.next_expiry
                if (soonest is None or soonest > now) and (next_expiry is None or next_expiry > now):
                    next_ms = soonest
                    break
                yield
        finally:
            self._is_expiring = False
            self._ask_to_be_woken(next_ms)
            self._ask_to_be_woken(next_expiry)

    def _drop_next(self, now_ms: int) -> None:
        """Drop the next messages that have expired, in the order of their expiry, and of the queue if that is equal.

        Messages in memory may be before and behind the pages; if a page has some that expired later, they go with it.
        """
        deadlines, ready, dead_letters = self._deadlines, self._ready, self._dead_letters
        next_page, until = ready.next_due, NEVER_DUE
        if deadlines:
            due = deadlines.take_due(now_ms, PIECE, next_page)
            if due:
                ready.remove(due)
                dead_letters.drop_in_order(due, EXPIRED)
            if deadlines.has_to_take_in(now_ms):
                return
            until = deadlines.next_due
        if next_page <= until and next_page[0] <= now_ms:
            dead_letters.drop_removed(ready.take_due(now_ms, PIECE, until), EXPIRED)

    # The queue

    def use(self) -> None:
        """Restart the queue's own expiry: a client declared it, used basic.get, or stopped consuming."""
        self._last_used_ms = self._clock.now_ms
        if self._expires_ms is not None:
            self._ask_to_be_woken(self._last_used_ms + self._expires_ms)

    def _ask_to_be_woken(self, when_ms: int | None) -> None:
        if when_ms is not None and (self._wakes_at is None or when_ms < self._wakes_at):
            self._clock.cancel(self._wake_up)
            self._wakes_at = when_ms
            self._wake_up = self._clock.wake_at(when_ms, self)

    def wake(self) -> None:
        """See `Sleeper`."""
        self._wakes_at = None
        try:
            self._do_what_is_due()
        except Exception:
            self._ask_to_be_woken(self._clock.now_ms + RETRY_MS)
            raise

    def _do_what_is_due(self) -> None:
        if self._expires_ms is not None and self._unused is not None and not self._consumers:
            expires_at = self._last_used_ms + self._expires_ms
            if self._clock.now_ms >= expires_at:
                self._unused()
                return
            self._ask_to_be_woken(expires_at)
        self.drop_due()
