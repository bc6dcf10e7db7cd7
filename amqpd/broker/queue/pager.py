"""Page the contents of a queue's messages out when memory has no room, and load them before they are next.

While the store is being written, the page store is closed. What needs it waits, and goes on when it opens; nothing here
ever waits for the disk.

Always true between calls: for every consumer, getter or dead letter that waits, the page store has been asked to call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from amqpd.broker.departure import Act
from amqpd.broker.ports import PageStore
from amqpd.broker.queue.pages import FEWEST_OCTETS, PAGE_MESSAGES, Cleared, OnDisk, Page, Removed
from amqpd.broker.queue.segment import MESSAGE_COST
from amqpd.message import Message

if TYPE_CHECKING:
    from amqpd.broker.queue.fifo import Fifo
    from amqpd.broker.queue.queue import Queue

PAGES_A_TURN = 1        # read for one queue before others have their turn
STEPS_A_MESSAGE = 10    # what reading one takes; see broker/effort.py


class MessageNotLoaded(Exception):
    """The next message of a queue is on disk, which is busy: `call` tells when it can be loaded."""

    def __init__(self, call: Callable[[Callable[[], None]], None]) -> None:
        super().__init__("the command has to wait for the disk, or for what the queue is busy with")
        self.call = call


class Paging:
    """Load and page out the messages of one queue."""

    def __init__(self, queue: Queue, page_store: PageStore) -> None:
        self.read_total = 0
        self.is_large = False       # whether it is among the large ones of the budget
        self._queue = queue
        self._page_store = page_store
        self._is_called = self._has_ended = False
        self._callers: list[Callable[[], None]] = []
        self._dead_lettering: deque[tuple[list[Message] | OnDisk, str]] = deque()

    @property
    def is_waiting(self) -> bool:
        """Return whether the queue waits for the disk."""
        return self._is_called

    @property
    def to_be_dropped(self) -> int:
        """Return how many messages have left the FIFO and are dead-lettered once they are loaded."""
        return sum([len(part.numbers) if isinstance(part, OnDisk) else len(part) for part, _ in self._dead_lettering])

    def release(self) -> None:
        """Forget the queue, which is deleted: at once, or when the page store has called."""
        self._has_ended = True
        if not self._is_called:
            del self._queue

    # In

    def see_to_next(self) -> bool:
        """Return whether the next message is in memory and may be handed out; if not, dispatch when it may."""
        ready = self._queue.ready
        while (page := ready.next_page) is not None:
            if page.content is None and not self._page_store.is_open:
                self._order_call()
                return False
            self._load(page)
        watermark = self._queue.watermark
        if watermark is None or not ready or watermark.bound(ready.first_number):
            return True
        watermark.wait(ready.number_at(watermark.block))
        self._order_call()
        return False

    def read_ahead(self) -> None:
        """Load a page soon if little is left in memory that consumers could be given."""
        if self._queue.ready.page_ahead is not None and self._queue.consumers:
            self._order_call()

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back when the page store is open."""
        self._callers.append(go_on)
        self._order_call()

    def _order_call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._page_store.call(self)

    def read_on(self) -> None:
        """Load what is needed, now that the page store is open, and go on."""
        self._is_called = False
        try:
            self._read_on()
        finally:
            callers, self._callers = self._callers, []
            if self._has_ended:
                self.release()
            for go_on in callers:
                go_on()

    def _read_on(self) -> None:
        queue = self._queue
        self._drop_next()
        if queue.consumers:
            for _ in range(PAGES_A_TURN):
                page = queue.ready.page_ahead
                if page is not None:
                    self._load(page)
        if not queue.deleted:
            queue.dispatch()

    # How much is in memory

    @property
    def cost(self) -> int:
        """See `Pageable`."""
        return self._queue.ready.cost

    @property
    def is_spared(self) -> bool:
        """See `Pageable`."""
        return bool(self._queue.consumers) and self._queue.keeps_up()

    def note_size(self) -> None:
        """Count as a large queue if there is so much that paging out may be worth it."""
        ready = self._queue.ready
        if ready.octets + MESSAGE_COST * len(ready) > FEWEST_OCTETS and not self._queue.deleted:
            self.is_large = True
            self._page_store.budget.large[self] = None

    def shrunk(self) -> None:
        """See `Pageable`."""
        self.is_large = False

    def end(self) -> None:
        """Stop paging: the queue is deleted."""
        self._page_store.budget.large.pop(self, None)

    def _load(self, page: Page) -> None:
        found = self._fetch(page.on_disk) if page.content is None else page.content
        lost = self._queue.ready.load(found)
        if lost:
            self._queue.settle_on_disk(OnDisk(lost, page.spill_file))
        if not self.is_large:
            self.note_size()

    def _fetch(self, on_disk: OnDisk) -> list[Message]:
        found = self._page_store.fetch(on_disk)
        self.read_total += len(found)
        self._queue.worklist.effort.total += STEPS_A_MESSAGE * len(found)
        return found

    # Out

    def page_out(self, octets: int) -> None:
        """Page out up to so many bytes of messages that are not next, as far as the disk has, or can take, them."""
        page_out(self._queue.ready, self._queue, self._page_store, octets)

    # Dead letters

    def drop(self, left: Removed, reason: str) -> None:
        """Dead-letter these messages, which have left the FIFO, in order; those on disk once they are loaded."""
        for part in left:
            if not isinstance(part, OnDisk):
                if part:
                    self._dead_lettering.append((part, reason))
                continue
            for start in range(0, len(part.numbers), PAGE_MESSAGES):
                piece = OnDisk(part.numbers[start : start + PAGE_MESSAGES], part.spill_file)
                self._dead_lettering.append((piece, reason))
        self._drop_next()

    def _drop_next(self) -> None:
        """Drop the messages that wait for it, as far as they can be loaded now."""
        pages = 0
        while self._dead_lettering:
            part, reason = self._dead_lettering[0]
            if isinstance(part, OnDisk) and (
                    not self._page_store.is_open or pages == PAGES_A_TURN or self._queue.produces_too_much):
                self._order_call()
                return
            self._dead_lettering.popleft()
            if not isinstance(part, OnDisk):
                self._queue.drop(part, reason)
                continue
            pages += 1
            if not self._queue.deleted:
                self._queue.drop_loaded(self._fetch(part), part, reason)
            if part.spill_file is not None:
                part.spill_file.forget(part.numbers)


def page_out(ready: Fifo, queue: Queue, page_store: PageStore, octets: int) -> None:
    """Page out up to so many bytes of a queue's messages: those in `ready`, or in another FIFO of the queue."""
    safe, can_spill, is_durable = page_store.safe_number, page_store.can_spill, queue.definition.durable

    def may_go(message: Message) -> bool:
        return message.number <= safe if is_durable and message.facts.persistent else can_spill

    for page in ready.page_out(octets, may_go):
        content = page.content or []
        kept = queue.kept(content)
        if kept and kept[-1].number > safe:
            continue        # it was put back in between, and its batch is not on disk yet
        if len(kept) < len(content):
            page.leave(page_store.budget)
            page_store.spill(page, [message for message in content if not queue.keeps(message)])
        else:
            page.let_go(page_store.budget)


def forget_spill_files(left: Cleared) -> Iterator[Act]:
    """Return the acts that drop the spill files of these pages, which nobody needs any more."""
    for part in left:
        if isinstance(part, Page) and part.spill_file is not None:
            numbers = part.on_disk.numbers
            yield len(numbers), partial(part.spill_file.forget, numbers)
