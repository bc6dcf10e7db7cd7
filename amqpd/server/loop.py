"""One turn of the event loop, gathered: what sessions have to say goes out once at its end, then a batch is taken.

Owns the list of sessions with something to send and the set of those that wait for a commit. A session, a
queue or the control socket may cause output on any connection; all of it is written at the end of the turn,
in one write a connection, however many runs it came from.

Always true between turns: no session on the list, and a batch is being written if anything waits for one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from amqpd.broker.broker import Broker
from amqpd.broker.effort import SLICE
from amqpd.broker.worklist import PIECE
from amqpd.server.read_shares import ReadShares
from amqpd.session.connection import Session
from amqpd.wire.contents import Intake

if TYPE_CHECKING:
    from amqpd.server.committer import Committer
    from amqpd.server.connection import ClientProtocol
    from amqpd.server.page_store import DiskPageStore


READ_TURN_S = 0.02          # after it all sockets have been read: a timer that is set now comes after a poll
LATE_MS = 500               # by which a wake-up comes late where the process, or the loop, did not go on
MOST_TOLD_AT_ONCE = 64      # sessions, of answers in a turn


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)      # see server/wall_clock.py


def now_ms() -> int:
    """Milliseconds of the clock that nobody sets, and that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


class LoopTurn:
    """The end of the turn, and who is to be seen to at it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, broker: Broker) -> None:
        self.protocols: dict[Session, ClientProtocol] = {}
        self.committer: Committer | None = None
        self.page_store: DiskPageStore | None = None
        self.alarm = ""         # see session/connection.py; changed by `set_alarm` alone
        self.intake = Intake()  # of all connections
        self.loop = loop
        self._broker = broker
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ms = 0
        self._reads_first = False
        self._has_output: list[Session] = []
        self._awaiting: set[Session] = set()
        self._advanced: list[Session] = []
        self._is_scheduled = False
        self._deferred: deque[Session] = deque()        # those that have had their share of a turn, in order
        self._has_passed_over = False                   # those, in the turn before
        self._unfinished: deque[Session] = deque()      # those whose command goes on like a job
        self._lost: deque[ClientProtocol] = deque()     # whose sockets are gone, more than one turn can see to
        self.shares = ReadShares()
        self._read_later: list[ClientProtocol] = []

    # Signals of a session

    def output_ready(self, session: Session) -> None:
        """See session/connection.py."""
        self._has_output.append(session)
        self.schedule()

    def commit_awaited(self, session: Session) -> None:
        """See session/connection.py."""
        self._awaiting.add(session)

    def handshake_advanced(self, session: Session) -> None:
        """See session/connection.py."""
        self._advanced.append(session)
        self.schedule()

    def input_deferred(self, session: Session) -> None:
        """See session/connection.py."""
        self._deferred.append(session)
        self.schedule()

    def command_unfinished(self, session: Session) -> None:
        """See session/connection.py."""
        self._unfinished.append(session)
        self.schedule()

    def input_drained(self, session: Session) -> None:
        """See session/connection.py."""
        protocol = self.protocols.get(session)
        if protocol is not None and not session.is_read:
            self.read_again(protocol)
            self.schedule()

    def tell_time(self) -> None:
        """Let the broker know how late it is, before something happens that is not said by a client."""
        self._broker.clock.now_ms = now_ms()

    def begin(self) -> None:
        """Something happens that is not said by a client: tell the time, and see to what follows from it."""
        self.tell_time()
        self.schedule()

    # Back-pressure

    def read_again(self, protocol: ClientProtocol) -> None:
        """This connection has had its share of the turn."""
        self.shares.rest(protocol)

    def read_later(self, protocol: ClientProtocol) -> None:
        """This connection publishes more than can be taken now: it is read again after a commit, or deliveries."""
        self._read_later.append(protocol)

    def lose(self, protocol: ClientProtocol) -> None:
        """See to the end of this connection, whose socket is gone, in this turn unless it is spent."""
        self._lost.append(protocol)
        if not self._broker.effort.turn_is_spent:
            self._lose_next()
        self.schedule()

    def _lose_next(self) -> None:
        protocol = self._lost.popleft()
        self.guard(protocol.session, protocol.session.lost)
        protocol.end_session()

    def _go_on_with_lost(self) -> None:
        for _ in range(len(self._lost)):
            self._lose_next()
            if self._broker.effort.turn_is_spent:
                return

    def set_alarm(self, reason: str) -> None:
        """From now on nothing may be published, for this reason; with an empty one everything may be again."""
        self.alarm = reason
        if not reason:
            self.begin()
            for session in list(self.protocols):
                self.guard(session, session.blocking.ask_to_unblock)

    # The turn

    def schedule(self) -> None:
        """Ask for the end of this turn to be seen to."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._end)

    def _end(self) -> None:
        self._is_scheduled = False
        self.tell_time()
        now = self._broker.clock.now_ms
        self._go_on_with_lost()
        self._go_on_with_deferred()
        self._work()
        if self._advanced:
            self._go_on_with_handshakes()
        if self.committer is not None:
            self.committer.tell_of_answers()
        self._flush(now)
        self._set_alarm(now)
        self._broker.page_out()
        if self.page_store is not None:
            self.page_store.serve()
        if self.committer is not None:
            self.committer.take()
        self.shares.begin_turn()
        if not self.is_full:
            if self._read_later and not self.is_behind:
                for protocol in self._read_later:
                    self.shares.rest(protocol)
                self._read_later = []
            self.shares.resume()
        self._broker.effort.begin_turn()
        if self._has_work:
            self.schedule()

    @property
    def _has_work(self) -> bool:
        """Return whether there is something to go on with that need not wait for the disk first."""
        if self._lost:
            return True
        has_jobs = bool(self._unfinished) or not self._broker.worklist.is_empty
        has_clients = bool(self._deferred) or self.shares.has_resting
        return has_clients and not self.is_full or has_jobs and not self._is_full_for_jobs

    @property
    def _is_full_for_jobs(self) -> bool:
        return self.committer is not None and self.committer.is_full_for_jobs

    def _flush(self, now: int) -> None:
        """Write what the sessions have to say."""
        has_output, self._has_output = self._has_output, []
        for session in has_output:
            protocol = self.protocols.get(session)
            if protocol is not None:
                self.guard(session, protocol.flush, now)

    def _go_on_with_deferred(self) -> None:
        """Let those go on who have waited longest, until the turn is spent; at least one has a slice.

        After reads that took very long nobody goes on before the next turn, so that two such pieces do not make one.
        """
        effort = self._broker.effort
        self._has_passed_over = effort.turn_is_overspent and not self._has_passed_over
        if self.is_full or self._has_passed_over:
            return
        for _ in range(len(self._deferred)):
            session = self._deferred.popleft()
            self.guard(session, session.go_on)
            if effort.turn_is_spent:
                break

    def _work(self) -> None:
        """Give the worklist its slice of this turn, unless so much waits for the disk that more would make all wait."""
        effort, worklist = self._broker.effort, self._broker.worklist
        stop = effort.total + SLICE
        while effort.total < stop and not self._is_full_for_jobs:
            if self._unfinished:
                session = self._unfinished.popleft()
                self.guard(session, session.go_on)
            elif worklist.is_empty:
                return
            if not worklist.is_empty:
                effort.begin(PIECE)
                worklist.work()

    def work_on_new(self) -> None:
        """Let new jobs do their first pieces: what they move should join the batch of what caused them."""
        if self._broker.worklist.has_new:
            self._broker.effort.begin()
            self._broker.worklist.work_on_new()

    def _go_on_with_handshakes(self) -> None:
        advanced, self._advanced = self._advanced, []
        for session in advanced:
            protocol = self.protocols.get(session)
            if protocol is not None:
                protocol.handshake_advanced()

    @staticmethod
    def guard(session: Session, act: Callable[..., object], *arguments: object) -> None:
        """Do something for one connection; an error closes that connection, and the others notice nothing."""
        try:
            act(*arguments)
        except Exception:
            session.fail_internally()

    def _set_alarm(self, now: int) -> None:
        """See to it that the broker's clock goes on when something of its is due."""
        due = self._broker.clock.next_wake_ms
        if due is None or (self._alarm is not None and self._alarm_ms <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ms = due
        self._alarm = self.loop.call_later(max(0, due - now) / 1000, self._wake)

    def _wake(self) -> None:
        """Do what is due. After a gap read first: a queue that expires may have been used meanwhile."""
        now = now_ms()
        self._reads_first = not self._reads_first and now - self._alarm_ms > LATE_MS
        if self._reads_first:
            self._alarm = self.loop.call_later(READ_TURN_S, self._wake)
            return
        self._alarm = None
        self._broker.effort.begin()
        self._broker.clock.advance(now, self._broker.effort)
        self.schedule()

    def wake_if_overdue(self) -> None:
        """Wake those whose time came while the machine slept, for which the loop's own timers stand still."""
        if self._alarm is not None and not self._reads_first and now_ms() - self._alarm_ms > LATE_MS:
            self._alarm.cancel()
            self._wake()

    def on_commit(self, batch: int) -> None:
        """A batch is on disk: tell the sessions that wait for it, and send their confirms without another turn."""
        for session in list(self._awaiting):
            self.guard(session, session.on_commit, batch)
            if not session.awaits_commit:
                self._awaiting.discard(session)
        self._flush(now_ms())
        self.schedule()

    def on_answered(self, number: int) -> None:
        """Nobody is owed a message up to this number any more: tell the sessions that wait for their commit.

        That is done in nearly every turn, so where there are many of them they hear of it with the commit.
        """
        if len(self._awaiting) > MOST_TOLD_AT_ONCE:
            return
        for session in list(self._awaiting):
            self.guard(session, session.on_answered, number)
            if not session.awaits_commit:
                self._awaiting.discard(session)

    @property
    def is_full(self) -> bool:
        """Whether more waits for the disk than should."""
        return self.committer is not None and self.committer.is_full

    @property
    def is_overfull(self) -> bool:
        """Whether so much more waits for the disk that not even those are read who send little."""
        return self.committer is not None and self.committer.is_overfull

    @property
    def is_behind(self) -> bool:
        """Whether more waits in memory than should, and consumers are about to take it."""
        return self._broker.is_behind

    @property
    def is_awaiting(self) -> bool:
        """Whether any session waits for a commit."""
        return bool(self._awaiting)

    def forget(self, session: Session) -> None:
        """The session's socket is gone."""
        self.protocols.pop(session, None)
        self._awaiting.discard(session)
