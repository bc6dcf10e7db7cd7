"""The page store: read the contents of paged-out messages from the store between commits, and from spill files.

Owns the queue of waiting readers, and the thread that writes spill files. The store is used by one thread at a time: by
the committer's while it writes a batch, by the loop's in between. So a read never delays a commit, and reading does not
compete with a busy loop for the interpreter.

Always true between calls: when the page store opens, it calls every waiting reader, a few in each turn.
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
from amqpd.broker.measures import Measures
from amqpd.broker.ports import Reader
from amqpd.broker.queue.pages import OnDisk, Page
from amqpd.broker.queue.segment import Budget, number_of
from amqpd.message import Message
from amqpd.store.errors import StoreError
from amqpd.store.port import MessageSource
from amqpd.store.spill import Spill, SpillFile

RETRY_S = 1.0
REWRITE_S = 1.0     # after most of a file is no longer needed, before it is rewritten
TURN_S = 0.004

log = logging.getLogger("amqpd")


class DiskPageStore:
    """The reader of paged-out messages, see `broker/ports.py`. `on_failure` is called if the store cannot be read.

    `turn_s` is how long it reads in a turn before the rest of the loop continues.
    """

    def __init__(
        self, store: MessageSource, spill: Spill, budget: Budget, on_failure: Callable[[StoreError], None],
        turn_s: float = TURN_S,
    ) -> None:
        self.budget = budget
        self.safe_number = self.taken_number = self.committed_batch = 0
        self.is_in_use = False      # by the committer's thread, for other work than a commit
        self.is_body_written = False        # whether that is a piece of a large body
        self._will_be_safe = 0
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
        self.measures = Measures()
        self.on_written: Callable[[int], None] = not_counted        # called with the bytes written to a spill file
        spill.on_sparse = self._note_sparse

    def begin(self, broker: Broker, schedule: Callable[[], None], has_disk: Callable[[], bool]) -> None:
        """Serve this broker from now on; `schedule` asks for a call of `serve`.

        `has_disk` tells whether the disk has room: space that was freed for the store is not for spill files.
        """
        self.schedule = schedule
        self._has_disk = has_disk
        self._numbers = lambda: broker.next_message_number - 1
        # Messages that were published while the store was read are not written yet.
        self.safe_number = self.taken_number = self._store.first_number - 1

    @property
    def is_open(self) -> bool:
        """See `broker/ports.py`."""
        return not (self._is_closed or self.is_in_use or self.is_body_written)

    @property
    def can_spill(self) -> bool:
        """See `broker/ports.py`. False during a disk alarm, and for a while after the disk was full."""
        return self._has_disk() and time.monotonic() >= self._spills_from

    # Opened and closed

    def close(self, first_deferred: int | None = None) -> None:
        """Close for reads: the store is about to write everything that has been published up to now.

        Messages from the number `first_deferred` on may not be written yet.
        """
        self._is_closed = True
        self.taken_number = self._will_be_safe = self._numbers()
        if first_deferred is not None:
            self._will_be_safe = first_deferred - 1

    def open(self, batch: int) -> None:
        """Open for reads: the store has been written, up to this batch."""
        self._is_closed = False
        self.safe_number = self._will_be_safe
        self.committed_batch = batch
        self.serve()

    def call(self, reader: Reader) -> None:
        """See `broker/ports.py`."""
        self._called.append(reader)
        self.schedule()

    def serve(self) -> None:
        """Call waiting readers, as far as there is time in this turn."""
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
            if isinstance(spill_file, SpillFile) and len(stored) < len(on_disk.numbers):     # else it may be settled
                wanted = {*on_disk.numbers}
                found += [message for message in spill_file.read() if message.number in wanted]
                found.sort(key=number_of)
        except StoreError as error:
            # The caller treats missing messages as damaged and settles them: no batch with that may be written.
            self._store.fail(error)
            self._on_failure(error)
            return []
        self.measures.read_messages += len(found)
        self.measures.read_bytes += sum([message.body_size for message in found])
        return found

    def spill(self, page: Page, run: Sequence[Message]) -> None:
        """See `broker/ports.py`. A page that cannot be written stays in memory."""
        loop = asyncio.get_running_loop()

        def written(future: Future[SpillFile]) -> None:
            loop.call_soon_threadsafe(self._spilled, page, future)

        self._writer.submit(self._spill.write, list(run)).add_done_callback(written)

    def _spilled(self, page: Page, future: Future[SpillFile]) -> None:
        error = future.exception()
        if error is None:
            spill_file = future.result()
            page.let_go(self.budget, spill_file)
            self.measures.spilled_bytes += spill_file.size
            self.on_written(spill_file.size)
            return
        page.stay(self.budget)
        if self.can_spill:
            log.error("messages stay in memory: %s", error)
        self._spills_from = time.monotonic() + RETRY_S

    def _note_sparse(self, spill_file: SpillFile) -> None:
        """Rewrite a spill file later, most of which is no longer needed; the rest may soon be unneeded too."""
        asyncio.get_running_loop().call_later(self.rewrite_s, self._rewrite, spill_file)

    def _rewrite(self, spill_file: SpillFile) -> None:
        if self._has_ended or not spill_file.has_messages:
            return
        loop = asyncio.get_running_loop()

        def written(future: Future[tuple[Path, int]]) -> None:
            if not future.cancelled() and future.exception() is None:       # on an error the file stays as it is
                loop.call_soon_threadsafe(spill_file.move_to, *future.result())

        self._writer.submit(self._spill.rewrite, spill_file).add_done_callback(written)

    def end(self) -> None:
        """Stop: write no more spill files. The existing ones are of no use to the next run."""
        self._has_ended = True
        self._writer.shutdown(cancel_futures=True)
        self._spill.clear()


def _nothing() -> None:
    """Do nothing: there is no broker to serve yet."""


def not_counted(size: int) -> None:
    """Do nothing: no alarm watches the disk."""


def _zero() -> int:
    return 0
