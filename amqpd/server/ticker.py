"""The clock of all connections: heartbeats, and the time limits of handshakes and answers.

Decisions are made on fresh data. Time in which the process did not run (a paused machine, a laptop that slept), or in
which the loop was busy with one turn, does not count as silence of the clients. No client is dropped before all sockets
have been read once more after the check that found it overdue.
"""

from __future__ import annotations

import asyncio
import logging

from amqpd.broker.measures import Measures
from amqpd.server.gaps import Gaps
from amqpd.server.guard import guard
from amqpd.server.loop import Client, LoopTurn
from amqpd.server.wake_up import READ_TURN_S
from amqpd.session.connection import Session

log = logging.getLogger("amqpd")

TICK_S = 0.25
TAKES_NOTHING_S = 90.0      # with output waiting; counted in ticks, so that a gap does not count
SLICE = 500         # connections that are checked in one turn of the loop
EXCUSED = 5_000     # channels that are excused in one turn of the loop
TOLD_MS = 1_000     # a gap from which on it is logged


class Ticker:
    """Checks all connections of the loop. A client that takes no output for `outgoing_timeout_s` is dropped.

    How late the loop calls it is added to the measures.
    """

    def __init__(
        self, turn: LoopTurn, outgoing_timeout_s: float = TAKES_NOTHING_S, measures: Measures | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        self._tick_s = tick_s
        self._turn = turn
        self._measures = measures or Measures()
        self._outgoing_timeout_s = outgoing_timeout_s
        self._gaps = Gaps(int(TICK_S * 1000), self._turn.now_ms())

    def change_timeout(self, outgoing_timeout_s: float) -> None:
        """Use another time from now on."""
        self._outgoing_timeout_s = outgoing_timeout_s

    async def tick_forever(self) -> None:
        """Check heartbeats and deadlines, four times a second."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + self._tick_s
            await asyncio.sleep(self._tick_s)
            self._measures.loop_lag_seconds.observe(max(0.0, loop.time() - due_s))
            await self.tick()

    async def tick(self) -> None:
        """Excuse a gap, check every connection, and drop those that are still overdue after they have been read."""
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
        """Do not count a gap as silence of any client, and let the input that came meanwhile be read."""
        if gap_ms >= TOLD_MS:
            log.warning("no work for %.1f s (a paused machine, or a long turn): not counted as silence of clients",
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
        """Check these connections, and return those that are overdue as far as is known now."""
        now = self._turn.now_ms()
        self._turn.begin()
        overdue: list[Session] = []
        for session, protocol in sessions:
            if not _is_there(session, protocol, now, self._outgoing_timeout_s):
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


def _is_there(session: Session, protocol: Client, now: int, outgoing_timeout_s: float) -> bool:
    """Return whether a client is alive, as far as its socket tells: it takes what is sent, and has not closed.

    For a client that is not read, the system is asked. For a blocked client, the TCP acks of its machine count.
    """
    if protocol.looks_in_vain() >= outgoing_timeout_s / TICK_S:
        session.state.log_end(f"client has taken nothing of what it is sent for {outgoing_timeout_s:g} s")
        return False
    if session.blocking.is_input_full or session.receiver.waits_for_reader:
        age = protocol.acknowledged_ms_ago()
        if age is None:
            return False
        if session.blocking.is_input_full:
            session.heartbeats.peer_is_alive(now - age)
    return True
