"""Record changes of the definitions of one vhost or of the broker, and know which batch answers wait for.

Memory is changed and the change recorded together, inside of `with`. After an error in between, memory and record may
differ. So the journal fails then: nothing more is written, the broker stops, and the next start uses what is on disk.
Everything that can be refused is checked before, so that no client can cause this, only a bug.
"""

from __future__ import annotations

from types import TracebackType

from amqpd.broker.clock import Clock
from amqpd.broker.definitions import Change
from amqpd.broker.events import Events
from amqpd.broker.ports import Journal
from amqpd.errors import AmqpException

NEVER = 1 << 62         # a batch number that no commit reaches


class Changes:
    """The changes of one vhost, or of the broker. Nothing waits inside of `with`.

    `awaited_batch` is the journal's batch with the newest change, or 0 once that is on disk. Every answer waits for it,
    even if another client made the change: the answer that an object exists, or does not exist, is a promise too.

    `tell` tells the listeners of `broker/events.py` what has changed.
    """

    __slots__ = ("awaited_batch", "tell", "_journal")

    def __init__(self, journal: Journal, events: Events | None = None) -> None:
        self.awaited_batch = 0
        self.tell = (events or Events(Clock())).tell
        self._journal = journal

    def record(self, change: Change) -> None:
        """Record a change."""
        self.note(self._journal.changed(change))

    def record_unfinished(self, is_unfinished: bool) -> None:
        """Record whether a deleted object still has bindings; see `Journal`."""
        self.note(self._journal.unfinished(is_unfinished))

    def note(self, batch: int) -> None:
        """Let answers wait for this batch of the journal too; 0 stands for no batch."""
        self.awaited_batch = max(batch, self.awaited_batch)

    def on_commit(self, batch: int) -> None:
        """Record that this batch and all before it are on disk."""
        if batch >= self.awaited_batch:
            self.awaited_batch = 0

    def __enter__(self) -> None:
        """Begin a change."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the change. A refusal is not a failure, since it comes before anything changes."""
        if isinstance(error, Exception) and not isinstance(error, AmqpException):
            self._journal.fail(error)
            self.awaited_batch = NEVER
