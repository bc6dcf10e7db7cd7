"""One turn of the event loop: the output of all sessions is written once at its end, then a batch is taken.

Owns the list of sessions with output, and of those that have more to do. A session, a queue or the control socket may
cause output on any connection; all of it is written at the end of the turn, in one write for each connection.

`LoopTurn.end` has the order of what happens then, each step with its reason. It knows no event loop, no socket and no
thread: timers, the clock, the committer and the clients are passed in. So the tests of sessions
(`tests/support/talk.py`) use the same object as the server.

Always true between turns: no session is on the list, and a batch is being written if anything waits for one.
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
        """Note that the client has taken a step of the handshake."""

    def flush(self, now: int) -> None:
        """Write the session's output; then go on delivering, or close if it was the last."""

    def looks_in_vain(self) -> int:
        """Return how often in a row this was called while output waited for the client, and it took none of it."""

    def acknowledged_ms_ago(self) -> int | None:
        """Return how many ms ago the client's machine acknowledged anything; None if the client has closed."""

    def drop(self) -> None:
        """Close the connection now, with output unsent."""


class Backlog(Protocol):
    """What waits for the disk; see server/backlog.py."""

    @property
    def is_full(self) -> bool:
        """Return whether more waits for the disk than should."""

    @property
    def is_overfull(self) -> bool:
        """Return whether so much waits for the disk that even clients that send little are not read."""

    @property
    def is_full_for_jobs(self) -> bool:
        """Return whether jobs should pause until more has been written."""


class Commits(Protocol):
    """The committer, as the turn uses it; see server/committer.py."""

    @property
    def backlog(self) -> Backlog:
        """What waits for the disk."""

    def tell_of_answers(self) -> None:
        """Call `LoopTurn.on_answered` if consumers have acked messages that wait for their confirm."""

    def take(self) -> None:
        """Begin to write the current batch, unless another one is being written."""


class Pages(Protocol):
    """The reader of paged-out messages, as the turn uses it; see server/page_store.py."""

    def serve(self) -> None:
        """Call waiting readers, if nothing is being written."""


class InMemory:
    """Stand in for the committer and the page store of a broker that keeps everything in memory: do nothing."""

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
    """The end of a turn, and the sessions it has to handle. `timers` schedules its calls, `clock` tells the time."""

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
        self._deferred: deque[Session] = deque()        # sessions that have had their share of a turn, in order
        self._has_passed_over = False                   # they were skipped in the last turn
        self._jobs_have_filled = False                  # the backlog, and clients have not been read since
        self._unfinished: deque[Session] = deque()      # sessions whose command continues like a job
        self._lost = LostClients(broker.effort)

    # The end of the turn

    def schedule(self) -> None:
        """Schedule the end of this turn."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._timers.call_soon(self.end)

    def end(self) -> None:
        """Do everything that is done once in a turn, in this order.

        First what makes output, then the output, and the disk last, so that nothing waits for it without need. The
        comment of each step says why it comes there.
        """
        self._is_scheduled = False
        self.tell_time()
        now = self._broker.clock.now_ms
        # Lost clients give back their messages, which the following steps can deliver.
        if self._lost:
            self._lost.go_on()
        # Sessions that waited for this turn come before jobs: what they cause may be a job, which begins at once.
        self._go_on_with_deferred()
        # Jobs have what the clients have left of the turn, at least a slice. Dead letters join this turn's batch.
        if self._unfinished or not self._broker.worklist.is_empty:
            self._work()
        # Logins come after logged-in clients, and before the flush, which writes the answers.
        if self._advanced:
            self._go_on_with_handshakes()
        # Acks of this turn can confirm publishes that are not on disk: before the flush, which writes the confirms too.
        self.committer.tell_of_answers()
        # All output has been made, so each connection has one write. Before the batch is taken: output that need not
        # wait for the disk does not, and deliveries that the flush makes room for join this batch.
        if self._has_output:
            self._flush(now)
        # Everything that can expire is known: what has been published, and what has not been delivered.
        self.wake_up.set(now)
        # After the flush, since delivered messages need not be paged out; before pages are read, which needs the room.
        self._broker.page_out()
        # The store can be read until a batch is taken; waiting sessions go on in the next turn.
        self.page_store.serve()
        # After everything that records, so that the batch has all of this turn. It closes the store to reads.
        self.committer.take()
        # The current batch is new now, so it is known which clients may add to it in the next turn.
        self._read_again()
        # The budget of the next turn is full from here on: its reads come before the next `end`.
        self._broker.effort.begin_turn()
        if self._has_work:
            self.schedule()

    @property
    def _has_work(self) -> bool:
        """Return whether there is work that need not wait for the disk first."""
        if self._lost:
            return True
        has_jobs = bool(self._unfinished) or not self._broker.worklist.is_empty
        has_clients = bool(self._deferred) or self.shares.has_resting
        backlog = self.committer.backlog
        return has_clients and not backlog.is_full or has_jobs and not backlog.is_full_for_jobs

    def _go_on_with_deferred(self) -> None:
        """Let the sessions that have waited longest go on, until the turn is used up; at least one has a slice.

        After reads that took very long none goes on before the next turn, so that the turn does not become twice as
        long.
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
        """Give the worklist its slice of this turn, unless so much waits for the disk that all clients would wait.

        If clients could not be read because jobs had filled the backlog, clients go first once there is room. Otherwise
        jobs would fill it again before every read.
        """
        effort, worklist, backlog = self._broker.effort, self._broker.worklist, self.committer.backlog
        if self._jobs_have_filled and not backlog.is_full:
            self._jobs_have_filled = False
            if self.shares.has_waiting:
                return
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
            self._jobs_have_filled = backlog.is_full

    def work_on_new(self) -> None:
        """Let new jobs do their first slices, and move rejects: what is moved should join the batch of its cause."""
        worklist = self._broker.worklist
        if worklist.has_urgent:
            worklist.work_on_urgent()
        if worklist.has_new:
            self._broker.effort.begin()
            worklist.work_on_new()

    def _go_on_with_handshakes(self) -> None:
        advanced, self._advanced = self._advanced, []
        for session in advanced:
            protocol = self.protocols.get(session)
            if protocol is not None:
                protocol.handshake_advanced()

    def _flush(self, now: int) -> None:
        """Write the output of the sessions."""
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

    # Not caused by a client

    def tell_time(self) -> None:
        """Tell the broker the time, before something that is not caused by a client."""
        self._broker.clock.now_ms = self.now_ms()

    def begin(self) -> None:
        """Begin something that is not caused by a client: tell the time, and schedule the end of the turn."""
        self.tell_time()
        self.schedule()

    def set_alarm(self, reason: str) -> None:
        """Forbid publishing from now on, for this reason; an empty reason allows it again."""
        self.alarm = reason
        if not reason:
            self.begin()
            for session in list(self.protocols):
                guard(session, session.blocking.ask_to_unblock)

    def lose(self, protocol: Client) -> None:
        """End this connection, whose socket is lost, in this turn unless it is used up."""
        self._lost.add(protocol)
        self.schedule()

    def forget(self, session: Session) -> None:
        """Remove a session whose socket is lost."""
        self.protocols.pop(session, None)
        self._waiters.remove(session)

    # Commits

    def on_commit(self, batch: int) -> None:
        """Report a batch on disk to the waiting sessions, and send their confirms without another turn."""
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
