"""Close connections by force, some at a time: those of a deleted vhost or user, of which there may be very many.

Nothing more is carried out for them or delivered to them from the start, whenever it is their turn.
"""

from __future__ import annotations

from typing import Protocol

from amqpd.broker.worklist import PIECE, Worklist

CLOSE_STEPS = 150       # what it takes to close one, with its lines of the log; see broker/effort.py


class Closable(Protocol):
    """A connection as far as it can be closed."""

    def force_close_soon(self, reason: str) -> None:
        """Have `close_forced` close it with 320 and this reason; until then it does nothing more."""

    def close_forced(self) -> None:
        """Close it, unless it has closed meanwhile."""


class ForcedCloses:
    """A job for the worklist."""

    def __init__(self, worklist: Worklist, connections: list[Closable], reason: str) -> None:
        self._worklist = worklist
        self._connections = connections[::-1]
        for connection in connections:
            connection.force_close_soon(reason)
        if connections:
            worklist.add(self)

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self._connections)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        effort = self._worklist.effort
        stop = effort.total + PIECE
        while self._connections and effort.total < stop:
            effort.total += CLOSE_STEPS
            self._connections.pop().close_forced()
