"""Record changes of the definitions, of one vhost or of the broker itself, and know which batch answers wait for.

Memory is changed and the change recorded as one, inside of `with`. After an error in between nobody knows whether both
say the same. So the journal fails then: nothing more is written, the broker stops, and a start goes by what is on disk.
What may be refused is looked at before, so that no client can cause this: only a mistake of ours can.
"""

from __future__ import annotations

from types import TracebackType

from amqpd.broker.definitions import Change
from amqpd.broker.ports import Journal
from amqpd.errors import AmqpException

NEVER = 1 << 62         # a batch that no commit comes to


class Changes:
    """The changes of one vhost, or of the broker. Nothing waits inside of `with`.

    `awaited_batch` is the journal's batch that holds the newest change, or 0 once that is on disk. An answer waits for
    it whoever made the change: that something is there already, or gone already, is as much of a promise.
    """

    __slots__ = ("awaited_batch", "_journal")

    def __init__(self, journal: Journal) -> None:
        self.awaited_batch = 0
        self._journal = journal

    def record(self, change: Change) -> None:
        """Record a change."""
        self.note(self._journal.changed(change))

    def record_unfinished(self, is_unfinished: bool) -> None:
        """Record whether bindings are left of something that has been recorded as deleted; see `Journal`."""
        self.note(self._journal.unfinished(is_unfinished))

    def note(self, batch: int) -> None:
        """Let answers wait for this batch of the journal too; 0 is none."""
        self.awaited_batch = max(batch, self.awaited_batch)

    def on_commit(self, batch: int) -> None:
        """Note that this batch and all before it are on disk."""
        if batch >= self.awaited_batch:
            self.awaited_batch = 0

    def __enter__(self) -> None:
        """Begin a change."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; a refusal, which comes before anything changes, is no failure."""
        if isinstance(error, Exception) and not isinstance(error, AmqpException):
            self._journal.fail(error)
            self.awaited_batch = NEVER
