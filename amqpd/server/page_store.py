"""The page store: contents of waiting messages, read from the store between two commits, and from spill files.

Owns who waits for it, and the thread that writes spill files. The store is used by one thread at a time: the
committer's while it writes a batch, the loop's in between. So a read never stands in the way of a commit, and no row
that is read has to fight for the interpreter with a busy loop.

Always true between calls: when the page store opens, it calls every reader that asked for it, a few in a turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from amqpd.broker.broker import Broker
from amqpd.broker.ports import Reader
from amqpd.broker.queue.pages import OnDisk, Page
from amqpd.broker.queue.segment import Budget, number_of
from amqpd.message import Message
from amqpd.store.errors import StoreError
from amqpd.store.spill import Spill, SpillFile
from amqpd.store.sqlite.store import Store

RETRY_S = 1.0
REWRITE_S = 1.0     # after most of a file is wanted no more, before it is rewritten
TURN_S = 0.004

log = logging.getLogger("amqpd")


class DiskPageStore:
    """See `broker/ports.py`. `on_failure` hears of a store that cannot be read any more.

    `turn_s` is how long it is read before the rest of the loop has its turn.
    """

    def __init__(
        self, store: Store, spill: Spill, budget: Budget, on_failure: Callable[[StoreError], None],
        turn_s: float = TURN_S,
    ) -> None:
        self.budget = budget
        self.safe_number = self.taken_number = self.committed_batch = 0
        self.is_in_use = False      # by the committer's thread, for something that is no commit
        self.is_body_written = False        # a piece of a large one
        self._is_closed = False
        self.schedule: Callable[[], None] = _nothing
        self._store = store
        self._spill = spill
        self._on_failure = on_failure
        self._turn_s = turn_s
        self._called: deque[Reader] = deque()
        self._numbers: Callable[[], int] = _zero
        self._has_disk: Callable[[], bool] = bool
        self._spills_from = 0.0     # of the monotonic clock: when to try again after a disk was full
        self._writer = ThreadPoolExecutor(1, "amqpd-spill")
        self._has_ended = False
        self.rewrite_s = REWRITE_S
        self.on_written: Callable[[int], None] = not_counted        # hears how many bytes a spill file has
        spill.on_sparse = self._note_sparse

    def begin(self, broker: Broker, schedule: Callable[[], None], has_disk: Callable[[], bool]) -> None:
        """Serve this broker from now on; `schedule` asks for `serve` to be called soon.

        `has_disk` says whether there is room on the disk: what was freed for the store is not for spill files.
        """
        self.schedule = schedule
        self._has_disk = has_disk
        self._numbers = lambda: broker.next_message_number - 1
        # Not with what was published while the store was read: that is to be written yet.
        self.safe_number = self.taken_number = self._store.first_number - 1

    @property
    def is_open(self) -> bool:
        """See `broker/ports.py`."""
        return not (self._is_closed or self.is_in_use or self.is_body_written)

    @property
    def can_spill(self) -> bool:
        """See `broker/ports.py`: not while there is a disk alarm, nor for a while after a disk was full."""
        return self._has_disk() and time.monotonic() >= self._spills_from

    # Open and closed

    def close(self) -> None:
        """The store is going to be written, with all that has been published up to now."""
        self._is_closed = True
        self.taken_number = self._numbers()

    def open(self, batch: int) -> None:
        """It has been written, up to this batch."""
        self._is_closed = False
        self.safe_number = self.taken_number
        self.committed_batch = batch
        self.serve()

    def call(self, reader: Reader) -> None:
        """See `broker/ports.py`."""
        self._called.append(reader)
        self.schedule()

    def serve(self) -> None:
        """Let those read who wait for it, as far as there is time in this turn."""
        if not self.is_open or not self._called:
            return
        end = time.monotonic() + self._turn_s
        for _ in range(len(self._called)):
            try:
                self._called.popleft().read_on()
            except Exception:
                log.exception("internal error while messages were read")
            if time.monotonic() > end:
                break
        if self._called:
            self.schedule()

    # Contents

    def fetch(self, on_disk: OnDisk) -> list[Message]:
        """See `broker/ports.py`."""
        spill_file, stored = on_disk.spill_file, on_disk.stored
        try:
            found = self._store.fetch(stored)
            if isinstance(spill_file, SpillFile) and len(stored) < len(on_disk.numbers):     # else it may be gone
                wanted = {*on_disk.numbers}
                found += [message for message in spill_file.read() if message.number in wanted]
                found.sort(key=number_of)
        except StoreError as error:
            # Whoever asked takes what is missing for damaged, and settles it: no batch with that may be written.
            self._store.fail(error)
            self._on_failure(error)
            return []
        return found

    def spill(self, page: Page, run: Sequence[Message]) -> None:
        """See `broker/ports.py`. A page that cannot be written down stays in memory."""
        loop = asyncio.get_running_loop()

        def written(future: Future[SpillFile]) -> None:
            loop.call_soon_threadsafe(self._spilled, page, future)

        self._writer.submit(self._spill.write, list(run)).add_done_callback(written)

    def _spilled(self, page: Page, future: Future[SpillFile]) -> None:
        error = future.exception()
        if error is None:
            spill_file = future.result()
            page.let_go(self.budget, spill_file)
            self.on_written(spill_file.size)
            return
        page.stay(self.budget)
        if self.can_spill:
            log.error("messages stay in memory: %s", error)
        self._spills_from = time.monotonic() + RETRY_S

    def _note_sparse(self, spill_file: SpillFile) -> None:
        """Rewrite a spill file soon, most of which is not needed any more; the rest may not be needed soon either."""
        asyncio.get_running_loop().call_later(self.rewrite_s, self._rewrite, spill_file)

    def _rewrite(self, spill_file: SpillFile) -> None:
        if self._has_ended or not spill_file.has_messages:
            return
        loop = asyncio.get_running_loop()

        def written(future: Future[tuple[Path, int]]) -> None:
            if not future.cancelled() and future.exception() is None:       # else it stays as it is
                loop.call_soon_threadsafe(spill_file.move_to, *future.result())

        self._writer.submit(self._spill.rewrite, spill_file).add_done_callback(written)

    def end(self) -> None:
        """The broker stops: nothing more is written down, and what was is of no use to the next run."""
        self._has_ended = True
        self._writer.shutdown(cancel_futures=True)
        self._spill.clear()


def _nothing() -> None:
    """Nobody is there yet to be served."""


def not_counted(size: int) -> None:
    """Nobody watches the disk."""


def _zero() -> int:
    return 0
