"""The clients whose sockets are lost, until their sessions have released everything; a turn handles only some of them.

Always true between turns: a client whose socket is lost waits here, or nothing refers to it any more.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from amqpd.broker.effort import Effort
from amqpd.server.guard import guard
from amqpd.session.connection import Session


class LostClient(Protocol):
    """A lost socket; see server/connection.py."""

    session: Session

    def end_session(self) -> None:
        """Drop the references to the session, which knows that the socket is lost."""


class LostClients:
    """The lost clients of one loop, in order."""

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self._waiting: deque[LostClient] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, client: LostClient) -> None:
        """End the session of this client, in this turn unless it is used up."""
        self._waiting.append(client)
        if not self._effort.turn_is_spent:
            self._end_next()

    def go_on(self) -> None:
        """End the sessions of waiting clients, until the turn is used up; at least one."""
        for _ in range(len(self._waiting)):
            self._end_next()
            if self._effort.turn_is_spent:
                return

    def _end_next(self) -> None:
        client = self._waiting.popleft()
        guard(client.session, client.session.lost)
        client.end_session()
