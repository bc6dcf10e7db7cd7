"""How far a durable queue may hand out its messages, so that after a crash it is known which nobody had.

What lies up to the watermark counts as delivered before, should the process die. So a message is handed out only when
the watermark that covers it is on disk, or goes to disk in one batch with the message itself. It is asked for ahead, a
block at a time, so that deliveries seldom wait, and few messages are marked that nobody had. A block is a thousand
messages, and more of a queue that moves more than that between two commits.

Always true between calls: watermarks rise; whatever was handed out is covered by one that is recorded in the journal.
"""

from __future__ import annotations

from collections import deque

from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.ports import Journal, PageStore

BLOCK, LARGEST_BLOCK = 1_000, 64_000
ALL = 1 << 62


class DeliveryWatermark:
    """The watermark of one queue; `reached` is the number up to which it is on disk at start."""

    def __init__(self, definition: QueueDefinition, journal: Journal, page_store: PageStore) -> None:
        self._definition = definition
        self._journal = journal
        self._page_store = page_store
        self.block = BLOCK
        self._reached = self._asked = self._last_kept = 0
        self._pending: deque[tuple[int, int]] = deque()     # (batch, number) of watermarks that may not be on disk

    def restore(self, reached: int, last_kept: int) -> None:
        """What the store kept: a watermark, and messages up to a number."""
        self._reached = self._asked = reached
        self._last_kept = last_kept

    def published(self, number: int) -> None:
        """A message that is kept on disk has come; its number is the highest of those that are."""
        self._last_kept = number

    def bound(self, first: int) -> int:
        """Up to which number messages may be handed out now, if the next one has the number `first`; 0 for none."""
        if self._last_kept <= self._reached or first > self._page_store.taken_number:
            return ALL
        while self._pending and self._pending[0][0] <= self._page_store.committed_batch:
            self._reached = self._pending.popleft()[1]
        return self._reached if first <= self._reached else 0

    def wait(self, ahead: int) -> None:
        """The next message has to wait for its watermark, which is to reach up to the number `ahead`."""
        if self._pending:
            self.block = min(2 * self.block, LARGEST_BLOCK)     # it had been asked for, and that was too little
        self.ask(ahead)

    def handed_out(self, last: int) -> bool:
        """Messages up to the number `last` have been handed out; says whether more should be asked for."""
        return last > self._asked - self.block // 2 and self._last_kept > self._reached

    def ask(self, number: int) -> None:
        """Record that messages up to this number may be handed out."""
        if number > self._asked:
            self._asked = number
            self._pending.append((self._journal.watermark_raised(self._definition, number), number))
