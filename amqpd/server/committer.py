"""Group commit: one thread writes a batch while the next one fills.

Decides when a batch is taken, and reports it once it is on disk. `server/store_thread.py` writes it; between batches,
the loop may read the store. There is no timer: a batch is taken whenever the thread is free and the batch is not empty,
so a single publish waits for one sync and a busy broker syncs thousands of messages at once.

Large bodies are written in pieces before their messages are recorded. Pieces and batches take turns, so that a large
body delays the confirms of others only by the time of a piece.

Always true between calls: the thread has at most one batch, or one piece of a body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from amqpd.broker.measures import Measures
from amqpd.server.backlog import LIMITS, Backlog, CommitLimits
from amqpd.server.loop import LoopTurn
from amqpd.server.page_store import DiskPageStore, not_counted
from amqpd.server.store_thread import StoreThread, WithRoom
from amqpd.store.body_writes import BodyPiece
from amqpd.store.errors import StoreError
from amqpd.store.journal import Journal
from amqpd.store.port import BatchStore

FILES_CHECKED_S = 0.5


def just_do(step: Callable[[], None]) -> None:
    """Do the step, without a remedy for a full disk."""
    step()


def _nothing() -> None:
    """Do nothing: there is no clock to follow."""


class Committer:
    """Has the journal's batches written by `thread`; `backlog` tells whether too much waits for that.

    `on_failure` is called, in the loop, when the store has failed. `with_room` calls its argument, in the thread, and
    may call it again after a StoreFull; see store/ballast.py. `follow_clock` is called before each batch, so that a
    change of the wall clock is stored with it. `on_written` is called after each batch with its size in bytes, about.
    """

    def __init__(
        self, journal: Journal, store: BatchStore, turn: LoopTurn, loop: asyncio.AbstractEventLoop,
        on_failure: Callable[[StoreError], None], page_store: DiskPageStore,
        with_room: WithRoom = just_do, follow_clock: Callable[[], None] = _nothing,
        on_written: Callable[[int], None] = not_counted, limits: CommitLimits = LIMITS,
        measures: Measures | None = None,
    ) -> None:
        self._journal = journal
        self._page_store = page_store
        self._store = store
        self._measures = measures = measures or Measures()
        self._with_room = with_room
        self.backlog = Backlog(journal, limits, measures)
        self._turn = turn
        self._loop = loop
        self._on_failure = on_failure
        self._follow_clock = follow_clock
        self._on_written = on_written
        self._is_busy = self._is_told = False
        self._is_ending = False                 # the thread is given nothing more
        self._was_piece = False                 # what was written last
        self._committed_number = 0
        self._one_more = asyncio.Event()
        self.thread = StoreThread(
            store, page_store, loop, with_room, on_failure, self._committed, self._piece_written, limits)

    def take(self) -> None:
        """Give the current batch to the thread, if the thread is free and the batch is not empty, or a piece of a body.

        New jobs of the worklist do their first slices before: so a dead letter is mostly moved in the batch of its
        cause. A batch in which everything has been settled again is not written: it counts as committed.
        """
        if self._has_failed() or self._is_busy or self._is_ending:
            return
        if not self._was_piece and self._take_piece():
            return
        self._was_piece = False
        if self._journal.hold.is_on:
            self._take_piece()
            return
        self._turn.work_on_new()
        if self._has_failed():
            return
        filling = self._journal.filling
        if filling.is_empty:
            self._journal.nothing_waits()
            self._one_more.set()
            if self._turn.is_awaiting:
                self._turn.on_commit(filling.number)
            self._take_piece()
            return
        if not self.check_files():
            return
        self._follow_clock()
        self._is_busy = True
        self._page_store.close(self._journal.first_deferred)
        self.backlog.taken(self._loop.time())
        self.thread.put(self._journal.take())

    def _take_piece(self) -> bool:
        """Give a piece of a large body to the thread, if there is one; return whether there was."""
        bodies = self._journal.bodies
        if bodies.is_empty:
            return False
        if not self.check_files():
            return True
        piece = bodies.next_piece()
        assert piece is not None
        self._is_busy = self._was_piece = True
        self._page_store.is_body_written = True
        self.thread.put(piece)
        return True

    def _has_failed(self) -> bool:
        """Return whether the journal has failed: then the broker stops, with what was written before."""
        error = self._journal.failure
        if error is None:
            return False
        if not self._is_told:
            self._is_told = True
            self._on_failure(self._store.fail_by_mistake(error))
        return True

    def check_files(self) -> bool:
        """Return whether the store's files are still where they were opened; if not, the broker fails and stops.

        This is done in the loop while the thread is idle: the thread would have to wait for the interpreter.
        """
        try:
            self._store.check_files()
        except StoreError as error:
            self._is_busy = True        # for ever: nothing more is written
            self._on_failure(error)
            return False
        return True

    async def watch_files_forever(self) -> None:
        """Check the store's files all the time, so that a missing file is noticed even while nothing is written."""
        while self.check_files():
            await asyncio.sleep(FILES_CHECKED_S)

    def tell_of_answers(self) -> None:
        """Confirm early the messages that consumers have acked in every queue."""
        if self._journal.failure is None and self._turn.is_awaiting:
            pending = self._journal.pending_confirms
            if pending.take_news():
                self._turn.on_answered(pending.first_pending)

    async def wait_committed(self) -> None:
        """Return once everything recorded so far is on disk."""
        self.take()
        journal = self._journal
        awaited = journal.filling.number
        is_deferred = False         # whether there were records that had not joined a batch
        while (self._is_busy or journal.hold.is_on or journal.deferral.is_open or not journal.filling.is_empty
               or journal.failure is not None):
            if is_deferred and not journal.deferral.is_open:
                awaited = journal.filling.number
            is_deferred = journal.deferral.is_open
            if self._committed_number >= awaited and not is_deferred:
                return
            self._one_more.clear()
            await self._one_more.wait()

    async def stop(self) -> None:
        """Commit what has been recorded up to now, and end the thread.

        Jobs go on recording meanwhile: `commit_rest` is to be called before the store is closed.
        """
        await self.wait_committed()
        self._is_ending = True
        await self.thread.end()
        while self._journal.hold.is_on:
            await asyncio.sleep(0)

    def commit_rest(self) -> None:
        """Commit in the loop what was recorded while the thread ended. Raises StoreError.

        The store must be closed without a turn of the loop after this: what the queues know in memory then agrees with
        the store. It would not if a batch were left out: a message that has left its queue in that batch is in its
        queue again after the start, but the queue has forgotten that it was delivered.
        """
        if self._has_failed() or self._journal.filling.is_empty:
            return
        self._follow_clock()
        self._page_store.close()
        self._with_room(partial(self._store.commit, self._journal.take()))

    def _piece_written(self, piece: BodyPiece) -> None:
        if not self.check_files():
            return
        self._is_busy = self._page_store.is_body_written = False
        piece.end()
        self._measures.wrote_piece(piece.size)
        self._on_written(piece.size)
        self._one_more.set()
        self._page_store.serve()
        self.take()

    def _committed(self, number: int) -> None:
        if not self.check_files():      # if a file is deleted, the batch has not been kept
            return
        self._is_busy = False
        self._committed_number = number
        self._on_written(self.backlog.written(self._loop.time()))
        self._journal.pending_confirms.committed()
        self._one_more.set()
        self._turn.on_commit(number)
        self._page_store.open(number)
        self.take()
