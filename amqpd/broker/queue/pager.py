"""Page the messages of one FIFO out if memory has no room, and load them before they are next.

While the store is being written, the page store is closed. What needs it waits, and continues when it opens; nothing
here blocks on the disk.

Always true between calls: if something waits, the page store has been asked to call.
"""

from __future__ import annotations

from collections.abc import Callable

from amqpd.broker.effort import Effort
from amqpd.broker.ports import PageStore
from amqpd.broker.queue.fifo import Fifo
from amqpd.broker.queue.page_limits import FEWEST_BYTES, PageLimits
from amqpd.broker.queue.pages import OnDisk, Page
from amqpd.broker.queue.records import QueueRecords
from amqpd.broker.queue.segment import MESSAGE_COST
from amqpd.broker.worklist import nothing
from amqpd.message import Message

STEPS_A_MESSAGE = 10    # the cost of reading one; see broker/effort.py


class MessageNotLoaded(Exception):
    """The next message of a queue is on disk, which is busy: `call` tells when it can be loaded."""

    def __init__(self, call: Callable[[Callable[[], None]], None]) -> None:
        super().__init__("the command has to wait for the disk, or for what the queue is busy with")
        self.call = call


def never() -> bool:
    """Return False."""
    return False


class Pager:
    """The pager of one FIFO.

    `go_on` is called when the page store is open, after `order_call`. `lost` is called with messages that should have
    been loaded and are not on disk. `is_spared_now` tells whether publishers should wait rather than that messages are
    paged out.
    """

    __slots__ = (
        "read_total", "is_large", "is_waiting", "_fifo", "_records", "_page_store", "_effort", "_go_on", "_lost",
        "_is_spared_now", "_callers", "_has_ended")

    def __init__(
        self, fifo: Fifo, records: QueueRecords, page_store: PageStore, effort: Effort, go_on: Callable[[], None],
        lost: Callable[[OnDisk], object], is_spared_now: Callable[[], bool] = never,
    ) -> None:
        self.read_total = 0
        self.is_large = False       # whether it is among the large ones of the budget
        self.is_waiting = False     # the page store will call
        self._fifo = fifo
        self._records = records
        self._page_store = page_store
        self._effort = effort
        self._go_on = go_on
        self._lost = lost
        self._is_spared_now = is_spared_now
        self._callers: list[Callable[[], None]] = []
        self._has_ended = False

    def end(self) -> None:
        """Stop loading and paging out; callbacks for the page store are still made."""
        self._has_ended = True
        self._go_on, self._is_spared_now = nothing, never
        self._page_store.budget.large.pop(self, None)

    @property
    def page_limits(self) -> PageLimits:
        """The limits of the pages of all queues."""
        return self._page_store.budget.page_limits

    # In

    @property
    def can_load(self) -> bool:
        """Whether the page store is open."""
        return self._page_store.is_open

    def load_next(self) -> bool:
        """Load the next page, if there is one; if that is not possible now, order a call and return False."""
        while (page := self._fifo.next_page) is not None:
            if page.content is None and not self._page_store.is_open:
                self.order_call()
                return False
            self._load(page)
        return True

    def load_ahead(self) -> None:
        """Load a page if few messages are left in memory."""
        page = self._fifo.page_ahead
        if page is not None:
            self._load(page)

    def _load(self, page: Page) -> None:
        found = self.fetch(page.on_disk) if page.content is None else page.content
        lost = self._fifo.load(found)
        if lost:
            self._lost(OnDisk(lost, page.spill_file))
        if not self.is_large:
            self.note_size()

    def fetch(self, on_disk: OnDisk) -> list[Message]:
        """Return these messages, without damaged ones; the page store must be open."""
        found = self._page_store.fetch(on_disk)
        self.read_total += len(found)
        self._effort.total += STEPS_A_MESSAGE * len(found)
        return found

    def order_call(self) -> None:
        """Order a call of `go_on` for when the page store is open."""
        if not self.is_waiting:
            self.is_waiting = True
            self._page_store.call(self)

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back, once, when the page store is open."""
        self._callers.append(go_on)
        self.order_call()

    def read_on(self) -> None:
        """See `Reader`."""
        self.is_waiting = False
        try:
            self._go_on()
        finally:
            callers, self._callers = self._callers, []
            for go_on in callers:
                go_on()

    # Out

    @property
    def cost(self) -> int:
        """See `Pageable`."""
        return self._fifo.cost

    @property
    def is_spared(self) -> bool:
        """See `Pageable`."""
        return self._is_spared_now()

    def note_size(self) -> None:
        """Add it to the large ones of the budget if paging out may be worth it."""
        fifo = self._fifo
        if fifo.body_bytes + MESSAGE_COST * len(fifo) > FEWEST_BYTES and not self._has_ended:
            self.is_large = True
            self._page_store.budget.large[self] = None

    def shrunk(self) -> None:
        """See `Pageable`."""
        self.is_large = False

    def page_out(self, wanted: int) -> None:
        """Page out up to so many bytes of messages that are not next, if the disk has them or can take them."""
        records, page_store = self._records, self._page_store
        safe, can_spill = page_store.safe_number, page_store.can_spill

        def may_go(message: Message) -> bool:
            return message.number <= safe if records.keeps(message) else can_spill

        for page in self._fifo.page_out(wanted, may_go):
            content = page.content or []
            kept = records.kept(content)
            if kept and kept[-1].number > safe:
                continue        # it was put back meanwhile, and its batch is not on disk yet
            if len(kept) < len(content):
                page.leave(page_store.budget)
                page_store.spill(page, [message for message in content if not records.keeps(message)])
            else:
                page.let_go(page_store.budget)
