"""The sessions that wait for a commit, to send confirms or what they hold back until a batch is on disk."""

from __future__ import annotations

from collections.abc import Callable

from amqpd.server.guard import guard
from amqpd.session.connection import Session

MOST_TOLD_AT_ONCE = 64      # sessions, of answers in a turn


class CommitWaiters:
    """Tells them of commits until they wait no more, in the order in which they began to wait."""

    def __init__(self) -> None:
        self._waiting: dict[Session, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, session: Session) -> None:
        """Tell this session of commits."""
        self._waiting[session] = None

    def remove(self, session: Session) -> None:
        """Tell it nothing more: its socket is gone."""
        self._waiting.pop(session, None)

    def on_commit(self, batch: int) -> None:
        """Tell them that this batch and all before it are on disk."""
        self._tell(lambda session: session.on_commit(batch))

    def on_answered(self, number: int) -> None:
        """Tell them that consumers have taken over all messages up to this number.

        That is done in nearly every turn, so where there are many of them they hear of it with the commit.
        """
        if len(self._waiting) <= MOST_TOLD_AT_ONCE:
            self._tell(lambda session: session.on_answered(number))

    def _tell(self, act: Callable[[Session], None]) -> None:
        for session in list(self._waiting):
            guard(session, act, session)
            if not session.awaits_commit:
                self.remove(session)
