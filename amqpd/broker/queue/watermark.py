"""The delivery watermark: the message number up to which a durable queue may deliver.

After a crash, every message up to the watermark on disk counts as delivered before. So a message is delivered only if a
watermark that covers it is on disk, or goes to disk in the same batch as the message. The queue raises the watermark
ahead of need, one block at a time: deliveries seldom wait, and few messages are marked that were not delivered. A block
is 1,000 messages, and grows for a queue that delivers more than that between two commits.

Always true between calls: watermarks rise; the journal has a watermark that covers every delivered message.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.ports import Journal, PageStore

BLOCK, LARGEST_BLOCK = 1_000, 64_000
ALL = 1 << 62


class _Watermark(NamedTuple):
    """A message number, and the journal's batch with which it is written."""

    batch: int
    number: int


class DeliveryWatermark:
    """The delivery watermark of one queue. Numbers are message numbers."""

    __slots__ = (
        "block", "_definition", "_journal", "_page_store", "_reached", "_asked", "_last_kept", "_pending")

    def __init__(self, definition: QueueDefinition, journal: Journal, page_store: PageStore) -> None:
        self._definition = definition
        self._journal = journal
        self._page_store = page_store
        self.block = BLOCK
        self._reached = self._asked = self._last_kept = 0
        self._pending: deque[_Watermark] = deque()      # watermarks that may not be on disk yet

    def restore(self, reached: int, last_kept: int) -> None:
        """Restore the stored watermark, and the highest message number."""
        self._reached = self._asked = reached
        self._last_kept = last_kept

    def published(self, number: int) -> None:
        """Note the number of a published message that is kept on disk; numbers rise."""
        self._last_kept = number

    def bound(self, first: int) -> int:
        """Return up to which number messages may be delivered, when `first` is next; 0 for none."""
        if self._last_kept <= self._reached or first > self._page_store.taken_number:
            return ALL
        while self._pending and self._pending[0].batch <= self._page_store.committed_batch:
            self._reached = self._pending.popleft().number
        return self._reached if first <= self._reached else 0

    def wait(self, ahead: int) -> None:
        """Raise the watermark to the number `ahead`, as the next message waits for that."""
        if self._pending:
            self.block = min(2 * self.block, LARGEST_BLOCK)     # it was already requested, and was too low
        self.ask(ahead)

    def handed_out(self, last: int) -> bool:
        """Note that messages up to `last` were delivered; return whether to raise the watermark."""
        return last > self._asked - self.block // 2 and self._last_kept > self._reached

    def ask(self, number: int) -> None:
        """Record that messages up to this number may be delivered."""
        if number > self._asked:
            self._asked = number
            self._pending.append(_Watermark(self._journal.watermark_raised(self._definition, number), number))
