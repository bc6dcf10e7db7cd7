"""What a turn of the loop (`server/loop.py`) needs, without a socket, a thread or a real clock.

The turn is the server's own object. Here are the timers, which run when the test says so; the committer, whose batches
are written at once or when the test says so; the page store's turn; and the socket of one client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amqpd.server.loop import InMemory, LoopTurn
from amqpd.session.connection import Session
from tests.support.loops import FakeLoop, FakeTimer

if TYPE_CHECKING:
    from tests.support.page_stores import PageStoreInMemory
    from tests.support.talk import Stage


class StageTimers(FakeLoop):
    """Calls that are made once their time has come by the stage's clock."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__()
        self._clock = clock
        self._due_ms: list[tuple[float, FakeTimer]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> FakeTimer:
        """Keep it until its time has come."""
        timer = FakeTimer(delay_s, call)
        self._due_ms = [one for one in self._due_ms if not one[1].is_cancelled]
        self._due_ms.append((self._clock() + delay_s * 1000, timer))
        return timer

    def run_due(self) -> None:
        """Make the calls whose time has come."""
        now = self._clock()
        due = [timer for due_ms, timer in self._due_ms if due_ms <= now]
        self._due_ms = [one for one in self._due_ms if one[0] > now]
        for timer in due:
            if not timer.is_cancelled:
                timer.call()


class StageCommitter:
    """A committer that commits each batch at once, unless the stage lets commits wait."""

    def __init__(self, stage: Stage) -> None:
        self.backlog = InMemory()
        self._stage = stage

    def tell_of_answers(self) -> None:
        """See server/loop.py."""
        stage = self._stage
        if stage.journal.failure is None and stage.loop_turn.is_awaiting:
            pending = stage.journal.pending_confirms
            if pending.take_news():
                stage.loop_turn.on_answered(pending.first_pending)

    def take(self) -> None:
        """See server/loop.py."""
        stage = self._stage
        if self._cannot_write:
            return
        stage.loop_turn.work_on_new()
        if self._cannot_write or not stage.commits_at_once:
            return
        if not stage.journal.is_empty:
            stage.commit()
        elif stage.loop_turn.is_awaiting:
            stage.journal.nothing_waits()
            stage.loop_turn.on_commit(stage.journal.batch)

    @property
    def _cannot_write(self) -> bool:
        journal = self._stage.journal
        return journal.failure is not None or journal.hold.is_on


class StagePages:
    """Serves the readers of the page store; a reader that was served twice without success waits for a commit."""

    def __init__(self, page_store: PageStoreInMemory, turn: LoopTurn) -> None:
        self._page_store = page_store
        self._turn = turn
        self._in_vain = 0

    def serve(self) -> None:
        """See server/loop.py."""
        if self._in_vain == 2:
            return
        before = len(self._turn._deferred)
        self._page_store.serve()
        self._in_vain = self._in_vain + 1 if len(self._turn._deferred) > before else 0

    def begin(self) -> None:
        """Serve again the readers that were served without success: a batch is on disk, or the test does something."""
        self._in_vain = 0


class StageClient:
    """The socket of one client: it sends everything at once, unless the test says that it is full."""

    def __init__(self, stage: Stage, session: Session) -> None:
        self.session = session
        self.expected_steps = 0
        self.has_rested = False
        self._stage = stage

    def handshake_advanced(self) -> None:
        """See server/loop.py."""
        if self.session.login is not None:
            self._stage.want_in.append(self.session)
            self._stage.look_at_passwords()

    def flush(self, now: int) -> None:
        """See server/loop.py."""
        session = self.session
        was_full = session.state.room <= 0
        self._stage.talks[session].take(session.take_output(now))
        if session.state.is_writable and (was_full or session.receiver.waits_for_reader):
            session.resume()

    def resume_reading(self) -> None:
        """See server/read_shares.py."""
        self.session.is_read = True

    def end_session(self) -> None:
        """See server/loop.py."""
        self._stage.forget(self.session)

    def looks_in_vain(self) -> int:
        """See server/loop.py."""
        return 0

    def acknowledged_ms_ago(self) -> int | None:
        """See server/loop.py."""
        return 0

    def drop(self) -> None:
        """See server/loop.py."""
        self._stage.loop_turn.lose(self)
