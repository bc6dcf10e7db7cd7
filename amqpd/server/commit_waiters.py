"""The sessions that wait for a commit, to send confirms or output that is held until a batch is on disk."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from amqpd.server.guard import guard
from amqpd.session.confirms import MOST_TOLD_AT_ONCE
from amqpd.session.connection import Session


class CommitWaiters:
    """Reports commits to sessions until they no longer wait."""

    def __init__(self) -> None:
        self._waiting: dict[Session, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, session: Session) -> None:
        """Report commits to this session."""
        self._waiting[session] = None

    def remove(self, session: Session) -> None:
        """Stop reporting to this session, whose socket is lost."""
        self._waiting.pop(session, None)

    def on_commit(self, batch: int) -> None:
        """Report to the waiting sessions that this batch and all before it are on disk."""
        for session in list(self._waiting):
            guard(session, session.on_commit, batch)
            if not session.awaits_commit:
                self.remove(session)

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        """Report that consumers have acked messages; see store/pending_confirms.py.

        This is called in nearly every turn. If very many channels wait, it is reported to a few of them, in turn; the
        others hear of it later, or of the commit.
        """
        left = MOST_TOLD_AT_ONCE
        for session in list(islice(self._waiting, MOST_TOLD_AT_ONCE)):
            left -= max(1, session.unconfirmed_channels)
            guard(session, session.on_answered, first_pending)
            self.remove(session)
            if session.awaits_commit:
                self.add(session)       # as the last one
            if left <= 0:
                return
