"""A page store for tests: the test decides what it reads and when it is open; spill files are in memory."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from amqpd.broker.ports import Reader
from amqpd.broker.queue.page_limits import PAGE_LIMITS, PageLimits
from amqpd.broker.queue.pages import NO_EXPIRY, OnDisk, Page, StoredMessages
from amqpd.broker.queue.segment import Budget
from amqpd.message import Message


class SpillFileInMemory:
    """Spilled messages; `left` are the numbers of those that may still be read."""

    def __init__(self, run: Sequence[Message]) -> None:
        self.run = list(run)
        self.numbers = [message.number for message in run]
        self.left = set(self.numbers)

    def forget(self, numbers: Iterable[int]) -> None:
        """See broker/queue/pages.py."""
        self.left.difference_update(numbers)


class PageStoreInMemory:
    """See broker/ports.py. `read` is asked for what a store would keep."""

    def __init__(
        self, read: Callable[[list[int]], list[Message]], *, limit: int = 1 << 62, page_limits: PageLimits = PAGE_LIMITS
    ) -> None:
        self.budget = Budget(limit, page_limits=page_limits)
        self.safe_number = self.taken_number = self.committed_batch = 0
        self.is_open = True
        self.can_spill = True
        self.spill_files: list[SpillFileInMemory] = []
        self.fetched = 0
        self._read = read
        self._called: deque[Reader] = deque()
        self._spilling: deque[tuple[Page, list[Message]]] = deque()

    def call(self, reader: Reader) -> None:
        """See broker/ports.py."""
        self._called.append(reader)

    @property
    def is_waited_for(self) -> bool:
        """Whether a caller waits until it is open."""
        return bool(self._called)

    def serve(self) -> None:
        """Call all readers that wait for it."""
        for _ in range(len(self._called)):
            if self.is_open:
                self._called.popleft().read_on()

    def fetch(self, on_disk: OnDisk) -> list[Message]:
        """See broker/ports.py."""
        assert self.is_open, "the page store is closed"
        stored = on_disk.stored
        found = self._read(stored)
        if len(stored) < len(on_disk.numbers):
            assert isinstance(on_disk.spill_file, SpillFileInMemory)
            assert on_disk.spill_file.left, "the spill file is gone"
            wanted = {*on_disk.numbers}
            found = found + [message for message in on_disk.spill_file.run if message.number in wanted]
        self.fetched += len(found)
        return sorted(found, key=lambda message: message.number)

    def spill(self, page: Page, run: Sequence[Message]) -> None:
        """See broker/ports.py."""
        self._spilling.append((page, list(run)))

    def write_spill_files(self, *, fails: bool = False) -> None:
        """End the writing of spill files, or let it fail."""
        while self._spilling:
            page, run = self._spilling.popleft()
            if fails:
                page.stay(self.budget)
                continue
            self.spill_files.append(SpillFileInMemory(run))
            page.let_go(self.budget, self.spill_files[-1])


def stored(
    messages: Sequence[Message], expiries: Mapping[int, int] | None = None
) -> StoredMessages:
    """Return these messages as a store returns them; `expiries` by number, in ms since 1970."""
    ends = [(expiries or {}).get(message.number, NO_EXPIRY) for message in messages]
    lifetimes = [m.facts.expiration_ms for m in messages]
    return StoredMessages(
        array("q", [message.number for message in messages]), array("I", [m.body_size for m in messages]),
        array("q", ends) if expiries else None,
        array("q", [NO_EXPIRY if life is None else life for life in lifetimes]) if expiries else None,
        bytearray([min(m.facts.priority or 0, 255) for m in messages]))
