"""One turn of the event loop, gathered: what sessions have to say goes out once at its end, then a batch is taken.

Owns the list of sessions with something to send and of those that have more to do. A session, a queue or the control
socket may cause output on any connection; all of it is written at the end of the turn, in one write a connection,
however many runs it came from.

The order of what happens at that end stands in `LoopTurn.end`, each step with its reason. It knows no event loop, no
socket and no thread: who makes calls later, the clock, the committer and the clients are handed in. So the tests of
sessions (`tests/support/talk.py`) run the same object as the server.

Always true between turns: no session on the list, and a batch is being written if anything waits for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from amqpd.broker.broker import Broker
from amqpd.broker.effort import SLICE
from amqpd.broker.worklist import PIECE
from amqpd.server.commit_waiters import CommitWaiters
from amqpd.server.guard import guard
from amqpd.server.lost_clients import LostClient, LostClients
from amqpd.server.monotonic import now_ms
from amqpd.server.read_shares import Reader, ReadShares
from amqpd.server.wake_up import Timers, WakeUp
from amqpd.session.connection import Session
from amqpd.wire.contents import Intake


class Client(Reader, LostClient, Protocol):
    """A connection's socket; see server/connection.py."""

    def handshake_advanced(self) -> None:
        """The client has taken a step of the handshake."""

    def flush(self, now: int) -> None:
        """Write what the session has to say; then go on delivering, or close if that was all."""

    def looks_in_vain(self) -> int:
        """Return how often in a row this has been asked while the peer took nothing of what waits for it."""

    def acknowledged_ms_ago(self) -> int | None:
        """How long ago the peer's machine acknowledged anything; None if the peer has closed."""

    def drop(self) -> None:
        """End the connection now, whatever is still unsent."""


class Backlog(Protocol):
    """What waits for the disk; see server/backlog.py."""

    @property
    def is_full(self) -> bool:
        """Return whether more waits for the disk than should."""

    @property
    def is_overfull(self) -> bool:
        """Return whether so much more waits for the disk that not even those are read who send little."""

    @property
    def is_full_for_jobs(self) -> bool:
        """Return whether jobs should not be worked on until more has been written."""


class Commits(Protocol):
    """Who has batches written; see server/committer.py."""

    @property
    def backlog(self) -> Backlog:
        """What waits for the disk."""

    def tell_of_answers(self) -> None:
        """Call `LoopTurn.on_answered` if consumers have acked what publishers wait for."""

    def take(self) -> None:
        """Begin to write the batch that fills, unless one is being written."""


class Pages(Protocol):
    """Who reads what is paged out; see server/page_store.py."""

    def serve(self) -> None:
        """Let those read who wait for it, if nothing is being written."""


class InMemory:
    """What stands for a committer and a page store where everything is kept in memory: there is nothing to do."""

    is_full = is_overfull = is_full_for_jobs = False

    @property
    def backlog(self) -> Backlog:
        """See `Commits`: nothing waits."""
        return self

    def tell_of_answers(self) -> None:
        """See `Commits`."""

    def take(self) -> None:
        """See `Commits`."""

    def serve(self) -> None:
        """See `Pages`."""


class LoopTurn:
    """The end of the turn, and who is to be seen to at it. Its calls come from `timers`, the time from `clock`."""

    def __init__(self, broker: Broker, timers: Timers, clock: Callable[[], int] = now_ms) -> None:
        self.protocols: dict[Session, Client] = {}
        self.committer: Commits = InMemory()
        self.page_store: Pages = InMemory()
        self.alarm = ""         # see session/signals.py; changed by `set_alarm` alone
        self.intake = Intake()  # of all connections
        self.shares = ReadShares()
        self.now_ms = clock
        self.wake_up = WakeUp(broker, timers, clock, self.schedule)
        self._broker = broker
        self._timers = timers
        self._has_output: list[Session] = []
        self._waiters = CommitWaiters()
        self._advanced: list[Session] = []
        self._is_scheduled = False
        self._deferred: deque[Session] = deque()        # those that have had their share of a turn, in order
        self._has_passed_over = False                   # those, in the turn before
        self._unfinished: deque[Session] = deque()      # those whose command goes on like a job
        self._lost = LostClients(broker.effort)

    # The end of the turn

    def schedule(self) -> None:
        """Ask for the end of this turn to be seen to."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._timers.call_soon(self.end)

    def end(self) -> None:
        """Do all that is done once a turn, in this order.

        First comes what makes output, then the output, and the disk last, so that nobody waits for it who need not.
        The comment of each step says why it comes there.
        """
        self._is_scheduled = False
        self.tell_time()
        now = self._broker.clock.now_ms
        # Lost clients give back what they had, so it can be delivered by the steps that follow.
        if self._lost:
            self._lost.go_on()
        # Those that have waited for this turn come before jobs: what they cause may be a job, and is begun at once.
        self._go_on_with_deferred()
        # Jobs have what the clients have left of the turn, but always a slice. Dead letters join this turn's batch.
        if self._unfinished or not self._broker.worklist.is_empty:
            self._work()
        # Logins come after those that have logged in. They must be before the flush: it writes the answers.
        if self._advanced:
            self._go_on_with_handshakes()
        # Acks of this turn can confirm publishes that are not on disk: before the flush, so that it writes those too.
        self.committer.tell_of_answers()
        # All of the above has been said by now, so each connection has one write. It is before the batch is taken:
        # what need not wait for the disk does not, and what a flush makes room for is delivered into this batch.
        if self._has_output:
            self._flush(now)
        # Everything that can expire is known: what has been published, and what has not been delivered.
        self.wake_up.set(now)
        # After the flush, since what was delivered need not be paged out; before pages are read, which needs the room.
        self._broker.page_out()
        # The store can be read until a batch is taken; who waited goes on in the next turn.
        self.page_store.serve()
        # Last of all that records anything, so that the batch has all of this turn. It closes the store to reads.
        self.committer.take()
        # The batch that fills is new now, so it is known who may add to it in the next turn.
        self._read_again()
        # The budget of the next turn is whole from here on: its reads come before the next `end`.
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
        backlog = self.committer.backlog
        return has_clients and not backlog.is_full or has_jobs and not backlog.is_full_for_jobs

    def _go_on_with_deferred(self) -> None:
        """Let those go on who have waited longest, until the turn is spent; at least one has a slice.

        After reads that took very long nobody goes on before the next turn, so that two such pieces do not make one.
        """
        if not self._deferred:
            self._has_passed_over = False
            return
        effort = self._broker.effort
        self._has_passed_over = effort.turn_is_overspent and not self._has_passed_over
        if self.committer.backlog.is_full or self._has_passed_over:
            return
        for _ in range(len(self._deferred)):
            session = self._deferred.popleft()
            guard(session, session.go_on)
            if effort.turn_is_spent:
                break

    def _work(self) -> None:
        """Give the worklist its slice of this turn, unless so much waits for the disk that more would make all wait."""
        effort, worklist, backlog = self._broker.effort, self._broker.worklist, self.committer.backlog
        stop = effort.total + SLICE
        while effort.total < stop and not backlog.is_full_for_jobs:
            if self._unfinished:
                session = self._unfinished.popleft()
                guard(session, session.go_on)
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

    def _flush(self, now: int) -> None:
        """Write what the sessions have to say."""
        has_output, self._has_output = self._has_output, []
        for session in has_output:
            protocol = self.protocols.get(session)
            if protocol is not None:
                guard(session, protocol.flush, now)

    def _read_again(self) -> None:
        shares = self.shares
        shares.begin_turn()
        if shares.has_waiting and not self.committer.backlog.is_full:
            shares.resume(with_held=not self._broker.is_behind)

    # Signals of a session

    def output_ready(self, session: Session) -> None:
        """See session/signals.py."""
        self._has_output.append(session)
        self.schedule()

    def commit_awaited(self, session: Session) -> None:
        """See session/signals.py."""
        self._waiters.add(session)

    def handshake_advanced(self, session: Session) -> None:
        """See session/signals.py."""
        self._advanced.append(session)
        self.schedule()

    def input_deferred(self, session: Session) -> None:
        """See session/signals.py."""
        self._deferred.append(session)
        self.schedule()

    def command_unfinished(self, session: Session) -> None:
        """See session/signals.py."""
        self._unfinished.append(session)
        self.schedule()

    def input_drained(self, session: Session) -> None:
        """See session/signals.py."""
        protocol = self.protocols.get(session)
        if protocol is not None and not session.is_read:
            self.shares.rest(protocol)
            self.schedule()

    # Not said by a client

    def tell_time(self) -> None:
        """Let the broker know how late it is, before something happens that is not said by a client."""
        self._broker.clock.now_ms = self.now_ms()

    def begin(self) -> None:
        """Something happens that is not said by a client: tell the time, and see to what follows from it."""
        self.tell_time()
        self.schedule()

    def set_alarm(self, reason: str) -> None:
        """From now on nothing may be published, for this reason; with an empty one everything may be again."""
        self.alarm = reason
        if not reason:
            self.begin()
            for session in list(self.protocols):
                guard(session, session.blocking.ask_to_unblock)

    def lose(self, protocol: Client) -> None:
        """See to the end of this connection, whose socket is gone, in this turn unless it is spent."""
        self._lost.add(protocol)
        self.schedule()

    def forget(self, session: Session) -> None:
        """The session's socket is gone."""
        self.protocols.pop(session, None)
        self._waiters.remove(session)

    # Commits

    def on_commit(self, batch: int) -> None:
        """A batch is on disk: tell the sessions that wait for it, and send their confirms without another turn."""
        self._waiters.on_commit(batch)
        self._flush(self.now_ms())
        self.schedule()

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        """Tell sessions that wait for a commit that consumers have acked messages; see store/pending_confirms.py."""
        self._waiters.on_answered(first_pending)

    @property
    def is_awaiting(self) -> bool:
        """Whether any session waits for a commit."""
        return bool(self._waiters)
