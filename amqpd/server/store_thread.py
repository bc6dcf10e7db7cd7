"""The thread that writes the store while the broker runs.

It carries out batches, pieces of large bodies and long jobs one after the other, and reports them in the loop. While it
is idle, it does maintenance of the store, a piece at a time. It tells the page store when the loop may read the store.

Always true: the store is written by this thread alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from amqpd.server.backlog import CommitLimits
from amqpd.server.page_store import DiskPageStore
from amqpd.store.batch import Batch
from amqpd.store.body_writes import BodyPiece
from amqpd.store.errors import StoreError, StoreFull
from amqpd.store.port import BatchStore

SWEEP_S = 0.005                         # without a batch, before a piece of deleted data is removed from the store

Work = Batch | BodyPiece | Callable[[], None] | None     # None: the thread is to end
WithRoom = Callable[[Callable[[], None]], None]


class _Ended(Exception):
    """The thread has ended."""


class StoreThread:
    """Writes batches and pieces of bodies. `committed` is called, in the loop, with the number of each batch on disk.

    `piece_written` is called after each piece of a body, and `on_failure` when the store has failed. `with_room` calls
    its argument, and may call it again after a StoreFull; see store/ballast.py.
    """

    def __init__(
        self, store: BatchStore, page_store: DiskPageStore, loop: asyncio.AbstractEventLoop, with_room: WithRoom,
        on_failure: Callable[[StoreError], None], committed: Callable[[int], None],
        piece_written: Callable[[BodyPiece], None], limits: CommitLimits,
    ) -> None:
        self._store = store
        self._page_store = page_store
        self._loop = loop
        self._with_room = with_room
        self._on_failure = on_failure
        self._committed = committed
        self._piece_written = piece_written
        self._limits = limits
        self._work: SimpleQueue[Work] = SimpleQueue()
        self._thread = threading.Thread(target=self._work_forever, name="amqpd-store", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, work: Batch | BodyPiece) -> None:
        """Write this next, after the current work of the thread."""
        self._work.put(work)

    async def end(self) -> None:
        """End the thread after its current work; a second call does nothing."""
        self._work.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def run_between(self, job: Callable[[Callable[[], None]], None]) -> None:
        """Run a long job in the store's thread. It often calls its argument, which writes waiting batches.

        Raises what the job raises; StoreError if the thread ends before.
        """
        done: Future[None] = Future()
        self._work.put(partial(self._run, job, done))
        await asyncio.wrap_future(done)

    def _work_forever(self) -> None:
        try:
            while True:
                self._do(self._next())
        except _Ended:
            pass
        except Exception as error:      # an internal error: nothing would ever be confirmed again
            self._tell(self._on_failure, self._store.fail_by_mistake(error))

    def _next(self) -> Work:
        """Return the next work. While there is none, do maintenance of the store, a piece at a time."""
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
        """Do a piece of maintenance; return whether there is more."""
        self._page_store.is_in_use = True
        try:
            return piece()
        except StoreFull:
            return False        # it will be tried again
        except StoreError as error:
            self._tell(self._on_failure, error)
            raise _Ended from error
        finally:
            self._page_store.is_in_use = False
            self._tell(self._page_store.serve)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call this in the loop; if the loop has ended, after a failed start, do nothing."""
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
        self._tidy(self._checkpoint)    # data in the WAL is safe, so nothing need wait for this
        for work in behind:
            self._do(work)

    def _write_piece(self, piece: BodyPiece) -> None:
        """Write a piece of a large body, and a checkpoint if that is due; report it in the loop."""
        try:
            self._with_room(partial(self._store.write_body, piece))
            self._with_room(self._store.checkpoint_if_due)
        except StoreError as error:
            self._tell(self._on_failure, error)
            raise _Ended from error
        self._tell(self._piece_written, piece)

    def _commit(self, batch: Batch) -> bool:
        """Write a batch, and report it in the loop; return whether a checkpoint is due."""
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
        """Write the next batch if it is small: its clients waited for a large one. Return the work that has to wait."""
        try:
            work = self._work.get(timeout=self._limits.next_s)
        except Empty:
            return []
        if isinstance(work, Batch) and work.weight <= self._limits.fewest_bytes:
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
