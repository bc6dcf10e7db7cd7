"""The clients whose sockets are gone, until their sessions have let go of everything: more than a turn can see to wait.

Always true between turns: a client whose socket is gone waits here, or nobody knows it any more.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from amqpd.broker.effort import Effort
from amqpd.server.guard import guard
from amqpd.session.connection import Session


class LostClient(Protocol):
    """A connection's socket that is gone; see server/connection.py."""

    session: Session

    def end_session(self) -> None:
        """The session has been told that the socket is gone: nobody knows it any more."""


class LostClients:
    """The lost clients of one loop, in order."""

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self._waiting: deque[LostClient] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, client: LostClient) -> None:
        """See to the end of this client, in this turn unless it is spent."""
        self._waiting.append(client)
        if not self._effort.turn_is_spent:
            self._end_next()

    def go_on(self) -> None:
        """See to those that wait, until the turn is spent; to one at least."""
        for _ in range(len(self._waiting)):
            self._end_next()
            if self._effort.turn_is_spent:
                return

    def _end_next(self) -> None:
        client = self._waiting.popleft()
        guard(client.session, client.session.lost)
        client.end_session()
