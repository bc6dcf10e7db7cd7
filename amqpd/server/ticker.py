"""The clock that looks after every connection: heartbeats, handshakes and answers that take too long.

A verdict is made on fresh facts. Time in which the process did not run (a paused machine, a laptop that slept), or in
which the loop was busy with one turn, is excused: it does not count as silence of the clients. And nobody is dropped
before all sockets have been read once more after the look that found a client overdue.
"""

from __future__ import annotations

import asyncio
import logging

from amqpd.server.gaps import Gaps
from amqpd.server.guard import guard
from amqpd.server.loop import Client, LoopTurn
from amqpd.server.wake_up import READ_TURN_S
from amqpd.session.connection import Session

log = logging.getLogger("amqpd")

TICK_S = 0.25
TAKES_NOTHING_S = 90        # with something to send; counted in ticks, so that a gap does not count
SLICE = 500         # connections that are looked at in one turn of the loop
EXCUSED = 5_000     # channels, in one turn of the loop
TOLD_MS = 1_000     # a gap from which on the log tells of it


class Ticker:
    """Looks after all connections of the loop."""

    def __init__(self, turn: LoopTurn) -> None:
        self._turn = turn
        self._gaps = Gaps(int(TICK_S * 1000), self._turn.now_ms())

    async def tick_forever(self) -> None:
        """See to heartbeats and deadlines, four times a second."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """Excuse a gap, look at every connection, and drop those that are overdue and stay so while they are read."""
        gap_ms = self._gaps.look(self._turn.now_ms())
        if gap_ms:
            await self._excuse(gap_ms)
        overdue: list[Session] = []
        sessions = list(self._turn.protocols.items())
        for start in range(0, len(sessions), SLICE):
            if start:
                await asyncio.sleep(0)
            overdue += self._look_at(sessions[start : start + SLICE])
        if overdue:
            await asyncio.sleep(READ_TURN_S)
            self._judge(overdue)

    async def _excuse(self, gap_ms: int) -> None:
        """Do not count this time for anybody, and let what came meanwhile be read."""
        if gap_ms >= TOLD_MS:
            log.warning("nothing was done for %.1f s (a paused machine, or a long turn): clients are not held to it",
                        gap_ms / 1000)
        now = self._turn.now_ms()
        excused = 0
        for session in list(self._turn.protocols):
            session.excuse(gap_ms, now)
            excused += 1 + len(session.channels)
            if excused >= EXCUSED:
                excused = 0
                await asyncio.sleep(0)
        await asyncio.sleep(READ_TURN_S)

    def _look_at(self, sessions: list[tuple[Session, Client]]) -> list[Session]:
        """Look after these, and return those that are overdue as far as is known now."""
        now = self._turn.now_ms()
        self._turn.begin()
        overdue: list[Session] = []
        for session, protocol in sessions:
            if not _is_there(session, protocol, now):
                protocol.drop()
            else:
                guard(session, self._tick, session, now, overdue)
        return overdue

    @staticmethod
    def _tick(session: Session, now: int, overdue: list[Session]) -> None:
        if not session.tick(now):
            overdue.append(session)

    def _judge(self, overdue: list[Session]) -> None:
        now = self._turn.now_ms()
        self._turn.begin()
        for session in overdue:
            protocol = self._turn.protocols.get(session)
            if protocol is not None and session.is_overdue(now):
                session.log_overdue(now)
                protocol.drop()


def _is_there(session: Session, protocol: Client, now: int) -> bool:
    """Return whether a client is there, as far as its socket tells: it takes what it is sent, and has not closed.

    Of one that is not read only the system knows. For one that is blocked its machine may speak.
    """
    if protocol.looks_in_vain() >= TAKES_NOTHING_S / TICK_S:
        log.warning("%s: closing: the client has taken nothing of what it is sent for %d s", session.name,
                    TAKES_NOTHING_S, extra={"connection": session.number})
        return False
    if session.blocking.is_input_full or session.receiver.waits_for_reader:
        age = protocol.acknowledged_ms_ago()
        if age is None:
            return False
        if session.blocking.is_input_full:
            session.heartbeats.peer_is_alive(now - age)
    return True
