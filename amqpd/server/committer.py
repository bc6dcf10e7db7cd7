"""Group commit: one thread writes a batch while the next one fills.

Owns the thread that writes the store while the broker runs; in between, the loop may read it. There is no timer: a
batch is taken whenever the thread is free and something is in it, so a lonely publish waits for one sync and a busy
broker syncs thousands of messages at once.

Large bodies are written before the messages that have them are recorded, a piece at a time. A piece and a batch have
their turn one after the other: so a large body does not hold up the confirms of others for longer than a piece takes.

Always true between calls: at most one batch, or one piece of a body, is in the thread's hands.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

import msgspec

from amqpd.server.loop import LoopTurn
from amqpd.server.page_store import DiskPageStore, not_counted
from amqpd.store.body_writes import BodyPiece
from amqpd.store.errors import StoreError, StoreFull
from amqpd.store.journal import Batch, Journal
from amqpd.store.port import BatchStore

COMMIT_S = 0.012
OVERFULL = 4                            # times as much, and nobody at all adds more
MOST_OF_JOBS = 250                      # beyond which jobs add no more: theirs take longer than publishes
ROW_SIZE = 100                          # bytes a change takes in the store, about
FILES_CHECKED_S = 0.5
SWEEP_S = 0.005                         # without a batch, before a piece of what is deleted leaves the store


class CommitLimits(msgspec.Struct, frozen=True):
    """How much may wait in a batch: as much as is written within `COMMIT_S`, but within these bounds; and for how long.

    A batch of more than `fewest_octets` is large. In `next_s` the loop has a batch ready if anybody waits for one, and
    after `idle_s` without a batch the store's file shrinks by a piece.
    """

    fewest: int = 500           # changes, publishes and settles
    most: int = 50_000
    fewest_octets: int = 2 << 20
    most_octets: int = 32 << 20
    next_s: float = 0.01
    idle_s: float = 0.1


LIMITS = CommitLimits()


def just_do(step: Callable[[], None]) -> None:
    """What is done about a full disk where nothing can be done."""
    step()


def _nothing() -> None:
    """There is no clock to be followed."""


Work = Batch | BodyPiece | Callable[[], None] | None     # None: the thread is to end


class _Ended(Exception):
    """The thread has nothing to do any more."""


class Committer:
    """Writes the journal's batches. `on_failure` hears, in the loop, of the one error there is no way past.

    `with_room` does what it is given, in the thread, and may do it again after a StoreFull; see store/ballast.py.
    `follow_clock` is called before each batch: what has to be known of the wall clock goes with it. `on_written` hears
    after each batch how many bytes it had about.
    """

    def __init__(
        self, journal: Journal, store: BatchStore, turn: LoopTurn, loop: asyncio.AbstractEventLoop,
        on_failure: Callable[[StoreError], None], page_store: DiskPageStore,
        with_room: Callable[[Callable[[], None]], None] = just_do, follow_clock: Callable[[], None] = _nothing,
        on_written: Callable[[int], None] = not_counted, limits: CommitLimits = LIMITS,
    ) -> None:
        self._journal = journal
        self._page_store = page_store
        self._store = store
        self._turn = turn
        self._loop = loop
        self._on_failure = on_failure
        self._with_room = with_room
        self._follow_clock = follow_clock
        self._on_written = on_written
        self._is_busy = self._is_told = False
        self._was_piece = False                 # what was written last
        self._committed_number = 0
        self._limits = limits
        self._most, self._most_octets = limits.most // 4, limits.most_octets // 4
        self._taken_at = 0.0                    # of the loop's clock, when the batch was taken that is being written
        self._taken_count = self._taken_weight = 0
        self._one_more = asyncio.Event()
        self._work: SimpleQueue[Work] = SimpleQueue()
        self._thread = threading.Thread(target=self._commit_forever, name="amqpd-store", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Return whether publishers should not be read, and deferred clients not go on, until more has been written."""
        filling = self._journal.filling
        return filling.count > self._most or filling.weight > self._most_octets

    @property
    def is_overfull(self) -> bool:
        """Return whether not even those should be read who send little."""
        filling = self._journal.filling
        return filling.count > OVERFULL * self._most or filling.weight > OVERFULL * self._most_octets

    @property
    def is_full_for_jobs(self) -> bool:
        """Return whether jobs should not be worked on until more has been written.

        While a job keeps the batch, nothing is written before it is done, so all jobs go on.
        """
        if self._journal.hold.is_on:
            return False
        return self._journal.filling.count > MOST_OF_JOBS or self.is_full

    def _measure(self, seconds: float) -> None:
        """Learn from a commit how much may wait, so that nobody's confirm waits long for what others do."""
        limits = self._limits
        share = COMMIT_S / max(seconds, 0.001)
        if self._taken_count > limits.fewest // 2:
            most = (self._most + share * self._taken_count) / 2
            self._most = int(min(limits.most, max(limits.fewest, most)))
        if self._taken_weight > limits.fewest_octets // 2:
            octets = (self._most_octets + share * self._taken_weight) / 2
            self._most_octets = int(min(limits.most_octets, max(limits.fewest_octets, octets)))

    def take(self) -> None:
        """Give the filling batch to the thread, if that is free and there is something in it, or a piece of a body.

        New jobs of the worklist do their first pieces before: a death is then mostly moved in the batch of its cause.
        A batch out of which everything was settled again needs no writing: it counts as committed.
        """
        if self._has_failed() or self._is_busy:
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
        self._page_store.close()
        self._taken_at = self._loop.time()
        self._taken_count, self._taken_weight = filling.count, filling.weight
        self._work.put(self._journal.take())

    def _take_piece(self) -> bool:
        """Give a piece of a large body to the thread, if there is any; return whether there was."""
        bodies = self._journal.bodies
        if bodies.is_empty:
            return False
        if not self.check_files():
            return True
        piece = bodies.next_piece()
        assert piece is not None
        self._is_busy = self._was_piece = True
        self._page_store.is_body_written = True
        self._work.put(piece)
        return True

    def _has_failed(self) -> bool:
        """Return whether the journal has failed: then the broker fails and stops, with what was written before."""
        error = self._journal.failure
        if error is None:
            return False
        if not self._is_told:
            self._is_told = True
            self._on_failure(self._store.fail_by_mistake(error))
        return True

    def check_files(self) -> bool:
        """Return whether the store's files are still where they were opened; if not, the broker fails and stops.

        This is done in the loop while its thread does nothing: there each look would wait for the interpreter.
        """
        try:
            self._store.check_files()
        except StoreError as error:
            self._is_busy = True        # for ever: nothing more is written
            self._on_failure(error)
            return False
        return True

    async def watch_files_forever(self) -> None:
        """Look at the store's files all the time, so that it is noticed as well while nothing is written."""
        while self.check_files():
            await asyncio.sleep(FILES_CHECKED_S)

    def tell_of_answers(self) -> None:
        """Have messages confirmed that are not on disk, if consumers have acked them in every queue."""
        if self._journal.failure is None and self._turn.is_awaiting:
            pending = self._journal.pending_confirms
            if pending.take_news():
                self._turn.on_answered(pending.first_pending)

    async def wait_committed(self) -> None:
        """Return once all that has been recorded so far is on disk."""
        self.take()
        awaited = self._journal.filling.number
        while (self._is_busy or self._journal.hold.is_on or not self._journal.filling.is_empty
               or self._journal.failure is not None):
            if self._committed_number >= awaited:
                return
            self._one_more.clear()
            await self._one_more.wait()

    async def stop(self) -> None:
        """Commit what is there and end the thread."""
        await self.wait_committed()
        await self.end()

    async def end(self) -> None:
        """End the thread after what it is doing; twice is fine."""
        self._work.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def run_between(self, job: Callable[[Callable[[], None]], None]) -> None:
        """Run a long job in the store's thread. What it is called with it calls often: batches that wait are written.

        Raises what the job raises; StoreError if the thread ends before.
        """
        done: Future[None] = Future()
        self._work.put(partial(self._run, job, done))
        await asyncio.wrap_future(done)

    def _commit_forever(self) -> None:
        try:
            while True:
                self._do(self._next())
        except _Ended:
            pass
        except Exception as error:      # a mistake of ours: nobody would ever be confirmed again
            self._tell(self._on_failure, self._store.fail_by_mistake(error))

    def _next(self) -> Work:
        """What is to be done next. While there is nothing, the store is tidied up if it can be, a piece at a time."""
        wait_s: float | None = SWEEP_S
        while True:
            try:
                return self._work.get(timeout=wait_s)
            except Empty:
                if self._store.has_to_sweep:
                    self._tidy(self._store.sweep)
                elif wait_s == SWEEP_S:
                    wait_s = self._limits.idle_s
                else:
                    wait_s = self._limits.idle_s if self._tidy(self._store.shrink) else None

    def _tidy(self, piece: Callable[[], bool]) -> bool:
        """Tidy up a piece of the store; says whether there is more of that."""
        self._page_store.is_in_use = True
        try:
            return piece()
        except StoreFull:
            return False        # there will be another time
        except StoreError as error:
            self._tell(self._on_failure, error)
            raise _Ended from error
        finally:
            self._page_store.is_in_use = False
            self._tell(self._page_store.serve)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        """Say something in the loop; where that has ended, a start that failed, nobody is left to hear it."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _do(self, work: Work) -> None:
        if work is None:
            raise _Ended
        if isinstance(work, BodyPiece):
            return self._write_piece(work)
        if callable(work):
            return work()
        if not self._commit(work):
            return
        behind = self._commit_small_next() if self._store.is_checkpoint_long else []
        self._tidy(self._checkpoint)    # what is in the log is safe there, so nobody need wait for this
        for work in behind:
            self._do(work)

    def _write_piece(self, piece: BodyPiece) -> None:
        """Write a piece of a large body, and the log back if that is due, and say so in the loop."""
        try:
            self._with_room(partial(self._store.write_body, piece))
            self._with_room(self._store.checkpoint_if_due)
        except StoreError as error:
            self._tell(self._on_failure, error)
            raise _Ended from error
        self._tell(self._piece_written, piece)

    def _commit(self, batch: Batch) -> bool:
        """Write a batch, and say so in the loop; return whether the log is to be written back."""
        try:
            self._with_room(partial(self._store.commit, batch))
            is_due = self._store.is_checkpoint_due()
        except StoreError as error:
            self._tell(self._on_failure, error)
            raise _Ended from error
        self._page_store.is_in_use = is_due      # before the loop hears that the batch is written, and reads
        self._tell(self._committed, batch.number)
        return is_due

    def _commit_small_next(self) -> list[Work]:
        """Write the next batch if it is small: its clients have waited for a large one. Return what has to wait."""
        try:
            work = self._work.get(timeout=self._limits.next_s)
        except Empty:
            return []
        if isinstance(work, Batch) and work.weight <= self._limits.fewest_octets:
            self._commit(work)
            return []
        return [work]

    def _checkpoint(self) -> bool:
        self._with_room(self._store.checkpoint_if_due)
        return False

    def _run(self, job: Callable[[Callable[[], None]], None], done: Future[None]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            job(self._do_what_waits)
        except _Ended:
            done.set_exception(StoreError("the broker stops: try again when it is back"))
            raise
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def _do_what_waits(self) -> None:
        with suppress(Empty):
            while True:
                self._do(self._work.get_nowait())

    def _piece_written(self, piece: BodyPiece) -> None:
        if not self.check_files():
            return
        self._is_busy = self._page_store.is_body_written = False
        piece.end()
        self._on_written(piece.size)
        self._one_more.set()
        self._page_store.serve()
        self.take()

    def _committed(self, number: int) -> None:
        if not self.check_files():      # what was written into a file that is deleted was written for nobody
            return
        self._is_busy = False
        self._committed_number = number
        self._measure(self._loop.time() - self._taken_at)
        self._on_written(self._taken_weight + ROW_SIZE * self._taken_count)
        self._journal.pending_confirms.committed()
        self._one_more.set()
        self._turn.on_commit(number)
        self._page_store.open(number)
        self.take()
